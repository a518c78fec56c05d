"""Real work for a pool: the rules of the Power of Ten on real files, as a function that any worker finds by name."""

from __future__ import annotations

import functools
import importlib.util
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from detectors.detector import RuleGroup, discover
from detectors.errors import UsageError
from detectors.model import Language
from detectors.parsing import Unparsable, parse

__all__ = ["FileCall", "file_findings", "here", "source_files", "timed_findings"]

FileCall = tuple[str, Language]
"""Path and language: the arguments of the functions below."""
Places = list[str]
"""`rule:line:column`, sorted: plain enough for any store."""
UNPARSABLE: Places = ["unparsable"]
LANGUAGES: dict[str, Language] = {".c": "c", ".h": "c", ".py": "python"}
LARGEST_BYTES = 40_000
"""Larger files would decide alone."""


def here() -> tuple[Path, ...]:
    """Return folders of real sources that every installation has: the standard library, and numpy's headers of C."""
    found = [Path(sysconfig.get_path("stdlib"))]
    numpy = importlib.util.find_spec("numpy")
    if numpy is not None and numpy.origin is not None:
        found.append(Path(numpy.origin).parent / "_core" / "include")
    assert found[0].is_dir(), "an interpreter has its standard library"
    return tuple(folder for folder in found if folder.is_dir())


def source_files(folders: Sequence[Path], most: int, largest_bytes: int = LARGEST_BYTES) -> tuple[FileCall, ...]:
    """
    Choose files of C and Python evenly over some folders.

    Args:
        folders: Searched with all below them, but for installed packages inside of a standard library.
        most: Files, at most, of each folder.
        largest_bytes: Of a file; 1 at least.

    Raises:
        UsageError: There is no such file.
    """
    chosen: list[FileCall] = []
    for folder in folders:
        found = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix in LANGUAGES
            and "site-packages" not in path.relative_to(folder).parts
            and path.is_file()
            and 0 < path.stat().st_size <= largest_bytes
        )
        step = max(1, -(-len(found) // most))
        chosen += [(str(path), LANGUAGES[path.suffix]) for path in found[::step]]
    if not chosen:
        raise UsageError(f"there is no C or Python below {', '.join(map(str, folders))}")
    assert len(chosen) <= most * len(folders), "no more than asked for"
    return tuple(chosen)


def file_findings(path: str, language: Language) -> Places:
    """
    Read a file and run the rules of its language.

    Returns:
        What was found; of a file that cannot be parsed, one place that says so.

    Raises:
        UsageError: There are no rules for the language.
    """
    with open(path, "rb") as file:  # noqa: PTH123  # a Path costs what is measured here
        data = file.read()
    try:
        report = _rules(language).check_file(parse(data, language, path.rpartition("/")[2]))
    except Unparsable:
        return list(UNPARSABLE)
    return sorted(f"{one.rule}:{one.region.start_line}:{one.region.start_column}" for one in report.findings)


def timed_findings(path: str, language: Language) -> tuple[float, Places]:
    """Return the processor seconds of this thread that the work took, and `file_findings`."""
    before_s = time.thread_time()
    found = file_findings(path, language)
    spent_s = time.thread_time() - before_s
    assert spent_s >= 0, "a thread's processor time only grows"
    return spent_s, found


@functools.lru_cache(maxsize=4)
def _rules(language: Language) -> RuleGroup:
    name = f"power-of-ten-{language}"
    group = discover()[name]
    if not isinstance(group, RuleGroup):
        raise UsageError(f"{name} is no group of rules")
    return group
