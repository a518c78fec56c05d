"""
The coverage statement: for every file and detector one state, made of the run's record, and held against it again.

Rules are folded: all rules of a detector share its cell, since they share one read of the file. What differs by rule
stands apart: suppressions by rule, and rules of fewer languages than their detector. A cell is a place in `cells`, so
that a matrix of thousands of files stays small. Equal records give equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from compliance.attestation import Predicate, snapshot_root
from compliance.errors import AttestationInvalid, CoverageIncomplete
from detectors.canaries import SEED_BYTES, commitment
from detectors.deadline import STATED, calibration
from detectors.model import CanaryRecord, Excluded, NotAnalysed, Reason, RunRecord, UnitRecord

__all__ = [
    "NAME",
    "RECORD",
    "Cell",
    "Coverage",
    "State",
    "dumps",
    "gaps",
    "problem_in",
    "problems_of",
    "require_whole",
    "stated",
]

NAME, RECORD = "coverage.json", "run.json"
SHOWN: Final = 5
"""Problems that a message names; the rest are counted."""
State = Literal[
    "analysed", "from-cache", "not-applicable", "excluded", "failed", "timed-out", "breaker-open", "unreadable",
    "not-reached", "unaccounted",
]  # fmt: skip
"""
`excluded`: policy keeps the detector from the file (`--since`). `unaccounted`: the detector knows the file's language,
and the record has no unit. `not-reached`: the same, and the record says that a deadline came before. Neither of these
two is ever in a whole run.
"""
_OF_REASON: Final[Mapping[Reason, State]] = {
    "timed-out": "timed-out",
    "breaker-open": "breaker-open",
    "unreadable": "unreadable",
    "vanished": "unreadable",
    "special-file": "unreadable",
    "symlink": "unreadable",
}
"""Other reasons are `failed`; the cell keeps the reason itself."""
PLANNED: Final[tuple[State, ...]] = (
    "analysed", "from-cache", "failed", "timed-out", "breaker-open", "unreadable", "not-reached", "unaccounted",
)  # fmt: skip
"""States of pairs whose detector knows the file's language."""

_encoder = msgspec.json.Encoder(order="deterministic")


class Cell(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True, omit_defaults=True):
    """One state that a file can have with a detector."""

    state: State
    reason: str = ""
    """Of a unit without an answer, as the record names it; of `not-applicable` the file's language; of `excluded` the
    policy."""
    run: str = ""
    """The earlier run that computed what came from the cache."""

    def shown(self) -> str:
        """Return it in words."""
        assert self.state, "a cell says something"
        told = f" ({self.reason})" if self.reason else ""
        return f"{self.state}{told}" + (f" of run {self.run}" if self.run else "")


class Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One file: its language, and for each detector in order the place of its cell."""

    path: str
    language: str
    cells: tuple[int, ...]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One detector, with the rules that share its cells."""

    detector: str
    version: str
    languages: tuple[str, ...]
    rules: tuple[str, ...]
    """Empty for a tool whose rules are known once it reports them."""
    narrower: dict[str, tuple[str, ...]]
    """Languages of rules that read fewer than the detector; to files of others they do not apply."""
    counts: dict[State, int]


class Silenced(msgspec.Struct, frozen=True, array_like=True, order=True, forbid_unknown_fields=True):
    """Findings of one rule in one file that markers in the source suppress."""

    path: str
    detector: str
    rule: str
    count: int


