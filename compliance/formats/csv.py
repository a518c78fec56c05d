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
    return table.getvalue().encode()


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value
