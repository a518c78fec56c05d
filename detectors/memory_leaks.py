"""
Does memory grow with executions? A trend test over readings, not two numbers compared.

    python -m detectors.memory_leaks '{"executions": 80000, "blocks": 40, "function": "package.module:detector"}'

A trend is there when the Mann-Kendall test says so with a probability of at most 1 % between readings without one; it
is a leak when the slope (Theil-Sen) is at least that of one small object forgotten by each execution. Read are resident
memory, which sees what any library keeps, and on request what Python's allocator traces, which names the lines.

Sources: H. B. Mann, "Nonparametric Tests Against Trend", Econometrica 13(3), 1945; H. Theil, "A Rank-Invariant Method
of Linear and Polynomial Regression Analysis", 1950; P. K. Sen, JASA 63(324), 1968.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.errors import DetectorPoolError, UsageError

if TYPE_CHECKING:
    import tracemalloc

__all__ = ["Growth", "MemoryTrend", "MemoryWatch", "Trial", "trend_of", "tried", "tried_apart"]

ALLOWED_BYTES_AN_EXECUTION = 40.0
"""One object forgotten by each execution is more: CPython's smallest take 16 to 48 bytes, a result 96."""
ALPHA = 0.01
"""Share of runs without a trend in which one is seen all the same."""
WARM_SHARE = 0.6
"""First blocks of a trial that do not count: caches and bounded histories fill for some 40,000 executions."""
LEAST_READINGS = 6
"""Of five readings in rising order the test cannot say what ALPHA asks for: 1 of 120 orders."""
MOST_SITES = 5
TRIAL_LIMIT_S = 1_800.0


class MemoryTrend(msgspec.Struct, frozen=True):
    """Memory against executions."""

    readings: int
    slope: float
    """Bytes an execution, Theil-Sen."""
    low: float
    high: float
    """Its 95 % interval."""
    probability: float
    """Of readings that rise as much or more, where there is no trend: Mann-Kendall, one-sided."""
    last_bytes: int

    @property
    def leaks(self) -> bool:
        """Whether there is a trend, of one forgotten object an execution or more."""
        return self.probability <= ALPHA and self.slope >= ALLOWED_BYTES_AN_EXECUTION

    def __str__(self) -> str:
        return (
            f"{self.slope:+.2f} bytes an execution (95 % interval {self.low:+.2f} to {self.high:+.2f}, Theil-Sen; "
            f"Mann-Kendall p = {self.probability:.2g}, {self.readings} readings), "
            f"{self.last_bytes / 1e6:.0f} MB at the end"
        )


class Growth(msgspec.Struct, frozen=True):
    """What a run left behind."""

    executions: int
    resident: MemoryTrend
    traced: MemoryTrend | None = None
    """Of Python's own allocations, where they were traced."""
    sites: tuple[str, ...] = ()
    """`file:line: bytes` whose allocations grew most, where they were traced."""

    @property
    def leaks(self) -> bool:
        """Whether either of them does."""
        return self.resident.leaks or (self.traced is not None and self.traced.leaks)

    def __str__(self) -> str:
        told = f"{self.executions} executions: resident {self.resident}"
        return told if self.traced is None else f"{told}; traced {self.traced}; {', '.join(self.sites)}"


class Trial(msgspec.Struct, frozen=True):
    """How a pool is tried for leaks."""

    executions: int
    blocks: int
    """After each, memory is read."""
    function: str = ""
    """`module:name` of a detector that takes a number and runs beside those of the trial; empty for none."""
    traced: bool = False
    """Whether Python's allocations are traced, too, which slows the run several times."""

    def __post_init__(self) -> None:
        if self.blocks * (1 - WARM_SHARE) < LEAST_READINGS or self.executions < self.blocks:
            needed = round(LEAST_READINGS / (1 - WARM_SHARE))
            raise UsageError(f"a trial for leaks needs at least {needed} blocks of executions, not {self.blocks}")


def trend_of(executions: Sequence[int], read_bytes: Sequence[int]) -> MemoryTrend:
    """
    Test readings of memory for a trend.

    Args:
        executions: Done before each reading, rising.
        read_bytes: The readings.

    Raises:
        UsageError: Fewer than six readings, or executions that do not rise.
    """
    if len(executions) != len(read_bytes) or len(executions) < LEAST_READINGS:
        raise UsageError(f"a trend shows in at least {LEAST_READINGS} readings, not {len(read_bytes)}")
    if any(later <= earlier for earlier, later in itertools.pairwise(executions)):
        raise UsageError("memory is read against executions that rise from reading to reading")
    from scipy.stats import kendalltau, theilslopes

    slope, _, low, high = theilslopes(read_bytes, executions, 0.95)
    # Kendall's tau of the readings with their order is the statistic of Mann and Kendall; none where all are equal.
    flat = min(read_bytes) == max(read_bytes)
    probability = 1.0 if flat else float(kendalltau(executions, read_bytes, alternative="greater").pvalue)
    assert 0 <= probability <= 1, "a probability"
    return MemoryTrend(len(read_bytes), float(slope), float(low), float(high), probability, read_bytes[-1])


