"""
History to predicted seconds, predicted seconds to batches.

A detector's time on a batch is taken for a line, `seconds = start + rate * megabytes`, fitted by least squares over
sums that decay, so that a run learns from the last ones and prediction is arithmetic on stored numbers: a warm run
imports no numerical library. Until there is a history, the detector's complexity score (seconds a megabyte) stands in.

Batches follow guided self-scheduling: each takes its share of what remains, the longest files first, so that batches
shrink towards the end and no worker waits long for the last one.
Source: Polychronopoulos and Kuck, "Guided self-scheduling", IEEE Transactions on Computers C-36(12), 1987.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from detectors.cache import Timing
from detectors.closures import Context
from detectors.errors import UsageError
from detectors.model import SourceFile
from detectors.rule_settings import RuleSettings

__all__ = ["Allocation", "Batch", "BatchLimits", "WorkloadOptimizer"]

DECAY = 0.98
"""Weight that an observation keeps with each later one of the same detector: about fifty count."""
MEGABYTE = 1e6
TARGET_S = (0.5, 30.0)
"""Shorter batches cost more in hand-over than they win in balance; longer ones leave too much to lose."""
SHARE_A_WORKER = 3
MIN_HISTORY = 2.0


class Batch(msgspec.Struct, frozen=True):
    """What one worker does in one go."""

    name: str
    """The stage, a dash, and a token: Dask groups by what stands before the dash."""
    stage: str
    detectors: tuple[str, ...]
    """They share one read and one parse of each file."""
    files: tuple[SourceFile, ...]
    predicted_s: float
    settings: RuleSettings = RuleSettings()
    """With which a worker makes the rules."""
    support: tuple[SourceFile, ...] = ()
    """Headers or modules that a tool reads beside its files, and does not report on."""
    contexts: dict[str, Context] = {}
    """By report path how a tool is to look at a file; treated as immutable."""


class BatchLimits(msgspec.Struct, frozen=True):
    """What a detector bears in one batch."""

    files: int = 1_000
    start_s: float = 0.0
    """Start-up of the detector, paid once a batch."""


class Allocation(msgspec.Struct, frozen=True):
    """How many workers to use, and which tasks to hand them in which order."""

    concurrency: int
    order: tuple[str, ...]
    predicted_s: float


class _Registered(msgspec.Struct, frozen=True):
    priority: int
    weight: float
    complexity_score: float


class WorkloadOptimizer:
    """
    Learns how long detectors take and makes batches of about equal length. Thread-safe.

    Args:
        timings: The history, by detector, as `ResultCache.timings` returns it.
    """

    def __init__(self, timings: Mapping[str, Timing] | None = None) -> None:
        self._lock = threading.Lock()
        self._timings = dict(timings or {})
        self._registered: dict[str, _Registered] = {}
        self._error_sum_s = 0.0
        self._observed = 0

    def register_detector(
        self, detector_name: str, priority: int = 5, weight: float = 1.0, complexity_score: float = 1.0
    ) -> None:
        """
        Make a detector known.

        Args:
            detector_name: Its name.
            priority: Higher runs earlier.
            weight: Share among detectors of equal priority, above 0.
            complexity_score: Expected seconds a megabyte (or a call), above 0, until there is a history.

        Raises:
            UsageError: A weight or score that is not above 0.
        """
        if not (weight > 0 and complexity_score > 0):
            raise UsageError(f"weight and complexity_score of {detector_name!r} must be above 0")
        with self._lock:
            self._registered[detector_name] = _Registered(priority, weight, complexity_score)

    def predict(self, detector_name: str, size_bytes: int) -> float:
        """Return the expected seconds for `size_bytes` in a running batch; never below a microsecond."""
        _, rate = self._line(detector_name)
        return max(rate * (size_bytes + 1_000) / MEGABYTE, 1e-6)

    def observe(self, detector_name: str, size_bytes: int, seconds: float) -> None:
        """Learn from one finished batch of `size_bytes` in all that took `seconds`."""
        start, rate = self._line(detector_name)
        x = size_bytes / MEGABYTE
        with self._lock:
            self._error_sum_s += abs(start + rate * x - seconds)
            self._observed += 1
            old = self._timings.get(detector_name, Timing())
            self._timings[detector_name] = Timing(
                old.n * DECAY + 1, old.x * DECAY + x, old.y * DECAY + seconds, old.xx * DECAY + x * x,
                old.xy * DECAY + x * seconds,
            )  # fmt: skip

    def plan(
        self, stage: str, detectors: Sequence[str], files: Iterable[SourceFile], workers: int, limits: BatchLimits
    ) -> tuple[Batch, ...]:
        """
        Make the batches of one stage.

        Args:
            stage: Name of the batches.
            detectors: What runs on each file.
            files: The misses, in any order; the same set gives the same batches.
            workers: How many run at once.
            limits: What the detector bears.

        Returns:
            Batches, longest first; together they hold each file once.
        """
        weighed = sorted(
            ((sum(self.predict(name, file.size_bytes) for name in detectors), file) for file in files),
            key=lambda pair: (-pair[0], pair[1].path),
        )
        remaining_s = sum(seconds for seconds, _ in weighed)
        batches: list[Batch] = []
        current: list[SourceFile] = []
        current_s = 0.0
        goal_s = _goal(remaining_s, workers)
        for seconds, file in weighed:
            if current and (current_s + seconds > goal_s or len(current) >= limits.files):
                batches.append(_batch(stage, detectors, current, current_s + limits.start_s))
                remaining_s -= current_s
                goal_s = _goal(remaining_s, workers)
                current, current_s = [], 0.0
            current.append(file)
            current_s += seconds
        if current:
            batches.append(_batch(stage, detectors, current, current_s + limits.start_s))
        return tuple(sorted(batches, key=lambda batch: (-batch.predicted_s, batch.name)))

    def optimize_allocation(
        self, pending_tasks: Sequence[Any], current_system_load: float | Mapping[str, float]
    ) -> Allocation:
        """
        Choose how many tasks run at once, and in which order.

        Args:
            pending_tasks: Names of detectors, or tuples that begin with one.
            current_system_load: Share of the processors that others use, 0 to 1, or a mapping with `cpu` in per cent.

        Returns:
            The allocation; its order is by priority, then longest first.
        """
        import os

        load = current_system_load
        busy = float(load.get("cpu", 0.0)) / 100 if isinstance(load, Mapping) else float(load)
        names = [task if isinstance(task, str) else str(task[0]) for task in pending_tasks]
        processors = len(os.sched_getaffinity(0))
        free = max(1, round(processors * (1 - min(max(busy, 0.0), 1.0))))
        default = _Registered(5, 1.0, 1.0)
        ranked = sorted(
            names,
            key=lambda name: (-self._registered.get(name, default).priority, -sum(self._line(name)), name),
        )
        total_s = sum(sum(self._line(name)) for name in names)
        return Allocation(min(free, max(len(names), 1)), tuple(ranked), total_s / free)

    def get_optimization_stats(self) -> dict[str, Any]:
        """Return what was learnt: the line of each detector, and the mean absolute error of prediction in seconds."""
        with self._lock:
            timings, observed, error_s = dict(self._timings), self._observed, self._error_sum_s
        return {
            "observed_batches": observed,
            "mean_absolute_error_s": error_s / observed if observed else None,
            "detectors": {
                name: dict(zip(("start_s", "seconds_per_mb"), self._line(name), strict=True))
                | {"observations": timing.n}
                for name, timing in sorted(timings.items())
            },
        }

    def timings(self) -> dict[str, Timing]:
        """Return the history, to be kept by `ResultCache.remember_timings`."""
        with self._lock:
            return dict(self._timings)

    def _line(self, detector_name: str) -> tuple[float, float]:
        """Return (start seconds, seconds a megabyte)."""
        timing = self._timings.get(detector_name)
        registered = self._registered.get(detector_name)
        score = registered.complexity_score if registered else 1.0
        if timing is None or timing.n < MIN_HISTORY or timing.x <= 0:
            return 0.0, score
        spread = timing.n * timing.xx - timing.x * timing.x
        mean_rate = timing.y / timing.x
        if spread <= 1e-9 * timing.n * timing.xx:
            return 0.0, mean_rate
        rate = (timing.n * timing.xy - timing.x * timing.y) / spread
        start = (timing.y - rate * timing.x) / timing.n
        # A line through noise may fall or begin below zero, which no real detector does.
        return (start, rate) if rate > 0 and start >= 0 else (0.0, mean_rate)


def _goal(remaining_s: float, workers: int) -> float:
    low, high = TARGET_S
    return min(max(remaining_s / (SHARE_A_WORKER * max(workers, 1)), low), high)


def _batch(stage: str, detectors: Sequence[str], files: list[SourceFile], seconds: float) -> Batch:
    import hashlib

    token = hashlib.sha256(msgspec.msgpack.encode([(file.path, file.digest) for file in files])).hexdigest()[:12]
    return Batch(f"{stage}-{token}", stage, tuple(detectors), tuple(files), seconds)
