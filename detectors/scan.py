"""
The pipeline, and the only file that knows the order of its steps.

    snapshot → plan → execute (a stage a detector) → reduce (whole tree) → settle → RunRecord

`scan()` walks through them at once; a Prefect flow calls the same steps of a `Scan` as tasks, so both doors give the
same bytes. Answers go to the cache as they come: a run that is ended in the middle has lost nothing that was done.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import graphlib
import hashlib
import math
import os
import platform
import random
import secrets
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from detectors import canaries, suppressions
from detectors import findings as finding_rules
from detectors import snapshot as snapshots
from detectors.cache import CachedResult, ResultCache, result_key
from detectors.canaries import SEED_BYTES
from detectors.deadline import DeadlineGate, risk_of, warnings_of
from detectors.detector import ClosureTool, Detector, Registry, RuleGroup, Tool, discover, fact_readers
from detectors.errors import ClusterError, ClusterLost, DetectorBroken, SourceChanged, UsageError
from detectors.model import (
    Analysed,
    BatchRecord,
    CanaryCount,
    CanaryRecord,
    DeadlineRecord,
    DetectorRecord,
    Digest,
    Finding,
    Imported,
    LocatedFinding,
    NotAnalysed,
    Outcome,
    RunRecord,
    SourceFile,
    UnitRecord,
)
from detectors.parsing import MAX_PARSE_BYTES, ParsedFile, collector_paused
from detectors.ports import Observe, Progress, installed_observers, open_cluster, open_store
from detectors.retries import RetryPolicy
from detectors.rule_settings import RuleSettings
from detectors.tree_closures import NO_CLOSURE, TreeClosures
from detectors.withholding import NO_EXCERPTS, without_words
from detectors.workload_optimizer import Batch, BatchLimits, Risk, WorkloadOptimizer

if TYPE_CHECKING:
    from detectors.batch import BatchResult
    from detectors.changes import Change
    from detectors.parallel_executor import Backend, DaskBackend, ParallelExecutor

__all__ = ["CLUSTER_LOST", "Scan", "ScanOptions", "Stage", "scan"]

WORTH_A_CLUSTER_S = 30.0
"""Predicted seconds a worker below which starting a cluster costs more than it brings (2 to 3 s, and 1 s a worker)."""
CLUSTER_LOST = RetryPolicy(attempts=3, base_s=1.0, on=(ClusterLost,))
"""For both doors: what was finished is in the cache, and a new cluster does the rest."""
CLUSTER_AWAITED = RetryPolicy(attempts=4, base_s=1.0, cap_s=10.0, on=(ClusterError,))
"""Of a scan whose cluster was there: a scheduler that is started again cannot be reached for a while."""
CLOSING, CLOSING_SEALED = "(closing)", "(closing with evidence)"
"""Names under which it is learnt how long the end of a run takes, after its last batch; no detector can carry them."""
CLOSING_S, CLOSING_SEALED_S, CLOSING_RATE, CLOSING_SHARE = 0.3, 4.0, 0.02, 0.5
"""Seconds without and with evidence, and a megabyte, believed of it until learnt; its most of a deadline."""
CLOSING_LEAST_S = 2.0
"""Kept of a long deadline at the least."""
MOST_ROUNDS = 50
"""Of looking for what may still begin before a deadline; each begins something, and teaches what the next predicts."""
SOURCES = ("auto", "shared", "shipped")
LOOKED_AT = 8
"""Files that the workers of a scheduler are asked to read before sources are left to a shared path."""
Unit = tuple[str, str]
"""(report path, detector)."""


@dataclasses.dataclass(frozen=True)
class ScanOptions:
    """What a scan is asked to do."""

    paths: tuple[Path, ...]
    detectors: tuple[str, ...] | None = None
    """Names; `None` for all that are installed."""
    cluster: str | None = None
    """`inline`, `local`, a scheduler's address; `None` to choose by the predicted work."""
    workers: int | None = None
    """`None`: as many as processors."""
    cache: Path | None = None
    """Folder; `None` for a cache in memory."""
    use_cache: bool = True
    """Whether stored answers are taken; new ones are stored in any case."""
    verify_cache: float = 0.0
    """Share of the stored answers, 0 to 1, that is computed again and compared."""
    baseline: Path | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ignore: bool = True
    settings: RuleSettings = dataclasses.field(default_factory=RuleSettings)
    """Limits, vocabulary and selection of the rules."""
    canaries: bool = False
    """Whether each batch holds known violations that its detectors must report; see `detectors.canaries`."""
    deadline_s: float | None = None
    """Seconds from the start in which the run shall end, riskiest first; see `detectors.deadline`."""
    since: str | None = None
    """A git commit: detectors of single files look at what differs from it, and what it has is no news."""
    imports: tuple[Path, ...] = ()
    """SARIF files of other tools, whose results become findings of this run."""
    excerpts: bool = True
    """Whether the record may hold words of the sources; see `detectors.withholding`."""
    sources: str = "auto"
    """How a scheduler's workers get the sources: `shared` path, `shipped` with each batch; `auto` looks."""
    store: str = ""
    """Address, without secrets, of a store that several drivers share; empty for none."""

    def shown(self) -> tuple[str, ...]:
        """Return what shapes the result, for the evidence."""
        return (
            f"detectors={','.join(self.detectors) if self.detectors is not None else '*'}",
            f"include={','.join(self.include)}",
            f"exclude={','.join(self.exclude)}",
            f"ignore={self.ignore}",
            f"settings={msgspec.json.encode(self.settings).decode()}",
            f"use_cache={self.use_cache}",
            f"verify_cache={self.verify_cache}",
            f"baseline={self.baseline.name if self.baseline else ''}",
            *(() if self.deadline_s is None else (f"deadline={self.deadline_s:g}s",)),
            *([f"since={self.since}"] if self.since is not None else []),
            *(f"import={file.name}" for file in self.imports),
            *(() if self.excerpts else (NO_EXCERPTS,)),
        )


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one detector (or several that share a parse) has to do."""

    name: str
    detectors: tuple[str, ...]
    planned: int
    cached: int
    batches: tuple[Batch, ...]

    @property
    def predicted_s(self) -> float:
        """Seconds of all batches one after another."""
        return sum(batch.predicted_s for batch in self.batches)


class Scan:
    """
    One run, step by step; a context manager that closes cache and cluster.

    Args:
        options: What to do.
        progress: Told of each step's advance.
        at: A snapshot to scan in the place of one that is taken, with the files to which detectors are narrowed.

    Raises:
        UsageError: Options that cannot be followed.
    """

    def __init__(
        self,
        options: ScanOptions,
        progress: Progress | None = None,
        *,
        at: tuple[snapshots.Snapshot, Mapping[str, frozenset[str]]] | None = None,
    ) -> None:
        _refuse(options)
        self.options = options
        self.run_id = uuid.uuid4().hex
        self.workers = options.workers or len(os.sched_getaffinity(0))
        self._seed = secrets.token_bytes(SEED_BYTES) if options.canaries else b""
        self._canaries: collections.Counter[tuple[str, str]] = collections.Counter()
        """By detector and field of `CanaryCount`."""
        self._progress = progress or (lambda _stage, _done, _total: None)
        self._started = datetime.now(UTC)
        self._clock = time.perf_counter()
        self._begun_s = time.monotonic()
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._baseline = finding_rules.Baseline.read(options.baseline) if options.baseline else None
        self._registry: Registry = discover().select(options.detectors).configured(options.settings)
        shared = open_store(options.store) if options.store else None
        self._cache = self._stack.enter_context(ResultCache(options.cache, shared))
        self._optimizer = WorkloadOptimizer(self._cache.timings())
        self._executor: ParallelExecutor | None = None
        self._shipped = False
        self._coming: futures.Future[Any] | None = None
        """The client of a cluster that is being started beside the first steps."""
        self._snapshot: snapshots.Snapshot | None = None if at is None else at[0]
        self._narrowed: Mapping[str, frozenset[str]] = {} if at is None else at[1]
        """By detector, the only files at which it looks."""
        self._change: Change | None = None
        self._stages: dict[str, Stage] = {}
        self._identities: dict[str, DetectorRecord] = {}
        self._files: dict[str, SourceFile] = {}
        self._closures: TreeClosures | None = None
        self._keys: dict[Unit, bytes] = {}
        self._outcomes: dict[Unit, Outcome] = {}
        self._computed_by: dict[Unit, str] = {}
        self._to_verify: dict[Unit, CachedResult] = {}
        self._tree_findings: list[tuple[str, str, Finding]] = []
        self._batches: list[BatchRecord] = []
        self._observing = threading.Lock()
        self._observers = self._begun_observers()
        self._problems: list[str] = []
        self._warnings: list[str] = []
        self._done = 0
        self._gate: DeadlineGate | None = None
        self._reserved_s = 0.0
        self._risk: dict[Unit, tuple[bool, float]] = {}
        self._unreached: dict[Unit, NotAnalysed] = {}
        self._computed: list[tuple[str, bytes, str, Digest, int]] = []
        """Root, raw path, detector, content and findings of what this run computed."""
        self._closing_from_s: float | None = None
        self._ended = False

    def __enter__(self) -> Scan:
        """Return itself."""
        self._tell("run-begun", at=time.time())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what was learnt, end what still runs after an error, end threads and cluster, close the cache."""
        with self._lock:
            self._ended = True
        if self._executor is not None:
            if kind is not None:
                self._executor.stop()
            self._executor.close()
        if self._coming is not None:
            futures.wait([self._coming])  # what is half open cannot be closed
        if self._closing_from_s is not None and kind is None:
            size_bytes = sum(file.size_bytes for file in self._files.values())
            seconds = time.monotonic() - self._closing_from_s
            self._optimizer.observe(self._closing, size_bytes, seconds, files=len(self._files))
        self._cache.remember_timings(self._optimizer.timings())
        by_root: dict[str, list[tuple[bytes, str, Digest, int]]] = {}
        for root, *answer in self._computed:
            by_root.setdefault(root, []).append(tuple(answer))  # type: ignore[arg-type]  # all but the first
        for root, answers in by_root.items():
            self._cache.remember_answered(root, answers)
        self._tell("run-ended", at=time.time(), error=None if kind is None else kind.__name__)
        self._stack.close()

    def run(self) -> RunRecord:
        """Go through all steps; see `scan`."""
        self.snapshot()
        self.plan()
        self.execute_all()
        self.reduce()
        return self.settle()

    @property
    def commitment(self) -> str:
        """What may be told of the canaries' seed before the run; empty where there are none."""
        return canaries.commitment(self._seed) if self._seed else ""

    # -- steps ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> snapshots.Snapshot:
        """See the trees; raises UsageError for a path that cannot be scanned."""
        options = self.options
        if options.cluster is not None and self._will_run_all():
            self._start_cluster(options.cluster)
        scope = snapshots.Scope(options.include, options.exclude, options.ignore)
        if self._snapshot is None:
            self._snapshot = snapshots.take_snapshot(options.paths, scope, self._cache)
        self._files = {file.path: file for file in self._snapshot.files}
        folders = options.settings.include_folders
        self._closures = TreeClosures(self._snapshot, self._cache, folders)
        if options.since is not None:
            self._narrow(options.since, scope)
        self._progress("snapshot", len(self._files), len(self._files))
        return self._snapshot

    def plan(self) -> tuple[Stage, ...]:
        """Look every unit up in the cache and make batches of the misses; one stage a detector."""
        assert self._snapshot is not None, "take the snapshot first"
        for detector in self._registry:
            self._optimizer.register_detector(detector.name, complexity_score=detector.complexity_score)
        self._identities = {detector.name: self._identify(detector) for detector in self._registry}
        if self.options.deadline_s is not None:
            self._open_gate(self.options.deadline_s)
        for detectors in _stages(self._registry):
            stage = self._plan_stage(detectors)
            self._stages[stage.name] = stage
        planned = sum(stage.planned for stage in self._stages.values())
        self._progress("plan", planned, planned)
        self._tell(
            "run-planned", units=planned, cached=sum(stage.cached for stage in self._stages.values()),
            batches=sum(len(stage.batches) for stage in self._stages.values()),
            predicted_s=sum(stage.predicted_s for stage in self._stages.values()),
        )  # fmt: skip
        return tuple(self._stages.values())

    def only(self, units: Collection[Unit]) -> None:
        """Leave of what is planned some units, to run a sample again; such a scan has answers, and no record."""
        assert self._stages, "plan first"
        for name, stage in self._stages.items():
            detectors = tuple(self._registry[detector] for detector in stage.detectors)
            wanted: dict[str, list[str]] = {}
            for batch in stage.batches:
                for file in batch.files:
                    asked = [detector for detector in batch.detectors if (file.path, detector) in units]
                    if asked:
                        wanted[file.path] = asked
            self._stages[name] = dataclasses.replace(stage, batches=self._batches_of(name, detectors, wanted))

    def identities(self) -> tuple[DetectorRecord, ...]:
        """Return which detectors were planned with."""
        assert self._identities or not len(self._registry), "plan first"
        return tuple(self._identities.values())

    def answers(self) -> Mapping[Unit, Outcome]:
        """Return the answers so far, by report path and detector."""
        return self._outcomes

    def execute(self, stage: str) -> None:
        """
        Run one stage's batches; stages may run at once, each in a thread of its own.

        Raises:
            DetectorBroken: A detector broke its contract; nothing it said is kept.
            ClusterError: The cluster cannot be started or reached.
            ClusterLost: It was lost; what was finished is in the cache, and who calls again gets a new one.
        """
        # A stage that is tried again runs what has no answer yet.
        self._run(batch for batch in self._stages[stage].batches if not self._answered(batch))

    def execute_all(self) -> None:
        """
        Run all stages' batches together; a cluster that is lost is replaced.

        The longest go first; with a deadline the riskiest, and what is not expected to end in time does not begin.

        Raises:
            DetectorBroken, ClusterError, ClusterLost: As `execute`.
        """
        if self._gate is None:
            planned = [batch for stage in self._stages.values() for batch in stage.batches]
            self._run_again_if_lost(sorted(planned, key=lambda batch: (-batch.predicted_s, batch.name)))
        else:
            self._execute_in_time(self._gate)
        self._closing_from_s = time.monotonic()

    def _run_again_if_lost(self, planned: Sequence[Batch]) -> None:
        if not planned:
            return
        try:
            self._run(planned)
        except ClusterLost:
            for attempt in CLUSTER_AWAITED.retrying(threading.Event()):
                with attempt:
                    if attempt.retry_state.attempt_number == 1:
                        raise  # the first was made before there was anything to retry
                    self._run(batch for batch in planned if not self._answered(batch))

    def _execute_in_time(self, gate: DeadlineGate) -> None:
        """Run what may still begin, riskiest first, until nothing may; the rest was not reached."""
        for _ in range(MOST_ROUNDS):
            planned = [batch for stage in self._stages.values() for batch in stage.batches]
            answered = len(self._outcomes)
            self._run_again_if_lost(sorted(planned, key=self._place))
            if len(self._outcomes) == answered:
                break
            self.only({(file.path, name) for batch in planned for file in batch.files for name in batch.detectors}
                      - self._outcomes.keys())  # fmt: skip
        ended: set[Unit] = set()
        for batch, seconds in gate.running(time.monotonic()):
            ended |= {(file.path, name) for file in batch.files for name in batch.detectors}
            start_s = time.monotonic() - seconds - self._begun_s
            if seconds > batch.predicted_s:
                # It would have taken longer still; but who learns nothing of it plans the same again.
                self._optimizer.observe_batch(msgspec.structs.replace(batch, one_process=True), seconds, ())
            self._batches.append(
                BatchRecord(batch.name, "", max(start_s, 0.0), seconds, batch.predicted_s, len(batch.files),
                            batch.low_s, batch.high_s, ended=True)
            )  # fmt: skip
        for unit in sorted(self._keys.keys() - self._outcomes.keys()):
            told = "it was being analysed when the time was up" if unit in ended else "the time was up before it began"
            self._unreached[unit] = NotAnalysed(*unit, "not-reached", told)

    def _place(self, batch: Batch) -> tuple[tuple[bool, float], float, str]:
        """Return a batch's place in the order of risk; its first file is its riskiest."""
        return min(self._risk[batch.files[0].path, name] for name in batch.detectors), batch.predicted_s, batch.name

    def reduce(self) -> None:
        """Run the rules over the whole tree on the facts of all files, in the order of the detectors' needs."""
        groups = {detector.name: detector for detector in self._registry if isinstance(detector, RuleGroup)}
        order = graphlib.TopologicalSorter(
            {name: [need for need in group.needs if need in groups] for name, group in groups.items()}
        )
        for name in order.static_order():
            if not groups[name].tree_rules:
                continue
            if self._is_partly_reached(groups[name]):
                self._warnings.append(
                    f"the rules of {name} over the whole tree were not run: what they read was not reached everywhere"
                )
            else:
                self._reduce_group(groups[name])
        self._progress("reduce", 1, 1)

    def settle(self) -> RunRecord:
        """Reconcile what was planned with what was answered, and make the record."""
        assert self._snapshot is not None, "take the snapshot first"
        assert self._closures is not None, "they come with the snapshot"
        self._check_tree_unchanged()
        imported = self._imported()
        located, absent = finding_rules.settle([*self._excused(), *imported.findings], self._known_before())
        located = self._told_of_imports(located, imported)
        # Of what was not reached it is not known whether it is still there.
        absent = tuple(one for one in absent if (one.get("path"), one.get("detector")) not in self._unreached)
        units = tuple(self._unit_records())
        lost_units = [outcome for outcome in self._outcomes.values() if isinstance(outcome, NotAnalysed)]
        cached = len(self._computed_by.keys() & self._outcomes.keys())
        planned = sum(stage.planned for stage in self._stages.values())
        problems = self._unanswered(planned)
        seconds = time.perf_counter() - self._clock
        whole = not problems
        if self.options.deadline_s is not None:
            problems += warnings_of(self.options.deadline_s, seconds, self._batches)
        record = RunRecord(
            run_id=self.run_id,
            version=_version(),
            started=self._started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            seconds=seconds,
            command=self.options.shown(),
            platform={
                "python": platform.python_version(),
                "implementation": platform.python_implementation(),
                "system": platform.system(),
                "release": platform.release(),
                "machine": platform.machine(),
            },
            workers=self.workers,
            cluster=self._executor.backend.name if self._executor else "inline",
            roots=self._snapshot.roots,
            files=self._snapshot.files,
            excluded=self._snapshot.excluded,
            detectors=(*self._identities.values(), *imported.detectors),
            units=units,
            batches=tuple(sorted(self._batches, key=lambda batch: batch.start_s)),
            findings=located,
            not_analysed=tuple(sorted([*self._snapshot.not_analysed, *self._unreached.values(), *lost_units])),
            absent=absent,
            planned=planned,
            executed=len(units) - cached,
            cached=cached,
            whole=whole,
            problems=(*problems, *self._warnings, *self._closures.warnings, *self._cache.warnings),
            findings_digest=finding_rules.digest(located),
            canaries=self._canary_record(),
            deadline=None if self._gate is None else DeadlineRecord(self.options.deadline_s or 0.0, self._reserved_s),
            since=None if self._change is None else self._change.record(self._narrowed),
            imports=imported.records,
        )
        return self._tell_settled(record if self.options.excerpts else without_words(record))

    def _unanswered(self, planned: int) -> list[str]:
        """Return why the run is not whole; empty where it is."""
        lost = sorted(self._keys.keys() - self._outcomes.keys() - self._unreached.keys())
        problems = list(self._problems)
        if planned != len(self._outcomes) + len(self._unreached) or lost:
            shown = ", ".join(f"{path} by {detector}" for path, detector in lost[:3])
            problems.append(
                f"{planned} units were planned and {len(self._outcomes)} were answered; without answer: {shown}"
            )
        if self._unreached:
            problems.append(
                f"{len(self._unreached)} of {planned} units were not reached within {self.options.deadline_s:g} s"
            )
        return problems

    def _unit_records(self) -> Iterator[UnitRecord]:
        """Yield what became of each unit, in order."""
        for unit, outcome in sorted(self._outcomes.items()):
            computed_by = self._computed_by.get(unit)
            state = "not-analysed" if isinstance(outcome, NotAnalysed) else "cached" if computed_by else "executed"
            yield UnitRecord(*unit, state, computed_by or self.run_id, self._keys[unit].hex())  # type: ignore[arg-type]

    def _canary_record(self) -> CanaryRecord | None:
        """Return the canaries of the run, with the seed that they were made of; None where there were none."""
        if not self._seed:
            return None
        names = sorted({name for name, _ in self._canaries})
        counts = (
            CanaryCount(name, *(self._canaries[name, field] for field in ("placed", "missed", "without")))
            for name in names
        )
        return CanaryRecord(self._seed.hex(), self.commitment, tuple(counts))

    def facts(self, fact: str) -> dict[str, Any]:
        """Return what the collectors of one fact gathered, by report path of the files that were analysed."""
        owners = {
            group.name
            for group in self._registry
            if isinstance(group, RuleGroup) and any(item.id == fact for item in group.facts)
        }
        units = sorted(
            unit for unit, outcome in self._outcomes.items() if unit[1] in owners and isinstance(outcome, Analysed)
        )
        return self._facts(units, {fact}).get(fact, {})

    # -- what differs from a commit --------------------------------------------------------------------------------

    def _narrow(self, ref: str, scope: snapshots.Scope) -> None:
        """Find out what differs from a commit, and which detector has to look at what."""
        from detectors.changes import Change

        assert self._snapshot is not None, "take the snapshot first"
        assert self._closures is not None, "they come with the snapshot"
        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="base-")))
        self._change = Change(self._snapshot, scope, ref, self._cache, scratch)
        base = TreeClosures(self._change.base, self._cache, self.options.settings.include_folders)
        self._narrowed = self._change.narrowed(tuple(self._registry), self._closures, base)
        self._warnings += self._change.warnings

    def _known_before(self) -> finding_rules.Baseline | None:
        """Return what counts as known: the baseline that was given, else what the commit has by the same detectors."""
        if self._change is None or self._baseline is not None:
            return self._baseline
        gone = self._change.gone()
        narrowed = {name: paths | gone for name, paths in self._narrowed.items()}
        cluster = "inline" if self.options.cluster in {None, "local"} else self.options.cluster
        options = dataclasses.replace(
            self.options, since=None, canaries=False, verify_cache=0.0, cluster=cluster, imports=(), deadline_s=None
        )
        with Scan(options, at=(self._change.base, narrowed)) as scan:
            record = scan.run()
        lost = sum(bool(entry.detector) for entry in record.not_analysed)
        if lost:
            self._warnings.append(
                f"{lost} units of {self._change.commit[:12]} were not analysed: what they have is new"
            )
        return finding_rules.Baseline(finding_rules.as_json(item) for item in record.findings)

    def _imported(self) -> Imported:
        """Return the results of other tools that were given."""
        assert self._snapshot is not None, "take the snapshot first"
        if not self.options.imports:
            return Imported()
        from detectors.sarif_import import read_imports

        parsed: dict[str, ParsedFile] = {}

        def line_of(path: str) -> Callable[[int], str] | None:
            file = self._files.get(path)
            if file is None or self._snapshot is None:
                return None
            if path not in parsed:
                try:
                    data = snapshots.read_verified(self._snapshot.roots[file.root].path, file)
                except SourceChanged as problem:
                    self._problems.append(str(problem))
                    data = b""
                parsed[path] = ParsedFile(data, file.language, path)
            return parsed[path].line

        return read_imports(self.options.imports, self._snapshot, line_of)

    def _told_of_imports(self, located: tuple[LocatedFinding, ...], imported: Imported) -> tuple[LocatedFinding, ...]:
        """Against a commit, what others report of a file that was not touched is no news, nor what they call old."""
        if self._change is None or self._baseline is not None or not imported.findings:
            return located
        own = {record.name for record in imported.detectors}
        return tuple(
            msgspec.structs.replace(item, baseline="unchanged")
            if item.detector in own
            and (item.path not in self._change.touched or (item.path, item.detector, item.finding) in imported.known)
            else item
            for item in located
        )

    # -- planning --------------------------------------------------------------------------------------------------

    @property
    def _closing(self) -> str:
        return CLOSING_SEALED if self.options.canaries else CLOSING

    def _open_gate(self, deadline_s: float) -> None:
        """Learn the risk of each unit, and how much of the deadline must be kept for the end of the run."""
        assert self._snapshot is not None, "take the snapshot first"
        start_s = CLOSING_SEALED_S if self.options.canaries else CLOSING_S
        self._optimizer.register_detector(self._closing, complexity_score=CLOSING_RATE)
        said = self._optimizer.predict_call(self._closing, list(self._files.values()), start_s)
        # What is ended late (a rule in a thread cannot be) still takes the processor while the run is closed.
        least_s = min(max(deadline_s / 20, CLOSING_S), CLOSING_LEAST_S)
        self._reserved_s = min(max(said.high_s, least_s), CLOSING_SHARE * deadline_s)
        self._gate = DeadlineGate(self._begun_s + deadline_s - self._reserved_s, self._optimizer.predict_batch)
        known = [self._cache.answered(root.path) for root in self._snapshot.roots]
        self._risk = risk_of(self._snapshot.files, [detector.name for detector in self._registry], known)

    def _identify(self, detector: Detector) -> DetectorRecord:
        digest = hashlib.sha256()
        for name, file_digest in self._code_digests(detector.code_files()):
            digest.update(msgspec.msgpack.encode((name, file_digest)))
        return DetectorRecord(
            detector.name,
            detector.version,
            Digest("sha256:" + digest.hexdigest()),
            detector.config_digest(),
            tuple(sorted(detector.languages)),
            detector.rules(),
        )

    def _code_digests(self, files: Iterable[Path]) -> Iterator[tuple[str, Digest]]:
        """Yield (name, digest) of code files; the stat index spares reading tools' binaries in every run."""
        files = tuple(files)
        # Of what is asked for alone: releases and environments that came and went leave many thousands.
        known = self._cache.known("code", [os.fsencode(file) for file in files])
        fresh = {}
        for file in files:
            raw = os.fsencode(file)
            try:
                entry = known.get(raw)
                if entry is None or not entry.trusts(file.lstat()):
                    entry = fresh[raw] = snapshots.hash_file(raw)
            except OSError as problem:
                raise DetectorBroken(str(file), f"its code cannot be read: {problem.strerror}") from problem
            # The name below site-packages, so that two environments with the same code share results.
            yield "/".join(file.parts[-2:]), entry.digest
        self._cache.remember("code", fresh)

    def _plan_stage(self, detectors: tuple[Detector, ...]) -> Stage:
        assert self._closures is not None, "take the snapshot first"
        planned = cached = 0
        wanted: dict[str, list[str]] = {}
        for detector in detectors:
            applicable = [file for file in self._files.values() if file.language in detector.languages]
            if detector.name in self._narrowed:
                applicable = [file for file in applicable if file.path in self._narrowed[detector.name]]
            planned += len(applicable)
            missing = detector.missing()
            closures = (
                self._closures.digests(detector.closure, detector.languages)
                if isinstance(detector, ClosureTool) and missing is None
                else {}
            )
            for file in applicable:
                unit = (file.path, detector.name)
                closure = closures.get(file.path, NO_CLOSURE)
                self._keys[unit] = self._key(detector, file, closure.digest)
                if missing is not None:
                    self._outcomes[unit] = NotAnalysed(file.path, detector.name, "tool-missing", missing)
                elif closure.outside:
                    told = f"it includes {closure.outside}, which lies outside of the tree"
                    self._outcomes[unit] = NotAnalysed(file.path, detector.name, "header-missing", told)
                elif file.size_bytes > MAX_PARSE_BYTES:
                    told = f"{file.size_bytes} bytes, at most {MAX_PARSE_BYTES} are analysed"
                    self._outcomes[unit] = NotAnalysed(file.path, detector.name, "too-large", told)
            cached += self._take_from_cache(detector, applicable)
            for file in applicable:
                if (file.path, detector.name) not in self._outcomes:
                    wanted.setdefault(file.path, []).append(detector.name)
        name = "+".join(detector.name for detector in detectors)
        names = tuple(detector.name for detector in detectors)
        return Stage(name, names, planned, cached, self._batches_of(name, detectors, wanted))

    def _batches_of(
        self, stage: str, detectors: tuple[Detector, ...], wanted: Mapping[str, Sequence[str]]
    ) -> tuple[Batch, ...]:
        """Make batches of the files that each want some of a stage's detectors."""
        misses: dict[tuple[str, ...], list[SourceFile]] = {}
        for path, names in wanted.items():
            assert names, "a file in a batch is asked about by somebody"
            misses.setdefault(tuple(names), []).append(self._files[path])
        batches: list[Batch] = []
        for group, files in sorted(misses.items()):
            risk = None
            if self.options.deadline_s is not None:
                order = {file.path: min(self._risk[file.path, name] for name in group) for file in files}
                risk = Risk(self.options.deadline_s, order)
            planned = self._optimizer.plan(stage, group, files, self.workers, _limits(detectors), risk=risk)
            batches += (self._equipped(batch, detectors) for batch in planned)
        assert sum(len(batch.files) for batch in batches) == len(wanted), "each file is in one batch of a stage"
        return tuple(batches)

    def _equipped(self, batch: Batch, detectors: Sequence[Detector]) -> Batch:
        """Return the batch with what its worker needs beside the files: settings, and their closures."""
        token = canaries.token_of(self._seed, batch.name) if self._seed else ""
        batch = msgspec.structs.replace(batch, settings=self.options.settings, canary=token)
        (detector, *others) = detectors
        if others or not isinstance(detector, ClosureTool):
            return batch
        assert self._closures is not None, "take the snapshot first"
        known = self._closures.of(detector.closure, detector.languages)
        files = {file.path for file in batch.files}
        support = sorted({path for file in files for path in known[file].files} - files)
        return msgspec.structs.replace(
            batch,
            support=tuple(self._files[path] for path in support),
            contexts={path: known[path].context for path in sorted(files)},
        )

    def _key(self, detector: Detector, file: SourceFile, closure: str) -> bytes:
        record = self._identities[detector.name]
        identity = hashlib.sha256(
            msgspec.msgpack.encode(
                (record.name, record.version, record.code_digest, record.config_digest, sys.version, platform.machine())
            )
        ).hexdigest()
        path = file.path if detector.path_sensitive else file.path.rpartition("/")[2]
        return result_key(Digest(identity), file.digest, file.language, path, closure)

    def _take_from_cache(self, detector: Detector, files: list[SourceFile]) -> int:
        if not self.options.use_cache:
            return 0
        units = [(file.path, detector.name) for file in files if (file.path, detector.name) not in self._outcomes]
        known = self._cache.lookup([self._keys[unit] for unit in units])
        choose = random.Random(self.run_id)  # noqa: S311  # a sample, no secret; reproducible from the run's id
        taken = 0
        for unit in units:
            stored = known.get(self._keys[unit])
            if stored is None:
                continue
            if choose.random() < self.options.verify_cache:
                self._to_verify[unit] = stored
                continue
            self._outcomes[unit] = stored.outcome(*unit)
            self._computed_by[unit] = stored.run_id
            taken += 1
        return taken

    # -- execution -------------------------------------------------------------------------------------------------

    def _run(self, batches: Iterable[Batch]) -> None:
        batches = tuple(batches)
        if not batches:
            return
        # Here, with what it brings: a run that is answered by the cache needs nothing of it.
        from detectors.batch import BatchResult

        assert self._snapshot is not None, "take the snapshot first"
        executor = self._open_executor()
        roots = tuple(root.path for root in self._snapshot.roots)
        total = sum(len(batch.files) for stage in self._stages.values() for batch in stage.batches)
        try:
            for batch, result in executor.run_batches(batches, roots, self.run_id, shipped=self._shipped):
                if not isinstance(result, BatchResult):
                    raise result
                self._take(batch, result)
                self._progress(batch.stage, self._done, total)
        except ClusterLost as problem:
            with self._lock:
                self._executor = None  # whoever tries again gets a new cluster
            self._tell("cluster-lost", error=str(problem))
            raise

    def _answered(self, batch: Batch) -> bool:
        return all((file.path, name) in self._outcomes for file in batch.files for name in batch.detectors)

    def _take(self, batch: Batch, result: BatchResult) -> None:
        assert self._snapshot is not None, "take the snapshot first"
        keyed = [(self._keys[outcome.path, outcome.detector], outcome) for outcome in result.outcomes]
        with self._lock:
            for outcome in result.outcomes:
                unit = (outcome.path, outcome.detector)
                if unit in self._to_verify:
                    self._compare(unit, outcome)
                self._outcomes[unit] = outcome
            for count in result.canaries:
                for field in ("placed", "missed", "without"):
                    self._canaries[count.detector, field] += getattr(count, field)
            self._done += len(batch.files)
            start_s = max(0.0, result.started - self._started.timestamp())
            self._batches.append(
                BatchRecord(batch.name, result.worker, start_s, result.seconds, batch.predicted_s, len(batch.files),
                            batch.low_s, batch.high_s)
            )  # fmt: skip
            for outcome in result.outcomes:
                file = self._files[outcome.path]
                found = len(outcome.report.findings) if isinstance(outcome, Analysed) else 0
                root = self._snapshot.roots[file.root].path
                self._computed.append((root, file.raw, outcome.detector, file.digest, found))
        self._cache.store(self.run_id, keyed)
        self._tell_batch(batch, result)
        self._optimizer.observe_batch(batch, result.seconds, result.outcomes)

    def _begun_observers(self) -> list[Observe]:
        """Return those who asked to be told of runs; they are done when the scan ends."""
        wanted = (observer.observe_run() for observer in installed_observers())
        return [self._stack.enter_context(one) for one in wanted if one is not None]

    def _tell(self, event: str, **fields: Any) -> None:
        """Tell whoever looks at the run; nothing is made where nobody does."""
        if self._observers:
            with self._observing:
                for observe in self._observers:
                    observe(event, {"run_id": self.run_id, **fields})

    def _tell_batch(self, batch: Batch, result: BatchResult) -> None:
        if not self._observers:
            return
        seconds: collections.Counter[str] = collections.Counter()
        findings = unanswered = 0
        for outcome in result.outcomes:
            match outcome:
                case Analysed(detector=detector, report=report, seconds=spent):
                    seconds[detector] += spent  # type: ignore[assignment]  # a counter of seconds
                    findings += len(report.findings)
                case NotAnalysed():
                    unanswered += 1
        self._tell(
            "batch-done", batch=batch.name, stage=batch.stage, worker=result.worker, started=result.started,
            seconds=result.seconds, predicted_s=batch.predicted_s, files=len(batch.files),
            units=len(result.outcomes), findings=findings, not_analysed=unanswered, detectors=dict(seconds),
        )  # fmt: skip

    def _tell_settled(self, record: RunRecord) -> RunRecord:
        """Tell what a run came to; returns the record."""
        levels = collections.Counter(item.finding.level for item in record.findings if not item.suppressed)
        reasons = collections.Counter(item.reason for item in record.not_analysed)
        missed = sum(count for (_, field), count in self._canaries.items() if field == "missed")
        self._tell(
            "run-settled", planned=record.planned, executed=record.executed, cached=record.cached, whole=record.whole,
            seconds=record.seconds, workers=record.workers, cluster=record.cluster, files=len(record.files),
            problems=len(record.problems), findings_digest=record.findings_digest, findings=dict(levels),
            not_analysed=dict(reasons), canaries_missed=missed, entries_rejected=self._cache.rejected > 0,
        )  # fmt: skip
        return record

    def _compare(self, unit: Unit, outcome: Outcome) -> None:
        before = self._to_verify[unit].outcome(*unit)
        if _comparable(before) != _comparable(outcome):
            path, detector = unit
            run = self._to_verify[unit].run_id
            self._problems.append(
                f"{path} by {detector}: the answer that run {run} left in the cache is not what was computed now"
            )

    def _open_executor(self) -> ParallelExecutor:
        with self._lock:
            if self._ended:  # a stage in a thread of its own that would try again with a new cluster
                raise UsageError(f"the run {self.run_id} has ended; nothing more is begun for it")
            if self._executor is None:
                from detectors.parallel_executor import ParallelExecutor

                self._executor = ParallelExecutor(self._open_backend(), self._gate)
            return self._executor

    def _open_backend(self) -> Backend:
        from detectors.parallel_executor import DaskBackend, InProcess

        cluster = self.options.cluster
        if cluster is None:
            predicted_s = sum(stage.predicted_s for stage in self._stages.values())
            if self.options.deadline_s is not None:
                predicted_s = min(predicted_s, self.options.deadline_s * self.workers)
            cluster = "local" if self.workers > 1 and predicted_s / self.workers > WORTH_A_CLUSTER_S else "inline"
        if cluster == "inline":
            return InProcess(self.workers)
        coming, self._coming = self._coming, None
        client = coming.result() if coming is not None else self._opened(cluster)
        backend = DaskBackend(client, self.workers, cluster)
        if "://" in cluster:
            self._shipped = self._ships(backend)
        return backend

    def _ships(self, backend: DaskBackend) -> bool:
        """Tell whether the sources travel with their batches to the workers of a scheduler."""
        if self.options.sources != "auto":
            return self.options.sources == "shipped"
        assert self._snapshot is not None, "take the snapshot first"
        files = self._snapshot.files
        some = files[:: len(files) // LOOKED_AT + 1]
        assert len(some) <= LOOKED_AT, "a few say enough"
        return bool(some) and not backend.shares_files(tuple(root.path for root in self._snapshot.roots), some)

    def _will_run_all(self) -> bool:
        """Tell whether nothing can be answered by the cache, before anything is looked up."""
        if not all(os.path.lexists(path) for path in self.options.paths):
            return False  # the snapshot will say so
        return not (self.options.use_cache and self._cache.holds_results())

    def _start_cluster(self, target: str) -> None:
        """Open the cluster in a thread, beside snapshot and plan; who needs it waits for it, and gets its error."""
        if target == "inline" or self._coming is not None:
            return
        coming: futures.Future[Any] = futures.Future()

        def start() -> None:
            try:
                coming.set_result(self._opened(target))
            except BaseException as problem:  # for whoever asks for the cluster
                coming.set_exception(problem)

        self._coming = coming
        threading.Thread(target=start, name="cluster", daemon=True).start()

    def _opened(self, target: str) -> Any:
        """Return the client of a cluster that ends with the scan."""
        client = self._stack.enter_context(open_cluster(target, self.workers))
        assert client is not None, "a kind of cluster yields a connected client"
        return client

    # -- reduce and settle -----------------------------------------------------------------------------------------

    def _is_partly_reached(self, group: RuleGroup) -> bool:
        """Tell whether a deadline left out something that the group's rules over the whole tree read."""
        names = {group.name, *group.needs}
        assert group.tree_rules, "others read one file"
        return any(detector in names for _, detector in self._unreached)

    def _reduce_group(self, group: RuleGroup) -> None:
        names = (group.name, *group.needs)
        units = sorted(
            unit for unit, outcome in self._outcomes.items() if unit[1] in names and isinstance(outcome, Analysed)
        )
        record = self._identities[group.name]
        inputs = hashlib.sha256(msgspec.msgpack.encode([(unit, self._keys[unit]) for unit in units])).hexdigest()
        key = result_key(record.code_digest, Digest(inputs), "text", f"tree:{group.name}")
        taken = self.options.use_cache and not self.options.verify_cache
        stored = self._cache.values([key]).get(key) if taken else None
        if stored is not None:
            found = msgspec.msgpack.decode(stored, type=list[tuple[str, Finding]])
        else:
            needed = {need for rule in group.tree_rules for need in rule.needs}
            with collector_paused():
                found = self._with_lines(group.check_tree(self._facts(units, needed)))
            self._cache.store_values([(key, msgspec.msgpack.encode(found))])
        self._tree_findings += [(path, group.name, finding) for path, finding in found]

    def _facts(self, units: list[Unit], wanted: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the wanted facts by id and report path; raises DetectorBroken where they are not what they say."""
        readers = fact_readers((item for item in self._registry if isinstance(item, RuleGroup)), wanted)
        stored = self._cache.facts([self._keys[unit] for unit in units if unit in self._computed_by])
        facts: dict[str, dict[str, Any]] = {name: {} for name in readers}
        for unit in units:
            outcome = self._outcomes[unit]
            assert isinstance(outcome, Analysed), "only analysed units have facts"
            packed = stored.get(self._keys[unit], {}) if unit in self._computed_by else outcome.report.facts
            for name in readers.keys() & packed.keys():
                try:
                    facts[name][unit[0]] = readers[name](packed[name])
                except msgspec.ValidationError as problem:
                    raise DetectorBroken(unit[1], f"its facts {name} are not of their shape: {problem}") from problem
        return facts

    def _with_lines(self, found: Iterable[tuple[str, Finding]]) -> list[tuple[str, Finding]]:
        """Give tree findings the line their fingerprint stands on; each file is read once."""
        by_path: dict[str, list[Finding]] = {}
        for path, finding in found:
            by_path.setdefault(path, []).append(finding)
        result = []
        assert self._snapshot is not None, "take the snapshot first"
        for path, finds in sorted(by_path.items()):
            file = self._files[path]
            try:
                parsed = ParsedFile(
                    snapshots.read_verified(self._snapshot.roots[file.root].path, file), file.language, path
                )
            except SourceChanged as problem:
                self._problems.append(str(problem))
                continue
            result += [(path, finding_rules.with_context(finding, parsed.line)) for finding in finds]
        return result

    def _found(self) -> Iterator[tuple[str, str, Finding]]:
        for (path, detector), outcome in self._outcomes.items():
            if isinstance(outcome, Analysed):
                for finding in outcome.report.findings:
                    yield path, detector, finding
        yield from self._tree_findings

    def _excused(self) -> Iterator[tuple[str, str, Finding]]:
        """Yield all findings after the suppressions in the sources were heard; the day is that of the run."""
        markers = {
            unit: outcome.report.markers
            for unit, outcome in sorted(self._outcomes.items())
            if isinstance(outcome, Analysed) and outcome.report.markers
        }
        ran = {name: frozenset(rule.id for rule in record.rules) for name, record in self._identities.items()}
        for group in self._registry:
            if isinstance(group, RuleGroup) and group.tree_rules and self._is_partly_reached(group):
                ran[group.name] -= {rule.id for rule in group.tree_rules}
        speakers = {item.name: item for item in self._registry if isinstance(item, Tool) and item.speaks_for}
        # Only a tool that answered for every file says something by its silence.
        silent = {name for (_, name), outcome in self._outcomes.items() if isinstance(outcome, NotAnalysed)}
        silent |= {name for _, name in self._unreached}
        heard = [tool for name, tool in speakers.items() if name not in silent]
        for detector in self._registry:
            ran[detector.name] |= {tool.speaks_for for tool in heard if tool.languages & detector.languages}
        spoken_for = {name: tool.speaks_for for name, tool in speakers.items()}
        return suppressions.applied(self._found(), markers, self._started.date(), ran, spoken_for)

    def _check_tree_unchanged(self) -> None:
        """Note files that are no longer what was analysed: the evidence is of the snapshot, and must say so."""
        assert self._snapshot is not None, "take the snapshot first"
        for file in self._snapshot.files:
            root = os.fsencode(self._snapshot.roots[file.root].path)
            try:
                seen = os.lstat(root + b"/" + file.raw)
            except OSError:
                self._warnings.append(f"{file.path} vanished during the scan; the results are of the snapshot")
                continue
            if (seen.st_size, seen.st_mtime_ns, seen.st_ino) != (file.size_bytes, file.mtime_ns, file.inode):
                self._warnings.append(f"{file.path} changed during the scan; the results are of the snapshot")


def _refuse(options: ScanOptions) -> None:
    """Raise UsageError for options that cannot be followed."""
    if not 0 <= options.verify_cache <= 1:
        raise UsageError(f"--verify-cache takes a fraction from 0 to 1, not {options.verify_cache}")
    if options.sources not in SOURCES:
        raise UsageError(f"--sources takes one of {', '.join(SOURCES)}, not {options.sources!r}")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers takes a number from 1, not {options.workers}")
    if options.deadline_s is not None and not 0 < options.deadline_s < math.inf:
        raise UsageError(f"--deadline takes a duration above 0, not {options.deadline_s} s")
    if options.deadline_s is not None and options.since is not None:
        raise UsageError("--since scans the commit, too, and no deadline bounds that; give one of --since, --deadline")


def scan(options: ScanOptions, progress: Progress | None = None) -> RunRecord:
    """
    Scan trees and return the record of the run.

    Raises:
        UsageError: Options or paths that cannot be followed.
        DetectorBroken: A detector cannot be loaded or broke its contract.
        ClusterError: The cluster cannot be reached.
    """
    with Scan(options, progress) as steps:
        return steps.run()


def _stages(registry: Registry) -> list[tuple[Detector, ...]]:
    """Return who shares a read and a parse: groups of rules with a language in common; each tool stands alone."""
    stages: list[list[Detector]] = []
    for detector in registry:
        mates = next(
            (
                stage
                for stage in stages
                if isinstance(detector, RuleGroup)
                and isinstance(stage[0], RuleGroup)
                and detector.languages & stage[0].languages
            ),
            None,
        )
        if mates is None:
            stages.append([detector])
        else:
            mates.append(detector)
    return [tuple(stage) for stage in stages]


def _limits(detectors: tuple[Detector, ...]) -> BatchLimits:
    tools = [detector for detector in detectors if isinstance(detector, Tool)]
    if not tools:
        return BatchLimits()
    return BatchLimits(min(tool.files_per_batch for tool in tools), sum(tool.start_s for tool in tools))


def _comparable(outcome: Outcome) -> object:
    match outcome:
        case Analysed(report=report):
            return report.findings, report.understood
        case NotAnalysed(reason=reason):
            return reason


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("enterprise-detector-pool")
