"""Threads that share detectors' work: order, compartments, stealing, back-pressure."""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import EnterpriseDetectorPool
from detectors.bulkheads import Job, ReadyQueue
from detectors.enterprise_detector_pool import RetryPolicy
from detectors.errors import DetectorPoolError, UnknownDetector, UsageError


def _double(n: int) -> int:
    if n % 7 == 3:
        raise ValueError(n)
    return n * 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "none"]), st.integers(0, 50)), max_size=80),
    st.integers(1, 4),
    st.none() | st.integers(1, 3),
    st.booleans(),
)
def test_results_come_in_the_order_asked(
    asked: list[tuple[str, int]], workers: int, limit: int | None, adaptive: bool
) -> None:
    """When this fails, a result stands in the place of another."""
    with EnterpriseDetectorPool(max_workers=workers) as pool:
        for name in "ab":
            pool.register_detector(name, _double, breaker=None)
        configs = [(name, (n,), {}) for name, n in asked]
        listed = pool.execute_adaptive(configs) if adaptive else pool.execute_parallel(configs, max_concurrent=limit)
        streamed = list(pool.execute_stream(iter(configs), limit))

    for results in (listed, streamed):
        assert [item.detector for item in results] == [name for name, _ in asked]
        for (name, n), item in zip(asked, results, strict=True):
            if name == "none":
                assert isinstance(item.error, UnknownDetector)
            elif n % 7 == 3:
                assert isinstance(item.error, ValueError)
                assert item.error.args == (n,)
            else:
                assert (item.value, item.error) == (n * 2, None)


def test_one_slow_detector_cannot_take_all_workers() -> None:
    """When this fails, a detector that hangs stops every other."""
    go = threading.Event()
    with EnterpriseDetectorPool(max_workers=2) as pool, ThreadPoolExecutor(1) as callers:
        pool.register_detector("slow", lambda: go.wait(60))
        pool.register_detector("quick", lambda n: n)
        waiting = callers.submit(pool.execute_parallel, [("slow", (), {})] * 6)
        for n in range(50):
            assert pool.execute_detector("quick", n).value == n
        assert not waiting.done()
        go.set()
        assert all(item.value for item in waiting.result(60))


def test_a_detector_takes_no_more_workers_than_it_may() -> None:
    """When this fails, `max_concurrent` of a registration bounds nothing."""
    running, most, lock = [0], [0], threading.Lock()

    def count() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        for _ in range(2_000):
            pass
        with lock:
            running[0] -= 1

    with EnterpriseDetectorPool(max_workers=4) as pool:
        pool.register_detector("count", count, max_concurrent=2)
        results = pool.execute_parallel([("count", (), {})] * 500)

    assert all(item.ok for item in results)
    assert most[0] <= 2


def test_what_waits_behind_a_slow_execution_is_taken_by_others() -> None:
    """When this fails, a chunk of quick executions waits for the one slow one in it."""
    done: list[int] = []
    others = threading.Event()

    def step(n: int) -> int:
        if n == 1_000:
            assert others.wait(60), "nobody took what stood behind"
        done.append(n)
        if len(done) == 1_999:
            others.set()
        return n

    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("step", step)
        pool.execute_parallel([("step", (-1,), {})])
        done.clear()
        results = pool.execute_parallel([("step", (n,), {}) for n in range(2_000)])

    assert [item.value for item in results] == list(range(2_000))
    assert done[-1] == 1_000


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300)), min_size=1, max_size=12), st.integers(0, 2**32))
def test_the_queue_gives_every_unit_once(adds: list[tuple[int, int]], seed: int) -> None:
    """When this fails, a unit is lost, or run twice, whatever is taken, stolen and finished in which order."""
    chooser = random.Random(seed)
    queue = ReadyQueue(0.005, 64)
    jobs = [(Job(units, chooser.choice([None, 1, 3]), None), units) for _, units in adds]
    for (job, units), (detector, _) in zip(jobs, adds, strict=True):
        queue.add(job, queue.compartment(f"d{detector}", detector + 1, chooser.choice([None, 1, 2])), range(units))
    seen: dict[int, list[int]] = {id(job): [] for job, _ in jobs}
    running: list[Any] = []
    completed: list[int] = []
    for _ in range(100_000):
        action = chooser.choice(["take", "steal", "end", "end"])
        chunk = queue.take(3, lambda _: True) if action == "take" or not running else None
        chunk = queue.steal() if action == "steal" and running else chunk
        if chunk is not None:
            running.append(chunk)
        elif running:
            ended = running.pop(chooser.randrange(len(running)))
            seen[id(ended.job)] += ended.units
            ended.units.clear()
            completed += [id(ended.job)] * queue.finished(ended, chooser.choice([1e-6, 1e-3, 0.1]))
        else:
            break

    assert queue.waiting_units == 0
    assert [sorted(seen[id(job)]) for job, _ in jobs] == [list(range(units)) for _, units in jobs]
    assert [job.left for job, _ in jobs] == [0] * len(jobs)
    assert sorted(completed) == sorted(seen), "each job is complete once"


