"""
What learning and stealing bring on this machine, each as a ratio of interleaved real runs.

    python -m benchmarks.balance plans PATH... [--pairs N] [--workers N]
    python -m benchmarks.balance recorded [--pairs N]
    python -m benchmarks.balance stealing [--pairs N] [--workers N]

`plans` scans PATH with every detector on a local Dask cluster, without the cache: once to learn, then in pairs with a
plan that takes every byte of every detector for the same time and with the learned one; the ratio is learned over by
size. Runs on a machine that others use differ by more than plans do, so both plans are also worked off, in the order of
the executor, on one set of durations: those measured in the runs by size, which the learned optimizer never saw. It
also prints what planning and learning cost of the processor time of the run. `recorded` works plans off on what real
detectors took in the recorded run, for 2 to 16 workers: each pair draws files anew, which no history knows; the rival
is told the sizes, and in a second comparison the tools' start-ups, too. `stealing` runs skewed work (most units short,
one in twenty forty times as long; units sleep, so that other programs disturb less) on two clusters, one with Dask's
work stealing and one without.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from benchmarks.recorded_runs import Work, executed, load, recorded, work_of
from benchmarks.simulation import (
    RUN,
    Durations,
    Machines,
    durations_of,
    learned_from,
    lower_bound_s,
    planned_by,
    simulated,
    work_at_scale,
)
from detectors.batch import BatchResult
from detectors.measurement import mean_interval
from detectors.model import Root
from detectors.parallel_executor import Call, DaskBackend, ParallelExecutor
from detectors.ports import open_cluster
from detectors.workload_optimizer import Batch, BatchLimits, WorkloadOptimizer

DRAWN_UNITS = 4_000
UNITS, SHORT_S, LONG_S, LONG_EVERY = 200, 0.01, 0.4, 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a figure."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="balance", description=__doc__, formatter_class=shape)
    parser.add_argument("what", choices=("plans", "recorded", "stealing"))
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.what == "stealing":
        _stealing(options.pairs, options.workers)
    elif options.what == "recorded":
        _recorded(options.pairs)
    elif options.paths:
        _plans(options.paths, options.pairs, options.workers)
    else:
        parser.error("plans needs a PATH")
    return 0


def _plans(paths: Sequence[Path], pairs: int, workers: int) -> None:
    work, roots, scores = work_of(paths)
    by_size = WorkloadOptimizer()
    learned = WorkloadOptimizer()
    for name, score in scores.items():
        learned.register_detector(name, complexity_score=score)
    blind = [_blind(one) for one in work]
    with open_cluster("local", workers) as client:
        executor = ParallelExecutor(DaskBackend(client, workers, "local"))
        _run(learned, work, workers, roots, executor)
        samples = []
        unseen: list[tuple[Batch, BatchResult]] = []
        for number in range(pairs):
            # The order within a pair alternates: whoever runs second finds warmer files.
            order = ("by size", "learned") if number % 2 else ("learned", "by size")
            seconds: dict[str, tuple[float, float, float, int]] = {}
            for policy in order:
                optimizer, mine = (by_size, blind) if policy == "by size" else (learned, list(work))
                seen = unseen if policy == "by size" else None
                seconds[policy] = _run(optimizer, mine, workers, roots, executor, unseen=seen)
            samples.append((seconds["learned"], seconds["by size"]))
    files = len({file.path for one in work for file in one.files})
    ratios = [mine[0] / other[0] for mine, other in samples]
    print(f"{files} files, {workers} workers: learned over by size {mean_interval(ratios).told()}")
    plans = {"learned": planned_by(learned, work, workers), "by size": planned_by(by_size, blind, workers)}
    _worked_off(plans, _durations(work, roots, unseen, workers, scores), work, workers)
    for place, policy in enumerate(("learned", "by size")):
        taken = [pair[place] for pair in samples]
        print(f"{policy}: {fmean(one[0] for one in taken):.1f} s in the mean, {taken[-1][3]} batches in the last run")
    shares = [mine[1] / mine[2] for mine, _ in samples]
    print(f"planning and learning: {fmean(shares):.4%} of a run's processor time, {max(shares):.4%} at most")
    stats = learned.get_optimization_stats()
    keys = ("scored", "mean_absolute_error_s", "size_only_error_s", "mean_only_error_s", "interval_coverage")
    print("prediction, before each batch was known: " + ", ".join(f"{key} {stats[key]:.3f}" for key in keys))


def _run(
    optimizer: WorkloadOptimizer,
    work: Sequence[Work],
    workers: int,
    roots: Sequence[Root],
    executor: ParallelExecutor,
    *,
    unseen: list[tuple[Batch, BatchResult]] | None = None,
) -> tuple[float, float, float, int]:
    """
    Return seconds, processor seconds of the optimizer and of everything, and the number of batches.

    Results go to `unseen`, where it is given, and are not learnt from.
    """
    before_s = _processor_s()
    clock = time.thread_time()
    batches: list[Batch] = []
    for one in work:
        batches += optimizer.plan(one.stage, one.detectors, one.files, workers, one.limits)
    spent_s = time.thread_time() - clock
    done, seconds = executed(batches, roots, executor)
    clock = time.thread_time()
    if unseen is None:
        _learn(optimizer, done)
    else:
        unseen += done
    spent_s += time.thread_time() - clock
    return seconds, spent_s, _processor_s() - before_s, len(batches)


def _durations(
    work: Sequence[Work],
    roots: Sequence[Root],
    done: Sequence[tuple[Batch, BatchResult]],
    workers: int,
    scores: dict[str, float],
) -> Durations:
    run = recorded(
        "measured", work=work, roots=roots, done=done, started=0.0, makespan_s=0.0, workers=workers, scores=scores
    )
    found = durations_of(run)
    paths = sorted({file.path for one in work for file in one.files})
    unit_s = {(name, paths[int(number)]): seconds for (name, number), seconds in found.unit_s.items()}
    return Durations(unit_s, found.start_s)


def _worked_off(plans: dict[str, list[Batch]], durations: Durations, work: Sequence[Work], workers: int) -> None:
    """Print the makespan of each plan on the same durations."""
    machines = Machines(workers)
    bound_s = lower_bound_s(work, durations, machines)
    makespans_s = {name: simulated(plan, durations, machines, bound_s).makespan_s for name, plan in plans.items()}
    print(
        "the plans on durations that neither saw: "
        + ", ".join(f"{name} {seconds:.2f} s ({len(plans[name])} batches)" for name, seconds in makespans_s.items())
        + f"; learned over by size {makespans_s['learned'] / makespans_s['by size']:.3f}; "
        f"no plan is under {bound_s:.2f} s"
    )


def _recorded(pairs: int) -> None:
    run = load(RUN)
    durations = durations_of(run)
    for workers in (2, 4, 8, 16):
        machines = Machines(workers)
        ratios: dict[str, list[float]] = {"by size": [], "by size, told the start-ups": []}
        for seed in range(pairs):
            work, drawn = work_at_scale(run, durations, DRAWN_UNITS, seed)
            bound_s = lower_bound_s(work, drawn, machines)
            mine_s = simulated(planned_by(learned_from(run), work, workers), drawn, machines, bound_s).makespan_s
            for told_starts, rival in zip((False, True), ratios.values(), strict=True):
                theirs = work if told_starts else [_blind(one) for one in work]
                plan = planned_by(WorkloadOptimizer(), theirs, workers)
                rival.append(mine_s / simulated(plan, drawn, machines, bound_s).makespan_s)
        for name, values in ratios.items():
            print(
                f"{workers} workers, {DRAWN_UNITS:,} units: learned over {name} {mean_interval(values).told()}",
                flush=True,
            )


def _blind(work: Work) -> Work:
    return Work(work.stage, work.detectors, BatchLimits(work.limits.files), work.files)


def _learn(optimizer: WorkloadOptimizer, done: Sequence[tuple[Batch, BatchResult]]) -> None:
    for batch, result in done:
        optimizer.observe_batch(batch, result.seconds, result.outcomes)


def _processor_s() -> float:
    """Return the processor seconds of this process, its workers, and the tools that those have waited for."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(one.user + one.system + one.children_user + one.children_system for one in times))


