"""Which versions speak: interpreter, this project, every detector and wrapped tool; and what differs from before."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

import msgspec

from detectors.errors import UsageError

__all__ = ["Drift", "drifted", "installed_versions"]

PROJECT = "enterprise-detector-pool"
ABSENT = "absent"


class Drift(msgspec.Struct, frozen=True, order=True):
    """One version that is not what it was."""

    name: str
    before: str
    now: str


def installed_versions() -> dict[str, str]:
    """
    Return version by name; read anew from the installation at each call.

    Raises:
        DetectorBroken: A detector's module cannot be loaded.
    """
    from detectors.detector import discover

    importlib.invalidate_caches()
    found = {detector.name: str(detector.version) for detector in discover()}
    assert found, "this project brings detectors of its own"
    found["python"] = platform.python_version()
    found[PROJECT] = importlib.metadata.version(PROJECT)
    assert all(found.values()), "each says its version, or that it is missing"
    return dict(sorted(found.items()))


def drifted(reference: Mapping[str, str], now: Mapping[str, str]) -> tuple[Drift, ...]:
    """
    Return what differs, by name.

    Args:
        reference: Versions that were qualified, or seen first.
        now: Versions that are there.

    Raises:
        UsageError: There is nothing to compare with.
    """
    if not reference:
        raise UsageError("a drift is measured from versions that were there; the reference is empty")
    names = sorted(reference.keys() | now.keys())
    changes = [Drift(name, reference.get(name, ABSENT), now.get(name, ABSENT)) for name in names]
    assert len(changes) == len(names), "each name once"
    return tuple(change for change in changes if change.before != change.now)
