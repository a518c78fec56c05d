"""`coverage.json`: one state for every file and detector, so that nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

from compliance import coverage
from compliance.errors import EvidenceExists
from detectors.model import RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "write"]

NAME = coverage.NAME
MEDIA_TYPE = "application/json"


def write(run: RunRecord, file: Path) -> None:
    """
    Write the statement.

    Raises:
        EvidenceExists: The file is there already.
        CoverageIncomplete: The run says that it is whole, and units are missing.
    """
    if file.exists():
        raise EvidenceExists(str(file))
    coverage.require_whole(run)
    file.write_bytes(coverage.dumps(run))
