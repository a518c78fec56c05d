"""
Units of a pool on a Dask cluster: many to a task, each with an outcome of its own.

A task whose workers die is halved until the unit at fault is alone; that unit's outcome says so, all others run again
elsewhere. A detector with a time limit runs in a process of its own beside the Dask worker, since Dask cannot end a
running task.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from detectors.errors import DetectorPoolError, NotTransferable
from detectors.parallel_executor import Call, DaskBackend, ParallelExecutor, WorkerLost
from detectors.ports import open_cluster
from detectors.process_isolation import Outcome, ProcessShelf, Unit, pickled
from detectors.registration import Registration, RetryPolicy

__all__ = ["RemoteDetector", "RemoteUnits", "execute_units"]

ATTEMPTS_ALONE = 2
"""Dask blames whatever waited on a worker that died; a unit alone that loses its worker this often is at fault."""
IDLE_PROCESSES = 2
KNOWN_FUNCTIONS = 64


class RemoteDetector(msgspec.Struct, frozen=True):
    """What a Dask worker needs to know of a detector."""

    name: str
    function: bytes
    """Pickled."""
    timeout_s: float | None
    memory_bytes: int


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
            registration.name, registration.transferable, registration.timeout_s, registration.memory_bytes
        )
        refused: list[tuple[Unit, Outcome]] = []
        parts = collections.deque([list(pickled(registration.name, units, refused))])
        alone = 0
        yield from refused
        # Every pass answers a part, halves it, or is one of the attempts of a unit alone.
        while parts:
            part = parts.popleft()
            if not part:
                continue
            answers, error = self._send(detector, part)
            alone = alone + 1 if isinstance(error, WorkerLost) and len(part) == 1 else 0
            if error is None:
                yield from zip((unit for unit, _ in part), answers, strict=True)
            elif isinstance(error, WorkerLost) and len(part) > 1:
                middle = len(part) // 2
                parts.extendleft((part[middle:], part[:middle]))
            elif isinstance(error, WorkerLost) and alone < ATTEMPTS_ALONE:
                parts.appendleft(part)
            else:
                alone = 0
                yield from ((unit, Outcome(error=error)) for unit, _ in part)

    def close(self) -> None:
        """Close the cluster, if one was opened."""
        with self._lock:
            self._executor = None
            self._stack.close()

    def _send(
        self, detector: RemoteDetector, part: list[tuple[Unit, bytes]]
    ) -> tuple[list[Outcome], BaseException | None]:
        try:
            executor = self._opened()
            call = Call(detector.name, execute_units, (detector, [data for _, data in part]))
            (result,) = executor.run([call])
        except DetectorPoolError as problem:  # no cluster, or it was lost: the next units try again
            return [], problem
        if result.error is not None:
            return [], result.error
        return [_read(detector.name, answer) for answer in result.value], None

    def _opened(self) -> ParallelExecutor:
        with self._lock:
            if self._executor is None:
                client = self._stack.enter_context(open_cluster(self._target, self._workers))
                self._executor = ParallelExecutor(DaskBackend(client, self._workers, self._target))
            return self._executor


def execute_units(detector: RemoteDetector, units: Sequence[bytes]) -> list[tuple[bytes, float, float, str]]:
    """
    Run units on a Dask worker.

    Returns:
        (pickled (value, error), seconds, processor seconds, worker) for each unit, in order.
    """
    import socket

    worker = f"dask-{socket.gethostname()}"
    with contextlib.suppress(ImportError, ValueError):
        from distributed import get_worker

        worker = str(get_worker().name)
    if detector.timeout_s is not None:
        return _apart(detector, units, worker)
    try:
        function = _function(detector.function)
    except Exception as problem:  # importing the detector's module may raise anything
        error = NotTransferable(detector.name, "function", f"{type(problem).__name__}: {problem}")
        return [(pickle.dumps((None, error)), 0.0, 0.0, worker) for _ in units]
    return [(*_execute(detector.name, function, data), worker) for data in units]


def _execute(name: str, function: Callable[..., Any], data: bytes) -> tuple[bytes, float, float]:
    started, cpu_s = time.perf_counter(), time.thread_time()
    try:
        args, kwargs = pickle.loads(data)  # noqa: S301 - from our own driver, through Dask's mutual TLS
        started, cpu_s = time.perf_counter(), time.thread_time()
        outcome: tuple[Any, BaseException | None] = function(*args, **kwargs), None
    except (Exception, SystemExit) as problem:
        outcome = None, problem
    seconds, cpu_s = time.perf_counter() - started, time.thread_time() - cpu_s
    return _dumped(name, outcome), seconds, cpu_s


def _dumped(name: str, outcome: tuple[Any, BaseException | None]) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(outcome)
        if outcome[1] is not None:
            pickle.loads(data)  # noqa: S301 - many exceptions can be pickled and never be read again
    except Exception as problem:  # a value's own code may raise anything
        what = "result" if outcome[1] is None else f"error ({outcome[1]!r:.200})"
        data = pickle.dumps((None, NotTransferable(name, what, f"{type(problem).__name__}: {problem}")))
    return data


def _apart(detector: RemoteDetector, units: Sequence[bytes], worker: str) -> list[tuple[bytes, float, float, str]]:
    """Run units in a process beside this worker, which can be ended."""
    sent = [Unit(place, *pickle.loads(data)) for place, data in enumerate(units)]  # noqa: S301
    answers: dict[int, tuple[bytes, float, float, str]] = {}
    for unit, outcome in _shelf().execute(_registration(detector), iter(sent)):
        data = _dumped(detector.name, (outcome.value, outcome.error))
        answers[unit.index] = data, outcome.seconds, outcome.cpu_seconds, f"{worker}/{outcome.worker}"
    return [answers[place] for place in range(len(units))]


def _read(name: str, answer: tuple[bytes, float, float, str]) -> Outcome:
    data, seconds, cpu_s, worker = answer
    try:
        value, error = pickle.loads(data)  # noqa: S301 - from our own workers, through Dask's mutual TLS
    except Exception as problem:  # a result may be pickled and not be read again
        value, error = None, NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")
    return Outcome(value, error, seconds, cpu_s, worker=worker)


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
