"""
Is the system well, is each detector well, did one become slower: checks with thresholds, told when they change.

Slower is a question of chance: a sample of this pool's executions is compared with the history's by a one-sided
Mann-Whitney U test at level `false_alarm_rate` divided by the number of detectors compared (Bonferroni), so that one
round of checks raises any false alarm of this kind with at most that probability, for independent executions. A
difference that is real and small is none: the median must also have grown by `regression_ratio`.

Source: H. B. Mann and D. R. Whitney, "On a Test of Whether one of Two Random Variables is Stochastically Larger than
the Other", Annals of Mathematical Statistics 18(1), 1947.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import psutil

from detectors.alerts import LogSink
from detectors.cache import ResultCache
from detectors.errors import UsageError
from detectors.memory_pressure import MemoryState, read_memory
from detectors.ports import Alert, AlertSink

__all__ = ["Finding", "HealthMonitor", "HealthReport", "Observed", "Thresholds", "slower", "system_now"]

LEAST_SAMPLE = 20
"""Executions on each side, below which nothing is concluded."""
HISTORY_TTL_S = 90 * 86_400.0

Level = Literal["ok", "warning", "critical"]


class Watched(Protocol):
    """What is asked of a pool."""

    def get_pool_metrics(self) -> dict[str, Any]:
        """Return its metrics."""
        ...

    def latency_samples(self) -> dict[str, tuple[float, ...]]:
        """Return a sample of each detector's latencies, in seconds."""
        ...


class Thresholds(msgspec.Struct, frozen=True):
    """
    Where well ends; pairs are (warning, critical).

    Raises:
        UsageError: A critical threshold below its warning, or a rate that is no probability.
    """

    memory_used_share: tuple[float, float] = (0.85, 0.95)
    disk_used_share: tuple[float, float] = (0.90, 0.97)
    load_a_processor: tuple[float, float] = (2.0, 8.0)
    """The five-minute load average divided by the processors."""
    failure_share: tuple[float, float] = (0.10, 0.50)
    """Of a detector's executions since the last check."""
    overhead_share: tuple[float, float] = (0.05, 0.50)
    """Of the pool's busy seconds since the last check, when there were at least ten of them."""
    false_alarm_rate: float = 0.01
    regression_ratio: float = 1.2
    clear_share: float = 0.9
    """An alert is resolved below this share of its threshold, so that a value near it does not flap."""

    def __post_init__(self) -> None:
        pairs = (
            self.memory_used_share, self.disk_used_share, self.load_a_processor, self.failure_share,
            self.overhead_share,
        )  # fmt: skip
        if any(not 0 < warning <= critical for warning, critical in pairs):
            raise UsageError("a threshold is a pair (warning, critical), above 0 and in this order")
        if not (0 < self.false_alarm_rate < 1 and self.regression_ratio >= 1 and 0 < self.clear_share <= 1):
            raise UsageError("false_alarm_rate and clear_share are shares, and regression_ratio is at least 1")


class Observed(msgspec.Struct, frozen=True):
    """The system at one moment."""

    memory: MemoryState
    disk_used_share: float
    load_a_processor: float


class Finding(msgspec.Struct, frozen=True):
    """One check of one subject."""

    check: str
    subject: str
    level: Level
    measured: float
    threshold: float
    """The one that was crossed; the warning's where none was."""
    message: str


