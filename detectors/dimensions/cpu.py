"""How busy the processors are under load, and where the time of a cold scan goes."""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectors.benchmark_record import Figure, Frame, measured, seen
from detectors.benchmark_work import RULES, Work, findings_in
from detectors.dimension import BenchmarkFailed, Dimension, checked
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.measurement import series
from detectors.scan import ScanOptions, scan

__all__ = ["Cpu"]

FILES = 120
LOOK_S = 0.1
LOOKS = 10_000
PROFILED_FILES = 60
LEAST_SHARE = 0.002
"""Of the whole profile, below which a frame is not drawn."""
MAX_DEPTH = 60
PROFILE_EVERY_S, PROFILE_LOOKS = 0.002, 100_000
IDLE = frozenset({"Condition.wait (threading.py)", "Event.wait (threading.py)", "InProcess.run (parallel_executor.py)"})
"""Where a thread stands that has nothing to do."""
Stack = tuple[str, ...]


class Cpu(Dimension):
    """The rules on real files in isolated processes: their processor time between a fifth and four fifths of a run."""

    name = "cpu"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the busy share; look where a cold scan spends its time."""
        calls = work.calls("rules", FILES) * 2
        assert calls, "there is work"
        shares: list[float] = []
        with EnterpriseDetectorPool(max_workers=work.workers) as pool:
            pool.register_detector("rules", findings_in, isolation="process")
            warm = checked(pool.execute_parallel(calls))
            assert len(warm) == len(calls), "each was answered"

            def run() -> float:
                assert not pool.closed, "it is measured while it is open"
                shares.append(_busy(pool, calls, work.workers))
                return shares[-1]

            found = series(run, half_width=0.02, budget_s=0.7 * work.budget_s)
        yield seen(
            "busy", self.name, f"share of {work.workers} processors used in the steady part of {len(calls)} units",
            found, unit="share", better="higher",
        )  # fmt: skip
        assert shares, "it was looked at"
        seconds, self.profile = _profiled(work)
        yield measured("profiled-scan", self.name, "cold inline scan under a profiler", [seconds], unit="s")


def _busy(pool: EnterpriseDetectorPool, calls: Sequence[DetectorConfig], workers: int) -> float:
    """Return processor time of this process and its children over wall time times workers, of the steady part."""
    import psutil

    me = psutil.Process()
    looks: list[tuple[float, float]] = []
    over = threading.Event()
    # Looked for once: that takes longer than to read what they have used.
    processes = [me, *me.children(recursive=True)]

    def look() -> None:
        assert processes, "this one is there, at least"
        for _ in range(LOOKS):
            looks.append((time.perf_counter(), _used_s(processes)))
            if over.wait(LOOK_S):
                return

    watcher = threading.Thread(target=look)
    began = time.perf_counter()
    watcher.start()
    results = checked(pool.execute_parallel(calls))
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    looks.append((began + seconds, _used_s(processes)))
    assert len(results) == len(calls), "each was answered"
    steady = [one for one in looks if 0.2 * seconds <= one[0] - began <= 0.8 * seconds]
    (first, before_s), (last, after_s) = (steady[0], steady[-1]) if len(steady) > 1 else (looks[0], looks[-1])
    assert last > first, "two looks at least"
    assert after_s >= before_s, "time is spent, not gained"
    return max((after_s - before_s) / ((last - first) * workers), 1e-9)


def _used_s(processes: Sequence[Any]) -> float:
    import psutil

    used_s = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used_s += times.user + times.system
    assert processes, "somebody used it"
    assert used_s >= 0, "time is spent, not gained"
    return used_s


def _profiled(work: Work) -> tuple[float, Frame]:
    """Scan cold with one worker, looking at the stacks of all threads; return wall seconds and the tree of frames."""
    tree = work.tree("profiled", PROFILED_FILES)
    options = ScanOptions((tree,), RULES, "inline", 1, work.place("cache-profiled"), ignore=False)
    counts: collections.Counter[Stack] = collections.Counter()
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(counts, over))
    began = time.perf_counter()
    watcher.start()
    try:
        run = scan(options)
    finally:
        over.set()
        watcher.join()
    seconds = time.perf_counter() - began
    assert run.whole, "a profile is of a whole scan"
    assert counts, "something was seen"
    return seconds, _frames(counts, seconds)


def _watch(counts: collections.Counter[Stack], over: threading.Event) -> None:
    """Count the stacks of all threads that do something, until told to end."""
    own = threading.get_ident()
    assert PROFILE_EVERY_S > 0, "it lets the others work between its looks"
    for _ in range(PROFILE_LOOKS):
        for thread, innermost in sys._current_frames().items():
            stack: list[str] = []
            frame: types.FrameType | None = innermost
            while frame is not None and len(stack) < MAX_DEPTH:
                stack.append(f"{frame.f_code.co_qualname} ({Path(frame.f_code.co_filename).name})")
                frame = frame.f_back
            if thread != own and not IDLE.intersection(stack[:1]):
                counts[tuple(reversed(stack))] += 1
        if over.wait(PROFILE_EVERY_S):
            return


def _frames(counts: Mapping[Stack, int], seconds: float) -> Frame:
    """Return counted stacks as one tree, whose root has all seconds; what is too small to be seen is left out."""
    total = sum(counts.values())
    if total < 1:
        raise BenchmarkFailed("a profile saw nothing at work")
    held: collections.Counter[Stack] = collections.Counter()
    for stack, count in counts.items():
        for depth in range(len(stack) + 1):
            held[stack[:depth]] += count
    made: dict[Stack, Frame] = {}
    below: dict[Stack, list[Stack]] = {}
    # The deepest first, so that what a frame calls is there before it.
    for path in sorted((path for path in held if held[path] >= LEAST_SHARE * total), key=len, reverse=True):
        calls = tuple(made[one] for one in sorted(below.get(path, ())))
        spent_s = held[path] / total * seconds
        own_s = max(0.0, spent_s - sum(call.seconds for call in calls))
        made[path] = Frame(path[-1] if path else "scan", spent_s, own_s, calls)
        if path:
            below.setdefault(path[:-1], []).append(path)
    assert () in made, "the root is a frame"
    assert made[()].seconds <= seconds + 1e-6, "it has all of the time"
    return made[()]
