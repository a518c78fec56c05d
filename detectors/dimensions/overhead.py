"""What the pool costs over the best bare parallel run of the same work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from detectors.benchmark_record import Figure, compared
from detectors.benchmark_work import Work, findings_in
from detectors.dimension import Dimension, checked, timed
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.measurement import compare

__all__ = ["Overhead"]

CHUNKS = (1, 4, 16, 64)
SWEEPS = 3
FILES_A_SECOND = 60
"""Of the sources, by one worker, for a first guess of how many fit into the budget."""
ROUNDS = 14
"""Of pilot and pairs, at least."""


class Overhead(Dimension):
    """
    The rules of C and Python on real files in warm isolated processes, over a warm `ProcessPoolExecutor`.

    The rival's chunk size is swept and the best kept. Equal processes differ in speed by a per cent or two, so each run
    has its own, and warms them first.
    """

    name = "overhead"
    share = 5.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the pool over the best bare run."""
        run_s = work.budget_s / (2 * ROUNDS)
        calls = work.calls("rules", max(32, round(run_s / 3 * FILES_A_SECOND * work.workers)))
        assert calls, "there is work"
        chunk = self._best_chunk(calls, work.workers)
        found = compare(
            partial(_pooled, calls, work.workers), partial(_bare, calls, work.workers, chunk), half_width=0.01,
            budget_s=work.budget_s,
        )  # fmt: skip
        assert found.ratio.estimate > 0, "both took time"
        yield compared(
            "overhead", self.name,
            f"rules on {len(calls)} files, {work.workers} processes: pool over bare ones (chunks of {chunk})", found,
        )  # fmt: skip

    def _best_chunk(self, calls: Sequence[DetectorConfig], workers: int) -> int:
        chunks = [chunk for chunk in CHUNKS if 4 * chunk * workers <= len(calls)] or [1]
        with _processes(calls, workers) as bare:
            # By turns, and the quickest of several tries: a rival that was unlucky once would make us look good.
            tries = [[timed(partial(_mapped, bare, calls, chunk)) for chunk in chunks] for _ in range(SWEEPS)]
        tried = dict(zip(chunks, map(min, zip(*tries, strict=True)), strict=True))
        assert tried, "there is work for a chunk of one"
        assert min(tried.values()) > 0, "work takes time"
        return min(tried, key=lambda chunk: tried[chunk])


@contextlib.contextmanager
def _processes(calls: Sequence[DetectorConfig], workers: int) -> Iterator[ProcessPoolExecutor]:
    assert workers > 0, "somebody works"
    assert calls, "on something"
    with ProcessPoolExecutor(workers) as bare:
        warm = _mapped(bare, calls, 1)
        assert len(warm) == len(calls), "each was answered"
        yield bare


def _mapped(bare: ProcessPoolExecutor, calls: Sequence[DetectorConfig], chunk: int) -> list[int]:
    assert chunk > 0, "a chunk holds something"
    assert calls, "something is executed"
    paths, languages = zip(*(args for _, args, _ in calls), strict=True)
    return list(bare.map(findings_in, paths, languages, chunksize=chunk))


def _bare(calls: Sequence[DetectorConfig], workers: int, chunk: int) -> float:
    assert chunk * workers <= max(len(calls), workers), "every process has a chunk"
    with _processes(calls, workers) as bare:
        return timed(partial(_mapped, bare, calls, chunk))


def _pooled(calls: Sequence[DetectorConfig], workers: int) -> float:
    assert workers > 0, "somebody works"
    with EnterpriseDetectorPool(max_workers=workers) as pool:
        pool.register_detector("rules", findings_in, isolation="process")
        warm = checked(pool.execute_parallel(calls))
        assert len(warm) == len(calls), "each was answered"
        return timed(lambda: checked(pool.execute_parallel(calls)))
