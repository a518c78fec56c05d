"""Programs of the operating system that tools stand on: where they are, and which version."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

from detectors.detector import MISSING

__all__ = ["program", "said", "version"]

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Not the environment's: what a scanned tree's author puts on a PATH must not be run."""


@functools.cache
def program(*names: str) -> Path | None:
    """Return the first of the named programs that is installed, without following its links."""
    found = (shutil.which(name, path=PATH) for name in names)
    return next((Path(place) for place in found if place), None)


@functools.cache
def said(place: Path, *arguments: str) -> str:
    """Return what a program prints on standard output; empty if it cannot be run."""
    try:
        done = subprocess.run([place, *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def version(place: Path | None) -> str:
    """Return the first line that a program says of its version, or `missing`."""
    return (place is not None and said(place, "--version").partition("\n")[0]) or MISSING
