"""How many bytes a scan reads and writes for each byte of source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectors.benchmark_record import Figure, measured
from detectors.benchmark_work import RULES, Work
from detectors.dimension import BenchmarkFailed, Dimension
from detectors.scan import ScanOptions, scan

__all__ = ["InputOutput"]

FILES = 100
RUNS = 3


class InputOutput(Dimension):
    """Inline scans by the rules, cold and warm; bytes as the kernel counts them for this process's calls."""

    name = "io"
    share = 1.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield read and written bytes over source bytes, cold and warm."""
        tree = work.tree("read", FILES)
        source_bytes = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
        assert source_bytes > 0, "sources hold something"
        loaded = _moved(tree, work.place("cache-first"))  # rules and libraries are read once in a process
        assert min(loaded) >= 0, "bytes are counted up"
        assert RUNS > 1, "one run says nothing of chance"
        shares: dict[tuple[str, str], list[float]] = {}
        for number in range(RUNS):
            cache = work.place(f"cache-io-{number}")
            for state in ("cold", "warm"):
                for kind, moved in zip(("read", "written"), _moved(tree, cache), strict=True):
                    shares.setdefault((state, kind), []).append(moved / source_bytes)
        for (state, kind), values in shares.items():
            yield measured(
                f"{kind}-{state}", self.name, f"bytes {kind} by a {state} scan, for each byte of source", values,
                unit="ratio", better="lower",
            )  # fmt: skip


def _moved(tree: Path, cache: Path) -> tuple[int, int]:
    """Scan, and return bytes read and written by this process's system calls, from disk or not."""
    import psutil

    process = psutil.Process()
    before = process.io_counters()
    run = scan(ScanOptions((tree,), RULES, "inline", cache=cache, ignore=False))
    after = process.io_counters()
    if not run.whole:
        raise BenchmarkFailed(f"the scan is not whole: {run.problems[:1]}")
    assert after.read_chars >= before.read_chars, "the kernel counts up"
    assert after.write_chars >= before.write_chars, "the kernel counts up"
    return after.read_chars - before.read_chars, after.write_chars - before.write_chars
