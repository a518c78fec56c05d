"""`compliance.json`: the whole record of a live monitor."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compliance.live_record import LiveRecord

__all__ = ["NAME", "write"]

NAME = "compliance.json"


def write(record: LiveRecord, file: Path) -> None:
    """Write the record as it is."""
    encoded = msgspec.json.encode(record)
    assert encoded.startswith(b"{"), "a record is an object"
    size = file.write_bytes(encoded + b"\n")
    assert size > 0, "something was written"
