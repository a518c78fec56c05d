"""
Warm processes, one detector each, that may crash, hang or eat memory without hurting anyone else.

Each has a pipe and a shared memory of its own, so that one killed at any moment breaks no other; its own session, so
that what it starts ends with it; limits on address space and output; and no standard output. What comes back is
unpickled here: isolation contains accidents, not malice. Why no library does this: docs/decisions/0009.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
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
from detectors.isolated_worker import ANSWER, ELSEWHERE, KINDS, PROGRESS, UNITS_A_MESSAGE
from detectors.registration import Registration

__all__ = ["Outcome", "ProcessShelf", "Unit", "pickled"]

START_S = 60.0
OUTPUT_BYTES = 256 << 20
"""Of each file that the process writes; its standard output is one."""
RESULT_BYTES = 256 << 20
AHEAD_BYTES = 16 << 10
"""A message this small may wait in the pipe behind the running one; two fit into any socket's buffer."""
MESSAGE_S = 0.02
"""Units of a message take about so long together: it costs some 0.1 ms to send and to be told of."""
SHARED_BYTES = 256 << 10
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


_Pickled = tuple[Unit, bytes]
"""A unit with its arguments as they are sent."""


class _Ended(Exception):
    """The process is gone, or had to be ended; `guilty` tells whether the first unit without an outcome had begun."""

    def __init__(self, error: BaseException | None, guilty: bool = True) -> None:
        super().__init__(error, guilty)
        self.error, self.guilty = error, guilty


