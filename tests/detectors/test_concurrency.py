"""The limit settles, stays, and follows the machine, on any simulated machine."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.concurrency import ConcurrencyController
from detectors.errors import UsageError


class _Plant:
    """`cores` workers that share: with more at once, each takes longer in proportion; `slower` for all; log-normal noise."""

    def __init__(self, seed: int, noise: float) -> None:
        self._chooser, self._noise = random.Random(seed), noise

    def run(self, controller: ConcurrencyController, cores: int, pieces: int, slower: float = 1.0) -> list[int]:
        """Return the limits that were in force while `pieces` ran."""
        limits = []
        for _ in range(pieces):
            limits.append(controller.limit)
            slow_down = slower * max(1.0, controller.limit / cores)
            controller.observe(slow_down * self._chooser.lognormvariate(0, self._noise))
        return limits


def _pieces(cores: int, windows: int) -> int:
    return windows * min(max(16, int(1.2 * cores) + 2), 32)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 64), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([1.0, 256.0]))
def test_settles_near_the_knee_and_does_not_oscillate(cores: int, seed: int, noise: float, start: float) -> None:
    """A limit that saws leaves workers idle in the troughs and thrashes in the peaks."""
    controller, plant = ConcurrencyController(ceiling=256, start=start), _Plant(seed, noise)
    plant.run(controller, cores, _pieces(cores, 160))
    limits = plant.run(controller, cores, _pieces(cores, 80))
    levels = sorted(limits)

    # The middle four fifths leave out the drained windows, which are dips by design; they are bounded below, too.
    low, high = levels[len(levels) // 5], levels[len(levels) * 9 // 10]
    assert high - low <= 2 + (0.05 + noise) * cores
    assert low >= (0.95 - noise) * cores - 1
    assert cores * (0.95 - noise) - 1 <= sum(levels) / len(levels) <= 1.25 * cores + 2
    assert levels[0] >= (0.5 - noise) * cores - 1
    assert levels[-1] <= (1.2 + noise) * cores + 3


def test_without_noise_the_limit_stands_still() -> None:
    """Any movement on an unchanging machine would be the controller's own."""
    controller, plant = ConcurrencyController(ceiling=256, start=1), _Plant(0, 0.0)
    plant.run(controller, 8, _pieces(8, 120))
    limits = plant.run(controller, 8, _pieces(8, 80))

    assert set(limits) <= {6, 7, 9}, "9 in force, and dips to four fifths of 8 while it drains"
    assert limits.count(9) > 0.8 * len(limits)


@pytest.mark.parametrize(("before", "after"), [(32, 8), (8, 32)])
def test_recovers_after_a_step(before: int, after: int) -> None:
    """When other programs take or give back processors, the limit must follow."""
    controller, plant = ConcurrencyController(ceiling=256), _Plant(1, 0.1)
    plant.run(controller, before, _pieces(before, 120))
    plant.run(controller, after, _pieces(32, 120))
    limits = plant.run(controller, after, _pieces(after, 40))

    assert after <= sorted(limits)[len(limits) // 2] <= 1.25 * after + 2


def test_work_that_became_slower_for_good_is_no_queue() -> None:
    """New rules that take twice as long must not halve the limit for ever."""
    controller, plant = ConcurrencyController(ceiling=256), _Plant(2, 0.1)
    plant.run(controller, 16, _pieces(16, 120))
    plant.run(controller, 16, _pieces(16, 200), slower=2.0)
    limits = plant.run(controller, 16, _pieces(16, 40), slower=2.0)

    assert 14 <= sorted(limits)[len(limits) // 2] <= 22


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.3]), st.floats(0.2, 5))
def test_uncontended_work_keeps_every_worker(workers: int, seed: int, noise: float, usual: float) -> None:
    """A controller that probes, or follows noise, would idle workers that nothing slows down."""
    controller, plant = ConcurrencyController(ceiling=workers, calm=64), _Plant(seed, noise)
    limits = plant.run(controller, workers, _pieces(workers, 100), slower=usual)

    assert set(limits) == {workers}


def test_work_that_is_slowed_down_lowers_a_calm_limit_and_gives_it_back() -> None:
    """A controller that never lowers the limit controls nothing; one that keeps it low wastes the machine."""
    controller, plant = ConcurrencyController(ceiling=32, calm=32), _Plant(3, 0.1)
    before = plant.run(controller, 32, _pieces(32, 20))
    during = plant.run(controller, 4, _pieces(32, 20))
    plant.run(controller, 32, _pieces(32, 120))
    after = plant.run(controller, 32, _pieces(32, 20))

    assert set(before) == {32}
    assert min(during) <= 16
    assert set(after) == {32}


@given(st.lists(st.floats(1e-6, 1e6), max_size=400), st.integers(1, 8), st.integers(8, 40))
def test_the_limit_keeps_its_bounds(slow_downs: list[float], floor: int, ceiling: int) -> None:
    """No measurement may stop all work or flood the machine."""
    controller = ConcurrencyController(floor, ceiling)
    for slow_down in slow_downs:
        controller.observe(slow_down)
        assert floor <= controller.limit <= ceiling


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConcurrencyController(0),
        lambda: ConcurrencyController(5, 4),
        lambda: ConcurrencyController(queued=0),
        lambda: ConcurrencyController(gain=1.5),
        lambda: ConcurrencyController(calm=-1),
    ],
)
def test_senseless_settings_are_refused(make: Callable[[], object]) -> None:
    """They would stop all work, or never settle."""
    with pytest.raises(UsageError):
        make()
