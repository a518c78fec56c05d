"""
A ledger's writer that stops in the middle: killed from outside, or by a file layer that fails at a given call.

As a program it appends until it is killed: `python -m tests.faults.ledger_crashes FOLDER KEYS SEED`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from compliance.errors import LedgerUnwritable
from compliance.ledger import Disk, Ledger
from compliance.ledger_export import export
from compliance.ledger_retention import Keep
from compliance.ledger_verify import verify

PASSPHRASE = b"correct horse"
HOWS = ("crash", "short", "full", "no sync", "power")


class Crash(BaseException):
    """The process is gone; nothing after it runs."""


class FailingDisk(Disk):
    """Does what it is asked, until the call that it stops at; knows what would survive a loss of power."""

    def __init__(self, stop_at: int, how: str) -> None:
        self.calls, self._stop_at, self._how = 0, stop_at, how
        self._paths: dict[int, str] = {}
        self._durable_bytes: dict[str, int] = {}
        self._unlisted: set[str] = set()
        self._removed: dict[str, bytes] = {}
        self.dead = False

    def _stops(self) -> bool:
        if self.dead:
            raise Crash
        self.calls += 1
        return self.calls == self._stop_at

    def _stop(self) -> None:
        """After the call has been done, or half done."""
        if self._how in {"crash", "short", "power"}:
            self.dead = True
            raise Crash
        raise OSError(errno.ENOSPC if self._how == "full" else errno.EIO, os.strerror(errno.ENOSPC))

    def create(self, path: str) -> int:
        stops = self._stops()
        if stops and self._how == "full":
            self._stop()
        descriptor = super().create(path)
        self._paths[descriptor] = path
        self._durable_bytes[path] = 0
        self._unlisted.add(path)
        if stops:
            self._stop()
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        stops = self._stops()
        path = self._paths[descriptor]
        self._durable_bytes.setdefault(path, os.fstat(descriptor).st_size)
        part = data[: len(data) // 2] if stops and self._how != "crash" else data
        written = super().write(descriptor, part)
        if stops:
            self._stop()
        return written

    def sync(self, descriptor: int) -> None:
        if self._stops():
            self._stop()
        super().sync(descriptor)
        if descriptor in self._paths:
            self._durable_bytes[self._paths[descriptor]] = os.fstat(descriptor).st_size

    def sync_folder(self, path: str) -> None:
        if self._stops():
            self._stop()
        super().sync_folder(path)
        self._unlisted.clear()
        self._removed.clear()

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        if self.dead:
            raise Crash
        super().truncate(descriptor, size_bytes)

    def remove(self, path: str) -> None:
        stops = self._stops()
        if stops and self._how not in {"crash", "power"}:
            self._stop()
        if path not in self._unlisted:
            self._removed[path] = Path(path).read_bytes()
        super().remove(path)
        self._unlisted.discard(path)
        if stops:
            self._stop()

    def lose_power(self, chooser: random.Random) -> None:
        """Drop what was not made durable: all of it, or some."""
        for path, durable in self._durable_bytes.items():
            if not Path(path).exists():
                continue
            if path in self._unlisted and chooser.random() < 0.5:
                Path(path).unlink()
                continue
            size = Path(path).stat().st_size
            os.truncate(path, chooser.randint(min(durable, size), size))
        for path, content in self._removed.items():
            if chooser.random() < 0.5:
                _ = Path(path).write_bytes(content)


def start(folder: Path, keys: Path) -> None:
    """Make the ledger that writers are stopped at; small segments, so that many begin."""
    Ledger.create(folder, keys, PASSPHRASE, segment_records=6)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"event": f"before {number}"} for number in range(3)])


def calls_of_a_run(folder: Path, keys: Path) -> int:
    """Count the calls of a run that nothing stops."""
    disk = FailingDisk(0, "crash")
    _run(folder, keys, disk)
    return disk.calls


def _run(folder: Path, keys: Path, disk: FailingDisk) -> dict[int, str]:
    acknowledged: dict[int, str] = {}
    try:
        with Ledger.open(folder, keys, PASSPHRASE, disk=disk) as ledger:
            for turn, count in enumerate((1, 2, 1, 8, 1)):
                events = [f"turn {turn} event {number}" for number in range(count)]
                receipt = ledger.append_all([{"event": event} for event in events])
                acknowledged.update(zip(receipt.indices, events, strict=True))
    except (Crash, LedgerUnwritable):
        pass
    return acknowledged


def missed_after_a_stop(base: Path, keys: Path, scratch: Path, stop_at: int, how: str) -> str | None:
    """Stop a writer at a call; return what was not as it must be afterwards, or None."""
    folder = scratch / "ledger"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    disk = FailingDisk(stop_at, how)
    acknowledged = _run(folder, keys, disk)
    if how == "power":
        disk.lose_power(random.Random(stop_at))
    at_once = verify(folder, processes=1)
    expected = {"intact"} if how == "full" else {"intact", "recoverable"}
    if at_once.verdict not in expected:
        return f"{how} at call {stop_at}: {at_once}"
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        acknowledged[ledger.append({"event": "after"}).index] = "after"
    problem = held(folder, acknowledged)
    return None if problem is None else f"{how} at call {stop_at}: {problem}"


def start_retention(folder: Path, keys: Path) -> dict[int, str]:
    """Make a ledger of several segments; return its events."""
    Ledger.create(folder, keys, PASSPHRASE, segment_records=4)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        for number in range(9):
            _ = ledger.append_all([{"event": f"{number}.{part}"} for part in range(2)])
    return {number * 2 + part: f"{number}.{part}" for number in range(9) for part in range(2)}


def retain(folder: Path, keys: Path, disk: FailingDisk) -> dict[int, str]:
    """Release all but the last six records, and go on."""
    acknowledged: dict[int, str] = {}
    try:
        with Ledger.open(folder, keys, PASSPHRASE, disk=disk) as ledger:
            acknowledged[ledger.append({"event": "before"}).index] = "before"
            _ = ledger.retain(Keep(records=6))
            acknowledged[ledger.append({"event": "behind"}).index] = "behind"
    except (Crash, LedgerUnwritable):
        pass
    return acknowledged


def missed_after_a_stopped_retention(
    base: Path, keys: Path, events: dict[int, str], place: tuple[Path, int, str]
) -> str | None:
    """Stop a retention at a call; it must have been begun or not, and go on when the ledger is opened again."""
    scratch, stop_at, how = place
    folder = scratch / "ledger"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    disk = FailingDisk(stop_at, how)
    acknowledged = {**events, **retain(folder, keys, disk)}
    if how == "power":
        disk.lose_power(random.Random(stop_at))
    at_once = verify(folder, processes=1)
    if at_once.verdict not in {"intact", "recoverable"} or (at_once.first_index and at_once.released is None):
        return f"{how} at call {stop_at}: {at_once}"
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        acknowledged[ledger.append({"event": "after"}).index] = "after"
    after = verify(folder, processes=1)
    begins = at_once.released.records if at_once.released is not None else 0
    if after.first_index != begins:
        return f"{how} at call {stop_at}: it begins with {after.first_index}, and not with {begins}"
    problem = held(folder, {index: event for index, event in acknowledged.items() if index >= begins})
    return None if problem is None else f"{how} at call {stop_at}: {problem}"


def held(folder: Path, acknowledged: dict[int, str]) -> str | None:
    """Return what is wrong: an acknowledged event that is not where it was said to be, or one that is there twice."""
    verdict = verify(folder, passphrase=PASSPHRASE, processes=1)
    if verdict.verdict != "intact":
        return str(verdict)
    parts: list[bytes] = []
    export(folder, PASSPHRASE, parts.append)
    lines = [json.loads(line) for line in b"".join(parts).splitlines()]
    events = {line["index"]: line["event"].get("event") for line in lines if "ledger" not in line}
    lost = {index: event for index, event in acknowledged.items() if events.get(index) != event}
    twice = [event for event, count in Counter(events.values()).items() if count > 1]
    return f"lost {lost}, twice {twice}" if lost or twice else None


def kills(scratch: Path, seed: int, count: int) -> Iterator[str | None]:
    """Kill writers of one ledger at random moments, one after another; yield what was not as it must be, or None."""
    chooser = random.Random(seed)
    folder, keys = scratch / "killed", scratch / "killed-keys"
    start(folder, keys)
    acknowledged: dict[int, str] = {}
    command = [sys.executable, "-m", "tests.faults.ledger_crashes", str(folder), str(keys)]
    for number in range(count):
        writer = subprocess.Popen([*command, str(seed + number)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it is open, and has acknowledged a first commit
        deadline = time.monotonic() + chooser.uniform(0, 0.15)
        while time.monotonic() < deadline:
            lines.append(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        for line in lines:
            if line.endswith(b"\n"):
                index, event = line.decode().split(" ", 1)
                acknowledged[int(index)] = event.strip()
        verdict = verify(folder, processes=1)
        kept = verdict.verdict in {"intact", "recoverable"} and verdict.records > max(acknowledged)
        yield None if kept and writer.returncode == -signal.SIGKILL else f"kill {number}: {verdict}"
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        _ = ledger.recover()
    problem = held(folder, acknowledged)
    if problem is not None:
        yield problem


def main() -> None:
    """Append for ever, and say what was acknowledged."""
    folder, keys, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    chooser = random.Random(seed)
    serial = 0
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        while True:
            events = [f"{seed}.{serial + number}" for number in range(chooser.randint(1, 9))]
            serial += len(events)
            receipt = ledger.append_all([{"event": event, "text": "x" * chooser.randrange(3000)} for event in events])
            told = "".join(f"{index} {event}\n" for index, event in zip(receipt.indices, events, strict=True))
            os.write(1, told.encode())


if __name__ == "__main__":
    main()
