"""
Real runs, recorded compactly, so that the simulator and the comparisons of planners replay durations that happened.

    python -m benchmarks.recorded_runs PATH... --name NAME --output FILE [--workers N]

Scans PATH with every detector that is installed on a local Dask cluster, without the cache, and writes one JSON file:
sizes, lines and languages of the files (no names), and for each batch its worker, start, seconds and files. Rules are
timed file by file. A tool is one process for a batch, so its batches are cut to between 1 and 128 files of about equal
size, that start and files can be told apart; a file's share of the batch is by bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from detectors.batch import BatchResult
from detectors.detector import Detector, RuleGroup, Tool, discover
from detectors.model import Analysed, Digest, Language, Root, SourceFile
from detectors.parallel_executor import DaskBackend, ParallelExecutor
from detectors.ports import open_cluster
from detectors.scan import Scan, ScanOptions
from detectors.workload_optimizer import Batch, BatchLimits, WorkloadOptimizer

__all__ = ["RecordedBatch", "RecordedFile", "RecordedRun", "Work", "executed", "load", "recorded", "work_of"]

ROUNDED = 5
"""Decimals of a second that are kept: shorter than any batch by orders, and the file stays small."""


class RecordedFile(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a file before it is analysed; its place in the list is its name."""

    size_bytes: int
    lines: int
    language: Language


class RecordedBatch(msgspec.Struct, frozen=True, array_like=True):
    """One batch as it ran."""

    stage: str
    detectors: tuple[str, ...]
    files: tuple[int, ...]
    worker: int
    start_s: float
    seconds: float
    unit_s: tuple[float, ...]
    """Seconds of each file where they were measured one by one; empty for a tool."""


class RecordedRun(msgspec.Struct, frozen=True):
    """A run as replayed."""

    name: str
    provenance: dict[str, str]
    workers: int
    makespan_s: float
    scores: dict[str, float]
    """Complexity score of each detector, as a run without a history has it."""
    limits: dict[str, BatchLimits]
    """By stage."""
    files: tuple[RecordedFile, ...]
    batches: tuple[RecordedBatch, ...]


class Work(msgspec.Struct, frozen=True):
    """One stage of real work: who runs on which files."""

    stage: str
    detectors: tuple[str, ...]
    limits: BatchLimits
    files: tuple[SourceFile, ...]


def load(path: Path) -> RecordedRun:
    """Read a recorded run; raises `msgspec.ValidationError` for anything else."""
    return msgspec.json.decode(path.read_bytes(), type=RecordedRun)


def work_of(paths: Sequence[Path]) -> tuple[tuple[Work, ...], tuple[Root, ...], dict[str, float]]:
    """Return what a scan of `paths` has to do, its roots, and the complexity score of each detector."""
    registry = discover()
    with Scan(ScanOptions(tuple(paths))) as scan:
        snapshot = scan.snapshot()
        stages = scan.plan()
    work = []
    for stage in stages:
        files = {file.path: file for batch in stage.batches for file in batch.files}
        detectors = [registry[name] for name in stage.detectors]
        if files:
            ordered = tuple(file for _, file in sorted(files.items()))
            work.append(Work(stage.name, stage.detectors, _limits(detectors), ordered))
    scores = {name: registry[name].complexity_score for one in work for name in one.detectors}
    return tuple(work), snapshot.roots, scores


