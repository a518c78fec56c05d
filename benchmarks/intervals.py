"""Means with their interval, for ratios of interleaved runs."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["bootstrap", "mean", "told"]

RESAMPLES = 2_000


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean of at least one value."""
    return sum(values) / len(values)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by the percentile bootstrap (Efron, Annals of Statistics 7(1), 1979)."""
    chooser = random.Random(0)
    means = sorted(mean(chooser.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


def told(values: Sequence[float]) -> str:
    """Return mean, interval and sample size as text."""
    low, high = bootstrap(values)
    return f"{mean(values):.3f} (95 % interval {low:.3f} to {high:.3f}, {len(values)} pairs)"
