"""
What a record says of one unit (a file and a detector), in one spelling, so that two runs can be compared by it.

Left out is what no unit decides alone: findings of rules over the whole tree and of the suppressions themselves, the
fingerprint's ordinal, and the state against a baseline.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from detectors import suppressions
from detectors.detector import Registry, RuleGroup, Tool
from detectors.model import Analysed, Finding, NotAnalysed, Outcome, RunRecord

__all__ = ["Unit", "digest_of", "fresh_answers", "of_whole_tree", "recorded_answers"]

Unit = tuple[str, str]
"""(report path, detector)."""


def of_whole_tree(registry: Registry) -> frozenset[str]:
    """Return the ids of rules whose findings no file decides alone."""
    groups = [detector for detector in registry if isinstance(detector, RuleGroup)]
    found = frozenset(rule.id for group in groups for rule in group.tree_rules)
    assert not found & {rule.id for group in groups for rule in group.file_rules}, "a rule is of files or of trees"
    return found | {rule.id for rule in suppressions.RULES}


def recorded_answers(record: RunRecord, beyond: frozenset[str]) -> dict[Unit, tuple[bytes, ...]]:
    """
    Return what a record says of each unit: its findings, one canonical JSON each, in order; or why there are none.

    Args:
        record: Of the run.
        beyond: Rules that are left out; see `of_whole_tree`.
    """
    found: dict[Unit, list[bytes]] = {(unit.path, unit.detector): [] for unit in record.units}
    for item in record.findings:
        if item.finding.rule not in beyond and (item.path, item.detector) in found:
            found[item.path, item.detector].append(_spelled(item.finding))
    for entry in record.not_analysed:
        if (entry.path, entry.detector) in found:
            found[entry.path, entry.detector].append(_reason(entry))
    assert len(found) == len(record.units), "a unit has one answer"
    return {unit: tuple(sorted(lines)) for unit, lines in found.items()}


def fresh_answers(
    outcomes: Mapping[Unit, Outcome], registry: Registry, day: datetime.date, beyond: frozenset[str]
) -> dict[Unit, tuple[bytes, ...]]:
    """
    Return the same of answers that were just computed.

    Args:
        outcomes: With those of the rule groups for each file of a sample, which read the file's suppressions.
        registry: The detectors.
        day: Of the run that is compared with: a suppression has its last day.
        beyond: As `recorded_answers`.
    """
    found: dict[Unit, list[bytes]] = {unit: [] for unit in outcomes}
    markers = {
        unit: outcome.report.markers for unit, outcome in sorted(outcomes.items()) if isinstance(outcome, Analysed)
    }
    speakers = {item.name: item.speaks_for for item in registry if isinstance(item, Tool) and item.speaks_for}
    for path, detector, finding in suppressions.applied(_found(outcomes), markers, day, {}, speakers):
        if finding.rule not in beyond:
            found[path, detector].append(_spelled(finding))
    for unit, outcome in outcomes.items():
        if isinstance(outcome, NotAnalysed):
            found[unit].append(_reason(outcome))
    assert found.keys() == outcomes.keys(), "a unit has one answer"
    return {unit: tuple(sorted(lines)) for unit, lines in found.items()}


def digest_of(lines: Iterable[bytes]) -> str:
    """Return the sha256 over an answer's lines, hexadecimal."""
    state = hashlib.sha256()
    for line in lines:
        assert b"\n" not in line, "JSON without spaces is one line"
        state.update(line + b"\n")
    return state.hexdigest()


def _found(outcomes: Mapping[Unit, Outcome]) -> Iterator[tuple[str, str, Finding]]:
    for (path, detector), outcome in outcomes.items():
        if isinstance(outcome, Analysed):
            yield from ((path, detector, finding) for finding in outcome.report.findings)


def _spelled(finding: Finding) -> bytes:
    assert finding.rule, "a finding has a rule"
    return msgspec.json.encode(finding, order="deterministic")


def _reason(entry: NotAnalysed) -> bytes:
    assert entry.detector, "what no detector was asked about is of no unit"
    return msgspec.json.encode({"not_analysed": entry.reason})