class _Message:
    """Units sent together, and which half of the shared memory their answers are written to."""

    __slots__ = ("bodies", "half", "units")

    def __init__(self, units: list[Unit], half: int) -> None:
        self.units, self.half = units, half
        self.bodies: list[bytes] = []
        """Those that did not fit there, in order."""


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
            memory = os.memfd_create("detector-pool-answers")
            _ = undo.callback(os.close, memory)
            os.ftruncate(memory, SHARED_BYTES)
            self._shared = mmap.mmap(memory, SHARED_BYTES)
            with theirs:
                # Anonymous, so that nothing is left on disk when we are killed.
                self._output = undo.enter_context(tempfile.TemporaryFile())
                self._child = subprocess.Popen(
                    [sys.executable, "-P", str(script), str(theirs.fileno()), str(memory)],
                    pass_fds=(theirs.fileno(), memory),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    env=environment,
                    start_new_session=True,
                )
            self._pipe = Connection(ours.detach())
            _ = undo.pop_all()
        os.close(memory)
        self.pid = self._child.pid
        self.worker = f"process-{self.pid}"
        self._started = False
        self._sent: collections.deque[_Message] = collections.deque()
        self._messages = 0
        self._at_once = 1
        self._retired = False

    def execute(self, units: Iterator[_Pickled], taken: list[_Pickled]) -> Iterator[list[tuple[Unit, Outcome]]]:
        """
        Yield units with their outcomes, in order; a small message is sent ahead of the running one's answers.

        Args:
            units: Taken as they are sent.
            taken: Gets what was taken.

        Raises:
            _Ended: The process is no longer there. Of the units taken and not yielded, only the first can have run.
        """
        self._greet()
        small_ahead = True
        for message, parts in self._messages_of(units, taken):
            small = sum(map(len, parts)) <= AHEAD_BYTES
            # Two that are large could each wait for the other side to read.
            room = 2 if small and small_ahead else 1
            for _ in range(len(self._sent) - room + 1):
                yield from self._next()
            self._sent.append(message)
            # What the message before the last left there was read.
            PROGRESS.pack_into(self._shared, message.half * SHARED_BYTES // 2, 0, 0, 0.0)
            self._send(pickle.dumps(parts))
            small_ahead = small
        for _ in range(len(self._sent)):
            yield from self._next()

    def _messages_of(self, units: Iterator[_Pickled], taken: list[_Pickled]) -> Iterator[tuple[_Message, list[bytes]]]:
        """Group units as long as their predicted seconds, number and bytes are few."""
        # Each round takes a unit at least, and there are only so many; an endless iterator is its owner's affair.
        while together := list(itertools.islice(units, self._at_once)):
            taken += together
            first, size = 0, 0
            for place, (_, data) in enumerate(together):
                if place > first and size + len(data) > AHEAD_BYTES:
                    yield self._numbered(together[first:place])
                    first, size = place, 0
                size += len(data)
            yield self._numbered(together[first:])

    def _numbered(self, pairs: list[_Pickled]) -> tuple[_Message, list[bytes]]:
        self._messages += 1
        return _Message([unit for unit, _ in pairs], (self._messages - 1) % 2), [data for _, data in pairs]

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
        self._shared.close()

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
                return  # the answers of the message before this one may still be there, or tell of its end
            raise _Ended(None if self._retired else self._crash(), guilty=False) from None

    def _next(self) -> Iterator[list[tuple[Unit, Outcome]]]:
        """Yield the first message's units with their outcomes."""
        if self._retired:
            raise _Ended(None)
        message = self._sent.popleft()
        end: _Ended | None = None
        try:
            cpu_s, peak, read, written = self._told(message)
        except _Ended as seen:
            end, (cpu_s, peak, read, written) = seen, (0.0, 0, 0, 0)
        answers, begun = self._answers(message)
        total_s = sum(seconds for _, _, seconds in answers)
        self._adapt(total_s / max(len(answers), 1), any(kind != "value" for kind, _, _ in answers))
        cpu_share = cpu_s / total_s if total_s else 0.0
        outcomes = []
        for unit, (kind, body, seconds) in zip(message.units, answers, strict=False):
            value, error = self._opened(kind, body)
            outcome = Outcome(value, error, seconds, cpu_share * seconds, peak, read, written, self.worker)
            outcomes.append((unit, outcome))
            read = written = 0
        if outcomes:
            yield outcomes
        if end is not None:
            raise _Ended(end.error, guilty=begun > len(answers))
        if len(answers) < len(message.units):
            raise _Ended(None)

    def _told(self, message: _Message) -> tuple[float, int, int, int]:
        """Wait until a message's units are answered; return processor seconds, peak, bytes read and written."""
        limit_s = self.registration.timeout_s
        since = time.monotonic()
        # Each round a body has come, or the limit of one unit is over and another has begun.
        for _ in range(2 * len(message.units) + 2):
            try:
                # Looking first costs as much as all else that is done for a message.
                come = limit_s is None or self._pipe.poll(max(since + limit_s - time.monotonic(), 0.0))
                data = self._pipe.recv_bytes() if come else None
                if data == b"":
                    message.bodies.append(self._pipe.recv_bytes())
                    continue
            except (EOFError, OSError):
                raise _Ended(self._crash()) from None
            if data is not None:
                cpu_s, peak, read, written, self._retired = pickle.loads(data)  # noqa: S301 - from our own child
                return cpu_s, peak, read, written
            _, _, started = PROGRESS.unpack_from(self._shared, message.half * SHARED_BYTES // 2)
            if started <= since:
                break
            since = started
        self.end()
        _ = self._child.wait()
        raise _Ended(ExecutionTimedOut(self.registration.name, limit_s or 0.0))

    def _answers(self, message: _Message) -> tuple[list[tuple[str, bytes, float]], int]:
        """Return (kind, body, seconds) of the units that were answered, and how many were begun."""
        place = message.half * SHARED_BYTES // 2
        end = place + SHARED_BYTES // 2
        begun, answered, _ = PROGRESS.unpack_from(self._shared, place)
        place += PROGRESS.size
        bodies = iter(message.bodies)
        answers: list[tuple[str, bytes, float]] = []
        for _ in range(min(answered, len(message.units))):
            code, size, seconds = ANSWER.unpack_from(self._shared, place)
            place += ANSWER.size
            if place + size > end or code % ELSEWHERE >= len(KINDS):
                break  # a detector wrote into memory that is not its own
            body = next(bodies, b"") if code >= ELSEWHERE else self._shared[place : place + size]
            answers.append((KINDS[code % ELSEWHERE], body, seconds))
            place += size
        return answers, begun

    def _adapt(self, mean_s: float, failed: bool) -> None:
        """Choose how many units the next message holds: one after a failure, since a breaker may open with it."""
        fitting = int(MESSAGE_S / max(mean_s, 1e-6))
        self._at_once = 1 if failed else max(1, min(fitting, 2 * self._at_once, UNITS_A_MESSAGE))

    def _opened(self, kind: str, body: bytes) -> tuple[Any, BaseException | None]:
        """Return value and error of an answer."""
        name = self.registration.name
        try:
            loaded = pickle.loads(body)  # noqa: S301
        except Exception as problem:  # a result may be pickled and not be read again
            return None, NotTransferable(name, "result", f"{type(problem).__name__}: {problem}")
        match kind:
            case "value":
                return loaded, None
            case "error":
                return None, loaded
            case "foreign":
                return None, ForeignError(name, *loaded)
            case _:
                return None, NotTransferable(name, "result", ": ".join(loaded))

    def _receive(self, limit_s: float) -> bytes:
        try:
            if not self._pipe.poll(limit_s):
                self.end()
                raise _Ended(ExecutionTimedOut(self.registration.name, limit_s))
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
        self._counts: collections.Counter[bytes] = collections.Counter()
        self._closed = False
        self.started = self.lost = 0

    def execute(self, registration: Registration, units: Iterator[Unit]) -> Iterator[list[tuple[Unit, Outcome]]]:
        """
        Yield each unit with its outcome, in order; a unit that kills its process or runs too long hurts no other.

        Args:
            registration: Whose function runs.
            units: Taken as they are sent: at most two messages' worth more than have outcomes.
        """
        refused: list[tuple[Unit, Outcome]] = []
        source = pickled(registration.name, units, refused)
        pending: collections.deque[_Pickled] = collections.deque()
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
                yield [(unit, Outcome(error=ExecutionError(words)))]
                continue
            taken: list[_Pickled] = []
            end: _Ended | None = None
            try:
                for outcomes in process.execute(itertools.chain(_drained(pending), source), taken):
                    del taken[: len(outcomes)]
                    innocent_ends = 0
                    yield outcomes
            except _Ended as seen:
                end = seen
            except BaseException:
                self._discard(process, None)
                raise
            if end is None:
                self._put(process)
                continue
            # Those that it was sent and did not answer, then those that were not sent to it.
            pending.extendleft(reversed(taken))
            self._discard(process, end.error)
            innocent_ends += 1
            guilty = process.started and end.guilty and end.error is not None
            if pending and (guilty or innocent_ends >= FRESH_STARTS):
                unit, _ = pending.popleft()
                innocent_ends = 0
                lost = end.error or IsolatedCrash(registration.name, 0, "it ended before it began")
                yield [(unit, Outcome(error=lost, worker=process.worker))]
        if refused:
            yield refused

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

    def count(self, registration: Registration) -> int:
        """Return how many processes of a detector are there, idle or busy."""
        with self._lock:
            return self._counts.get(registration.identity, 0)

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
        made = found is None
        found = found or _Process(registration)
        with self._lock:
            self._count(registration, made - len(dead))
            self.started += made
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
                self._count(surplus.registration, -1)
        if surplus is not None:
            surplus.close()

    def _count(self, registration: Registration, change: int) -> None:
        """Keep the number of a detector's processes; under the lock."""
        self._counts[registration.identity] += change
        assert self._counts[registration.identity] >= 0, "a process ended twice"
        if not self._counts[registration.identity]:
            del self._counts[registration.identity]

    def _discard(self, process: _Process, error: BaseException | None) -> None:
        with self._lock:
            self._busy.discard(process)
            self._count(process.registration, -1)
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


def _drained(pairs: collections.deque[_Pickled]) -> Iterator[_Pickled]:
    for _ in range(len(pairs)):
        yield pairs.popleft()
