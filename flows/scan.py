"""The flow `scan`: snapshot, plan, a task a detector stage, reduce, settle, evidence, verify."""

from __future__ import annotations

import contextvars
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from prefect import flow
from prefect.logging.handlers import APILogHandler
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from pydantic import Field

from compliance.identity import state_folder
from compliance.judged_runs import judged
from compliance.run_trail import LedgerPlace, RunTrail, own_ledger
from compliance.signing import SigningKey
from compliance.unfinished_runs import Mark
from detectors.errors import DetectorPoolError, UsageError
from detectors.model import RunRecord
from detectors.ports import Progress
from detectors.rule_settings import settings_from
from detectors.scan import Scan, ScanOptions
from flows import quality, stages
from flows.admission import admit_run
from flows.endings import limited, record_cancellation, record_crash, taken_passphrase, this_run

__all__ = ["NotWhole", "run_scan_flow", "scan_flow"]

STAGES_AT_ONCE = 16
"""Threads that wait for batches; the work itself is bounded by the run's workers."""


STARTED = "{started}"


class NotWhole(DetectorPoolError):
    """Units that were planned have no answer; the evidence says so, and the flow run fails."""

    exit_code = 4

    def __init__(self, record: RunRecord) -> None:
        assert not record.whole, "a whole run has not failed"
        # Not the record itself: whoever logs the error would print all of it.
        super().__init__("the run is not whole: " + "; ".join(record.problems[:5]))
        self.record = record


@dataclasses.dataclass(frozen=True)
class _Caller:
    """What a caller in this process hands over that is no parameter: a secret, and a callback."""

    passphrase: bytes | None = dataclasses.field(default=None, repr=False)
    progress: Progress | None = None
    ledger: LedgerPlace | None = None


_quoted: Callable[[object], Any] = quote
"""Keeps Prefect from walking through a value in search of futures; the task gets the value itself."""
_CALLER: contextvars.ContextVar[_Caller] = contextvars.ContextVar("caller")


