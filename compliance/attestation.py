"""
An in-toto statement over a run's evidence, in a DSSE envelope signed with Ed25519.

The subjects are the evidence's files; the predicate says what ran on which sources, and whether a ledger stands behind
it. docs/attestation.md describes it, `attestation.schema.json` beside this file is its JSON schema.

Source: in-toto Attestation Framework, Statement v1 and ResourceDescriptor v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from compliance.dsse import STATEMENT_TYPE, opened, sealed
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
    "open_envelope",
    "predicate_of",
    "seal",
    "snapshot_root",
]

PREDICATE_TYPE: Final = "urn:enterprise-detector-pool:predicate:static-analysis-run:v1"
"""A change that a reader of v1 would misread gets v2; further fields do not."""


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
    """Return a signed envelope as its file holds it; see `dsse.sealed`."""
    assert subjects, "an attestation is over something"
    assert len({subject.name for subject in subjects}) == len(subjects), "each file is named once"
    return sealed(Statement(STATEMENT_TYPE, tuple(sorted(subjects, key=_name)), PREDICATE_TYPE, predicate), key)


def open_envelope(data: bytes, key: VerifyingKey) -> Statement:
    """
    Return what `key` signed.

    Raises:
        AttestationInvalid: See `dsse.opened`; or its subjects are no files in order.
    """
    statement = opened(data, key, PREDICATE_TYPE, Statement)
    names = [subject.name for subject in statement.subject]
    if not names or names != sorted(set(names)):
        raise AttestationInvalid("it names no file, one twice, or not in order")
    if any(set(subject.digest) != {"sha256"} or not _is_hex(subject.digest["sha256"]) for subject in statement.subject):
        raise AttestationInvalid("a file has no sha256")
    return statement


def _name(subject: Subject) -> str:
    return subject.name


def _raw(digest: Digest) -> bytes:
    text = digest.removeprefix("sha256:")
    if not _is_hex(text) or text == digest:
        raise AttestationInvalid(f"{digest!r} is no sha256 digest")
    return bytes.fromhex(text)


def _is_hex(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
