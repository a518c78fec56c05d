"""
The cluster that this machine started for this user: which process, known by number and start, and where it listens.

A process is ended only where its number, its start (ticks since boot) and the boot itself are those on record: numbers
are given again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from detectors.errors import ClusterError, FormatTooNew, UsageError

__all__ = ["ClusterRecord", "Place", "alive", "end", "process_start"]

VERSION = 1
END_S = 20.0
"""How long the processes of a cluster may take to end before they are killed."""
POLL_S = 0.05
BOOT = Path("/proc/sys/kernel/random/boot_id")
STATE, STARTED = 0, 19
"""Fields of /proc/PID/stat after the name: see proc_pid_stat(5)."""


class ClusterRecord(msgspec.Struct, frozen=True):
    """What is kept of a cluster that runs apart from who started it."""

    address: str
    """Of its scheduler."""
    pid: int
    """Of the process that leads its session: scheduler and nannies; workers are its children."""
    started_ticks: int
    boot: str
    log: str
    certificates: str
    """Folder of the certificates that it serves with."""
    version: int = VERSION


class Place:
    """
    Folder of the record, mode 0700; the record and the log are 0600.

    Args:
        folder: Made when missing.

    Raises:
        UsageError: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_absolute():
            raise UsageError(f"the folder of a cluster's record is named whole, not {folder}")
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise UsageError(f"{folder} cannot be made: {problem.strerror}") from problem
        self.file, self.log, self._lock = folder / "cluster.json", folder / "cluster.log", folder / "lock"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other `up` and `down` of this folder out; raises ClusterError where one is at work."""
        with os.fdopen(os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as problem:
                raise ClusterError(f"another command starts or ends the cluster of {self.file.parent}") from problem
            yield

    def read(self) -> ClusterRecord | None:
        """
        Return what is on record; `None` where nothing is.

        Raises:
            FormatTooNew: A newer release wrote it.
            ClusterError: It is damaged.
        """
        try:
            data = self.file.read_bytes()
        except FileNotFoundError:
            return None
        try:
            record = msgspec.json.decode(data, type=ClusterRecord)
        except msgspec.DecodeError as problem:
            raise ClusterError(f"{self.file} is damaged ({problem}); end its processes by hand and remove it") from None
        if record.version > VERSION:
            raise FormatTooNew(str(self.file), record.version, VERSION)
        return record

    def write(self, record: ClusterRecord) -> None:
        """Keep a record, whole or not at all."""
        assert record.pid > 1, "nobody starts the first process"
        draft = self.file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(msgspec.json.encode(record))
        draft.replace(self.file)

    def forget(self) -> None:
        """Remove the record of a cluster that has ended."""
        self.file.unlink(missing_ok=True)


def process_start(pid: int) -> tuple[int, str] | None:
    """Return when a process started (ticks since boot) and the boot; `None` where it is gone or only its exit is."""
    if pid < 1:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    assert len(fields) > STARTED, "the kernel tells all fields"
    if fields[STATE] in {"Z", "X"}:
        return None
    return int(fields[STARTED]), BOOT.read_text().strip()


def alive(record: ClusterRecord) -> bool:
    """Tell whether the process on record still is that process."""
    return process_start(record.pid) == (record.started_ticks, record.boot)


def end(record: ClusterRecord) -> str:
    """
    End the cluster on record, and nothing else.

    Returns:
        How it went: `ended`, `killed` where it had to be, or `gone` where it was not there any more.
    """
    if not alive(record):
        return "gone"
    assert record.pid != os.getpid(), "a command does not end itself"
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, signal.SIGTERM)
    if _gone_within(record, END_S):
        return "ended"
    # It leads a session of its own; its workers are in it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(record.pid, signal.SIGKILL)
    if not _gone_within(record, END_S):
        raise ClusterError(f"the process {record.pid} of the cluster {record.address} cannot be ended")
    return "killed"


def _gone_within(record: ClusterRecord, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if not alive(record):
            return True
        time.sleep(POLL_S)
    return not alive(record)
