"""The proof: a run record in, evidence out. Public names are loaded on first use (PEP 562)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compliance.defense_compliance_monitor import DefenseComplianceMonitor, RealTimeComplianceMonitor

__all__ = ["DefenseComplianceMonitor", "RealTimeComplianceMonitor"]

_HOMES = dict.fromkeys(__all__, "defense_compliance_monitor")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    assert name in home.__all__, "a public name is public where it lives"
    return getattr(home, name)
