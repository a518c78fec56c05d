"""The release that anyone builds from the same sources is the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
SOURCES = (
    "detectors", "compliance", "flows", "deployments", "tests", "docs", "examples",
    "Makefile", "prefect.yaml", "requirements.txt", "pyproject.toml", "LICENSE",
    "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md",
)  # fmt: skip
EPOCH_S = 1_700_000_000
DAY_S = 86_400


def _built(folder: Path, mask: int, modified_s: int) -> dict[str, str]:
    """Build wheel and sdist of a copy with other times and another umask; return sha256 by file name."""
    for name in SOURCES:
        source, copy = PROJECT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
    for file in folder.rglob("*"):
        os.utime(file, (modified_s, modified_s))
    environment = {"PATH": os.environ["PATH"], "SOURCE_DATE_EPOCH": str(EPOCH_S)}
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "out")]
    done = subprocess.run(
        command, cwd=folder, env=environment, umask=mask, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "out").iterdir()}


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Nobody could hold our wheel or sdist against its sources if the folder, the time or the umask showed in it."""
    first = _built(tmp_path / "one", 0o022, EPOCH_S + DAY_S)
    second = _built(tmp_path / "another-folder", 0o077, EPOCH_S + 9 * DAY_S)

    assert sorted(name.rpartition(".")[2] for name in first) == ["gz", "whl"]
    assert first == second
