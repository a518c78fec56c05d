"""Measurements of a pool: true, complete, and readable by Prometheus, OpenTelemetry and speedscope."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from detectors import EnterpriseDetectorPool
from detectors.errors import UsageError


def _fail() -> None:
    raise ValueError


def _busy(n: int) -> int:
    """Use the processor for a while: profilers see what runs, not what waits."""
    return sum(len(re.sub("a+", "b", "aab" * n)) for _ in range(60))


def _pool() -> EnterpriseDetectorPool:
    pool = EnterpriseDetectorPool(max_workers=2)
    pool.register_detector("double", lambda n: n * 2, cacheable=True)
    pool.register_detector("fail", _fail)
    pool.register_detector("apart", _busy, isolation="process")
    pool.execute_parallel([("double", (n % 10,), {}) for n in range(30)])
    pool.execute_parallel([("fail", (), {})] * 3)
    pool.execute_detector("apart", 3_000)
    return pool


def test_counts_are_those_of_what_happened() -> None:
    """When this fails, somebody decides by numbers that are not so."""
    with _pool() as pool:
        metrics = pool.get_pool_metrics()

    double, fail, apart = (metrics["detectors"][name] for name in ("double", "fail", "apart"))
    assert (double["executed"], double["from_cache"], double["failed"]) == (10, 20, 0)
    assert (fail["executed"], fail["failed"]) == (3, 3)
    assert metrics["total"]["executed"] == 14
    assert metrics["total"]["seconds"] == pytest.approx(sum(d["seconds"] for d in metrics["detectors"].values()))
    assert list(double["latency_s"]) == ["p50", "p90", "p95", "p99", "max"]
    assert sorted(double["latency_s"].values()) == list(double["latency_s"].values())
    assert apart["cpu_seconds"] > 0
    assert apart["peak_bytes"] > 5_000_000
    assert double["peak_bytes"] is None
    assert 0 < metrics["overhead_share"] < 1
    assert metrics["busy_seconds"] >= metrics["total"]["seconds"] > 0
    assert (metrics["queued"], metrics["running"]) == (0, 0)
    assert len(metrics["processes"]["pids"]) == 1
    assert metrics["memory_bytes"] > 0


def test_prometheus_reads_the_text() -> None:
    """When this fails, a scrape of the pool is thrown away."""
    with _pool() as pool:
        text = pool.prometheus_metrics()

    samples = {
        (
            sample.name,
            sample.labels.get("detector"),
            sample.labels.get("quantile") or sample.labels.get("state"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["detector_pool_executed_total", "double", None] == 10
    assert samples["detector_pool_failed_total", "fail", None] == 3
    assert samples["detector_pool_latency_seconds", "double", "p99"] > 0
    assert samples["detector_pool_breaker", "fail", "closed"] == 1
    assert samples["detector_pool_breaker", "fail", "open"] == 0
    assert samples["detector_pool_workers", None, None] == 2


def test_opentelemetry_observes_the_pool() -> None:
    """When this fails, the pool is missing in a house that gathers its measurements by OpenTelemetry."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    with _pool() as pool:
        pool.instrument(provider.get_meter("test"))
        data = reader.get_metrics_data()
    provider.shutdown()

    assert data is not None
    seen = {
        (metric.name, point.attributes.get("detector")): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    assert seen["detector_pool.executed", "double"] == 10
    assert seen["detector_pool.failed", "fail"] == 3
    assert seen["detector_pool.workers", None] == 2


def test_profiles_show_where_the_time_went(tmp_path: Path) -> None:
    """When this fails, `enable_profiling` slows everything and tells nothing."""
    with EnterpriseDetectorPool(max_workers=2, enable_profiling=True) as pool:
        pool.register_detector("busy/detector", _busy)
        pool.register_detector("hungry", lambda: len(bytearray(20_000_000)))
        pool.execute_parallel([("busy/detector", (3_000,), {})] * 4)
        pool.execute_detector("hungry")
        metrics = pool.get_pool_metrics()["detectors"]
        files = pool.export_profiles(tmp_path / "profiles")

    busy = metrics["busy/detector"]["profile"]
    assert busy["samples"] > 0
    assert busy["wall_s"] >= metrics["busy/detector"]["seconds"] > 0
    assert busy["cpu_s"] > 0
    assert metrics["hungry"]["profile"]["peak_allocated_bytes"] > 20_000_000
    graph = json.loads(next(file for file in files if file.name == "busy_detector.speedscope.json").read_text())
    assert "_busy" in {frame["name"] for frame in graph["shared"]["frames"]}
    assert graph["profiles"][0]["events"]


def test_without_profiling_there_is_nothing_to_export(tmp_path: Path) -> None:
    """When this fails, an empty folder looks like a profile."""
    with EnterpriseDetectorPool() as pool, pytest.raises(UsageError, match="enable_profiling"):
        pool.export_profiles(tmp_path)


def test_optimizing_says_what_it_changed_and_why(tmp_path: Path) -> None:
    """When this fails, the pool behaves otherwise than before, and nobody knows why."""
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("950")
    with EnterpriseDetectorPool(max_workers=2, cgroup_root=tmp_path, cache_bytes=1_000_000) as pool:
        pool.register_detector("double", lambda n: n * 2, cacheable=True)
        pool.execute_detector("double", 1)
        report = pool.optimize_performance()
        workers = pool.get_pool_metrics()["workers"]

    by_name = {change["what"]: change for change in report["changes"]}
    memory = by_name["cache_bytes"]
    assert (memory["before"], memory["after"]) == (1_000_000, 500_000)
    assert "5%" in memory["why"]
    assert workers == by_name.get("workers", {"after": 2})["after"] >= 1
    assert "detectors" in report["learnt"]