class MemoryWatch:
    """
    Reads memory as work goes on.

    Args:
        traced: Whether Python's allocations are traced; an error where somebody else traces already.
    """

    def __init__(self, *, traced: bool = False) -> None:
        import tracemalloc

        import psutil

        if traced and tracemalloc.is_tracing():
            raise UsageError("allocations are traced already; two who start and stop it would spoil each other's sums")
        self._process = psutil.Process()
        self._executions: list[int] = []
        self._resident: list[int] = []
        self._traced: list[int] = []
        self._first: tracemalloc.Snapshot | None = None
        self._tracing = traced
        if traced:
            tracemalloc.start()

    @property
    def readings(self) -> int:
        """How often memory was read."""
        assert len(self._executions) == len(self._resident), "each reading is of some executions"
        return len(self._executions)

    def read(self, executions: int) -> None:
        """Read memory after so many executions; a reading without a new one is left out."""
        import tracemalloc

        if self._executions and executions <= self._executions[-1]:
            return
        _ = gc.collect()
        self._executions.append(executions)
        self._resident.append(self._process.memory_info().rss)
        if self._tracing:
            self._traced.append(tracemalloc.get_traced_memory()[0])
            # What comes before this counts as warm-up, as in `growth`.
            if self._first is None and len(self._executions) >= LEAST_READINGS:
                self._first = tracemalloc.take_snapshot()

    def growth(self, warm_share: float = 0.0) -> Growth:
        """
        Return what the readings say, and end the tracing.

        Args:
            warm_share: Of the first readings, how many do not count.

        Raises:
            UsageError: Too few readings are left.
        """
        if not 0 <= warm_share < 1:
            raise UsageError(f"warm_share is a share below 1, not {warm_share}")
        sites = self._sites()
        self.close()
        start = int(len(self._executions) * warm_share)
        executions = self._executions[start:]
        traced = trend_of(executions, self._traced[start:]) if self._traced else None
        done = self._executions[-1] if self._executions else 0
        return Growth(done, trend_of(executions, self._resident[start:]), traced, sites)

    def close(self) -> None:
        """End the tracing; a second call does nothing."""
        import tracemalloc

        if self._tracing:
            self._tracing = False
            tracemalloc.stop()

    def _sites(self) -> tuple[str, ...]:
        import tracemalloc

        if self._first is None or not self._tracing:
            return ()
        grown = [one for one in tracemalloc.take_snapshot().compare_to(self._first, "lineno") if one.size_diff > 0]
        assert all(one.traceback for one in grown), "each stands on a line"
        return tuple(
            f"{one.traceback[0].filename}:{one.traceback[0].lineno}: {one.size_diff:+} bytes"
            for one in grown[:MOST_SITES]
        )


def tried_apart(trial: Trial) -> Growth:
    """
    Try in a fresh interpreter: in one that freed much before, a leak fills holes and is not seen.

    Raises:
        DetectorPoolError: The interpreter failed; its last words are told.
    """
    command = [sys.executable, "-m", "detectors.memory_leaks", msgspec.json.encode(trial).decode()]
    # The measurement of coverage remembers what it saw, which grows, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=TRIAL_LIMIT_S)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise DetectorPoolError(f"the trial for leaks ended with {done.returncode}: {' '.join(words)}")
    growth = msgspec.json.decode(done.stdout, type=Growth)
    assert growth.executions == trial.blocks * (trial.executions // trial.blocks), "all blocks ran"
    return growth


def tried(trial: Trial) -> Growth:
    """
    Run executions of every kind that a pool knows, in this process and beside it.

    Raises:
        DetectorPoolError: An execution did not end as it must.
    """
    size = trial.executions // trial.blocks
    watch = MemoryWatch(traced=trial.traced)
    with EnterpriseDetectorPool(max_workers=2, cache_size=200) as pool:
        pool.register_detector("value", _named(trial.function) if trial.function else _listed)
        pool.register_detector("error", _error, breaker=None)
        pool.register_detector("kept", _text, cacheable=True)
        pool.register_detector("apart", _listed, isolation="process")
        for block in range(trial.blocks):
            for result in pool.execute_stream(_mixed(block * size, size)):
                if result.ok != (result.detector != "error"):
                    raise DetectorPoolError(f"{result.detector} ended with {result.error!r}")
            watch.read((block + 1) * size)
    return watch.growth(WARM_SHARE)


def _mixed(start: int, size: int) -> Iterator[DetectorConfig]:
    assert size > 0, "a block holds executions"
    for number in range(start, start + size):
        yield ("value", "error", "kept", "apart")[number % 4], (number,), {}


def _named(place: str) -> Callable[[int], Any]:
    module, _, name = place.partition(":")
    found = getattr(importlib.import_module(module), name, None) if module and name else None
    if not callable(found):
        raise UsageError(f"{place!r} names no function; write module:name")
    function: Callable[[int], Any] = found
    return function


def _listed(number: int) -> list[int]:
    return [number] * 3


def _text(number: int) -> str:
    return str(number) * 20


def _error(number: int) -> None:
    raise ValueError(number)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.argv[1], type=Trial)
    sys.stdout.buffer.write(msgspec.json.encode(tried(asked)))
