"""The statistics behind every figure: what they promise holds on numbers whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from scipy import stats

from detectors.errors import UsageError
from detectors.measurement import (
    ALPHA,
    MOST_PAIRS,
    STATED_SHARE,
    compare,
    environment,
    mean_interval,
    null_probability,
    outliers,
    pairs_needed,
    quantile_interval,
    ratio_interval,
    share_interval,
    steady_from,
)

NULLS = 100
PLANTED, POWER = 50, 0.9
"""A pilot that sees none of the spikes asks for too few pairs, so that not every plant is found."""
NOISE = 0.02
"""Deviation of the logarithm of one run: what this kind of machine shows when others use it, too."""


def _runs(seed: str, factor: float = 1.0, slower_at_first: int = 0) -> Callable[[], float]:
    """Return a side whose runs take about a second, with heavy tails and, if asked for, a warm-up."""
    chooser = random.Random(seed)
    seen = [0]

    def run() -> float:
        seen[0] += 1
        late = 3.0 if seen[0] <= slower_at_first else 1.0
        spike = 1.2 if chooser.random() < 0.03 else 1.0
        return factor * late * spike * math.exp(chooser.gauss(0, NOISE))

    return run


def test_of_a_hundred_comparisons_of_equals_no_more_than_the_stated_share_is_called_a_difference() -> None:
    """When this fails, the benchmark cries wolf more often than it says."""
    called = [
        compare(_runs(f"a{seed}"), _runs(f"b{seed}"), half_width=0.02, budget_s=60).differs for seed in range(NULLS)
    ]

    assert sum(called) <= STATED_SHARE * NULLS
    assert stats.binom.sf(STATED_SHARE * NULLS, NULLS, ALPHA) < 1 / 1_800


def test_a_planted_slow_down_of_five_per_cent_is_found_with_pairs_fixed_beforehand() -> None:
    """When this fails, a regression of the overhead passes unseen, or more was measured until it showed."""
    planted = [
        compare(_runs(f"s{seed}", 1.05), _runs(f"f{seed}"), half_width=0.01, budget_s=60) for seed in range(PLANTED)
    ]

    assert sum(one.differs and one.ratio.low > 1 for one in planted) >= POWER * PLANTED
    assert all(len(one.first) == min(one.pairs_needed, MOST_PAIRS) for one in planted)


def test_warm_up_is_found_and_no_part_of_the_figure() -> None:
    """When this fails, first runs that load and compile make every figure worse than it is."""
    found = compare(_runs("w", slower_at_first=3), _runs("x", slower_at_first=3), half_width=0.05, budget_s=60)

    assert found.steady
    assert found.warm_up == 3
    assert max(found.first) < 2
    assert max(found.pilot_first) > 2.5
    assert steady_from([1.0] * 6) == 0
    assert steady_from([64.0, 32.0, 16.0, 8.0, 4.0, 2.0]) is None


def test_what_lies_far_out_is_shown_and_stays() -> None:
    """When this fails, an outlier was dropped, and the figure is nicer than the machine."""
    values = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 9.0]

    assert outliers(values) == (6,)
    assert mean_interval(values).estimate == pytest.approx(sum(values) / 7)


def test_intervals_hold_what_they_say() -> None:
    """When this fails, `95 %` is a word: too many intervals miss the truth that they were drawn from."""
    chooser = random.Random(5)
    held = {"ratio": 0, "median": 0}
    for _ in range(200):
        first = [1.1 * math.exp(chooser.gauss(0, 0.1)) for _ in range(20)]
        second = [math.exp(chooser.gauss(0, 0.1)) for _ in range(20)]
        ratio, median = ratio_interval(first, second), quantile_interval(second, 0.5)
        held["ratio"] += ratio.low <= 1.1 <= ratio.high
        held["median"] += median.low <= 1.0 <= median.high

    # Fewer than this would be seen once in ten thousand times if 92 % held; the bootstrap of 20 is a little narrow.
    assert min(held.values()) >= stats.binom.ppf(1e-4, 200, 0.92)


def test_the_number_of_pairs_follows_from_the_wanted_interval() -> None:
    """When this fails, a benchmark measures until it likes what it sees, or far too little."""
    chooser = random.Random(1)
    first = [math.exp(chooser.gauss(0, 0.03)) for _ in range(12)]
    wide, narrow = pairs_needed(first, [1.0] * 12, 0.05), pairs_needed(first, [1.0] * 12, 0.005)

    assert 8 <= wide < narrow
    assert pairs_needed([1.0] * 5, [1.0] * 5, 0.01) == 8
    limited = compare(_runs("n"), _runs("m"), half_width=0.001, budget_s=60, most_pairs=8)
    assert limited.limited
    assert len(limited.first) == 8


def test_exact_figures_of_known_cases() -> None:
    """When this fails, a formula is no longer that of its source."""
    assert null_probability([2.0] * 6, [1.0] * 6) == pytest.approx(2 / 64)
    assert null_probability([1.0] * 6, [1.0] * 6) == 1
    # Clopper and Pearson: with all of n the lower end is (alpha/2)^(1/n).
    assert share_interval(10, 10).low == pytest.approx(0.025 ** (1 / 10))
    assert ratio_interval([2.0, 8.0], [1.0, 1.0]).estimate == pytest.approx(4)


def test_what_cannot_be_measured_is_refused() -> None:
    """When this fails, a mistake in a benchmark comes out as a figure."""
    for wrong in (
        lambda: ratio_interval([1.0], []),
        lambda: ratio_interval([0.0], [1.0]),
        lambda: mean_interval([]),
        lambda: share_interval(3, 2),
        lambda: quantile_interval([1.0], 1.0),
        lambda: pairs_needed([1.0], [1.0], 0.1),
        lambda: steady_from([1.0]),
        lambda: compare(_runs("a"), _runs("b"), half_width=0, budget_s=1),
        lambda: compare(lambda: 0.0, _runs("b"), half_width=0.1, budget_s=1),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_the_machine_is_on_record() -> None:
    """When this fails, figures of different machines are held against each other."""
    here = environment()

    assert here.fingerprint == environment().fingerprint
    assert str(here.processors) in here.told()
