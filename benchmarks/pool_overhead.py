"""
What the pool itself costs: each figure a ratio of interleaved runs, with sample size and 95 % interval.

    python -m benchmarks.pool_overhead [SOURCES] [--workers N] [--pairs N] [--kinds KIND...] [--full]

The rival of each run is a warm `ProcessPoolExecutor` with the same workers, whose chunk size is swept and the best
kept. A ratio of 1.01 is an overhead of 1 %. Work: processor-bound units calibrated to 1, 5, 20, 100 and 500 ms, and the
rules of the Power of Ten over the files below SOURCES. Equal processes differ in speed by a per cent or two, so each
pair has its own: both sides are started anew and warmed before it, and who goes first alternates. Threads share the
interpreter's lock, so against processes their ratio says what the lock costs, too. The steady part is what lies between
a fifth and four fifths of a run. Memory is measured in fresh processes: growth over the idle pool, and the whole. On a
machine that others use, the ratios are good for what they are, since both sides of a pair suffer alike; seconds and
shares of the processors are not. `--full` takes some 20 minutes on two processors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from detectors.benchmark_work import calibrated, findings_in, nothing, spin
from detectors.enterprise_detector_pool import EnterpriseDetectorPool, Isolation
from detectors.errors import DetectorPoolError
from detectors.measurement import mean_interval

UNIT_MS = (1, 5, 20, 100, 500)
CHUNKS = (1, 4, 16, 64, 256)
ISOLATIONS: tuple[Isolation, ...] = ("thread", "process", "dask")
DOORS = ("execute_parallel", "execute_adaptive")
SAMPLE_S, SAMPLES = 0.25, 10_000
"""Seldom, since the driver is looked at, too."""
MEMORY_COUNTS = (1_000, 10_000, 100_000, 1_000_000)
LARGEST_BYTES = 200_000
"""Larger files would decide alone."""
Config = tuple[str, tuple[Any, ...], dict[str, Any]]


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    workers: int
    pairs: dict[str, int]
    """By kind of isolation."""
    seconds: dict[str, float]
    """Of work on each side of a pair, on every worker."""
    files: int
    no_ops: int
    counts: tuple[int, ...]


class Load(msgspec.Struct, frozen=True):
    """What one figure is measured on."""

    title: str
    isolation: Isolation
    function: Callable[..., Any]
    calls: list[tuple[Any, ...]]


class Measured(msgspec.Struct, frozen=True):
    """One run: wall seconds, and processor seconds of this process and its children over wall times workers."""

    seconds: float
    busy: float
    steady: float
    """The same between a fifth and four fifths of the run; of the whole where that is too short to see."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a figure."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="pool_overhead", description=__doc__, formatter_class=shape)
    parser.add_argument("sources", nargs="?", type=Path, help="a tree of C and Python")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--kinds", nargs="+", choices=ISOLATIONS, default=ISOLATIONS)
    parser.add_argument("--full", action="store_true", help="longer work, more pairs, up to 1,000,000 executions")
    parser.add_argument("--memory", nargs=2, metavar=("DOOR", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        print(json.dumps(_memory(options.memory[0], int(options.memory[1]), options.workers)))
        return 0
    plan = _plan(options.workers, options.full, options.pairs)
    print(f"{plan.workers} workers, load average {os.getloadavg()[0]:.1f} at the start")
    for kind in options.kinds:
        try:
            _overheads(kind, plan, options.sources)
            _no_ops(kind, plan)
        except DetectorPoolError as problem:
            print(f"left out: isolation={kind!r}: {problem}")
    _at_once("process", plan)
    for door in ("stream", "list"):
        _memories(door, plan)
    print(f"load average {os.getloadavg()[0]:.1f} at the end")
    return 0


def _plan(workers: int, full: bool, pairs: int | None) -> Plan:
    many = {"thread": 2, "process": 8, "dask": 4} if full else {"thread": 2, "process": 4, "dask": 3}
    if pairs is not None:
        many = dict.fromkeys(ISOLATIONS, pairs)
    if full:
        return Plan(workers, many, {"thread": 1.0, "process": 1.5, "dask": 2.5}, 200, 100_000, MEMORY_COUNTS)
    return Plan(workers, many, dict.fromkeys(ISOLATIONS, 1.0), 100, 5_000, MEMORY_COUNTS[:2])


@contextlib.contextmanager
def _bare(workers: int) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(workers) as bare:
        list(bare.map(spin, [1_000] * 32 * workers))  # warm: every process is there
        yield bare


def _overheads(kind: Isolation, plan: Plan, sources: Path | None) -> None:
    for milliseconds in UNIT_MS:
        rounds = calibrated(milliseconds / 1_000)
        count = max(2 * plan.workers, round(plan.seconds[kind] * plan.workers * 1_000 / milliseconds))
        _compare(Load(f"{kind}, {milliseconds} ms units", kind, spin, [(rounds,)] * count), plan)
    if sources is None:
        print("left out: real detectors over real files (name a folder of sources)")
        return
    calls: list[tuple[Any, ...]] = list(_files(sources, plan.files))
    _compare(Load(f"{kind}, rules over {len(calls)} files", kind, findings_in, calls), plan)


def _files(sources: Path, most: int) -> Iterator[tuple[str, str]]:
    languages = {".c": "c", ".h": "c", ".py": "python"}
    found = sorted(
        path
        for path in sources.rglob("*")
        if path.suffix in languages and path.is_file() and path.stat().st_size <= LARGEST_BYTES
    )
    for path in found[:: max(1, len(found) // most)][:most]:
        yield str(path), languages[path.suffix]


def _compare(load: Load, plan: Plan) -> None:
    """Print the ratio of each door of the pool to the best bare run."""
    columns = list(zip(*load.calls, strict=True))
    configs: list[Config] = [("unit", call, {}) for call in load.calls]

    def rival(bare: ProcessPoolExecutor, chunk: int) -> Measured:
        return _timed(lambda: list(bare.map(load.function, *columns, chunksize=chunk)), plan.workers)

    with _bare(plan.workers) as bare:
        rival(bare, 1)  # a real detector loads its rules with the first call
        tried = {chunk: rival(bare, chunk).seconds for chunk in CHUNKS if chunk < len(load.calls) or chunk == 1}
    best = min(tried, key=lambda chunk: tried[chunk])
    ratios: dict[str, list[float]] = {door: [] for door in DOORS}
    measured: dict[str, list[Measured]] = {door: [] for door in DOORS}
    for number in range(plan.pairs[load.isolation]):
        with _bare(plan.workers) as bare, EnterpriseDetectorPool(max_workers=plan.workers) as pool:
            pool.register_detector("unit", load.function, isolation=load.isolation)
            rival(bare, best)
            _checked(pool.execute_parallel(configs))
            for door in DOORS:
                execute: Callable[..., Any] = getattr(pool, door)
                runs = [
                    partial(rival, bare, best),
                    partial(_timed, partial(_run_checked, execute, configs), plan.workers),
                ]
                seen = [run() for run in (runs if number % 2 else reversed(runs))]
                other, mine = seen if number % 2 else reversed(seen)
                ratios[door].append(mine.seconds / other.seconds)
                measured[door].append(mine)
    for door in DOORS:
        print(
            f"{load.title}: {door} over bare (chunks of {best}) {mean_interval(ratios[door]).told()}; "
            f"{len(load.calls)} units, "
            f"processors busy {fmean(one.busy for one in measured[door]):.0%}, "
            f"{fmean(one.steady for one in measured[door]):.1%} in the steady part",
            flush=True,
        )


def _no_ops(kind: Isolation, plan: Plan) -> None:
    with EnterpriseDetectorPool(max_workers=plan.workers) as pool:
        pool.register_detector("nothing", nothing, isolation=kind)
        configs: list[Config] = [("nothing", (number,), {}) for number in range(plan.no_ops)]
        _checked(pool.execute_parallel(configs))
        rates = [plan.no_ops / _timed(lambda: _checked(pool.execute_parallel(configs)), 1).seconds for _ in range(3)]
    print(
        f"{kind}: {fmean(rates):,.0f} no-op executions a second (3 runs of {plan.no_ops:,}, {min(rates):,.0f} at least)"
    )


def _mapped(bare: ProcessPoolExecutor, work: Sequence[int], chunk: int) -> list[Any]:
    return list(bare.map(spin, work, chunksize=chunk))


def _at_once(kind: Isolation, plan: Plan) -> None:
    rounds = calibrated(0.005)
    work = [rounds] * round(plan.seconds[kind] * plan.workers * 200)
    with _bare(plan.workers) as bare:
        tried = {chunk: _timed(partial(_mapped, bare, work, chunk), 1).seconds for chunk in CHUNKS}
    best = min(tried, key=lambda chunk: tried[chunk])
    for detectors in (1, 8, 32):
        ratios = [_ratio_of(kind, detectors, work, best, plan.workers) for _ in range(plan.pairs[kind])]
        print(
            f"{kind}, {detectors} detectors at once, 5 ms units: execute_parallel over bare (chunks of {best}) "
            f"{mean_interval(ratios).told()}; {len(work)} units",
            flush=True,
        )


def _ratio_of(kind: Isolation, detectors: int, work: list[int], chunk: int, workers: int) -> float:
    with _bare(workers) as bare, EnterpriseDetectorPool(max_workers=workers) as pool:
        for number in range(detectors):
            pool.register_detector(f"unit-{number}", spin, isolation=kind)
        configs: list[Config] = [(f"unit-{place % detectors}", (one,), {}) for place, one in enumerate(work)]
        _checked(pool.execute_parallel(configs))
        rival = _timed(lambda: list(bare.map(spin, work, chunksize=chunk)), workers)
        mine = _timed(lambda: _checked(pool.execute_parallel(configs)), workers)
    return mine.seconds / rival.seconds


def _checked(results: Sequence[Any]) -> None:
    failed = [result.error for result in results if result.error is not None]
    if failed:
        raise failed[0]


def _run_checked(door: Callable[..., Sequence[Any]], configs: Sequence[Any]) -> None:
    _checked(door(configs))


def _timed(run: Callable[[], Any], workers: int) -> Measured:
    samples: list[tuple[float, float]] = []
    over = threading.Event()
    # Looked for once: that takes longer than to read what they have used.
    processes = _processes()

    def sample() -> None:
        for _ in range(SAMPLES):
            samples.append((time.perf_counter(), _processor_s(processes)))
            if over.wait(SAMPLE_S):
                return

    sampler = threading.Thread(target=sample)
    processor_s, clock = _processor_s(processes), time.perf_counter()
    sampler.start()
    run()
    seconds = time.perf_counter() - clock
    spent_s = _processor_s(_processes()) - processor_s
    over.set()
    sampler.join()
    steady = [one for one in samples if 0.2 * seconds <= one[0] - clock <= 0.8 * seconds]
    busy = spent_s / (seconds * workers)
    if len(steady) < 2:
        return Measured(seconds, busy, busy)
    (first, before_s), (last, after_s) = steady[0], steady[-1]
    return Measured(seconds, busy, (after_s - before_s) / ((last - first) * workers))


def _processes() -> list[Any]:
    import psutil

    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _processor_s(processes: Sequence[Any]) -> float:
    import psutil

    used_s = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used_s += times.user + times.system
    return used_s


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
        pool.register_detector("nothing", nothing)
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
