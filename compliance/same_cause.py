"""
Findings of several tools for one cause, shown once: nothing is merged or dropped, only what is shown is put together.

Two findings have one cause where they stand on the same line of the same file, are of different detectors, count alike
(suppressed, waived, new or not), and their rules are known to be about the same: they have one number of their own
(ruff took over bandit's), answer one question (`compliance.agreement`), or map to one weakness
(`compliance.taxonomies`). Everything else stays apart.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from compliance.agreement import QUESTIONS
from compliance.followed import Followed
from compliance.taxonomies import CWE, taxa_of
from detectors.model import LocatedFinding

__all__ = ["SharedCause", "shared_causes", "with_also"]

SAME_NUMBER: Final = (re.compile(r"(?:.*/)?bandit/B(\d{3})\Z"), re.compile(r"(?:.*/)?ruff/S(\d{3})\Z"))
"""Ruff's rules S101 to S999 are those of flake8-bandit, which keep bandit's numbers."""
Place = tuple[str, int]
"""(path and how its findings count, line)."""


class SharedCause(msgspec.Struct, frozen=True):
    """One finding, and the others that report the same."""

    first: LocatedFinding
    also: tuple[LocatedFinding, ...]

    def others(self) -> tuple[str, ...]:
        """Return the rules of the others, each with its level where that is another."""
        level = self.first.finding.level
        found = (item.finding for item in self.also)
        return tuple(one.rule if one.level == level else f"{one.rule} ({one.level})" for one in found)


def shared_causes(findings: Sequence[LocatedFinding]) -> tuple[SharedCause, ...]:
    """
    Return all findings, put together by cause; each is in one of them, in its order.

    Args:
        findings: Of one run.
    """
    rows = [
        (
            f"{item.path}\0{item.excused}{item.baseline}",
            item.finding.region.start_line,
            item.detector,
            item.finding.rule,
        )
        for item in findings
    ]
    groups = _grouped(rows)
    assert sorted(number for group in groups for number in group) == list(range(len(findings))), "none is lost"
    return tuple(SharedCause(findings[group[0]], tuple(findings[number] for number in group[1:])) for group in groups)


def with_also(findings: Sequence[Followed]) -> tuple[Followed, ...]:
    """Return the findings, the first of each cause with the fingerprints of the others."""
    also: dict[int, tuple[str, ...]] = {}
    rows = [
        (f"{one.tree}\0{one.path}\0{one.suppressed}{bool(one.waived)}{one.state}", one.line, one.detector, one.rule)
        for one in findings
    ]
    for group in _grouped(rows):
        also[group[0]] = tuple(findings[number].fingerprint for number in group[1:])
    told = tuple(msgspec.structs.replace(one, also=also.get(number, ())) for number, one in enumerate(findings))
    assert len(told) == len(findings), "none is lost"
    return told


def _grouped(rows: Sequence[tuple[str, int, str, str]]) -> list[list[int]]:
    """Return the numbers of rows (place, line, detector, rule) that have one cause, each group in order."""
    at: dict[Place, list[int]] = defaultdict(list)
    for number, (path, line, _, _) in enumerate(rows):
        at[path, line].append(number)
    groups: list[list[int]] = []
    for numbers in at.values():
        groups += _at_one_place(rows, numbers)
    return sorted(groups)


def _at_one_place(rows: Sequence[tuple[str, int, str, str]], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Join what shares a meaning; two findings of one detector are two."""
    groups: list[tuple[set[str], set[str], list[int]]] = []
    for number in numbers:
        _, _, detector, rule = rows[number]
        meanings = set(_meanings(rule))
        home = next((group for group in groups if detector not in group[0] and meanings & group[1]), None)
        if home is None:
            groups.append(({detector}, meanings, [number]))
        else:
            home[0].add(detector)
            # What all of a group share stays its meaning, or a chain would join what has nothing in common.
            home[1].intersection_update(meanings)
            home[2].append(number)
    assert sum(len(group) for _, _, group in groups) == len(numbers), "each is in one group"
    yield from (group for _, _, group in groups)


def _meanings(rule: str) -> Iterator[str]:
    """Yield what a rule is about."""
    yield f"rule {rule.removeprefix('import:')}"
    for pattern in SAME_NUMBER:
        if found := pattern.match(rule):
            yield f"bandit {found.group(1)}"
    for question, answers in QUESTIONS.items():
        if any(rule in ids for ids in answers.values()):
            yield f"question {question}"
    yield from (f"weakness {id_}" for taxonomy, id_ in taxa_of(rule) if taxonomy == CWE)
