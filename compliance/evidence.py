"""
One evidence folder: collect, sign, verify offline.

`manifest.json` names every file with its digest and size; `manifest.sig` is an Ed25519 signature over it. Both, and
`public-key.pem`, have one spelling for each content, so that any changed byte of the folder is noticed. The folder
appears whole or not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import os
import pkgutil
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec

from compliance.errors import EvidenceError, EvidenceExists, KeyUnusable
from compliance.signing import SigningKey, VerifyingKey
from detectors.errors import UsageError
from detectors.model import Digest, RunRecord

__all__ = ["Artifact", "Check", "Verdict", "collect", "verify"]

MANIFEST, SIGNATURE, PUBLIC_KEY = "manifest.json", "manifest.sig", "public-key.pem"
FORMAT = 1
CONTEXT = b"detector-pool evidence manifest v1\0"
"""Stands before what is signed, so that the signature can serve for nothing else."""
MAX_MANIFEST_BYTES = 16 << 20
MAX_SIGNATURE_BYTES = 1024
CHUNK_BYTES = 1 << 20
UNSIGNED = "its signature is not valid"


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the evidence."""

    name: str
    media_type: str
    size_bytes: int
    digest: Digest


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the signature stands for."""

    format: int
    run_id: str
    started: str
    whole: bool
    problems: tuple[str, ...]
    findings_digest: Digest
    public_key_id: str
    files: tuple[Artifact, ...]


class Check(msgspec.Struct, frozen=True):
    """What was found of one file."""

    file: str
    ok: bool
    problem: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The answer of `verify`."""

    ok: bool
    anchored: bool
    """Whether the signature was checked with a key that the caller brought."""
    checked: tuple[Check, ...]


