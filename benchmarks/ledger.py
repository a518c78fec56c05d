"""
How fast the ledger writes, verifies and opens, beside the limits of the machine, in one run.

    python -m benchmarks.ledger [--records N] [--seconds S] [--folder DIR]

Appends stand beside bare writes with fdatasync of the same bytes, verification beside bare sha256 over as many records;
each pair is interleaved, and the ratio has a bootstrap interval of the mean of the pairs. The ledger that opening is
measured on grows to N records; the cost of a record is given by size. Processor seconds are told beside the clock's,
since a loaded machine stretches only the latter.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from compliance.ledger import Ledger
from compliance.ledger_verify import verify

PASSPHRASE = b"benchmark"
EVENT = {"type": "detector.executed", "detector": "power-of-ten-c", "input": "sha256:" + "0" * 64, "seconds": 0.25}
PAIRS = 5
RESAMPLES = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a measurement."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="ledger", description=__doc__, formatter_class=shape)
    parser.add_argument("--records", type=int, default=100_000, help="size to grow to (default 100000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run of a pair (default 1)")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured (default: a temporary folder here)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd()) as scratch:
        folder, keys = Path(scratch) / "ledger", Path(scratch) / "keys"
        Ledger.create(folder, keys, PASSPHRASE)
        for count in (1, 100):
            print(_appends(folder, keys, Path(scratch) / "bare", count, options.seconds), flush=True)
        for line in _growth(folder, keys, options.records):
            print(line, flush=True)
        print(_verification(folder))
    return 0


def _appends(folder: Path, keys: Path, bare: Path, count: int, seconds: float) -> str:
    """Compare commits of `count` records with writes of the same bytes and an fdatasync each."""
    events = [EVENT] * count
    with Ledger.open(folder, keys, PASSPHRASE) as ledger, bare.open("ab", buffering=0) as file:
        ledger.append_all(events)
        before = _bytes(folder)
        ledger.append_all(events)
        data = os.urandom(_bytes(folder) - before)

        def write() -> None:
            file.write(data)
            os.fdatasync(file.fileno())

        pairs = [(_rate(write, seconds), _rate(lambda: ledger.append_all(events), seconds)) for _ in range(PAIRS)]
    ratios = [own / limit for (limit, _), (own, _) in pairs]
    busy = _mean([cpu for _, (_, cpu) in pairs])
    low, high = _interval(ratios)
    return (
        f"commits of {count:3}: {_mean([own for _, (own, _) in pairs]) * count:9,.0f} records/s; "
        f"bare writes with fdatasync {_mean([limit for (limit, _), _ in pairs]):7,.0f}/s; ratio {_mean(ratios):.3f} "
        f"(95 % interval {low:.3f} to {high:.3f}, {PAIRS} pairs); "
        f"processor {busy * 1e6 / count:.1f} us a record, so at most {count / busy:,.0f} records/s"
    )


def _growth(folder: Path, keys: Path, records: int) -> list[str]:
    """Grow the ledger in commits of 1,000; measure cost a record and opening at several sizes."""
    lines = []
    events = [EVENT] * 1_000
    for size in [records // 8, records // 4, records // 2, records]:
        with Ledger.open(folder, keys, PASSPHRASE) as ledger:
            began, first = time.process_time(), ledger.size
            while ledger.size < size:
                ledger.append_all(events)
            added = ledger.size - first
            cost_us = (time.process_time() - began) / max(added, 1) * 1e6
        wall, cpu = _opening(folder, keys)
        lines.append(
            f"at {size:9,} records: processor {cost_us:.2f} us a record added; "
            f"opening {wall:.3f} s, processor {cpu:.3f} s"
        )
    return lines


def _opening(folder: Path, keys: Path) -> tuple[float, float]:
    """Return the best wall and processor seconds of three openings for appending."""
    samples = []
    for _ in range(3):
        began, cpu = time.perf_counter(), time.process_time()
        Ledger.open(folder, keys, PASSPHRASE).close()
        samples.append((time.perf_counter() - began, time.process_time() - cpu))
    return min(wall for wall, _ in samples), min(cpu for _, cpu in samples)


def _verification(folder: Path) -> str:
    """Compare verification by two processes with bare sha256 over chunks as long as a record, by as many."""
    size = verify(folder).records
    record_bytes = _bytes(folder) // size
    code = (
        "import hashlib, sys\nsize, length = map(int, sys.argv[1:])\ndata = bytes(length)\nsha256 = hashlib.sha256\n"
        "for _ in range(size):\n    sha256(data).digest()\n"
    )

    def bare() -> None:
        half = [sys.executable, "-c", code, str(size // 2), str(record_bytes)]
        for process in [subprocess.Popen(half) for _ in range(2)]:
            _ = process.wait()

    def own() -> None:
        assert verify(folder, processes=2).ok, "the ledger that was just written"

    pairs = [(_once(bare), _once(own)) for _ in range(PAIRS)]
    ratios = [limit / found for limit, found in pairs]
    low, high = _interval(ratios)
    began = time.process_time()
    assert verify(folder, processes=1).ok, "the ledger that was just written"
    cpu = time.process_time() - began
    return (
        f"verification of {size:,} records by two processes: "
        f"{size / _mean([found for _, found in pairs]):,.0f} records/s; "
        f"bare sha256 {size / _mean([limit for limit, _ in pairs]):,.0f}/s; "
        f"ratio {_mean(ratios):.3f} (95 % interval {low:.3f} to {high:.3f}, {PAIRS} pairs); "
        f"processor {cpu / size * 1e6:.2f} us a record, "
        f"so at most {2 * size / cpu:,.0f} records/s on two free processors"
    )


def _rate(work: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Return calls a second, and processor seconds a call."""
    began, cpu, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        work()
        calls += 1
    return calls / (time.perf_counter() - began), (time.process_time() - cpu) / calls


def _once(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    chooser = random.Random(0)
    means = sorted(_mean(chooser.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES)]


if __name__ == "__main__":
    raise SystemExit(main())
