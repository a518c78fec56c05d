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
    assert names, "some program is looked for"
    assert not any("/" in name for name in names), "a path would be taken as it is, without a search"
    found = next((Path(place) for name in names if (place := shutil.which(name, path=PATH))), None)
    assert found is None or found.is_absolute(), "a relative place would change with the working directory"
    return found


@functools.cache
def said(place: Path, *arguments: str) -> str:
    """Return what a program prints on standard output; empty if it cannot be run."""
    assert place.is_absolute(), "the working directory may be the scanned tree's"
    assert arguments, "without an argument a program may wait for input"
    try:
        done = subprocess.run([place, *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def version(place: Path | None) -> str:
    """Return the first line that a program says of its version, or `missing`."""
    if place is None:
        return MISSING
    return said(place, "--version").partition("\n")[0] or MISSING
