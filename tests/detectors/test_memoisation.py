"""Kept results: bounds, age, memory pressure, single flight, and the store below."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import EnterpriseDetectorPool
from detectors.memoisation import Memo, exact_msgpack, size_of
from detectors.memory_pressure import MemoryState, next_limit, read_memory


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def _memo(clock: Clock, free: list[float], **changes: Any) -> Memo:
    given_: dict[str, Any] = {"entries": 100, "ttl_s": 10.0, "limit_bytes": 100_000} | changes
    return Memo(**given_, memory=lambda: MemoryState(100, int(100 * free[0]), "made up"), clock=clock)


def _put(memo: Memo, key: bytes, value: Any) -> None:
    (claim,) = memo.claim([key], [None])
    assert claim.kind == "lead"
    memo.settle(key, value=value)


def _has(memo: Memo, key: bytes) -> bool:
    (claim,) = memo.claim([key], [None])
    if claim.kind == "lead":
        memo.settle(key, error=LookupError())
    return claim.kind == "hit"


def test_entries_bytes_and_age_are_bounded() -> None:
    """When this fails, a long run's cache eats the machine, or answers with what is out of date."""
    clock, free = Clock(), [0.5]
    few = _memo(clock, free, entries=3)
    for n in range(5):
        _put(few, b"%d" % n, n)
    assert [_has(few, b"%d" % n) for n in range(5)] == [False, False, True, True, True]
    small = _memo(clock, free, limit_bytes=5_000)
    for n in range(20):
        _put(small, b"%d" % n, b"x" * 1_000)
        assert small.state().size_bytes <= 5_000
    assert small.state().entries == 3
    _put(small, b"huge", b"x" * 10_000)
    assert not _has(small, b"huge")
    clock.now = 10.1
    assert not _has(few, b"4")
    assert small.expire() == 3


def test_shrinks_under_pressure_and_grows_back() -> None:
    """When this fails, the cache keeps memory that the detectors need, or never comes back."""
    clock, free = Clock(), [0.5]
    memo = _memo(clock, free)
    for n in range(50):
        _put(memo, b"%d" % n, b"x" * 1_000)
    free[0] = 0.05
    limits = []
    for n in range(4):
        clock.now += 1.1
        _put(memo, b"more%d" % n, 0)
        limits.append(memo.state().limit_bytes)
        assert memo.state().size_bytes <= memo.state().limit_bytes

    assert limits == [50_000, 25_000, 12_500, 6_250]
    assert _has(memo, b"more3")
    free[0] = 0.15
    assert memo.adapt()[:2] == (6_250, 6_250)
    free[0] = 0.5
    for _ in range(20):
        memo.adapt()
    assert memo.state().limit_bytes == 100_000


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1))
def test_a_limit_never_exceeds_what_was_configured(current: int, configured: int, share: float) -> None:
    """When this fails, growing back overshoots, or pressure makes a cache grow."""
    current = min(current, configured)
    after = next_limit(current, configured, share)

    assert 0 <= after <= configured
    assert after <= current or share > 0.2


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_control_groups_of_both_versions_count(tmp_path: Path) -> None:
    """When this fails, a pool in a container fills its cache until the kernel kills it."""
    membership = tmp_path / "membership"
    second, first = tmp_path / "v2", tmp_path / "v1"
    _write(second / "a" / "b", memory__max="max\n", memory__current="5")
    _write(second / "a", memory__max="1000000\n", memory__current="900000", memory__stat="anon 1\ninactive_file 400000")
    membership.write_text("0::/a/b\n")
    state = read_memory(second, membership)
    assert (state.limit_bytes, state.free_bytes, state.source) == (1_000_000, 500_000, str(second / "a"))

    _write(
        first / "memory" / "job",
        memory__limit_in_bytes="2000000",
        memory__usage_in_bytes="1900000",
        memory__stat="total_inactive_file 100000",
    )
    _write(first / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="1")
    membership.write_text("4:cpu,memory:/job\n3:pids:/job\n")
    state = read_memory(first, membership)
    assert (state.limit_bytes, state.free_bytes) == (2_000_000, 200_000)

    assert read_memory(tmp_path / "none", tmp_path / "none").source == "machine"
    membership.write_text("0::/../elsewhere\nrubbish\n")
    assert read_memory(second, membership).limit_bytes > 0


def test_the_same_key_asked_twice_at_once_runs_once() -> None:
    """When this fails, equal executions at the same time all run."""
    ran: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def slow(n: int) -> int:
        ran.append(n)
        begun.set()
        assert go.wait(30)
        return n * 2

    with EnterpriseDetectorPool(max_workers=4) as pool, ThreadPoolExecutor(4) as callers:
        pool.register_detector("slow", slow, cacheable=True)
        waiting = [callers.submit(pool.execute_detector, "slow", 21) for _ in range(4)]
        assert begun.wait(30)
        go.set()
        results = [future.result(30) for future in waiting]

    assert [result.value for result in results] == [42] * 4
    assert ran == [21]
    assert sum(not result.from_cache for result in results) == 1


