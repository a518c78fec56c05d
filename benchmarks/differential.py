"""
Our rules beside other tools on real C: what both say, what we alone say, and what they alone say.

    python -m benchmarks.differential PATH... [--define NAME=VALUE] [--output FILE]

Each PATH is a tree of its own. For each of our rules that shares a question with a check of clang-tidy, of cppcheck or
its MISRA add-on, or (rule 10, where the detector `compiler-warnings` is there) of gcc, findings are matched by file and
line, or by the function they stand in; what they say at the use of a macro and we at its definition is one. What we say
of lines that the other tool did not compile, or of files that it could not read or was not asked about, is counted
apart. cppcheck is slow: it gets a seeded choice of each tree's files. Last comes a seeded sample of the differences,
spread evenly over rules and directions, to be judged by reading.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import dataclasses
import datetime
import functools
import io
import itertools
import random
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peer_tools import Answers, Message, Tree, ask, preprocess, versions
from detectors.c_parsing import CFile
from detectors.detector import discover
from detectors.model import LocatedFinding
from detectors.scan import ScanOptions, scan

TOOLS = ("clang-tidy", "cppcheck", "gcc")
OURS = ("power-of-ten-c", "compiler-warnings")
CPPCHECK_BYTES = 500_000
"""Of each tree; with the MISRA add-on cppcheck reads some 10 kB a second."""
ALL_BYTES = 1 << 40
STORES_A_CALL = re.compile(rb"(?<![=!<>])=\s*(?:\([\w\s*]*\)\s*)?[A-Za-z_][\w.>-]*\s*\(")
WORD = re.compile(rb"[A-Za-z_]\w*")
MAX_EXPANSIONS = 20
PASTES = re.compile(rb"##")

Where = tuple[str, int]
"""Path and line."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One question that our rules and checks of another tool share."""

    name: str
    rules: tuple[str, ...]
    """Ids of ours; of rule 10, its detector's name."""
    tool: str
    checks: tuple[str, ...]
    """Empty for all that the tool says."""
    ours_say: str = ""
    """What our message begins with, where one rule asks more than one question."""
    they_say: str = ""
    source: re.Pattern[bytes] | None = None
    """What the line (with those that it is spliced to) must hold for theirs to ask our question."""
    by_function: bool = False
    """Where the tools point at different places of one function."""


COMPARISONS = (
    Comparison("goto", ("P10-R1-goto",), "cppcheck", ("misra-c2012-15.1",), "goto "),
    Comparison("recursion", ("P10-R1-recursion",), "clang-tidy", ("misc-no-recursion",), by_function=True),
    Comparison("recursion", ("P10-R1-recursion",), "cppcheck", ("misra-c2012-17.2",), by_function=True),
    Comparison(
        "loops", ("P10-R2-loop-bound",), "clang-tidy", ("bugprone-infinite-loop", "bugprone-too-small-loop-variable")
    ),
    Comparison("loops", ("P10-R2-loop-bound",), "cppcheck", ("misra-c2012-14.1", "misra-c2012-14.2")),
    Comparison("memory", ("P10-R3-dynamic-memory",), "cppcheck", ("misra-c2012-21.3",)),
    Comparison("VLA", ("P10-R3-variable-length-array",), "clang-tidy", ("clang-diagnostic-vla",)),
    Comparison("VLA", ("P10-R3-variable-length-array",), "cppcheck", ("misra-c2012-18.8",)),
    Comparison("length", ("P10-R4-function-length",), "clang-tidy", ("readability-function-size",), by_function=True),
    Comparison(
        "assertions that change", ("P10-R5-assertion-side-effect",), "clang-tidy", ("bugprone-assert-side-effect",)
    ),
    Comparison(
        "assertions that change",
        ("P10-R5-assertion-side-effect",),
        "cppcheck",
        ("assertWithSideEffect", "assignmentInAssert"),
    ),
    Comparison("file scope", ("P10-R6-file-scope",), "cppcheck", ("misra-c2012-8.9",)),
    Comparison(
        "external objects",
        ("P10-R6-external-object",),
        "clang-tidy",
        ("misc-use-internal-linkage", "clang-diagnostic-missing-variable-declarations"),
        they_say=r"variable|no previous extern",
    ),
    Comparison("inner scope", ("P10-R6-inner-scope",), "cppcheck", ("variableScope",)),
    Comparison(
        "dropped results",
        ("P10-R7-unchecked-result", "P10-R7-unchecked-print"),
        "clang-tidy",
        ("bugprone-unused-return-value", "cert-err33-c", "clang-diagnostic-unused-result"),
    ),
    Comparison(
        "dropped results", ("P10-R7-unchecked-result", "P10-R7-unchecked-print"), "cppcheck", ("misra-c2012-17.7",)
    ),
    Comparison(
        "unread results",
        ("P10-R7-unread-result",),
        "clang-tidy",
        ("clang-analyzer-deadcode.DeadStores", "clang-diagnostic-unused-but-set-variable"),
        source=STORES_A_CALL,
    ),
    Comparison(
        "unread results",
        ("P10-R7-unread-result",),
        "cppcheck",
        ("unreadVariable", "redundantAssignment"),
        source=STORES_A_CALL,
    ),
    Comparison("parameters", ("P10-R7-unchecked-parameter",), "clang-tidy", ("clang-analyzer-core.NullDereference",)),
    Comparison("parameters", ("P10-R7-unchecked-parameter",), "cppcheck", ("nullPointer", "nullPointerRedundantCheck")),
    Comparison("#undef", ("P10-R8-undef",), "cppcheck", ("misra-c2012-20.5",)),
    Comparison("##", ("P10-R8-token-pasting",), "cppcheck", ("misra-c2012-20.10",), source=PASTES),
    Comparison("pointer levels", ("P10-R9-pointer-depth",), "cppcheck", ("misra-c2012-18.5",)),
    Comparison("warnings", ("compiler-warnings",), "gcc", ()),
)


