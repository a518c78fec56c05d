"""The Prefect task that holds a run's own tables against Great Expectations, through a checkpoint."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from detectors.errors import DetectorPoolError
from detectors.model import RunRecord

__all__ = ["NotValid", "require", "validate"]

CELLS = 10
"""Problems shown of one table; all are in the evidence."""


class NotValid(DetectorPoolError):
    """The run's own tables do not hold what is expected of them, or could not be checked; the flow run fails."""

    exit_code = 1

    def __init__(self, record: RunRecord, problem: str) -> None:
        # Not the record itself: whoever logs the error would print all of it.
        assert problem, "what is not valid has a reason"
        super().__init__(record.run_id, problem)
        self.record, self.problem = record, problem

    def __str__(self) -> str:
        return self.problem


def require(record: RunRecord) -> None:
    """
    Do nothing for a record whose tables passed, or were not validated.

    Raises:
        NotValid: With the record.
    """
    from compliance.errors import EvidenceError
    from compliance.expectations import require_valid

    assert all(one.problems for one in record.validated if one.outcome != "passed"), "what does not hold has a reason"
    try:
        require_valid(record.validated)
    except EvidenceError as problem:
        raise NotValid(record, str(problem)) from problem


@task(name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(record: RunRecord, docs: Path | None) -> RunRecord:
    """
    Return the record with what validating its tables showed; the flow judges it once the evidence is written.

    Args:
        record: Of the run.
        docs: New folder for Data Docs; none when absent.
    """
    from compliance.expectations import validated

    assert not record.validated, "a record is validated once"
    checked = validated(record, docs=docs)
    assert checked.run_id == record.run_id, "validating makes no other run of it"
    assert checked.findings_digest == record.findings_digest, "validating changes no finding"
    rows = [
        {
            "table": one.table, "rows": one.rows, "expectations": one.checks, "outcome": one.outcome,
            "problems": "; ".join(one.problems[:CELLS]),
        }
        for one in checked.validated
    ]  # fmt: skip
    assert rows, "a run has tables"
    assert all(row["outcome"] == "passed" or row["problems"] for row in rows), "what does not hold has a reason"
    for one in checked.validated:
        get_run_logger().info("%s: %d rows, %d expectations, %s", one.table, one.rows, one.checks, one.outcome)
    create_table_artifact(table=rows, key="data-quality", description="The run's own tables against expectations")
    return checked
