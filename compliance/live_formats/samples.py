"""`compliance-samples.parquet`: one row a look, for pandas, DuckDB and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from compliance.live_record import LiveRecord, Sample

__all__ = ["NAME", "schema", "write"]

NAME = "compliance-samples.parquet"
WHOLE = frozenset(
    {"violations", "executed", "failed", "retried", "refused", "queued", "memory_bytes", "ledger_records"}
)
MAY_LACK = frozenset({"controls_held", "power_of_ten", "overhead_share", "ledger_records"})


def schema() -> Any:
    """Return the Arrow schema: the fields of `Sample`, in order."""
    import pyarrow as pa

    names = Sample.__struct_fields__
    assert set(names) >= WHOLE | MAY_LACK, "columns are fields of a sample"
    assert names[0] == "time", "a table over time begins with it"
    kinds = {name: pa.int64() if name in WHOLE else pa.float64() for name in names}
    return pa.schema([pa.field(name, kind, nullable=name in MAY_LACK) for name, kind in kinds.items()])


def write(record: LiveRecord, file: Path) -> None:
    """Write the table with a fixed schema, also when there was no look yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert record.looks >= len(record.samples), "each sample is a look"
    rows = [msgspec.structs.asdict(sample) for sample in record.samples]
    table = pa.Table.from_pylist(rows, schema=schema())
    assert table.num_rows == len(record.samples), "one row a look"
    pq.write_table(table, file, compression="zstd")
