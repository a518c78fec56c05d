"""The simulator against arithmetic: what it says of a thousand workers must be true of two."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import pool_overhead, simulation
from benchmarks.recorded_runs import load
from benchmarks.simulation import HAND_OVER_S, Durations, Machines, simulated
from detectors.model import Digest, SourceFile
from detectors.workload_optimizer import Batch


def _batches(seconds: list[float]) -> tuple[list[Batch], Durations]:
    files = [SourceFile(f"{number}", b"", 0, 1, 0, 0, Digest(""), "c") for number in range(len(seconds))]
    batches = [Batch(f"s-{file.path}", "s", ("d",), (file,), 0.0) for file in files]
    return batches, Durations({("d", f"{number}"): taken_s for number, taken_s in enumerate(seconds)}, {})


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40), st.integers(1, 6))
def test_makespan_is_that_of_list_scheduling(seconds: list[float], workers: int) -> None:
    """Any other schedule is not the executor's."""
    batches, durations = _batches(seconds)
    free = [0.0] * workers
    for taken_s in seconds:
        place = free.index(min(free))
        free[place] += taken_s + HAND_OVER_S

    assert simulated(batches, durations, Machines(workers), 1.0).makespan_s == pytest.approx(max(free))


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 1000))
def test_lost_workers_lose_no_batch(seconds: list[float], workers: int, seed: int) -> None:
    """A batch that dies with its worker is run again, by another or by the one that replaces it."""
    batches, durations = _batches(seconds)
    bound_s = sum(seconds) / workers
    calm = simulated(batches, durations, Machines(workers), bound_s, seed)
    lossy = simulated(batches, durations, Machines(workers, lost=1.0, restart_s=0.5), bound_s, seed)

    assert 0 <= lossy.run_again <= workers
    assert lossy.makespan_s >= max(seconds)
    assert lossy.makespan_s * workers >= sum(seconds)
    assert lossy.makespan_s <= calm.makespan_s * 2 + sum(seconds) + workers


def test_the_recorded_run_is_met_and_nothing_drawn_is_free() -> None:
    """When the simulator misses the run that it replays, its table says nothing of any other."""
    run = load(simulation.RUN)
    durations = simulation.durations_of(run)
    matched = simulation.matched(run)
    work, drawn = simulation.work_at_scale(run, durations, 2_000)

    assert abs(matched.makespan_s / run.makespan_s - 1) < 0.05
    assert all(not Path(value).is_absolute() for value in run.provenance.values())
    assert sum(len(one.files) * len(one.detectors) for one in work) == len(drawn.unit_s)
    assert 2_000 <= len(drawn.unit_s) < 2_010
    for batches in (
        simulation.planned_by(simulation.learned_from(run), work, 8),
        simulation.planned_at_random(work, 8, random.Random(1)),
    ):
        units = {(name, file.path) for batch in batches for name in batch.detectors for file in batch.files}
        assert units == set(drawn.unit_s)


def test_the_pools_benchmark_measures_memory_of_this_pool(capsys: pytest.CaptureFixture[str]) -> None:
    """A benchmark that no longer runs against the pool is found out when it is needed."""
    assert pool_overhead.main(["--memory", "list", "50"]) == 0
    assert '"growth_mb"' in capsys.readouterr().out
