"""`compliance-violations.parquet`: one row a violation, those that are over and those that last."""

from __future__ import annotations

from pathlib import Path

import msgspec

from compliance.live_record import LiveRecord

__all__ = ["NAME", "write"]

NAME = "compliance-violations.parquet"


def write(record: LiveRecord, file: Path) -> None:
    """Write the table with a fixed schema, also when nothing was violated."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, seconds = pa.string(), pa.float64()
    kinds = {
        "check": text, "subject": text, "level": text, "message": text, "since": seconds, "until": seconds,
        "findings": pa.int64(),
    }  # fmt: skip
    schema = pa.schema([pa.field(name, kind, nullable=name == "until") for name, kind in kinds.items()])
    rows = [msgspec.structs.asdict(violation) for violation in record.violations]
    assert all(row.keys() == kinds.keys() for row in rows), "the columns are the fields of a violation"
    table = pa.Table.from_pylist(rows, schema=schema)
    assert table.num_rows == len(rows), "one row a violation"
    pq.write_table(table, file, compression="zstd")
