"""
How every figure is measured: interleaved pairs, warm-up found and not guessed, intervals, noise, the machine.

A comparison runs its two sides in turn (A B, B A, A B, …), so that whatever else the machine does meets both alike. A
pilot comes first: it ends when both sides are steady, and its noise says how many pairs the wanted interval needs. That
number is fixed before the first measured pair, and no measured pair is dropped, however far out it lies. From the same
runs come pairs of A with A: what they differ by is noise. Whether two sides differ is decided by an exact test, whose
share of false alarms is stated; the interval says by how much.

Sources: A. Georges, D. Buytaert, L. Eeckhout, "Statistically Rigorous Java Performance Evaluation", OOPSLA 2007;
T. Kalibera, R. Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from detectors.errors import UsageError

__all__ = [
    "ALPHA",
    "LEVEL",
    "MOST_PAIRS",
    "STATED_SHARE",
    "Comparison",
    "Environment",
    "Interval",
    "Series",
    "compare",
    "environment",
    "mean_interval",
    "null_probability",
    "outliers",
    "pairs_needed",
    "quantile_interval",
    "ratio_interval",
    "series",
    "share_interval",
    "steady_from",
]

LEVEL = 0.95
RESAMPLES = 9_999
SEED = 0
"""Equal samples give an equal interval, so that a report can be made again."""
ALPHA = 0.01
"""Level of the test for a difference: of comparisons of equals it calls one in a hundred different, in the mean."""
STATED_SHARE = 0.05
"""Of a hundred comparisons of equals no more are called different, but for one such hundred in two thousand."""
LEAST_PAIRS, MOST_PAIRS = 8, 200
"""Of seven pairs the exact test can never say what ALPHA asks for: 2 of 128 signs."""
LEAST_PILOT, MOST_PILOT = 6, 12
CAUTION = 0.8
FENCE = 3.0
"""Interquartile ranges beyond the quartiles: what Tukey calls far out."""


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float
    samples: int

    def __post_init__(self) -> None:
        assert self.samples > 0, "nothing was measured"
        assert not self.low > self.high, "an interval has two ends"

    def told(self, of: str = "samples", digits: int = 3) -> str:
        """Return it as text; `of` says what was counted."""
        if not of or digits < 0:
            raise UsageError("what was counted has a name, and a figure digits")
        return (
            f"{self.estimate:.{digits}f} (95 % interval {self.low:.{digits}f} to {self.high:.{digits}f}, "
            f"{self.samples} {of})"
        )


class Comparison(msgspec.Struct, frozen=True):
    """Two sides that were run in turn; pairs stand in the order in which they were run."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    pilot_first: tuple[float, ...]
    pilot_second: tuple[float, ...]
    ratio: Interval
    """First over second: 1.01 says that the first takes 1 % more."""
    noise: Interval
    """Of the second side over itself: what the machine alone makes of equal work."""
    null_probability: float
    """Of such a difference, or a larger one, between equals."""
    wanted: float
    """Half width of the interval that was asked for, as a share."""
    pairs_needed: int
    """By the pilot's noise."""
    warm_up: int
    """Rounds of the pilot before both sides were steady."""
    steady: bool
    """Whether the pilot saw them become so."""

    def __post_init__(self) -> None:
        assert len(self.first) == len(self.second) == self.ratio.samples, "they are pairs"
        assert 0 <= self.null_probability <= 1, "a probability"
        assert len(self.pilot_first) == len(self.pilot_second) >= self.warm_up, "the warm-up is a part of the pilot"
        assert self.pairs_needed >= LEAST_PAIRS, "the test for a difference needs so many"

    @property
    def differs(self) -> bool:
        """Whether the sides differ, by a test that says so of at most `ALPHA` of the comparisons of equals."""
        assert 0 < ALPHA < STATED_SHARE, "the level leaves room for chance"
        return self.null_probability <= ALPHA

    @property
    def limited(self) -> bool:
        """Whether there was time for fewer pairs than the wanted interval needs."""
        return len(self.first) < self.pairs_needed


class Series(msgspec.Struct, frozen=True):
    """Runs of one side, in the order in which they were run."""

    values: tuple[float, ...]
    pilot: tuple[float, ...]
    mean: Interval
    wanted: float
    """Half width of the interval of the mean that was asked for, as a share."""
    runs_needed: int
    """By the pilot's noise."""
    warm_up: int
    steady: bool

    def __post_init__(self) -> None:
        assert len(self.values) == self.mean.samples, "each measured run counts"
        assert self.warm_up <= len(self.pilot), "the warm-up is a part of the pilot"

    @property
    def limited(self) -> bool:
        """Whether there was time for fewer runs than the wanted interval needs."""
        assert self.values, "something was measured"
        return len(self.values) < self.runs_needed


