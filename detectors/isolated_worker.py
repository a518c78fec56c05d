"""
The inside of an isolated process: one detector, one execution after the other, until its pipe is closed.

Run as a file by `detectors.process_isolation`, so that it starts without our packages; it imports the standard library
only, and what the detector's own function drags along.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

UNITS_A_PROCESS = 100_000
"""After which it is renewed, whatever the detector leaks."""
KEPT_OUTPUT_BYTES = 1 << 20
WORTH_A_LOOK_S = 0.001
"""Executions this short take little memory, and reading how much would cost more than they do."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    """Serve the pipe whose descriptor is the only argument."""
    pipe = Connection(int(sys.argv[1]))
    _bind_to_parent()
    faulthandler.enable()
    own = os.getpid()
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
    for left in reversed(range(UNITS_A_PROCESS)):
        try:
            data = pipe.recv_bytes()
        except (EOFError, OSError):
            return 0
        answer = _execute(function, data, setup["result_bytes"])
        if os.getpid() != own:
            os._exit(0)  # the detector forked, and its child came back here
        # What an execution left running ends with this process; the next unit, if one was sent, has not begun.
        last = left == 0 or _has_children()
        pipe.send_bytes(pickle.dumps((*answer, last)))
        if last:
            return 0
        _forget_output()
    return 0


def _execute(
    function: Callable[..., Any], data: bytes, result_bytes: int
) -> tuple[str, bytes, float, float, int, int, int]:
    """Return (kind, body, seconds, processor seconds, peak bytes, read bytes, written bytes)."""
    before = resource.getrusage(resource.RUSAGE_SELF)
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
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    read, written = (after.ru_inblock - before.ru_inblock) * 512, (after.ru_oublock - before.ru_oublock) * 512
    peak = _peak_bytes() if seconds > WORTH_A_LOOK_S else 0
    return kind, body, seconds, cpu_s, peak, read, written


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
