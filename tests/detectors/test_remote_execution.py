"""Detectors on a Dask cluster: the same promises as here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from detectors import EnterpriseDetectorPool
from detectors.enterprise_detector_pool import RetryPolicy
from detectors.errors import ClusterError, ExecutionTimedOut, ForeignError, IsolatedCrash, NotTransferable, UsageError
from tests.detectors.bad_detectors import Unreadable

pytestmark = pytest.mark.slow


def _odd(n: int) -> Any:
    """Behave badly on some inputs."""
    match n:
        case 3:
            raise ValueError(n)
        case 5:
            return (i for i in ())
        case 7:
            os._exit(9)
        case 11:
            raise Unreadable(1, 2)
        case 13:
            sys.exit(1)
    return n * n


@pytest.fixture(scope="module")
def pool() -> Iterator[EnterpriseDetectorPool]:
    """One cluster for all tests."""
    with EnterpriseDetectorPool(max_workers=2) as made:
        made.register_detector("square", lambda n: n * n, isolation="dask")
        made.register_detector("odd", _odd, isolation="dask", breaker=None)
        made.register_detector(
            "hang", lambda n: time.sleep(3600) if n == 1 else n, isolation="dask", timeout_s=1.5, breaker=None
        )
        made.register_detector("local", lambda n: -n)
        yield made


def test_results_come_in_the_order_asked_from_both_sides(pool: EnterpriseDetectorPool) -> None:
    """When this fails, chunks of a cluster and of this process are mixed up in one call."""
    asked = [("square" if n % 3 else "local", (n,), {}) for n in range(1_000)]
    results = pool.execute_parallel(asked)

    assert [item.value for item in results] == [n * n if n % 3 else -n for n in range(1_000)]
    assert all(item.worker.startswith("dask-") for item in results if item.detector == "square")


def test_a_unit_that_kills_its_worker_is_found_and_all_others_are_right(pool: EnterpriseDetectorPool) -> None:
    """When this fails, one bad input costs the whole task that it came in."""
    pool.execute_parallel([("odd", (n,), {}) for n in range(20, 60)])  # so that a task holds many
    results = pool.execute_parallel([("odd", (n,), {}) for n in range(40)])

    bad = {n: type(item.error) for n, item in enumerate(results) if not item.ok}
    assert bad == {3: ValueError, 5: NotTransferable, 7: IsolatedCrash, 11: ForeignError, 13: SystemExit}
    assert [item.value for n, item in enumerate(results) if n not in bad] == [n * n for n in range(40) if n not in bad]


def test_a_timeout_ends_the_work_on_the_worker(pool: EnterpriseDetectorPool) -> None:
    """When this fails, a hung detector holds a worker of the cluster for ever."""
    results = pool.execute_parallel([("hang", (n,), {}) for n in range(4)])

    assert [item.value for item in results] == [0, None, 2, 3]
    assert isinstance(results[1].error, ExecutionTimedOut)


def test_retries_go_to_the_cluster_again(pool: EnterpriseDetectorPool) -> None:
    """When this fails, what may be retried is final on Dask."""
    retry = RetryPolicy(attempts=3, base_s=0.001, on=(ZeroDivisionError,))
    pool.register_detector("divide", lambda n: 1 / n, isolation="dask", retry=retry)
    zero, one = pool.execute_parallel([("divide", (0,), {}), ("divide", (1,), {})])

    assert (type(zero.error), zero.attempts) == (ZeroDivisionError, 3)
    assert (one.value, one.attempts) == (1.0, 1)


def test_a_cluster_that_cannot_be_had_is_an_error_in_its_place() -> None:
    """When this fails, a wrong address hangs the call, or takes local executions with it."""
    with EnterpriseDetectorPool(cluster="nowhere") as pool:
        pool.register_detector("there", abs, isolation="dask")
        pool.register_detector("here", abs)
        there, here = pool.execute_parallel([("there", (-1,), {}), ("here", (-1,), {})])

    assert isinstance(there.error, UsageError | ClusterError)
    assert here.value == 1


def test_an_error_that_cannot_travel_keeps_its_words(pool: EnterpriseDetectorPool) -> None:
    """When this fails, the only thing known of a failure on a worker is that there was one."""
    (result,) = pool.execute_parallel([("odd", (11,), {})])

    assert isinstance(result.error, ForeignError)
    assert str(result.error) == "odd raised Unreadable: 1"
