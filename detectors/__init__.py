"""The engine: a tree of sources in, a run record out. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detectors.comprehensive_benchmark import ComprehensiveBenchmark
    from detectors.enterprise_detector_pool import EnterpriseDetectorPool, create_enterprise_pool
    from detectors.parallel_executor import ParallelExecutor
    from detectors.scan import Scan, ScanOptions
    from detectors.workload_optimizer import WorkloadOptimizer

__all__ = [
    "ComprehensiveBenchmark",
    "EnterpriseDetectorPool",
    "ParallelExecutor",
    "Scan",
    "ScanOptions",
    "WorkloadOptimizer",
    "create_enterprise_pool",
]

_HOMES = {
    "ComprehensiveBenchmark": "comprehensive_benchmark",
    "EnterpriseDetectorPool": "enterprise_detector_pool",
    "ParallelExecutor": "parallel_executor",
    "Scan": "scan",
    "ScanOptions": "scan",
    "WorkloadOptimizer": "workload_optimizer",
    "create_enterprise_pool": "enterprise_detector_pool",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    public = getattr(home, name)
    assert public.__module__ == home.__name__, "a public name is taken from the module that defines it"
    return public