@dataclasses.dataclass(frozen=True, order=True)
class Difference:
    """A place that one side reports and the other, which has read it, does not."""

    tree: str
    path: str
    line: int
    name: str
    """Of the question."""
    ours: bool
    """Whether the finding is ours."""
    tool: str
    text: str


@dataclasses.dataclass
class Counts:
    """How often each outcome came, summed over the trees."""

    agreed: int = 0
    ours: int = 0
    theirs: int = 0
    unseen: int = 0
    """Ours, where the other tool did not look."""


class Places:
    """Where findings of one tree stand, so that those of two tools can be matched."""

    def __init__(self, tree: Tree) -> None:
        self._sources = tree.sources
        self._functions: dict[str, tuple[list[int], list[int], list[int]]] = {}

    def function(self, path: str, line: int) -> int:
        """Return the line of the name of the function around a line; the line itself outside of functions."""
        if path not in self._functions:
            unit = CFile(self._sources[path], "c", path)
            spans = sorted(
                (
                    unit.region(f.start, f.start).start_line,
                    unit.region(f.end, f.end).start_line,
                    unit.region(f.name_start, f.name_end).start_line,
                )
                for f in unit.functions
            )
            self._functions[path] = ([s[0] for s in spans], [s[1] for s in spans], [s[2] for s in spans])
        starts, ends, names = self._functions[path]
        place = bisect.bisect_right(starts, line) - 1
        return names[place] if place >= 0 and line <= ends[place] else line

    def flagged_macros(self, ours: Iterable[Where]) -> dict[bytes, Where]:
        """Return the macros that hold one of our findings, or use a macro that does, with that finding's place."""
        places = set(ours)
        flagged: dict[bytes, Where] = {}
        for path, macros in self._macros.items():
            for name, first, last, _ in macros:
                for line in range(first, last + 1):
                    if (path, line) in places:
                        flagged.setdefault(name, (path, line))
        for _ in range(MAX_EXPANSIONS):
            more = {
                name: flagged[word]
                for macros in self._macros.values()
                for name, _, _, words in macros
                if name not in flagged
                for word in words
                if word in flagged
            }
            flagged.update(more)
            if not more:
                break
        return flagged

    @functools.cached_property
    def _macros(self) -> dict[str, list[tuple[bytes, int, int, frozenset[bytes]]]]:
        """(name, first line, last line, words of the body) of the macros of each file."""
        found: dict[str, list[tuple[bytes, int, int, frozenset[bytes]]]] = {}
        for path, source in self._sources.items():
            unit = CFile(source, "c", path)
            found[path] = [
                (
                    macro.name.encode(),
                    unit.region(macro.start, macro.start).start_line,
                    unit.region(macro.body + len(macro.code), macro.body + len(macro.code)).start_line,
                    frozenset(WORD.findall(macro.code)),
                )
                for macro in unit.layout.macros
            ]
        return found

    def text(self, path: str, line: int) -> bytes:
        """Return a line, with those that it is spliced to."""
        lines = self._sources[path].split(b"\n")[line - 1 :]
        spliced = list(itertools.takewhile(lambda text: text.rstrip().endswith(b"\\"), lines))
        return b"\n".join(lines[: len(spliced) + 1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, what could not be read, and the sample."""
    options = _options(arguments)
    programs = {tool: found for tool in TOOLS if (found := shutil.which(tool))}
    if "gcc" not in programs or len(programs) < 2:
        print("needs gcc, and clang-tidy (a wheel of PyPI) or cppcheck, on the PATH", file=sys.stderr)
        return 2
    detectors = tuple(name for name in OURS if name in {detector.name for detector in discover()})
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        _report(options, programs, detectors)
    if options.output is None:
        print(report.getvalue(), end="")
    else:
        options.output.write_text(report.getvalue(), encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="differential", description=__doc__, formatter_class=shape)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument(
        "--define", action="append", default=[], metavar="NAME=VALUE", help="as the build would give it"
    )
    parser.add_argument("--cppcheck-bytes", type=int, default=CPPCHECK_BYTES, help="bytes a tree that cppcheck reads")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default 2)")
    parser.add_argument("--sample", type=int, default=50, help="differences to list (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (default 0)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of printing")
    parser.add_argument("--differences", type=Path, metavar="FILE", help="write every difference here, one a line")
    return parser.parse_args(arguments)


def _report(options: argparse.Namespace, programs: Mapping[str, str], detectors: tuple[str, ...]) -> None:
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, seed {options.seed}")
    for tool, version in versions(programs).items():
        print(f"{tool}: {version}")
    counts: dict[Comparison, Counts] = {}
    differences: list[Difference] = []
    for path in options.paths:
        tree = Tree(path, options.define)
        record = scan(ScanOptions((tree.root,), detectors, cluster="inline", ignore=False))
        print(f"\n{tree.root.name}: {len(tree.sources)} files, {sum(map(len, tree.sources.values())):,} bytes")
        for name in tree.too_large:
            print(f"  left out, too large: {name}")
        compiled = preprocess(tree, programs["gcc"], options.jobs)
        _print_unread("cannot be compiled here", compiled.unread)
        answers = {}
        for tool in programs:
            if tool == "gcc" and "compiler-warnings" not in detectors:
                continue
            most = options.cppcheck_bytes if tool == "cppcheck" else ALL_BYTES
            answers[tool] = ask(
                tree, tool, compiled, programs=programs, jobs=options.jobs, most_bytes=most, seed=options.seed
            )
            print(f"  {tool}: read {len(answers[tool].read)} sources")
            _print_unread(f"{tool} could not read", answers[tool].unread)
            _print_unread(f"{tool} was not asked", [(path, "seeded choice") for path in answers[tool].not_asked])
        places = Places(tree)
        for comparison in COMPARISONS:
            if comparison.tool in answers:
                found = _compared(comparison, tree, places, record.findings, answers[comparison.tool])
                differences += _count(counts.setdefault(comparison, Counts()), comparison, tree.root.name, found)
    _print_counts(counts)
    if options.differences is not None:
        text = "".join("\t".join(map(str, dataclasses.astuple(one))) + "\n" for one in sorted(differences))
        options.differences.write_text(text, encoding="utf-8")
    print(f"\n{options.sample} of {len(differences)} differences, seed {options.seed}\n")
    for number, one in enumerate(_sample(differences, options.sample, options.seed), 1):
        side = f"ours only, not {one.tool}" if one.ours else f"{one.tool} only"
        print(f"{number}. {one.name}: {one.tree}/{one.path}:{one.line}: {side}: {one.text}")


def _print_unread(what: str, unread: Iterable[tuple[str, str]]) -> None:
    reasons: dict[str, list[str]] = {}
    for path, why in unread:
        reasons.setdefault(why, []).append(path)
    for why, paths in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"  {what}, {why}: {len(paths)}: {', '.join(paths)}")


def _compared(
    comparison: Comparison, tree: Tree, places: Places, findings: Iterable[LocatedFinding], answers: Answers
) -> tuple[dict[Where, str], dict[Where, str], set[Where]]:
    """Return what we say and what they say, by place, and the places of ours at which they did not look."""
    ours: dict[Where, str] = {}
    theirs: dict[Where, str] = {}
    unseen: set[Where] = set()
    for located in findings:
        if located.path not in tree.sources or not _is_ours(comparison, located):
            continue
        line = located.finding.region.start_line
        place = (located.path, places.function(located.path, line) if comparison.by_function else line)
        ours.setdefault(place, located.finding.message)
        if line not in answers.seen.get(located.path, ()):
            unseen.add(place)
    macros = places.flagged_macros(ours)
    for message in sorted(answers.messages):
        if _is_theirs(comparison, message, places):
            through = [word for word in WORD.findall(places.text(message.path, message.line)) if word in macros]
            if through and (message.path, message.line) not in ours:
                theirs.setdefault(macros[through[0]], f"{message.text} [{message.check}]")
                continue
            line = places.function(message.path, message.line) if comparison.by_function else message.line
            theirs.setdefault((message.path, line), f"{message.text} [{message.check}]")
    return ours, theirs, unseen


def _is_ours(comparison: Comparison, located: LocatedFinding) -> bool:
    known = located.finding.rule in comparison.rules or located.detector in comparison.rules
    return known and located.finding.message.startswith(comparison.ours_say)


def _is_theirs(comparison: Comparison, message: Message, places: Places) -> bool:
    if comparison.checks and message.check not in comparison.checks:
        return False
    if comparison.they_say and re.match(comparison.they_say, message.text) is None:
        return False
    return comparison.source is None or comparison.source.search(places.text(message.path, message.line)) is not None


def _count(
    counts: Counts,
    comparison: Comparison,
    tree: str,
    found: tuple[dict[Where, str], dict[Where, str], set[Where]],
) -> Iterator[Difference]:
    ours, theirs, unseen = found
    counts.agreed += len(ours.keys() & theirs.keys())
    for (path, line), text in ours.items():
        if (path, line) in theirs:
            continue
        if (path, line) in unseen:
            counts.unseen += 1
        else:
            counts.ours += 1
            yield Difference(tree, path, line, comparison.name, True, comparison.tool, text)
    for (path, line), text in theirs.items():
        if (path, line) not in ours:
            counts.theirs += 1
            yield Difference(tree, path, line, comparison.name, False, comparison.tool, text)


def _print_counts(counts: Mapping[Comparison, Counts]) -> None:
    print("\n| question | ours | theirs | agreed | ours only | theirs only | ours, not compiled there |")
    print("|---|---|---|---|---|---|---|")
    for comparison, found in counts.items():
        rules = ", ".join(rule.removeprefix("P10-") for rule in comparison.rules)
        checks = ", ".join(check.removeprefix("misra-c2012-") for check in comparison.checks)
        cells = (comparison.name, rules, f"{comparison.tool}: {checks or 'all'}")
        print(f"| {' | '.join(cells)} | {found.agreed} | {found.ours} | {found.theirs} | {found.unseen} |")


def _sample(differences: Iterable[Difference], size: int, seed: int) -> list[Difference]:
    """Draw evenly: one of each question and direction in turn, a place once, until there are `size`."""
    strata: dict[tuple[str, bool], dict[tuple[str, str, int], Difference]] = {}
    for one in sorted(differences):
        strata.setdefault((one.name, one.ours), {}).setdefault((one.tree, one.path, one.line), one)
    chooser = random.Random(seed)
    shuffled = [chooser.sample(list(members.values()), len(members)) for _, members in sorted(strata.items())]
    turns = (one for turn in itertools.zip_longest(*shuffled) for one in turn if one is not None)
    return sorted(itertools.islice(turns, size), key=lambda one: (one.name, not one.ours, one))


if __name__ == "__main__":
    raise SystemExit(main())
