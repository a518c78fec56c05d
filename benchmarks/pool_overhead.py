"""
What the pool itself costs: each figure a ratio of interleaved runs, with sample size and 95 % interval.

    python -m benchmarks.pool_overhead [SOURCES] [--workers N] [--pairs N] [--full]

The rival of each run is a warm `ProcessPoolExecutor` with the same workers, whose chunk size is swept and the best
kept. A ratio of 1.01 is an overhead of 1 %. Work: processor-bound units calibrated to 1, 5, 20, 100 and 500 ms, and the
rules of the Power of Ten over the files below SOURCES. Threads share the interpreter's lock, so against processes
their ratio says what the lock costs, too. Kinds of isolation that this pool does not have are named and left out.
Memory is measured in fresh processes: growth over the idle pool, and the whole. On a machine that others use, the
ratios are good for what they are, since both sides of a pair suffer alike; seconds are not.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.intervals import mean, told
from benchmarks.pool_work import calibrated, findings_in, nothing, spin
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import DetectorPoolError

UNIT_MS = (1, 5, 20, 100, 500)
CHUNKS = (1, 4, 16, 64, 256)
ISOLATIONS = ("thread", "process", "dask")
MEMORY_COUNTS = (1_000, 10_000, 100_000, 1_000_000)
LARGEST_BYTES = 200_000
"""Larger files would decide alone."""
Config = tuple[str, tuple[Any, ...], dict[str, Any]]


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    workers: int
    pairs: int
    seconds: float
    """Of work on each side of a pair, shared by the workers."""
    files: int
    no_ops: int
    counts: tuple[int, ...]


class Load(msgspec.Struct, frozen=True):
    """What one figure is measured on."""

    title: str
    isolation: str
    function: Callable[..., Any]
    calls: list[tuple[Any, ...]]


class Measured(msgspec.Struct, frozen=True):
    """One run: wall seconds, and processor seconds of this process and its children over wall times workers."""

    seconds: float
    busy: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a figure."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="pool_overhead", description=__doc__, formatter_class=shape)
    parser.add_argument("sources", nargs="?", type=Path, help="a tree of C and Python")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--full", action="store_true", help="longer work, more pairs, up to 1,000,000 executions")
    parser.add_argument("--memory", nargs=2, metavar=("DOOR", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        print(json.dumps(_memory(options.memory[0], int(options.memory[1]), options.workers)))
        return 0
    pairs = options.pairs or (15 if options.full else 4)
    plan = (
        Plan(options.workers, pairs, 4.0, 400, 100_000, MEMORY_COUNTS)
        if options.full
        else Plan(options.workers, pairs, 1.0, 100, 5_000, MEMORY_COUNTS[:2])
    )
    print(f"{plan.workers} workers, load average {os.getloadavg()[0]:.1f} at the start")
    kinds = [kind for kind in ISOLATIONS if kind == "thread" or "isolation" in _keywords()]
    for kind in ISOLATIONS:
        if kind not in kinds:
            print(f"left out: this pool registers no detector with isolation={kind!r}")
    with ProcessPoolExecutor(plan.workers) as bare:
        list(bare.map(spin, [1_000] * 64))  # warm: every process is there
        for kind in kinds:
            try:
                _overheads(kind, plan, bare, options.sources)
                _no_ops(kind, plan)
            except DetectorPoolError as problem:
                print(f"left out: isolation={kind!r}: {problem}")
        _at_once(kinds[-1] if len(kinds) == 1 else "process", plan, bare)
    for door in ("stream", "list"):
        _memories(door, plan)
    return 0


def _keywords() -> frozenset[str]:
    return frozenset(inspect.signature(EnterpriseDetectorPool.register_detector).parameters)


def _register(pool: EnterpriseDetectorPool, name: str, function: Callable[..., Any], kind: str) -> None:
    extra: dict[str, Any] = {"isolation": kind} if "isolation" in _keywords() else {}
    pool.register_detector(name, function, **extra)


def _overheads(kind: str, plan: Plan, bare: ProcessPoolExecutor, sources: Path | None) -> None:
    for milliseconds in UNIT_MS:
        rounds = calibrated(milliseconds / 1_000)
        count = max(2 * plan.workers, round(plan.seconds * plan.workers * 1_000 / milliseconds))
        _compare(Load(f"{kind}, {milliseconds} ms units", kind, spin, [(rounds,)] * count), plan, bare)
    if sources is None:
        print("left out: real detectors over real files (name a folder of sources)")
        return
    calls: list[tuple[Any, ...]] = list(_files(sources, plan.files))
    _compare(Load(f"{kind}, rules over {len(calls)} files", kind, findings_in, calls), plan, bare)


def _files(sources: Path, most: int) -> Iterator[tuple[str, str]]:
    languages = {".c": "c", ".h": "c", ".py": "python"}
    found = sorted(
        path
        for path in sources.rglob("*")
        if path.suffix in languages and path.is_file() and path.stat().st_size <= LARGEST_BYTES
    )
    for path in found[:: max(1, len(found) // most)][:most]:
        yield str(path), languages[path.suffix]


def _compare(load: Load, plan: Plan, bare: ProcessPoolExecutor) -> None:
    """Print the ratio of each door of the pool to the best bare run."""
    columns = list(zip(*load.calls, strict=True))

    def rival(chunk: int) -> Measured:
        return _timed(lambda: list(bare.map(load.function, *columns, chunksize=chunk)), plan.workers)

    tried = {chunk: rival(chunk).seconds for chunk in CHUNKS}
    best = min(tried, key=lambda chunk: tried[chunk])
    with EnterpriseDetectorPool(max_workers=plan.workers) as pool:
        _register(pool, "unit", load.function, load.isolation)
        configs: list[Config] = [("unit", call, {}) for call in load.calls]
        for door in ("execute_parallel", "execute_adaptive"):
            execute: Callable[..., Any] = getattr(pool, door)
            _checked(execute(configs))
            ratios, busy = [], []
            for _ in range(plan.pairs):
                other = rival(best)
                mine = _timed(partial(_run_checked, execute, configs), plan.workers)
                ratios.append(mine.seconds / other.seconds)
                busy.append(mine.busy)
            print(
                f"{load.title}: {door} over bare (chunks of {best}) {told(ratios)}; {len(load.calls)} units, "
                f"processors busy {mean(busy):.0%}",
                flush=True,
            )


def _no_ops(kind: str, plan: Plan) -> None:
    with EnterpriseDetectorPool(max_workers=plan.workers) as pool:
        _register(pool, "nothing", nothing, kind)
        configs: list[Config] = [("nothing", (number,), {}) for number in range(plan.no_ops)]
        rates = [plan.no_ops / _timed(lambda: _checked(pool.execute_parallel(configs)), 1).seconds for _ in range(3)]
    print(
        f"{kind}: {mean(rates):,.0f} no-op executions a second (3 runs of {plan.no_ops:,}, {min(rates):,.0f} at least)"
    )


def _at_once(kind: str, plan: Plan, bare: ProcessPoolExecutor) -> None:
    rounds = calibrated(0.005)
    count = round(plan.seconds * plan.workers * 200)
    for detectors in (1, 8, 32):
        ratios = _ratios_of(kind, detectors, [rounds] * count, plan, bare)
        print(f"{kind}, {detectors} detectors at once, 5 ms units: over bare {told(ratios)}; {count} units", flush=True)


def _ratios_of(kind: str, detectors: int, rounds: list[int], plan: Plan, bare: ProcessPoolExecutor) -> list[float]:
    with EnterpriseDetectorPool(max_workers=plan.workers) as pool:
        for number in range(detectors):
            _register(pool, f"unit-{number}", spin, kind)
        configs: list[Config] = [(f"unit-{place % detectors}", (one,), {}) for place, one in enumerate(rounds)]
        _checked(pool.execute_parallel(configs))
        ratios = []
        for _ in range(plan.pairs):
            rival = _timed(lambda: list(bare.map(spin, rounds, chunksize=16)), plan.workers)
            mine = _timed(lambda: _checked(pool.execute_parallel(configs)), plan.workers)
            ratios.append(mine.seconds / rival.seconds)
    return ratios


def _checked(results: Sequence[Any]) -> None:
    failed = [result.error for result in results if result.error is not None]
    if failed:
        raise failed[0]


def _run_checked(door: Callable[..., Sequence[Any]], configs: Sequence[Any]) -> None:
    _checked(door(configs))


def _timed(run: Callable[[], Any], workers: int) -> Measured:
    processor_s, clock = _processor_s(), time.perf_counter()
    run()
    seconds = time.perf_counter() - clock
    return Measured(seconds, (_processor_s() - processor_s) / (seconds * workers))


def _processor_s() -> float:
    import psutil

    me = psutil.Process()
    times = [me.cpu_times()]
    for child in me.children(recursive=True):
        try:
            times.append(child.cpu_times())
        except psutil.NoSuchProcess:
            continue
    return float(sum(one.user + one.system for one in times))


def _memories(door: str, plan: Plan) -> None:
    for count in plan.counts:
        command = [sys.executable, "-m", "benchmarks.pool_overhead", "--workers", str(plan.workers)]
        done = subprocess.run([*command, "--memory", door, str(count)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"memory, {door}, {count:,}: failed: {done.stderr.strip().splitlines()[-1:]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"memory, {door}, {count:,} executions: {found['growth_mb']:.1f} MB over the idle pool, "
            f"{found['peak_mb']:.0f} MB in all; {count / found['seconds']:,.0f} a second",
            flush=True,
        )


def _memory(door: str, count: int, workers: int) -> dict[str, float]:
    """Run `count` no-ops in this process and return its peak; called in a process of its own."""
    with EnterpriseDetectorPool(max_workers=workers) as pool:
        _register(pool, "nothing", nothing, "thread")
        _checked(pool.execute_parallel([("nothing", (0,), {})] * 100))
        idle_mb = _peak_mb()
        clock = time.perf_counter()
        if door == "list":
            _checked(pool.execute_parallel([("nothing", (number,), {}) for number in range(count)]))
        else:
            results = pool.execute_stream(("nothing", (number,), {}) for number in range(count))
            seen = sum(result.error is None for result in results)
            assert seen == count, "an execution was lost"
        seconds = time.perf_counter() - clock
    return {"growth_mb": _peak_mb() - idle_mb, "peak_mb": _peak_mb(), "seconds": seconds}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


if __name__ == "__main__":
    raise SystemExit(main())
