"""The specification's snippets, as far as their parts exist, but for the lines that import."""

from __future__ import annotations

import pydoc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compliance import RealTimeComplianceMonitor
from detectors import EnterpriseDetectorPool, create_enterprise_pool


def test_the_basic_snippet() -> None:
    """The published API is what users type first."""

    def security_detector_func(code_path: str) -> str:
        return f"secure {code_path}"

    def perf_detector_func(code_path: str) -> str:
        return f"fast {code_path}"

    # Create optimized detector pool
    with create_enterprise_pool() as pool:
        # Register detectors
        pool.register_detector("security_scanner", security_detector_func)
        pool.register_detector("performance_analyzer", perf_detector_func)

        # Execute single detector
        result = pool.execute_detector("security_scanner", code_path="/src")

        # Execute multiple detectors in parallel
        configs = [
            ("security_scanner", ("/src",), {}),
            ("performance_analyzer", ("/src",), {})
        ]  # fmt: skip
        results = pool.execute_parallel(configs)

    assert result.value == "secure /src"
    assert [item.value for item in results] == ["secure /src", "fast /src"]


@pytest.fixture
def installed_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """An audit sink that is installed, as `audit_mode=True` asks for."""
    (tmp_path / "kept_events.py").write_text(
        "EVENTS = []\n\n\nclass Sink:\n    def record(self, event):\n        EVENTS.append(event)\n"
    )
    installed = tmp_path / "kept_events-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: kept-events\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[detector_pool.audit]\nkept = kept_events\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kept_events", raising=False)
    import kept_events  # type: ignore[import-not-found]

    events: list[Mapping[str, Any]] = kept_events.EVENTS
    return events


def test_the_advanced_snippet(installed_sink: list[Mapping[str, Any]]) -> None:
    """The published API is what users type second."""

    def security_scanner(code_path: str) -> str:
        return f"scanned {code_path}"

    configs = [("critical_security_scan", ("/src",), {})] * 4 + [("not_registered", (), {})]

    # Create enterprise pool with custom configuration
    pool = EnterpriseDetectorPool(
        max_workers=16,
        cache_size=10000,
        cache_ttl=3600,
        enable_profiling=True,
        audit_mode=True
    )  # fmt: skip

    # Enable compliance monitoring
    compliance_monitor = RealTimeComplianceMonitor()
    compliance_monitor.start_monitoring(pool)

    # Register detectors with priorities and complexity scores
    pool.register_detector(
        name="critical_security_scan",
        detector_func=security_scanner,
        priority=10,  # High priority
        complexity_score=3.0  # High complexity
    )  # fmt: skip

    # Execute with adaptive optimization
    results = pool.execute_adaptive(
        detector_configs=configs,
        target_overhead=0.01  # 1% overhead target
    )  # fmt: skip
    compliance_monitor.check()
    pool.close()
    watched = compliance_monitor.stop_monitoring()

    assert [item.value for item in results] == ["scanned /src"] * 4 + [None]
    assert watched.samples[-1].executed == 4
    assert watched.samples[-1].failed == 0
    assert "there is no detector named 'not_registered'" in str(results[4].error)
    assert [event["event"] for event in installed_sink] == ["detector-registered", "executions-asked", "executed"]


def test_the_debug_snippet_without_its_benchmark(installed_sink: list[Mapping[str, Any]]) -> None:
    """The benchmark does not exist yet; the pool that it is given must."""
    # Enable detailed logging and profiling
    pool = EnterpriseDetectorPool(
        enable_profiling=True,
        audit_mode=True
    )  # fmt: skip
    pool.register_detector("any", len)

    assert pool.execute_detector("any", "abc").value == 3
    assert pool.get_pool_metrics()["detectors"]["any"]["profile"]["wall_s"] > 0
    pool.close()


def test_the_help_reads_well() -> None:
    """When this fails, `help(EnterpriseDetectorPool)` leaves a reader without what a method takes, gives or raises."""
    text = pydoc.plain(pydoc.render_doc(EnterpriseDetectorPool))
    public = [name for name in vars(EnterpriseDetectorPool) if not name.startswith("_")]

    assert {"register_detector", "execute_detector", "execute_parallel", "execute_adaptive"} <= set(public)
    for name in public:
        documented = getattr(EnterpriseDetectorPool, name).__doc__
        assert documented, name
        assert documented.strip().splitlines()[0] in text
    for words in ("Args:", "Returns:", "Raises:", "in the order asked", "seconds"):
        assert words in text
