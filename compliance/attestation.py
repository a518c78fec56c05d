"""
An in-toto statement over a run's evidence, in a DSSE envelope signed with Ed25519.

The subjects are the evidence's files; the predicate says what ran on which sources, and whether a ledger stands behind
it. docs/attestation.md describes it, `attestation.schema.json` beside this file is its JSON schema. Statement and
envelope have one spelling for each content, so that any changed byte is noticed.

Source: in-toto Attestation Framework, Statement v1 and ResourceDescriptor v1; DSSE protocol v1.0.2 (PAE).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from compliance.errors import AttestationInvalid
from compliance.merkle import leaf_hash, tree_hash
from compliance.signing import SigningKey, VerifyingKey
from detectors.model import Digest, RunRecord, SourceFile

__all__ = [
    "LedgerReference",
    "NoLedger",
    "Predicate",
    "Statement",
    "Subject",
    "named_key",
    "open_envelope",
    "pae",
    "predicate_of",
    "seal",
    "snapshot_root",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE: Final = "urn:enterprise-detector-pool:predicate:static-analysis-run:v1"
"""A change that a reader of v1 would misread gets v2; further fields do not."""
MAX_ENVELOPE_BYTES = 16 << 20
SIGNATURE_BYTES = 64

_encoder = msgspec.json.Encoder(order="deterministic")


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One file of the evidence (in-toto ResourceDescriptor)."""

    name: str
    digest: dict[str, str]
    """`sha256` to 64 lower-case hexadecimal digits."""
    media_type: str


class Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The sources, as one number; see `snapshot_root`."""

    merkle_root: str
    files: int


class AttestedDetector(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A detector that ran."""

    name: str
    version: str
    code_digest: str
    configuration_digest: str


class Units(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Planned (file, detector) pairs, and what became of them; of executed and cached, some were not analysed."""

    planned: int
    executed: int
    cached: int
    not_analysed: int
    unreadable: int
    """Entries of the tree that no detector could be given; they are in no other figure."""


class Findings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What was found."""

    count: int
    digest: str


class LedgerReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", tag_field="recorded",
                      tag="yes"):  # fmt: skip
    """The ledger that has this run."""

    origin: str
    verifier_key: str
    """C2SP verifier key of the ledger's heads."""
    start_index: int
    """Of the record of the run's start; the attestation's own record follows, and `ledger-proof.json` names it."""


class NoLedger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="recorded", tag="no"):
    """No ledger record stands behind this evidence: what was made and thrown away leaves no trace."""

    reason: str


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What is said of the run."""

    run_id: str
    version: str
    """Of this project."""
    started: str
    whole: bool
    problems: tuple[str, ...]
    configuration_digest: str
    """Sha256 of the options that shape the result, as `run.json` lists them, each ended by a newline."""
    snapshot: Snapshot
    detectors: tuple[AttestedDetector, ...]
    units: Units
    findings: Findings
    ledger: LedgerReference | NoLedger


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In-toto Statement v1 with this project's predicate."""

    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: Literal["urn:enterprise-detector-pool:predicate:static-analysis-run:v1"] = msgspec.field(
        name="predicateType"
    )
    predicate: Predicate


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signature of the envelope; `keyid` is the sha256 of the raw public key."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """DSSE envelope."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


