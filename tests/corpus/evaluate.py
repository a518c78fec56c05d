"""
Recall and precision of the Power of Ten rules on the labelled cases beside this file (see README.md here).

    python -m tests.corpus.evaluate [--packages DIR] [--json] [--sort] [--accept]

Without `--packages` only the made cases are run. DIR is where `demo/fetch_source.py` unpacked the pinned packages.
`--accept` writes the figures of the made cases to expected.json, below which a test lets no change fall.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from detectors.detector import discover
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan

CORPUS = Path(__file__).parent
EXPECTED = CORPUS / "expected.json"
LANGUAGES = {"c": "C", "python": "Python"}
DETECTORS = ("power-of-ten-c", "power-of-ten-python", "compiler-warnings", "ruff", "mypy")
SPEAKS_FOR_R10 = {"c": ("compiler-warnings", "gcc", "clang"), "python": ("ruff", "mypy")}
"""Tools whose every finding is one of rule 10; ids are `<tool>/<its own id>`."""
SUFFIXES = {"c": {".c", ".h", ".cc", ".cpp", ".hpp"}, "python": {".py", ".pyi"}}
LABEL = re.compile(rb"(?://|/\*|#) *case: *(.*?)(?: *\*/| -- |\s*$)")
CLAUSE = re.compile(r"(P10-R(?:10|[1-9])) (violation|clean)")

Verdict = Literal["violation", "clean"]
Answers = dict[tuple[str, int], set[str]]
"""(file, line) to the rule ids reported there."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One judged line."""

    package: str
    """Empty for a made case."""
    version: str
    file: str
    """Below the top folder of the distribution, or below tests/corpus."""
    line: int
    rule: str
    verdict: Verdict
    why: str


class Tally(msgspec.Struct):
    """What became of the cases of one rule."""

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    quiet: int = 0
    unanswered: int = 0


class Wrong(msgspec.Struct, frozen=True):
    """A case on which rule and label differ, or that had no answer."""

    origin: str
    language: str
    case: Case
    got: str


def found_cases(language: str) -> list[Case]:
    """Return the cases of published packages; none when the file is not there."""
    file = CORPUS / "found" / f"{language}.json"
    return msgspec.json.decode(file.read_bytes(), type=list[Case]) if file.is_file() else []


def made_cases(language: str) -> list[Case]:
    """
    Return the cases written in our own files.

    Raises:
        ValueError: A label that cannot be read, or one rule twice on a line.
    """
    folder = CORPUS / "made" / language
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES[language])
    return [case for file in files for case in _labels(file)]


def _labels(file: Path) -> Iterator[Case]:
    name = file.relative_to(CORPUS).as_posix()
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        label = LABEL.search(line)
        if label is None:
            continue
        seen: set[str] = set()
        for clause in label[1].decode().split(";"):
            read = CLAUSE.fullmatch(clause.strip())
            if read is None or read[1] in seen:
                raise ValueError(f"{name}:{number}: cannot read the label {clause!r}")
            seen.add(read[1])
            verdict: Verdict = "violation" if read[2] == "violation" else "clean"
            yield Case(package="", version="", file=name, line=number, rule=read[1], verdict=verdict, why="")


def run_made(language: str, cache: Path | None = None) -> Iterator[tuple[Case, str | None]]:
    """Yield each made case and what was reported: ids, an empty text, or `None` for no answer."""
    folder = CORPUS / "made" / language
    cases: dict[str, list[Case]] = defaultdict(list)
    for case in made_cases(language):
        inner = Path(case.file).relative_to(f"made/{language}")
        cases[inner.parts[0]].append(case)
    for top, mine in sorted(cases.items()):
        place = folder / top
        # A file by itself: its neighbours must not answer for it.
        scope: tuple[str, ...] = () if place.is_dir() else (f"/{top}",)
        root, prefix = (place, f"made/{language}/{top}/") if place.is_dir() else (folder, f"made/{language}/")
        yield from _answers(language, root, mine, prefix, scope, cache)


