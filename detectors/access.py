"""
The one question at every door: pool, command line and flows ask it here before anything is done.

A denial is recorded through the audit sink, whichever door it was; that it could not be recorded is told with it, and
never turns it into leave.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from detectors.errors import AccessDenied, ConfigurationError, DetectorPoolError
from detectors.ports import (
    AccessPolicy,
    Action,
    AuditSink,
    KnowsCaller,
    installed_access_policy,
    installed_audit_sink,
)

__all__ = ["Door", "caller", "denied", "require", "require_detectors", "required_policy"]

Door = Literal["pool", "command", "flow"]
"""Where leave was asked for."""


@runtime_checkable
class Closable(Protocol):
    """A sink that keeps something open."""

    def close(self) -> None:
        """Make durable what was recorded, and end."""
        ...


DETECTOR_ACTIONS = frozenset({"run", "register"})


def required_policy() -> AccessPolicy:
    """
    Return the installed policy; a door without one stays closed.

    Raises:
        ConfigurationError: None is installed, or several.
    """
    policy = installed_access_policy()
    if policy is None:
        raise ConfigurationError("no access policy is installed, so nobody may do anything; install the project anew")
    return policy


def denied(  # p10: ignore[R10] what a policy is asked, and where the answer goes by the maintainers
    policy: AccessPolicy,
    action: Action,
    target: str,
    *,
    door: Door,
    roles: frozenset[str] = frozenset(),
    tree: str = "",
    sink: AuditSink | None = None,
) -> AccessDenied | None:
    """
    Ask the policy, and record a denial.

    Args:
        policy: Decides.
        action: What is to be done.
        target: The detector's or store's name.
        door: Where it was asked.
        roles: Roles of which one is needed beside what the policy says.
        tree: Real path of the sources or of the store's folder.
        sink: Where a denial goes; `None` for the installed one.

    Returns:
        The denial; `None` when it is allowed.
    """
    # Three arguments where there is no tree: what a policy of plain functions knows.
    reason = policy.denial(action, target, roles, tree) if tree else policy.denial(action, target, roles)
    if reason is None:
        return None
    assert reason, "a denial says why"
    denial = AccessDenied(action, target, reason)
    what = "detector" if action in DETECTOR_ACTIONS else "store"
    event = {
        "event": "access-denied", "time": time.time(), "door": door, "action": action, what: target, "tree": tree,
        "reason": reason, "who": caller(policy),
    }  # fmt: skip
    try:
        _record(event, sink)
    except DetectorPoolError as problem:
        denial.add_note(f"the denial could not be recorded: {problem}")
    return denial


def _record(event: Mapping[str, Any], sink: AuditSink | None) -> None:
    kept = sink or installed_audit_sink()
    if kept is None:
        return
    kept.record(event)
    # Who found a sink himself ends it: only then is the event durable.
    if sink is None and isinstance(kept, Closable):
        kept.close()


def require(
    action: Action, target: str, *, door: Door, folder: Path | None = None, policy: AccessPolicy | None = None
) -> None:
    """
    Ask for leave to do something to a store.

    Args:
        action: What is to be done.
        target: `evidence`, `ledger`, `policy`, `certificates` or another store's name.
        door: Where it was asked.
        folder: Where the store lies.
        policy: Decides; `None` for the installed one.

    Raises:
        AccessDenied: With the reason; the denial is recorded.
        ConfigurationError: No policy is installed.
    """
    tree = real_path(folder) if folder is not None else ""
    denial = denied(policy or required_policy(), action, target, door=door, tree=tree)
    if denial is not None:
        raise denial


def require_detectors(
    paths: Iterable[Path], names: Iterable[str] | None, *, door: Door, policy: AccessPolicy | None = None
) -> None:
    """
    Ask for leave to run detectors on source trees: each on each, since a run without some would look clean.

    Args:
        paths: Folders or files.
        names: Detectors; all that are installed for `None`.
        door: Where it was asked.
        policy: Decides; `None` for the installed one.

    Raises:
        AccessDenied: For the first that may not run; the denial is recorded.
        UnknownDetector: A name that is not registered.
        ConfigurationError: No policy is installed.
    """
    from detectors.detector import discover

    asked = policy or required_policy()
    chosen = tuple(discover().select(names))
    for tree in sorted({real_path(path) for path in paths}):
        for detector in chosen:
            denial = denied(asked, "run", detector.name, door=door, roles=detector.roles, tree=tree)
            if denial is not None:
                raise denial


def caller(policy: AccessPolicy | None = None) -> Mapping[str, Any]:
    """Return who the policy (the installed one for `None`) takes the caller for, for records; the uid at least."""
    known = policy or installed_access_policy()
    told: Mapping[str, Any] = known.caller() if isinstance(known, KnowsCaller) else {"uid": os.getuid()}
    assert told, "somebody runs this"
    return told


def real_path(path: Path) -> str:
    """Return a path without links, so that none leads around a rule; names that are not UTF-8 are escaped."""
    real = os.fsencode(os.path.realpath(path)).decode("utf-8", "backslashreplace")
    assert real.startswith("/"), "a real path begins at the root"
    return real
