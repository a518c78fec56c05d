"""
What an edit runs again: a tree is scanned cold, warm, after an edit of one unit, and after an edit of one header.

    python -m benchmarks.incremental TREE UNIT HEADER [--detectors NAMES]

TREE is copied first; UNIT and HEADER are paths below it. For each run and detector: units executed, and taken from the
cache. Beside the header's run stands how many units read the header by the compiler's own account (`gcc -MM` with the
same folders), which leaves out branches that are not compiled: what runs again must not be fewer.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from detectors.cache import ResultCache
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan
from detectors.snapshot import take_snapshot
from detectors.tools.translation_units import search_flags
from detectors.tree_closures import TreeClosures

DETECTORS = "power-of-ten-c,compiler-warnings,clang-tidy,cppcheck"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each run and detector."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="incremental", description=__doc__, formatter_class=shape)
    parser.add_argument("tree", type=Path)
    parser.add_argument("unit")
    parser.add_argument("header")
    parser.add_argument("--detectors", default=DETECTORS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tree, cache = Path(scratch) / "tree", Path(scratch) / "cache"
        shutil.copytree(options.tree, tree, symlinks=True)
        asked = ScanOptions((tree,), tuple(options.detectors.split(",")), "inline", cache=cache)
        _print("cold", scan(asked))
        _print("warm", scan(asked))
        for what in (options.unit, options.header):
            with (tree / what).open("a") as file:
                file.write("\n/* edited */\n")
            _print(f"edited {what}", scan(asked))
        print(f"{'':38} {_readers(tree, options.header)} units read {options.header} by `gcc -MM`")
    return 0


def _print(what: str, run: RunRecord) -> None:
    executed: collections.Counter[str] = collections.Counter()
    cached: collections.Counter[str] = collections.Counter()
    for unit in run.units:
        (executed if unit.run_id == run.run_id else cached)[unit.detector] += 1
    for name in sorted(executed | cached):
        print(f"{what:38} {name:20} executed {executed[name]:5}  cached {cached[name]:5}")


def _readers(tree: Path, header: str) -> int:
    """Return how many units the compiler says to read a header, among those that it can preprocess."""
    snapshot = take_snapshot((tree,))
    with ResultCache(None) as store:
        closures = TreeClosures(snapshot, store, ()).of("includes", frozenset({"c", "cpp"}))
    count = 0
    for path, closure in closures.items():
        command = ["gcc", "-MM", "-MG", *search_flags(closure.context), path]
        done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=60)
        named = {str(Path(name)) for name in done.stdout.replace("\\\n", " ").split()}
        count += path == header or header in named
    return count


if __name__ == "__main__":
    raise SystemExit(main())
