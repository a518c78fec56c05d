"""Load tests: arrivals come when they are due, whatever the answers do, and latency counts from then."""

from __future__ import annotations

import itertools
import math
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detectors import ComprehensiveBenchmark, EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.load_test import (
    Bursts,
    Diurnal,
    LoadCall,
    LoadTestConfig,
    LoadTestResult,
    Poisson,
    Step,
    Trace,
    _planned,
    find_saturation,
    run_load_test,
    saturation_of,
)
from detectors.memory_leaks import MemoryWatch

MIX = (LoadCall("short", ((1,), (2,)), 3.0), LoadCall("long", ((50,),)))


@pytest.fixture
def pool() -> Iterator[EnterpriseDetectorPool]:
    """A pool with two detectors of different priority and length."""
    with EnterpriseDetectorPool(max_workers=2) as made:
        made.register_detector("short", lambda n: sum(range(n * 1_000)), priority=10)
        made.register_detector("long", lambda n: sum(range(n * 1_000)))
        yield made


def _times(config: LoadTestConfig) -> list[float]:
    return [at_s for at_s, _, _ in _planned(config)]


def test_each_arrival_is_answered_and_accounted_for(pool: EnterpriseDetectorPool) -> None:
    """An arrival that is neither answered nor lost would make any pool look good."""
    # The specification's door, which leads to `run_load_test`.
    seen = ComprehensiveBenchmark(pool).run_load_test(LoadTestConfig(Poisson(400.0), MIX, seconds=1.0))

    assert seen.offered == len(_times(LoadTestConfig(Poisson(400.0), MIX, seconds=1.0)))
    assert (seen.answered, seen.failed, seen.lost) == (seen.offered, 0, 0)
    assert set(seen.by_detector) == {"short", "long"}
    assert list(seen.latency_s) == ["p50", "p90", "p95", "p99", "p99.9", "max"]
    assert sorted(seen.latency_s.values()) == list(seen.latency_s.values())


def test_a_stall_counts_for_all_who_waited() -> None:
    """Coordinated omission: a pool that stands still for a second would show one slow answer, and not a hundred."""
    stalled, calls = threading.Event(), itertools.count()

    def stalls(_: int) -> None:
        if next(calls) == 20:
            stalled.wait(1.0)

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("stalls", stalls, max_concurrent=1)
        seen = run_load_test(pool, LoadTestConfig(Poisson(100.0), (LoadCall("stalls", ((0,),)),), seconds=1.6))

    # Of some 160 arrivals, the hundred that came while it stood still waited for half a second on average.
    assert seen.latency_s["p50"] > 0.1
    assert seen.latency_s["max"] >= 0.9
    assert seen.lost == 0


def test_errors_are_told_by_kind(pool: EnterpriseDetectorPool) -> None:
    """A load test of a detector that fails must not look like one that works."""
    pool.register_detector("fails", lambda n: 1 / n, breaker=None)
    seen = run_load_test(pool, LoadTestConfig(Poisson(50.0), (LoadCall("fails", ((0,), (1,))),), seconds=0.5))

    assert seen.errors == {"ZeroDivisionError": seen.failed}
    assert 0 < seen.failed < seen.answered


def test_what_has_no_answer_in_the_end_is_lost() -> None:
    """Work that hangs must not be left out of the count."""
    gate = threading.Event()
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("hangs", lambda n: gate.wait(30), max_concurrent=1)
        try:
            config = LoadTestConfig(Poisson(50.0), (LoadCall("hangs", ((0,),)),), seconds=0.2, drain_s=0.1)
            seen = run_load_test(pool, config)
        finally:
            gate.set()

    assert seen.lost == seen.offered > 0
    assert seen.latency_s == {}


def test_a_poisson_stream_is_one() -> None:
    """Arrivals at even distances would never meet, and hide every queue."""
    gaps = [b - a for a, b in itertools.pairwise(_times(LoadTestConfig(Poisson(1_000.0), MIX, seconds=20.0)))]

    assert statistics.fmean(gaps) == pytest.approx(1e-3, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1e-3, rel=0.05)


def test_bursts_come_at_one_moment() -> None:
    """A merge starts many at once; spread out they would be no burst."""
    times = _times(LoadTestConfig(Bursts(10.0, 50, 2.0), MIX, seconds=5.0))

    assert times.count(2.0) == times.count(4.0) == 50
    assert times == sorted(times)


def test_a_day_has_its_peak_and_its_night() -> None:
    """A load that is called diurnal and is flat measures no peak."""
    times = _times(LoadTestConfig(Diurnal(400.0, 0.9, 10.0), MIX, seconds=10.0))
    peak = sum(1.5 <= at_s < 3.5 for at_s in times)
    night = sum(6.5 <= at_s < 8.5 for at_s in times)

    assert len(times) == pytest.approx(4_000, rel=0.1)
    assert peak > 8 * night > 0


