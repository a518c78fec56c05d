"""
What the engine asks from above, as small protocols, and how the one who fulfils them is found.

Nothing in `detectors` imports `compliance`, `flows` or `deployments`; they are reached through entry points.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

from detectors.errors import ConfigurationError, DetectorBroken, UsageError

if TYPE_CHECKING:
    from detectors.shared_store import SharedStore

__all__ = [
    "AccessPolicy",
    "Action",
    "Alert",
    "AlertSink",
    "AuditSink",
    "Claim",
    "ClusterKind",
    "Figure",
    "KnowsCaller",
    "Observe",
    "Progress",
    "RunObserver",
    "StoreKind",
    "Workplace",
    "installed_access_policy",
    "installed_audit_sink",
    "installed_claims",
    "installed_observers",
    "open_cluster",
    "open_store",
]

STORE_METHODS = ("accepts", "open")
OWN = "builtin"
"""Name of this project's own entry points."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all) as work goes on; must return at once."""


@runtime_checkable
class ClusterKind(Protocol):
    """A way to get a Dask scheduler; `name` is what `--cluster` takes."""

    name: ClassVar[str]

    def open(self, target: str, workers: int) -> AbstractContextManager[Any]:
        """
        Bring a cluster up, or reach a running one; clean up at the end.

        Args:
            target: What `--cluster` was given: the kind's name, or a scheduler's address.
            workers: How many worker processes are wanted.

        Yields:
            A connected `distributed.Client`.

        Raises:
            ClusterError: It cannot be started or reached.
        """
        ...

    def accepts(self, target: str) -> bool:
        """Tell whether this kind serves `target`."""
        ...


Observe = Callable[[str, Mapping[str, Any]], None]
"""Called with an event's name and plain data; must return at once and must not raise. Threads call it one at a time."""


@runtime_checkable
class RunObserver(Protocol):
    """
    Looks at runs from outside: a log, metrics, traces.

    Events, each with `run_id`: `run-begun`, `run-planned`, `batch-done`, `cluster-lost`, `run-settled`, `run-ended`.
    """

    def observe_run(self) -> AbstractContextManager[Observe] | None:
        """
        Return where the events of a run go, until the context ends; `None` where nobody asked for it.

        Raises:
            ConfigurationError: It was asked for, and cannot be had.
        """
        ...


@runtime_checkable
class StoreKind(Protocol):
    """A way to keep results where several drivers find them; `name` shows what `--store` takes."""

    name: ClassVar[str]

    def accepts(self, url: str) -> bool:
        """Tell whether this kind serves `url`."""
        ...

    def open(self, url: str) -> SharedStore:
        """
        Return the store; whether it answers shows when it is asked.

        Raises:
            UsageError: An address that would be open to others, or carries a secret.
            ConfigurationError: What it needs is not installed, or its key cannot be used.
        """
        ...


Action = Literal["run", "register", "read", "verify", "administer", "waive", "approve"]
"""What leave is asked for: the first two of a detector, the others of a store (`evidence`, `ledger`, `policy`, …)."""


@runtime_checkable
class AccessPolicy(Protocol):
    """Says who may do what; asked once for each detector of a call, never for each execution."""

    def denial(self, action: Action, target: str, roles: frozenset[str], tree: str = "", /) -> str | None:
        """
        Decide on one action of whoever runs this process.

        Args:
            action: What is to be done.
            target: The detector's or store's name.
            roles: Roles of which one is needed beside what the policy says; empty where the registration names none.
            tree: Real path of the sources, or of the store's folder; empty where there is none.

        Returns:
            Why not; `None` when it is allowed.
        """
        ...


@runtime_checkable
class KnowsCaller(Protocol):
    """What an access policy may offer beside: who it takes the caller for."""

    def caller(self) -> Mapping[str, Any]:
        """Return plain data for records: who runs this process, how that is known, which policy decides."""
        ...


@runtime_checkable
class AuditSink(Protocol):
    """
    Keeps events; may be called from any thread.

    `record` may return before the event is durable; one that could not be kept must be told by a later call. A pool
    that found its sink itself calls `close`, where there is one, when it closes.
    """

    def record(self, event: Mapping[str, Any]) -> None:
        """Keep one event: `event` names its kind, the rest is plain data."""
        ...


class Alert(msgspec.Struct, frozen=True):
    """A threshold that was crossed, or is respected again."""

    check: str
    """Which check, such as `memory` or `regression`."""
    subject: str
    """The detector or resource that it is about."""
    level: Literal["warning", "critical", "resolved"]
    measured: float
    threshold: float
    message: str
    time: float
    """Seconds since the epoch."""


@runtime_checkable
class AlertSink(Protocol):
    """Delivers alerts; must not raise, and must return within seconds."""

    def send(self, alert: Alert) -> None:
        """Deliver one alert."""
        ...


class Figure(msgspec.Struct, frozen=True):
    """One measured value beside its aim; whether it holds is worked out from them, never said by who measured."""

    what: str
    value: float
    unit: str
    aim: float
    rule: Literal["at least", "at most"]
    sample: int
    """Of how many measurements or trials the value is."""
    low: float | None = None
    high: float | None = None
    """Its 95 % interval, where it is an estimate."""
    method: str = ""

    @property
    def held(self) -> bool:
        """Whether the aim is met, by the end of the interval that is worse."""
        worse = self.low if self.rule == "at least" else self.high
        decisive = self.value if worse is None else worse
        if self.sample < 1 or not math.isfinite(decisive):
            return False
        return decisive >= self.aim if self.rule == "at least" else decisive <= self.aim