class Environment(msgspec.Struct, frozen=True):
    """The machine and the software that a figure is of."""

    time: str
    """UTC, ISO 8601."""
    processor: str
    processors: int
    """That this process may use."""
    memory_bytes: int
    system: str
    python: str
    version: str
    """Of this project."""
    load_average: float
    """Of the last minute, at the start."""

    @property
    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that are equal where figures may be compared."""
        alike = (self.processor, self.processors, self.memory_bytes >> 30, self.system, self.python)
        assert all(alike), "a machine that is not known is like no other"
        return hashlib.sha256(msgspec.json.encode(alike)).hexdigest()[:16]

    def told(self) -> str:
        """Return it as one line."""
        return (
            f"{self.time}: {self.processors} x {self.processor}, {self.memory_bytes / 2**30:.0f} GB, {self.system}, "
            f"Python {self.python}, version {self.version}, load average {self.load_average:.1f} at the start"
        )


def environment() -> Environment:
    """Return what this run is measured on."""
    import importlib.metadata

    import psutil

    found = Environment(
        datetime.now(UTC).isoformat(timespec="seconds"),
        _processor(),
        len(os.sched_getaffinity(0)),
        psutil.virtual_memory().total,
        f"{platform.system()} {platform.release()} {platform.machine()}",
        platform.python_version(),
        importlib.metadata.version("enterprise-detector-pool"),
        os.getloadavg()[0],
    )
    assert found.processors > 0, "this runs on one"
    assert found.memory_bytes > 0, "this lies in some"
    assert found.load_average >= 0, "a load is none or some"
    return found


def compare(
    first: Callable[[], float],
    second: Callable[[], float],
    *,
    half_width: float,
    budget_s: float,
    most_pairs: int = MOST_PAIRS,
) -> Comparison:
    """
    Run two sides in turn, as often as the wanted interval of their ratio needs.

    Args:
        first: Does its work once, and returns the seconds (or another amount above 0) that count.
        second: The same, of what it is compared with.
        half_width: Half of the width of the wanted 95 % interval, as a share: 0.01 for ± 1 %.
        budget_s: Seconds that pilot and pairs may take together; `LEAST_PAIRS` pairs are run in any case.
        most_pairs: However much noise there is.

    Raises:
        UsageError: A wanted interval, budget or number of pairs that makes no sense.
    """
    if not 0 < half_width < 1:
        raise UsageError(f"half_width is a share above 0 and below 1, not {half_width}")
    if not budget_s > 0 or most_pairs < LEAST_PAIRS:
        raise UsageError(f"a comparison needs time, and at least {LEAST_PAIRS} pairs")
    began = time.perf_counter()
    ones: list[float] = []
    others: list[float] = []
    warm_up: int | None = None
    for number in range(MOST_PILOT):
        _round(number, (first, ones), (second, others))
        if len(ones) >= LEAST_PILOT:
            warm_up = steady_from(ones, others)
            if warm_up is not None or time.perf_counter() - began > budget_s / 3:
                break
    assert len(ones) == len(others) >= LEAST_PILOT, "a pilot has enough to judge by"
    round_s = (time.perf_counter() - began) / len(ones)
    start = warm_up or 0
    needed = pairs_needed(ones[start:], others[start:], half_width)
    affordable = int((budget_s - (time.perf_counter() - began)) / max(round_s, 1e-9))
    pairs = max(LEAST_PAIRS, min(needed, affordable, most_pairs))
    measured: tuple[list[float], list[float]] = ([], [])
    for number in range(pairs):
        _round(number, (first, measured[0]), (second, measured[1]))
    assert len(measured[0]) == pairs, "no more and no fewer than was fixed"
    even = measured[1][: len(measured[1]) // 2 * 2]
    return Comparison(
        tuple(measured[0]), tuple(measured[1]), tuple(ones), tuple(others), ratio_interval(*measured),
        ratio_interval(even[0::2], even[1::2]), null_probability(*measured), half_width, needed,
        len(ones) if warm_up is None else warm_up, warm_up is not None,
    )  # fmt: skip


def series(run: Callable[[], float], *, half_width: float, budget_s: float, most_runs: int = MOST_PAIRS) -> Series:
    """
    Run one side as often as the wanted interval of its mean needs: pilot, a number that is fixed, and so many runs.

    Args:
        run: Does its work once, and returns the amount above 0 that counts.
        half_width: As a share of the mean.
        budget_s: Seconds for all of it; `LEAST_PAIRS` runs are made in any case.
        most_runs: However much noise there is.

    Raises:
        UsageError: A wanted interval, budget or number of runs that makes no sense.
    """
    if not 0 < half_width < 1:
        raise UsageError(f"half_width is a share above 0 and below 1, not {half_width}")
    if not budget_s > 0 or most_runs < LEAST_PAIRS:
        raise UsageError(f"a series needs time, and at least {LEAST_PAIRS} runs")
    began = time.perf_counter()
    pilot: list[float] = []
    warm_up: int | None = None
    for _ in range(MOST_PILOT):
        _side(run, pilot)
        if len(pilot) >= LEAST_PILOT:
            warm_up = steady_from(pilot)
            if warm_up is not None or time.perf_counter() - began > budget_s / 3:
                break
    run_s = (time.perf_counter() - began) / len(pilot)
    assert len(pilot) >= LEAST_PILOT, "a pilot has enough to judge by"
    calm = pilot[warm_up or 0 :]
    needed = pairs_needed(calm, [statistics.fmean(calm)] * len(calm), half_width)
    affordable = int((budget_s - (time.perf_counter() - began)) / max(run_s, 1e-9))
    runs = max(LEAST_PAIRS, min(needed, affordable, most_runs))
    values: list[float] = []
    for _ in range(runs):
        _side(run, values)
    assert len(values) == runs, "no more and no fewer than was fixed"
    return Series(
        tuple(values), tuple(pilot), mean_interval(values), half_width, needed,
        len(pilot) if warm_up is None else warm_up, warm_up is not None,
    )  # fmt: skip


def steady_from(*sides: Sequence[float]) -> int | None:
    """
    Return from which round on all sides are steady, counted from 0; `None` where none of them says so yet.

    The rule is MSER: of all truncations, that with the smallest standard error of the mean of what is left. It is
    believed where it keeps half of the rounds at least; and it counts only where all that it cuts lies on one side of
    all that it keeps, since of pure noise it would keep what happens to be alike, and make the machine look calm.

    Source: K. P. White, "An Effective Truncation Heuristic for Bias Reduction in Simulation Output", Simulation 69(6),
    1997.
    """
    if not sides or min(map(len, sides)) < LEAST_PILOT:
        raise UsageError(f"a steady state is looked for in at least {LEAST_PILOT} values")
    latest = max(_truncated(values) for values in sides)
    assert latest < min(map(len, sides)), "something is left"
    assert latest >= 0, "rounds are counted from 0"
    return latest if latest <= min(map(len, sides)) // 2 else None


def pairs_needed(first: Sequence[float], second: Sequence[float], half_width: float) -> int:
    """
    Return how many pairs give an interval of the ratio with this half width, by the noise of a pilot.

    A small pilot may look calmer than the machine is, so the upper 80 % limit of its deviation counts.

    Args:
        first: Seconds of the pilot's runs of one side, in order.
        second: Of the other.
        half_width: As a share.

    Raises:
        UsageError: Fewer than two pairs.

    Source: R. H. Browne, "On the Use of a Pilot Sample for Sample Size Determination", Statistics in Medicine 14, 1995.
    """
    if len(first) != len(second) or len(first) < 2:
        raise UsageError("the noise of a pilot shows in at least two pairs")
    logs = [math.log(one / other) for one, other in zip(first, second, strict=True)]
    seen = statistics.stdev(logs)
    if not seen > 0:
        return LEAST_PAIRS
    from scipy import stats

    deviation = seen * math.sqrt((len(logs) - 1) / float(stats.chi2.ppf(1 - CAUTION, len(logs) - 1)))
    assert deviation > seen, "a limit above what was seen"
    wanted = math.log1p(half_width)
    assert wanted > 0, "an interval has a width"
    for pairs in range(LEAST_PAIRS, MOST_PAIRS):
        reached = float(stats.t.ppf((1 + LEVEL) / 2, pairs - 1)) * deviation / math.sqrt(pairs)
        if reached <= wanted:
            return pairs
    return max(MOST_PAIRS, math.ceil((1.96 * deviation / wanted) ** 2))


def ratio_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """
    Return the geometric mean of the pairs' ratios, with its bootstrap interval.

    Raises:
        UsageError: No pairs, or an amount that is not above 0.
    """
    logs = _log_ratios(first, second)
    found = _bootstrapped(logs)
    assert len(logs) == len(first), "a ratio a pair"
    assert found.samples == len(first), "each pair counts"
    return Interval(math.exp(found.estimate), math.exp(found.low), math.exp(found.high), found.samples)


def mean_interval(values: Sequence[float]) -> Interval:
    """
    Return the mean with its bootstrap interval.

    Raises:
        UsageError: No values.
    """
    if not values:
        raise UsageError("a mean is of at least one value")
    found = _bootstrapped(values)
    assert min(values) - 1e-9 <= found.estimate <= max(values) + 1e-9, "a mean lies among its values"
    return found


def quantile_interval(values: Sequence[float], quantile: float) -> Interval:
    """
    Return a quantile with the interval that order statistics give, which holds for any distribution.

    Args:
        values: Independent samples.
        quantile: Above 0 and below 1.

    Raises:
        UsageError: No values, or no quantile.
    """
    if not values or not 0 < quantile < 1:
        raise UsageError("a quantile above 0 and below 1 is of at least one value")
    from scipy import stats

    result = stats.quantile_test(values, q=0, p=quantile).confidence_interval(LEVEL)
    ordered = sorted(values)
    estimate = ordered[min(len(ordered) - 1, math.ceil(quantile * len(ordered)) - 1)]
    # Of few values the interval is open; what was seen is then all that can be said.
    low = ordered[0] if math.isnan(result.low) else float(result.low)
    high = ordered[-1] if math.isnan(result.high) else float(result.high)
    assert ordered[0] <= low <= high <= ordered[-1], "its ends are among the samples"
    assert ordered[0] <= estimate <= ordered[-1], "a quantile is one of the samples"
    return Interval(estimate, min(low, estimate), max(high, estimate), len(values))


def share_interval(successes: int, trials: int) -> Interval:
    """
    Return a share with its exact interval (Clopper and Pearson, Biometrika 26(4), 1934).

    Raises:
        UsageError: Counts that are none.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise UsageError(f"{successes} of {trials} is no share")
    from scipy import stats

    ends = stats.binomtest(successes, trials).proportion_ci(LEVEL, "exact")
    assert ends.low <= successes / trials <= ends.high, "the share lies in its interval"
    return Interval(successes / trials, float(ends.low), float(ends.high), trials)


