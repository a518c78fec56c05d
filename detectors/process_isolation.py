"""
Warm processes, one detector each, that may crash, hang or eat memory without hurting anyone else.

Each has a pipe of its own, so that one killed at any moment breaks no other; its own session, so that what it starts
ends with it; limits on address space and output; and no standard output. What comes back is unpickled here: isolation
contains accidents, not malice. Why no library does this: docs/decisions/0009.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import psutil

from detectors.errors import (
    DetectorPoolError,
    ExecutionError,
    ExecutionTimedOut,
    ForeignError,
    IsolatedCrash,
    NotTransferable,
)
from detectors.registration import Registration

__all__ = ["Outcome", "ProcessShelf", "Unit", "pickled"]

START_S = 60.0
OUTPUT_BYTES = 256 << 20
"""Of each file that the process writes; its standard output is one."""
RESULT_BYTES = 256 << 20
AHEAD_BYTES = 16 << 10
"""A unit this small may wait in the pipe behind the running one; two fit into any socket's buffer."""
FRESH_STARTS = 3
SECRETS = frozenset({"DETECTOR_POOL_PASSPHRASE"})


class Unit(msgspec.Struct, frozen=True):
    """One execution as it is sent."""

    index: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a unit: `error` is `None`, or `value` is worthless."""

    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    """Highest resident size of the process so far."""
    read_bytes: int = 0
    written_bytes: int = 0
    worker: str = ""


class _Ended(Exception):
    """The process is gone, or had to be ended; `error` is the outcome of the unit that ran, `None` if none did."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(error)
        self.error = error


