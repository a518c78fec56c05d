"""The rooms import downwards only: detectors, compliance, flows, deployments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
ROOMS = ("detectors", "compliance", "flows", "deployments")
UPWARDS = (
    ("detectors", "flows"),
    ("detectors", "compliance.errors"),
    ("compliance", "flows"),
    ("flows", "deployments.settings"),
)


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of `pyproject.toml` on the packages that stand in `folder`."""
    # `-P` and the explicit path: the copy must be linted, not the installed project.
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); "
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    command = [sys.executable, "-P", "-c", code, "--config", str(folder / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def copy_of_house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms that may be spoilt."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(HOUSE / "pyproject.toml", folder)
    for room in ROOMS:
        shutil.copytree(HOUSE / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_rooms_import_downwards_only() -> None:
    """When this fails, a lower room leans on a higher one, and can no longer be used or tested alone."""
    done = _lint_imports(HOUSE)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("lower", "upper"), UPWARDS)
def test_an_upward_import_hidden_in_a_function_is_noticed(copy_of_house: Path, lower: str, upper: str) -> None:
    """When this fails, the test above looks at the imports at the top of files only and proves little."""
    planted = copy_of_house / lower / "planted.py"
    planted.write_text(f"def later():\n    import {upper}\n    return {upper}\n")
    try:
        done = _lint_imports(copy_of_house)
    finally:
        planted.unlink()

    assert done.returncode == 1
    assert f"{lower}.planted -> {upper}" in done.stdout
