"""No class of work waits longer than the bound that the module proves."""

from __future__ import annotations

import collections
import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.bulkheads import Job, ReadyQueue
from detectors.errors import UsageError
from detectors.fair_queue import FairQueue

WORK = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0, 100), st.floats(0.01, 10)), min_size=1, max_size=80
)  # class, arrival, length
WEIGHTS = st.lists(st.floats(0.05, 50), min_size=5, max_size=5)


class _Lines:
    """Work in line by class, handed out as the tags say."""

    def __init__(self, weights: list[float]) -> None:
        self.queue: FairQueue[int] = FairQueue()
        self._lines: dict[int, collections.deque[tuple[int, float]]] = {}
        for name, weight in enumerate(weights):
            self.queue.weigh(name, weight)
            self._lines[name] = collections.deque()

    def push(self, name: int, item: int, length_s: float) -> None:
        if not self._lines[name]:
            self.queue.arrive(name)
        self._lines[name].append((item, length_s))

    def pop(self) -> int:
        name = self.queue.next(name for name, line in self._lines.items() if line)
        item, length_s = self._lines[name].popleft()
        self.queue.hand_out(name, length_s)
        return item


@given(WORK, WEIGHTS, st.integers(1, 4))
def test_no_class_waits_longer_than_its_bound(
    work: list[tuple[int, float, float]], weights: list[float], workers: int
) -> None:
    """Work of low priority would wait for ever behind a stream of urgent work."""
    lines = _Lines(weights)
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
            lines.push(name, number, work[number][2])
            waiting[name] += 1
            if waiting[name] == 1:
                head_since[name], others_s[name] = arrival, [0.0] * 5
        number = lines.pop()
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

    assert not any(waiting)


@given(
    st.lists(st.integers(1, 10), min_size=2, max_size=5),
    st.lists(st.floats(0.001, 0.1), min_size=5, max_size=5),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_the_pool_hands_out_no_more_than_the_bound_before_anyones_head(
    priorities: list[int], unit_s: list[float], limit: int, seed: int
) -> None:
    """A detector of low priority would wait for ever, or one that was held back would take all threads afterwards."""
    chooser = random.Random(seed)
    queue, names = ReadyQueue(0.05, 8), [f"d{place}" for place in range(len(priorities))]
    compartments = [queue.compartment(name, priority, None) for name, priority in zip(names, priorities, strict=True)]
    compartments[0].limit = limit
    for compartment, mean_s in zip(compartments, unit_s, strict=False):
        compartment.mean_s = mean_s
        queue.add(Job(1_000, None, None), compartment, range(1_000))
    # Work of m that is handed out while the head of f waits and may go, by pair.
    ahead_s = {(f, m): 0.0 for f in range(len(names)) for m in range(len(names))}
    last_s, longest_s = [0.0] * len(names), [0.0] * len(names)
    running = []
    for _ in range(100):
        held = compartments[0].running >= limit
        chunk = queue.take(3, lambda _: False)
        if chunk is None:
            break
        running.append(chunk)
        m = names.index(chunk.compartment.name)
        length_s = chunk.size * unit_s[m]
        longest_s[m] = max(longest_s[m], length_s)
        for f in range(len(names)):
            if f != m:
                ahead_s[f, m] = 0.0 if f == 0 and held else ahead_s[f, m] + length_s
                bound_s = priorities[m] / priorities[f] * last_s[f] + longest_s[m]
                assert ahead_s[f, m] <= bound_s * (1 + 1e-9) or not compartments[f].waiting
            ahead_s[m, f] = 0.0
        last_s[m] = length_s
        # The first detector's chunks may be long: that is what its limit is for.
        for _ in range(len(running) if chooser.random() < 0.3 else 0):
            ended = running.pop()
            ended.units.clear()
            queue.finished(ended, ended.size * unit_s[names.index(ended.compartment.name)])


@given(WEIGHTS, st.integers(1, 8))
def test_the_bound_that_is_told_is_the_proven_one(weights: list[float], workers: int) -> None:
    """Whoever alerts on a bound must be given the right one."""
    queue: FairQueue[int] = FairQueue()
    for name, weight in enumerate(weights):
        queue.weigh(name, weight)
        queue.hand_out(name, 9.0)
        queue.hand_out(name, 1.0 + name)

    others = sum(weights[m] / weights[0] * 1.0 + 9.0 for m in range(1, 5))
    assert queue.bound_s(0, workers) == pytest.approx(9.0 + others / workers)


def test_shares_follow_the_weights() -> None:
    """A weight that changes nothing is a lie."""
    lines = _Lines([3.0, 1.0])
    for _ in range(400):
        lines.push(0, 0, 1.0)
        lines.push(1, 1, 1.0)
    first = [lines.pop() for _ in range(400)]

    assert first.count(0) == pytest.approx(300, abs=2)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_class_without_weight_is_refused(weight: float) -> None:
    """It would starve, or starve all others."""
    with pytest.raises(UsageError, match="above 0"):
        FairQueue[str]().weigh("a", weight)