@settings(deadline=None)
@given(st.lists(st.integers(1, 10), min_size=2, max_size=5, unique=True))
def test_none_starves_and_priority_is_a_share(priorities: list[int]) -> None:
    """When this fails, a busy detector of high priority keeps another from ever running."""
    queue = ReadyQueue(0.01, 1)
    for priority in priorities:
        queue.add(Job(2_000, None, None), queue.compartment(f"p{priority}", priority, None), range(2_000))
    served = dict.fromkeys((f"p{priority}" for priority in priorities), 0)
    for _ in range(1_000):
        chunk = queue.take(1, lambda _: False)
        assert chunk is not None
        served[chunk.compartment.name] += 1
        queue.finished(chunk, 0.01)

    for priority in priorities:
        # Never more than one quantum a rival away from the share.
        assert abs(served[f"p{priority}"] - 1_000 * priority / sum(priorities)) <= len(priorities)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_adaptive_work_uses_every_worker_from_the_first_call_to_the_last(workers: int) -> None:
    """When this fails, the pool takes its own load for others', and idles workers that it was given."""
    meet = threading.Barrier(workers)
    with EnterpriseDetectorPool(max_workers=workers) as pool:
        pool.register_detector("quick", lambda n: n)
        pool.register_detector("meet", lambda: meet.wait(60) >= 0)
        for _ in range(4):
            assert all(item.ok for item in pool.execute_adaptive([("quick", (1,), {})] * 20))
            # Those that meet can only end when as many run at once as there are workers.
            assert [item.value for item in pool.execute_adaptive([("meet", (), {})] * workers)] == [True] * workers


def test_no_process_is_started_for_work_that_is_over_sooner() -> None:
    """When this fails, many small detectors spend their time on starting processes."""
    queue = ReadyQueue(0.05, 64, 0.0, lambda name: {"warm": 2, "cold": 1, "thread": None}[name])
    for name in ("warm", "cold", "thread"):
        compartment = queue.compartment(name, 5, None)
        compartment.mean_s = 0.001
        queue.add(Job(40, None, None), compartment, range(40))
    taken = [queue.take(4, lambda _: True) for _ in range(12)]
    at_once = collections.Counter(chunk.compartment.name for chunk in taken if chunk is not None)
    queue.compartments["cold"].mean_s = 1.0
    more = queue.take(4, lambda _: True)

    assert (at_once["warm"], at_once["cold"]) == (2, 1)
    assert at_once["thread"] > 2
    assert more is not None
    assert more.compartment.name == "cold"


def test_tasks_that_are_dear_to_send_are_not_cut_small_at_the_end() -> None:
    """When this fails, the last of many short executions are sent one by one."""
    queue = ReadyQueue(0.5, 2_000, 0.05)
    compartment = queue.compartment("d", 5, None)
    compartment.mean_s = 0.001
    queue.add(Job(1_000, None, None), compartment, range(1_000))
    sizes = []
    while (chunk := queue.take(2, lambda _: False)) is not None:
        sizes.append(chunk.size)

    assert sum(sizes) == 1_000
    assert sizes[0] == 250
    assert min(sizes[:-1]) >= 50


def test_a_stream_reads_ahead_by_no_more_than_its_blocks() -> None:
    """When this fails, an endless iterable fills the memory."""
    read = 0

    def endless() -> Any:
        nonlocal read
        for n in itertools.count():
            read += 1
            yield "double", (n * 7,), {}

    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("double", _double)
        stream = pool.execute_stream(endless())
        values = [next(stream).value for _ in range(20_000)]
        ahead = read - 20_000
        stream.close()
        assert pool.execute_detector("double", 1).value == 2

    assert values == [n * 14 for n in range(20_000)]
    assert ahead <= 5 * 1024


