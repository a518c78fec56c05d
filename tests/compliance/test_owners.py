"""Whose a finding is: CODEOWNERS first, else the author of the line, and never a guess."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from compliance.followed import Followed
from compliance.owners import owners_of, with_owners
from detectors.errors import UsageError
from tests.detectors.git_trees import made


def followed(path: str, line: int, data: str) -> Followed:
    digest = "sha256:" + hashlib.sha256(data.encode()).hexdigest()
    return Followed(
        "open", f"{path}:{line}", "r", path, line, "warning", "m", "d", False, "", "", "1", "1", None, 0, 1.0, digest
    )


def test_the_last_line_of_codeowners_that_fits_names_the_owner() -> None:
    """As forges read it: later lines win, a line without owner takes them away."""
    text = "* @all\n/src/ @team/core\n*.py someone@example.org @py\n/src/free.c\n"
    paths = ["README", "src/a.c", "src/b.py", "src/free.c"]

    assert owners_of(text, paths) == ("@all", "@team/core", "someone@example.org @py", "")


@pytest.mark.parametrize("text", ["[a @x\n", "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b @x\n"])
def test_a_hostile_file_costs_a_process_and_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern whose matching never ends must not hang the history."""
    from detectors import sandbox

    monkeypatch.setattr("compliance.owners.LIMITS", sandbox.Limits(wall_s=2.0, cpu_s=2, memory_bytes=1 << 30))
    with pytest.raises(UsageError, match="CODEOWNERS"):
        owners_of(text, ["a" * 200])


def test_a_line_without_owner_is_its_authors_where_the_bytes_are_the_same(tmp_path: Path) -> None:
    """A line number of other bytes is another line: then nobody is named."""
    files = {"src/a.c": "one\ntwo\n", "src/b.c": "one\n", ".github/CODEOWNERS": "/src/b.c @b\n"}
    tree = made(tmp_path / "tree", files)
    told = with_owners(
        [followed("a.c", 2, files["src/a.c"]), followed("a.c", 9, files["src/a.c"]), followed("b.c", 1, "x")],
        tree / "src",
    )
    assert [one.owner for one in told.findings] == ["author@example.org", None, "@b"]
    assert told.problems == ()

    other = with_owners([followed("a.c", 2, "other bytes")], tree / "src")
    assert [one.owner for one in other.findings] == [None]


def test_a_tree_without_a_repository_has_the_owners_of_its_file(tmp_path: Path) -> None:
    """An exported tree; the missing authors are said, not invented."""
    (tmp_path / "CODEOWNERS").write_text("* @all\n")
    told = with_owners([followed("a.c", 1, "x")], tmp_path)
    assert [one.owner for one in told.findings] == ["@all"]
    assert ["no authors" in problem for problem in told.problems] == [True]

    (tmp_path / "CODEOWNERS").unlink()
    (tmp_path / "CODEOWNERS").symlink_to("/etc/passwd")
    told = with_owners([followed("a.c", 1, "x")], tmp_path)
    assert [one.owner for one in told.findings] == [None]
    assert "there is no CODEOWNERS" in told.problems
    with pytest.raises(UsageError, match="--sources"):
        with_owners([], tmp_path / "none")
