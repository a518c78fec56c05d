"""Faults that a soak injects: each is done to real processes and real files, and says what it hit."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from detectors.errors import UsageError

__all__ = ["FAULTS", "Fault", "Faults", "SmallVolume"]

HOLD_FULL_S = 2.0
"""For which the disk stays full."""
DAMAGED_PLACES = 24
DAMAGED_BYTES = 64
BLOCK_BYTES = 1 << 16
FIND_S = 3.0
"""For which somebody to kill is looked for."""


class Fault(msgspec.Struct, frozen=True):
    """One injected fault."""

    at_s: float
    """Seconds since the soak began."""
    time: str
    """UTC, ISO 8601."""
    kind: str
    what: str
    """What was hit, or why nothing was."""
    injected: bool


FAULTS = ("pool-process", "tool", "dask-worker", "scheduler", "disk-full", "cache-damage")
"""In the order in which they come by turns."""


class SmallVolume:
    """
    A folder on a file system of its own that is small; needs a mount namespace in which this process may mount.

    Args:
        folder: Empty; the file system lies over it.
        size_bytes: Of all its files.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        if size_bytes < BLOCK_BYTES:
            raise UsageError(f"a volume holds at least {BLOCK_BYTES} bytes, not {size_bytes}")
        self.folder, self.problem = folder, ""
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            self.problem = done.stderr.strip() if done.returncode else ""
        except OSError as problem:
            self.problem = str(problem)
        assert self.problem or os.path.ismount(folder), "what was mounted is there"

    def fill(self, hold_s: float) -> int:
        """
        Fill it, keep it full for some seconds, and empty it again; return how many bytes it took.

        Raises:
            UsageError: It is no file system of its own, so others would suffer.
        """
        if self.problem:
            raise UsageError(f"the disk is not filled: {self.problem}")
        filler, written = self.folder / "filler", 0
        try:
            with filler.open("wb", buffering=0) as opened:
                for _ in range(1 << 20):
                    try:
                        written += opened.write(bytes(BLOCK_BYTES))
                    except OSError as problem:
                        if problem.errno != errno.ENOSPC:
                            raise
                        break
            time.sleep(hold_s)
        finally:
            filler.unlink(missing_ok=True)
        assert written >= 0, "bytes"
        return written


class Faults:
    """
    Injects faults by turns.

    Args:
        targets: By kind of process, who may be killed now.
        volume: Filled by `disk-full`.
        caches: Files that `cache-damage` damages.
        seed: Of the choice of victims and places.
    """

    def __init__(
        self, targets: dict[str, Callable[[], Sequence[int]]], volume: SmallVolume, caches: Sequence[Path], seed: int
    ) -> None:
        unknown = set(targets) - set(FAULTS)
        if unknown:
            raise UsageError(f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
        self._targets, self._volume, self._caches = targets, volume, caches
        # Reproducible, and no secret.
        self._chooser = random.Random(seed)  # noqa: S311  # a reproducible sample, no secret
        self._began = time.monotonic()
        self.log: list[Fault] = []

    def inject(self, kind: str) -> Fault:
        """Inject one fault now, and log it."""
        at_s, now = time.monotonic() - self._began, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if kind == "disk-full":
            injected, what = self._fill()
        elif kind == "cache-damage":
            injected, what = self._damage()
        elif kind in self._targets:
            injected, what = self._kill(kind)
        else:
            raise UsageError(f"there is no fault {kind!r}; there are: {', '.join(FAULTS)}")
        fault = Fault(at_s, now, kind, what, injected)
        assert what, "a fault says what it hit"
        self.log.append(fault)
        return fault

    def _kill(self, kind: str) -> tuple[bool, str]:
        deadline = time.monotonic() + FIND_S
        for _ in range(int(FIND_S / 0.01)):
            victims = self._targets[kind]()
            if victims:
                victim = self._chooser.choice(list(victims))
                with contextlib.suppress(ProcessLookupError, psutil.Error):
                    words = [Path(word).name for word in psutil.Process(victim).cmdline()[:4]]
                    os.kill(victim, signal.SIGKILL)
                    return True, f"SIGKILL to {victim} ({' '.join(words)[:60]})"
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return False, "none was running"

    def _fill(self) -> tuple[bool, str]:
        try:
            written = self._volume.fill(HOLD_FULL_S)
        except UsageError as problem:
            return False, str(problem)
        assert written >= 0, "bytes"
        return True, f"{written} bytes filled the volume of the caches for {HOLD_FULL_S:g} s"

    def _damage(self) -> tuple[bool, str]:
        there = [file for file in self._caches if file.is_file() and file.stat().st_size]
        if not there:
            return False, "no cache was there"
        file = self._chooser.choice(there)
        # In place, as a failing disk does it: no rename, no truncation, others have it open.
        with contextlib.suppress(OSError), file.open("r+b", buffering=0) as opened:
            size_bytes = file.stat().st_size
            for _ in range(DAMAGED_PLACES):
                _ = opened.seek(self._chooser.randrange(size_bytes))
                _ = opened.write(self._chooser.randbytes(min(DAMAGED_BYTES, size_bytes)))
            return True, f"{DAMAGED_PLACES} places of {file.parent.name}/{file.name}, {size_bytes} bytes"
        return False, f"{file.name} could not be written"
