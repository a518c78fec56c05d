"""
Load tests: arrivals that do not wait for answers, latency from the scheduled arrival, the point of saturation.

The load is open: each arrival has its time beforehand, and is sent then whether or not earlier ones have answers.
Latency runs from that scheduled time, so that a stall shows in all who had to wait for it (G. Tene calls leaving them
out "coordinated omission"). How late the generator itself was is told beside it. Quantiles are of t-digests, as the
pool's.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from detectors.errors import UsageError
from detectors.memory_leaks import LEAST_READINGS, Growth, MemoryWatch

if TYPE_CHECKING:
    from fastdigest import TDigest

    from detectors.enterprise_detector_pool import EnterpriseDetectorPool
    from detectors.execution import DetectorResult

__all__ = [
    "Arrivals",
    "Bursts",
    "Diurnal",
    "LoadCall",
    "LoadTestConfig",
    "LoadTestResult",
    "Poisson",
    "Saturation",
    "Step",
    "Trace",
    "find_saturation",
    "run_load_test",
    "saturation_of",
]

QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
CENTROIDS = 1_000
"""So many that the thousandth has a centroid of its own."""
MOST_ARRIVALS = 1_000_000
MOST_TRACE_BYTES = 64 << 20
WARM_SHARE = 0.3
"""First readings of memory that do not count."""
LEAST_SHARE_DONE = 0.98
"""Of what arrived in time, that must be answered by the end for a rate to be sustained."""
MOST_STEPS = 60
FARTHEST = 1e6
"""How many times the first rate, or which part of it, is tried at most."""


class Poisson(msgspec.Struct, frozen=True, tag="poisson"):
    """Arrivals that know nothing of each other."""

    rate_hz: float

    def __post_init__(self) -> None:
        _require_above_zero(rate_hz=self.rate_hz)


class Bursts(msgspec.Struct, frozen=True, tag="bursts"):
    """A Poisson stream, and every so often many arrivals at one moment, as after a merge."""

    rate_hz: float
    size: int
    """Arrivals of a burst."""
    every_s: float

    def __post_init__(self) -> None:
        _require_above_zero(rate_hz=self.rate_hz, size=self.size, every_s=self.every_s)


class Diurnal(msgspec.Struct, frozen=True, tag="diurnal"):
    """A Poisson stream whose rate follows a day: mean * (1 + swing * sin(2 pi t / period))."""

    mean_hz: float
    swing: float
    """0 to 1."""
    period_s: float

    def __post_init__(self) -> None:
        _require_above_zero(mean_hz=self.mean_hz, period_s=self.period_s)
        if not 0 <= self.swing <= 1:
            raise UsageError(f"the swing of a day's load is from 0 to 1, not {self.swing}")


class Trace(msgspec.Struct, frozen=True, tag="trace"):
    """Arrivals that were recorded: one a line, seconds since the first, and the detector's name after white space."""

    file: str
    speed: float = 1.0
    """2 plays it twice as fast."""

    def __post_init__(self) -> None:
        _require_above_zero(speed=self.speed)


Arrivals = Poisson | Bursts | Diurnal | Trace


class LoadCall(msgspec.Struct, frozen=True):
    """One kind of work of the mix; priorities are those of the registered detectors."""

    detector: str
    arguments: tuple[tuple[Any, ...], ...]
    """Positional arguments; each arrival takes one of them, so that lengths are mixed."""
    weight: float = 1.0
    """How often it is chosen, beside the others."""

    def __post_init__(self) -> None:
        _require_above_zero(weight=self.weight)
        if not self.detector or not self.arguments:
            raise UsageError("a call of a load test names a detector and at least one tuple of arguments")


class LoadTestConfig(msgspec.Struct, frozen=True):
    """What a load test does."""

    arrivals: Arrivals
    mix: tuple[LoadCall, ...]
    seconds: float = 10.0
    """For which work arrives."""
    drain_s: float = 30.0
    """For which answers are waited for after the last arrival; what has none then is lost."""
    seed: int = 1
    memory_every: int | None = None
    """Answers between readings of memory for the test for leaks, each of which holds answers up; none when absent."""
    trace_allocations: bool = False
    """Whether Python's allocations are traced, too, which slows the run several times."""

    def __post_init__(self) -> None:
        _require_above_zero(seconds=self.seconds, drain_s=self.drain_s)
        if self.memory_every is not None:
            _require_above_zero(memory_every=self.memory_every)
        if not self.mix:
            raise UsageError("a load test needs at least one call in its mix")
        if self.trace_allocations and self.memory_every is None:
            raise UsageError("trace_allocations counts with memory_every only")


