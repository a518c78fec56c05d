"""Commands that the documentation shows with a prompt are run as they stand there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detectors.git_trees import made

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/access.md", "docs/certificates.md", "docs/how-to-cluster.md", "docs/how-to-merge-requests.md")


def _sessions(text: str) -> list[tuple[str, int]]:
    """Return the commands of a document's console blocks, each with the exit code that it says (`! N`)."""
    found: list[tuple[str, int]] = []
    for block in text.split("```console\n")[1:]:
        for line in block.split("```")[0].splitlines():
            if line.startswith("$ "):
                found.append((line[2:], 0))
            elif line.startswith("! "):
                found[-1] = (found[-1][0], int(line[2:]))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_shows_works(document: str, tmp_path: Path) -> None:
    """When this fails, a reader types what the documentation says and gets an error."""
    commands = _sessions((ROOT / document).read_text())
    made(tmp_path / "tree", {"src/a.py": "A: int = 1\n", "CODEOWNERS": "* @all\n"})
    environment = {**os.environ, "DETECTOR_POOL_HOME": str(tmp_path / "home")}

    assert len(commands) >= 4
    for command, code in commands:
        program, *words = shlex.split(command)
        assert program == "detector-pool"
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *words],
            cwd=tmp_path / "tree", env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
