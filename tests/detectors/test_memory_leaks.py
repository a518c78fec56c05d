"""Memory stays flat over many executions, and a leak is seen; `make prove` runs a hundred thousand."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest

from detectors.errors import DetectorPoolError, UsageError
from detectors.memory_leaks import ALPHA, MemoryWatch, Trial, trend_of, tried_apart

PLANTED = "tests.detectors.leaking:remember"


def test_memory_does_not_grow_with_executions() -> None:
    """When this fails, each execution leaves something behind, and a night's run ends without memory."""
    seen = tried_apart(Trial(80_000, 40))

    assert not seen.leaks, str(seen)


def test_a_planted_leak_is_seen() -> None:
    """When this fails, the test above cannot fail."""
    seen = tried_apart(Trial(80_000, 40, PLANTED))

    assert seen.resident.leaks, str(seen)


def test_traced_allocations_name_the_line_that_leaks() -> None:
    """Without the line, who has a leak knows no more than that."""
    clean, leaking = (tried_apart(Trial(8_000, 40, function, traced=True)) for function in ("", PLANTED))

    assert leaking.traced is not None
    assert leaking.traced.leaks, str(leaking)
    assert "leaking.py:" in leaking.sites[0]
    assert clean.traced is not None
    assert not any("leaking.py" in site for site in clean.sites)


def test_memory_without_a_trend_is_called_a_leak_no_oftener_than_stated() -> None:
    """A false alarm each week, and the true one is not believed."""
    chooser = random.Random(1)
    executions = list(range(1_000, 17_000, 1_000))
    alarms = sum(
        trend_of(executions, [10**8 + chooser.randrange(10**7) for _ in executions]).leaks for _ in range(1_000)
    )

    assert alarms <= 1_000 * ALPHA * 2  # a binomial with a mean of 10 passes 20 in two of a thousand seeds


def test_a_slow_steady_leak_is_told_from_noise() -> None:
    """The slope counts an execution, so that a leak of 100 bytes shows among steps of pages."""
    chooser = random.Random(2)
    executions = list(range(1_000, 17_000, 1_000))
    rising = [10**8 + 100 * done + chooser.randrange(200_000) for done in executions]
    falling = rising[::-1]

    assert trend_of(executions, rising).leaks
    assert not trend_of(executions, falling).leaks
    assert trend_of(executions, [10**8] * len(executions)).probability == 1


@pytest.mark.parametrize(
    ("executions", "read"), [([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4, 5, 5], [1] * 6), (list(range(8)), [1] * 7)]
)
def test_what_is_no_series_is_refused(executions: list[int], read: list[int]) -> None:
    """A verdict on nothing would look like a clean run."""
    with pytest.raises(UsageError, match="reading"):
        trend_of(executions, read)


def test_a_trial_that_cannot_say_anything_is_refused() -> None:
    """Too few blocks, or a detector that is not there, must not end as a clean run."""
    with pytest.raises(UsageError, match="blocks"):
        Trial(100, 10)
    with pytest.raises(DetectorPoolError, match="names no function"):
        tried_apart(Trial(100, 20, "tests.detectors.leaking:nothing"))


def test_tracing_is_not_shared() -> None:
    """Two who trace would stop each other in the middle."""
    watch = MemoryWatch(traced=True)
    try:
        with pytest.raises(UsageError, match="traced already"):
            MemoryWatch(traced=True)
    finally:
        watch.close()
    assert not tracemalloc.is_tracing()
    assert "tracemalloc" in sys.modules