class LoadTestResult(msgspec.Struct, frozen=True):
    """What a load test showed."""

    offered: int
    """Arrivals that were sent."""
    answered: int
    failed: int
    """Of `answered`, those with an error."""
    lost: int
    """Without an answer when waiting ended."""
    in_time: int
    """Answered before the last arrival's time was over."""
    seconds: float
    rate_hz: float
    """Answers a second until the last one."""
    latency_s: dict[str, float]
    """From the scheduled arrival to the answer: `p50` to `p99.9`, and `max`; empty without answers."""
    by_detector: dict[str, dict[str, float]]
    lateness_s: dict[str, float]
    """From the scheduled arrival to when it was sent: how far the generator itself was behind."""
    errors: dict[str, int]
    """By kind."""
    growth: Growth | None = None
    """Of memory, where it was read often enough."""

    def __post_init__(self) -> None:
        assert self.answered + self.lost == self.offered, "each arrival is accounted for"
        assert self.failed <= self.answered, "a failure is an answer"
        assert self.in_time <= self.answered, "so is what came in time"


class Step(msgspec.Struct, frozen=True):
    """One rate that was tried."""

    rate_hz: float
    sustained: bool
    latency_s: float
    """The quantile that was asked for."""
    share_done: float
    """Answered before the end, of what was offered."""


class Saturation(msgspec.Struct, frozen=True):
    """Where a pool is saturated."""

    sustained_hz: float
    """The highest rate that was tried and sustained; 0 where none was."""
    saturated_hz: float
    """The lowest rate that was tried and not sustained; infinite where all were."""
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        assert self.sustained_hz <= self.saturated_hz, "what is sustained lies below what is not"


def run_load_test(pool: EnterpriseDetectorPool, config: LoadTestConfig) -> LoadTestResult:
    """
    Send work to a pool at times that are fixed beforehand, and measure from those.

    Args:
        pool: With the detectors of the mix; other work on it at the same time counts against it.
        config: What arrives, when, for how long.

    Raises:
        UsageError: A trace that cannot be read, or more than a million arrivals.
        DetectorPoolError: The pool is closed.
    """
    planned = tuple(_planned(config))
    if not planned:
        raise UsageError("nothing arrives within the test's time; take more seconds or a higher rate")
    assert all(later[0] >= earlier[0] for earlier, later in itertools.pairwise(planned)), "arrivals are in order"
    run = _Run(pool, config)
    try:
        return asyncio.run(run.through(planned))
    finally:
        run.close()


def find_saturation(
    pool: EnterpriseDetectorPool,
    config: LoadTestConfig,
    *,
    limit_s: float,
    start_hz: float,
    quantile: Literal["p50", "p90", "p95", "p99", "p99.9"] = "p99",
    precision: float = 0.1,
) -> Saturation:
    """
    Search for the highest rate of arrivals that a pool sustains.

    A rate is sustained when the quantile of latency stays within `limit_s`, 98 % of the arrivals are answered before
    the last one's time is over, and nothing fails or is lost.

    Args:
        pool: As `run_load_test`.
        config: Its arrivals are replaced by Poisson streams.
        limit_s: Latency allowed at `quantile`.
        start_hz: The first rate.
        quantile: Of latency.
        precision: The search ends when the two rates differ by less than this share.

    Raises:
        UsageError: A number that makes no sense.
    """
    _require_above_zero(limit_s=limit_s, start_hz=start_hz)

    def tried(rate_hz: float) -> Step:
        seen = run_load_test(pool, msgspec.structs.replace(config, arrivals=Poisson(rate_hz)))
        latency_s = seen.latency_s.get(quantile, math.inf)
        done = seen.in_time / seen.offered
        sound = seen.failed == 0 and seen.lost == 0
        return Step(rate_hz, sound and latency_s <= limit_s and done >= LEAST_SHARE_DONE, latency_s, done)

    return saturation_of(tried, start_hz, precision)


