"""Detectors that misbehave in every way known, each by name; run in processes of their own only."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectors.errors import ExecutionTimedOut, ForeignError, IsolatedCrash, NotTransferable


class Unreadable(Exception):
    """An exception that can be pickled and never be read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def good(n: int) -> int:
    """Return the square: what a healthy execution must always give."""
    return n * n


def raises() -> None:
    """Raise what travels."""
    raise ValueError("bad")


def raises_unreadable() -> None:
    """Raise what does not travel."""
    raise Unreadable(1, 2)


def hangs() -> None:
    """Never end."""
    time.sleep(3600)


def hangs_and_tells(pipe: str) -> None:
    """Write the own pid to a pipe, and never end."""
    with Path(pipe).open("w") as told:
        told.write(str(os.getpid()))
    time.sleep(3600)


def hangs_with_the_lock() -> None:
    """Never end, and never let another thread of the interpreter run."""
    pattern, text = r"(a+)+$", "a" * 64 + "b"
    import re

    re.match(pattern, text)


def forks() -> str:
    """Return twice."""
    os.fork()
    return "forked"


def leaves_a_process() -> int:
    """Begin a process that leaves the group and outlives the call."""
    return subprocess.Popen(["sleep", "3600"], start_new_session=True).pid


def eats_memory() -> int:
    """Ask for more than the limit."""
    return len(bytearray(8 << 30))


def segfaults() -> None:
    """Read address 0."""
    ctypes.string_at(0)


def exits() -> None:
    """Leave the interpreter at once."""
    os._exit(7)


def exits_politely() -> None:
    """Ask the interpreter to end."""
    sys.exit(3)


def kills_itself() -> None:
    """End by a signal that cannot be caught."""
    os.kill(os.getpid(), signal.SIGKILL)


def returns_a_generator() -> Any:
    """Return what cannot be pickled."""
    return (n for n in range(3))


def prints_megabytes() -> str:
    """Write far more than a pipe holds, to both outputs."""
    for stream in (sys.stdout, sys.stderr):
        stream.write("x" * 5_000_000)
        stream.flush()
    return "printed"


BAD: dict[Callable[[], Any], type[BaseException] | None] = {
    raises: ValueError,
    raises_unreadable: ForeignError,
    hangs: ExecutionTimedOut,
    hangs_with_the_lock: ExecutionTimedOut,
    forks: None,
    leaves_a_process: None,
    eats_memory: MemoryError,
    segfaults: IsolatedCrash,
    exits: IsolatedCrash,
    exits_politely: SystemExit,
    kills_itself: IsolatedCrash,
    returns_a_generator: NotTransferable,
    prints_megabytes: None,
}
"""Each with the error that its result must hold; `None` where it has a value."""