def _stealing(pairs: int, workers: int) -> None:
    import contextlib

    import dask
    import distributed  # noqa: F401  # loads its configuration, which a setting made before it would take away again

    chooser = random.Random(0)
    lengths = [LONG_S if number % LONG_EVERY == 0 else SHORT_S for number in range(UNITS)]
    chooser.shuffle(lengths)
    bound_s = max(sum(lengths) / workers, LONG_S)
    executors: dict[bool, ParallelExecutor] = {}
    with contextlib.ExitStack() as stack:
        for stealing in (True, False):
            with dask.config.set({"distributed.scheduler.work-stealing": stealing}):
                client: Any = stack.enter_context(open_cluster("local", workers))
            executors[stealing] = ParallelExecutor(DaskBackend(client, workers, "local"))
        seconds: dict[bool, list[float]] = {True: [], False: []}
        for number in range(pairs + 1):
            for stealing in (True, False) if number % 2 else (False, True):
                seconds[stealing].append(_slept(executors[stealing], lengths))
    # The first pair starts the workers' threads.
    ratios = [off / on for on, off in zip(seconds[True][1:], seconds[False][1:], strict=True)]
    print(
        f"{UNITS} units, {workers} workers, lower bound {bound_s:.2f} s: "
        f"with stealing {fmean(seconds[True][1:]):.2f} s, without {fmean(seconds[False][1:]):.2f} s; "
        f"without over with {mean_interval(ratios).told()}"
    )


def _slept(executor: ParallelExecutor, lengths: Sequence[float]) -> float:
    calls = [Call(f"sleep-{number}", time.sleep, (length,)) for number, length in enumerate(lengths)]
    clock = time.perf_counter()
    for result in executor.run(calls):
        if result.error is not None:
            raise result.error
    return time.perf_counter() - clock


if __name__ == "__main__":
    raise SystemExit(main())