def test_a_trace_is_played_as_it_was_recorded(tmp_path: Path) -> None:
    """What comes from a file must come at its times, by its detectors."""
    file = tmp_path / "trace"
    file.write_text("# seconds detector\n0 short\n0.5 long\n\n1.5\n9 long\n")
    config = LoadTestConfig(Trace(str(file), 2.0), MIX, seconds=2.0)

    assert _times(config) == [0.0, 0.25, 0.75]
    assert [name for _, name, _ in _planned(config)][:2] == ["short", "long"]


@pytest.mark.parametrize("text", ["1\n0.5\n", "x\n", "1 short more\n", "nan\n", "inf\n", "-1\n", "1 unknown\n", "\xff"])
def test_a_trace_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """A line that is passed over would make the load another one."""
    file = tmp_path / "trace"
    file.write_text(text, "latin-1")

    with pytest.raises(UsageError):
        list(_planned(LoadTestConfig(Trace(str(file)), MIX)))


def test_equal_seeds_give_equal_loads() -> None:
    """A comparison of two pools needs one load for both."""
    one, same, other = (list(_planned(LoadTestConfig(Poisson(100.0), MIX, seed=seed))) for seed in (1, 1, 2))

    assert one == same != other
    assert {name for _, name, _ in one} == {"short", "long"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Poisson(0.0), lambda: Poisson(math.nan), lambda: Bursts(1.0, 0, 1.0), lambda: Diurnal(1.0, 1.5, 1.0),
        lambda: Trace("file", -1.0), lambda: LoadCall("", ((),)), lambda: LoadCall("name", ()),
        lambda: LoadTestConfig(Poisson(1.0), ()), lambda: LoadTestConfig(Poisson(1.0), MIX, seconds=0.0),
        lambda: LoadTestConfig(Poisson(1.0), MIX, trace_allocations=True),
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(make: Any) -> None:
    """A load test of nothing ends well."""
    with pytest.raises(UsageError):
        make()


def test_nothing_or_too_much_to_send_is_an_error(pool: EnterpriseDetectorPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of no arrivals would read as one without failures."""
    with pytest.raises(UsageError, match="nothing arrives"):
        run_load_test(pool, LoadTestConfig(Poisson(0.001), MIX, seconds=0.1))
    monkeypatch.setattr("detectors.load_test.MOST_ARRIVALS", 1_000)
    with pytest.raises(UsageError, match="more than"):
        run_load_test(pool, LoadTestConfig(Poisson(1e6), MIX, seconds=10.0))


@pytest.mark.parametrize("capacity_hz", [3.0, 17.0, 100.0, 2_500.0])
def test_the_search_ends_at_the_capacity(capacity_hz: float) -> None:
    """A point of saturation that depends on where the search began is none."""
    for start_hz in (1.0, 40.0, 5_000.0):
        found = saturation_of(lambda rate: Step(rate, rate <= capacity_hz, 0.0, 1.0), start_hz, 0.05)

        assert found.sustained_hz <= capacity_hz < found.saturated_hz
        assert found.saturated_hz / found.sustained_hz <= 1.05
        assert len(found.steps) < 30


def test_a_search_without_an_end_says_so() -> None:
    """What sustains all, or nothing, has no point of saturation."""
    all_of_it = saturation_of(lambda rate: Step(rate, True, 0.0, 1.0), 1.0, 0.1)
    nothing = saturation_of(lambda rate: Step(rate, False, 9.0, 0.0), 1.0, 0.1)

    assert all_of_it.saturated_hz == math.inf
    assert nothing.sustained_hz == 0.0


def test_a_pool_is_saturated_where_its_detector_is() -> None:
    """Of a detector that admits one call and waits 20 ms, more than 50 a second cannot be sustained."""
    pause = threading.Event()
    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("waits", lambda n: pause.wait(0.02), max_concurrent=1)
        config = LoadTestConfig(Poisson(1.0), (LoadCall("waits", ((0,),)),), seconds=1.0)
        found = find_saturation(pool, config, limit_s=0.4, start_hz=20.0, precision=0.5)

    assert found.saturated_hz <= 200.0
    assert found.sustained_hz < 60.0
    assert all(step.rate_hz <= found.sustained_hz for step in found.steps if step.sustained)


def test_the_run_itself_is_watched_for_leaks(pool: EnterpriseDetectorPool) -> None:
    """A leak shows under load or not at all."""
    kept: list[list[int]] = []
    pool.register_detector("leaks", lambda n: kept.append([n] * 2_000))
    results: list[LoadTestResult] = [
        run_load_test(
            pool,
            LoadTestConfig(
                Poisson(300.0), (LoadCall(name, ((1,),)),), seconds=2.0, memory_every=25, trace_allocations=True
            ),
        )
        for name in ("short", "leaks")
    ]
    clean, leaking = (result.growth for result in results)

    assert clean is not None
    assert leaking is not None
    assert leaking.traced is not None
    assert leaking.traced.leaks, str(leaking)
    assert "test_load_test.py" in leaking.sites[0]
    assert not any("test_load_test.py" in site for site in clean.sites)
    MemoryWatch(traced=True).close()  # tracing has ended with the run
