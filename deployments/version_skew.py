"""
Whether client, scheduler and workers run the same code: Dask only warns, and evidence would name what did not run.

What is compared travels as plain text, so that an older or newer release understands it, too.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["VersionSkew", "differences", "installed", "require_same", "tool_versions"]

PACKAGES = ("enterprise-detector-pool", "dask", "distributed", "cloudpickle", "msgspec")
ROOMS = ("detectors", "compliance", "deployments")
SHOWN = 5


class VersionSkew(ClusterError):
    """Somebody in the cluster runs other versions than this machine; the message says who, and which."""

    exit_code = 2


def installed() -> dict[str, str]:
    """Return what must be the same on every machine: Python, packages, and a digest of our own code."""
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    digest = hashlib.sha256()
    house = Path(__file__).parents[1]
    assert (house / ROOMS[0]).is_dir(), "the code lies where it is imported from"
    for room in ROOMS:
        for file in sorted((house / room).rglob("*.py")):
            digest.update(f"{file.relative_to(house)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    assert len(digest.hexdigest()) == 64, "SHA-256"
    assert found.keys() >= set(PACKAGES), "each package says its version"
    # A version number is the same for all commits between two releases; the evidence names the code.
    return {**found, "own code": digest.hexdigest()[:16]}


def tool_versions() -> dict[str, str]:
    """Return the version of each detector that could run here."""
    from detectors.detector import discover

    found = {detector.name: detector.version for detector in discover() if detector.missing() is None}
    assert all(found.values()), "whoever can run says which version it is"
    return found


def differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[str]:
    """Yield what is not the same, each as one phrase; what only one of both has is of no version."""
    assert mine, "this machine has something installed"
    for name in sorted({*mine, *theirs}):
        here, there = mine.get(name, "nothing"), theirs.get(name, "nothing")
        if here != there:
            yield f"{name} is {there} there and {here} here"


def require_same(client: Client, target: str) -> None:
    """
    Hold the scheduler and each worker of a cluster against this machine.

    Args:
        client: Connected.
        target: What `--cluster` named, for the message.

    Raises:
        VersionSkew: Somebody runs another version of Python, of a package, of our own code, or of a detector's tool.
    """
    assert target, "a message names the cluster"
    mine, tools = installed(), tool_versions()
    assert tools, "some detector can run here"
    try:
        scheduler: Mapping[str, str] = client.run_on_scheduler(installed)  # type: ignore[no-untyped-call]
        workers: Mapping[str, Any] = client.run(installed, on_error="return")
        theirs: Mapping[str, Any] = client.run(tool_versions, on_error="return")
    except Exception as problem:  # whatever another release makes of a function that it does not have
        raise VersionSkew(
            f"{target} does not understand this release: {type(problem).__name__}: {problem}"
        ) from problem
    assert workers, "a cluster that is asked has workers"
    found = [f"the scheduler: {phrase}" for phrase in differences(mine, scheduler)]
    for address, there in sorted(workers.items()):
        if isinstance(there, BaseException):
            found.append(f"the worker {address} does not understand this release: {there}")
            continue
        found += [f"the worker {address}: {phrase}" for phrase in differences(mine, there)]
        has = theirs.get(address)
        if isinstance(has, Mapping):
            # What a worker lacks is told with each file (*not analysed*); what it has in another version is not.
            both = {name: tools[name] for name in tools.keys() & has.keys()}
            found += [
                f"the worker {address}: {phrase}"
                for phrase in (differences(both, {name: has[name] for name in both}) if both else ())
            ]
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        told = "; ".join(found[:SHOWN]) + more
        raise VersionSkew(f"versions in {target} differ: {told}. Install the same release and lock on every machine")