def run_found(language: str, packages: Path, cache: Path | None = None) -> Iterator[tuple[Case, str | None]]:
    """Yield each case of a package and what was reported in it; a package that is not there has no answers."""
    cases: dict[str, list[Case]] = defaultdict(list)
    for case in found_cases(language):
        cases[f"{case.package}-{case.version}"].append(case)
    for place, mine in sorted(cases.items()):
        if (packages / place).is_dir():
            yield from _answers(language, packages / place, mine, "", (), cache)
        else:
            yield from ((case, None) for case in mine)


def _answers(
    language: str, root: Path, cases: list[Case], prefix: str, include: tuple[str, ...], cache: Path | None
) -> Iterator[tuple[Case, str | None]]:
    installed = {detector.name for detector in discover()}
    # Tools take seconds to start: only where a case asks for them.
    wanted = {name for case in cases for name in _speakers(case.rule, language)}
    names = tuple(name for name in DETECTORS if name in installed & wanted)
    record = scan(ScanOptions((root,), detectors=names, cache=cache, include=include, ignore=False))
    reported: Answers = defaultdict(set)
    for located in record.findings:
        reported[prefix + located.path, located.finding.region.start_line].add(located.finding.rule)
    answering = _answering(record, prefix)
    for case in cases:
        ids = {rule for rule in reported[case.file, case.line] if speaks_for(rule, case.rule, language)}
        answered = bool(answering[case.file] & _speakers(case.rule, language))
        yield case, " ".join(sorted(ids)) if answered or ids else None


def _answering(record: RunRecord, prefix: str) -> dict[str, set[str]]:
    """Return the detectors that gave an answer for each file."""
    answering: dict[str, set[str]] = defaultdict(set)
    for unit in record.units:
        if unit.state != "not-analysed":
            answering[prefix + unit.path].add(unit.detector)
    return answering


def _speakers(rule: str, language: str) -> set[str]:
    return set(SPEAKS_FOR_R10[language]) if rule == "P10-R10" else {f"power-of-ten-{language}"}


def speaks_for(found: str, rule: str, language: str) -> bool:
    """Tell whether a finding's rule id is one of the Power of Ten rule `rule`."""
    tool = found.partition("/")[0] if "/" in found else ""
    return found.startswith(f"{rule}-") or (rule == "P10-R10" and tool in SPEAKS_FOR_R10[language])


