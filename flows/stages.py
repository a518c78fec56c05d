"""
The Prefect tasks around the steps of a scan: names, retries, artifacts.

Every task runs in the flow's process; what is heavy it sends to the cluster as batches, straight through
`distributed`. Nothing of Prefect's own result store or cache is used: results are content-addressed by the engine.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.logging import get_logger, get_run_logger

from detectors.model import RunRecord
from detectors.ports import Progress
from detectors.scan import CLUSTER_LOST, Scan, Stage
from flows import artifacts

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from compliance.run_trail import RunTrail
    from compliance.signing import SigningKey

__all__ = [
    "execute", "execute_in_time", "plan", "publish", "reduce", "seal", "settle", "snapshot", "telling", "verify",
]  # fmt: skip

EVERY_S = 1.0


def _may_help(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Try again only where the cluster was lost: what was finished is in the cache, and a new cluster does the rest."""
    failure = state.result(raise_on_failure=False)
    return isinstance(failure, CLUSTER_LOST.on)


@task(name="snapshot", cache_policy=NO_CACHE, persist_result=False)
def snapshot(run: Scan) -> None:
    """See the tree."""
    seen = run.snapshot()
    get_run_logger().info("%d files, %d not readable", len(seen.files), len(seen.not_analysed))


@task(name="plan", cache_policy=NO_CACHE, persist_result=False)
def plan(run: Scan) -> tuple[Stage, ...]:
    """Look results up and make batches of the misses."""
    stages = run.plan()
    for stage in stages:
        get_run_logger().info("%s: %d units, %d from the cache", stage.name, stage.planned, stage.cached)
    return stages


@task(
    name="execute",
    task_run_name="execute-{stage}",
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


@task(name="execute", task_run_name="execute-in-time", cache_policy=NO_CACHE, persist_result=False)
def execute_in_time(run: Scan) -> str:
    """Run the batches of all detectors by risk, as many as end before the deadline."""
    run.execute_all()
    return "all"


@task(name="reduce", cache_policy=NO_CACHE, persist_result=False)
def reduce(run: Scan) -> None:
    """Run the rules over the whole tree."""
    run.reduce()


@task(name="settle", cache_policy=NO_CACHE, persist_result=False)
def settle(run: Scan) -> RunRecord:
    """Reconcile planned and answered units, and make the record."""
    record = run.settle()
    for problem in record.problems:
        get_run_logger().warning(problem)
    return record


@task(name="evidence", cache_policy=NO_CACHE, persist_result=False)
def seal(record: RunRecord, folder: Path, key: SigningKey, trail: RunTrail) -> None:
    """Write and sign the evidence, and put the attestation's digest into the ledger, if there is one."""
    from compliance.evidence import collect

    _ = collect(record, folder, key, trail)


@task(name="verify", cache_policy=NO_CACHE, persist_result=False)
def verify(folder: Path) -> None:
    """Check the evidence as an auditor would; raises where it does not hold."""
    from compliance.errors import EvidenceError
    from compliance.evidence import verify as verify_evidence

    verdict = verify_evidence(folder)
    if not verdict.ok:
        bad = ", ".join(f"{check.file}: {check.problem}" for check in verdict.checked if not check.ok)
        raise EvidenceError(f"the evidence {folder} does not verify right after it was written: {bad}")


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(record: RunRecord, evidence: Path | None) -> None:
    """Make the artifacts of the run: tables by rule and detector, the trend, a summary, a link to the report."""
    assert record.run_id, "a run has a name"
    with _patient():
        artifacts.publish(record, evidence, _wholeness(record))


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Let a run whose evidence is there not fail because the server is away: its artifacts repeat the evidence."""
    try:
        yield
    except (httpx.HTTPError, PrefectException) as problem:
        get_run_logger().warning("artifacts could not be published: %s", problem)


@contextlib.contextmanager
def telling(also: Progress | None) -> Iterator[Progress]:
    """
    Yield a progress callback that keeps a progress artifact up to date, at most once a second.

    A thread of its own talks to the server: while that is away, the work goes on.

    Args:
        also: Told of every advance, too.
    """
    told: queue.SimpleQueue[tuple[str, int, int] | None] = queue.SimpleQueue()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(_tell, told), name="progress", daemon=True)
    thread.start()

    def tell(stage: str, done: int, total: int) -> None:
        assert done >= 0, "what is done is counted"
        if also is not None:
            also(stage, done, total)
        told.put((stage, done, total))

    try:
        yield tell
    finally:
        told.put(None)
        thread.join(EVERY_S)  # while the server is away, what it was not told is not waited for


def _tell(told: queue.SimpleQueue[tuple[str, int, int] | None]) -> None:
    """Send the newest advance, once a second, until there are no more."""
    update: Callable[..., object] = update_progress_artifact
    try:
        artifact = create_progress_artifact(
            progress=0.0, key="scan-progress", description="Share of the units that are done"
        )
        assert isinstance(artifact, UUID), "a thread without a loop is answered at once"
        newest = told.get()
        while newest is not None:
            stage, done, total = newest
            update(
                artifact_id=artifact, progress=100.0 * done / max(total, 1), description=f"{stage}: {done} of {total}"
            )
            time.sleep(0 if stage == "reduce" else EVERY_S)
            newest = _latest(told)
    except (httpx.HTTPError, PrefectException) as problem:
        get_logger("progress").warning("progress is told no more: %s", problem)


def _latest(told: queue.SimpleQueue[tuple[str, int, int] | None]) -> tuple[str, int, int] | None:
    """Wait for an advance, and pass over those that a newer one follows."""
    newest = told.get()
    with contextlib.suppress(queue.Empty):
        while newest is not None:
            newest = told.get_nowait()
    return newest


def _wholeness(record: RunRecord) -> str:
    if record.whole:
        return f"Whole: each of {record.planned} planned units has exactly one answer."
    return "NOT WHOLE: " + "; ".join(record.problems[:5])
