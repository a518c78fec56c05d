"""Comma-separated values (RFC 4180) for spreadsheets: one line a finding. Output only, no evidence."""

from __future__ import annotations

import csv
import io

from detectors.findings import as_json
from detectors.model import RunRecord

__all__ = ["dumps"]

COLUMNS = (
    "rule", "path", "line", "column", "level", "message", "detector", "fingerprint", "baseline", "suppressed",
    "waived",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Spreadsheets run a cell that begins so (CWE-1236); paths and messages come from the scanned tree."""


def dumps(run: RunRecord) -> bytes:
    """Return a header and the findings, UTF-8; a text that a spreadsheet would run has an apostrophe before it."""
    assert len(set(COLUMNS)) == len(COLUMNS), "a column is named once"
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(COLUMNS)
    for item in run.findings:
        shown = {"waived": ""} | as_json(item)
        writer.writerow([_harmless(shown[column]) for column in COLUMNS])
    data = table.getvalue().encode()
    assert data.count(b"\r\n") > len(run.findings), "a header, and a line a finding"
    return data


def _harmless(value: object) -> object:
    assert not isinstance(value, bytes), "a cell is a text or a number"
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
