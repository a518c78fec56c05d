"""What the README says must be so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_help_text_is_the_real_one(pool_command: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """A command that is not in the README, or only there, misleads."""
    shown = README.split("<!-- help -->\n```\n")[1].split("```")[0]

    assert shown.strip() == pool_command("--help").stdout.decode().strip()


def test_every_target_it_names_exists() -> None:
    """The first thing a stranger types."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text()

    assert (
        set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= targets
    )


def test_every_module_stands_in_the_map() -> None:
    """A module that ARCHITECTURE.md does not name has no place in the house."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for room in ("detectors", "compliance", "flows", "deployments"):
        for file in (ROOT / room).glob("*.py"):
            assert file.stem == "__init__" or f"`{file.stem}`" in text, file


def test_the_lock_names_no_address() -> None:
    """An address in the lock would send users behind a firewall elsewhere."""
    assert "://" not in (ROOT / "requirements.txt").read_text()
