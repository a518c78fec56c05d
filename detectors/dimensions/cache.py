"""What the cache answers after nothing and after something has changed, and how much faster that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectors.benchmark_record import Figure, compared, counted
from detectors.benchmark_work import RULES, Work
from detectors.dimension import BenchmarkFailed, Dimension, timed
from detectors.measurement import compare
from detectors.scan import ScanOptions, scan

__all__ = ["Cache"]

DETECTORS = (*RULES, "ruff", "flawfinder")
FILES = 100
EDITED_SHARE = 0.01


class Cache(Dimension):
    """Scans of a tree that is grown from real files: cold, warm, and after an edit of 1 % of the files."""

    name = "cache"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield hit shares, and warm over cold."""
        tree = work.tree("cached", FILES)
        assert round(FILES * EDITED_SHARE) >= 1, "a file at least is edited"
        caches = [self._filled(tree, work.place("cache-0"))]

        def cold() -> float:
            caches.append(work.place(f"cache-{len(caches)}"))
            assert not list(caches[-1].iterdir()), "nothing is known yet"
            return timed(lambda: scan(_options(tree, caches[-1])))

        def warm() -> float:
            assert any(caches[0].iterdir()), "everything is known"
            return timed(lambda: scan(_options(tree, caches[0])))

        found = compare(warm, cold, half_width=0.05, budget_s=0.8 * work.budget_s)
        yield compared(
            "warm-over-cold", self.name, f"scan of {FILES} unchanged files by {len(DETECTORS)} detectors, over cold",
            found,
        )  # fmt: skip
        assert len(caches) > 1, "cold scans had stores of their own"
        unchanged = scan(_options(tree, caches[0]))
        yield counted(
            "hits-unchanged", self.name, "units from the cache, nothing changed", good=unchanged.cached,
            of=unchanged.planned,
        )  # fmt: skip
        assert unchanged.planned > 0, "there was something to answer"
        edited = sorted(path for path in tree.rglob("*") if path.is_file())[:: round(1 / EDITED_SHARE)]
        for path in edited:
            data = path.read_bytes()
            written = path.write_bytes(data + (b"\n# edited\n" if path.suffix == ".py" else b"\n/* edited */\n"))
            assert written > len(data), "it is another file now"
        after = scan(_options(tree, caches[0]))
        if after.executed < len(edited):
            raise BenchmarkFailed("an edited file was answered from the cache")
        yield counted(
            "hits-edited", self.name, f"units from the cache, {len(edited)} of {FILES} files edited",
            good=after.cached, of=after.planned,
        )  # fmt: skip

    def _filled(self, tree: Path, cache: Path) -> Path:
        run = scan(_options(tree, cache))
        if not run.whole or run.cached:
            raise BenchmarkFailed(f"a cold scan is whole and takes nothing from the cache: {run.problems[:1]}")
        assert run.executed == run.planned, "all of it was done"
        assert run.planned > 0, "there was something to do"
        return cache


def _options(tree: Path, cache: Path) -> ScanOptions:
    assert tree != cache, "the cache is no source"
    assert cache.is_dir(), "there is a place for it"
    return ScanOptions((tree,), DETECTORS, "inline", cache=cache, ignore=False)
