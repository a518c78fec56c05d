"""
What somebody says of evidence after it was made: an in-toto statement in a DSSE envelope of his own, in a file beside.

The subjects are the attestations that it speaks of, by their digest, so that it cannot be laid beside other evidence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from compliance.dsse import STATEMENT_TYPE, ResourceDescriptor, opened, sealed
from compliance.errors import AttestationInvalid, EvidenceError, EvidenceExists
from compliance.evidence_verify import ATTESTATION, RECORD, Verdict, verify
from compliance.signing import SigningKey, VerifyingKey
from detectors.model import RunRecord

__all__ = ["Evidence", "opened_statement", "read_evidence", "refuse_existing_file", "signed_statement"]

P = TypeVar("P")


class Evidence(msgspec.Struct, frozen=True):
    """An evidence folder that verified."""

    record: RunRecord
    attestation: str
    """Sha256 of the attestation's file, hexadecimal."""
    verdict: Verdict


class AssuranceStatement(msgspec.Struct, Generic[P], frozen=True, forbid_unknown_fields=True):
    """In-toto Statement v1 about attestations of runs."""

    type_: str = msgspec.field(name="_type")
    subject: tuple[ResourceDescriptor, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: P


def read_evidence(folder: Path, public_key: Path | None) -> Evidence:
    """
    Verify an evidence folder, and read its record.

    Raises:
        AttestationInvalid: It does not verify, or holds no record; nothing is built on such a folder.
        UsageError, KeyUnusable: As `evidence_verify.verify`.
    """
    verdict = verify(folder, public_key)
    bad = [f"{check.file}: {check.problem}" for check in verdict.checked if not check.ok]
    if bad:
        raise AttestationInvalid(f"the evidence {folder} does not verify: {'; '.join(bad[:3])}")
    if RECORD not in {check.file for check in verdict.checked}:
        raise AttestationInvalid(f"the evidence {folder} holds no {RECORD}")
    record = msgspec.json.decode((folder / RECORD).read_bytes(), type=RunRecord)
    assert record.run_id, "a run has a name, by which a statement speaks of it"
    return Evidence(record, hashlib.sha256((folder / ATTESTATION).read_bytes()).hexdigest(), verdict)


def signed_statement(about: Sequence[Evidence], kind: str, predicate: msgspec.Struct, key: SigningKey) -> bytes:
    """Return the file of a statement: one line of JSON."""
    assert about, "a statement is about some evidence"
    assert all(item.verdict.ok for item in about), "nothing is stated of evidence that does not verify"
    assert kind.startswith("urn:"), "a kind of statement has a name in the world"
    subjects = tuple(ResourceDescriptor(item.record.run_id, {"sha256": item.attestation}) for item in about)
    return sealed(AssuranceStatement(STATEMENT_TYPE, subjects, kind, predicate), key)


def opened_statement(
    data: bytes, key: VerifyingKey, kind: str, shape: type[P]
) -> tuple[tuple[ResourceDescriptor, ...], P]:
    """
    Return what `key` signed: which attestations it speaks of, and what it says.

    Raises:
        AttestationInvalid: It is no such statement, or not signed by that key; see `dsse.opened`.
    """
    statement = opened(data, key, kind, AssuranceStatement[shape])  # type: ignore[valid-type]  # a shape is a value here
    if not statement.subject:
        raise AttestationInvalid("it speaks of no evidence")
    assert statement.predicate_type == kind, "a statement of another kind was opened"
    return statement.subject, statement.predicate


def refuse_existing_file(file: Path, evidence: Sequence[Path]) -> None:
    """Raise EvidenceExists for a file that is there, and EvidenceError for one inside of the evidence."""
    if os.path.lexists(file):
        raise EvidenceExists(str(file))
    if any(file.absolute().resolve().is_relative_to(folder.resolve()) for folder in evidence):
        raise EvidenceError(
            f"{file} lies in the evidence, which holds what was signed and nothing more: write it beside"
        )
