"""
Findings of many looks to few alerts: told once when they rise, told once when they are over, kept as violations.

A level rises at the first finding and falls only after several calmer ones in a row, so that a value near its threshold
does not flap. Delivery is by the sinks of `detectors.alerts`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from detectors.errors import UsageError
from detectors.health import Finding, Level
from detectors.ports import Alert, AlertSink

__all__ = ["AlertDesk", "Violation"]

CALM_LOOKS = 3
KEPT = 1_000
"""Violations that are over are kept, at most; the oldest go first."""
RANK: dict[Level, int] = {"ok": 0, "warning": 1, "critical": 2}


class Violation(msgspec.Struct, frozen=True):
    """One threshold that was crossed, from the first finding to the end."""

    check: str
    subject: str
    level: Level
    """The worst it reached."""
    message: str
    """Of the worst finding."""
    since: float
    """Seconds since the epoch."""
    until: float | None
    """`None` while it lasts."""
    findings: int
    """How many looks saw it."""


class _Watched(msgspec.Struct, eq=False):
    """What is known of one check of one subject."""

    level: Level = "ok"
    calm: int = 0
    violation: Violation | None = None


class AlertDesk:
    """
    Takes findings, tells what changed. Not thread-safe.

    Args:
        sinks: Get each alert.
        clock: Seconds since the epoch.
        calm_looks: Calmer findings in a row after which a level falls.

    Raises:
        UsageError: `calm_looks` below 1.
    """

    def __init__(self, sinks: Sequence[AlertSink], clock: Callable[[], float], calm_looks: int = CALM_LOOKS) -> None:
        if calm_looks < 1:
            raise UsageError(f"calm_looks counts from 1, not {calm_looks}")
        self._sinks, self._clock, self._calm_looks = tuple(sinks), clock, calm_looks
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._over: deque[Violation] = deque(maxlen=KEPT)
        self.sent = 0
        """Alerts handed to every sink."""

    @property
    def open(self) -> tuple[Violation, ...]:
        """What is violated now, the worst first."""
        lasting = [watched.violation for watched in self._watched.values() if watched.violation is not None]
        assert all(violation.until is None for violation in lasting), "what is over is not open"
        return tuple(sorted(lasting, key=lambda one: (-RANK[one.level], one.since, one.check, one.subject)))

    @property
    def all(self) -> tuple[Violation, ...]:
        """What is and was violated, the oldest first."""
        known = (*self._over, *self.open)
        assert len(known) >= len(self._over), "open ones come on top"
        return tuple(sorted(known, key=lambda one: (one.since, one.check, one.subject)))

    def take(self, findings: Iterable[Finding]) -> tuple[Alert, ...]:
        """
        Account for the findings of one look, and send the alerts that follow.

        Args:
            findings: At most one a check and subject; one that is missing changes nothing.

        Returns:
            What was sent.
        """
        alerts = [alert for finding in findings if (alert := self._taken(finding)) is not None]
        assert len({(alert.check, alert.subject) for alert in alerts}) == len(alerts), "a look has one finding of each"
        for alert in alerts:
            for sink in self._sinks:
                sink.send(alert)
        self.sent += len(alerts)
        return tuple(alerts)

    def _taken(self, finding: Finding) -> Alert | None:
        watched = self._watched.setdefault((finding.check, finding.subject), _Watched())
        assert 0 <= watched.calm < self._calm_looks, "a level that was calm for long enough has fallen"
        now = self._clock()
        before, rank = watched.level, RANK[finding.level]
        if rank > 0:
            watched.violation = _extended(watched.violation, finding, now)
        watched.calm = watched.calm + 1 if rank < RANK[before] else 0
        if rank < RANK[before] and watched.calm < self._calm_looks:
            return None
        watched.level, watched.calm = finding.level, 0
        assert rank == 0 or watched.violation is not None, "what is not well is violated"
        if watched.level == before:
            return None
        if watched.level == "ok" and watched.violation is not None:
            self._over.append(msgspec.structs.replace(watched.violation, until=now))
            watched.violation = None
        assert (watched.violation is None) == (watched.level == "ok"), "a level above ok is a violation"
        return Alert(
            finding.check, finding.subject, "resolved" if finding.level == "ok" else finding.level,
            finding.measured, finding.threshold, finding.message, now,
        )  # fmt: skip


def _extended(violation: Violation | None, finding: Finding, now: float) -> Violation:
    assert RANK[finding.level] > RANK["ok"], "what is well violates nothing"
    if violation is None:
        return Violation(finding.check, finding.subject, finding.level, finding.message, now, None, 1)
    assert violation.until is None, "one that is over is not taken up again"
    assert (violation.check, violation.subject) == (finding.check, finding.subject), "it is extended by its own kind"
    worse = RANK[finding.level] > RANK[violation.level]
    return msgspec.structs.replace(
        violation, level=finding.level if worse else violation.level,
        message=finding.message if worse else violation.message, findings=violation.findings + 1,
    )  # fmt: skip
