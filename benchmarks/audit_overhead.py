"""
What `audit_mode` costs a pool: the same work with and without, by turns, on a ledger with fsync.

    python -m benchmarks.audit_overhead [--workers N] [--pairs N] [--seconds S]

A ratio of 1.01 is a cost of 1 %. Wall seconds are what a user waits; processor seconds (this process and its children)
say the same on a machine that others use. The audited side flushes before its clock stops: everything is durable then.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compliance.audit_sink import LedgerAuditSink
from compliance.run_trail import LedgerPlace
from detectors.benchmark_work import calibrated, nothing, spin
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.measurement import mean_interval

UNIT_MS = (5, 20)
EMPTY_UNITS = 20_000
ISOLATIONS = ("thread", "process")
Config = tuple[str, tuple[Any, ...], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of work a side, shared by the workers")
    options = parser.parse_args(arguments)
    print(f"{options.workers} workers, load average {os.getloadavg()[0]:.1f} at the start")
    beside = Path(".demo")  # a real disk: temporary folders may lie in memory
    beside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as scratch:
        place = LedgerPlace(Path(scratch) / "ledger", Path(scratch) / "keys", b"benchmark", create=True)
        _a_unit(options, place)
        for kind in ISOLATIONS:
            for milliseconds in UNIT_MS:
                _compare(kind, milliseconds, options, place)
    return 0


def _a_unit(options: argparse.Namespace, place: LedgerPlace) -> None:
    """Print the processor time that auditing adds to one execution, on executions that do nothing themselves."""
    configs: list[Config] = [("unit", (number,), {}) for number in range(EMPTY_UNITS)]
    sink = LedgerAuditSink(place)
    added = []
    with (
        EnterpriseDetectorPool(max_workers=options.workers) as plain,
        EnterpriseDetectorPool(max_workers=options.workers, audit_mode=True, audit_sink=sink) as audited,
    ):
        for pool in (plain, audited):
            pool.register_detector("unit", nothing)
            _ = pool.execute_parallel(configs[:1_000])
        for _ in range(options.pairs):
            used_s = [_timed(plain, configs, None)[1], _timed(audited, configs, sink)[1]]
            added.append((used_s[1] - used_s[0]) / EMPTY_UNITS * 1e6)
    sink.close()
    print(f"processor microseconds that auditing adds to an execution: {mean_interval(added).told()}", flush=True)


def _compare(kind: Any, milliseconds: int, options: argparse.Namespace, place: LedgerPlace) -> None:
    rounds = calibrated(milliseconds / 1_000)
    count = round(options.seconds * options.workers * 1_000 / milliseconds)
    configs: list[Config] = [("unit", (rounds,), {})] * count
    sink = LedgerAuditSink(place)
    walls, busies = [], []
    with (
        EnterpriseDetectorPool(max_workers=options.workers) as plain,
        EnterpriseDetectorPool(max_workers=options.workers, audit_mode=True, audit_sink=sink) as audited,
    ):
        for pool in (plain, audited):
            pool.register_detector("unit", spin, isolation=kind)
            _ = pool.execute_parallel(configs[: 4 * options.workers])
        for pair in range(options.pairs):
            sides = {}
            for pool in (plain, audited) if pair % 2 else (audited, plain):
                sides[pool is audited] = _timed(pool, configs, sink if pool is audited else None)
            walls.append(sides[True][0] / sides[False][0])
            busies.append(sides[True][1] / sides[False][1])
    sink.close()
    title = f"{kind}, {count} units of {milliseconds} ms"
    print(f"{title}: wall {mean_interval(walls).told()}; processor {mean_interval(busies).told()}", flush=True)


def _timed(pool: EnterpriseDetectorPool, configs: list[Config], sink: LedgerAuditSink | None) -> tuple[float, float]:
    busy_s, started = _busy_s(pool), time.perf_counter()
    results = pool.execute_parallel(configs)
    if sink is not None:
        sink.flush()
    seconds, used_s = time.perf_counter() - started, _busy_s(pool) - busy_s
    assert all(result.ok for result in results), "every unit of the measured work ends well"
    return seconds, used_s


def _busy_s(pool: EnterpriseDetectorPool) -> float:
    """Return processor seconds of this process and of a pool's own ones."""
    import psutil

    used = resource.getrusage(resource.RUSAGE_SELF)
    children = [psutil.Process(pid).cpu_times() for pid in pool.get_pool_metrics()["processes"]["pids"]]
    return used.ru_utime + used.ru_stime + sum(times.user + times.system for times in children)


if __name__ == "__main__":
    raise SystemExit(main())
