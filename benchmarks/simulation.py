"""
The planner on workers that we do not have: a discrete-event simulation with durations replayed from a recorded run.

    python -m benchmarks.simulation [--run FILE] [--full] [--curve FILE]

The plan is made by `WorkloadOptimizer.plan` itself and worked off in the executor's order: longest predicted batch
first, each worker takes the next when it is free, a batch whose worker died is run again. Only seconds are replayed.
First the recorded run is simulated and held against what it really took. Then come workers and units by the thousand:
files are drawn from the recorded ones, some made larger (skew), some workers slower (stragglers), some die.

Policies: `learned` is an optimizer that saw the recorded run; `by size` one that takes every byte of every detector for
the same time; `random` equal numbers of files in random order. No schedule is shorter than the lower bound: the greater
of all seconds shared evenly and the longest single unit. Batches, not units, are events.
"""

from __future__ import annotations

import argparse
import collections
import random
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.recorded_runs import RecordedBatch, RecordedRun, Work, load, source_file
from detectors.model import Analysed, FileReport, SourceFile
from detectors.workload_optimizer import Batch, BatchLimits, WorkloadOptimizer

__all__ = [
    "RUN",
    "Durations",
    "Machines",
    "Simulated",
    "durations_of",
    "learned_from",
    "lower_bound_s",
    "matched",
    "planned_by",
    "simulated",
    "work_at_scale",
]

RUN = Path(__file__).parent / "runs" / "two_workers.json"
HAND_OVER_S = 0.002
"""What Dask takes a task on a local cluster, as measured for the design."""
SKEWED, SKEW_ALPHA, SKEW_LIMIT = 0.05, 1.1, 5.0
"""Share of the files made larger, by a Pareto law, at most so many times."""
LARGEST_BYTES = 1_000_000
"""Larger originals are not drawn: one of them would be the lower bound alone, and every policy would look perfect."""
SEED = 20_260_000


class Machines(msgspec.Struct, frozen=True):
    """The workers of a simulation."""

    workers: int
    stragglers: float = 0.0
    """Share of the workers that are three times as slow."""
    lost: float = 0.0
    """Share of the workers that die at a random moment of the ideal run; each is replaced after `restart_s`."""
    restart_s: float = 3.0

    @property
    def slow(self) -> int:
        """How many are stragglers."""
        return round(self.stragglers * self.workers)


class Durations(msgspec.Struct, frozen=True):
    """Seconds that were measured: of each (detector, file), and of a start of each stage."""

    unit_s: dict[tuple[str, str], float]
    start_s: dict[str, float]

    def batch_s(self, batch: Batch) -> float:
        """Return what a batch takes on a worker of usual speed."""
        units = self.unit_s
        return self.start_s.get(batch.stage, 0.0) + sum(
            units.get((name, file.path), 0.0) for name in batch.detectors for file in batch.files
        )


class Simulated(msgspec.Struct, frozen=True):
    """How a simulated run went."""

    makespan_s: float
    batches: int
    run_again: int
    lower_bound_s: float

    @property
    def ratio(self) -> float:
        """Makespan over lower bound; 1 cannot be beaten."""
        return self.makespan_s / self.lower_bound_s


def durations_of(run: RecordedRun) -> Durations:
    """
    Take a recorded run apart into starts and units.

    A tool's start is the mean of the quarter of its batches with the fewest bytes. What the others took beyond belongs
    to their files, by bytes; files of that quarter get the others' mean rate, since what its batches differ by is the
    noise of starting processes, which must not grow with the files when they are batched anew.
    """
    unit_s: dict[tuple[str, str], float] = {}
    start_s: dict[str, float] = {}
    by_stage: dict[str, list[RecordedBatch]] = collections.defaultdict(list)
    for batch in run.batches:
        by_stage[batch.stage].append(batch)
    for stage, batches in by_stage.items():
        timed, start_s[stage] = (batches, 0.0) if batches[0].unit_s else _told_apart(run, batches)
        for batch in timed:
            for number, seconds in zip(batch.files, batch.unit_s, strict=True):
                for name in batch.detectors:
                    unit_s[name, f"{number:07}"] = seconds / len(batch.detectors)
    return Durations(unit_s, start_s)


