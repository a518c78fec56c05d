"""
An evidence folder verified: offline, without passphrase, reading only; no link is followed.

What the folder's own bytes cannot show (a forgery under another key, an attestation that a ledger never had, a ledger
that was rolled back) only an anchor shows, so a verdict says which anchors were given and held.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from compliance import coverage
from compliance.attestation import LedgerReference, Statement, Subject, open_envelope, predicate_of
from compliance.dsse import MAX_ENVELOPE_BYTES, named_key
from compliance.errors import AttestationInvalid, CheckpointInvalid, KeyUnusable, LedgerDamaged, ProofInvalid
from compliance.ledger_proof import MAX_PROOF_BYTES, claimed_checkpoint, read_checkpoint, read_proof
from compliance.signing import Checkpoint, VerifyingKey
from detectors.errors import UsageError
from detectors.model import RunRecord

__all__ = ["APART", "ATTESTATION", "CHECKPOINT", "PROOF", "PUBLIC_KEY", "Check", "Verdict", "verify"]

ATTESTATION, PUBLIC_KEY = "attestation.intoto.jsonl", "public-key.pem"
CHECKPOINT, PROOF = "ledger-checkpoint", "ledger-proof.json"
APART = frozenset({ATTESTATION, PUBLIC_KEY, CHECKPOINT, PROOF})
"""What the attestation cannot name, since it holds or follows it."""
RECORD, FORMER = "run.json", "manifest.json"
MAX_KEY_BYTES = 1024
MAX_CHECKPOINT_BYTES = 64 << 10


class _Line(msgspec.Struct, frozen=True):
    """A record as a ledger's export prints it."""

    event: dict[str, Any]


class Check(msgspec.Struct, frozen=True):
    """What was found of one file, or of one anchor that was given."""

    file: str
    ok: bool
    problem: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The answer of `verify`."""

    ok: bool
    anchored: bool
    """Whether it was held against something that the caller brought, and that held."""
    checked: tuple[Check, ...]
    anchors: tuple[str, ...]
    """Which anchors held: `public-key`, `ledger`, `checkpoint`."""
    ledger: str | None
    """Origin of the ledger that has the attestation; None where no record stands behind it."""
    no_ledger: str | None
    """Why there is none, in the attestation's words."""
    canaries: str = ""
    """Whether the ledger had the commitment to the canaries' seed before the run, or why that was not seen."""