class _Typed(msgspec.Struct, frozen=True):
    """Enough of a statement to tell what it is."""

    predicate_type: str = msgspec.field(name="predicateType", default="")


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of type and payload."""
    assert payload_type.isascii(), "a media type is ASCII"
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)


def snapshot_root(files: Iterable[SourceFile]) -> str:
    """
    Return the Merkle root over the sources, hexadecimal.

    A leaf is the report path in UTF-8, a zero byte, and the 32 bytes of the content's sha256; leaves are sorted by
    path. Tree: RFC 6962 §2.1. Equal trees give equal roots wherever they lie.

    Raises:
        AttestationInvalid: A digest is no sha256.
    """
    entries = sorted((file.path.encode(), _raw(file.digest)) for file in files)
    if len({path for path, _ in entries}) != len(entries):
        raise AttestationInvalid("a path stands for two files")
    return tree_hash(leaf_hash(path + b"\0" + digest) for path, digest in entries).hex()


def predicate_of(run: RunRecord, ledger: LedgerReference | NoLedger) -> Predicate:
    """Return what is said of a run; raises AttestationInvalid for a record whose digests are none."""
    not_analysed = sum(unit.state == "not-analysed" for unit in run.units)
    if not_analysed > len(run.not_analysed):
        raise AttestationInvalid(f"{not_analysed} units were not analysed, {len(run.not_analysed)} entries say so")
    if run.whole and run.planned != run.executed + run.cached:
        raise AttestationInvalid(f"{run.planned} units were planned, {run.executed + run.cached} have an answer")
    return Predicate(
        run_id=run.run_id,
        version=run.version,
        started=run.started,
        whole=run.whole,
        problems=run.problems,
        configuration_digest=hashlib.sha256("".join(f"{option}\n" for option in run.command).encode()).hexdigest(),
        snapshot=Snapshot(snapshot_root(run.files), len(run.files)),
        detectors=tuple(
            AttestedDetector(item.name, item.version, _raw(item.code_digest).hex(), _raw(item.config_digest).hex())
            for item in run.detectors
        ),
        units=Units(run.planned, run.executed, run.cached, not_analysed, sum(not e.detector for e in run.not_analysed)),
        findings=Findings(len(run.findings), _raw(run.findings_digest).hex()),
        ledger=ledger,
    )


def seal(subjects: Sequence[Subject], predicate: Predicate, key: SigningKey) -> bytes:
    """Return a signed envelope as its file holds it: one line of JSON, so that bundles are files put together."""
    assert subjects, "an attestation is over something"
    assert len({subject.name for subject in subjects}) == len(subjects), "each file is named once"
    statement = Statement(STATEMENT_TYPE, tuple(sorted(subjects, key=_name)), PREDICATE_TYPE, predicate)
    payload = _encoder.encode(statement)
    signature = Signature(key.public.id, base64.b64encode(key.sign(pae(payload))).decode())
    sealed = _encoded(Envelope(base64.b64encode(payload).decode(), PAYLOAD_TYPE, (signature,)))
    assert len(sealed) <= MAX_ENVELOPE_BYTES, "an envelope that no reader would take"
    return sealed


def open_envelope(data: bytes, key: VerifyingKey) -> Statement:
    """
    Return what `key` signed.

    Args:
        data: The file.
        key: Whose signature is asked for.

    Raises:
        AttestationInvalid: It is no envelope, is not signed by that key, holds no statement of this kind, or is not
            spelled as this project spells it.
    """
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(item.sig, validate=True) for item in envelope.signatures]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError) as problem:
        raise AttestationInvalid(f"it is no DSSE envelope: {problem}") from problem
    if envelope.payload_type != PAYLOAD_TYPE or len(signatures) != 1:
        raise AttestationInvalid(f"it is not one signature over {PAYLOAD_TYPE}")
    if len(data) > MAX_ENVELOPE_BYTES:
        raise AttestationInvalid(f"it is larger than {MAX_ENVELOPE_BYTES} bytes")
    if len(signatures[0]) != SIGNATURE_BYTES or not key.verifies(signatures[0], pae(payload)):
        raise AttestationInvalid("its signature is not valid")
    if envelope.signatures[0].keyid != key.id:
        raise AttestationInvalid("it names another key than the one that signed it")
    statement = _statement(payload)
    again = Envelope(
        base64.b64encode(payload).decode(),
        PAYLOAD_TYPE,
        (Signature(key.id, base64.b64encode(signatures[0]).decode()),),
    )
    if _encoded(again) != data or _encoder.encode(statement) != payload:
        raise AttestationInvalid("it is not spelled as this project spells it")
    return statement


def named_key(data: bytes) -> str | None:
    """Return the id of the key that an envelope says it is signed with; None where it names none."""
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return envelope.signatures[0].keyid if envelope.signatures else None


def _statement(payload: bytes) -> Statement:
    try:
        told = msgspec.json.decode(payload, type=_Typed).predicate_type
        if told != PREDICATE_TYPE:
            raise AttestationInvalid(f"its predicate is {told!r}, this release knows {PREDICATE_TYPE}")
        statement = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise AttestationInvalid(f"it holds no statement of this kind: {problem}") from problem
    names = [subject.name for subject in statement.subject]
    if not names or names != sorted(set(names)):
        raise AttestationInvalid("it names no file, one twice, or not in order")
    if any(set(subject.digest) != {"sha256"} or not _is_hex(subject.digest["sha256"]) for subject in statement.subject):
        raise AttestationInvalid("a file has no sha256")
    return statement


def _encoded(envelope: Envelope) -> bytes:
    return _encoder.encode(envelope) + b"\n"


def _name(subject: Subject) -> str:
    return subject.name


def _raw(digest: Digest) -> bytes:
    text = digest.removeprefix("sha256:")
    if not _is_hex(text) or text == digest:
        raise AttestationInvalid(f"{digest!r} is no sha256 digest")
    return bytes.fromhex(text)


def _is_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