def null_probability(first: Sequence[float], second: Sequence[float]) -> float:
    """
    Return how probable a difference as large as seen is between equals, by flipping the signs of pairs' differences.

    Exact up to 13 pairs, and for more from 9,999 drawn flips, which keeps the stated share of false alarms, too: of
    equals that are run in turn each pair's sign is a coin's.

    Source: R. A. Fisher, "The Design of Experiments", 1935, chapter 3.

    Raises:
        UsageError: No pairs, or an amount that is not above 0.
    """
    logs = _log_ratios(first, second)
    if len(logs) == 1 or not any(logs):
        return 1.0
    import numpy as np
    from scipy import stats

    found = stats.permutation_test(
        (np.asarray(logs),), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    ).pvalue  # fmt: skip
    assert 0 <= found <= 1, "a probability"
    return float(found)


def outliers(values: Sequence[float]) -> tuple[int, ...]:
    """Return the places of values far out (Tukey, "Exploratory Data Analysis", 1977); to be shown, never dropped."""
    if len(values) < LEAST_PILOT:
        return ()
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    assert min(values) <= low <= high <= max(values), "quartiles are in order"
    reach = FENCE * (high - low)
    found = tuple(place for place, value in enumerate(values) if not low - reach <= value <= high + reach)
    assert len(found) <= len(values) // 2, "most values are between the fences"
    assert all(0 <= place < len(values) for place in found), "places are of values"
    return found


