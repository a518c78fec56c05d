"""
Finding the markers with which a source asks a tool for silence; the tools run with all of them switched off.

And lines and columns as tools mean them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from detectors.model import Finding, Suppression
from detectors.parsing import decode

__all__ = ["Marker", "column_of", "lines_of", "suppressed"]

Marker = Callable[[Sequence[str], Finding], str | None]
"""Given the file's lines and a finding: the marker that would have muted it, or `None`."""


def lines_of(data: bytes) -> list[str]:
    """Return the file's lines, decoded as Python or UTF-8 or Latin-1; ends at `\\n`, `\\r\\n` or `\\r`."""
    if not data:
        return [""]
    lines = re.split(r"\r\n|\n|\r", decode(data, "text"))
    assert "\r" not in lines[-1], "each kind of line end parts lines"
    return lines


def column_of(line: str, offset: int | None) -> int:
    """Return the column of a byte offset from 0, as `ast` counts, in code points from 1; 1 where there is none."""
    assert "\n" not in line, "an offset counts from the start of one line"
    if offset is None or offset <= 0:
        return 1
    return len(line.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace")) + 1


def suppressed(finding: Finding, lines: Sequence[str], marker: Marker) -> Finding:
    """Return the finding, marked as suppressed where `marker` says so."""
    assert finding.suppression is None, "tools run with their markers switched off"
    found = marker(lines, finding)
    if found is None:
        return finding
    text = found.strip()[:200]
    assert text, "a marker is something that stands in the source"
    return msgspec.structs.replace(finding, suppression=Suppression(text))