class Workplace(msgspec.Struct, frozen=True):
    """Where and on what a claim is tried."""

    folder: Path
    """Empty, for whatever is written."""
    sources: tuple[Path, ...]
    """Folders of real C and Python."""
    workers: int
    files: int
    """How many of them are worked on, at most."""
    side_s: float
    """Seconds that one side of a timed pair shall take."""
    pairs: int
    """Timed pairs, fixed beforehand."""
    cache: Path | None = None
    """Folder of a result cache that outlives the run; `None` for none."""


@runtime_checkable
class Claim(Protocol):
    """Something that this project says of itself, and can be seen to fail."""

    part: ClassVar[str]
    """One of `validation_demo.PARTS`."""
    title: ClassVar[str]

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Try the product on real work and yield what was measured; whatever this raises counts as not held."""
        ...


def installed_claims() -> tuple[Claim, ...]:
    """
    Return the claims named by the entry points `detector_pool.claims`, by part and title.

    Raises:
        ConfigurationError: None is installed, which would look as if all held.
    """
    classes = _classes(importlib.metadata.entry_points(group="detector_pool.claims"), ("measure",))
    found: list[Claim] = sorted((cls() for cls in classes), key=lambda claim: (claim.part, claim.title))
    if not found:
        raise ConfigurationError("no claims are installed (entry points detector_pool.claims); install the project")
    return tuple(found)


def installed_access_policy() -> AccessPolicy | None:
    """
    Return the policy named by the entry points `detector_pool.access`; `None` when none is installed.

    Raises:
        ConfigurationError: More than one is installed.
    """
    policy: AccessPolicy | None = _only("detector_pool.access", ("denial",))
    return policy


def installed_audit_sink() -> AuditSink | None:
    """
    Return the sink named by the entry points `detector_pool.audit`; `None` when none is installed.

    Raises:
        ConfigurationError: More than one is installed.
    """
    sink: AuditSink | None = _only("detector_pool.audit", ("record",))
    return sink


def installed_observers() -> list[RunObserver]:
    """Return who looks at runs, named by the entry points `detector_pool.observers`."""
    entries = importlib.metadata.entry_points(group="detector_pool.observers")
    return [cls() for cls in _classes(entries, ("observe_run",))]


def _only(group: str, methods: tuple[str, ...]) -> Any:
    """Return the one implementation that is installed; this project's own gives way to one that is put beside it."""
    entries = list(importlib.metadata.entry_points(group=group))
    others = [entry for entry in entries if entry.name != OWN]
    found = list(_classes(others or entries, methods))
    if len(found) > 1:
        names = ", ".join(sorted(cls.__qualname__ for cls in found))
        raise ConfigurationError(f"several implementations of {group} are installed ({names}); keep one")
    return found[0]() if found else None


def open_cluster(target: str, workers: int) -> AbstractContextManager[Any]:
    """
    Find the cluster kind for `target` among the entry points `detector_pool.clusters`, and open it.

    Raises:
        UsageError: No kind serves `target`.
    """
    kinds = [
        cls() for cls in _classes(importlib.metadata.entry_points(group="detector_pool.clusters"), ("accepts", "open"))
    ]
    for kind in kinds:
        if kind.accepts(target):
            context: AbstractContextManager[Any] = kind.open(target, workers)
            return context
    names = ", ".join(sorted(kind.name for kind in kinds))
    raise UsageError(f"--cluster {target!r} is neither `inline`, nor one of: {names}, nor a scheduler's address")


def open_store(url: str) -> SharedStore:
    """
    Find the kind of store for `url` among the entry points `detector_pool.stores`, and open it.

    Raises:
        UsageError: No kind serves `url`, or it would be open to others.
        ConfigurationError: What it needs is not installed, or its key cannot be used.
    """
    if not url:
        raise UsageError("a store has an address")
    kinds = [cls() for cls in _classes(importlib.metadata.entry_points(group="detector_pool.stores"), STORE_METHODS)]
    for kind in kinds:
        if kind.accepts(url):
            store: SharedStore = kind.open(url)
            return store
    names = ", ".join(sorted(kind.name for kind in kinds))
    raise UsageError(f"--store takes the address of one of: {names or 'none that is installed'}")


def _classes(entries: Iterable[importlib.metadata.EntryPoint], methods: tuple[str, ...]) -> Iterator[type[Any]]:
    for entry in entries:
        try:
            package = importlib.import_module(entry.module)
            found = [package] + [
                importlib.import_module(info.name)
                for info in pkgutil.iter_modules(getattr(package, "__path__", []), f"{package.__name__}.")
            ]
        except Exception as problem:  # a third party's module may raise anything; it must be named
            raise DetectorBroken(entry.value, f"{type(problem).__name__}: {problem}") from problem
        for module in found:
            for cls in vars(module).values():
                if (
                    inspect.isclass(cls)
                    and cls.__module__ == module.__name__
                    and all(callable(getattr(cls, method, None)) for method in methods)
                ):
                    yield cls
