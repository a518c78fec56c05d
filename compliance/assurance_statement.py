"""
What somebody says of evidence after it was made: an in-toto statement in a DSSE envelope of his own, in a file beside.

The subjects are the attestations that it speaks of, by their digest, so that it cannot be laid beside other evidence.
One spelling for each content, as the attestation itself has.

Source: in-toto Attestation Framework, Statement v1; DSSE protocol v1.0.2.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from compliance.attestation import PAYLOAD_TYPE, Envelope, Signature, pae
from compliance.errors import AttestationInvalid, EvidenceError, EvidenceExists
from compliance.evidence_verify import ATTESTATION, RECORD, Verdict, verify
from compliance.signing import SigningKey, VerifyingKey
from detectors.model import RunRecord

__all__ = ["Evidence", "opened_statement", "read_evidence", "refuse_existing_file", "signed_statement", "write_new"]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
SIGNATURE_BYTES = 64
P = TypeVar("P")


class Evidence(msgspec.Struct, frozen=True):
    """An evidence folder that verified."""

    record: RunRecord
    attestation: str
    """Sha256 of the attestation's file, hexadecimal."""
    verdict: Verdict


class AttestedRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The subject: an attestation of a run."""

    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[AttestedRun, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: msgspec.Raw


_encoder = msgspec.json.Encoder(order="deterministic")


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
    return Evidence(record, hashlib.sha256((folder / ATTESTATION).read_bytes()).hexdigest(), verdict)


def signed_statement(about: Sequence[Evidence], kind: str, predicate: msgspec.Struct, key: SigningKey) -> bytes:
    """Return the file of a statement: one line of JSON."""
    assert about, "a statement is about some evidence"
    assert kind.startswith("urn:"), "a kind of statement has a name in the world"
    subjects = tuple(AttestedRun(item.record.run_id, {"sha256": item.attestation}) for item in about)
    payload = _encoder.encode(_Statement(STATEMENT_TYPE, subjects, kind, msgspec.Raw(_encoder.encode(predicate))))
    signature = Signature(key.public.id, base64.b64encode(key.sign(pae(payload))).decode())
    envelope = Envelope(base64.b64encode(payload).decode(), PAYLOAD_TYPE, (signature,))
    return _encoder.encode(envelope) + b"\n"


def opened_statement(data: bytes, key: VerifyingKey, kind: str, shape: type[P]) -> tuple[tuple[AttestedRun, ...], P]:
    """
    Return what `key` signed: which attestations it speaks of, and what it says.

    Raises:
        AttestationInvalid: It is no such statement, or not signed by that key.
    """
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(item.sig, validate=True) for item in envelope.signatures]
        if envelope.payload_type != PAYLOAD_TYPE or len(signatures) != 1 or len(signatures[0]) != SIGNATURE_BYTES:
            raise AttestationInvalid(f"it is not one signature over {PAYLOAD_TYPE}")
        if not key.verifies(signatures[0], pae(payload)):
            raise AttestationInvalid("its signature is not valid")
        statement = msgspec.json.decode(payload, type=_Statement)
        if statement.predicate_type != kind:
            raise AttestationInvalid(f"its predicate is {statement.predicate_type!r}, and not {kind}")
        return statement.subject, msgspec.json.decode(bytes(statement.predicate), type=shape)
    except (ValueError, RecursionError) as problem:
        raise AttestationInvalid(f"it is no statement of this kind: {problem}") from problem


def refuse_existing_file(file: Path, evidence: Sequence[Path]) -> None:
    """Raise EvidenceExists for a file that is there, and EvidenceError for one inside of the evidence."""
    if os.path.lexists(file):
        raise EvidenceExists(str(file))
    if any(file.absolute().resolve().is_relative_to(folder.resolve()) for folder in evidence):
        raise EvidenceError(
            f"{file} lies in the evidence, which holds what was signed and nothing more: write it beside"
        )


def write_new(file: Path, data: bytes) -> None:
    """Write a file that is not there, whole or not at all; raises EvidenceExists, EvidenceError."""
    assert data.endswith(b"\n"), "a statement is a line"
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("xb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.link(draft, file)
    except FileExistsError as problem:
        raise EvidenceExists(str(file)) from problem
    except OSError as problem:
        raise EvidenceError(f"{file} cannot be written: {problem.strerror}") from problem
    finally:
        draft.unlink(missing_ok=True)
