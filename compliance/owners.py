"""
Who owns a file or a line: the tree's CODEOWNERS, else who wrote the line last.

Both are read from a tree that nobody vouches for: CODEOWNERS in a sandboxed process, git as `detectors.repository` does
it. The author of a line is only told where the checked-out commit has the very bytes on which the finding was made.

Source: GitHub "About code owners"; GitLab "Code Owners".
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from compliance import codeowners_lookup
from compliance.codeowners_lookup import Asked
from compliance.followed import Followed
from detectors import sandbox
from detectors.errors import RepositoryUnusable, ToolError, UsageError
from detectors.repository import BlamedLine, Repository

__all__ = ["PLACES", "Owned", "owners_of", "with_owners"]

PLACES: Final = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
"""Where forges look for the file, in this order; the first that is there speaks."""
MAX_BYTES = 3 << 20
"""GitHub's limit for the file."""
LIMITS: Final = sandbox.Limits(wall_s=20.0, cpu_s=20, memory_bytes=1 << 30)
MAX_BLAMED_FILES = 500
"""A process a file; the rest has no author told, which the problem says."""


class Owned(msgspec.Struct, frozen=True):
    """Findings with their owners."""

    findings: tuple[Followed, ...]
    problems: tuple[str, ...]
    """Why some may have none."""


def owners_of(text: str, paths: Sequence[str]) -> tuple[str, ...]:
    """
    Return the owners of files, each as the CODEOWNERS text names them, parted by spaces; empty for none.

    Args:
        text: Of the file.
        paths: From the repository's top folder.

    Raises:
        UsageError: The text cannot be used: a pattern that is none, or one that takes for ever.
    """
    given = msgspec.json.encode(Asked(text, tuple(paths)))
    with tempfile.TemporaryDirectory(prefix="owners-") as scratch:
        folder = Path(os.path.realpath(scratch)) / "src"
        folder.mkdir()
        argv = [sys.executable, "-I", str(codeowners_lookup.__file__)]
        try:
            done = sandbox.run("CODEOWNERS", argv, folder, LIMITS, 1, given)
        except ToolError as problem:
            raise UsageError(f"the CODEOWNERS file cannot be used: {problem}") from problem
    if done.exit_code != 0:
        raise UsageError("the CODEOWNERS file cannot be used: it holds a pattern that is none")
    found = msgspec.json.decode(done.stdout, type=tuple[str, ...])
    if len(found) != len(paths):
        raise UsageError("the CODEOWNERS file cannot be used: its reader gave too few answers")
    return found


def with_owners(findings: Sequence[Followed], sources: Path) -> Owned:
    """
    Return findings of one tree with their owners.

    Args:
        findings: Paths count from `sources`.
        sources: A checkout of the tree; it may be a part of a repository.

    Raises:
        UsageError: `sources` is no folder.
    """
    if not sources.is_dir():
        raise UsageError(f"--sources {sources} is no folder; name a checkout of the tree")
    problems: list[str] = []
    paths = sorted({one.path for one in findings})
    try:
        repository = Repository(sources)
    except (RepositoryUnusable, ToolError) as problem:
        named = _by_file(Path(os.path.realpath(sources)), "", paths, problems)
        return Owned(_named(findings, named, {}), (*problems, f"lines have no authors: {problem}"))
    with repository:
        below = os.path.relpath(os.path.realpath(sources), repository.top)
        prefix = "" if below == "." else f"{below}/"
        named = _by_file(repository.top, prefix, paths, problems)
        open_ = {one.path: one.digest for one in findings if not named.get(one.path) and one.state != "fixed"}
        if len(open_) > MAX_BLAMED_FILES:
            problems.append(f"authors are told for {MAX_BLAMED_FILES} files of {len(open_)}")
        blamed = _blamed(repository, prefix, dict(sorted(open_.items())[:MAX_BLAMED_FILES]))
    return Owned(_named(findings, named, blamed), tuple(problems))


def _by_file(top: Path, prefix: str, paths: Sequence[str], problems: list[str]) -> dict[str, str]:
    text = _text(top)
    if text is None:
        problems.append("there is no CODEOWNERS")
        return {}
    try:
        found = owners_of(text, [prefix + path for path in paths])
    except UsageError as problem:
        problems.append(str(problem))
        return {}
    return dict(zip(paths, found, strict=True))


def _text(top: Path) -> str | None:
    for place in PLACES:
        file = top / place
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with os.fdopen(descriptor, "rb") as opened:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                data = opened.read(MAX_BYTES + 1)
                return data.decode("utf-8", "replace") if len(data) <= MAX_BYTES else None
    return None


def _blamed(repository: Repository, prefix: str, digests: Mapping[str, str]) -> dict[str, tuple[BlamedLine, ...]]:
    try:
        commit = repository.commit("HEAD")
        entries = repository.tree(commit)
        places = {path: (prefix + path).encode() for path in digests}
        here = {path: entries[place] for path, place in places.items() if place in entries and entries[place].is_file}
        contents = dict(repository.contents(here.values()))
        same = [
            path
            for path, entry in here.items()
            if "sha256:" + hashlib.sha256(contents[entry.id]).hexdigest() == digests[path]
        ]
        return {path: repository.blame(commit, places[path]) for path in same}
    except (RepositoryUnusable, ToolError):
        return {}  # a repository without a commit, or with a damaged one, says nothing of authors


def _named(
    findings: Sequence[Followed], named: Mapping[str, str], blamed: Mapping[str, tuple[BlamedLine, ...]]
) -> tuple[Followed, ...]:
    told = []
    for one in findings:
        lines = blamed.get(one.path, ())
        author = lines[one.line - 1].mail if 0 < one.line <= len(lines) else None
        told.append(msgspec.structs.replace(one, owner=named.get(one.path) or author))
    assert len(told) == len(findings), "none is lost"
    return tuple(told)
