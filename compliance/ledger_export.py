"""
What a ledger holds, read: records in clear for who has the passphrase, inclusion proofs for everybody.

Nothing comes out that was not verified before: the whole ledger is walked first, and each segment again as it is read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from compliance.errors import LedgerDamaged, LedgerUnwritable
from compliance.ledger_format import (
    PUBLIC,
    SYSTEM,
    Opened,
    SegmentHeader,
    encode,
    read_genesis,
    segment_numbers,
    told,
)
from compliance.ledger_keys import SegmentCipher, unlock, unwrap_segment_key
from compliance.ledger_read import CommitSink, epochs_of, read_segment
from compliance.ledger_verify import Verdict, verify
from compliance.merkle import Nodes, inclusion_proof, node_hash

__all__ = ["Proof", "export", "prove", "read_record"]


class Proof(msgspec.Struct, frozen=True):
    """That a record is in the ledger: leaf and path lead to the root of a signed checkpoint (RFC 9162 §2.1.3)."""

    index: int
    size: int
    leaf: bytes
    """The record as it stands in its file."""
    path: tuple[bytes, ...]
    checkpoint: str


def export(folder: Path, passphrase: bytes, emit: Callable[[bytes], None], *, proofs: bool = False) -> Verdict:
    """
    Write all records as JSON lines.

    Args:
        folder: The ledger's.
        passphrase: Of the newest key epoch.
        emit: Gets whole lines.
        proofs: Give each record its leaf and inclusion proof, and the checkpoint they lead to in a last line. This
            keeps 64 bytes a record in memory.

    Returns:
        What `verify` says; records after the last signed head of a torn ledger are left out.

    Raises:
        LedgerDamaged: The ledger does not verify; nothing was written, or what was written is to be thrown away.
        LedgerLocked: The passphrase is wrong.
        LedgerMissing, LedgerUnwritable: See `verify`.
    """
    opened, verdict = _verified(folder)
    numbers, _ = segment_numbers(opened.folder)
    roots = unlock(opened, passphrase, epochs_of(opened, numbers))
    nodes = _nodes(opened, numbers, verdict) if proofs else None
    for number in numbers:
        sink = _Decryption(opened, roots, number, emit, verdict.records, nodes)
        _walk(opened, number, sink)
    if proofs:
        emit(encode({"checkpoint": verdict.checkpoint}) + b"\n")
    return verdict


def read_record(folder: Path, index: int, passphrase: bytes) -> bytes:
    """Return one record as `export` prints it; raises like `export`, and IndexError if there is none."""
    opened, verdict = _verified(folder)
    if not verdict.first_index <= index < verdict.records:
        raise IndexError(index)
    numbers, _ = segment_numbers(opened.folder)
    roots = unlock(opened, passphrase, epochs_of(opened, numbers))
    found: list[bytes] = []
    for number in numbers:
        sink = _Decryption(opened, roots, number, found.append, verdict.records, None)
        sink.only = index
        _walk(opened, number, sink)
        if found:
            break
    return found[0]


def prove(folder: Path, index: int) -> Proof:
    """Return the proof that a record is in the ledger; needs no passphrase. Raises like `read_record`."""
    opened, verdict = _verified(folder)
    if not verdict.first_index <= index < verdict.records:
        raise IndexError(index)
    numbers, _ = segment_numbers(opened.folder)
    frames: list[bytes] = []

    def keep(_header: SegmentHeader, records: Sequence[bytes], _leaves: Sequence[bytes]) -> None:
        for record in records:
            if int.from_bytes(record[5:13], "big") == index:
                frames.append(record)

    nodes = _nodes(opened, numbers, verdict, keep)
    path = inclusion_proof(nodes, index, verdict.records)
    return Proof(index, verdict.records, frames[0], path, verdict.checkpoint)


class _Decryption:
    """A sink that decrypts, and emits lines."""

    only: int | None = None

    def __init__(  # noqa: PLR0917  # private
        self, opened: Opened, roots: dict[int, bytes], number: int, emit: Callable[[bytes], None], size: int,
        nodes: Nodes | None,
    ) -> None:  # fmt: skip
        self._opened, self._roots, self._number, self._emit = opened, roots, number, emit
        self._size, self._nodes = size, nodes
        self._cipher: SegmentCipher | None = None
        self._index = -1

    def __call__(self, header: SegmentHeader, frames: Sequence[bytes], _leaves: Sequence[bytes]) -> None:
        if self._index < 0:
            self._index = header.first
            key = unwrap_segment_key(self._roots[header.epoch.number], self._opened, header)
            self._cipher = SegmentCipher(key) if key is not None else None
        lines = []
        for frame in frames:
            index, self._index = self._index, self._index + 1
            if index >= self._size or (self.only is not None and index != self.only):
                continue
            payload = self._cipher.decrypt(frame) if self._cipher is not None else None
            if payload is None:
                raise LedgerDamaged(self._opened.folder, index, "it does not decrypt")
            line: dict[str, object] = {"index": index, "time": payload.time, "event": payload.event}
            if frame[:1] == SYSTEM:
                line["ledger"] = True  # the ledger's own word, which no event can imitate
            if frame[:1] == PUBLIC:
                line["public"] = True
            if self._nodes is not None:
                line["leaf"] = base64.b64encode(frame).decode()
                path = inclusion_proof(self._nodes, index, self._size)
                line["proof"] = [base64.b64encode(node).decode() for node in path]
            lines.append(msgspec.json.encode(line) + b"\n")
        if lines:
            self._emit(b"".join(lines))


def _verified(folder: Path) -> tuple[Opened, Verdict]:
    verdict = verify(folder)
    if verdict.verdict == "tampered":
        raise LedgerDamaged(str(folder), verdict.first_bad_index or 0, verdict.problem or "it does not verify")
    if verdict.verdict == "io":
        raise LedgerUnwritable(str(folder), verdict.problem or "it cannot be read")
    return read_genesis(str(folder)), verdict


def _walk(opened: Opened, number: int, sink: CommitSink) -> None:
    try:
        report = read_segment(opened, number, sink=sink)
    except OSError as problem:
        raise LedgerUnwritable(opened.folder, told(problem)) from problem
    if report.problem is not None:
        raise LedgerDamaged(opened.folder, report.bad_index or 0, report.problem)


def _nodes(opened: Opened, numbers: Sequence[int], verdict: Verdict, also: CommitSink | None = None) -> Nodes:
    """
    Read all leaf hashes, and return a look-up of the hashes of complete subtrees.

    Of what a retention released, the peaks stand in the first header that is left: no path of a later leaf needs more.
    """
    leaves: list[bytes] = []
    begin: list[tuple[bytes, ...]] = []

    def keep(header: SegmentHeader, frames: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        if not begin:
            begin.append(header.frontier)
        leaves.extend(hashes)
        if also is not None:
            also(header, frames, hashes)

    for number in numbers:
        _walk(opened, number, keep)
    first = verdict.first_index
    peaks = list(begin[0]) if begin else []
    assert len(peaks) == first.bit_count(), "one peak for each one-bit of what stands before"
    nodes = leaves[: verdict.records - first]
    levels: list[tuple[int, list[bytes]]] = []
    for level in range(verdict.records.bit_length()):
        offset = first >> level
        if offset & 1:
            nodes, offset = [peaks.pop(), *nodes], offset - 1
        levels.append((offset, nodes))
        pairs = iter(nodes)
        nodes = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=False)]
    return lambda level, index: levels[level][1][index - levels[level][0]]