def _round(number: int, *sides: tuple[Callable[[], float], list[float]]) -> None:
    """Run each side once; who goes first alternates."""
    assert len(sides) == 2, "a pair has two sides"
    for run, seen in sides if number % 2 == 0 else reversed(sides):
        _side(run, seen)


def _side(run: Callable[[], float], seen: list[float]) -> None:
    amount = run()
    assert math.isfinite(amount), "an amount is a number"
    if not amount > 0:
        raise UsageError(f"a run that is measured returns an amount above 0, not {amount}")
    seen.append(amount)


def _truncated(values: Sequence[float]) -> int:
    errors = [statistics.pvariance(values[start:]) / (len(values) - start) for start in range(len(values) - 1)]
    start = errors.index(min(errors))
    cut, kept = values[:start], values[start:]
    assert kept, "something is left"
    assert len(cut) + len(kept) == len(values), "each is cut or kept"
    apart = not cut or min(cut) > max(kept) or max(cut) < min(kept)
    return start if apart else 0


def _log_ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    if not first or len(first) != len(second):
        raise UsageError(f"pairs have two sides: {len(first)} and {len(second)} are none")
    if min(*first, *second) <= 0:
        raise UsageError("a ratio is of amounts above 0")
    return [math.log(one / other) for one, other in zip(first, second, strict=True)]


def _bootstrapped(values: Sequence[float]) -> Interval:
    """Return the mean with its bias-corrected and accelerated interval (Efron, JASA 82(397), 1987)."""
    center = statistics.fmean(values)
    assert math.isfinite(center), "each value is a number"
    if len(values) == 1 or max(values) == min(values):
        return Interval(center, center, center, len(values))
    import numpy as np
    from scipy import stats

    ends = stats.bootstrap(
        (np.asarray(values),), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    assert ends.low <= ends.high, "an interval has two ends"
    return Interval(center, float(ends.low), float(ends.high), len(values))


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.machine()
    assert text, "the kernel tells of a processor"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names and names[0] else platform.machine()