@flow(
    name="scan",
    flow_run_name="scan-{paths[0]}",
    description="Scan source trees with every detector; write and verify signed evidence.",
    task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE),  # type: ignore[arg-type]  # its type is generic in what tasks return
    persist_result=False,
    validate_parameters=True,
    on_cancellation=[record_cancellation],
    on_crashed=[record_crash],
)
def scan_flow(  # noqa: PLR0917  # p10: ignore[R10] Prefect: a field a parameter by the maintainers
    paths: Annotated[list[str], Field(min_length=1)],
    evidence: str | None = None,
    keys: str | None = None,
    detectors: list[str] | None = None,
    cluster: str | None = None,
    workers: Annotated[int | None, Field(ge=1)] = None,
    cache: str | None = None,
    use_cache: bool = True,
    verify_cache: Annotated[float, Field(ge=0, le=1)] = 0.0,
    baseline: str | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    ignore: bool = True,
    rules: dict[str, Any] | None = None,
    sources: str = "auto",
    store: str | None = None,
    request: str | None = None,
    validate_tables: bool = False,
    data_docs: str | None = None,
    waivers: str | None = None,
    qualifications: str | None = None,
    qualification_key: str | None = None,
    deadline_s: Annotated[float | None, Field(gt=0)] = None,
    show_effect: bool = False,
    since: str | None = None,
    imports: list[str] | None = None,
    excerpts: bool = True,
    time_limit_s: Annotated[float | None, Field(gt=0)] = None,
) -> RunRecord:
    """
    Scan source trees with every detector; write and verify signed evidence.

    Args:
        paths: Folders or files to scan.
        evidence: New folder for the signed evidence; `{started}` in it becomes the time of the run, so that a
            schedule makes a new one each time.
        keys: Folder of the signing key; this machine's own when empty.
        detectors: Names; all that are installed when empty.
        cluster: inline, local, or a scheduler's tls:// address.
        workers: How many batches at once.
        cache: Folder of the cache.
        use_cache: Whether stored answers are taken.
        verify_cache: Share of the stored answers, 0 to 1, that is computed again and compared.
        baseline: Output of an earlier `scan --json`.
        include: Gitignore-style patterns of files in scope.
        exclude: Gitignore-style patterns of files out of scope.
        ignore: Whether .gitignore files are obeyed.
        rules: Limits, vocabulary and selection of the rules, as under [tool.detector-pool].
        sources: How a scheduler's workers get the files: shared path, shipped, or auto, which looks.
        store: Address, without secrets, of a store of results that several drivers share.
        request: What `detector-pool access request` printed, where an access policy asks for it; no secret.
        validate_tables: Whether the run's own tables are held against expectations.
        data_docs: New folder for what that showed, as HTML.
        waivers: Folder of signed waivers.
        qualifications: Folder of qualification statements.
        qualification_key: File of the public key that signed them.
        deadline_s: Seconds in which the run shall end: what is riskiest goes first, and what is not reached is told.
        show_effect: Whether it is shown which findings the tree would mute if its files were obeyed.
        since: Git commit; only what differs from it is looked at, and only what it has not counts.
        imports: SARIF files of other tools, whose results become findings of the run.
        excerpts: Whether results and evidence may hold words of the sources.
        time_limit_s: Seconds after which the run is ended; none when empty.

    Raises:
        AccessDenied: Who asks for this run may not.
        NotValid: After the evidence was written, when those do not hold or cannot be evaluated.
        NotWhole: After the evidence was written, when planned and answered units do not reconcile.
        RunTimedOut: The time limit was reached; the run was ended.
        DetectorPoolError: As `detectors.scan.scan`.
    """
    admit_run(scan_flow.fn, locals())
    if show_effect and not excerpts:
        raise UsageError("show_effect tells what the tree's own files say, which excerpts withholds; give one of them")
    if deadline_s is not None and show_effect:
        raise UsageError("show_effect runs tools a second time, which deadline_s has no time for; give one of them")
    options = ScanOptions(
        paths=tuple(map(Path, paths)), detectors=None if detectors is None else tuple(detectors), cluster=cluster,
        workers=workers, sources=sources, store=store or "", cache=Path(cache) if cache else None, use_cache=use_cache,
        verify_cache=verify_cache, baseline=Path(baseline) if baseline else None, include=tuple(include or ()),
        exclude=tuple(exclude or ()), ignore=ignore, settings=settings_from(rules or {}, "the parameter rules"),
        canaries=evidence is not None, deadline_s=deadline_s, since=since, imports=tuple(map(Path, imports or ())),
        excerpts=excerpts,
    )  # fmt: skip
    caller = _CALLER.get(None) or _of_the_worker()
    folder = None if evidence is None else Path(evidence.replace(STARTED, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
    # Before the work: a key that cannot be used must not cost the night's results.
    place = Path(keys) if keys else state_folder() / "keys"
    key = None if folder is None else SigningKey.load_or_create(place, caller.passphrase)
    with RunTrail(caller.ledger) as trail, Mark(folder, key) as mark, limited(time_limit_s):
        with stages.telling(caller.progress) as progress:
            record = _scanned(options, trail, mark, progress)
        record = judged(
            record, waivers=Path(waivers) if waivers else None,
            qualifications=Path(qualifications) if qualifications else None,
            qualification_key=Path(qualification_key) if qualification_key else None,
            effect_of=options if show_effect else None,
        )  # fmt: skip
        if validate_tables:
            record = quality.validate(_quoted(record), Path(data_docs) if data_docs else None)
        quoted = _quoted(record)
        trail.settled(record)
        if folder is not None and key is not None:
            stages.seal(quoted, folder, _quoted(key), _quoted(trail))
            stages.verify(folder)
            mark.finished()
        stages.publish(quoted, folder)
        assert bool(record.validated) == validate_tables, "tables are judged if it was asked for"
        if not record.whole:
            raise NotWhole(record)
        quality.require(record)
    return record


def run_scan_flow(
    options: ScanOptions,
    *,
    evidence: Path | None,
    keys: Path,
    passphrase: bytes | None = None,
    progress: Progress | None = None,
    ledger: LedgerPlace | None = None,
    validate_tables: bool = False,
    data_docs: Path | None = None,
    waivers: Path | None = None,
    qualifications: Path | None = None,
    qualification_key: Path | None = None,
    show_effect: bool = False,
) -> RunRecord:
    """
    Run the flow in this process, against the server that `PREFECT_API_URL` names.

    Args:
        options: What to do.
        evidence: New folder for the signed evidence.
        keys: Folder of the signing key.
        passphrase: Of the signing key; never a parameter of the flow, which the server would show.
        progress: Told of every advance.
        ledger: Where the run is recorded.
        validate_tables: Whether the run's own tables are held against expectations.
        data_docs: New folder for what that showed, as HTML.
        waivers: Folder of signed waivers.
        qualifications: Folder of qualification statements.
        qualification_key: File of the public key that signed them.
        show_effect: Whether it is shown what the tree would mute.

    Returns:
        The record, also of a run that is not whole or not valid (whose flow run has failed).
    """
    assert options.paths, "a flow run scans something"
    assert data_docs is None or validate_tables, "docs are of tables that were validated"
    token = _CALLER.set(_Caller(passphrase, progress, ledger))
    try:
        return scan_flow(
            paths=[str(path) for path in options.paths],
            evidence=None if evidence is None else str(evidence.absolute()),
            keys=str(keys),
            detectors=None if options.detectors is None else list(options.detectors),
            cluster=options.cluster,
            workers=options.workers,
            sources=options.sources,
            store=options.store or None,
            cache=None if options.cache is None else str(options.cache),
            use_cache=options.use_cache,
            verify_cache=options.verify_cache,
            baseline=None if options.baseline is None else str(options.baseline),
            include=list(options.include),
            exclude=list(options.exclude),
            ignore=options.ignore,
            rules=msgspec.to_builtins(options.settings),
            validate_tables=validate_tables,
            data_docs=None if data_docs is None else str(data_docs.absolute()),
            waivers=None if waivers is None else str(waivers.absolute()),
            qualifications=None if qualifications is None else str(qualifications.absolute()),
            qualification_key=None if qualification_key is None else str(qualification_key.absolute()),
            deadline_s=options.deadline_s,
            show_effect=show_effect,
            since=options.since,
            imports=[str(file.absolute()) for file in options.imports],
            excerpts=options.excerpts,
        )
    except (NotWhole, quality.NotValid) as problem:
        return problem.record
    finally:
        _CALLER.reset(token)
        # The server may end with this run; what was logged must be there before.
        APILogHandler().flush()


def _of_the_worker() -> _Caller:
    """Return what a run has that a worker began: the passphrase in its environment, and the ledger that this opens."""
    passphrase = taken_passphrase()
    if passphrase is None:
        return _Caller()
    return _Caller(passphrase, ledger=own_ledger(state_folder(), passphrase))


def _scanned(options: ScanOptions, trail: RunTrail, mark: Mark, progress: Progress) -> RunRecord:
    flow_run, deployment = this_run()
    mark.began(options.paths, flow_run, deployment)
    with Scan(options, progress) as scan:
        mark.named(scan.run_id)
        trail.started(scan.run_id, options, scan.commitment, flow_run)
        run = _quoted(scan)
        stages.snapshot(run)
        planned = stages.plan(run)
        trail.planned(planned)
        if scan.options.deadline_s is not None:
            # The order of risk goes across detectors, which no task of one detector can keep.
            submitted = [stages.execute_in_time.submit(run)]
        else:
            submitted = [stages.execute.submit(run, stage.name) for stage in planned if stage.batches]
        # `.result()` of each: a task that was lost stays pending for ever, while its flow would end completed.
        finished = [future.result() for future in submitted]
        assert len(finished) == len(submitted), "every submitted stage has a result or has raised"
        stages.reduce(run)
        record: RunRecord = stages.settle(run)
        assert record.run_id == scan.run_id, "what is told of the run is under its own name"
        return record
