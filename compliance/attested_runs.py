"""
Runs that a ledger attests, held against the folders of evidence that are there.

Evidence that was altered shows itself; evidence that was removed does not. The ledger still says that there was a run,
in a record in clear, so that no passphrase is needed to miss it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from compliance.errors import LedgerDamaged, LedgerUnwritable
from compliance.evidence_verify import ATTESTATION
from compliance.ledger_format import PREFIX, PUBLIC, SegmentHeader, public_payload, read_genesis, segment_numbers, told
from compliance.ledger_read import read_segment
from detectors.errors import UsageError

__all__ = ["AttestedRun", "attested_runs", "missing_evidence"]

MAX_RUNS = 100_000
KIND = "evidence.attested"


class AttestedRun(msgspec.Struct, frozen=True):
    """A run whose attestation stands in a ledger."""

    run_id: str
    index: int
    """Of the record."""
    attestation: str
    """Sha256 of the attestation's file, hexadecimal."""


class _Event(msgspec.Struct, frozen=True):
    run_id: str
    attestation: str


class _RunRecord(msgspec.Struct, frozen=True):
    run_id: str


class _Sink:
    """A commit sink that keeps the last attested runs."""

    def __init__(self, last: int) -> None:
        assert 0 < last <= MAX_RUNS, "some are asked for, and they fit into memory"
        self.found: deque[AttestedRun] = deque(maxlen=last)

    def __call__(self, _header: SegmentHeader, frames: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        assert len(frames) == len(leaves), "a leaf for each record"
        for frame in frames:
            if frame[:1] != PUBLIC:
                continue
            payload = public_payload(frame)
            if payload is None or payload.event.get("type") != KIND:
                continue
            event = msgspec.convert(payload.event, _Event)
            self.found.append(AttestedRun(event.run_id, PREFIX.unpack_from(frame)[2], event.attestation))


def attested_runs(ledger: Path, last: int) -> tuple[AttestedRun, ...]:
    """
    Return the newest runs that a ledger attests, newest first; the caller has verified the ledger.

    Args:
        ledger: Its folder; needs no passphrase.
        last: How many at most.

    Raises:
        LedgerDamaged: A segment is not as it was written.
        LedgerMissing, LedgerUnwritable: There is none, or it cannot be read.
        UsageError: `last` is out of bounds.
    """
    if not 1 <= last <= MAX_RUNS:
        raise UsageError(f"1 to {MAX_RUNS} runs can be asked for, not {last}")
    opened = read_genesis(str(ledger))
    sink = _Sink(last)
    for number in segment_numbers(opened.folder)[0]:
        try:
            report = read_segment(opened, number, sink=sink)
        except msgspec.ValidationError as problem:
            raise LedgerDamaged(opened.folder, 0, f"it attests a run that has no name: {problem}") from problem
        except OSError as problem:
            raise LedgerUnwritable(opened.folder, told(problem)) from problem
        if report.problem is not None:
            raise LedgerDamaged(opened.folder, report.bad_index or 0, report.problem)
    assert len(sink.found) <= last, "no more than were asked for"
    assert all(a.index < b.index for a, b in pairwise(sink.found)), "the oldest came first"
    assert all(one.run_id for one in sink.found), "a run has a name"
    return tuple(reversed(sink.found))


def missing_evidence(runs: Sequence[AttestedRun], evidence: Path) -> dict[str, str]:
    """
    Tell which attested runs have no evidence.

    Args:
        runs: What the ledger attests.
        evidence: Folder that holds a folder of evidence for each run.

    Returns:
        Run id to what is missing; empty when each run's attestation is there as the ledger has its digest.
    """
    assert all(len(run.attestation) == 64 for run in runs), "a ledger names a run's attestation by its sha256"
    digests: set[str] = set()
    folders: dict[str, str] = {}
    for folder in sorted(evidence.iterdir()) if evidence.is_dir() else ():
        try:
            with (folder / ATTESTATION).open("rb") as opened:
                digests.add(hashlib.file_digest(opened, "sha256").hexdigest())
        except OSError:
            pass  # no attestation: a run that needs it is missing
        try:
            folders[msgspec.json.decode((folder / "run.json").read_bytes(), type=_RunRecord).run_id] = folder.name
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue
    missing = {}
    for run in runs:
        if run.attestation in digests:
            continue
        where = f"{folders[run.run_id]} has another" if run.run_id in folders else "no folder has it"
        missing[run.run_id] = f"record {run.index} of the ledger attests its evidence, and {where}"
    assert len(missing) <= len(runs), "only what the ledger attests can be missing"
    return missing
