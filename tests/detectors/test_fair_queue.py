"""No class of work waits longer than the bound that the module proves."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.errors import UsageError
from detectors.fair_queue import FairQueue

WORK = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0, 100), st.floats(0.01, 10)), min_size=1, max_size=80
)  # class, arrival, length
WEIGHTS = st.lists(st.floats(0.05, 50), min_size=5, max_size=5)


@given(WORK, WEIGHTS, st.integers(1, 4))
def test_no_class_waits_longer_than_its_bound(
    work: list[tuple[int, float, float]], weights: list[float], workers: int
) -> None:
    """Work of low priority would wait for ever behind a stream of urgent work."""
    queue: FairQueue[int] = FairQueue()
    for name, weight in enumerate(weights):
        queue.add_class(name, weight)
    longest_s = [max((length for other, _, length in work if other == name), default=0.0) for name in range(5)]
    last_s = [0.0] * 5
    head_since: dict[int, float] = {}
    others_s: dict[int, list[float]] = {}
    waiting = [0] * 5
    arrivals = sorted((arrival, number) for number, (_, arrival, _) in enumerate(work))
    free = [0.0] * workers
    handed_out = 0
    while handed_out < len(work):
        now = heapq.heappop(free)
        if not any(waiting) and arrivals[0][0] > now:
            now = arrivals[0][0]
        # Whatever arrived before this worker became free was seen at its own time.
        while arrivals and arrivals[0][0] <= now:
            arrival, number = heapq.heappop(arrivals)
            name = work[number][0]
            queue.push(name, number, work[number][2])
            waiting[name] += 1
            if waiting[name] == 1:
                head_since[name], others_s[name] = arrival, [0.0] * 5
        number = queue.pop()
        name, _, length = work[number]
        bounds = [weights[m] / weights[name] * last_s[name] + longest_s[m] for m in range(5) if m != name]
        seen = [others_s[name][m] for m in range(5) if m != name]

        assert all(one <= bound * (1 + 1e-9) for one, bound in zip(seen, bounds, strict=True))
        assert now - head_since[name] <= (max(longest_s) + sum(bounds) / workers) * (1 + 1e-9) + 1e-9

        for other, sums in others_s.items():
            if other != name and waiting[other]:
                sums[name] += length
        waiting[name] -= 1
        last_s[name] = length
        head_since[name], others_s[name] = now, [0.0] * 5
        heapq.heappush(free, now + length)
        handed_out += 1

    assert len(queue) == 0


@given(WEIGHTS, st.integers(1, 8))
def test_the_bound_that_is_told_is_the_proven_one(weights: list[float], workers: int) -> None:
    """Whoever alerts on a bound must be given the right one."""
    queue: FairQueue[str] = FairQueue()
    for name, weight in enumerate(weights):
        queue.add_class(name, weight)
        queue.push(name, "first", 1.0 + name)
        queue.push(name, "second", 0.5)
    for _ in weights:
        queue.pop()

    others = sum(weights[m] / weights[0] * queue._classes[0].last_s + 1.0 + m for m in range(1, 5))
    assert queue.bound_s(0, workers) == pytest.approx(5.0 + others / workers)


def test_shares_follow_the_weights() -> None:
    """A weight that changes nothing is a lie."""
    queue: FairQueue[str] = FairQueue()
    queue.add_class("a", 3.0)
    queue.add_class("b", 1.0)
    for _ in range(400):
        queue.push("a", "a", 1.0)
        queue.push("b", "b", 1.0)
    first = [queue.pop() for _ in range(400)]

    assert first.count("a") == pytest.approx(300, abs=2)


def test_a_class_without_weight_is_refused() -> None:
    """It would starve."""
    with pytest.raises(UsageError, match="above 0"):
        FairQueue[int]().add_class("a", 0.0)