def verify(
    folder: Path,
    public_key: Path | None = None,
    *,
    ledger: Path | None = None,
    checkpoint: Path | None = None,
    passphrase: bytes | None = None,
) -> Verdict:
    """
    Check an evidence folder.

    Args:
        folder: What `collect` made.
        public_key: The key that the caller trusts (PEM).
        ledger: Folder of the ledger; must hold what the folder's checkpoint says.
        checkpoint: A signed checkpoint of it kept elsewhere; of another size than the folder's, it needs `ledger`.
        passphrase: Of that ledger, to read what it recorded when the run began.

    Raises:
        LedgerLocked: `passphrase` is not its.
        UsageError: There is no such folder, or a checkpoint that cannot be held against it without the ledger.
        KeyUnusable: `public_key` is no key.
        CheckpointInvalid: `checkpoint` is empty, damaged or forged.
        LedgerMissing: `ledger` is none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one that --evidence made")
    trusted = VerifyingKey.load(public_key) if public_key is not None else None
    key_check, key = _check_key(folder, trusted)
    envelope_check, statement, envelope = _check_attestation(folder, trusted or key)
    if key_check.ok and not envelope_check.ok and key is not None and named_key(envelope) not in (None, key.id):
        # Which of the two was changed cannot be told, so both are named.
        key_check = Check(PUBLIC_KEY, False, "it is not the key that the attestation names")
    checks = [key_check, envelope_check]
    proven: Checkpoint | None = None
    if statement is not None:
        proven, contents = _check_contents(folder, statement, hashlib.sha256(envelope).hexdigest())
        checks += contents
    anchors = ["public-key"] if trusted is not None and key_check.ok and envelope_check.ok else []
    for name, check in _check_anchors(folder, statement, proven, ledger, checkpoint):
        checks.append(check)
        anchors += [name] if check.ok else []
    verdict = _verdict(tuple(checks), tuple(anchors), statement)
    if statement is None or not verdict.ok:
        return verdict
    given = ledger if ledger is not None and "ledger" in anchors else None
    return _with_beginning(verdict, folder, statement, given, passphrase)


def _check_contents(folder: Path, statement: Statement, digest: str) -> tuple[Checkpoint | None, list[Check]]:
    """Hold everything else in the folder against its attestation; return the checkpoint that holds, too."""
    proven, checks = _check_ledger_files(folder, statement, digest)
    files = [_check_file(folder, subject) for subject in statement.subject]
    checks += [_check_record(folder, check, statement) if check.file == RECORD else check for check in files]
    checks = _check_coverage(folder, checks, statement)
    if RECORD not in {check.file for check in files}:
        checks.append(Check(RECORD, False, "the attestation does not name it"))
    named = {ATTESTATION, PUBLIC_KEY, *(check.file for check in checks)}
    checks += [Check(name, False, "it is not in the attestation") for name in sorted(_entries(folder) - named)]
    return proven, checks


def _with_beginning(
    verdict: Verdict, folder: Path, statement: Statement, ledger: Path | None, passphrase: bytes | None
) -> Verdict:
    """
    Hold the commitment to the canaries' seed against what the ledger recorded before the run.

    The folder shows that seed and commitment belong together; only a record that is older than the run's results shows
    that the seed was not chosen after them. A record in a ledger is encrypted, so that this takes the passphrase.
    """
    record = msgspec.json.decode((folder / RECORD).read_bytes(), type=RunRecord)
    stated = statement.predicate.ledger
    if record.canaries is None:
        return verdict
    if not isinstance(stated, LedgerReference):
        return msgspec.structs.replace(verdict, canaries="not compared: no ledger stands behind the run")
    if ledger is None or passphrase is None:
        told = "not compared with the ledger's record of the beginning, which is encrypted: give --ledger and its"
        return msgspec.structs.replace(verdict, canaries=f"{told} --passphrase-file")
    from compliance.ledger_export import read_record

    try:
        line = msgspec.json.decode(read_record(ledger, stated.start_index, passphrase), type=_Line)
    except IndexError:
        told = "not compared: the ledger no longer keeps its record of the beginning (retention released it)"
        return msgspec.structs.replace(verdict, canaries=told)
    problem = _problem_of_beginning(line.event, record)
    if not problem:
        return msgspec.structs.replace(verdict, canaries="the ledger had the commitment to their seed before the run")
    checked = (*verdict.checked, Check(f"{ledger}: record {stated.start_index}", False, problem))
    return msgspec.structs.replace(verdict, ok=False, checked=checked)


def _problem_of_beginning(event: Mapping[str, Any], run: RunRecord) -> str:
    assert run.canaries is not None, "a run without canaries commits to nothing"
    if event.get("type") != "scan.started" or event.get("run_id") != run.run_id:
        return "it is not the beginning of this run"
    if event.get("canaries") != run.canaries.commitment:
        return "before the run another seed of the canaries was committed to, or none"
    return ""


def _verdict(checks: tuple[Check, ...], anchors: tuple[str, ...], statement: Statement | None) -> Verdict:
    ok = all(check.ok for check in checks)
    assert ok or any(check.problem for check in checks), "what does not hold says why"
    stated = statement.predicate.ledger if statement is not None else None
    if isinstance(stated, LedgerReference):
        return Verdict(ok, bool(anchors), checks, anchors, stated.origin, None)
    return Verdict(ok, bool(anchors), checks, anchors, None, stated.reason if stated is not None else None)


def _check_key(folder: Path, trusted: VerifyingKey | None) -> tuple[Check, VerifyingKey | None]:
    try:
        pem = _read(folder / PUBLIC_KEY, MAX_KEY_BYTES)
        key = VerifyingKey.from_pem(pem, PUBLIC_KEY)
    except (OSError, KeyUnusable) as problem:
        return Check(PUBLIC_KEY, False, _told(problem)), None
    if key.pem() != pem:
        return Check(PUBLIC_KEY, False, "it was edited"), None
    if trusted is not None and trusted.id != key.id:
        return Check(PUBLIC_KEY, False, "it is not the key that you trust"), key
    return Check(PUBLIC_KEY, True), key


def _check_attestation(folder: Path, key: VerifyingKey | None) -> tuple[Check, Statement | None, bytes]:
    try:
        data = _read(folder / ATTESTATION, MAX_ENVELOPE_BYTES)
    except OSError as problem:
        told = _told(problem)
        if (folder / FORMER).exists():
            told = f"{told}; the folder is of an early release, which wrote {FORMER}: verify it with that"
        return Check(ATTESTATION, False, told), None, b""
    if key is None:
        return Check(ATTESTATION, False, "there is no key to check its signature with"), None, data
    try:
        statement = open_envelope(data, key)
    except AttestationInvalid as problem:
        return Check(ATTESTATION, False, str(problem)), None, data
    names = [subject.name for subject in statement.subject]
    if not all(_plain(name) for name in names):
        return (
            Check(ATTESTATION, False, "it names a file outside of the folder, or one that it cannot name"),
            None,
            data,
        )
    return Check(ATTESTATION, True), statement, data


def _check_ledger_files(folder: Path, statement: Statement, digest: str) -> tuple[Checkpoint | None, list[Check]]:
    """Hold checkpoint and proof against the attestation; nothing where it names no ledger."""
    stated = statement.predicate.ledger
    if not isinstance(stated, LedgerReference):
        return None, []
    checkpoint: Checkpoint | None = None
    try:
        note = _read(folder / CHECKPOINT, MAX_CHECKPOINT_BYTES)
        checkpoint = read_checkpoint(note, stated.verifier_key, stated.origin)
        checks = [Check(CHECKPOINT, True)]
    except (OSError, KeyUnusable, CheckpointInvalid) as problem:
        checks = [Check(CHECKPOINT, False, _told(problem))]
    problem_of_proof = _problem_of_proof(folder, stated, checkpoint, statement.predicate.run_id, digest)
    return checkpoint, [*checks, Check(PROOF, problem_of_proof is None, problem_of_proof)]


def _problem_of_proof(
    folder: Path, stated: LedgerReference, checkpoint: Checkpoint | None, run_id: str, digest: str
) -> str | None:
    try:
        proof = read_proof(_read(folder / PROOF, MAX_PROOF_BYTES))
        event = proof.event()
        if proof.origin != stated.origin:
            return f"it is of the ledger {proof.origin}, the attestation of {stated.origin}"
        if event.get("type") != "evidence.attested" or event.get("run_id") != run_id:
            return "its record is of another run"
        if event.get("attestation") != digest:
            return "its record is of another attestation of this run"
        if proof.index <= stated.start_index:
            return "its record stands before the run's beginning"
        if checkpoint is None:
            return "there is no valid checkpoint to hold it against"
        proof.hold(checkpoint)
    except (OSError, ProofInvalid) as problem:
        return _told(problem)
    return None


def _check_file(folder: Path, subject: Subject) -> Check:
    try:
        with os.fdopen(_open(folder / subject.name), "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256")
    except OSError as problem:
        return Check(subject.name, False, _told(problem))
    if digest.hexdigest() != subject.digest["sha256"]:
        return Check(subject.name, False, "its content is not what was signed")
    return Check(subject.name, True)


def _check_record(folder: Path, check: Check, statement: Statement) -> Check:
    """Hold what the attestation says of the run against the run's record."""
    if not check.ok:
        return check
    try:
        record = msgspec.json.decode((folder / RECORD).read_bytes(), type=RunRecord)
        told = predicate_of(record, statement.predicate.ledger)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttestationInvalid) as problem:
        return Check(RECORD, False, f"it is no run record: {_told(problem)}")
    stated = msgspec.structs.asdict(statement.predicate)
    unlike = [name for name, value in msgspec.structs.asdict(told).items() if stated[name] != value]
    if unlike:
        return Check(RECORD, False, f"the attestation says otherwise of: {', '.join(unlike)}")
    return check


