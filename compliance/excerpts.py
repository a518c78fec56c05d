"""
The lines around findings, as they were when the run read them.

A file is read again when the report is written; what does not have the snapshot's digest any more gives no excerpt, so
that a report never shows lines that no detector saw.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from compliance.identity import open_regular
from detectors.model import LocatedFinding, RunRecord, SourceFile
from detectors.parsing import decode
from detectors.withholding import NO_EXCERPTS

__all__ = ["AROUND", "Excerpt", "excerpts_of"]

AROUND = 2
"""Lines before a finding's first line, and after its last."""
MOST_LINES = 12
MOST_CHARACTERS = 240
"""Of a line; generated code has lines of megabytes."""
MOST_BYTES = 4 << 20
"""Of a file that is read again for its excerpts."""


class Excerpt(msgspec.Struct, frozen=True, array_like=True):
    """Some lines of a file."""

    first_line: int
    lines: tuple[str, ...]


def excerpts_of(run: RunRecord, chosen: Iterable[int]) -> dict[int, Excerpt]:
    """
    Return excerpts by place in `run.findings`.

    Args:
        run: Whose trees lie where they lay.
        chosen: Places of the findings that are asked for; those whose file is gone, changed or over 4 MiB get none,
            nor does any of a run whose words are withheld.
    """
    if NO_EXCERPTS in run.command:
        return {}
    wanted: dict[str, list[int]] = defaultdict(list)
    for place in chosen:
        wanted[run.findings[place].path].append(place)
    found: dict[int, Excerpt] = {}
    for file in run.files:
        if file.path not in wanted:
            continue
        lines = _lines(file, Path(run.roots[file.root].path))
        for place in wanted[file.path] if lines else ():
            found[place] = _around(run.findings[place], lines)
    assert len(found) <= sum(map(len, wanted.values())), "an excerpt is of a finding that was asked for"
    return found


def _lines(file: SourceFile, root: Path) -> Sequence[str]:
    """Return the lines of a file that is still what the run read; nothing otherwise."""
    if file.size_bytes > MOST_BYTES:
        return ()
    try:
        descriptor, _ = open_regular(root / os.fsdecode(file.raw))
        with os.fdopen(descriptor, "rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError:
        return ()  # gone, or a link now: a report without this excerpt is whole
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != file.digest:
        return ()
    return re.split(r"\r\n|\n|\r", decode(data, file.language))


def _around(item: LocatedFinding, lines: Sequence[str]) -> Excerpt:
    region = item.finding.region
    assert region.start_line >= 1, "lines count from 1"
    first = max(min(region.start_line, len(lines)) - AROUND, 1)
    last = min((region.end_line or region.start_line) + AROUND, first + MOST_LINES - 1, len(lines))
    assert first <= last, "an excerpt has a line"
    return Excerpt(first, tuple(line[:MOST_CHARACTERS] for line in lines[first - 1 : last]))