class HealthReport(msgspec.Struct, frozen=True):
    """One round of checks."""

    level: Level
    """The worst of all."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.level == "ok"


@dataclasses.dataclass(eq=False)
class HealthMonitor:
    """
    Checks a pool when asked, or every so many seconds in a thread of its own; a context manager that ends it.
    """

    pool: Watched
    """An `EnterpriseDetectorPool`."""
    thresholds: dataclasses.InitVar[Thresholds | None] = None
    """Where well ends."""
    sinks: dataclasses.InitVar[Sequence[AlertSink] | None] = None
    """Get an alert when a check crosses a threshold and when it is well again; `None` for the log."""
    _: dataclasses.KW_ONLY
    history_folder: Path | None = None
    """Where latencies outlive the process; `None`: each process compares with nothing."""
    observe: dataclasses.InitVar[Callable[[], Observed] | None] = None
    """Reads the system."""
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    def __post_init__(
        self,
        thresholds: Thresholds | None,
        sinks: Sequence[AlertSink] | None,
        observe: Callable[[], Observed] | None,
    ) -> None:
        self._thresholds, self._observe = thresholds or Thresholds(), observe or system_now
        self._sinks: tuple[AlertSink, ...] = (LogSink(),) if sinks is None else tuple(sinks)
        self._store = ResultCache(self.history_folder)
        self._history = self._load() if self.history_folder is not None else {}
        self._levels: dict[tuple[str, str], Level] = {}
        self._before: Mapping[str, Any] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> HealthMonitor:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the watch and keep the history."""
        self.close()

    def check(self) -> HealthReport:
        """Run every check once, send what changed, and return all of it."""
        with self._lock:
            observed, metrics = self._observe(), self.pool.get_pool_metrics()
            found = [
                *self._system(observed), *self._overhead(metrics), *self._detectors(metrics), *self._regressions()
            ]  # fmt: skip
            self._before = metrics
            alerts = [alert for finding in found if (alert := self._changed(finding)) is not None]
        for alert in alerts:
            for sink in self._sinks:
                sink.send(alert)
        worst: Level = max((finding.level for finding in found), key=lambda level: _RANK[level], default="ok")
        return HealthReport(worst, tuple(found))

    def watch(self, every_s: float) -> None:
        """
        Check in a thread until `close`.

        Raises:
            UsageError: No time between checks, or watching already.
        """
        if not every_s > 0 or self._thread is not None:
            raise UsageError("watch needs seconds above 0 between checks, and is called once")
        self._thread = threading.Thread(target=self._watch, args=(every_s,), name="health", daemon=True)
        self._thread.start()

    def learn(self) -> None:
        """Take the latencies of this pool as the history from now on, and keep them if there is a folder."""
        samples = {name: sample for name, sample in self.pool.latency_samples().items() if len(sample) >= LEAST_SAMPLE}
        with self._lock:
            self._history |= samples
            encoded = msgspec.msgpack.encode({name: list(sample) for name, sample in self._history.items()})
            self._store.store_values([(_HISTORY_KEY, encoded)])

    def close(self) -> None:
        """End the watch; a second call does nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._store.close()

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            _ = self.check()

    def _load(self) -> dict[str, tuple[float, ...]]:
        stored = self._store.values([_HISTORY_KEY], HISTORY_TTL_S).get(_HISTORY_KEY)
        if stored is None:
            return {}
        try:
            return msgspec.msgpack.decode(stored, type=dict[str, tuple[float, ...]])
        except msgspec.DecodeError:
            return {}  # a history can be learnt again

    def _system(self, observed: Observed) -> Iterator[Finding]:
        limits = self._thresholds
        used = 1 - observed.memory.free_share
        yield self._judged("memory", observed.memory.source, used, limits.memory_used_share, "of the memory is used")
        yield self._judged("disk", "temporary", observed.disk_used_share, limits.disk_used_share, "of the disk is used")
        yield self._judged(
            "load", "processors", observed.load_a_processor, limits.load_a_processor, "processes want each processor"
        )

    def _overhead(self, metrics: Mapping[str, Any]) -> Iterator[Finding]:
        before = self._before or {"busy_seconds": 0.0, "total": {"seconds": 0.0}}
        busy_s = metrics["busy_seconds"] - before["busy_seconds"]
        if busy_s >= 10:
            inside_s = metrics["total"]["seconds"] - before["total"]["seconds"]
            share = max(0.0, 1 - inside_s / busy_s)
            yield self._judged("overhead", "pool", share, self._thresholds.overhead_share, "of the time is the pool's")

    def _detectors(self, metrics: Mapping[str, Any]) -> Iterator[Finding]:
        earlier = self._before["detectors"] if self._before is not None else {}
        for name, values in metrics["detectors"].items():
            before = earlier.get(name, {"executed": 0, "failed": 0})
            executed, failed = values["executed"] - before["executed"], values["failed"] - before["failed"]
            if executed > 0:
                share = failed / executed
                yield self._judged("failures", name, share, self._thresholds.failure_share, "of its executions failed")
            if values["breaker"] is not None:
                state = values["breaker"]["state"]
                level: Level = "ok" if state == "closed" else "critical"
                yield Finding("breaker", name, level, float(level != "ok"), 1.0, f"its circuit breaker is {state}")

    def _regressions(self) -> Iterator[Finding]:
        recent = self.pool.latency_samples()
        compared = [
            name
            for name, sample in sorted(recent.items())
            if len(sample) >= LEAST_SAMPLE and len(self._history.get(name, ())) >= LEAST_SAMPLE
        ]
        for name in compared:
            level_of_test = self._thresholds.false_alarm_rate / len(compared)
            p_value, ratio = slower(self._history[name], recent[name])
            worse = p_value < level_of_test and ratio >= self._thresholds.regression_ratio
            message = f"its median is {ratio:.2f} times that of the history (p = {p_value:.2g})"
            yield Finding(
                "regression", name, "warning" if worse else "ok", ratio, self._thresholds.regression_ratio, message
            )

    def _judged(self, check: str, subject: str, measured: float, pair: tuple[float, float], words: str) -> Finding:
        """Compare with the thresholds; a level once reached is left only well below it."""
        held = self._levels.get((check, subject), "ok")
        warning, critical = (
            limit * (self._thresholds.clear_share if _RANK[held] >= rank else 1.0)
            for limit, rank in zip(pair, (1, 2), strict=True)
        )
        level: Level = "critical" if measured >= critical else "warning" if measured >= warning else "ok"
        threshold = pair[1] if level == "critical" else pair[0]
        return Finding(check, subject, level, measured, threshold, f"{measured:.3g} {words} (threshold {threshold:g})")

    def _changed(self, finding: Finding) -> Alert | None:
        key = (finding.check, finding.subject)
        before = self._levels.get(key, "ok")
        self._levels[key] = finding.level
        if before == finding.level:
            return None
        return Alert(
            finding.check, finding.subject, "resolved" if finding.level == "ok" else finding.level,
            finding.measured, finding.threshold, finding.message, self.clock(),
        )  # fmt: skip


_RANK: dict[Level, int] = {"ok": 0, "warning": 1, "critical": 2}
_HISTORY_KEY = hashlib.sha256(b"latency-history").digest()


def slower(history: Iterable[float], recent: Iterable[float]) -> tuple[float, float]:
    """
    Compare latencies, in seconds.

    Returns:
        (p value that the recent ones are not larger, by a one-sided Mann-Whitney U test; ratio of the medians).
    """
    from scipy.stats import mannwhitneyu

    old, new = list(history), list(recent)
    p_value = float(mannwhitneyu(new, old, alternative="greater").pvalue)
    return p_value, statistics.median(new) / max(statistics.median(old), 1e-12)


def system_now() -> Observed:
    """Read memory (with its control groups), the disk of the temporary folder, and load."""
    import os
    import tempfile

    load = os.getloadavg()[1] / (os.cpu_count() or 1)
    return Observed(read_memory(), psutil.disk_usage(tempfile.gettempdir()).percent / 100, load)