def collect(run: RunRecord, folder: Path, key: SigningKey) -> Manifest:
    """
    Write and sign the evidence of a run.

    Args:
        run: What the engine recorded; a run that is not whole says so in every artifact.
        folder: New, or empty.
        key: Signs the manifest.

    Raises:
        EvidenceExists: The folder holds something.
        EvidenceError: It cannot be written; nothing is left behind.
    """
    folder = folder.absolute()
    draft = folder.with_name(f".{folder.name}.{run.run_id}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise EvidenceExists(str(folder))
        draft.mkdir(parents=True)
        manifest = _write(run, draft, key)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as problem:
        raise EvidenceError(f"the evidence {folder} cannot be written: {problem.strerror}") from problem
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def verify(folder: Path, public_key: Path | None = None) -> Verdict:
    """
    Check an evidence folder; reads only, follows no link, needs no network.

    Args:
        folder: What `collect` made.
        public_key: The key that the caller trusts. Without one the verdict is of self-consistency only.

    Raises:
        UsageError: There is no such folder.
        KeyUnusable: `public_key` is no key.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one that --evidence made")
    trusted = VerifyingKey.load(public_key) if public_key is not None else None
    key_check, key = _check_key(folder, trusted)
    manifest_check, manifest = _check_manifest(folder, trusted or key)
    signature_check = _check_signature_spelling(folder)
    if signature_check.ok and manifest_check.problem == UNSIGNED:
        # Which of the two was changed cannot be told, so both are named.
        signature_check = Check(SIGNATURE, False, "it is not the signature of this manifest")
    checks = [key_check, manifest_check, signature_check]
    if manifest is not None:
        checks += [_check_file(folder, artifact) for artifact in manifest.files]
        if key is not None and manifest.public_key_id != key.id:
            checks[0] = Check(PUBLIC_KEY, False, "it is not the key that the manifest names")
        named = {MANIFEST, SIGNATURE, PUBLIC_KEY, *(artifact.name for artifact in manifest.files)}
        checks += [Check(name, False, "it is not in the manifest") for name in sorted(_entries(folder) - named)]
    return Verdict(all(check.ok for check in checks), trusted is not None, tuple(checks))


def _write(run: RunRecord, folder: Path, key: SigningKey) -> Manifest:
    artifacts = []
    for module in _formats():
        file = folder / module.NAME
        module.write(run, file)
        artifacts.append(Artifact(module.NAME, module.MEDIA_TYPE, file.stat().st_size, _digest(file)))
    manifest = Manifest(
        FORMAT, run.run_id, run.started, run.whole, run.problems, run.findings_digest, key.public.id,
        tuple(sorted(artifacts, key=lambda artifact: artifact.name)),
    )  # fmt: skip
    encoded = _encoded(manifest)
    (folder / MANIFEST).write_bytes(encoded)
    (folder / SIGNATURE).write_bytes(base64.b64encode(key.sign(CONTEXT + encoded)) + b"\n")
    (folder / PUBLIC_KEY).write_bytes(key.public.pem())
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return manifest


def _formats() -> Iterator[ModuleType]:
    """Yield the modules of `compliance.formats` that write a file of the evidence."""
    package = importlib.import_module("compliance.formats")
    for info in pkgutil.iter_modules(package.__path__, "compliance.formats."):
        module = importlib.import_module(info.name)
        if hasattr(module, "write"):
            yield module


def _encoded(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=1) + b"\n"


def _check_key(folder: Path, trusted: VerifyingKey | None) -> tuple[Check, VerifyingKey | None]:
    try:
        pem = _read(folder / PUBLIC_KEY, MAX_SIGNATURE_BYTES)
        key = VerifyingKey.from_pem(pem, PUBLIC_KEY)
    except (OSError, KeyUnusable) as problem:
        return Check(PUBLIC_KEY, False, _told(problem)), None
    if key.pem() != pem:
        return Check(PUBLIC_KEY, False, "it was edited"), None
    if trusted is not None and trusted.id != key.id:
        return Check(PUBLIC_KEY, False, "it is not the key that you trust"), key
    return Check(PUBLIC_KEY, True), key


def _check_manifest(folder: Path, key: VerifyingKey | None) -> tuple[Check, Manifest | None]:
    try:
        encoded = _read(folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Check(MANIFEST, False, _told(problem)), None
    if manifest.format != FORMAT:
        return Check(MANIFEST, False, f"it has format {manifest.format}, this release knows {FORMAT}"), None
    names = [artifact.name for artifact in manifest.files]
    if len(set(names)) != len(names) or not all(_plain(name) for name in names):
        return Check(MANIFEST, False, "it names a file twice, or a file outside of the folder"), None
    if _encoded(manifest) != encoded:
        return Check(MANIFEST, False, "it is not spelled as this project spells it"), manifest
    return _check_signature(folder, key, encoded), manifest


def _check_signature(folder: Path, key: VerifyingKey | None, encoded: bytes) -> Check:
    try:
        signature = base64.b64decode(_read(folder / SIGNATURE, MAX_SIGNATURE_BYTES).strip(), validate=True)
    except (OSError, binascii.Error) as problem:
        return Check(MANIFEST, False, f"its signature cannot be read: {_told(problem)}")
    if key is None or not key.verifies(signature, CONTEXT + encoded):
        return Check(MANIFEST, False, UNSIGNED)
    return Check(MANIFEST, True)


def _check_signature_spelling(folder: Path) -> Check:
    try:
        text = _read(folder / SIGNATURE, MAX_SIGNATURE_BYTES)
        if base64.b64encode(base64.b64decode(text.strip(), validate=True)) + b"\n" != text:
            return Check(SIGNATURE, False, "it was edited")
        signature_bytes = len(base64.b64decode(text.strip()))
    except (OSError, binascii.Error) as problem:
        return Check(SIGNATURE, False, _told(problem))
    return Check(SIGNATURE, True) if signature_bytes == 64 else Check(SIGNATURE, False, "it is no Ed25519 signature")


def _check_file(folder: Path, artifact: Artifact) -> Check:
    try:
        with os.fdopen(_open(folder / artifact.name), "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            if size != artifact.size_bytes:
                return Check(artifact.name, False, f"it has {size} bytes, the manifest says {artifact.size_bytes}")
            digest = hashlib.sha256()
            for chunk in iter(lambda: opened.read(CHUNK_BYTES), b""):
                digest.update(chunk)
    except OSError as problem:
        return Check(artifact.name, False, _told(problem))
    if f"sha256:{digest.hexdigest()}" != artifact.digest:
        return Check(artifact.name, False, "its content is not what was signed")
    return Check(artifact.name, True)


def _entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def _plain(name: str) -> bool:
    return (
        bool(name) and "/" not in name and "\0" not in name and name not in {".", "..", MANIFEST, SIGNATURE, PUBLIC_KEY}
    )


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


def _digest(file: Path) -> Digest:
    with file.open("rb") as opened:
        return Digest("sha256:" + hashlib.file_digest(opened, "sha256").hexdigest())


def _told(problem: Exception) -> str:
    if isinstance(problem, FileNotFoundError):
        return "it is missing"
    return (problem.strerror if isinstance(problem, OSError) else str(problem)) or type(problem).__name__