def test_asyncio_is_not_blocked() -> None:
    """When this fails, awaiting the pool stops the event loop, or mixes up results."""

    async def use(pool: EnterpriseDetectorPool) -> Any:
        meet = asyncio.Event()
        loop = asyncio.get_running_loop()

        def call_back() -> bool:
            asyncio.run_coroutine_threadsafe(_set(meet), loop).result(30)
            return True

        pool.register_detector("back", call_back)
        first = await pool.execute_detector_async("back")
        many = await asyncio.gather(*(pool.execute_detector_async("double", n * 7) for n in range(50)))
        listed = await pool.execute_adaptive_async([("double", (n * 7,), {}) for n in range(20)])
        streamed = [item.value async for item in pool.execute_stream_async(("double", (n * 7,), {}) for n in range(99))]
        cancelled = asyncio.create_task(pool.execute_parallel_async([("double", (0,), {})] * 10))
        await asyncio.sleep(0)
        cancelled.cancel()
        return first.value, [item.value for item in many], [item.value for item in listed], streamed

    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("double", _double)
        first, many, listed, streamed = asyncio.run(use(pool))
        assert pool.execute_detector("double", 7).value == 14

    assert first is True
    assert many == [n * 14 for n in range(50)]
    assert listed == [n * 14 for n in range(20)]
    assert streamed == [n * 14 for n in range(99)]


async def _set(event: asyncio.Event) -> None:
    event.set()


def test_several_threads_use_one_pool() -> None:
    """When this fails, concurrent callers get each other's results."""
    with EnterpriseDetectorPool(max_workers=3) as pool, ThreadPoolExecutor(8) as callers:
        pool.register_detector("double", _double, breaker=None)

        def call(start: int) -> list[Any]:
            return [item.value for item in pool.execute_parallel([("double", (7 * n,), {}) for n in range(start, 300)])]

        answers = list(callers.map(call, range(40)))

    assert answers == [[14 * n for n in range(start, 300)] for start in range(40)]


def test_closing_ends_what_has_not_begun() -> None:
    """When this fails, a caller waits for ever for a pool that is gone."""
    begun, go = threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return go.wait(60)

    pool = EnterpriseDetectorPool(max_workers=1)
    pool.register_detector("hold", hold)
    with ThreadPoolExecutor(2) as callers:
        waiting = callers.submit(pool.execute_parallel, [("hold", (), {})] * 3)
        assert begun.wait(30)
        closing = callers.submit(pool.close)
        go.set()
        results = waiting.result(60)
        closing.result(60)
    pool.close()

    assert results[0].value is True
    assert {type(item.error) for item in results[1:]} <= {type(None), DetectorPoolError}
    with pytest.raises(DetectorPoolError, match="closed"):
        pool.execute_detector("hold")


def test_only_what_may_be_retried_is_retried() -> None:
    """When this fails, an error that comes back every time is tried again, or one that does not is final."""
    tried: dict[str, int] = {}

    def fail(kind: str) -> str:
        tried[kind] = tried.get(kind, 0) + 1
        if kind == "never" or tried[kind] < 3:
            raise {"wrong": ValueError, "gone": OSError, "never": OSError}[kind](kind)
        return kind

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("fail", fail, retry=RetryPolicy(attempts=4, base_s=0.0001, cap_s=0.001), breaker=None)
        results = pool.execute_parallel([("fail", (kind,), {}) for kind in ("wrong", "gone", "never")])
        metrics = pool.get_pool_metrics()["detectors"]["fail"]

    assert tried == {"wrong": 1, "gone": 3, "never": 4}
    assert [item.attempts for item in results] == [1, 3, 4]
    assert [type(item.error) for item in results] == [ValueError, type(None), OSError]
    assert (metrics["executed"], metrics["failed"], metrics["retried"]) == (3, 2, 5)


def test_a_thread_that_exits_is_an_error_in_its_place() -> None:
    """When this fails, `sys.exit` in a detector takes a worker with it, and the call never ends."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("exit", lambda: sys.exit(3))
        pool.register_detector("interrupt", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        results = pool.execute_parallel([("exit", (), {}), ("interrupt", (), {})] * 2)

    assert [type(item.error) for item in results] == [SystemExit, KeyboardInterrupt] * 2


def test_malformed_executions_are_told() -> None:
    """When this fails, a forgotten tuple ends in an error from deep inside."""
    with EnterpriseDetectorPool() as pool:
        for wrong in ([("a", ())], ["abcd"], [None], [([], (), {})]):
            with pytest.raises(UsageError, match="name, args, kwargs"):
                pool.execute_parallel(wrong)
        with pytest.raises(UsageError, match="max_concurrent"):
            pool.execute_parallel([], max_concurrent=0)
        assert pool.execute_parallel([]) == []
