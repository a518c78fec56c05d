"""What a live monitor saw: plain data, from which its reports are made."""

from __future__ import annotations

import msgspec

from compliance.alert_desk import Violation
from compliance.control import ControlResult
from compliance.tool_versions import Drift
from detectors.errors import UsageError

__all__ = ["ComplianceThresholds", "LiveRecord", "Sample"]


class ComplianceThresholds(msgspec.Struct, frozen=True):
    """
    Where compliance ends; pairs are (warning, critical), in per cent, from above.

    Raises:
        UsageError: A pair out of order, or out of 0 to 100.
    """

    score: tuple[float, float] = (95.0, 80.0)
    """Of the live score."""
    power_of_ten: tuple[float, float] = (95.0, 90.0)
    """Of the watched tree's Power-of-Ten score."""
    clear_points: float = 1.0
    """An alert is resolved so many points above its threshold."""

    def __post_init__(self) -> None:
        if any(len(pair) != 2 for pair in (self.score, self.power_of_ten)):
            raise UsageError("a threshold of a score is a pair (warning, critical)")
        for warning, critical in (self.score, self.power_of_ten):
            if not 0 <= critical <= warning <= 100:
                raise UsageError("thresholds of scores are pairs (warning, critical) from 100 down to 0")
        if self.clear_points < 0:
            raise UsageError(f"clear_points must not be negative, not {self.clear_points}")


class Sample(msgspec.Struct, frozen=True):
    """One look."""

    time: float
    """Seconds since the epoch."""
    score: float
    """Per cent: the mean of those of the next three that are known."""
    checks_held: float
    """Per cent of the live checks (health, ledger, versions) that hold; a warning counts half."""
    controls_held: float | None
    """Per cent of the operational controls, when they were tried last."""
    power_of_ten: float | None
    """Score of the watched tree, when it was scanned last."""
    violations: int
    executed: int
    failed: int
    retried: int
    refused: int
    queued: int
    overhead_share: float | None
    memory_bytes: int
    ledger_records: int | None
    look_cpu_s: float
    """Processor seconds that this look took of the watching thread."""


class LiveRecord(msgspec.Struct, frozen=True):
    """All that was watched, until now."""

    started: float
    until: float
    stopped: bool
    samples: tuple[Sample, ...]
    violations: tuple[Violation, ...]
    controls: tuple[ControlResult, ...]
    versions: dict[str, str]
    drift: tuple[Drift, ...]
    ledger: str
    """The ledger's last verdict in words; empty without one."""
    checkpoint: str
    """The last verified head of the ledger."""
    looks: int
    alerts: int

    @property
    def lasting(self) -> tuple[Violation, ...]:
        """Violations that are not over."""
        assert self.until >= self.started, "time goes on"
        lasting = tuple(violation for violation in self.violations if violation.until is None)
        assert all(violation.level != "ok" for violation in lasting), "what is well is no violation"
        return lasting
