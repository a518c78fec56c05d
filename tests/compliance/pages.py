"""Commands of a page of the documentation, run as they stand in a folder that holds what its reader has."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["DOCS", "Run", "commands_of", "runner"]

DOCS = Path(__file__).parents[2] / "docs"
Run = Callable[[str], subprocess.CompletedProcess[str]]
LIMIT_S = 200


def commands_of(page: str) -> list[str]:
    """Return the blocks of shell commands of a page, in order."""
    found = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found, "a page without commands shows nothing"
    return found


def runner(folder: Path, environment: Mapping[str, str]) -> Run:
    """Return what runs commands in a folder, under nothing but this environment."""

    def run(commands: str) -> subprocess.CompletedProcess[str]:
        shell = ["/bin/sh", "-eu", "-c", commands]
        return subprocess.run(
            shell, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    return run
