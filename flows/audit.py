"""
The flow `audit`: verify the ledger and the evidence of the last runs, against anchors that were kept elsewhere.

A check that does not hold fails the flow run, and raises an alert: whoever watches Prefect sees it, and whoever gets
the alerts need not watch.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.utilities.annotations import quote
from pydantic import Field

from compliance.ledger_verify import Verdict
from detectors.alerts import LogSink
from detectors.errors import DetectorPoolError, UsageError
from detectors.ports import Alert, AlertSink
from flows.admission import admit_verification

__all__ = ["AuditReport", "IntegrityFailed", "audit_flow", "run_audit_flow"]

ROWS = 200
"""A larger artifact makes an event that the server drops (1.5 MB)."""
_SINKS: contextvars.ContextVar[tuple[AlertSink, ...]] = contextvars.ContextVar("sinks")


class Verified(msgspec.Struct, frozen=True):
    """One ledger or evidence folder."""

    what: str
    ok: bool
    anchored: bool
    """Whether it was held against a key or checkpoint kept elsewhere."""
    problem: str


class AuditReport(msgspec.Struct, frozen=True):
    """What an audit showed."""

    ledger: Verdict | None
    verified: tuple[Verified, ...]

    @property
    def ok(self) -> bool:
        """Whether something was verified, and all of it holds."""
        return bool(self.verified) and all(one.ok for one in self.verified)


class IntegrityFailed(DetectorPoolError):
    """Something that must never change has changed, or cannot be verified."""

    exit_code = 1

    def __init__(self, report: AuditReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        bad = [f"{one.what}: {one.problem}" for one in self.report.verified if not one.ok]
        return "integrity is not what it must be: " + ("; ".join(bad[:5]) or "there was nothing to verify")


@task(name="verify-ledger", cache_policy=NO_CACHE, persist_result=False)
def verify_ledger(folder: Path, public_key: Path | None, checkpoint: Path | None) -> Verdict:
    """Verify every byte of the ledger."""
    from compliance.ledger_verify import verify

    verdict = verify(folder, public_key=public_key, checkpoint=checkpoint)
    assert verdict.ok or verdict.problem, "what does not hold has a reason"
    get_run_logger().info("ledger %s: %s, %d records", folder, verdict.verdict, verdict.records)
    return verdict


@task(name="verify-evidence", cache_policy=NO_CACHE, persist_result=False)
def verify_evidence(folder: Path, public_key: Path | None) -> Verified:
    """Verify one run's evidence as an auditor would."""
    from compliance.evidence import verify

    verdict = verify(folder, public_key)
    bad = [f"{check.file}: {check.problem}" for check in verdict.checked if not check.ok]
    assert verdict.ok or bad, "what does not hold has a reason"
    get_run_logger().info("evidence %s: %s", folder, "holds" if verdict.ok else "; ".join(bad[:5]))
    return Verified(str(folder), verdict.ok, verdict.anchored, "; ".join(bad[:5]))


@task(name="compare-runs", cache_policy=NO_CACHE, persist_result=False)
def compare_runs(ledger: Path, evidence: Path, last: int) -> list[Verified]:
    """Hold the last runs that the ledger attests against the folders of evidence; return those without one."""
    from compliance.attested_runs import attested_runs, missing_evidence

    runs = attested_runs(ledger, last)
    missing = missing_evidence(runs, evidence)
    assert len(missing) <= last, "no more than were looked for"
    get_run_logger().info("%d attested runs looked for in %s, %d missing", len(runs), evidence, len(missing))
    return [Verified(f"run {run}", ok=False, anchored=False, problem=problem) for run, problem in missing.items()]


@task(name="look-for-unfinished-runs", cache_policy=NO_CACHE, persist_result=False)
def unfinished(evidence: Path, last: int, public_key: Path | None) -> list[Verified]:
    """
    Return what is stated of runs that left no evidence.

    One that says what ended it is told; one that says that it goes on, and whose process is gone, does not hold.
    """
    from compliance.errors import EvidenceError
    from compliance.signing import VerifyingKey
    from compliance.unfinished_runs import read, unfinished_runs

    trusted = None if public_key is None else VerifyingKey.load(public_key)
    found: list[Verified] = []
    for file in unfinished_runs(evidence)[-last:]:
        try:
            said = read(file, trusted)
        except EvidenceError as problem:
            found.append(Verified(str(file), ok=False, anchored=False, problem=str(problem)))
            continue
        if said.outcome != "running" or said.alive is False:
            holds = said.outcome != "running"
            found.append(Verified(str(file), ok=holds, anchored=trusted is not None, problem=said.told))
    assert len(found) <= last, "no more than were looked for"
    get_run_logger().info("%d runs in %s that did not finish", len(found), evidence)
    return found


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(report: AuditReport) -> None:
    """Make the artifacts: a table of what was verified, and a summary."""
    rows = [msgspec.structs.asdict(one) for one in report.verified[:ROWS]]
    assert len(rows) <= ROWS, "a larger one would be dropped"
    bad = sum(not one.ok for one in report.verified)
    told = f"{len(report.verified)} verified, {bad} do not hold"
    create_table_artifact(table=rows, key="audit-integrity", description=told)
    ledger = report.ledger
    about = "" if ledger is None else f"\n- ledger: {ledger.verdict}, {ledger.records} records, root `{ledger.root}`\n"
    anchored = sum(one.anchored for one in report.verified)
    create_markdown_artifact(
        markdown=f"# Audit\n\n{'All holds.' if report.ok else 'INTEGRITY FAILED.'}\n\n- {told}\n"
        f"- {anchored} held against anchors kept elsewhere; the others against themselves only\n{about}",
        key="audit-summary",
    )


