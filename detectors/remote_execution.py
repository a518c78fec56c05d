"""
Units of a pool on a Dask cluster: many to a task, each with an outcome of its own.

A task whose workers die runs again in a process beside a Dask worker, where the unit at fault is found and hurts no
other. So does from the start a detector with a time limit, since Dask cannot end a running task. Where the workers die
even so, the task is halved until the unit at fault is alone.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from detectors.errors import ClusterLost, DetectorPoolError, ExecutionError, ForeignError, NotTransferable
from detectors.parallel_executor import Call, DaskBackend, ParallelExecutor
from detectors.ports import open_cluster
from detectors.process_isolation import Outcome, ProcessShelf, Unit, pickled
from detectors.registration import Registration, RetryPolicy

__all__ = ["RemoteAnswers", "RemoteDetector", "RemoteUnits", "execute_units"]

IDLE_PROCESSES = 2
KNOWN_FUNCTIONS = 64


class RemoteDetector(msgspec.Struct, frozen=True):
    """What a Dask worker needs to know of a detector."""

    name: str
    function: bytes
    """Pickled."""
    timeout_s: float | None
    memory_bytes: int
    apart: bool
    """Whether it runs in a process beside the worker."""


class RemoteUnits:
    """
    A cluster of the pool's own, opened with the first units. Thread-safe.

    Args:
        target: What `--cluster` takes: `local`, or a scheduler's address.
        workers: Worker processes wanted.
    """

    def __init__(self, target: str, workers: int) -> None:
        self._target, self._workers = target, workers
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._executor: ParallelExecutor | None = None

    def execute(self, registration: Registration, units: Sequence[Unit]) -> Iterator[tuple[Unit, Outcome]]:
        """Yield each unit with its outcome; an error of the cluster itself is the outcome of all that it lost."""
        assert registration.transferable is not None, "registered for isolation in a thread"
        detector = RemoteDetector(
            registration.name, registration.transferable, registration.timeout_s, registration.memory_bytes,
            registration.timeout_s is not None,
        )  # fmt: skip
        refused: list[tuple[Unit, Outcome]] = []
        sent = list(pickled(registration.name, units, refused))
        yield from refused
        left = {unit.index: unit for unit, _ in sent}
        try:
            calls = [_call(detector, sent)] if sent else []
            for result in self._opened().run_divided(calls, _divided) if calls else ():
                part = [unit for unit, _ in result.call.about]
                for unit in part:
                    del left[unit.index]
                if result.error is None:
                    yield from zip(part, _read(detector.name, result.value), strict=True)
                else:
                    yield from ((unit, Outcome(error=result.error)) for unit in part)
        except DetectorPoolError as problem:  # no cluster, or it was lost: the next units try again
            if isinstance(problem, ClusterLost):
                with self._lock:
                    self._executor = None
            yield from ((unit, Outcome(error=problem)) for unit in left.values())

    def close(self) -> None:
        """Close the cluster, if one was opened."""
        with self._lock:
            self._executor = None
            self._stack.close()

    def _opened(self) -> ParallelExecutor:
        with self._lock:
            if self._executor is None:
                client = self._stack.enter_context(open_cluster(self._target, self._workers))
                self._executor = ParallelExecutor(DaskBackend(client, self._workers, self._target))
            return self._executor


class RemoteAnswers(msgspec.Struct, frozen=True):
    """What came of a task's units, in order."""

    outcomes: bytes | list[bytes]
    """Pickled (value, error) pairs: all in one, or, where one of them cannot travel so, each for itself."""
    seconds: list[float]
    cpu_seconds: float
    """Of all together."""
    worker: str


def _call(detector: RemoteDetector, part: Sequence[tuple[Unit, bytes]]) -> Call:
    """Return the call that runs units with their pickled arguments."""
    assert part, "a call runs something"
    return Call(detector.name, execute_units, (detector, [data for _, data in part]), about=part)


def _divided(call: Call) -> tuple[Call, ...]:
    """Return what is run in place of a call whose workers died: the same set apart, then halves; see `Divide`."""
    detector, part = call.args[0], call.about
    if not detector.apart:
        return (_call(msgspec.structs.replace(detector, apart=True), part),)
    middle = len(part) // 2
    assert middle < len(part), "each part is shorter"
    return (_call(detector, part[:middle]), _call(detector, part[middle:])) if middle else ()


