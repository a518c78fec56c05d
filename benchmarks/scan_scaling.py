"""
How much faster two workers are than one: a cold scan by the rules, on a local cluster.

    python -m benchmarks.scan_scaling PATH... [--pairs N] [--workers N]

Each sample is a process of its own with an empty cache that runs `power-of-ten-c,power-of-ten-python`. Runs with one
worker and with several are interleaved; each ratio's interval is a bootstrap of the mean of the pairs' ratios.
`command` is the wall time of the whole process, `execute` that of the stage (the cluster's start included), and `work`
from the first batch's begin to the last one's end. `busy` is the workers' share of that time spent in batches,
`driver` the processor seconds of the process that hands batches out and takes results in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from detectors.measurement import mean_interval

DETECTORS = ("power-of-ten-c", "power-of-ten-python")
PARTS = ("command", "execute", "work")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each number of workers, and one for each ratio."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="scan_scaling", description=__doc__, formatter_class=shape)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved runs of each (default 5)")
    parser.add_argument("--workers", type=int, default=2, help="compared with one (default 2)")
    parser.add_argument("--sample", action="store_true", help="run once with --workers, and print one JSON object")
    options = parser.parse_args(arguments)
    if options.sample:
        print(json.dumps(_sample(options.paths, options.workers)))
        return 0
    pairs = [(_run(options.paths, 1), _run(options.paths, options.workers)) for _ in range(options.pairs)]
    assert len({run["digest"] for pair in pairs for run in pair}) == 1, "all runs must find the same"
    for number, workers in enumerate((1, options.workers)):
        runs = [pair[number] for pair in pairs]
        seconds = ", ".join(f"{part} {fmean(run[part] for run in runs):.2f} s" for part in PARTS)
        busy, driver = (fmean(run[name] for run in runs) for name in ("busy", "driver"))
        first = runs[0]
        print(
            f"{workers} workers: {seconds}; busy {busy:.0%}, driver {driver:.2f} s of processor time; "
            f"{first['batches']} batches, {first['longest']:.2f} s the longest"
        )
    for part in PARTS:
        ratios = [one[part] / more[part] for one, more in pairs]
        print(f"{part}: how much faster {options.workers} workers are than one: {mean_interval(ratios).told()}")
    return 0


def _run(paths: Sequence[str], workers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scan_scaling", *paths, "--workers", str(workers), "--sample"]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    spent = time.perf_counter() - began
    found: dict[str, float] = json.loads(done.stdout)
    return {**found, "command": spent}


def _sample(paths: Sequence[str], workers: int) -> dict[str, float | str]:
    from detectors.scan import Scan, ScanOptions

    with tempfile.TemporaryDirectory() as folder:
        options = ScanOptions(
            tuple(Path(path) for path in paths), DETECTORS, "local", workers, Path(folder), ignore=False
        )
        with Scan(options) as steps:
            steps.snapshot()
            steps.plan()
            began, driver = time.perf_counter(), time.process_time()
            steps.execute_all()
            execute, driver = time.perf_counter() - began, time.process_time() - driver
            steps.reduce()
            run = steps.settle()
    work = max(item.start_s + item.seconds for item in run.batches) - min(item.start_s for item in run.batches)
    return {
        "execute": execute,
        "work": work,
        "busy": sum(item.seconds for item in run.batches) / (work * workers),
        "driver": driver,
        "batches": len(run.batches),
        "longest": max(item.seconds for item in run.batches),
        "digest": run.findings_digest,
    }


if __name__ == "__main__":
    raise SystemExit(main())
