"""What the planner learns, and that its batches lose no file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.errors import UsageError
from detectors.model import Digest, SourceFile
from detectors.workload_optimizer import BatchLimits, WorkloadOptimizer


def _file(number: int, size: int) -> SourceFile:
    return SourceFile(f"f{number:04}.c", b"", 0, size, 0, 0, Digest(f"sha256:{number}"), "c")


@given(st.lists(st.integers(0, 5_000_000), max_size=60), st.integers(1, 8), st.integers(1, 20))
def test_batches_hold_each_file_once_and_keep_the_limits(sizes: list[int], workers: int, most: int) -> None:
    """A file that falls out of the plan would be lost without a trace."""
    files = [_file(number, size) for number, size in enumerate(sizes)]
    optimizer = WorkloadOptimizer()

    batches = optimizer.plan("s", ("d",), files, workers, BatchLimits(files=most))
    again = optimizer.plan("s", ("d",), reversed(files), workers, BatchLimits(files=most))

    assert sorted(file.path for batch in batches for file in batch.files) == [file.path for file in files]
    assert all(0 < len(batch.files) <= most for batch in batches)
    assert batches == again
    assert [batch.predicted_s for batch in batches] == sorted((b.predicted_s for b in batches), reverse=True)


@given(st.floats(0, 5), st.floats(0.01, 100))
def test_learns_the_line_that_durations_follow(start: float, rate: float) -> None:
    """A planner that does not learn balances nothing."""
    optimizer = WorkloadOptimizer()
    for megabytes in (1, 5, 2, 8, 3):
        optimizer.observe("d", megabytes * 1_000_000, start + rate * megabytes)

    assert optimizer.predict("d", 10_000_000) == pytest.approx(rate * 10, rel=1e-3)
    assert optimizer.get_optimization_stats()["detectors"]["d"]["start_s"] == pytest.approx(
        start, abs=1e-2 + rate * 1e-3
    )


def test_history_is_handed_on() -> None:
    """What one run learnt, the next one knows."""
    first = WorkloadOptimizer()
    for _ in range(5):
        first.observe("d", 2_000_000, 8.0)

    assert WorkloadOptimizer(first.timings()).predict("d", 1_000_000) == pytest.approx(4.0, rel=0.01)
    assert WorkloadOptimizer().predict("d", 1_000_000) == pytest.approx(1.0, rel=0.01)


def test_a_falling_line_is_not_believed() -> None:
    """Noise must never predict negative time."""
    optimizer = WorkloadOptimizer()
    for megabytes, seconds in ((1, 9.0), (9, 1.0), (1, 9.0)):
        optimizer.observe("d", megabytes * 1_000_000, seconds)

    assert optimizer.predict("d", 100_000_000) > 0


def test_allocation_follows_load_and_priority() -> None:
    """A busy machine gets fewer at once; what matters more goes first."""
    optimizer = WorkloadOptimizer()
    optimizer.register_detector("late", priority=1)
    optimizer.register_detector("early", priority=9)
    optimizer.register_detector("long", priority=1, complexity_score=5.0)

    idle = optimizer.optimize_allocation(["late", "early", ("long", (), {})], 0.0)
    busy = optimizer.optimize_allocation(["late", "early", "long"], {"cpu": 100.0})

    assert idle.order == ("early", "long", "late")
    assert busy.concurrency == 1 <= idle.concurrency


@pytest.mark.parametrize(("weight", "score"), [(0, 1), (1, 0), (float("nan"), 1)])
def test_senseless_weights_are_refused(weight: float, score: float) -> None:
    """A share of nothing would starve the detector."""
    with pytest.raises(UsageError):
        WorkloadOptimizer().register_detector("d", 1, weight, score)
