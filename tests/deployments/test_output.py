"""What commands print and write."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deployments.output import plain, write_new
from detectors.errors import UsageError


def test_nothing_drives_the_terminal() -> None:
    """When this fails, a file's name moves the cursor, or forges a second line."""
    assert plain("a\x1b[2Jb\nc\u202ed\r") == "a\\x1b[2Jb\\nc\\u202ed\\r"
    assert plain("ü 漢") == "ü 漢"


def test_a_file_is_written_once_whole_and_with_its_mode(tmp_path: Path) -> None:
    """When this fails, a signed statement is written over, a link is followed, or a token is readable by others."""
    file = tmp_path / "s"
    write_new(file, b"one", mode=0o600)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="exists"):
        write_new(file, b"two")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists"):
        write_new(tmp_path / "link", b"three")
    with pytest.raises(UsageError, match="cannot be written"):
        write_new(tmp_path / "no" / "s", b"four")
    assert {one.name: one.is_symlink() for one in tmp_path.iterdir()} == {"s": False, "link": True}
    assert file.read_bytes() == b"one"
