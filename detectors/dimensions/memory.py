"""How much memory the driver of a scan takes, and whether that grows with the tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectors.benchmark_record import Figure, measured
from detectors.benchmark_work import Work
from detectors.dimension import Dimension, answer, command
from detectors.measurement import ratio_interval

__all__ = ["Memory"]

DETECTORS = "ruff,flawfinder"
"""Those that run in processes of their own, so that what is left is the driver; two are fast enough for many files."""
SMALL_A_SECOND = 4
LEAST, MOST = 100, 1_000
TIMES = 10
RUNS = 3


class Memory(Dimension):
    """Cold scans by the command of a tree of real files, and of one ten times as large."""

    name = "memory"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the peak of the larger scan, and its ratio to the smaller one's."""
        files = min(MOST, max(LEAST, round(SMALL_A_SECOND * work.budget_s)))
        small, large = work.tree("small", files), work.tree("large", TIMES * files)
        assert LEAST <= files <= MOST, "a tree that fits into the time"
        peaks: dict[str, list[float]] = {"small": [], "large": []}
        for number in range(RUNS):
            peaks["small"].append(_peak(small, work, files, f"small-{number}"))
            peaks["large"].append(_peak(large, work, TIMES * files, f"large-{number}"))
        yield measured(
            "driver-memory", self.name, f"peak resident memory of a cold scan of {TIMES * files:,} files",
            peaks["large"], unit="MB", better="lower",
        )  # fmt: skip
        assert len(peaks["small"]) == len(peaks["large"]) == RUNS, "they are pairs"
        ratios = [more / less for more, less in zip(peaks["large"], peaks["small"], strict=True)]
        yield measured(
            "driver-memory-growth", self.name, f"the same over that of {files:,} files", ratios, unit="ratio",
            better="lower", interval=ratio_interval(peaks["large"], peaks["small"]),
        )  # fmt: skip


def _peak(tree: Path, work: Work, files: int, name: str) -> float:
    run = command(
        "scan", tree, "--detectors", DETECTORS, "--cluster", "inline", "--no-ignore", "--fail-on", "never", "--json",
        "--output", work.scratch / f"{name}.json", home=work.place(f"home-{name}"),
    )  # fmt: skip
    seen = answer(run.of((work.scratch / f"{name}.json").read_bytes()))["summary"]["files"]
    assert seen == files, "all of the tree was scanned"
    assert run.peak_mb > 0, "a process has memory"
    return run.peak_mb
