"""Detectors in processes of their own: whatever one does, the others' executions are right."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pybreaker  # noqa: F401  # loaded with the first failure, which here comes when no file can be opened
import pytest

from detectors import EnterpriseDetectorPool
from detectors.enterprise_detector_pool import BreakerPolicy
from detectors.errors import ExecutionError, ExecutionTimedOut, IsolatedCrash, NotTransferable, UsageError
from tests.detectors.bad_detectors import BAD, good, hangs, hangs_and_tells, leaves_a_process
from tests.detectors.killing import survive_kills


def test_every_bad_detector_is_contained_and_told() -> None:
    """When this fails, one misbehaving detector costs results of others, or its failure is named wrongly."""
    names = [function.__name__ for function in BAD]
    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("good", good, isolation="process", timeout_s=60)
        for function in BAD:
            pool.register_detector(function.__name__, function, isolation="process", timeout_s=1.5, breaker=None)
        asked = [("good", (n,), {}) for n in range(40)]
        for place, name in enumerate(names):
            asked.insert(place * 3 + 1, (name, (), {}))
        results = pool.execute_parallel(asked)
        processes = pool.get_pool_metrics()["processes"]

    assert [item.value for item in results if item.detector == "good"] == [n * n for n in range(40)]
    told = {item.detector: item.error for item in results if item.detector != "good"}
    assert {name: type(error) if error else None for name, error in told.items()} == {
        function.__name__: kind for function, kind in BAD.items()
    }
    assert "signal 11" in str(told["segfaults"])
    # Two that hang, a crash, an exit and a kill; all others left their process usable, or ended it in order.
    assert processes["lost"] == 5


def test_a_timeout_ends_the_process_and_a_finished_execution_leaves_none() -> None:
    """When this fails, hung or forgotten processes pile up beside the pool."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("leaves", leaves_a_process, isolation="process", timeout_s=60)
        pool.register_detector("hangs", hangs, isolation="process", timeout_s=0.5)
        left = pool.execute_detector("leaves")
        hung = pool.execute_detector("hangs")
        again = pool.execute_detector("leaves")

    assert isinstance(hung.error, ExecutionTimedOut)
    for pid in (left.value, again.value):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert [child for child in psutil.Process().children() if "isolated_worker" in " ".join(child.cmdline())] == []


def test_a_warm_process_is_used_again_and_only_for_its_detector() -> None:
    """When this fails, every execution pays for a start, or two detectors share what one spoilt."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("one", os.getpid, isolation="process")
        pool.register_detector("two", os.getpid, isolation="process")
        one = {pool.execute_detector("one").value for _ in range(5)}
        two = {pool.execute_detector("two").value for _ in range(5)}

    assert (len(one), len(two), one & two) == (1, 1, set())
    assert os.getpid() not in one


def test_arguments_and_functions_that_cannot_travel_are_told() -> None:
    """When this fails, one argument takes the whole call down, or fails far from where it was given."""
    lock = threading.Lock()
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("kind", lambda value: type(value).__name__, isolation="process")
        results = pool.execute_parallel([("kind", (value,), {}) for value in (1, lock, b"x" * 300_000, "y")])
        with pytest.raises(NotTransferable, match="function"):
            pool.register_detector("locked", lock.acquire, isolation="process")

    assert [item.value for item in results] == ["int", None, "bytes", "str"]
    assert isinstance(results[1].error, NotTransferable)


def test_results_and_arguments_larger_than_any_buffer_do_not_block() -> None:
    """When this fails, both sides wait for the other to read."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("echo", lambda data, times: data * times, isolation="process", timeout_s=60)
        sizes = [(3_000_000, 1), (10, 300_000), (10, 1), (10, 300_000), (3_000_000, 2)] * 2
        results = pool.execute_parallel([("echo", (b"z" * size, times), {}) for size, times in sizes])

    assert [len(item.value) for item in results] == [size * times for size, times in sizes]


