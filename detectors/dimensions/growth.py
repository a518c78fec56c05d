"""How time, memory, processor time of the driver and the store grow with the number of files."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec

from detectors.benchmark_record import BenchmarkRun, Figure, measured
from detectors.benchmark_work import RULES, Work
from detectors.dimension import BenchmarkFailed, Dimension, answer, command
from detectors.measurement import LEVEL, Interval

__all__ = ["Growth", "growth_table"]

DETECTORS = (*RULES, "ruff", "flawfinder")
EXPONENT_AIM, MEMORY_AIM_MB = 1.05, 300.0
REPEATS = {1_000: 3, 10_000: 2}
"""Up to so many files; once beyond."""


class _Point(msgspec.Struct, frozen=True):
    """One size, scanned once cold and once warm."""

    files: int
    cold_s: float
    warm_s: float
    peak_mb: float
    """Of the driver, in the cold scan."""
    driver_cpu_s: float
    """In the cold scan: planning, handing out, taking in, reducing, settling; Dask's scheduler is in it."""
    store_bytes: int


class Growth(Dimension):
    """
    Cold and warm scans, on a local cluster, of trees grown from real files: content of their own, sizes and words kept.

    Detectors: the rules, ruff, flawfinder. Each size has a tree and a store of its own.
    """

    name: ClassVar[str] = "growth"
    share: ClassVar[float] = 4.0
    by_name_only: ClassVar[bool] = True

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield fitted exponents, and what each size took."""
        if len(set(work.sizes)) < 2 or min(work.sizes) < 100:
            raise BenchmarkFailed("growth is between two sizes at least, of a hundred files and more")
        points = [point for files in sorted(set(work.sizes)) for point in _points(work, files)]
        assert len(points) >= len(set(work.sizes)), "each size was measured"
        for name, words, of in (
            ("cold-exponent", "seconds of a cold scan", [point.cold_s for point in points]),
            ("warm-exponent", "seconds of a warm scan", [point.warm_s for point in points]),
            ("driver-exponent", "processor seconds of the driver, cold", [point.driver_cpu_s for point in points]),
            ("memory-exponent", "peak memory of the driver", [point.peak_mb for point in points]),
            ("store-exponent", "bytes of the store", [float(point.store_bytes) for point in points]),
        ):
            interval = _exponent([point.files for point in points], of)
            yield measured(
                name, self.name, f"{words}, over files: fitted exponent", of, unit="exponent", better="lower",
                interval=interval,
            )  # fmt: skip
        for files in sorted(set(work.sizes)):
            yield from self._of_size(files, [point for point in points if point.files == files])

    def _of_size(self, files: int, points: Sequence[_Point]) -> Iterator[Figure]:
        assert points, "the size was measured"
        assert all(point.files == files for point in points), "they are of this size"
        per_file = 1_000 / files
        for name, unit, values in (
            ("cold", "s", [point.cold_s for point in points]),
            ("warm-per-file", "ms", [point.warm_s * per_file for point in points]),
            ("driver-per-file", "ms", [point.driver_cpu_s * per_file for point in points]),
            ("driver-memory", "MB", [point.peak_mb for point in points]),
            ("store-per-file", "bytes", [point.store_bytes / files for point in points]),
        ):
            yield measured(
                f"{name}-{files}", self.name, f"{name} of {files:,} files", values, unit=unit, better="lower"
            )  # fmt: skip


def _points(work: Work, files: int) -> Iterator[_Point]:
    """Grow a tree and scan it, cold and warm, as often as its size allows."""
    sys.stderr.write(f"growth: a tree of {files:,} files\n")
    tree = work.tree(f"grown-{files}", files)
    repeats = next((often for most, often in sorted(REPEATS.items()) if files <= most), 1)
    assert tree.is_dir(), "a tree was grown"
    assert repeats >= 1, "each size is scanned"
    for number in range(repeats):
        home = work.place(f"home-{files}-{number}")
        words = (
            "scan", tree, "--detectors", ",".join(DETECTORS), "--cluster", "local", "--workers", str(work.workers),
            "--no-ignore", "--fail-on", "never", "--json", "--output", work.scratch / "grown.json",
        )  # fmt: skip
        cold = command(*words, home=home)
        summary = answer(cold.of((work.scratch / "grown.json").read_bytes()))["summary"]
        if summary["files"] != files or summary["cached"]:
            raise BenchmarkFailed(f"a cold scan of {files} files saw {summary['files']}, {summary['cached']} cached")
        warm = command(*words, home=home)
        again = answer(warm.of((work.scratch / "grown.json").read_bytes()))["summary"]
        if again["executed"] or again["findings_digest"] != summary["findings_digest"]:
            raise BenchmarkFailed("a warm scan took all from the cache, and finds the same")
        store = sum(path.stat().st_size for path in (home / "cache").rglob("*") if path.is_file())
        sys.stderr.write(
            f"growth: {files:,} files: cold {cold.seconds:.1f} s, warm {warm.seconds:.1f} s, driver "
            f"{cold.peak_mb:.0f} MB and {cold.own_cpu_s:.1f} s of processor time, store {store / 1e6:.1f} MB\n"
        )
        yield _Point(files, cold.seconds, warm.seconds, cold.peak_mb, cold.own_cpu_s, store)


def _exponent(files: Sequence[int], amounts: Sequence[float]) -> Interval:
    """Return the slope of the logarithms, with Student's interval; of two points it has none."""
    from scipy import stats

    if len(files) != len(amounts) or min(*files, *amounts) <= 0:
        raise BenchmarkFailed("an exponent is of amounts above 0, one for each size")
    fit = stats.linregress([math.log(one) for one in files], [math.log(one) for one in amounts])
    slope = float(fit.slope)
    freedom = len(files) - 2
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * float(fit.stderr) if freedom > 0 else 0.0
    assert reach >= 0, "an interval has a width"
    return Interval(slope, slope - reach, slope + reach, len(files))