def _check_coverage(folder: Path, checks: list[Check], statement: Statement) -> list[Check]:
    """Hold the coverage statement against the record, where both are what was signed."""
    unlike = {check.file for check in checks if not check.ok}
    told = None if unlike & {RECORD, coverage.NAME} else coverage.problem_in(folder, statement.predicate)
    if told is None:
        return checks
    assert coverage.NAME not in unlike, "what is not what was signed has its problem"
    return [check for check in checks if check.file != coverage.NAME] + [Check(coverage.NAME, False, told)]


def _check_anchors(
    folder: Path, statement: Statement | None, proven: Checkpoint | None, ledger: Path | None, checkpoint: Path | None
) -> list[tuple[str, Check]]:
    """Hold ledger and kept checkpoint, where given, against what the folder has of the ledger."""
    kept = _kept(checkpoint) if checkpoint is not None else None
    if ledger is None and checkpoint is None:
        return []
    stated = statement.predicate.ledger if statement is not None else None
    found: list[tuple[str, Check]] = []
    if not isinstance(stated, LedgerReference) or proven is None:
        told = "there is nothing valid of a ledger in the folder to hold it against"
        given = (("ledger", ledger), ("checkpoint", checkpoint))
        return [(name, Check(str(anchor), False, told)) for name, anchor in given if anchor is not None]
    if ledger is not None:
        problem = _problem_of_ledger(ledger, folder / CHECKPOINT, stated.origin)
        found.append(("ledger", Check(str(ledger), problem is None, problem)))
    if checkpoint is not None and kept is not None:
        problem = _problem_of_kept(checkpoint, kept, stated, proven, ledger)
        found.append(("checkpoint", Check(str(checkpoint), problem is None, problem)))
    return found


