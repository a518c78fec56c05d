"""
The Power-of-Ten score of a run: for each rule, the share of what keeps it.

Rules 5, 8 and 10 are of files, rule 4 of functions; the others of functions and, for what stands outside of them, of
each file's top level. A finding belongs to the innermost function whose lines hold it. The score is the mean over the
rules that were scored, in per cent; under five scored rules there is none.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from detectors.model import FunctionSpan, LocatedFinding, RunRecord

__all__ = ["DETECTORS", "RULES", "RuleScore", "Score", "score_of"]

RULES = tuple(f"R{number}" for number in range(1, 11))
OF_FILES = frozenset({"R5", "R8", "R10"})
OF_FUNCTIONS = frozenset({"R4"})
RULE_ID = re.compile(r"P10-(R\d+)-")
WARNERS = {"c": ("compiler-warnings",), "cpp": ("compiler-warnings",), "python": ("ruff", "mypy")}
"""The detectors that speak for rule 10, by language."""
DETECTORS = ("power-of-ten-c", "power-of-ten-python", *sorted({name for names in WARNERS.values() for name in names}))
"""Whose findings are scored."""
FEWEST_RULES = 5
TOP_LEVEL = -1
"""Stands for a file's code outside of functions."""


class RuleScore(msgspec.Struct, frozen=True, omit_defaults=False):
    """One rule's part of the score."""

    checked: int
    """Functions, top levels or files that were looked at."""
    violations: int
    """How many of them break the rule, without those that are suppressed or waived."""
    strict_violations: int
    """How many of them break the rule, suppressed, waived or not."""
    score: float | None
    """Per cent, 0 to 100; none where nothing was checked or a tool is missing."""
    strict_score: float | None
    problem: str = ""
    """Why there is no score."""


class Score(msgspec.Struct, frozen=True):
    """The score of a run."""

    score: float | None
    strict_score: float | None
    """With suppressed and waived findings counted as violations."""
    rules: dict[str, RuleScore]


def score_of(run: RunRecord, functions: Mapping[str, Sequence[FunctionSpan]]) -> Score:
    """
    Score a run.

    Args:
        run: Of the Power of Ten's detectors at least.
        functions: By report path, of every file that they analysed; empty for a file without functions.
    """
    assert functions.keys() <= {file.path for file in run.files}, "they are of files of this run"
    places = {path: _Places(spans) for path, spans in functions.items()}
    rules = {rule: _rule(rule, run, places) for rule in RULES}
    score = _mean([rule.score for rule in rules.values()])
    strict_score = _mean([rule.strict_score for rule in rules.values()])
    assert score is None or strict_score is None or strict_score <= score, "suppressed findings better no score"
    return Score(score, strict_score, rules)


class _Places:
    """Which function each line of a file belongs to."""

    def __init__(self, spans: Sequence[FunctionSpan]) -> None:
        self.count = len(spans)
        self._starts: list[int] = []
        self._owners: list[int] = []
        opened: list[tuple[int, int]] = []
        order = sorted(range(len(spans)), key=lambda number: (spans[number].start_line, -spans[number].end_line))
        for number in order:
            self._leave(opened, spans[number].start_line)
            opened.append((spans[number].end_line, number))
            self._mark(spans[number].start_line, number)
        self._leave(opened, 1 << 62)
        assert not opened, "every function ends"
        assert bool(self._starts) == bool(spans), "each function changes who the owner is"

    def owner(self, line: int) -> int:
        """Return the number of the innermost function that holds a line, or TOP_LEVEL."""
        assert line >= 1, "lines count from 1"
        place = bisect.bisect_right(self._starts, line) - 1
        found = self._owners[place] if place >= 0 else TOP_LEVEL
        assert TOP_LEVEL <= found < self.count, "it is one of the functions, or none"
        return found

    def _leave(self, opened: list[tuple[int, int]], line: int) -> None:
        assert line >= 1, "lines count from 1"
        for end, _ in opened[::-1]:
            if end >= line:
                break
            opened.pop()
            self._mark(end + 1, opened[-1][1] if opened else TOP_LEVEL)
        assert not opened or opened[-1][0] >= line, "who is left ends on this line or later"

    def _mark(self, line: int, owner: int) -> None:
        assert TOP_LEVEL <= owner < self.count, "it is one of the functions, or none"
        if self._starts and self._starts[-1] == line:
            self._owners[-1] = owner
        else:
            self._starts.append(line)
            self._owners.append(owner)
        assert len(self._starts) == len(self._owners), "each line at which the owner changes has one"


def _rule(rule: str, run: RunRecord, places: Mapping[str, _Places]) -> RuleScore:
    assert rule in RULES, "there are ten"
    if rule == "R10" and (missing := _missing_warners(run, places)):
        return RuleScore(0, 0, 0, None, None, missing)
    if rule in OF_FILES:
        checked = len(places)
    else:
        checked = sum(place.count for place in places.values()) + (0 if rule in OF_FUNCTIONS else len(places))
    strict: set[tuple[str, int]] = set()
    open_: set[tuple[str, int]] = set()
    for finding in _of_rule(rule, run.findings):
        place = places.get(finding.path)
        if place is None:
            continue
        line = finding.finding.region.start_line
        unit = finding.path, TOP_LEVEL if rule in OF_FILES else place.owner(line)
        strict.add(unit)
        if not finding.excused:
            open_.add(unit)
    assert open_ <= strict, "what breaks a rule breaks it strictly"
    if not checked:
        return RuleScore(0, 0, 0, None, None, "nothing to check")
    kept, strictly = 100 * (checked - len(open_)) / checked, 100 * (checked - len(strict)) / checked
    return RuleScore(checked, len(open_), len(strict), kept, strictly)


def _of_rule(rule: str, findings: Iterable[LocatedFinding]) -> Iterable[LocatedFinding]:
    warners = {name for names in WARNERS.values() for name in names}
    assert warners <= set(DETECTORS), "who speaks for rule 10 is run"
    for finding in findings:
        named = RULE_ID.match(finding.finding.rule)
        if (named is not None and named[1] == rule) or (rule == "R10" and finding.detector in warners):
            yield finding


def _missing_warners(run: RunRecord, places: Mapping[str, _Places]) -> str:
    """Return which detectors of rule 10 did not answer for all files; empty if all did."""
    if not places:
        return ""
    ran = {detector.name for detector in run.detectors}
    wanted = {name for file in run.files if file.path in places for name in WARNERS.get(file.language, ())}
    silent = {entry.detector for entry in run.not_analysed if entry.detector in wanted}
    missing = sorted((wanted - ran) | silent)
    assert wanted.issuperset(missing), "nobody is missed who was not wanted"
    return f"without an answer for every file: {', '.join(missing)}" if missing else ""


def _mean(scores: Sequence[float | None]) -> float | None:
    assert len(scores) == len(RULES), "a rule without a score is in it, too"
    if len(known := [score for score in scores if score is not None]) < FEWEST_RULES:
        return None
    return sum(known) / len(known)
