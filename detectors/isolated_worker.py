"""
The inside of an isolated process: one detector, one execution after the other, until its pipe is closed.

Run as a file by `detectors.process_isolation`, so that it starts without our packages; it imports the standard library
only, and what the detector's own function drags along.

Units come many to a message. Their answers are written to memory shared with the parent, one by one as they are had, so
that none is lost when a later unit of the same message kills this process; a message back says that all are there.
Answers that do not fit travel as messages of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from mmap import mmap
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

UNITS_A_MESSAGE = 64
UNITS_A_PROCESS = 100_000
"""After which it is renewed, whatever the detector leaks."""
KEPT_OUTPUT_BYTES = 1 << 20
WORTH_A_LOOK_S = 0.001
"""Executions this short take little memory, and reading how much would cost more than they do."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


PROGRESS = struct.Struct("<QQd")
"""At the start of each half of the shared memory: units begun, units answered, when the last was begun (monotonic)."""
ANSWER = struct.Struct("<BId")
"""Before each answer's bytes: its kind, their number, and the unit's seconds."""
KINDS = ("value", "error", "foreign", "untransferable")
ELSEWHERE = 128
"""Added to the kind of an answer whose bytes were sent as a message."""


def main() -> int:
    """Serve the pipe whose descriptor is the first argument; the second is that of the shared memory."""
    pipe = Connection(int(sys.argv[1]))
    shared = mmap(int(sys.argv[2]), 0)
    os.close(int(sys.argv[2]))
    _bind_to_parent()
    faulthandler.enable()
    try:
        setup = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our parent, over a pipe that only it holds
        sys.path[:] = setup["path"]
        _limit(setup["memory_bytes"], setup["output_bytes"])
        function = pickle.loads(setup["function"])  # noqa: S301
    except EOFError:
        return 0
    except Exception as problem:  # importing the detector's module may raise anything
        pipe.send_bytes(pickle.dumps(f"{type(problem).__name__}: {problem}"))
        return 1
    pipe.send_bytes(pickle.dumps(None))
    served = 0
    for number in range(UNITS_A_PROCESS):
        try:
            units = pickle.loads(pipe.recv_bytes())  # noqa: S301
        except (EOFError, OSError):
            return 0
        before = resource.getrusage(resource.RUSAGE_SELF)
        half = len(shared) // 2
        answers = _Answers(pipe, shared, number % 2 * half, half, setup["result_bytes"])
        longest_s = answers.serve(function, _arguments(units))
        served += len(units)
        with contextlib.suppress(OSError, ValueError):  # over the limit, or closed by the detector
            sys.stdout.flush()
        # What an execution left running ends with this process; units of later messages run in another.
        last = _has_children() or served >= UNITS_A_PROCESS
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        read, written = (after.ru_inblock - before.ru_inblock) * 512, (after.ru_oublock - before.ru_oublock) * 512
        peak = _peak_bytes() if longest_s > WORTH_A_LOOK_S else 0
        pipe.send_bytes(pickle.dumps((cpu_s, peak, read, written, last)))
        if last:
            _await_the_end(pipe)
            return 0
        _forget_output()
    return 0


def _await_the_end(pipe: Connection) -> None:
    """Wait to be ended: the parent finds what executions left running only while we, who adopted it, are there."""
    with contextlib.suppress(EOFError, OSError):
        # One message may have been sent ahead; its units run in another process.
        for _ in range(3):
            pipe.recv_bytes()


