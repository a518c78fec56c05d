"""
Carry-forward: that the evidence of release A holds for the unchanged part of release B.

A unit (a file and a detector) is carried where all that decides its answer is the same in both: the file's content, its
closure (headers, imports), the detector's code, version and settings, the interpreter. That is what a unit's key in
`run.json` stands for (`detectors.cache.result_key`). Everything else was done anew, and is listed with the reason.
Rules over the whole tree are carried where nothing that they read has changed, which is every unit of their group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from compliance.assurance_statement import Evidence, signed_statement
from compliance.errors import NotCarried
from compliance.signing import SigningKey
from compliance.unit_findings import Unit, of_whole_tree, recorded_answers
from detectors.detector import RuleGroup, discover
from detectors.model import RunRecord, UnitRecord

__all__ = ["PREDICATE_TYPE", "Anew", "CarryForward", "carry", "statement_of"]

PREDICATE_TYPE = "urn:enterprise-detector-pool:predicate:carry-forward:v1"


class Anew(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A unit that is not carried, and why."""

    path: str
    detector: str
    reason: str


class CarryForward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The predicate."""

    from_run: str
    to_run: str
    units: int
    """Of release B; carried and done anew."""
    carried: int
    carried_digest: str
    """Sha256 over the carried units of B: path, zero byte, detector, zero byte, key, newline, in order of path."""
    anew: tuple[Anew, ...]
    gone: tuple[tuple[str, str], ...]
    """Units of A that B has not."""
    whole_tree_rules: dict[str, bool]
    """By group of rules: whether what its rules over the whole tree say is carried."""
    contradictions: tuple[Anew, ...]
    """Units with equal keys and unequal answers: one of the two runs is wrong, and neither is carried."""


def carry(a: Evidence, b: Evidence) -> CarryForward:
    """
    Compare two runs unit by unit.

    Args:
        a: Evidence of the earlier release, verified.
        b: Of the later one, verified.

    Raises:
        NotCarried: A record does not say what decided its answers, or a run is not whole.
    """
    for evidence in (a, b):
        _check(evidence.record)
    before, after = _units(a.record), _units(b.record)
    differences = _Differences(a.record, b.record)
    beyond = of_whole_tree(discover())
    then, now = recorded_answers(a.record, beyond), recorded_answers(b.record, beyond)
    anew, contradictions, carried = [], [], []
    for unit, record in sorted(after.items()):
        reason = differences.reason(unit, before.get(unit), record)
        if reason:
            anew.append(Anew(*unit, reason))
        elif _without_suppressions(then[unit]) != _without_suppressions(now[unit]):
            contradictions.append(Anew(*unit, "equal keys, and other findings"))
        else:
            carried.append((*unit, record.key))
    assert len(anew) + len(contradictions) + len(carried) == len(after), "each unit of B is accounted for"
    changed = {item.detector for item in (*anew, *contradictions)} | {name for _, name in before.keys() - after.keys()}
    return CarryForward(
        from_run=a.record.run_id,
        to_run=b.record.run_id,
        units=len(after),
        carried=len(carried),
        carried_digest=_digest(carried),
        anew=tuple(anew),
        gone=tuple(sorted(before.keys() - after.keys())),
        whole_tree_rules=_whole_tree(b.record, changed),
        contradictions=tuple(contradictions),
    )


def statement_of(a: Evidence, b: Evidence, told: CarryForward, key: SigningKey) -> bytes:
    """Return the signed statement's file; its subjects are both attestations."""
    assert told.carried + len(told.anew) + len(told.contradictions) == told.units, "each unit is accounted for"
    assert (told.from_run, told.to_run) == (a.record.run_id, b.record.run_id), "it speaks of these two"
    assert all(one.verdict.ok for one in (a, b)), "nothing is stated of evidence that does not verify"
    return signed_statement((a, b), PREDICATE_TYPE, told, key)


class _Differences:
    """What differs between two runs, so that a reason can be told for each unit."""

    def __init__(self, a: RunRecord, b: RunRecord) -> None:
        self._contents = [{file.path: file.digest for file in run.files} for run in (a, b)]
        self._detectors = [{item.name: item for item in run.detectors} for run in (a, b)]
        self._same_platform = a.platform == b.platform
        assert all(unit.detector in self._detectors[1] for unit in b.units), "a unit is of a detector that ran"

    def reason(self, unit: Unit, before: UnitRecord | None, after: UnitRecord) -> str:
        """Return why a unit is not carried; empty where it is."""
        path, name = unit
        if before is None:
            return "the detector is new" if name not in self._detectors[0] else "the file is new"
        if "not-analysed" in (before.state, after.state):
            return "it was not analysed" + (" in the earlier run" if after.state != "not-analysed" else "")
        assert after.key, "a key that says nothing would equal another"
        if before.key == after.key:
            return ""
        if self._contents[0].get(path) != self._contents[1].get(path):
            return "the file changed"
        then, now = (detectors[name] for detectors in self._detectors)
        if then.version != now.version:
            return f"the detector's version changed from {then.version} to {now.version}"
        if then.code_digest != now.code_digest:
            return "the detector's code changed"
        if then.config_digest != now.config_digest:
            return "the detector's settings changed"
        told = "" if self._same_platform else ", or the platform"
        return f"a file that it includes or imports changed{told}"


def _check(record: RunRecord) -> None:
    if not all(unit.key for unit in record.units):
        raise NotCarried(f"the run {record.run_id} does not say what decided its answers; an early release made it")
    if not record.whole:
        raise NotCarried(f"the run {record.run_id} is not whole: {'; '.join(record.problems[:3])}")
    assert len(_units(record)) == len(record.units), "a unit stands once in a record"


def _units(record: RunRecord) -> Mapping[Unit, UnitRecord]:
    found = {(unit.path, unit.detector): unit for unit in record.units}
    assert all(path and name for path, name in found), "a unit is of a file and of a detector"
    return found


def _whole_tree(record: RunRecord, changed: set[str]) -> dict[str, bool]:
    """Tell of each group with rules over the whole tree whether all that they read is carried."""
    ran = {item.name for item in record.detectors}
    groups = [item for item in discover() if isinstance(item, RuleGroup) and item.tree_rules and item.name in ran]
    found = {group.name: not changed & {group.name, *group.needs} for group in groups}
    assert found.keys() <= ran, "it speaks of what ran"
    return found


def _without_suppressions(lines: Iterable[bytes]) -> list[bytes]:
    """Return findings without their suppressions, which end with a day and not with a change of the source."""
    found = [msgspec.json.decode(line) for line in lines]
    assert all(isinstance(item, dict) for item in found), "a finding is an object"
    return sorted(
        msgspec.json.encode({name: value for name, value in item.items() if name != "suppression"}) for item in found
    )


def _digest(carried: Iterable[tuple[str, str, str]]) -> str:
    listed = sorted(carried)
    assert all(key for _, _, key in listed), "what is carried has a key"
    return hashlib.sha256("".join(f"{path}\0{name}\0{key}\n" for path, name, key in listed).encode()).hexdigest()
