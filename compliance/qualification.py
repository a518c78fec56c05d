"""
Qualification statements: an in-toto statement in a DSSE envelope that says how good detectors are, until a day.

The subjects are the detectors, each by the digest of its code; the predicate has their figures and the corpus. A run's
record says of each detector whether a valid statement speaks of just that version, code and configuration.

Source: in-toto Attestation Framework, Statement v1; DSSE protocol v1.0.2; DO-330 and ISO 26262-8 §11 for the idea.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from compliance import dsse
from compliance.errors import AttestationInvalid
from compliance.identity import open_regular
from compliance.qualification_trial import Corpus, Trial
from compliance.signing import SigningKey, VerifyingKey
from detectors.errors import UsageError
from detectors.model import DetectorRecord, QualificationRecord, RunRecord

__all__ = ["PREDICATE_TYPE", "Predicate", "opened", "sealed", "with_qualifications"]

PREDICATE_TYPE: Final = "urn:enterprise-detector-pool:predicate:detector-qualification:v1"
MAX_FILES = 10_000
SUFFIX = ".jsonl"


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What is said of the detectors."""

    version: str
    """Of this project."""
    made: str
    """Day, in UTC."""
    expires: str
    """Last day, in UTC."""
    corpus: Corpus
    detectors: tuple[Trial, ...]


class QualificationStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In-toto Statement v1 with this predicate."""

    type_: str = msgspec.field(name="_type")
    subject: tuple[dsse.ResourceDescriptor, ...]
    """Detectors, by the digest of their code."""
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: Predicate


def sealed(trials: Sequence[Trial], corpus: Corpus, key: SigningKey, made: datetime.date, days: int) -> bytes:
    """
    Return a signed statement, one line of JSON.

    Args:
        trials: Of at least one detector.
        corpus: On what.
        key: Signs.
        made: Day, in UTC.
        days: For how many it holds.

    Raises:
        UsageError: There is nothing to say, or it would hold for no day or more than three years.
    """
    import importlib.metadata

    if not trials or not 1 <= days <= 1096:
        raise UsageError("a qualification is of some detector, and holds for 1 to 1096 days")
    expires = (made + datetime.timedelta(days=days)).isoformat()
    version = importlib.metadata.version("enterprise-detector-pool")
    subjects = tuple(
        dsse.ResourceDescriptor(one.detector, {"sha256": one.code_digest.removeprefix("sha256:")}) for one in trials
    )
    predicate = Predicate(version, made.isoformat(), expires, corpus, tuple(trials))
    data = dsse.sealed(QualificationStatement(dsse.STATEMENT_TYPE, subjects, PREDICATE_TYPE, predicate), key)
    assert opened(data, key.public) == predicate, "what is handed out is believed"
    return data


def opened(data: bytes, key: VerifyingKey) -> Predicate:
    """
    Return what `key` signed.

    Raises:
        AttestationInvalid: See `dsse.opened`; or its subjects are not the detectors that it speaks of.
    """
    statement = dsse.opened(data, key, PREDICATE_TYPE, QualificationStatement)
    told = [(one.name, "sha256:" + one.digest.get("sha256", "")) for one in statement.subject]
    if told != [(one.detector, one.code_digest) for one in statement.predicate.detectors] or not told:
        raise AttestationInvalid("its subjects are not the detectors that it speaks of")
    return statement.predicate


def with_qualifications(run: RunRecord, folder: Path, key: VerifyingKey) -> RunRecord:
    """
    Return the record with what a folder's statements say of each detector that ran.

    Args:
        run: As the engine settled it.
        folder: Of statements, `*.jsonl`.
        key: Whose signature counts.

    Raises:
        UsageError: There is no such folder, it holds too many files, or the record has qualifications already.
    """
    if not folder.is_dir() or run.qualifications:
        raise UsageError(f"--qualifications {folder} is no folder, or was held against run {run.run_id} already")
    files = sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIX))
    if len(files) > MAX_FILES:
        raise UsageError(f"--qualifications {folder}: it holds more than {MAX_FILES} files")
    today = datetime.datetime.fromisoformat(run.started).astimezone(datetime.UTC).date().isoformat()
    statements: list[tuple[str, Predicate]] = []
    warnings: list[str] = []
    for file in files:
        try:
            data = _read(file)
            statements.append(("sha256:" + hashlib.sha256(data).hexdigest(), opened(data, key)))
        except AttestationInvalid as problem:
            warnings.append(f"the qualification {file.name} is refused: {problem}")
    found = tuple(_status(one, statements, today) for one in run.detectors)
    warnings += [f"{one.detector} {one.version} is {one.state}: {one.problem}" for one in found if one.problem]
    assert len(found) == len(run.detectors), "each detector has a state"
    return msgspec.structs.replace(run, qualifications=found, problems=(*run.problems, *warnings))


def _status(detector: DetectorRecord, statements: Sequence[tuple[str, Predicate]], today: str) -> QualificationRecord:
    best: QualificationRecord | None = None
    other = ""
    for digest, predicate in statements:
        for trial in predicate.detectors:
            if trial.detector != detector.name:
                continue
            same = (trial.version, trial.code_digest, trial.config_digest)
            if same != (detector.version, detector.code_digest, detector.config_digest):
                other = f"a statement speaks of version {trial.version}, or of other code or configuration"
                continue
            expired = today > predicate.expires
            problem = f"the statement was good until {predicate.expires}" if expired else ""
            recall, precision = trial.figures.recall, trial.figures.precision
            told = QualificationRecord(
                detector.name, detector.version, "expired" if expired else "qualified", digest, predicate.expires,
                (recall.value, recall.low, recall.high), (precision.value, precision.low, precision.high), problem,
            )  # fmt: skip
            if best is None or told.expires > best.expires:
                best = told
    assert best is None or best.statement, "who is qualified is so by a statement"
    if best is not None:
        return best
    return QualificationRecord(
        detector.name, detector.version, "unqualified", problem=other or "no statement speaks of it"
    )


def _read(file: Path) -> bytes:
    import os

    try:
        descriptor, seen = open_regular(file)
    except OSError as problem:
        raise AttestationInvalid(f"it cannot be opened ({problem.strerror})") from problem
    with os.fdopen(descriptor, "rb") as opened_file:
        if seen.st_size > dsse.MAX_ENVELOPE_BYTES:
            raise AttestationInvalid(f"it is larger than {dsse.MAX_ENVELOPE_BYTES} bytes")
        return opened_file.read(dsse.MAX_ENVELOPE_BYTES)