class Sources(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The snapshot, as the attestation's predicate has it."""

    merkle_root: str
    files: int


class Deadline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a run with a deadline came, and what its predictions were worth."""

    limit_ms: int
    ended_ms: int
    """When the record was made; what is over the limit is late."""
    reached: int
    """Planned pairs with a unit in the record: all but those `not-reached`."""
    durations: int
    """Batches of which it is known whether they took what was predicted."""
    inside: int
    """Of those, how many lay inside the interval that was stated before they began."""
    undecided: int
    """Batches that the deadline ended before their interval was over; in no other figure."""
    stated: str
    """Share that the intervals are made to hold."""
    share: str
    """Share that was inside; empty of nothing."""
    interval: tuple[str, str]
    """Its 95 % interval, after Wilson."""


class Coverage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The statement."""

    version: Literal[1]
    run_id: str
    whole: bool
    snapshot: Sources
    planned: int
    """(file, detector) pairs of which the detector knows the file's language."""
    accounted: int
    """Those with a unit in the record."""
    detectors: tuple[Column, ...]
    cells: tuple[Cell, ...]
    files: tuple[Row, ...]
    suppressed: tuple[Silenced, ...]
    excluded: tuple[Excluded, ...]
    """What policy keeps out: path, file and line or option that does it, and how many files; folders are folded."""
    unreadable: tuple[NotAnalysed, ...]
    """Entries of the tree that no detector could be given."""
    canaries: CanaryRecord | None
    """Known violations that the batches held, and how many were missed; None for a run without them."""
    deadline: Deadline | msgspec.UnsetType = msgspec.UNSET
    """Only of a run that had one."""


def stated(run: RunRecord) -> Coverage:
    """Return the statement of a run; raises AttestationInvalid for a record whose snapshot is none."""
    root = snapshot_root(run.files)
    detectors = sorted(run.detectors, key=lambda item: item.name)
    table = _Table(run)
    rows = [
        (file.path, file.language, [table.cell(file.path, file.language, item.name) for item in detectors])
        for file in sorted(run.files, key=lambda file: file.path)
    ]
    cells = tuple(sorted({cell for _, _, row in rows for cell in row}))
    place = {cell: number for number, cell in enumerate(cells)}
    columns = []
    for number, item in enumerate(detectors):
        counts = Counter(row[number].state for _, _, row in rows)
        narrower = {rule.id: rule.languages for rule in item.rules if set(rule.languages) < set(item.languages)}
        ids = tuple(rule.id for rule in item.rules)
        columns.append(
            Column(item.name, item.version, item.languages, ids, {k: v for k, v in narrower.items() if v}, dict(counts))
        )
    blank = sum(column.counts.get(state, 0) for column in columns for state in ("unaccounted", "not-reached"))
    planned = sum(column.counts.get(state, 0) for column in columns for state in PLANNED)
    assert blank <= planned, "what is unaccounted for was planned"
    return Coverage(
        version=1,
        run_id=run.run_id,
        whole=run.whole,
        snapshot=Sources(root, len(run.files)),
        planned=planned,
        accounted=planned - blank,
        detectors=tuple(columns),
        cells=cells,
        files=tuple(Row(path, language, tuple(place[cell] for cell in row)) for path, language, row in rows),
        suppressed=_silenced(run),
        excluded=tuple(sorted(run.excluded)),
        unreadable=tuple(sorted(entry for entry in run.not_analysed if not entry.detector)),
        canaries=run.canaries,
        deadline=_of_deadline(run, planned - blank),
    )


def _of_deadline(run: RunRecord, reached: int) -> Deadline | msgspec.UnsetType:
    if run.deadline is None:
        return msgspec.UNSET
    found = calibration(run.batches)
    assert found.inside <= found.batches, "a share is at most all"
    return Deadline(
        limit_ms=round(run.deadline.limit_s * 1000),
        ended_ms=round(run.seconds * 1000),
        reached=reached,
        durations=found.batches,
        inside=found.inside,
        undecided=found.undecided,
        stated=f"{STATED:.3f}",
        share="" if found.share is None else f"{found.share:.3f}",
        interval=(f"{found.low:.3f}", f"{found.high:.3f}"),
    )


class _Table:
    """The record's units and reasons, to be looked up by (path, detector)."""

    def __init__(self, run: RunRecord) -> None:
        self._run_id = run.run_id
        self._languages = {item.name: frozenset(item.languages) for item in run.detectors}
        self._reasons = {(entry.path, entry.detector): entry.reason for entry in run.not_analysed}
        self.units: dict[tuple[str, str], UnitRecord] = {(unit.path, unit.detector): unit for unit in run.units}
        self._narrowed = {} if run.since is None else run.since.excludes()
        self._policy = "" if run.since is None else f"since {run.since.commit}"

    def asked(self, path: str, language: str, detector: str) -> bool:
        """Tell whether the detector has to answer for the file."""
        if language not in self._languages[detector]:
            return False
        return detector not in self._narrowed or path in self._narrowed[detector]

    def cell(self, path: str, language: str, detector: str) -> Cell:
        """Return what became of one pair."""
        unit = self.units.get((path, detector))
        if unit is None and language not in self._languages[detector]:
            return Cell("not-applicable", language)
        if unit is None:
            if not self.asked(path, language, detector):
                return Cell("excluded", self._policy)
            unreached = self._reasons.get((path, detector)) == "not-reached"
            return Cell("not-reached") if unreached else Cell("unaccounted")
        earlier = unit.run_id if unit.run_id != self._run_id else ""
        if unit.state == "not-analysed":
            reason = self._reasons.get((path, detector))
            return Cell(_OF_REASON.get(reason, "failed") if reason else "failed", reason or "", earlier)
        assert unit.state == "executed" or unit.run_id, "what came from the cache names its run"
        return Cell("from-cache", "", unit.run_id) if unit.state == "cached" else Cell("analysed")


def gaps(run: RunRecord) -> tuple[str, ...]:
    """Return, in words, where the record's units are not exactly what its snapshot and detectors ask for."""
    table = _Table(run)
    asked = {
        (file.path, item.name)
        for file in run.files
        for item in run.detectors
        if table.asked(file.path, file.language, item.name)
    }
    known = {file.path for file in run.files}
    told = [
        f"{path} by {name}: the detector knows its language, and there is no unit"
        for path, name in asked - table.units.keys()
    ]
    for path, name in table.units.keys() - asked:
        why = (
            "the detector does not know its language, was kept from it, or did not run"
            if path in known
            else "the snapshot has no such file"
        )
        told.append(f"{path} by {name}: there is a unit, and {why}")
    if len(table.units) != len(run.units):
        told.append(f"{len(run.units) - len(table.units)} units are of a pair that has one already")
    for entry in run.not_analysed:
        if entry.reason == "not-reached" and (entry.path, entry.detector) in table.units:
            told.append(f"{entry.path} by {entry.detector}: there is a unit, and it is said not to be reached")
    if run.planned != len(asked):
        told.append(f"{run.planned} units were planned, and snapshot and detectors ask for {len(asked)}")
    assert all(told), "what is wrong is said"
    return tuple(sorted(told))


def require_whole(run: RunRecord) -> None:
    """Raise CoverageIncomplete for a run that says it is whole and is not; one that says so may be sealed."""
    if run.whole and (found := gaps(run)):
        raise CoverageIncomplete(len(found), found[:SHOWN])
    assert not run.whole or run.planned == len(run.units), "a whole run has a unit for each pair"


def dumps(run: RunRecord) -> bytes:
    """Return the statement as its file holds it: JSON of one spelling; raises AttestationInvalid as `stated`."""
    encoded = _encoder.encode(stated(run)) + b"\n"
    assert encoded.startswith(b"{"), "a statement is one object"
    return encoded


def problem_in(folder: Path, predicate: Predicate) -> str | None:
    """
    Hold the statement of an evidence folder against its record and its attestation.

    Args:
        folder: Its `run.json` was already found to be what was signed.
        predicate: What the attestation says of the run.

    Returns:
        What does not hold, or None.
    """
    if not (folder / NAME).exists():
        return "it is missing: the evidence does not say which files were looked at"
    try:
        run = msgspec.json.decode((folder / RECORD).read_bytes(), type=RunRecord)
        data = (folder / NAME).read_bytes()
        found = problems_of(data, run, predicate)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttestationInvalid) as problem:
        return f"it cannot be held against {RECORD}: {problem}"
    if not found:
        return None
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def problems_of(data: bytes, run: RunRecord, predicate: Predicate) -> tuple[str, ...]:
    """
    Return, in words, what of a statement does not hold.

    Raises:
        msgspec.DecodeError: It is no statement of this kind.
        AttestationInvalid: The record's snapshot is none.
    """
    given = msgspec.json.decode(data, type=Coverage)
    made = stated(run)
    told = [*gaps(run)] if run.whole else []
    if given.accounted != given.planned and given.whole:
        told.append(f"it calls the run whole, and {given.planned - given.accounted} planned units are unaccounted for")
    if run.deadline is not None:  # also of a run that is not whole: what was not reached has no answer
        told += [line for line in gaps(run) if line.endswith("not to be reached")]
    for whose, root in (
        ("attestation", predicate.snapshot.merkle_root),
        (f"snapshot in {RECORD}", made.snapshot.merkle_root),
    ):
        if given.snapshot.merkle_root != root:
            told.append(f"its snapshot root is not that of the {whose}")
    if made.canaries is not None and not _revealed(made.canaries):
        told.append("the seed of its canaries is not the one that was committed to")
    told += _unlike_rows(given, made)
    for name in ("run_id", "whole", "planned", "accounted", "suppressed", "excluded", "unreadable", "canaries",
                 "deadline"):  # fmt: skip
        if getattr(given, name) != getattr(made, name):
            told.append(f"of {name} it says otherwise than {RECORD}")
    if not told and _encoder.encode(made) + b"\n" != data:
        told.append(f"it is not what {RECORD} gives")
    assert told or given == made, "a statement that holds is the one that is made anew"
    return tuple(told)