def saturation_of(tried: Callable[[float], Step], start_hz: float, precision: float) -> Saturation:
    """
    Search by doubling (or halving) until one rate is sustained and one is not, then by halving what lies between.

    Args:
        tried: Tries one rate.
        start_hz: The first one.
        precision: Share by which the two rates may differ in the end, above 0 and below 1.

    Raises:
        UsageError: A number that makes no sense.
    """
    _require_above_zero(start_hz=start_hz)
    if not 0 < precision < 1:
        raise UsageError(f"precision is a share above 0 and below 1, not {precision}")
    steps: list[Step] = []
    low, high, rate_hz = 0.0, math.inf, start_hz
    for _ in range(MOST_STEPS):
        step = tried(rate_hz)
        steps.append(step)
        low, high = (max(low, rate_hz), high) if step.sustained else (low, min(high, rate_hz))
        if low and high < math.inf:
            if high - low <= precision * low:
                break
            rate_hz = math.sqrt(low * high)
        elif not 1 / FARTHEST <= rate_hz / start_hz <= FARTHEST:
            break
        else:
            rate_hz = 2 * low if low else high / 2
    return Saturation(low, high, tuple(steps))


class _Run:
    """One load test under way: all in one event loop, but for the pool's own threads."""

    def __init__(self, pool: EnterpriseDetectorPool, config: LoadTestConfig) -> None:
        from fastdigest import TDigest

        self._pool, self._config = pool, config
        self._watch = MemoryWatch(traced=config.trace_allocations) if config.memory_every is not None else None
        self._latencies: dict[str, TDigest] = collections.defaultdict(lambda: TDigest(CENTROIDS))
        self._all, self._lateness = TDigest(CENTROIDS), TDigest(CENTROIDS)
        self._errors: collections.Counter[str] = collections.Counter()
        self._answered = self._in_time = 0
        self._last_s = 0.0

    async def through(self, planned: Sequence[tuple[float, str, tuple[Any, ...]]]) -> LoadTestResult:
        """Send all, wait, and return what was seen; times count from the beginning of this call."""
        began = time.perf_counter()
        waiting: set[asyncio.Task[None]] = set()
        for due_s, name, arguments in planned:
            wait_s = began + due_s - time.perf_counter()
            # Without a pause nothing else would run in this loop, and answers would seem late.
            await asyncio.sleep(max(0.0, wait_s))
            self._lateness.update(max(0.0, time.perf_counter() - began - due_s))
            task = asyncio.create_task(self._one(began, due_s, name, arguments))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if waiting:
            done, _ = await asyncio.wait(set(waiting), timeout=self._config.drain_s)
            for task in done:
                task.result()
        assert self._answered <= len(planned), "each is answered once"
        return self._result(len(planned), time.perf_counter() - began)

    async def _one(self, began: float, due_s: float, name: str, arguments: tuple[Any, ...]) -> None:
        result: DetectorResult = await self._pool.execute_detector_async(name, *arguments)
        at_s = time.perf_counter() - began
        assert at_s >= due_s, "nothing is answered before it arrives"
        self._all.update(at_s - due_s)
        self._latencies[name].update(at_s - due_s)
        self._answered += 1
        self._in_time += at_s <= self._config.seconds
        self._last_s = at_s
        if result.error is not None:
            self._errors[type(result.error).__name__] += 1
        if self._watch is not None and self._answered % (self._config.memory_every or 1) == 0:
            self._watch.read(self._answered)

    def _result(self, offered: int, seconds: float) -> LoadTestResult:
        growth = None
        if self._watch is not None and self._watch.readings * (1 - WARM_SHARE) >= LEAST_READINGS:
            growth = self._watch.growth(WARM_SHARE)
        return LoadTestResult(
            offered, self._answered, sum(self._errors.values()), offered - self._answered, self._in_time, seconds,
            self._answered / self._last_s if self._last_s else 0.0, _quantiles(self._all),
            {name: _quantiles(digest) for name, digest in sorted(self._latencies.items())},
            _quantiles(self._lateness), dict(self._errors), growth,
        )  # fmt: skip

    def close(self) -> None:
        """End the tracing of allocations."""
        if self._watch is not None:
            self._watch.close()


