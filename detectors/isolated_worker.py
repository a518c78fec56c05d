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
        answers = _Answers(pipe, shared, number % 2 * half, half)
        longest_s, children = _serve(function, units, setup["result_bytes"], answers)
        served += len(units)
        # What an execution left running ends with this process; units that were sent and not begun run in another.
        last = children or served >= UNITS_A_PROCESS
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        read, written = (after.ru_inblock - before.ru_inblock) * 512, (after.ru_oublock - before.ru_oublock) * 512
        peak = _peak_bytes() if longest_s > WORTH_A_LOOK_S else 0
        pipe.send_bytes(pickle.dumps((cpu_s, peak, read, written, last)))
        if last:
            return 0
        _forget_output()
    return 0


class _Answers:
    """One half of the shared memory while one message's units run."""

    def __init__(self, pipe: Connection, shared: mmap, start: int, size: int) -> None:
        self._pipe, self._shared, self._start = pipe, shared, start
        self._place, self._end = start + PROGRESS.size, start + size
        self._answered = 0

    def begin(self) -> None:
        """Note that the next unit begins now."""
        PROGRESS.pack_into(self._shared, self._start, self._answered + 1, self._answered, time.monotonic())

    def add(self, kind: str, body: bytes, seconds: float) -> None:
        """Write the answer of the unit that was begun."""
        after = self._place + ANSWER.size + len(body)
        code = KINDS.index(kind)
        # Room stays for the heads of all units to come.
        if after + ANSWER.size * UNITS_A_MESSAGE > self._end:
            self._pipe.send_bytes(b"")  # announces the next message
            self._pipe.send_bytes(body)
            code, body, after = code + ELSEWHERE, b"", self._place + ANSWER.size
        ANSWER.pack_into(self._shared, self._place, code, len(body), seconds)
        self._shared[self._place + ANSWER.size : after] = body
        self._place = after
        self._answered += 1
        PROGRESS.pack_into(self._shared, self._start, self._answered, self._answered, 0.0)


def _serve(
    function: Callable[..., Any], units: Sequence[bytes], result_bytes: int, answers: _Answers
) -> tuple[float, bool]:
    """Run one message's units; return the longest one's seconds, and whether one left a process running."""
    own = os.getpid()
    longest_s = 0.0
    for data in units:
        answers.begin()
        kind, body, seconds = _execute(function, data, result_bytes)
        if os.getpid() != own:
            os._exit(0)  # the detector forked, and its child came back here
        answers.add(kind, body, seconds)
        longest_s = max(longest_s, seconds)
        if _has_children():
            return longest_s, True
    return longest_s, False


def _execute(function: Callable[..., Any], data: bytes, result_bytes: int) -> tuple[str, bytes, float]:
    """Return (kind, body, seconds)."""
    started = time.perf_counter()
    kind, body = "error", b""
    try:
        args, kwargs = pickle.loads(data)  # noqa: S301
        started = time.perf_counter()
        value = function(*args, **kwargs)
        kind = "value"
    except BaseException as problem:  # also SystemExit and MemoryError: the process lives on
        value = problem
    seconds = time.perf_counter() - started
    try:
        body = _dumped(value, kind)
        if len(body) > result_bytes:
            told = f"it is {len(body)} bytes, more than {result_bytes}"
            kind, body = "untransferable", pickle.dumps(("size", told))
    except BaseException as problem:
        kind = "foreign" if kind == "error" else "untransferable"
        raised = value if kind == "foreign" else problem
        body = pickle.dumps((type(raised).__qualname__, _words(raised)))
    value = None
    with contextlib.suppress(OSError, ValueError):  # over the limit, or closed by the detector
        sys.stdout.flush()
    return kind, body, seconds


def _peak_bytes() -> int:
    """Return the highest resident size; `ru_maxrss` would be that of the parent that we were forked from."""
    with contextlib.suppress(OSError, StopIteration, ValueError), Path("/proc/self/status").open("rb") as status:
        line = next(line for line in status if line.startswith(b"VmHWM:"))
        return int(line.split()[1]) * 1024
    return 0


def _dumped(value: Any, kind: str) -> bytes:
    try:
        body = pickle.dumps(value)
    except Exception:
        import cloudpickle

        body = cloudpickle.dumps(value)
    if kind == "error":
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