def _revealed(record: CanaryRecord) -> bool:
    """Tell whether the revealed seed is the one that the commitment stands for."""
    try:
        seed = bytes.fromhex(record.seed)
    except ValueError:
        return False
    return len(seed) == SEED_BYTES and commitment(seed) == record.commitment


def _unlike_rows(given: Coverage, made: Coverage) -> Iterator[str]:
    """Yield where the matrix says otherwise than the record."""
    names = [column.detector for column in made.detectors]
    if [column.detector for column in given.detectors] != names:
        yield f"its detectors are not those of {RECORD}"
        return
    rows = {row.path: row for row in given.files}
    if len(rows) != len(given.files):
        yield "a file has two rows"
    for row in made.files:
        other = rows.pop(row.path, None)
        if other is None:
            yield f"{row.path} is in the snapshot and has no row"
            continue
        for name, cell in zip(names, row.cells, strict=True):
            place = names.index(name)
            said = _at(given.cells, other.cells, place)
            if said != made.cells[cell]:
                told = said.shown() if said is not None else "nothing"
                yield f"{row.path} by {name}: it says {told}, {RECORD} says {made.cells[cell].shown()}"
    yield from (f"{path} has a row and is not in the snapshot" for path in rows)


def _at(cells: tuple[Cell, ...], row: tuple[int, ...], place: int) -> Cell | None:
    """Return the cell of one column; None where the row or the list of cells is too short."""
    if place >= len(row) or not 0 <= row[place] < len(cells):
        return None
    assert cells, "there is one at least"
    return cells[row[place]]


def _silenced(run: RunRecord) -> tuple[Silenced, ...]:
    counts = Counter((item.path, item.detector, item.finding.rule) for item in run.findings if item.suppressed)
    assert sum(counts.values()) <= len(run.findings), "suppressed findings are findings"
    return tuple(sorted(Silenced(*key, count) for key, count in counts.items()))
