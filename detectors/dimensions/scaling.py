"""How much faster more workers are than one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from detectors.benchmark_record import Figure, compared
from detectors.benchmark_work import RULES, Work, findings_in
from detectors.dimension import BenchmarkFailed, Dimension, answer, checked, command, timed
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.measurement import compare

__all__ = ["Scaling"]

FILES = 60
SCAN_S = 300.0
"""Least budget in which a cold scan on a cluster is compared, too: it takes ten seconds and more."""


class Scaling(Dimension):
    """
    The rules on real files in one isolated process and in 2, 4, … up to twice the processors.

    With time enough, cold scans by the command on a local cluster of one worker and of as many as processors, too.
    """

    name = "scaling"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield a speed-up by number of workers."""
        calls = work.calls("rules", FILES)
        levels = [level for level in (2, 4, 8, 16, 32, 64) if level <= 2 * work.workers]
        assert levels, "two workers are compared with one on any machine"
        scans = work.budget_s >= SCAN_S and work.workers > 1
        for level in levels:
            yield self._pools(calls, level, work.budget_s / (len(levels) + 2 * scans))
        if scans:
            yield self._scans(work, work.budget_s / 2)

    def _pools(self, calls: Sequence[DetectorConfig], level: int, budget_s: float) -> Figure:
        assert level > 1, "one is what it is compared with"
        assert calls, "there is work"
        with EnterpriseDetectorPool(max_workers=1) as one, EnterpriseDetectorPool(max_workers=level) as many:
            for pool in (one, many):
                pool.register_detector("rules", findings_in, isolation="process")
                warm = checked(pool.execute_parallel(calls))
                assert len(warm) == len(calls), "each was answered"
            found = compare(
                lambda: timed(lambda: checked(one.execute_parallel(calls))),
                lambda: timed(lambda: checked(many.execute_parallel(calls))), half_width=0.03, budget_s=budget_s,
            )  # fmt: skip
        words = f"rules on {len(calls)} files: {level} isolated processes, times as fast as one"
        return compared(f"speed-up-{level}", self.name, words, found, "higher")

    def _scans(self, work: Work, budget_s: float) -> Figure:
        tree = work.tree("scaled", 10 * FILES)
        assert tree.is_dir(), "a tree was grown"
        digests: set[str] = set()
        found = compare(
            partial(_scan, tree, work, 1, digests), partial(_scan, tree, work, work.workers, digests), half_width=0.05,
            budget_s=budget_s,
        )  # fmt: skip
        if len(digests) != 1:
            raise BenchmarkFailed("runs with one worker and with several found different things")
        words = f"cold scan of {10 * FILES} files, cluster started anew: {work.workers} workers, times as fast as one"
        return compared("speed-up-scan", self.name, words, found, "higher")


def _scan(tree: Path, work: Work, workers: int, digests: set[str]) -> float:
    """Scan with an empty cache on a cluster of its own, and return the seconds of the whole command."""
    assert workers > 0, "somebody works"
    assert tree.is_dir(), "there is something to scan"
    home = work.place(f"home-{len(list(work.scratch.iterdir()))}")
    run = command(
        "scan", tree, "--detectors", ",".join(RULES), "--cluster", "local", "--workers", str(workers), "--no-ignore",
        "--fail-on", "never", "--json", home=home,
    )  # fmt: skip
    digests.add(str(answer(run)["summary"]["findings_digest"]))
    assert digests, "it found something or nothing, and says which"
    return run.seconds