def growth_table(run: BenchmarkRun) -> str:
    """Return what was measured as Markdown, with the date and machine of the run."""
    of = {figure.name: figure for figure in run.figures if figure.dimension == Growth.name}
    if not of:
        raise BenchmarkFailed("; ".join(run.not_measured.values()) or "no growth was measured")
    sizes = sorted(int(name.rpartition("-")[2]) for name in of if name.startswith("cold-") and name[5:].isdigit())
    head = ("files", "cold s", "warm ms a file", "driver ms a file", "driver MB", "store bytes a file", "scans")
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for files in sizes:
        names = ("cold", "warm-per-file", "driver-per-file", "driver-memory", "store-per-file")
        cells = [f"{of[f'{name}-{files}'].interval.estimate:,.4g}" for name in names]
        rows.append(f"| {files:,} | " + " | ".join(cells) + f" | {of[f'cold-{files}'].interval.samples} |")
    assert len(rows) == len(sizes) + 2, "a row a size"
    rows += ["", "| grows with files to the power of | exponent | 95 % interval |", "|---|---|---|"]
    for name in ("cold", "warm", "driver", "memory", "store"):
        one = of[f"{name}-exponent"]
        words = one.words.partition(",")[0] if name != "driver" else "processor seconds of the driver"
        rows.append(f"| {words} | {one.interval.estimate:.3f} | {one.interval.low:.3f} to {one.interval.high:.3f} |")
    cold, memory = of["cold-exponent"].interval, of[f"driver-memory-{sizes[-1]}"].interval
    rows += [
        "",
        f"- Exponent of a cold scan (aim: at most {EXPONENT_AIM}): {'met' if cold.high <= EXPONENT_AIM else 'missed'}.",
        f"- Driver at {sizes[-1]:,} files (aim: under {MEMORY_AIM_MB:.0f} MB): "
        f"{'met' if memory.high < MEMORY_AIM_MB else 'missed'}.",
        "",
        f"{run.environment.told()}; {run.load_average_after:.1f} at the end.",
    ]
    return "\n".join(rows) + "\n"