def test_a_unit_that_ends_its_process_costs_no_other_of_its_message(tmp_path: Path) -> None:
    """When this fails, executions that were sent together with a crash or a hang are lost, run twice, or blamed."""
    began = tmp_path / "began"

    def note(n: int) -> bytes:
        with began.open("a") as file:
            file.write(f"{n}\n")
        if n % 700 == 400:
            os._exit(3)
        if n == 900:
            threading.Event().wait()
        return b"x" * (100_000 if n % 50 == 0 else n)

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("note", note, isolation="process", timeout_s=5, breaker=None)
        results = pool.execute_parallel([("note", (n,), {}) for n in range(1_200)])

    at_fault = {400: IsolatedCrash, 900: ExecutionTimedOut, 1_100: IsolatedCrash}
    assert {n: type(item.error) for n, item in enumerate(results) if item.error is not None} == at_fault
    assert all(
        item.value == b"x" * (100_000 if n % 50 == 0 else n) for n, item in enumerate(results) if n not in at_fault
    )
    assert sorted(map(int, began.read_text().split())) == list(range(1_200)), "each began once"


def test_threads_take_no_timeout() -> None:
    """A timeout that cannot end anything must not be promised."""
    with EnterpriseDetectorPool() as pool, pytest.raises(UsageError, match="isolation='process'"):
        pool.register_detector("x", len, timeout_s=1)


def test_healthy_executions_survive_workers_killed_at_random() -> None:
    """When this fails, a worker that the system kills costs a result; `make prove` kills a hundred."""
    right, asked, kills = survive_kills(seed=7, kills=6)

    assert kills == 6
    assert right == asked > 50


def test_a_kill_without_retries_is_an_error_in_its_place(tmp_path: Path) -> None:
    """When this fails, a lost worker is taken for something else, or for nothing."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    with EnterpriseDetectorPool(max_workers=1) as pool, ThreadPoolExecutor(1) as thread:
        pool.register_detector("hangs", hangs_and_tells, isolation="process")
        waiting = thread.submit(pool.execute_detector, "hangs", str(pipe))
        os.kill(int(pipe.read_text()), 9)
        result = waiting.result(30)

    assert isinstance(result.error, IsolatedCrash)
    assert result.error.exit_code_seen == -9


def test_a_process_that_cannot_be_started_is_an_error_in_its_place() -> None:
    """When this fails, a machine without free descriptors ends the call, or leaves the breaker half-open for ever."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[int] = []
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("good", good, isolation="process", breaker=BreakerPolicy(failures=1, reset_s=0))
        pool.register_detector("here", good)
        pool.execute_detector("here", 0)  # its threads are started
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            with contextlib.suppress(OSError):
                for _ in range(256):
                    kept.append(os.dup(1))
            results = pool.execute_parallel([("good", (3,), {}), ("here", (4,), {})])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in kept:
                os.close(descriptor)
        again = pool.execute_detector("good", 3)

    assert isinstance(results[0].error, ExecutionError)
    assert "no process could be started" in str(results[0].error)
    assert (results[1].value, again.value) == (16, 9)


def test_a_killed_driver_leaves_no_process(tmp_path: Path) -> None:
    """When this fails, every killed run leaves processes that burn a processor for ever."""
    pipe = tmp_path / "pid"
    os.mkfifo(pipe)
    code = (
        "import sys; from detectors import EnterpriseDetectorPool; from tests.detectors.bad_detectors import *\n"
        "pool = EnterpriseDetectorPool(max_workers=1)\n"
        "pool.register_detector('hangs', hangs_and_tells, isolation='process')\n"
        "pool.execute_detector('hangs', sys.argv[1])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(pipe)], cwd=Path(__file__).parents[2]) as driver:
        worker = psutil.Process(int(pipe.read_text()))
        driver.kill()

    assert worker.wait(30) is None
