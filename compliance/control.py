"""
What an operational control is, how all are found, and where they try: on disposable pools like the live one.

A control is held by what the product did when it was tried, never by a flag: it injects a fault and sees recovery,
sends bad input, lets a task overrun. Its evidence names the numbers. A trial that raises, hangs or observes nothing has
failed.
"""

from __future__ import annotations

import abc
import contextlib
import importlib
import inspect
import pkgutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.ports import Action

__all__ = ["Control", "ControlResult", "Observation", "RecordedEvents", "Trial", "find_controls", "tried"]

TRIAL_LIMIT_S = 90.0
"""A product that hangs must not hang its trial; every probe ends by itself well below this."""
MAX_WORDS = 400
"""Characters kept of an unforeseen error."""


class Observation(msgspec.Struct, frozen=True):
    """One thing that was tried, with its numbers."""

    held: bool
    words: str


class ControlResult(msgspec.Struct, frozen=True):
    """What trying a control showed."""

    id: str
    ok: bool
    evidence: str
    """Every observation with the measured numbers; those that did not hold begin with `NOT:`."""
    seconds: float


class RecordedEvents:
    """An audit sink that keeps events in memory; takes the live sink's place, so that trials leave no trace in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Mapping[str, Any]] = []

    def record(self, event: Mapping[str, Any]) -> None:
        """Keep one event."""
        if "event" not in event:
            raise UsageError("an event names its kind under `event`")
        with self._lock:
            self._events.append(dict(event))

    def of_kind(self, kind: str) -> tuple[Mapping[str, Any], ...]:
        """Return the events of one kind, in order."""
        assert kind, "an event's kind is a word"
        with self._lock:
            return tuple(event for event in self._events if event["event"] == kind)


class _Everybody:
    """An access policy for trials of other controls: the live one does not know their detectors."""

    def denial(self, action: Action, _target: str, _roles: frozenset[str], _tree: str = "", /) -> str | None:
        """Allow it."""
        return None if action in {"register", "run"} else f"{action} is no action of a pool"


class Trial:
    """
    Where one control tries.

    Args:
        configuration: Of the live pool, as `EnterpriseDetectorPool.configuration` gives it.
        folder: Empty, for whatever the trial writes.
        ledger: The live ledger, when there is one.
    """

    def __init__(self, configuration: Mapping[str, Any], folder: Path, ledger: Path | None = None) -> None:
        assert folder.is_dir(), "a trial writes into a folder that is there"
        self.configuration, self.folder, self.ledger = dict(configuration), folder, ledger

    @contextlib.contextmanager
    def pool(self, **changes: Any) -> Iterator[EnterpriseDetectorPool]:
        """
        Make a pool with the live one's configuration, and close it.

        The live sink, cache folder and access policy are not touched: events go to `RecordedEvents`, results below the
        trial's folder, and everybody may do everything, unless `changes` say otherwise.

        Raises:
            UsageError: A change that is no option of a pool.
        """
        made: dict[str, Any] = {**self.configuration, "access_policy": _Everybody(), "audit_sink": None}
        if made.get("audit_mode"):
            made["audit_sink"] = RecordedEvents()
        if made.get("cache_folder") is not None:
            made["cache_folder"] = Path(tempfile.mkdtemp(dir=self.folder))
        unknown = set(changes) - set(inspect.signature(EnterpriseDetectorPool).parameters)
        if unknown:
            raise UsageError(f"a pool has no option {', '.join(sorted(unknown))}")
        with EnterpriseDetectorPool(**{**made, **changes}) as pool:
            yield pool


class Control(abc.ABC):
    """One operational control: `id`, `title`, and how it is tried."""

    id: ClassVar[str]
    title: ClassVar[str]

    @abc.abstractmethod
    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Try the product and yield what was seen; whatever this raises counts as not held."""


def find_controls() -> tuple[Control, ...]:
    """
    Return the controls of `compliance.controls`, by id.

    Raises:
        UsageError: Two have one id.
    """
    package = importlib.import_module("compliance.controls")
    found: dict[str, Control] = {}
    for info in pkgutil.iter_modules(package.__path__, "compliance.controls."):
        module = importlib.import_module(info.name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and issubclass(cls, Control) and cls.__module__ == module.__name__:
                if cls.id in found:
                    raise UsageError(f"two controls are called {cls.id}")
                found[cls.id] = cls()
    assert found, "the package holds the controls"
    return tuple(found[name] for name in sorted(found))


def tried(control: Control, configuration: Mapping[str, Any], ledger: Path | None = None) -> ControlResult:
    """
    Try one control.

    Args:
        control: Whose trial runs, in a thread of its own.
        configuration: Of the live pool.
        ledger: The live ledger, when there is one.

    Returns:
        Held only if something was observed, all of it held, and the trial came to its end within 90 s.
    """
    seen: list[Observation] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="control-", ignore_cleanup_errors=True) as folder:
        trial = Trial(configuration, Path(folder), ledger)
        thread = threading.Thread(target=_observe, args=(control, trial, seen), name="control-trial", daemon=True)
        thread.start()
        thread.join(TRIAL_LIMIT_S)
        if thread.is_alive():
            seen.append(Observation(False, f"the trial did not end within {TRIAL_LIMIT_S:g} s"))
    observed = tuple(seen)
    held = bool(observed) and all(one.held for one in observed)
    evidence = "; ".join(one.words if one.held else f"NOT: {one.words}" for one in observed)
    return ControlResult(control.id, held, evidence or "NOT: nothing was observed", time.perf_counter() - started)


def _observe(control: Control, trial: Trial, seen: list[Observation]) -> None:
    try:
        for observation in control.observe(trial):
            assert observation.words, "an observation without words is no evidence"
            seen.append(observation)
    except Exception as problem:  # a product that is broken may raise anything, and that is what is to be seen
        words = f"the trial ended with {type(problem).__name__}: {problem}"
        seen.append(Observation(False, words[:MAX_WORDS]))
