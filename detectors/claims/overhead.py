"""
Overhead: what the pool costs beside its detectors, against the best bare parallel run of the same work.

Both sides run the same function on the same files in warm processes, by turns. The function reads its own processor
time, so that each side has a dilation: its wall seconds times workers (or all processor seconds of its processes) over
the processor seconds inside of the detectors. The overhead is the quotient of the two dilations less one. That equal
processes differ in speed, and that work takes longer beside other work, are in both and cancel out; what the driver
takes from its workers does not. Bare against bare, in the same rounds, says how far the machine itself is from quiet.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar

import msgspec

from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.file_work import FileCall, source_files, timed_findings
from detectors.measurement import ratio_interval
from detectors.ports import Figure, Workplace

__all__ = ["CostsLittle", "Side", "busy_seconds", "timed"]

AIM_PER_CENT = 1.0
CHUNKS = (1, 4, 16)
TRIES = 2
"""Of each length of chunk, of which the quickest counts."""


class Side(msgspec.Struct, frozen=True):
    """One run of the work: seconds, and what of them was inside of detectors."""

    wall_s: float
    spent_s: float
    """Processor seconds of this process and its children."""
    inside_s: float
    """Processor seconds inside of the detectors, by their own clock."""

    def dilation(self, workers: int) -> tuple[float, float]:
        """Return wall seconds times workers, and processor seconds, for one second inside of detectors."""
        if not self.inside_s > 0:
            raise UsageError("nothing ran, so nothing can be said of what it cost")
        assert self.wall_s > 0, "a run takes time"
        return self.wall_s * workers / self.inside_s, self.spent_s / self.inside_s


class CostsLittle:
    """The pool's overhead is at most one per cent."""

    part: ClassVar[str] = "overhead"
    title: ClassVar[str] = "at most 1 % over the best bare parallel run of the same work"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Time bare, pool and bare again by turns."""
        if workplace.pairs < 2:
            raise UsageError(f"an interval needs at least 2 pairs, not {workplace.pairs}")
        workers = workplace.workers
        work = _enough(source_files(workplace.sources, workplace.files), workplace.side_s, workers)
        columns: list[Sequence[Any]] = [[path for path, _ in work], [language for _, language in work]]
        calls: list[DetectorConfig] = [("rules", file, {}) for file in work]
        with ProcessPoolExecutor(workers) as bare, EnterpriseDetectorPool(max_workers=workers) as pool:
            pool.register_detector("rules", timed_findings, isolation="process")

            def rival(chunk: int) -> Side:
                return timed(lambda: [one[0] for one in bare.map(timed_findings, *columns, chunksize=chunk)])

            def mine() -> Side:
                return timed(lambda: [result.value[0] for result in pool.execute_parallel(calls)])

            _, _ = rival(1), mine()  # every process is there and has loaded its rules
            tried = {chunk: min(rival(chunk).dilation(workers)[0] for _ in range(TRIES)) for chunk in CHUNKS}
            best = min(tried, key=lambda chunk: tried[chunk])
            rounds = [_round(lambda: rival(best), mine, number) for number in range(workplace.pairs)]
        dilations = [tuple(side.dilation(workers) for side in one) for one in rounds]
        told = f"{len(work)} runs of the rules on real files in {workers} processes, bare in chunks of {best}"
        assert len(dilations) == workplace.pairs, "as many as were fixed beforehand"
        for place, clock in enumerate(("wall", "processor")):
            bare_s, mine_s, again_s = ([one[side][place] for one in dilations] for side in range(3))
            yield _figure(f"{clock} time over bare", mine_s, bare_s, AIM_PER_CENT, told)
            yield _figure(f"noise: bare over bare, {clock} time", again_s, bare_s, math.inf, "shown, not judged")


def _round(rival: Callable[[], Side], mine: Callable[[], Side], number: int) -> tuple[Side, Side, Side]:
    """Return bare, pool and bare again; who goes first alternates."""
    if number % 2:
        first, pool, second = rival(), mine(), rival()
        return first, pool, second
    pool, first, second = mine(), rival(), rival()
    assert pool.inside_s > 0, "the pool did the work"
    return first, pool, second


def _enough(files: Sequence[FileCall], side_s: float, workers: int) -> list[FileCall]:
    """Repeat files until one side of a pair takes about `side_s` seconds."""
    if not side_s > 0:
        raise UsageError(f"a side of a pair takes time, not {side_s} s")
    once_s = sum(timed_findings(*file)[0] for file in files)
    once_s = sum(timed_findings(*file)[0] for file in files)  # the first pass loads the rules
    assert once_s > 0, "the rules take time"
    return list(files) * max(1, round(side_s * workers / once_s))


def timed(run: Callable[[], Sequence[float]]) -> Side:
    """Run one side, which returns the seconds inside of each execution."""
    before_s, clock = busy_seconds(), time.perf_counter()
    inside = run()
    wall_s = time.perf_counter() - clock
    assert all(one >= 0 for one in inside), "seconds"
    return Side(wall_s, busy_seconds() - before_s, math.fsum(inside))


def busy_seconds() -> float:
    """Return the processor seconds that this process and its living children have used."""
    import psutil

    me = psutil.Process()
    used_s = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used_s += times.user + times.system
    assert used_s >= 0, "processor time only grows"
    return used_s


def _figure(what: str, mine: Sequence[float], bare: Sequence[float], aim: float, told: str) -> Figure:
    ratio = ratio_interval(mine, bare)
    assert ratio.low > 0, "both sides took time"
    value, low, high = (100 * (end - 1) for end in (ratio.estimate, ratio.low, ratio.high))
    return Figure(what, value, "%", aim, "at most", ratio.samples, low, high, told)