@flow(
    name="audit",
    flow_run_name="audit",
    description="Verify the ledger and the evidence of the last runs; fail where anything was changed.",
    persist_result=False,
    validate_parameters=True,
)
def audit_flow(  # noqa: PLR0917  # p10: ignore[R10] Prefect: a field a parameter by the maintainers
    ledger: str | None = None,
    evidence: str | None = None,
    last: Annotated[int, Field(ge=1)] = 10,
    checkpoint: str | None = None,
    public_key: str | None = None,
    request: str | None = None,
) -> AuditReport:
    """
    Verify the ledger and the evidence of the last runs; fail where anything was changed, or a run's evidence is gone.

    Args:
        ledger: Folder of the ledger. With `evidence`, the last runs that it attests must have theirs.
        evidence: Folder that holds a folder of evidence for each run.
        last: How many of the newest are verified.
        checkpoint: File with a checkpoint of the ledger, kept elsewhere.
        public_key: File with the key that signed, kept elsewhere.
        request: What `detector-pool access request` printed, where an access policy asks for it; no secret.

    Raises:
        AccessDenied: Who asks for this run may not.
        IntegrityFailed: After everything was verified, published and alerted.
        UsageError: There is nothing to verify, or a checkpoint without a ledger.
        CheckpointInvalid, KeyUnusable: An anchor that is none.
    """
    admit_verification(audit_flow.fn, locals())
    if ledger is None and (evidence is None or checkpoint is not None):
        raise UsageError("an audit needs a ledger or a folder of evidence, and a checkpoint needs its ledger")
    key = Path(public_key) if public_key else None
    verified: list[Verified] = []
    verdict = None
    if ledger is not None:
        verdict = verify_ledger(Path(ledger), key, Path(checkpoint) if checkpoint else None)
        verified.append(Verified(ledger, verdict.ok, verdict.anchored, verdict.problem or ""))
    if evidence is not None:
        # A damaged ledger says of no run that it was; that it is damaged is what counts then.
        missing = compare_runs(Path(ledger), Path(evidence), last) if ledger and verdict and verdict.ok else []
        verified += missing
        begun = unfinished(Path(evidence), last, key)
        needed = not missing and not begun
        verified += [verify_evidence(folder, key) for folder in _newest(Path(evidence), last, needed=needed)]
        verified += begun
    report = AuditReport(verdict, tuple(verified))
    # Quoted, so that Prefect does not walk through it in search of futures.
    quoted: Any = quote(report)
    publish(quoted)
    if not report.ok:
        _alert(report)
        raise IntegrityFailed(report)
    return report


def run_audit_flow(
    *,
    ledger: Path | None,
    evidence: Path | None,
    last: int = 10,
    checkpoint: Path | None = None,
    public_key: Path | None = None,
    sinks: Sequence[AlertSink] | None = None,
) -> AuditReport:
    """
    Run the flow in this process, against the server that `PREFECT_API_URL` names.

    Args:
        ledger: As of the flow.
        evidence: As of the flow.
        last: As of the flow.
        checkpoint: As of the flow.
        public_key: As of the flow.
        sinks: Get an alert for each thing that does not hold; the log when absent.

    Returns:
        The report, also of a flow run that failed because of what it says.
    """
    token = _SINKS.set((LogSink(),) if sinks is None else tuple(sinks))
    try:
        report = audit_flow(_text(ledger), _text(evidence), last, _text(checkpoint), _text(public_key))
    except IntegrityFailed as problem:
        return problem.report
    finally:
        _SINKS.reset(token)
        # The server may end with this run; what was logged must be there before.
        APILogHandler().flush()
    assert isinstance(report, AuditReport), "the flow returns its report"
    return report


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _newest(folder: Path, last: int, *, needed: bool) -> list[Path]:
    """
    Return the newest evidence folders, newest first; raises UsageError if one is needed and there is none.

    One that does not say when it began comes first: what was damaged must not drop out by its damage.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name the one that holds the runs' evidence")
    found = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not found and needed:
        raise UsageError(f"{folder} holds no evidence; there is nothing to verify")
    newest = sorted(found, key=lambda entry: (_began(entry), entry.name), reverse=True)[:last]
    assert newest or not needed, "at least one, where nothing else is told"
    return newest


class _Began(msgspec.Struct):
    started: str


def _began(folder: Path) -> str:
    """Return when the run began, as RFC 3339 sorts; `~` sorts behind all of them."""
    try:
        return msgspec.json.decode((folder / "run.json").read_bytes(), type=_Began).started
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return "~"


def _alert(report: AuditReport) -> None:
    """Tell the sinks of each thing that does not hold."""
    for one in report.verified:
        if one.ok:
            continue
        assert one.problem, "what does not hold has a reason"
        alert = Alert("integrity", one.what, "critical", 1.0, 1.0, one.problem, time.time())
        for sink in _SINKS.get((LogSink(),)):
            sink.send(alert)