def execute_units(detector: RemoteDetector, units: Sequence[bytes]) -> RemoteAnswers:
    """
    Run units on a Dask worker.

    Args:
        detector: What they are for.
        units: Pickled (args, kwargs) each.
    """
    import socket

    worker = f"dask-{socket.gethostname()}"
    with contextlib.suppress(ImportError, ValueError):
        from distributed import get_worker

        worker = f"dask-{get_worker().name}"
    if detector.apart:
        return _apart(detector, units, worker)
    cpu_s = time.thread_time()
    try:
        function = _function(detector.function)
    except Exception as problem:  # importing the detector's module may raise anything
        error = NotTransferable(detector.name, "function", f"{type(problem).__name__}: {problem}")
        return RemoteAnswers([pickle.dumps((None, error)) for _ in units], [0.0] * len(units), 0.0, worker)
    done = [_execute(function, data) for data in units]
    pairs = [(value, error) for value, error, _ in done]
    return RemoteAnswers(
        _packed(detector.name, pairs), [seconds for _, _, seconds in done], time.thread_time() - cpu_s, worker
    )


def _execute(function: Callable[..., Any], data: bytes) -> tuple[Any, BaseException | None, float]:
    started = time.perf_counter()
    try:
        args, kwargs = pickle.loads(data)  # noqa: S301 - from our own driver, through Dask's mutual TLS
        started = time.perf_counter()
        return function(*args, **kwargs), None, time.perf_counter() - started
    except (Exception, SystemExit) as problem:
        return None, problem, time.perf_counter() - started


def _packed(name: str, pairs: Sequence[tuple[Any, BaseException | None]]) -> bytes | list[bytes]:
    if all(error is None for _, error in pairs):
        try:
            data = pickle.dumps(pairs)
            pickle.loads(data)  # noqa: S301 - what cannot be read again must not take the others with it
        except Exception:  # then each for itself, so that the one at fault is found
            return [_dumped(name, pair) for pair in pairs]
        return data
    return [_dumped(name, pair) for pair in pairs]


def _dumped(name: str, pair: tuple[Any, BaseException | None]) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(pair)
        if pair[1] is not None:
            pickle.loads(data)  # noqa: S301 - many exceptions can be pickled and never be read again
    except Exception as problem:  # a value's own code may raise anything
        told: ExecutionError = NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")
        if pair[1] is not None:
            told = ForeignError(name, type(pair[1]).__qualname__, str(pair[1])[:4000])
        data = pickle.dumps((None, told))
    return data


def _apart(detector: RemoteDetector, units: Sequence[bytes], worker: str) -> RemoteAnswers:
    """Run units in a process beside this worker, which can be ended."""
    sent = [Unit(place, *pickle.loads(data)) for place, data in enumerate(units)]  # noqa: S301
    outcomes: list[Outcome] = [Outcome()] * len(sent)
    for answered in _shelf().execute(_registration(detector), iter(sent)):
        for unit, outcome in answered:
            outcomes[unit.index] = outcome
    return RemoteAnswers(
        _packed(detector.name, [(outcome.value, outcome.error) for outcome in outcomes]),
        [outcome.seconds for outcome in outcomes],
        sum(outcome.cpu_seconds for outcome in outcomes),
        worker,
    )


def _read(name: str, answers: RemoteAnswers) -> list[Outcome]:
    pairs: list[tuple[Any, BaseException | None]] = []
    packed = answers.outcomes
    try:
        pairs = pickle.loads(packed) if isinstance(packed, bytes) else []  # noqa: S301 - from our own workers
    except Exception as problem:  # a result may be pickled and not be read again
        error = NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")
        pairs = [(None, error)] * len(answers.seconds)
    for data in packed if isinstance(packed, list) else ():
        try:
            pairs.append(pickle.loads(data))  # noqa: S301 - from our own workers, through Dask's mutual TLS
        except Exception as problem:  # the same, of one
            pairs.append((None, NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")))
    cpu_s = answers.cpu_seconds / max(len(pairs), 1)
    return [
        Outcome(value, error, seconds, cpu_s, worker=answers.worker)
        for (value, error), seconds in zip(pairs, answers.seconds, strict=True)
    ]


@functools.lru_cache(maxsize=KNOWN_FUNCTIONS)
def _function(data: bytes) -> Callable[..., Any]:
    function: Callable[..., Any] = pickle.loads(data)  # noqa: S301 - from our own driver
    return function


@functools.lru_cache(maxsize=1)
def _shelf() -> ProcessShelf:
    return ProcessShelf(IDLE_PROCESSES)


@functools.lru_cache(maxsize=KNOWN_FUNCTIONS)
def _registration(detector: RemoteDetector) -> Registration:
    return Registration(
        detector.name, len, {}, 1, 1.0, frozenset(), "process", detector.timeout_s, detector.memory_bytes,
        RetryPolicy(), None, False, True, None, b"", None, detector.function,
    )  # fmt: skip
