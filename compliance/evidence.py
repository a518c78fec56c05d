"""
One evidence folder: collect, sign, verify offline.

`attestation.intoto.jsonl` is an in-toto statement over every file, signed with Ed25519 (`compliance.attestation`).
Where a ledger stands behind the run, the attestation's digest is a public record of it: `ledger-proof.json` has that
record and its inclusion proof, `ledger-checkpoint` the signed tree head that the proof leads to. All of them, and
`public-key.pem`, have one spelling for each content, so that any changed byte of the folder is noticed. `verify.py`
checks all of it with Python's standard library alone. The folder appears whole or not at all: it is written beside its
place and renamed into it.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

from compliance import attestation
from compliance.attestation import Subject
from compliance.errors import EvidenceError, EvidenceExists
from compliance.evidence_verify import APART, ATTESTATION, CHECKPOINT, PROOF, PUBLIC_KEY, Check, Verdict, verify
from compliance.ledger_proof import proof_of
from compliance.run_trail import RunTrail
from compliance.signing import SigningKey
from detectors.model import RunRecord

__all__ = ["VERIFIER", "Check", "Verdict", "collect", "left_out", "verify"]

VERIFIER = "verify.py"
"""A copy of `compliance.verify_alone`; its digest is in docs/verifier.sha256."""


def collect(run: RunRecord, folder: Path, key: SigningKey, trail: RunTrail | None = None) -> bytes:
    """
    Write and sign the evidence of a run.

    Args:
        run: What the engine recorded; a run that is not whole says so in every artifact.
        folder: New, or empty.
        key: Signs the attestation.
        trail: The run's records in a ledger, which takes the attestation's digest; without one, the attestation says
            that no ledger stands behind it.

    Returns:
        The attestation's file.

    Raises:
        EvidenceExists: The folder holds something.
        EvidenceError: It cannot be written; nothing is left behind.
        LedgerError: The ledger cannot be written; nothing is left behind.
    """
    folder = folder.absolute()
    assert not run.whole or run.planned == len(run.units), "a whole run has one answer for each unit"
    draft = folder.with_name(f".{folder.name}.{run.run_id}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EvidenceExists(str(folder))
        draft.mkdir(parents=True)
        envelope = _write(run, draft, key, trail or RunTrail())
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as problem:
        raise EvidenceError(f"the evidence {folder} cannot be written: {problem.strerror}") from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return envelope


def left_out() -> tuple[str, ...]:
    """Return why formats that this project knows are not written here; empty where all are."""
    return tuple(_missing(module) for module in _formats() if _missing(module))


def _write(run: RunRecord, folder: Path, key: SigningKey, trail: RunTrail) -> bytes:
    subjects = []
    for module in _formats():
        if _missing(module):
            continue
        file = folder / module.NAME
        if module.NAME in {*APART, VERIFIER} or file.exists():
            raise EvidenceError(f"two formats write {module.NAME}; a format has a name of its own")
        module.write(run, file)
        subjects.append(Subject(module.NAME, {"sha256": _sha256(file)}, module.MEDIA_TYPE))
    assert subjects, "every installation writes some format"
    (folder / VERIFIER).write_bytes(resources.files("compliance").joinpath("verify_alone.py").read_bytes())
    subjects.append(Subject(VERIFIER, {"sha256": _sha256(folder / VERIFIER)}, "text/x-python"))
    with trail.held():
        reference = trail.reference()
        envelope = attestation.seal(subjects, attestation.predicate_of(run, reference), key)
        (folder / ATTESTATION).write_bytes(envelope)
        (folder / PUBLIC_KEY).write_bytes(key.public.pem())
        publication = trail.attested(hashlib.sha256(envelope).hexdigest(), key.public.id)
        if publication is not None and isinstance(reference, attestation.LedgerReference):
            (folder / CHECKPOINT).write_bytes(publication.checkpoint)
            (folder / PROOF).write_bytes(proof_of(publication, reference.origin))
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return envelope


def _formats() -> Iterator[ModuleType]:
    """Yield the modules of `compliance.formats` that write a file of the evidence."""
    package = importlib.import_module("compliance.formats")
    for info in pkgutil.iter_modules(package.__path__, "compliance.formats."):
        module = importlib.import_module(info.name)
        if hasattr(module, "write"):
            yield module


def _missing(module: ModuleType) -> str:
    """Return what a format lacks to be written here; only one that needs an extra has to say."""
    told: str = module.missing() if hasattr(module, "missing") else ""
    return told


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