def wilson(good: int, count: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share, after Wilson; `None` of nothing."""
    if count == 0:
        return None
    z = 1.959963984540054
    share, square = good / count, z * z
    centre = share + square / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + square / count)), min(1.0, (centre + spread) / (1 + square / count))


class Evaluation:
    """
    Tallies by (origin, language, rule), and what went wrong.

    Args:
        packages: Folder of the unpacked packages; `None` for the made cases only.
        cache: Folder for the scan's answers, or `None`.
    """

    def __init__(self, packages: Path | None = None, cache: Path | None = None) -> None:
        self.tallies: dict[tuple[str, str, str], Tally] = defaultdict(Tally)
        self.wrong: list[Wrong] = []
        for language in LANGUAGES:
            self._add("made", language, run_made(language, cache))
            if packages is not None:
                self._add("found", language, run_found(language, packages, cache))

    def _add(self, origin: str, language: str, answers: Iterable[tuple[Case, str | None]]) -> None:
        for case, got in answers:
            tally = self.tallies[origin, language, case.rule]
            if got is None:
                tally.unanswered += 1
            elif case.verdict == "violation":
                tally.hits, tally.misses = tally.hits + bool(got), tally.misses + (not got)
            else:
                tally.false_alarms, tally.quiet = tally.false_alarms + bool(got), tally.quiet + (not got)
            if got is None or bool(got) != (case.verdict == "violation"):
                self.wrong.append(Wrong(origin, language, case, "unanswered" if got is None else got or "nothing"))

    def rows(self) -> list[dict[str, object]]:
        """Return the figures, a row for each origin, language and rule."""
        return [
            {"origin": origin, "language": LANGUAGES[language], "rule": rule, **figures(tally)}
            for (origin, language, rule), tally in sorted(
                self.tallies.items(), key=lambda item: (item[0][0], item[0][1], int(item[0][2].removeprefix("P10-R")))
            )
        ]


def figures(tally: Tally) -> dict[str, object]:
    """Return recall and precision with their counts and intervals; `None` where there is nothing to divide by."""
    violations, reported = tally.hits + tally.misses, tally.hits + tally.false_alarms
    return {
        "recall": tally.hits / violations if violations else None,
        "recall_interval": wilson(tally.hits, violations),
        "violations": violations,
        "precision": tally.hits / reported if reported else None,
        "precision_interval": wilson(tally.hits, reported),
        "reported": reported,
        "clean": tally.false_alarms + tally.quiet,
        "unanswered": tally.unanswered,
    }


def accept(evaluation: Evaluation) -> None:
    """Write what the made cases gave, rounded down, as what is expected from now on."""
    expected: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in evaluation.rows():
        measured = {name: row[name] for name in ("recall", "precision")}
        if row["origin"] == "made":
            expected[str(row["language"])][str(row["rule"])] = {
                name: math.floor(value * 1000) / 1000 for name, value in measured.items() if isinstance(value, float)
            }
    EXPECTED.write_text(json.dumps(expected, indent=2) + "\n", "utf-8")


def _share(value: object, interval: object, count: object) -> str:
    if not isinstance(value, float) or not isinstance(interval, tuple):
        return f"{'-':>7} {'':>13} n={count}"
    return f"{value:7.1%} [{interval[0]:.0%}, {interval[1]:.0%}]".ljust(22) + f"n={count}"


def text(evaluation: Evaluation) -> str:
    """Return the figures and the wrong cases for people."""
    lines = [f"{'origin':7} {'lang':7} {'rule':8} {'recall':>28}   {'precision':>28}   clean  unanswered"]
    for row in evaluation.rows():
        recall = _share(row["recall"], row["recall_interval"], row["violations"])
        precision = _share(row["precision"], row["precision_interval"], row["reported"])
        lines.append(
            f"{row['origin']:7} {row['language']:7} {row['rule']:8} {recall:28}   {precision:28}   "
            f"{row['clean']:5}  {row['unanswered']:10}"
        )
    lines.append("")
    for wrong in evaluation.wrong:
        case = wrong.case
        package = f"{case.package}-{case.version}/" if case.package else "tests/corpus/"
        lines.append(f"{package}{case.file}:{case.line}: {case.rule} expected {case.verdict}, got {wrong.got}")
    return "\n".join(lines) + "\n"


def sort_found() -> None:
    """Write the files of found cases in their order, a case a line."""
    for language in LANGUAGES:
        cases = sorted(found_cases(language), key=lambda case: (case.package, case.file, case.line, case.rule))
        places = [(case.package, case.file, case.line, case.rule) for case in cases]
        if len(set(places)) != len(places):
            twice = next(place for place in places if places.count(place) > 1)
            raise ValueError(f"twice: {twice}")
        body = ",\n".join(json.dumps(msgspec.to_builtins(case), ensure_ascii=False) for case in cases)
        if cases:
            (CORPUS / "found" / f"{language}.json").write_text(f"[\n{body}\n]\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; exit code 0 whatever the figures are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="folder of the unpacked packages; without it, made cases only")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--sort", action="store_true", help="only put the files of found cases in order")
    parser.add_argument("--accept", action="store_true", help="write the figures of the made cases to expected.json")
    chosen = parser.parse_args(arguments)
    if chosen.sort:
        sort_found()
        return 0
    with tempfile.TemporaryDirectory() as cache:
        evaluation = Evaluation(chosen.packages, Path(cache))
    if chosen.accept:
        accept(evaluation)
    if chosen.json:
        whole = {"rules": evaluation.rows(), "wrong": msgspec.to_builtins(evaluation.wrong)}
        sys.stdout.write(json.dumps(whole, indent=1) + "\n")
    else:
        sys.stdout.write(text(evaluation))
    return 0


if __name__ == "__main__":
    sys.exit(main())
