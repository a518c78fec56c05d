"""
Agreement between independent detectors of one question, from one run's record.

What is rated is a file: does the detector report the question in it or not. Only files that both analysed count.
Cohen's kappa is what they agree on beyond chance; there is none where both always say the same.

Source: Cohen, "A coefficient of agreement for nominal scales", Educ. Psychol. Meas. 20(1), 1960.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec

from detectors.model import RunRecord

__all__ = ["QUESTIONS", "Agreement", "Disagreement", "agreements"]

QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "recursion": {"power-of-ten-c": ("P10-R1-recursion",), "clang-tidy": ("clang-tidy/misc-no-recursion",)},
    "inner scope": {"power-of-ten-c": ("P10-R6-inner-scope",), "cppcheck": ("cppcheck/variableScope",)},
    "unread results": {
        "power-of-ten-c": ("P10-R7-unread-result",),
        "clang-tidy": ("clang-tidy/clang-analyzer-deadcode.DeadStores",),
        "cppcheck": ("cppcheck/unreadVariable", "cppcheck/redundantAssignment"),
    },
    "null pointers": {
        "power-of-ten-c": ("P10-R7-unchecked-parameter",),
        "clang-tidy": ("clang-tidy/clang-analyzer-core.NullDereference",),
        "cppcheck": ("cppcheck/nullPointer", "cppcheck/nullPointerRedundantCheck"),
    },
    "long or complex functions": {
        "power-of-ten-c": ("P10-R4-function-length",),
        "power-of-ten-python": ("P10-R4-python-function-length",),
        "lizard": ("lizard/cyclomatic-complexity",),
    },
    "computed code": {"power-of-ten-python": ("P10-R8-python-dynamic-code",), "bandit": ("bandit/B307", "bandit/B102")},
    "swallowed exceptions": {
        "power-of-ten-python": ("P10-R7-python-swallowed-exception",), "bandit": ("bandit/B110", "bandit/B112"),
    },
}  # fmt: skip
"""What detectors are asked, and the ids by which each answers; related questions, not always the same one."""
MAX_LINES = 20


class Disagreement(msgspec.Struct, frozen=True):
    """A file in which one reports what the other does not."""

    path: str
    by: str
    """Who reports it."""
    lines: tuple[int, ...]
    """Where; the first twenty."""


class Agreement(msgspec.Struct, frozen=True):
    """Two detectors on one question."""

    question: str
    first: str
    second: str
    files: int
    """That both analysed."""
    both: int
    neither: int
    kappa: float | None
    disagreements: tuple[Disagreement, ...]


def agreements(run: RunRecord) -> tuple[Agreement, ...]:
    """Return each question for each two detectors of it that ran; empty where no two did."""
    ran = {detector.name for detector in run.detectors}
    analysed: dict[str, set[str]] = {name: set() for name in ran}
    for unit in run.units:
        if unit.state != "not-analysed":
            analysed[unit.detector].add(unit.path)
    found = []
    for question, answers in QUESTIONS.items():
        for first, second in itertools.combinations([name for name in answers if name in ran], 2):
            files = sorted(analysed[first] & analysed[second])
            if files:
                places = [_places(run, name, answers[name]) for name in (first, second)]
                found.append(_agreement(question, (first, second), files, places))
    assert len({(one.question, one.first, one.second) for one in found}) == len(found), "each is asked once"
    return tuple(found)


def _agreement(
    question: str, names: tuple[str, str], files: list[str], places: list[dict[str, list[int]]]
) -> Agreement:
    from sklearn.metrics import cohen_kappa_score

    assert files, "agreement is over files that both analysed"
    said = [[path in where for path in files] for where in places]
    both = sum(a and b for a, b in zip(*said, strict=True))
    neither = sum(not a and not b for a, b in zip(*said, strict=True))
    constant = all(len(set(answers)) == 1 for answers in said)
    kappa = None if constant else float(cohen_kappa_score(*said))
    assert kappa is None or -1 <= kappa <= 1, "Cohen's kappa lies between -1 and 1"
    differing = tuple(_differing(names, files, places))
    assert both + neither + len(differing) == len(files), "each file is agreed on or not"
    return Agreement(question, *names, len(files), both, neither, kappa, differing)


def _differing(names: tuple[str, str], files: list[str], places: list[dict[str, list[int]]]) -> Iterator[Disagreement]:
    assert len(places) == len(names), "each has said something"
    assert len(set(names)) == len(names), "who is held beside himself agrees"
    for path in files:
        saying = [number for number, where in enumerate(places) if path in where]
        if len(saying) == 1:
            yield Disagreement(path, names[saying[0]], tuple(places[saying[0]][path][:MAX_LINES]))


def _places(run: RunRecord, detector: str, rules: tuple[str, ...]) -> dict[str, list[int]]:
    assert rules, "a question has ids"
    places: dict[str, list[int]] = {}
    for item in run.findings:
        if item.detector == detector and item.finding.rule in rules:
            places.setdefault(item.path, []).append(item.finding.region.start_line)
    assert all(places.values()), "a place has a line"
    return places