class _Unreadable:
    """Stands for arguments that could not be unpickled."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem


def _arguments(units: Sequence[bytes]) -> list[Any]:
    """Return (args, kwargs) of each unit, or why they cannot be read."""
    arguments: list[Any] = []
    for data in units:
        try:
            arguments.append(pickle.loads(data))  # noqa: S301 - from our parent
        except BaseException as problem:  # an argument's own code may raise anything
            arguments.append(_Unreadable(problem))
    return arguments


class _Answers:
    """One half of the shared memory while one message's units run."""

    def __init__(self, pipe: Connection, shared: mmap, start: int, size: int, result_bytes: int) -> None:
        self._pipe, self._shared, self._start, self._result_bytes = pipe, shared, start, result_bytes
        # Room stays for the heads of all units to come.
        self._place, self._end = start + PROGRESS.size, start + size - ANSWER.size * UNITS_A_MESSAGE

    def serve(self, function: Callable[..., Any], arguments: Sequence[Any]) -> float:
        """
        Run one message's units; return the longest one's seconds.

        Whatever stands in this loop runs with cold caches after each unit, at several times its usual cost.
        """
        own, clock, longest_s = os.getpid(), time.monotonic, 0.0
        for answered, unit in enumerate(arguments):
            # The last value may die of its own end: then it is its unit that is still begun.
            value, problem = None, None
            started = clock()
            PROGRESS.pack_into(self._shared, self._start, answered + 1, answered, started)
            try:
                args, kwargs = unit if unit.__class__ is tuple else _raise(unit)
                value = function(*args, **kwargs)
            except BaseException as seen:  # also SystemExit and MemoryError: the process lives on
                problem = seen
            seconds = clock() - started
            if os.getpid() != own:
                os._exit(0)  # the detector forked, and its child came back here
            self._add(value, problem, seconds)
            longest_s = max(longest_s, seconds)
        PROGRESS.pack_into(self._shared, self._start, len(arguments), len(arguments), 0.0)
        return longest_s

    def _add(self, value: Any, problem: BaseException | None, seconds: float) -> None:
        """Write an answer."""
        code = 0
        try:
            body = pickle.dumps(value) if problem is None else b""
        except BaseException:  # a value's own code may raise anything
            body = b""
        if not body or len(body) > self._result_bytes:
            kind, body = _told(value, problem, self._result_bytes)
            code = KINDS.index(kind)
        head = self._place + ANSWER.size
        if head + len(body) > self._end:
            self._pipe.send_bytes(b"")  # announces the next message
            self._pipe.send_bytes(body)
            code, body = code + ELSEWHERE, b""
        ANSWER.pack_into(self._shared, self._place, code, len(body), seconds)
        self._place = head + len(body)
        self._shared[head : self._place] = body


def _raise(unit: _Unreadable) -> Any:
    raise unit.problem


def _told(value: Any, problem: BaseException | None, result_bytes: int) -> tuple[str, bytes]:
    """Return kind and bytes of an answer that is not simply a value."""
    try:
        body = _dumped(value if problem is None else problem, problem is not None)
        if len(body) <= result_bytes:
            return ("value" if problem is None else "error"), body
        return "untransferable", pickle.dumps(("size", f"it is {len(body)} bytes, more than {result_bytes}"))
    except BaseException as seen:
        kind, raised = ("untransferable", seen) if problem is None else ("foreign", problem)
        return kind, pickle.dumps((type(raised).__qualname__, _words(raised)))


def _peak_bytes() -> int:
    """Return the highest resident size; `ru_maxrss` would be that of the parent that we were forked from."""
    with contextlib.suppress(OSError, StopIteration, ValueError), Path("/proc/self/status").open("rb") as status:
        line = next(line for line in status if line.startswith(b"VmHWM:"))
        return int(line.split()[1]) * 1024
    return 0


def _dumped(value: Any, raised: bool) -> bytes:
    try:
        body = pickle.dumps(value)
    except Exception:
        import cloudpickle

        body = cloudpickle.dumps(value)
    if raised:
        pickle.loads(body)  # noqa: S301 - many exceptions can be pickled and never be read again
    return body


def _words(told: BaseException) -> str:
    try:
        return str(told)[:4000]
    except Exception:
        return "(its own words cannot be had)"


def _has_children() -> bool:
    """Tell whether processes that the detector began are still there; those that ended are reaped."""
    for _ in range(10_000):
        try:
            ended, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if ended == 0:
            return True
    return True


def _limit(memory_bytes: int, output_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes, output_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle


def _forget_output() -> None:
    with contextlib.suppress(OSError):
        if os.fstat(1).st_size > KEPT_OUTPUT_BYTES:
            os.ftruncate(1, 0)


def _bind_to_parent() -> None:
    """End with the parent even while the detector holds the interpreter lock; adopt what daemonises itself."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)


if __name__ == "__main__":
    sys.exit(main())