def _quantiles(digest: TDigest) -> dict[str, float]:
    if digest.is_empty():
        return {}
    values = digest.quantile_vec(list(QUANTILES))
    found = {f"p{100 * quantile:g}": float(value) for quantile, value in zip(QUANTILES, values, strict=True)}
    assert len(found) == len(QUANTILES), "no two have one name"
    return {**found, "max": float(digest.max())}


def _planned(config: LoadTestConfig) -> Iterator[tuple[float, str, tuple[Any, ...]]]:
    """Yield (seconds, detector, arguments) of each arrival, in order; equal seeds give equal plans."""
    # Reproducible, and no secret.
    chooser = random.Random(config.seed)  # noqa: S311  # a reproducible sample, no secret
    by_name = {call.detector: call for call in config.mix}
    weights = [call.weight for call in config.mix]
    for number, (due_s, name) in enumerate(_times(config.arrivals, config.seconds, chooser)):
        if number >= MOST_ARRIVALS:
            raise UsageError(f"more than {MOST_ARRIVALS:,} arrivals; take fewer seconds or a lower rate")
        if name and name not in by_name:
            raise UsageError(f"the trace names {name!r}, which is not in the mix: {', '.join(sorted(by_name))}")
        call = by_name[name] if name else chooser.choices(config.mix, weights)[0]
        assert due_s >= 0, "nothing arrives before the beginning"
        yield due_s, call.detector, chooser.choice(call.arguments)


def _times(arrivals: Arrivals, seconds: float, chooser: random.Random) -> Iterator[tuple[float, str]]:
    """Yield times of arrival, and the detector's name where a trace says it."""
    match arrivals:
        case Poisson(rate_hz):
            for at_s in _stream(rate_hz, seconds, chooser):
                yield at_s, ""
        case Bursts(rate_hz, size, every_s):
            bursts = [every_s * number for number in range(1, math.ceil(seconds / every_s)) for _ in range(size)]
            for at_s in sorted([*_stream(rate_hz, seconds, chooser), *bursts]):
                yield at_s, ""
        case Diurnal(mean_hz, swing, period_s):
            # Thinning: P. A. W. Lewis, G. S. Shedler, Naval Research Logistics Quarterly 26(3), 1979.
            for at_s in _stream(mean_hz * (1 + swing), seconds, chooser):
                now = (1 + swing * math.sin(2 * math.pi * at_s / period_s)) / (1 + swing)
                if chooser.random() < now:
                    yield at_s, ""
        case Trace(file, speed):
            for at_s, name in _recorded(Path(file)):
                if at_s / speed < seconds:
                    yield at_s / speed, name


def _stream(rate_hz: float, seconds: float, chooser: random.Random) -> Iterator[float]:
    at_s = 0.0
    for _ in range(MOST_ARRIVALS + 1):
        at_s += chooser.expovariate(rate_hz)
        if at_s >= seconds:
            return
        yield at_s


def _recorded(file: Path) -> list[tuple[float, str]]:
    """Return a trace's arrivals; raises UsageError with the line that is none."""
    try:
        if file.stat().st_size > MOST_TRACE_BYTES:
            raise UsageError(f"the trace {file} is longer than {MOST_TRACE_BYTES} bytes")
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"the trace {file} cannot be read: {problem}") from problem
    found: list[tuple[float, str]] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            at_s = float(words[0])
        except ValueError:
            at_s = math.nan
        before_s = found[-1][0] if found else 0.0
        if not at_s >= before_s or len(words) > 2 or at_s == math.inf:
            raise UsageError(f"{file}:{number} is no arrival: seconds that do not fall, and at most a detector's name")
        found.append((at_s, words[1] if len(words) == 2 else ""))
    return found


def _require_above_zero(**numbers: float) -> None:
    """Raise UsageError for a number that is not above 0, or is none."""
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise UsageError(f"{name} of a load test must be above 0, not {number}")