def test_an_error_is_shared_and_never_kept() -> None:
    """When this fails, one failure is served for as long as results are kept."""
    tried: list[int] = []

    def once(n: int) -> int:
        tried.append(n)
        if len(tried) == 1:
            raise OSError("first")
        return n

    with EnterpriseDetectorPool() as pool:
        pool.register_detector("once", once, cacheable=True)
        first, second, third = (pool.execute_detector("once", 1) for _ in range(3))

    assert (isinstance(first.error, OSError), second.value, second.from_cache) == (True, 1, False)
    assert third.from_cache


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=30), min_size=1, max_size=4))
def test_effects_of_cached_executions_happen_exactly_once(calls: list[list[int]]) -> None:
    """When this fails, a cacheable execution runs twice or not at all, from several threads and within one call."""
    effects: list[int] = []
    with EnterpriseDetectorPool(max_workers=3) as pool, ThreadPoolExecutor(len(calls)) as callers:
        pool.register_detector("effect", lambda n: effects.append(n) or n, cacheable=True)
        asked = [[("effect", (n,), {}) for n in numbers] for numbers in calls]
        answers = list(callers.map(pool.execute_parallel, asked))

    assert [[item.value for item in results] for results in answers] == calls
    assert sorted(effects) == sorted({n for numbers in calls for n in numbers})


def test_a_detector_that_calls_itself_through_the_pool_ends() -> None:
    """When this fails, nested executions wait for each other for ever."""
    with EnterpriseDetectorPool(max_workers=2) as pool:

        def fibonacci(n: int) -> int:
            if n < 2:
                return n
            parts = pool.execute_parallel([("fibonacci", (n - 1,), {}), ("fibonacci", (n - 2,), {})])
            return sum(part.value for part in parts)

        pool.register_detector("fibonacci", fibonacci, cacheable=True)
        results = pool.execute_parallel([("fibonacci", (n,), {}) for n in range(12)])

    assert [item.value for item in results] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


def _pool(folder: Path, function: Any, **changes: Any) -> EnterpriseDetectorPool:
    pool = EnterpriseDetectorPool(cache_folder=folder)
    pool.register_detector("f", function, cacheable=True, **({"version": "1"} | changes))
    return pool


def test_results_outlive_the_pool_by_version_code_and_configuration(tmp_path: Path) -> None:
    """When this fails, a later process computes again what is known, or believes what another code computed."""

    def make(factor: int) -> Any:
        return lambda n, extra=0: {"n": [n * factor + extra, "x"]}

    with _pool(tmp_path, make(2)) as pool:
        assert not pool.execute_detector("f", 3).from_cache
    with _pool(tmp_path, make(2)) as pool:
        again = pool.execute_detector("f", 3)
        assert (again.value, again.from_cache) == ({"n": [6, "x"]}, True)
        assert pool.get_pool_metrics()["cache"]["stored_hits"] == 1
    for function, changes in (
        (make(3), {}),
        (make(2), {"version": "2"}),
        (make(2), {"version": None}),
        (make(2), {"config": {"extra": 1}}),
    ):
        with _pool(tmp_path, function, **changes) as pool:
            assert not pool.execute_detector("f", 3).from_cache


def test_only_what_comes_back_exactly_is_stored(tmp_path: Path) -> None:
    """When this fails, a tuple comes back as a list after a restart."""
    with _pool(tmp_path, lambda n: (n, n)) as pool:
        pool.execute_detector("f", 1)
        assert pool.execute_detector("f", 1).value == (1, 1)
    with _pool(tmp_path, lambda n: (n, n)) as pool:
        assert not pool.execute_detector("f", 1).from_cache


def test_a_damaged_stored_value_is_computed_again(tmp_path: Path) -> None:
    """When this fails, a flipped byte on disk is believed."""
    with _pool(tmp_path, lambda n: n + 1) as pool:
        pool.execute_detector("f", 1)
    database = sqlite3.connect(tmp_path / "cache.sqlite3")
    with database:
        database.execute("UPDATE value SET value = ?", (msgspec.msgpack.encode(7),))
    database.close()

    with _pool(tmp_path, lambda n: n + 1) as pool:
        result = pool.execute_detector("f", 1)
    assert (result.value, result.from_cache) == (2, False)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=3)
            | st.tuples(inner)
        ),
    )
)
def test_msgpack_is_exact_or_refused(value: Any) -> None:
    """When this fails, a stored value differs from the computed one."""
    encoded = exact_msgpack(value)
    if encoded is not None:
        assert repr(msgspec.msgpack.decode(encoded)) == repr(value)


@pytest.mark.parametrize(
    ("value", "least"), [(b"x" * 10_000, 10_000), (["ab" * 500] * 3, 1_000), ({"a": [1] * 1_000}, 8_000)]
)
def test_sizes_are_those_of_the_content(value: Any, least: int) -> None:
    """When this fails, large values count as small ones and the bound on bytes bounds nothing."""
    assert least < size_of(value) < 100 * least
