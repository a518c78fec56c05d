"""Benchmark: how many executions a second, how much of the processors and of memory, how much a cache answers."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import psutil

from detectors.claims.overhead import busy_seconds
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.file_work import FileCall, file_findings, source_files
from detectors.measurement import mean_interval
from detectors.memory_leaks import Trial, tried_apart
from detectors.model import RunRecord
from detectors.ports import Figure, Workplace
from detectors.scan import ScanOptions, scan

__all__ = ["AnswersFromTheCache", "ManyASecond", "MemoryStaysFlat", "UsesTheProcessors"]

RATE_AIM, RATE_CALLS, RATE_RUNS = 20_000, 20_000, 5
BUSY_AIM_PER_CENT = 95.0
MEMORY_AIM_MB = 300.0
MEMORY_TRIAL = Trial(executions=60_000, blocks=30)
HIT_AIM_PER_CENT = 99.0
SCANNED = ("power-of-ten-c", "power-of-ten-python", "ruff")


def nothing(number: int) -> int:
    """Return what it is given: what is left is the pool's own time."""
    return number


class ManyASecond:
    """Executions that do nothing, in process."""

    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "20,000 and more executions a second in process"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Time calls of a function that does nothing, after one run to warm up."""
        calls: list[DetectorConfig] = [("nothing", (number,), {}) for number in range(RATE_CALLS)]
        rates = []
        with EnterpriseDetectorPool(max_workers=workplace.workers) as pool:
            pool.register_detector("nothing", nothing)
            for _ in range(RATE_RUNS + 1):
                clock = time.perf_counter()
                results = pool.execute_parallel(calls)
                rates.append(len(calls) / (time.perf_counter() - clock))
                if any(result.value != number for number, result in enumerate(results)):
                    raise UsageError("an execution that does nothing came back with another value")
        found = mean_interval(rates[1:])
        assert found.samples == RATE_RUNS, "the first run only warms up"
        told = f"{RATE_CALLS:,} calls of a function that returns its argument, {RATE_RUNS} runs"
        yield Figure(
            "no-op executions", found.estimate, "a second", RATE_AIM, "at least", found.samples, found.low, found.high,
            told,
        )  # fmt: skip


class UsesTheProcessors:
    """Under load, what others leave of the processors is used."""

    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "95 % of the processors are used under load"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Run the rules over real files in isolated processes; count processor time over time there was."""
        files = source_files(workplace.sources, workplace.files)
        with EnterpriseDetectorPool(max_workers=workplace.workers) as pool:
            pool.register_detector("rules", file_findings, isolation="process")
            calls: list[DetectorConfig] = [("rules", file, {}) for file in files]
            clock = time.perf_counter()
            _ = pool.execute_parallel(calls)  # every process is there
            once_s = time.perf_counter() - clock
            calls *= max(1, round(2 * workplace.side_s / once_s))
            shares = [_share(pool, calls, workplace.workers) for _ in range(max(2, workplace.pairs // 2))]
        found = mean_interval(shares)
        assert found.estimate > 0, "work takes processor time"
        told = f"{len(calls)} runs of the rules on real files; what others used is not counted as there"
        yield Figure(
            "processors used", found.estimate, "%", BUSY_AIM_PER_CENT, "at least", found.samples, found.low,
            found.high, told,
        )  # fmt: skip


def _share(pool: EnterpriseDetectorPool, calls: Sequence[DetectorConfig], workers: int) -> float:
    """Return per cent of the processor time that was used by us, of what others left of `workers` processors."""
    if workers < 1 or not calls:
        raise UsageError("shares are of work on at least one processor")
    machine, own_s, clock = _machine_busy_s(), busy_seconds(), time.perf_counter()
    _ = pool.execute_parallel(calls)
    wall_s = time.perf_counter() - clock
    own_s, machine_s = busy_seconds() - own_s, _machine_busy_s() - machine
    assert wall_s > 0, "work takes time"
    spare = (psutil.cpu_count() or workers) - workers
    others_s = max(0.0, machine_s - own_s - spare * wall_s)
    # Ticks of a hundredth of a second may make it a little more than all there was.
    return min(100.0, 100 * own_s / max(wall_s * workers - others_s, 1e-3))


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    busy_s = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
    assert busy_s > 0, "a machine that runs this was busy"
    return float(busy_s)


class MemoryStaysFlat:
    """The driver's memory is bounded, and does not grow with executions."""

    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "less than 300 MB in the driver, flat over executions"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Run executions of every kind in a fresh interpreter, and look at its memory after each block."""
        if not workplace.folder.is_dir():
            raise UsageError(f"{workplace.folder} is no folder to work in")
        seen = tried_apart(MEMORY_TRIAL)
        assert seen.executions == MEMORY_TRIAL.executions, "all ran"
        told = f"{seen.executions:,} executions of every kind in a fresh interpreter"
        yield Figure(
            "resident memory of the driver", seen.resident.last_bytes / 1e6, "MB", MEMORY_AIM_MB, "at most", 1,
            method=told,
        )  # fmt: skip
        yield Figure(
            "sources of memory that leak", float(seen.resident.leaks), "", 0, "at most", seen.resident.readings,
            method=f"{told}; {seen.resident}",
        )  # fmt: skip


class AnswersFromTheCache:
    """What did not change is not analysed again."""

    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "what did not change is answered by the cache, and nothing else differs"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Scan a copy of real files cold, warm, with other workers, and after an edit of 1 % of them."""
        tree = workplace.folder / "tree"
        files = _copied(source_files(workplace.sources, workplace.files), tree)
        options = ScanOptions((tree,), SCANNED, "inline", workplace.workers, workplace.folder / "results", ignore=False)
        cold = scan(options)
        alone = scan(ScanOptions((tree,), SCANNED, "inline", 1, ignore=False))
        same = int(cold.findings_digest == alone.findings_digest and cold.whole and alone.whole)
        yield Figure("equal findings of other workers and cache", same, "", 1, "at least", 1,
                     method=f"{len(files)} files, {len(cold.findings)} findings, {cold.planned} units")  # fmt: skip
        yield _hits("answered by the cache, nothing edited", scan(options), 100.0)
        edited = files[:: max(1, len(files) // max(1, len(files) // 100))][: max(1, len(files) // 100)]
        for file in edited:
            with file.open("ab") as opened:
                _ = opened.write(b"\n")
        after = scan(options)
        assert after.whole, "an edit leaves nothing without an answer"
        names = {file.name for file in edited}
        changed = sum(unit.path.rpartition("/")[2] in names for unit in after.units)
        aim = min(HIT_AIM_PER_CENT, 100 * (1 - changed / after.planned))
        yield _hits(f"answered by the cache, {len(edited)} of {len(files)} files edited", after, aim)
        fresh = scan(ScanOptions((tree,), SCANNED, "inline", workplace.workers, ignore=False))
        yield Figure("equal findings of that and a cold run", int(fresh.findings_digest == after.findings_digest), "",
                     1, "at least", 1)  # fmt: skip


def _copied(files: Sequence[FileCall], tree: Path) -> list[Path]:
    tree.mkdir()
    copies = []
    for number, (path, _) in enumerate(files):
        copy = tree / f"{number:04}-{Path(path).name}"
        _ = shutil.copyfile(path, copy)
        copies.append(copy)
    assert len(copies) == len(files), "each has its copy"
    return copies


def _hits(what: str, run: RunRecord, aim: float) -> Figure:
    if run.planned < 1:
        raise UsageError("nothing was planned, so nothing can be said of the cache")
    assert run.cached <= run.planned, "a unit is answered once"
    return Figure(what, 100 * run.cached / run.planned, "%", aim, "at least", run.planned)
