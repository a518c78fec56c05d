"""
Compliance, validated and watched.

`DefenseComplianceMonitor` scores a tree by the Power of Ten and tries the eight operational controls on disposable
pools with a live pool's configuration. `RealTimeComplianceMonitor` watches a pool at work.

    monitor = RealTimeComplianceMonitor(ledger=Path("audit/ledger"), report_folder=Path("compliance-now"))
    monitor.start_monitoring(pool)
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from compliance.alert_desk import AlertDesk, Violation
from compliance.control import ControlResult, find_controls, tried
from compliance.errors import EvidenceError
from compliance.ledger_watch import LedgerState, LedgerWatch
from compliance.live_record import ComplianceThresholds, LiveRecord, Sample
from compliance.score import DETECTORS, Score, score_of
from compliance.tool_versions import Drift, drifted, installed_versions
from detectors.alerts import LogSink
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.health import Finding, HealthMonitor, Level, Thresholds
from detectors.model import FunctionSpan, RunRecord
from detectors.ports import AlertSink, Progress, installed_access_policy
from detectors.scan import Scan, ScanOptions

__all__ = ["ComplianceReport", "DefenseComplianceMonitor", "RealTimeComplianceMonitor"]

_LOG = logging.getLogger(__name__)
SAMPLES = 20_000
"""Looks kept, at most: more than a day at one every five seconds."""
REPORT_LIMIT_S = 120.0
MOST_LOOKS = 1 << 32
"""A century at one a second."""
WEIGHT: Mapping[Level, float] = {"ok": 0.0, "warning": 0.5, "critical": 1.0}
"""How much of a live check is lost at each level."""


class ComplianceReport(msgspec.Struct, frozen=True):
    """What validating a tree and a pool showed."""

    score: Score
    controls: tuple[ControlResult, ...]
    not_analysed: int
    """Entries of files that are in no figure."""
    whole: bool
    """Whether every planned unit of the scan has its answer."""

    @property
    def controls_held(self) -> float | None:
        """Per cent of the controls that held; none where none was tried."""
        if not self.controls:
            return None
        return 100.0 * sum(control.ok for control in self.controls) / len(self.controls)


class DefenseComplianceMonitor:
    """
    Validates Power of Ten over trees, and the operational controls over a pool.

    Args:
        pool: Whose configuration the disposable pools get; nothing is run on it. Without one, a pool in audit mode with
            the installed access policy is judged.
        ledger: The live ledger, verified with the control of the audit trail.
    """

    def __init__(self, pool: EnterpriseDetectorPool | None = None, *, ledger: Path | None = None) -> None:
        if ledger is not None and not ledger.is_dir():
            raise UsageError(f"{ledger} is no ledger's folder")
        self._pool, self._ledger = pool, ledger

    def validate_power_of_ten(self, options: ScanOptions, progress: Progress | None = None) -> tuple[Score, RunRecord]:
        """
        Scan trees by the rules of the Power of Ten, and score them.

        Args:
            options: What is scanned; its `detectors` are replaced by those that speak for the rules.
            progress: Told as the scan goes on.

        Returns:
            The score, and the run that it is of.

        Raises:
            DetectorPoolError: As `detectors.scan.scan`.
        """
        with Scan(dataclasses.replace(options, detectors=DETECTORS), progress) as scan:
            run = scan.run()
            found = {**scan.facts("c-functions"), **scan.facts("python-functions")}
        functions = msgspec.convert(found, dict[str, tuple[FunctionSpan, ...]])
        assert len(functions) == len(found), "every file keeps its functions"
        return score_of(run, functions), run

    def validate_controls(self, names: Sequence[str] | None = None) -> tuple[ControlResult, ...]:
        """
        Try the operational controls, one after another.

        Args:
            names: Ids; all when absent.

        Raises:
            UsageError: There is no such control.
        """
        known = {control.id: control for control in find_controls()}
        unknown = sorted(set(names or ()) - known.keys())
        if unknown:
            raise UsageError(f"there is no control {', '.join(unknown)}; there are {', '.join(known)}")
        configuration = self._configuration()
        chosen = [control for name, control in known.items() if names is None or name in names]
        results = tuple(tried(control, configuration, self._ledger) for control in chosen)
        assert [result.id for result in results] == [control.id for control in chosen], "each control has its result"
        return results

    def validate(self, options: ScanOptions, progress: Progress | None = None) -> ComplianceReport:
        """Do both; see the two methods above."""
        score, run = self.validate_power_of_ten(options, progress)
        return ComplianceReport(score, self.validate_controls(), len(run.not_analysed), run.whole)

    def _configuration(self) -> Mapping[str, Any]:
        if self._pool is not None:
            return self._pool.configuration
        workers = len(os.sched_getaffinity(0))
        return {"max_workers": workers, "audit_mode": True, "access_policy": installed_access_policy()}


class RealTimeComplianceMonitor:
    """
    Watches a pool from a thread of its own, without a hook in the pool: each look reads its metrics.

    A look judges health (failures, circuits, overhead, memory, disk, load), the ledger's new records, versions of
    tools, and the scores; what crosses a threshold is told once through the sinks, and once when it is over. Reports
    are written by a process of their own, at intervals and on stop. It ends with the pool, with `stop_monitoring`, or
    with the interpreter.

    Args:
        ledger: Watched continuously, new records only.
        public_key: The key that the ledger must be signed by.
        checkpoint: A checkpoint of the ledger kept elsewhere.
        tree: Scored by the Power of Ten when watching begins, and every `validate_every_s`.
        sinks: Get the alerts; the log when absent.
        thresholds: Of health.
        compliance_thresholds: Of the scores.
        report_folder: Where reports are written; nowhere when absent.
        every_s: Seconds between looks.
        report_every_s: Seconds between reports.
        versions_every_s: Seconds between comparisons of tool versions.
        validate_every_s: Seconds between trials of the controls (and scans of the tree), which take processor time of
            this process; none when absent.
        reference_versions: Versions that were qualified; those at the start when absent.
        clock: Seconds since the epoch.

    Raises:
        UsageError: An interval that is not above 0.
    """

    def __init__(
        self,
        *,
        ledger: Path | None = None,
        public_key: Path | None = None,
        checkpoint: Path | None = None,
        tree: ScanOptions | None = None,
        sinks: Sequence[AlertSink] | None = None,
        thresholds: Thresholds | None = None,
        compliance_thresholds: ComplianceThresholds | None = None,
        report_folder: Path | None = None,
        every_s: float = 5.0,
        report_every_s: float = 300.0,
        versions_every_s: float = 60.0,
        validate_every_s: float | None = None,
        reference_versions: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        intervals = (every_s, report_every_s, versions_every_s, validate_every_s or 1.0)
        if not all(seconds > 0 for seconds in intervals):
            raise UsageError("every interval of a monitor is above 0 seconds")
        if ledger is None and (public_key is not None or checkpoint is not None):
            raise UsageError("public_key and checkpoint are anchors of a ledger; name the ledger")
        self._tree, self._clock, self._every_s = tree, clock, every_s
        self._ledger_folder, self._report_folder = ledger, report_folder
        self._watch = LedgerWatch(ledger, public_key=public_key, checkpoint=checkpoint) if ledger is not None else None
        self._thresholds, self._limits = thresholds, compliance_thresholds or ComplianceThresholds()
        self._desk = AlertDesk((LogSink(),) if sinks is None else sinks, clock)
        self._due = {
            "report": _Due(report_every_s), "versions": _Due(versions_every_s), "validate": _Due(validate_every_s)
        }  # fmt: skip
        self._reference = dict(reference_versions) if reference_versions is not None else None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pool: EnterpriseDetectorPool | None = None
        self._health: HealthMonitor | None = None
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._controls: tuple[ControlResult, ...] = ()
        self._power_of_ten: float | None = None
        self._versions: dict[str, str] = {}
        self._drift: tuple[Drift, ...] = ()
        self._ever_drifted: set[str] = set()
        self._ledger: LedgerState | None = None
        self._held: dict[str, Level] = {}
        self._looks, self._started, self._stopped = 0, 0.0, False

    def __enter__(self) -> RealTimeComplianceMonitor:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        record = self.stop_monitoring()
        assert record.looks >= len(record.samples), "each sample is a look"

    def start_monitoring(self, pool: EnterpriseDetectorPool) -> None:
        """
        Watch a pool from now on.

        Raises:
            UsageError: This monitor watches or watched a pool, or the pool is closed.
        """
        if self._pool is not None:
            raise UsageError("a monitor watches one pool once; make another one")
        if pool.closed:
            raise UsageError("the pool is closed; there is nothing to watch")
        self._pool, self._started = pool, self._clock()
        self._health = HealthMonitor(pool, self._thresholds, (), clock=self._clock)
        self._thread = threading.Thread(target=self._run, name="compliance-monitor", daemon=True)
        _ = atexit.register(self.stop_monitoring)
        self._thread.start()

    def stop_monitoring(self) -> LiveRecord:
        """
        Look once more, verify every byte of the ledger, write the last report, and end; a second call only returns.

        Returns:
            All that was watched.
        """
        atexit.unregister(self.stop_monitoring)
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._pool is not None and not self._stopped:
                self._stopped = True
                self._look_safely(last=True)
                self._write_report()
                if self._health is not None:
                    self._health.close()
            return self.record()

    def check(self) -> Sample:
        """
        Look now, whenever the next look is due.

        Raises:
            UsageError: Nothing is watched.
        """
        with self._lock:
            if self._pool is None or self._stopped:
                raise UsageError("nothing is watched; call start_monitoring(pool) first")
            return self._look(last=False)

    def validate(self) -> tuple[ControlResult, ...]:
        """
        Try the controls and scan the tree now; what is found is in the score from the next look on.

        Raises:
            UsageError: Nothing is watched.
        """
        if self._pool is None:
            raise UsageError("nothing is watched; call start_monitoring(pool) first")
        monitor = DefenseComplianceMonitor(self._pool, ledger=self._ledger_folder)
        controls = monitor.validate_controls()
        score = monitor.validate_power_of_ten(self._tree)[0].score if self._tree is not None else None
        with self._lock:
            self._controls, self._power_of_ten = controls, score
        return controls

    def record(self) -> LiveRecord:
        """Return all that was watched, until now."""
        with self._lock:
            ledger = self._ledger
            told = "" if ledger is None else f"{ledger.verdict}: {ledger.records} records verified"
            if ledger is not None and ledger.problem:
                told += f"; {ledger.problem}"
            now = max(self._clock(), self._started)
            return LiveRecord(
                self._started, now, self._stopped, tuple(self._samples), self._desk.all, self._controls,
                dict(self._versions), self._drift, told, ledger.checkpoint if ledger is not None else "", self._looks,
                self._desk.sent,
            )  # fmt: skip

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What is violated now, the worst first."""
        with self._lock:
            return self._desk.open

    def _run(self) -> None:
        pool = self._pool
        assert pool is not None, "started with a pool"
        if self._tree is not None:
            with self._told("scan"):
                score = DefenseComplianceMonitor(pool).validate_power_of_ten(self._tree)[0].score
                with self._lock:
                    self._power_of_ten = score
        self._look_safely()
        for _ in range(MOST_LOOKS):
            if self._stop.wait(self._every_s):
                return
            if pool.closed:
                _ = self.stop_monitoring()
                return
            if self._due["validate"].now():
                with self._told("validate"):
                    _ = self.validate()
            self._look_safely()
            if self._due["report"].now():
                self._write_report()

    def _look_safely(self, last: bool = False) -> None:
        """Look; a look that fails is an alert of its own, since a watch that ended in silence would seem well."""
        with self._told("look"), self._lock:
            _ = self._look(last=last)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        level, message = "ok", f"the monitor's {what} works"
        try:
            yield
        except Exception as problem:  # the watch goes on, and says so
            _LOG.exception("the compliance monitor could not %s", what)
            level, message = "critical", f"the monitor's {what} failed: {type(problem).__name__}: {problem}"
        bad: Level = "critical" if level == "critical" else "ok"
        with self._lock:
            _ = self._desk.take((Finding("monitor", what, bad, float(bad != "ok"), 1.0, message),))

    def _look(self, *, last: bool) -> Sample:
        pool, health = self._pool, self._health
        assert pool is not None, "something is watched"
        assert health is not None, "its health, too"
        cpu_s = time.thread_time()
        findings = list(health.check().findings)
        findings += self._ledger_findings(whole=last)
        if self._due["versions"].now() or not self._versions:
            findings += self._version_findings()
        held = self._checks_held(findings)
        findings += self._score_findings(held)
        _ = self._desk.take(findings)
        metrics = pool.get_pool_metrics()
        total = metrics["total"]
        sample = Sample(
            self._clock(), self._score(held), held, self._controls_held(), self._power_of_ten, len(self._desk.open),
            total["executed"], total["failed"], total["retried"], total["refused"], metrics["queued"],
            metrics["overhead_share"], metrics["memory_bytes"],
            self._ledger.records if self._ledger is not None else None, time.thread_time() - cpu_s,
        )  # fmt: skip
        self._samples.append(sample)
        self._looks += 1
        return sample

    def _ledger_findings(self, *, whole: bool) -> Iterator[Finding]:
        if self._watch is None:
            return
        self._ledger = state = self._watch.look(whole=whole)
        assert state.ok or state.problem, "what does not hold has a reason"
        level: Level = "ok" if state.ok else "warning" if state.verdict == "recoverable" else "critical"
        message = state.problem or f"{state.records} records verified"
        yield Finding("ledger", "integrity", level, float(not state.ok), 1.0, message)

    def _version_findings(self) -> Iterator[Finding]:
        versions = installed_versions()
        if self._reference is None:
            self._reference = dict(versions)
        self._versions, self._drift = versions, drifted(self._reference, versions)
        self._ever_drifted |= {drift.name for drift in self._drift}
        for drift in self._drift:
            message = f"{drift.name} is {drift.now}, and was {drift.before}"
            yield Finding("version", drift.name, "warning", 1.0, 1.0, message)
        for name in sorted(self._ever_drifted - {drift.name for drift in self._drift}):
            assert versions.get(name) == self._reference.get(name), "it is as it was"
            yield Finding("version", name, "ok", 0.0, 1.0, f"{name} is again {self._reference.get(name)}")

    def _score_findings(self, held: float) -> Iterator[Finding]:
        yield self._low("score", "live", self._score(held), self._limits.score)
        if self._power_of_ten is not None:
            yield self._low("score", "power-of-ten", self._power_of_ten, self._limits.power_of_ten)
        for control in self._controls:
            assert control.evidence, "a control without evidence was not tried"
            level: Level = "ok" if control.ok else "critical"
            yield Finding("control", control.id, level, float(not control.ok), 1.0, control.evidence)

    def _low(self, check: str, subject: str, measured: float, pair: tuple[float, float]) -> Finding:
        """Compare a score with its thresholds; a level once reached is left only `clear_points` above it."""
        held = self._held.get(subject, "ok")
        points = self._limits.clear_points
        warning = pair[0] + (points if held != "ok" else 0.0)
        critical = pair[1] + (points if held == "critical" else 0.0)
        assert critical <= warning, "the pair is in order"
        # No score can be above 100, so a threshold there must be left at 100.
        warning, critical = min(warning, 100.0), min(critical, 100.0)
        level: Level = "critical" if measured < critical else "warning" if measured < warning else "ok"
        self._held[subject] = level
        limit = pair[1] if level == "critical" else pair[0]
        return Finding(check, subject, level, measured, limit, f"{measured:.1f} % (threshold {limit:g} %)")

    def _checks_held(self, findings: Sequence[Finding]) -> float:
        """
        Return the per cent of live checks that hold; a warning counts half.

        A violation lasts until its alert is resolved. Scores and controls have parts of the score of their own.
        """
        lost = {(finding.check, finding.subject): WEIGHT[finding.level] for finding in findings}
        for violation in self._desk.open:
            place = violation.check, violation.subject
            if violation.check not in {"score", "control"}:
                lost[place] = max(WEIGHT[violation.level], lost.get(place, 0.0))
        assert all(0 <= weight <= 1 for weight in lost.values()), "a check is lost once at most"
        return 100.0 * (1 - sum(lost.values()) / len(lost)) if lost else 100.0

    def _controls_held(self) -> float | None:
        report = ComplianceReport(Score(None, None, {}), self._controls, 0, True)
        return report.controls_held

    def _score(self, held: float) -> float:
        known = [part for part in (held, self._controls_held(), self._power_of_ten) if part is not None]
        assert known, "the live checks are always known"
        score = sum(known) / len(known)
        assert 0 <= score <= 100, "per cent"
        return score

    def _write_report(self) -> None:
        """Let another process write the reports, so that this one's threads go on."""
        if self._report_folder is None:
            return
        with self._told("report"):
            command = [sys.executable, "-m", "compliance.live_formats", str(self._report_folder.absolute())]
            encoded = msgspec.msgpack.encode(self.record())
            done = subprocess.run(command, input=encoded, capture_output=True, timeout=REPORT_LIMIT_S, check=False)
            if done.returncode != 0:
                words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
                raise EvidenceError(f"the report {self._report_folder} was not written: {' '.join(words)}")


class _Due:
    """Tells when an interval is over; never, where there is none."""

    def __init__(self, every_s: float | None) -> None:
        assert every_s is None or every_s > 0, "checked by the monitor"
        self._every_s = every_s
        self._last_s = time.monotonic()

    def now(self) -> bool:
        """Return whether it is over, and begin the next one."""
        if self._every_s is None or time.monotonic() - self._last_s < self._every_s:
            return False
        self._last_s = time.monotonic()
        return True