def executed(
    batches: Sequence[Batch], roots: Sequence[Root], executor: ParallelExecutor
) -> tuple[list[tuple[Batch, BatchResult]], float]:
    """Run batches, longest first; return them with their results, and the seconds from start to the last result."""
    ordered = sorted(batches, key=lambda batch: (-batch.predicted_s, batch.name))
    clock = time.perf_counter()
    done = []
    for batch, result in executor.run_batches(ordered, tuple(root.path for root in roots)):
        if not isinstance(result, BatchResult):
            raise result
        done.append((batch, result))
    return done, time.perf_counter() - clock


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write the file."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="recorded_runs", description=__doc__, formatter_class=shape)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--name", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    work, roots, scores = work_of(options.paths)
    optimizer = WorkloadOptimizer()
    for name, score in scores.items():
        optimizer.register_detector(name, complexity_score=score)
    batches: list[Batch] = []
    for one in work:
        planned = optimizer.plan(one.stage, one.detectors, one.files, options.workers, one.limits)
        batches += _cut(planned) if one.limits.start_s else planned
    with open_cluster("local", options.workers) as client:
        executor = ParallelExecutor(DaskBackend(client, options.workers, "local"))
        started = time.time()
        done, makespan_s = executed(batches, roots, executor)
    run = recorded(
        options.name, work=work, roots=roots, done=done, started=started, makespan_s=makespan_s,
        workers=options.workers, scores=scores,
    )  # fmt: skip
    options.output.write_bytes(msgspec.json.encode(run) + b"\n")
    print(f"{len(run.files)} files, {len(run.batches)} batches, {makespan_s:.1f} s: {options.output.name}")
    return 0


def _cut(batches: Sequence[Batch]) -> list[Batch]:
    chooser = random.Random(0)
    parts = []
    for batch in batches:
        left = batch.files
        for number in range(len(batch.files)):
            if not left:
                break
            length = chooser.choice((1, 2, 8, 32, 128))
            share = batch.predicted_s * len(left[:length]) / len(batch.files)
            name = f"{batch.name}.{number}"
            parts.append(msgspec.structs.replace(batch, name=name, files=left[:length], predicted_s=share))
            left = left[length:]
    return parts


def recorded(
    name: str,
    *,
    work: Sequence[Work],
    roots: Sequence[Root],
    done: Sequence[tuple[Batch, BatchResult]],
    started: float,
    makespan_s: float,
    workers: int,
    scores: dict[str, float],
) -> RecordedRun:
    """Return finished batches as they are kept; files are numbered in the order of their paths."""
    known = {file.path: file for one in work for file in one.files}
    places = {path: place for place, path in enumerate(sorted(known))}
    workers_seen = {result.worker: 0 for _, result in done}
    numbers = {worker: number for number, worker in enumerate(sorted(workers_seen))}
    batches = []
    for batch, result in done:
        measured: dict[str, float] = dict.fromkeys((file.path for file in batch.files), 0.0)
        for outcome in result.outcomes:
            if isinstance(outcome, Analysed):
                measured[outcome.path] += outcome.seconds
        starts = any(one.stage == batch.stage and one.limits.start_s for one in work)
        unit_s = () if starts else tuple(round(seconds, ROUNDED) for seconds in measured.values())
        batches.append(
            RecordedBatch(
                batch.stage, batch.detectors, tuple(places[file.path] for file in batch.files), numbers[result.worker],
                round(result.started - started, 3), round(result.seconds, ROUNDED), unit_s,
            )
        )  # fmt: skip
    provenance = {
        "recorded": time.strftime("%Y-%m-%d", time.gmtime(started)),
        "sources": " ".join(sorted({path.split("/")[0] for path in known})),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": str(workers),
    }
    files = tuple(
        RecordedFile(known[path].size_bytes, _lines(roots, known[path]), known[path].language) for path in sorted(known)
    )
    limits = {one.stage: one.limits for one in work}
    return RecordedRun(name, provenance, workers, round(makespan_s, 3), scores, limits, files, tuple(batches))


def _lines(roots: Sequence[Root], file: SourceFile) -> int:
    return (Path(roots[file.root].path) / os.fsdecode(file.raw)).read_bytes().count(b"\n")


def _limits(detectors: Sequence[Detector]) -> BatchLimits:
    tools = [detector for detector in detectors if isinstance(detector, Tool)]
    if not tools:
        assert all(isinstance(detector, RuleGroup) for detector in detectors), "a detector is rules or a tool"
        return BatchLimits()
    return BatchLimits(min(tool.files_per_batch for tool in tools), sum(tool.start_s for tool in tools))


def source_file(number: int, file: RecordedFile) -> SourceFile:
    """Return a file of the replay, as the planner takes it."""
    return SourceFile(f"{number:07}", b"", 0, file.size_bytes, 0, 0, Digest(f"sha256:{number:064x}"), file.language)


if __name__ == "__main__":
    raise SystemExit(main())
