"""
How fast the rules read, beside what only parses, in one process and one run.

    python -m benchmarks.rule_speed PATH... [--pairs N]

For C: the group `power-of-ten-c` on every `.c` and `.h` file below PATH against tree-sitter's parse alone; for
Python: `power-of-ten-python` against `ast.parse` alone. Runs are interleaved, and timed by the CPU that they took, so
that other programs decide less; the ratio's interval is a bootstrap of the mean of the pairs' ratios. Files over 2 MB
are left out and named, since they would decide alone.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from detectors.detector import RuleGroup, discover
from detectors.measurement import mean_interval
from detectors.model import Language
from detectors.parsing import Unparsable, collector_paused, parse

MAX_BYTES = 2_000_000
SUFFIXES: dict[Language, tuple[str, ...]] = {"c": (".c", ".h"), "python": (".py",)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a language."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="rule_speed", description=__doc__, formatter_class=shape)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved runs of each (default 5)")
    options = parser.parse_args(arguments)
    for language, suffixes in SUFFIXES.items():
        files, left_out = _files(options.paths, suffixes)
        for path in left_out:
            print(f"left out, over {MAX_BYTES} bytes: {path}")
        if files:
            print(_compared(language, files, options.pairs))
    return 0


def _files(paths: Sequence[Path], suffixes: tuple[str, ...]) -> tuple[list[tuple[str, bytes]], list[Path]]:
    found = sorted(
        path for root in paths for path in ([root] if root.is_file() else root.rglob("*")) if path.suffix in suffixes
    )
    regular = [path for path in found if path.is_file() and not path.is_symlink()]
    kept = [(path.name, path.read_bytes()) for path in regular if path.stat().st_size <= MAX_BYTES]
    return kept, [path for path in regular if path.stat().st_size > MAX_BYTES]


def _compared(language: Language, files: list[tuple[str, bytes]], pairs: int) -> str:
    group = discover()[f"power-of-ten-{language}"]
    assert isinstance(group, RuleGroup), "the rules are a group"
    bare = _bare_c(files) if language == "c" else _bare_python(files)

    def rules() -> None:
        for name, data in files:
            # As a worker does it; see `detectors.batch`.
            with contextlib.suppress(Unparsable), collector_paused():
                group.check_file(parse(data, language, name))

    bare()  # warm: imports, compiled patterns
    rules()
    samples = [(_seconds(bare), _seconds(rules)) for _ in range(pairs)]
    megabytes = sum(len(data) for _, data in files) / 1e6
    ratios = [parse_only / ruled for parse_only, ruled in samples]
    bare_rate = megabytes / fmean(parse_only for parse_only, _ in samples)
    rule_rate = megabytes / fmean(ruled for _, ruled in samples)
    return (
        f"{language}: {len(files)} files, {megabytes:.1f} MB; parse only {bare_rate:.2f} MB/s, "
        f"rules {rule_rate:.2f} MB/s; "
        f"ratio {mean_interval(ratios).told()}"
    )


def _bare_c(files: list[tuple[str, bytes]]) -> Callable[[], None]:
    import tree_sitter_c
    from tree_sitter import Language as Grammar
    from tree_sitter import Parser

    parser = Parser(Grammar(tree_sitter_c.language()))

    def run() -> None:
        for _, data in files:
            parser.parse(data)

    return run


def _bare_python(files: list[tuple[str, bytes]]) -> Callable[[], None]:
    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _, data in files:
                # The collector is paused for both, so that the ratio tells what the rules cost.
                with contextlib.suppress(SyntaxError, ValueError), collector_paused():
                    ast.parse(data)

    return run


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
