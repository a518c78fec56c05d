"""The specification's pool for plain functions."""

from __future__ import annotations

import threading

import pytest

from detectors import EnterpriseDetectorPool, create_enterprise_pool
from detectors.enterprise_detector_pool import RetryPolicy
from detectors.errors import ConfigurationError, DetectorPoolError, UnknownDetector, UsageError


def test_results_come_in_the_order_asked_and_one_failure_hides_no_other() -> None:
    """A batch must not lose results to one that fails."""

    def halve(n: int) -> float:
        if n == 3:
            raise ValueError("three")
        return n / 2

    with EnterpriseDetectorPool(max_workers=3) as pool:
        pool.register_detector("halve", halve)
        asked = [("halve", (n,), {}) for n in range(6)] + [("halv", (), {})]
        results = pool.execute_parallel(asked, max_concurrent=2)
        adaptive = pool.execute_adaptive(asked, target_overhead=0.01)

    for answers in (results, adaptive):
        assert [item.value for item in answers[:6]] == [0, 0.5, 1, None, 2, 2.5]
        assert isinstance(answers[3].error, ValueError)
        assert isinstance(answers[6].error, UnknownDetector)
        assert answers[6].error.suggestion == "halve"


def test_runs_at_once() -> None:
    """Two executions that wait for each other end only when both run."""
    meet = threading.Barrier(2, timeout=20)
    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("meet", meet.wait)

        results = pool.execute_parallel([("meet", (), {})] * 2)

    assert all(item.ok for item in results)


def test_retries_and_counts() -> None:
    """Metrics are what was measured, and an attempt that failed is seen."""
    tried = []

    def flaky() -> str:
        tried.append(1)
        if len(tried) < 3:
            raise OSError("again")
        return "done"

    with EnterpriseDetectorPool(max_workers=1, enable_profiling=True) as pool:
        pool.register_detector("flaky", flaky, retry=RetryPolicy(attempts=5, base_s=0.001))
        result = pool.execute_detector("flaky")
        metrics = pool.get_pool_metrics()

    assert (result.value, result.attempts) == ("done", 3)
    assert metrics["detectors"]["flaky"]["executed"] == 1
    assert metrics["detectors"]["flaky"]["retried"] == 2
    assert metrics["total"]["failed"] == 0


def test_cacheable_results_are_given_again_until_they_are_old() -> None:
    """Only equal plain data of a detector that allows it is answered from memory."""
    calls = []
    with EnterpriseDetectorPool(cache_size=2, cache_ttl=1000) as pool:
        pool.register_detector("double", lambda x: calls.append(x) or x * 2, cacheable=True)
        first, second = pool.execute_detector("double", 2), pool.execute_detector("double", 2)
        other_type = pool.execute_detector("double", 2.0)
        pool.execute_detector("double", object)
        for n in (5, 6, 7):
            pool.execute_detector("double", n)
        pool.execute_detector("double", 2)

        assert (first.from_cache, second.from_cache, other_type.from_cache) == (False, True, False)
        assert len(calls) == 7
        assert pool.get_pool_metrics()["cache_entries"] == 2
    with EnterpriseDetectorPool(cache_ttl=0) as pool:
        pool.register_detector("double", lambda x: x * 2, cacheable=True)
        pool.execute_detector("double", 2)
        assert pool.execute_detector("double", 2).from_cache is False
        assert pool.get_pool_metrics()["cache_entries"] == 0


def test_config_gives_defaults() -> None:
    """A detector's configuration reaches it, and a call may override it."""
    with EnterpriseDetectorPool() as pool:
        pool.register_detector("limit", lambda limit: limit, config={"limit": 60})

        assert pool.execute_detector("limit").value == 60
        assert pool.execute_detector("limit", limit=7).value == 7


def test_an_audit_without_a_sink_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine is installed without what it is audited by, a silent audit would look like one."""
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    with pytest.raises(ConfigurationError, match="audit sink"):
        create_enterprise_pool(audit_mode=True)


def test_misuse_is_told() -> None:
    """Each wrong use says what would be right."""
    with pytest.raises(UsageError, match="max_workers"):
        EnterpriseDetectorPool(max_workers=0)
    with pytest.raises(UsageError, match="negative"):
        EnterpriseDetectorPool(cache_size=-1)
    with pytest.raises(UsageError, match="wrokers"):
        create_enterprise_pool(wrokers=2)
    with EnterpriseDetectorPool() as pool:
        with pytest.raises(UsageError):
            pool.register_detector("", len)
        with pytest.raises(UsageError):
            pool.execute_adaptive([], target_overhead=2)
    with pytest.raises(DetectorPoolError, match="closed"):
        pool.execute_detector("x")
