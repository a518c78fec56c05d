"""`findings.parquet`: one row a finding, for pandas, DuckDB and the like."""

from __future__ import annotations

from pathlib import Path

from compliance.errors import EvidenceExists
from detectors.findings import as_json
from detectors.model import RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "write"]

NAME = "findings.parquet"
MEDIA_TYPE = "application/vnd.apache.parquet"


def write(run: RunRecord, file: Path) -> None:
    """
    Write the table with a fixed schema, also when there is no finding; the run's id and wholeness are metadata.

    Raises:
        EvidenceExists: The file is there already.
    """
    if file.exists():
        raise EvidenceExists(str(file))
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    schema = pa.schema(
        [
            pa.field("rule", text, nullable=False),
            pa.field("path", text, nullable=False),
            pa.field("line", pa.int32(), nullable=False),
            pa.field("column", pa.int32(), nullable=False),
            pa.field("level", text, nullable=False),
            pa.field("message", text, nullable=False),
            pa.field("detector", text, nullable=False),
            pa.field("fingerprint", text, nullable=False),
            pa.field("baseline", text, nullable=False),
            pa.field("suppressed", pa.bool_(), nullable=False),
            pa.field("waived", text, nullable=False),
        ],
        metadata={"run_id": run.run_id, "whole": str(run.whole), "findings_digest": run.findings_digest},
    )
    shown = ({"waived": ""} | as_json(item) for item in run.findings)
    rows = [{key: value for key, value in row.items() if key != "related"} for row in shown]
    assert all(row.keys() == set(schema.names) for row in rows[:1]), "Arrow leaves out what its schema does not name"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