def _told_apart(run: RecordedRun, batches: Sequence[RecordedBatch]) -> tuple[list[RecordedBatch], float]:
    """Return a tool's batches with the seconds of their files, and the seconds of its start."""

    def weights(batch: RecordedBatch) -> list[int]:
        return [run.files[number].size_bytes + 1_000 for number in batch.files]

    ordered = sorted(batches, key=lambda batch: sum(weights(batch)))
    quarter = max(1, len(ordered) // 4)
    start_s = statistics.mean(batch.seconds for batch in ordered[:quarter])
    heavier = ordered[quarter:] or ordered
    rest_s = sum(max(batch.seconds - start_s, 0.0) for batch in heavier)
    rate = rest_s / sum(sum(weights(batch)) for batch in heavier)
    found = []
    for place, batch in enumerate(ordered):
        sizes = weights(batch)
        own_s = rate * sum(sizes) if place < quarter else max(batch.seconds - start_s, 0.0)
        found.append(msgspec.structs.replace(batch, unit_s=tuple(own_s * size / sum(sizes) for size in sizes)))
    return found, start_s


def learned_from(run: RecordedRun, *, remember_files: bool = True) -> WorkloadOptimizer:
    """Return an optimizer that saw every batch of a recorded run finish, in order."""
    optimizer = _optimizer(run.scores)
    for batch in sorted(run.batches, key=lambda batch: batch.start_s + batch.seconds):
        files = tuple(source_file(number, run.files[number]) for number in batch.files)
        planned = Batch(batch.stage, batch.stage, batch.detectors, files, 0.0, one_process=not batch.unit_s)
        outcomes = [
            Analysed(file.path, name, FileReport(), seconds)
            for name in batch.detectors
            for file, seconds in zip(files, batch.unit_s, strict=bool(batch.unit_s))
        ]
        if remember_files:
            optimizer.observe_batch(planned, batch.seconds, outcomes)
        else:
            size = sum(file.size_bytes for file in files)
            for name in batch.detectors:
                optimizer.observe(
                    name, size, batch.seconds / len(batch.detectors), language=files[0].language, files=len(files)
                )
    return optimizer


def planned_by(optimizer: WorkloadOptimizer, work: Sequence[Work], workers: int) -> list[Batch]:
    """Return the batches of all stages in the executor's order."""
    batches: list[Batch] = []
    for one in work:
        batches += optimizer.plan(one.stage, one.detectors, one.files, workers, one.limits)
    return sorted(batches, key=lambda batch: (-batch.predicted_s, batch.name))


def planned_at_random(work: Sequence[Work], workers: int, chooser: random.Random) -> list[Batch]:
    """Return as many batches of equal numbers of files as guided self-scheduling makes, in random order."""
    batches = []
    for one in work:
        files = list(one.files)
        chooser.shuffle(files)
        length = max(1, min(one.limits.files, len(files) // (8 * workers)))
        for start in range(0, len(files), length):
            part = tuple(files[start : start + length])
            batches.append(Batch(f"{one.stage}-{start}", one.stage, one.detectors, part, 0.0))
    chooser.shuffle(batches)
    return batches


def simulated(
    batches: Sequence[Batch], durations: Durations, machines: Machines, bound_s: float, seed: int = SEED
) -> Simulated:
    """
    Work batches off in their order.

    Args:
        batches: As planned.
        durations: What each takes.
        machines: Who does it.
        bound_s: The lower bound; the moments of death are drawn within it.
        seed: Of the speeds and deaths.
    """
    import simpy

    chooser = random.Random(seed)
    environment = simpy.Environment()
    queue = collections.deque(batches)
    ended_s = [0.0]
    again = [0]
    parked: list[Any] = []

    def worker(speed: float, dies_s: float | None) -> Generator[Any, Any, Any]:
        while True:
            if not queue:
                if ended_s[0] >= len(batches):
                    return
                waiting = environment.event()
                parked.append(waiting)
                yield waiting
                continue
            batch = queue.popleft()
            seconds = durations.batch_s(batch) * speed + HAND_OVER_S
            if dies_s is not None and environment.now + seconds > dies_s:
                yield environment.timeout(max(dies_s - environment.now, 0.0))
                dies_s = None
                again[0] += 1
                queue.appendleft(batch)
                if parked:
                    parked.pop().succeed()
                yield environment.timeout(machines.restart_s)
                continue
            yield environment.timeout(seconds)
            ended_s[0] += 1
            if ended_s[0] >= len(batches):
                for waiting in parked:
                    waiting.succeed()
                parked.clear()
                finished.succeed()

    finished = environment.event()
    slow, dying = machines.slow, round(machines.lost * machines.workers)
    deaths = set(chooser.sample(range(machines.workers), dying))
    for number in range(machines.workers):
        dies_s = chooser.uniform(0, bound_s) if number in deaths else None
        environment.process(worker(3.0 if number < slow else 1.0, dies_s))
    environment.run(until=finished)
    return Simulated(float(environment.now), len(batches), again[0], bound_s)


def lower_bound_s(work: Sequence[Work], durations: Durations, machines: Machines) -> float:
    """Return the greater of all units shared by the workers' speeds, and the longest unit."""
    total_s = longest_s = 0.0
    for one in work:
        for file in one.files:
            seconds = sum(durations.unit_s.get((name, file.path), 0.0) for name in one.detectors)
            total_s += seconds
            longest_s = max(longest_s, seconds)
    return max(total_s / (machines.workers - machines.slow * 2 / 3), longest_s)


def recorded_work(run: RecordedRun) -> tuple[Work, ...]:
    """Return what the recorded run had to do."""
    numbers: dict[tuple[str, tuple[str, ...]], set[int]] = collections.defaultdict(set)
    for batch in run.batches:
        numbers[batch.stage, batch.detectors].update(batch.files)
    return tuple(
        Work(stage, names, run.limits[stage], tuple(source_file(number, run.files[number]) for number in sorted(files)))
        for (stage, names), files in sorted(numbers.items())
    )


def work_at_scale(
    run: RecordedRun, durations: Durations, units: int, seed: int = SEED
) -> tuple[tuple[Work, ...], Durations]:
    """
    Draw files from the recorded ones until there are `units` units; a share of them is made larger.

    A drawn file takes what its original took, times its growth, times a log-normal factor (sigma 0.2): two files of a
    size are not alike. Its path is its own, so that no optimizer remembers it.
    """
    chooser = random.Random(seed)
    stages = recorded_work(run)
    by_file: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for place, one in enumerate(stages):
        for file in one.files:
            by_file[file.path] += [(place, name) for name in one.detectors]
    originals = [
        source_file(number, file)
        for number, file in enumerate(run.files)
        if by_file[f"{number:07}"] and file.size_bytes <= LARGEST_BYTES
    ]
    files: list[list[SourceFile]] = [[] for _ in stages]
    unit_s: dict[tuple[str, str], float] = {}
    count = number = 0
    for number in range(units):
        if count >= units:
            break
        original = chooser.choice(originals)
        grown = min(chooser.paretovariate(SKEW_ALPHA), SKEW_LIMIT) if chooser.random() < SKEWED else 1.0
        path = f"drawn/{number:07}"
        file = msgspec.structs.replace(original, path=path, size_bytes=int(original.size_bytes * grown))
        for place, name in by_file[original.path]:
            unit_s[name, path] = durations.unit_s[name, original.path] * grown * chooser.lognormvariate(0, 0.2)
            count += 1
            if not files[place] or files[place][-1] is not file:
                files[place].append(file)
    work = tuple(msgspec.structs.replace(one, files=tuple(files[place])) for place, one in enumerate(stages))
    return work, Durations(unit_s, durations.start_s)


def _optimizer(scores: dict[str, float] | None = None, names: Sequence[str] = ()) -> WorkloadOptimizer:
    optimizer = WorkloadOptimizer()
    for name, score in (scores or dict.fromkeys(names, 1.0)).items():
        optimizer.register_detector(name, complexity_score=score)
    return optimizer


def _policies(run: RecordedRun, work: Sequence[Work], workers: int) -> dict[str, Callable[[], list[Batch]]]:
    blind = [msgspec.structs.replace(one, limits=BatchLimits(one.limits.files)) for one in work]
    return {
        "learned": lambda: planned_by(learned_from(run), work, workers),
        "by size": lambda: planned_by(_optimizer(names=tuple(run.scores)), blind, workers),
        "random": lambda: planned_at_random(work, workers, random.Random(SEED)),
    }


def matched(run: RecordedRun) -> Simulated:
    """Simulate the recorded run itself: its own batches in the order in which they began."""
    plan = [
        Batch(batch.stage, batch.stage, batch.detectors, tuple(source_file(n, run.files[n]) for n in batch.files), 0.0)
        for batch in sorted(run.batches, key=lambda batch: batch.start_s)
    ]
    return simulated(plan, durations_of(run), Machines(run.workers), run.makespan_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the match and the table; draw the curve."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__, formatter_class=shape)
    parser.add_argument("--run", type=Path, default=RUN, help="recorded run (default: the one that is kept)")
    parser.add_argument("--full", action="store_true", help="1,000,000 units instead of 100,000")
    parser.add_argument("--curve", type=Path, help="where to draw makespan over lower bound against workers")
    options = parser.parse_args(arguments)
    run = load(options.run)
    again_s = matched(run).makespan_s
    print(
        f"{run.name}: {len(run.files)} files, {len(run.batches)} batches, {run.workers} workers; "
        f"real {run.makespan_s:.1f} s, simulated {again_s:.1f} s, error {again_s / run.makespan_s - 1:+.1%}"
    )
    units = 1_000_000 if options.full else 100_000
    clock = time.perf_counter()
    durations = durations_of(run)
    work, drawn = work_at_scale(run, durations, units)
    counted = sum(len(one.files) * len(one.detectors) for one in work)
    print(f"{counted:,} units drawn in {time.perf_counter() - clock:.0f} s")
    curve = _table(run, work, drawn, units // 1_000)
    if options.curve:
        _draw(curve, counted, options.curve)
    return 0


def _table(
    run: RecordedRun, work: Sequence[Work], durations: Durations, most: int
) -> dict[str, list[tuple[int, float]]]:
    print(
        f"{'workers':>8} {'machines':28} {'policy':8} {'batches':>8} {'again':>6} {'makespan s':>11} {'over bound':>10}"
    )
    curve: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    for workers in sorted({max(4, most // 30), max(8, most // 10), max(16, most // 3), most}, reverse=True):
        kinds = {"alike": Machines(workers)}
        if workers == most:
            kinds["5 % three times slower"] = Machines(workers, stragglers=0.05)
            kinds["10 % die once"] = Machines(workers, lost=0.1)
        for policy, plan in _policies(run, work, workers).items():
            batches = plan()
            for kind, machines in kinds.items():
                bound_s = lower_bound_s(work, durations, machines)
                found = simulated(batches, durations, machines, bound_s)
                if kind == "alike":
                    curve[policy].append((workers, found.ratio))
                print(
                    f"{workers:8} {kind:28} {policy:8} {found.batches:8} {found.run_again:6} "
                    f"{found.makespan_s:11.1f} {found.ratio:10.3f}",
                    flush=True,
                )
    return curve


def _draw(curve: dict[str, list[tuple[int, float]]], units: int, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "simulation"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for policy, points in curve.items():
        axes.plot([workers for workers, _ in points], [ratio for _, ratio in points], marker="o", label=policy)
    axes.set(xscale="log", xlabel="workers", ylabel="makespan over lower bound", title=f"{units:,} units")
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.legend()
    figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
