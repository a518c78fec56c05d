"""`run.json`: the whole run record: digests, versions, plan, timings, what came from the cache and of which run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compliance.errors import EvidenceExists
from detectors.model import RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "write"]

NAME = "run.json"
MEDIA_TYPE = "application/json"


def write(run: RunRecord, file: Path) -> None:
    """Write the record; raw path bytes are base64, keys in the record's order; raises EvidenceExists."""
    if file.exists():
        raise EvidenceExists(str(file))
    assert run.run_id, "without its id the record is of no run"
    file.write_bytes(msgspec.json.encode(run) + b"\n")
