"""
The Prefect tasks around the steps of a scan: names, retries, artifacts.

Every task runs in the flow's process; what is heavy it sends to the cluster as batches, straight through
`distributed`. Nothing of Prefect's own result store or cache is used: results are content-addressed by the engine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from detectors.model import RunRecord
from detectors.ports import Progress
from detectors.scan import CLUSTER_LOST, Scan, Stage

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from compliance.run_trail import RunTrail
    from compliance.signing import SigningKey

__all__ = ["execute", "execute_in_time", "plan", "publish", "reduce", "seal", "settle", "snapshot", "told", "verify"]

ROWS = 200
"""A larger artifact makes an event that the server drops (1.5 MB)."""
EVERY_S = 1.0


def _may_help(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Try again only where the cluster was lost: what was finished is in the cache, and a new cluster does the rest."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, CLUSTER_LOST.on)


@task(name="snapshot", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def snapshot(run: Scan) -> None:
    """See the tree."""
    seen = run.snapshot()
    get_run_logger().info("%d files, %d not readable", len(seen.files), len(seen.not_analysed))


@task(name="plan", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def plan(run: Scan) -> tuple[Stage, ...]:
    """Look results up and make batches of the misses."""
    stages = run.plan()
    for stage in stages:
        get_run_logger().info("%s: %d units, %d from the cache", stage.name, stage.planned, stage.cached)
    return stages


@task(
    name="execute",
    task_run_name="execute-{stage}",
    tags=["scan"],
    retries=CLUSTER_LOST.attempts - 1,
    retry_delay_seconds=CLUSTER_LOST.base_s,
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def execute(run: Scan, stage: str) -> str:
    """Run the batches of one detector stage."""
    run.execute(stage)
    return stage


@task(name="execute", task_run_name="execute-in-time", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def execute_in_time(run: Scan) -> str:
    """Run the batches of all detectors by risk, as many as end before the deadline."""
    run.execute_all()
    return "all"


@task(name="reduce", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def reduce(run: Scan) -> None:
    """Run the rules over the whole tree."""
    run.reduce()


@task(name="settle", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def settle(run: Scan) -> RunRecord:
    """Reconcile planned and answered units, and make the record."""
    record = run.settle()
    for problem in record.problems:
        get_run_logger().warning(problem)
    return record


@task(name="evidence", tags=["evidence"], cache_policy=NO_CACHE, persist_result=False)
def seal(record: RunRecord, folder: Path, key: SigningKey, trail: RunTrail) -> None:
    """Write and sign the evidence, and put the attestation's digest into the ledger, if there is one."""
    from compliance.evidence import collect

    _ = collect(record, folder, key, trail)


@task(name="verify", tags=["evidence"], cache_policy=NO_CACHE, persist_result=False)
def verify(folder: Path) -> None:
    """Check the evidence as an auditor would; raises where it does not hold."""
    from compliance.errors import EvidenceError
    from compliance.evidence import verify as verify_evidence

    verdict = verify_evidence(folder)
    if not verdict.ok:
        bad = ", ".join(f"{check.file}: {check.problem}" for check in verdict.checked if not check.ok)
        raise EvidenceError(f"the evidence {folder} does not verify right after it was written: {bad}")


@task(name="publish", tags=["scan"], cache_policy=NO_CACHE, persist_result=False)
def publish(record: RunRecord, evidence: Path | None) -> None:
    """Make the artifacts of the run: a table by rule, and a summary."""
    counts = Counter((item.detector, item.finding.rule, item.finding.level) for item in record.findings)
    rows = [
        {"detector": detector, "rule": rule, "level": level, "findings": count}
        for (detector, rule, level), count in counts.most_common(ROWS)
    ]
    create_table_artifact(table=rows, key="findings-by-rule", description=_wholeness(record))
    where = f"\nEvidence: `{evidence}` (report.html in it)\n" if evidence else ""
    create_markdown_artifact(
        markdown=(
            f"# Scan {record.run_id}\n\n{_wholeness(record)}\n\n"
            f"- {len(record.files)} files, {record.planned} units: {record.executed} executed, {record.cached} cached\n"
            f"- {len(record.findings)} findings, {len(record.not_analysed)} entries not analysed\n"
            f"- findings digest `{record.findings_digest}`\n{where}"
        ),
        key="scan-summary",
    )


def told(also: Progress | None) -> Progress:
    """
    Return a progress callback that keeps a progress artifact up to date, at most once a second.

    Args:
        also: Told of every advance, too.
    """
    artifact = create_progress_artifact(
        progress=0.0, key="scan-progress", description="Share of the units that are done"
    )
    update: Callable[..., object] = update_progress_artifact
    last = [0.0]

    def tell(stage: str, done: int, total: int) -> None:
        if also is not None:
            also(stage, done, total)
        now = time.monotonic()
        if isinstance(artifact, UUID) and (now - last[0] > EVERY_S or stage == "reduce"):
            last[0] = now
            update(
                artifact_id=artifact, progress=100.0 * done / max(total, 1), description=f"{stage}: {done} of {total}"
            )

    return tell


def _wholeness(record: RunRecord) -> str:
    if record.whole:
        return f"Whole: each of {record.planned} planned units has exactly one answer."
    return "NOT WHOLE: " + "; ".join(record.problems[:5])