class _Process:
    """One warm process of one detector."""

    def __init__(self, registration: Registration) -> None:
        assert registration.transferable is not None, "registered for isolation in a thread"
        self.registration = registration
        script = Path(__file__).with_name("isolated_worker.py")
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            _ = undo.enter_context(ours)
            with theirs:
                # Anonymous, so that nothing is left on disk when we are killed.
                self._output = undo.enter_context(tempfile.TemporaryFile())
                self._child = subprocess.Popen(
                    [sys.executable, "-P", str(script), str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    env=environment,
                    start_new_session=True,
                )
            self._pipe = Connection(ours.detach())
            _ = undo.pop_all()
        self.pid = self._child.pid
        self.worker = f"process-{self.pid}"
        self._started = False
        self._sent: list[Unit] = []
        self._retired = False

    def execute(self, units: Iterator[tuple[Unit, bytes]]) -> Iterator[tuple[Unit, Outcome]]:
        """
        Yield units with their outcomes, in order; a small one is sent ahead of the running one's answer.

        Raises:
            _Ended: The process is no longer there. Of the units taken and not yielded, only the first can have run.
        """
        self._greet()
        small_ahead = True
        for unit, data in units:
            small = len(data) <= AHEAD_BYTES
            # Two that are large could each wait for the other side to read.
            room = 2 if small and small_ahead else 1
            for _ in range(len(self._sent) - room + 1):
                yield self._next()
            self._sent.append(unit)
            self._send(data)
            small_ahead = small
        for _ in range(len(self._sent)):
            yield self._next()

    def end(self) -> None:
        """Kill the process with all that it began; may be called from any thread."""
        began: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            # It adopts its orphans, so that what left the process group is found, too.
            began = psutil.Process(self.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in began:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def close(self) -> None:
        """End it, and give its descriptors back."""
        if self._child.returncode is None:
            self.end()
            self._child.wait()
        self._pipe.close()
        self._output.close()

    def _greet(self) -> None:
        if self._started:
            return
        registration = self.registration
        setup = {
            "path": sys.path,
            "function": registration.transferable,
            "memory_bytes": registration.memory_bytes,
            "output_bytes": OUTPUT_BYTES,
            "result_bytes": RESULT_BYTES,
        }
        self._send(pickle.dumps(setup))
        problem = pickle.loads(self._receive(START_S))  # noqa: S301 - from our own child
        if problem is not None:
            raise _Ended(NotTransferable(registration.name, "function", problem))
        self._started = True

    def _send(self, data: bytes) -> None:
        try:
            self._pipe.send_bytes(data)
        except OSError:
            if len(self._sent) > 1:
                return  # the answer of the unit before this one may still be in the pipe, or tell of its end
            raise _Ended(None if self._retired else self._crash()) from None

    def _next(self) -> tuple[Unit, Outcome]:
        if self._retired:
            raise _Ended(None)
        name = self.registration.name
        answer = pickle.loads(self._receive(self.registration.timeout_s))  # noqa: S301
        kind, body, seconds, cpu_s, peak, read, written, self._retired = answer
        unit = self._sent.pop(0)
        value, error = None, None
        try:
            loaded = pickle.loads(body)  # noqa: S301
            match kind:
                case "value":
                    value = loaded
                case "error":
                    error = loaded
                case "foreign":
                    error = ForeignError(name, *loaded)
                case _:
                    error = NotTransferable(name, "result", ": ".join(loaded))
        except Exception as problem:  # a result may be pickled and not be read again
            error = NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")
        return unit, Outcome(value, error, seconds, cpu_s, peak, read, written, self.worker)

    def _receive(self, limit_s: float | None) -> bytes:
        try:
            if not self._pipe.poll(limit_s):
                limit = START_S if limit_s is None else limit_s
                self.end()
                raise _Ended(ExecutionTimedOut(self.registration.name, limit))
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise _Ended(self._crash()) from None

    def _crash(self) -> IsolatedCrash:
        self.end()
        code = self._child.wait()
        size = os.fstat(self._output.fileno()).st_size
        tail = os.pread(self._output.fileno(), 2000, max(0, size - 2000))
        return IsolatedCrash(self.registration.name, code, tail.decode("utf-8", "replace"))

    @property
    def started(self) -> bool:
        """Whether it ever said that it is ready."""
        return self._started

    @property
    def alive(self) -> bool:
        """Whether it can take units; looks without reaping, so that its group cannot become another's."""
        if self._retired or self._child.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


class ProcessShelf:
    """
    The warm processes of a pool; idle ones wait here for their detector's next units. Thread-safe.

    Args:
        idle: At most this many wait; the one that waited longest goes first.
        died: Called with (detector, words) whenever a process died that should not have.
    """

    def __init__(self, idle: int, died: Callable[[str, str], None] | None = None) -> None:
        self._limit, self._died = idle, died
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False
        self.started = self.lost = 0

    def execute(self, registration: Registration, units: Iterator[Unit]) -> Iterator[tuple[Unit, Outcome]]:
        """
        Yield each unit with its outcome, in order; a unit that kills its process or runs too long hurts no other.

        Args:
            registration: Whose function runs.
            units: Taken one by one, at most one more than is running.
        """
        refused: list[tuple[Unit, Outcome]] = []
        source = pickled(registration.name, units, refused)
        pending: collections.deque[tuple[Unit, bytes]] = collections.deque()
        innocent_ends = 0
        # Each round answers a unit, or is one of FRESH_STARTS that end without having begun one.
        while pending or (first := next(source, None)) is not None:
            if not pending and first is not None:
                pending.append(first)
            try:
                process = self._take(registration)
            except OSError as problem:  # no more processes, descriptors or memory
                unit, _ = pending.popleft()
                words = f"no process could be started for {registration.name}: {problem.strerror}"
                yield unit, Outcome(error=ExecutionError(words))
                continue
            taken: list[tuple[Unit, bytes]] = []
            end: _Ended | None = None
            try:
                for unit, outcome in process.execute(_noted(pending, source, taken)):
                    del taken[0]
                    innocent_ends = 0
                    yield from _emptied(refused)
                    yield unit, outcome
            except _Ended as seen:
                end = seen
            except BaseException:
                self._discard(process, None)
                raise
            if end is None:
                self._put(process)
                continue
            pending.extendleft(reversed(taken))
            self._discard(process, end.error)
            innocent_ends += 1
            guilty = process.started and end.error is not None
            if pending and (guilty or innocent_ends >= FRESH_STARTS):
                unit, _ = pending.popleft()
                innocent_ends = 0
                lost = end.error or IsolatedCrash(registration.name, 0, "it ended before it began")
                yield unit, Outcome(error=lost, worker=process.worker)
        yield from _emptied(refused)

    def end_all(self) -> None:
        """End every process; those who wait for one get its crash as an outcome."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = tuple(self._busy)
        for process in idle:
            process.close()
        for process in busy:
            process.end()

    def pids(self) -> tuple[int, ...]:
        """Return the processes that are there now."""
        with self._lock:
            return tuple(process.pid for process in (*self._idle, *self._busy))

    def _take(self, registration: Registration) -> _Process:
        found: _Process | None = None
        dead: list[_Process] = []
        with self._lock:
            if self._closed:
                raise DetectorPoolError(f"{registration.name} cannot run: the pool is closed")
            for process in reversed(self._idle):
                if process.registration is registration:
                    self._idle.remove(process)
                    if process.alive:
                        found = process
                        break
                    dead.append(process)
        for process in dead:
            process.close()
        if found is None:
            found = _Process(registration)
            self.started += 1
        with self._lock:
            self._busy.add(found)
        return found

    def _put(self, process: _Process) -> None:
        surplus: _Process | None = process
        with self._lock:
            self._busy.discard(process)
            if not self._closed and process.alive:
                self._idle.append(process)
                surplus = self._idle.pop(0) if len(self._idle) > self._limit else None
        if surplus is not None:
            surplus.close()

    def _discard(self, process: _Process, error: BaseException | None) -> None:
        with self._lock:
            self._busy.discard(process)
            self.lost += error is not None
        process.close()
        if error is not None and self._died is not None:
            self._died(process.registration.name, str(error))


def pickled(name: str, units: Iterable[Unit], refused: list[tuple[Unit, Outcome]]) -> Iterator[tuple[Unit, bytes]]:
    """Yield a detector's units with their bytes; those whose arguments cannot travel go to `refused`."""
    for unit in units:
        try:
            data = pickle.dumps((unit.args, unit.kwargs))
        except Exception:
            import cloudpickle

            try:
                data = cloudpickle.dumps((unit.args, unit.kwargs))
            except Exception as problem:  # whatever an argument's own code raises
                told = NotTransferable(name, "arguments", f"{type(problem).__name__}: {problem}")
                refused.append((unit, Outcome(error=told)))
                continue
        yield unit, data


def _noted(
    pending: collections.deque[tuple[Unit, bytes]],
    then: Iterator[tuple[Unit, bytes]],
    taken: list[tuple[Unit, bytes]],
) -> Iterator[tuple[Unit, bytes]]:
    """Empty `pending`, then yield the others; keep in `taken` what was yielded."""
    for _ in range(len(pending)):
        taken.append(pending.popleft())
        yield taken[-1]
    for pair in then:
        taken.append(pair)
        yield pair


def _emptied(pairs: list[tuple[Unit, Outcome]]) -> Iterator[tuple[Unit, Outcome]]:
    for _ in range(len(pairs)):
        yield pairs.pop(0)