def _problem_of_ledger(ledger: Path, checkpoint: Path, origin: str) -> str | None:
    from compliance.ledger_format import read_genesis
    from compliance.ledger_verify import verify as verify_ledger

    try:
        found = read_genesis(str(ledger)).origin
        if found != origin:
            return f"it is the ledger {found}, the attestation names {origin}"
        verdict = verify_ledger(ledger, checkpoint=checkpoint)
    except LedgerDamaged as problem:
        return str(problem)
    except CheckpointInvalid as problem:
        return f"it never signed the folder's checkpoint: {problem.problem}"
    # A torn tail was never acknowledged, and what the checkpoint covers lies before it.
    return None if verdict.verdict in ("intact", "recoverable", "busy") else f"{verdict.verdict}: {verdict.problem}"


def _problem_of_kept(
    file: Path, kept: bytes, stated: LedgerReference, proven: Checkpoint, ledger: Path | None
) -> str | None:
    claimed = claimed_checkpoint(kept, str(file))
    if claimed.origin != stated.origin:
        return f"it is of the ledger {claimed.origin}, the attestation names {stated.origin}"
    if ledger is not None:
        return _problem_of_ledger(ledger, file, stated.origin)
    if claimed.size != proven.size:
        raise UsageError(
            f"--checkpoint {file} is of {claimed.size} records, the evidence's own of {proven.size}; "
            "give --ledger too, which alone can show that one continues the other"
        )
    _ = read_checkpoint(kept, stated.verifier_key, stated.origin)
    return None if claimed.root == proven.root else "it is of another tree of that size: the ledger was forked"


def _kept(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_CHECKPOINT_BYTES + 1)
    except OSError as problem:
        raise CheckpointInvalid(str(file), f"it cannot be read ({_told(problem)})") from problem
    if not data or len(data) > MAX_CHECKPOINT_BYTES:
        raise CheckpointInvalid(str(file), "it is empty, or too large to be one")
    return data


def _entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _plain(name: str) -> bool:
    return bool(name) and "/" not in name and "\0" not in name and name not in {".", ".."} and name not in APART


def _open(file: Path) -> int:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def _read(file: Path, most: int) -> bytes:
    with os.fdopen(_open(file), "rb") as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it is larger than {most} bytes")
    return data


def _told(problem: Exception) -> str:
    if isinstance(problem, FileNotFoundError):
        return "it is missing"
    if isinstance(problem, CheckpointInvalid | KeyUnusable):
        return problem.problem
    return (problem.strerror if isinstance(problem, OSError) else str(problem)) or type(problem).__name__
