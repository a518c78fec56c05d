"""
Evidence of runs that did not finish: a signed statement beside the place where their evidence would have been.

It is written before the work and taken away once the evidence is there, so that a run that was killed has left it
without doing anything more: a run that says that it goes on, and whose process is gone, has died.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from compliance.dsse import MAX_ENVELOPE_BYTES, STATEMENT_TYPE, Envelope, ResourceDescriptor, opened, sealed
from compliance.errors import AttestationInvalid, EvidenceError
from compliance.signing import SigningKey, VerifyingKey

__all__ = ["SUFFIX", "Mark", "Outcome", "UnfinishedRun", "read", "rewrite", "unfinished_runs"]

Outcome = Literal["running", "failed", "timed-out", "interrupted", "cancelled", "crashed"]
PREDICATE_TYPE = "urn:enterprise-detector-pool:predicate:unfinished-run:v1"
SUFFIX = ".unfinished.jsonl"
MAX_TOLD = 500
RAW_KEY_BYTES = 32


class UnfinishedRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is stated of a run that has not finished."""

    run_id: str
    """Empty where it ended before it had a name."""
    flow_run: str
    """Of Prefect; empty for a run without it."""
    deployment: str
    """`flow/deployment`, or empty."""
    roots: tuple[str, ...]
    started: str
    """RFC 3339."""
    stated: str
    """When this was said; RFC 3339."""
    outcome: Outcome
    reason: str
    host: str
    boot: str
    """Of the host: its processes have their numbers since then."""
    pid: int
    public_key: str
    """That signed this, raw, in base64; who has a key that he trusts holds it against that one."""

    @property
    def alive(self) -> bool | None:
        """Whether its process is there; None where that cannot be told, on another host."""
        if self.host != platform.node():
            return None
        return self.boot == _boot() and Path(f"/proc/{self.pid}").exists()

    @property
    def told(self) -> str:
        """One line of it."""
        died = self.outcome == "running" and self.alive is False
        became = "died without an end" if died else self.outcome
        reason = f": {self.reason}" if self.reason else ""
        return f"run {self.run_id or self.flow_run} of {', '.join(self.roots)}, begun {self.started}, {became}{reason}"


class _Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type_: str = msgspec.field(name="_type")
    subject: tuple[ResourceDescriptor, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: UnfinishedRun


class _Claim(msgspec.Struct, frozen=True):
    predicate: UnfinishedRun


class Mark:
    """
    The statement of one run; a context manager that says how the run ended, unless it `finished`.

    Args:
        folder: Where its evidence will be; None for a run without, of which nothing is stated.
        key: Signs.
    """

    def __init__(self, folder: Path | None, key: SigningKey | None) -> None:
        assert (folder is None) == (key is None), "evidence is signed"
        self._file = None if folder is None else folder.absolute().with_name(folder.name + SUFFIX)
        self._key = key
        self._said: UnfinishedRun | None = None

    def __enter__(self) -> Mark:
        """Return itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """State what ended the run."""
        if problem is None or self._said is None:
            return
        outcome: Outcome = "interrupted" if not isinstance(problem, Exception) else "failed"
        if isinstance(problem, TimeoutError):
            outcome = "timed-out"
        self._state(outcome, f"{type(problem).__name__}: {problem}")

    def began(self, roots: Sequence[Path], flow_run: str = "", deployment: str = "") -> None:
        """State that the run goes on; raises EvidenceError where that cannot be written, before any work."""
        if self._key is None or self._file is None:
            return
        now = _now()
        shown = tuple(os.fsencode(root.absolute()).decode("utf-8", "backslashreplace") for root in roots)
        raw = base64.b64encode(self._key.public.raw).decode()
        self._said = UnfinishedRun(
            "", flow_run, deployment, shown, now, now, "running", "", platform.node(), _boot(), os.getpid(), raw
        )
        _write(self._file, self._said, self._key)

    def named(self, run_id: str) -> None:
        """State what the run is called, once it has a name; raises EvidenceError."""
        assert run_id, "a name says something"
        if self._said is not None and self._file is not None and self._key is not None:
            self._said = msgspec.structs.replace(self._said, run_id=run_id, stated=_now())
            _write(self._file, self._said, self._key)

    def finished(self) -> None:
        """Take the statement away: the evidence is there."""
        if self._file is not None and self._said is not None:
            self._file.unlink(missing_ok=True)
            self._said = None

    def _state(self, outcome: Outcome, reason: str) -> None:
        assert self._said is not None, "the run began"
        assert self._file is not None, "a run that began has a place to state it"
        assert self._key is not None, "and a key to sign it"
        _write(self._file, _later(self._said, outcome, reason), self._key)


def rewrite(file: Path, said: UnfinishedRun, outcome: Outcome, reason: str, key: SigningKey) -> None:
    """State what became of a run that could not say it itself; raises EvidenceError."""
    if key.public.raw != base64.b64decode(said.public_key):
        raise EvidenceError(f"{file} is another key's statement; it is left as it is")
    _write(file, _later(said, outcome, reason), key)


def read(file: Path, trusted: VerifyingKey | None = None) -> UnfinishedRun:
    """
    Read a statement.

    Args:
        file: `*.unfinished.jsonl`.
        trusted: Key kept elsewhere; without one it is held against the key that it names itself.

    Raises:
        AttestationInvalid: It is no such statement, or is not signed by that key.
        EvidenceError: It cannot be read.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_ENVELOPE_BYTES + 1)
        payload = base64.b64decode(msgspec.json.decode(data, type=Envelope).payload, validate=True)
        raw = base64.b64decode(msgspec.json.decode(payload, type=_Claim).predicate.public_key, validate=True)
    except OSError as problem:
        raise EvidenceError(f"{file} cannot be read: {problem.strerror}") from problem
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError, RecursionError) as problem:
        raise AttestationInvalid(f"{file} is no statement of a run: {problem}") from problem
    if len(raw) != RAW_KEY_BYTES:
        raise AttestationInvalid(f"{file} names no key")
    said = opened(data, trusted or VerifyingKey.from_raw(raw), PREDICATE_TYPE, _Statement).predicate
    if trusted is not None and trusted.raw != raw:
        raise AttestationInvalid(f"{file} names another key than the one that you trust")
    return said


def unfinished_runs(folder: Path) -> tuple[Path, ...]:
    """Return the statements beside the evidence in a folder, by name."""
    assert SUFFIX.startswith("."), "it ends a name"
    return tuple(sorted(file for file in folder.glob(f"*{SUFFIX}") if file.is_file()))


def _later(said: UnfinishedRun, outcome: Outcome, reason: str) -> UnfinishedRun:
    assert outcome != "running", "it has ended"
    return msgspec.structs.replace(said, outcome=outcome, reason=reason[:MAX_TOLD], stated=_now())


def _write(file: Path, said: UnfinishedRun, key: SigningKey) -> None:
    name = file.name.removesuffix(SUFFIX)
    subject = ResourceDescriptor(name, {"sha256": hashlib.sha256(name.encode()).hexdigest()})
    data = sealed(_Statement(STATEMENT_TYPE, (subject,), PREDICATE_TYPE, said), key)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as problem:
        raise EvidenceError(f"{file} cannot be written: {problem.strerror}") from problem
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:  # no Linux: its processes cannot be told from those of an earlier boot
        return ""
