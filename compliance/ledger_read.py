"""
One segment read as a stream: every byte of it accounted for, in constant memory, without a passphrase.

The loop over records is the ledger's hot path: one unpacking, one checksum, one hash a record; the tree takes a commit
at a time. What is slow (telling which record is the bad one) happens only once something is wrong.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Sequence
from typing import BinaryIO

import msgspec

from compliance.errors import CheckpointInvalid
from compliance.ledger_format import (
    BEGIN,
    CHECKSUM_BYTES,
    CHECKSUM_RESIDUE,
    FORMAT,
    HEAD,
    IRREGULAR,
    MAX_BODY_BYTES,
    MAX_COMMIT_BYTES,
    MAX_COMMIT_RECORDS,
    MAX_HEADER_BYTES,
    MIN_BODY_BYTES,
    PREFIX,
    PUBLIC,
    RECORD,
    RELEASED_FORMAT,
    SHORT_PREFIX,
    SYSTEM,
    Cut,
    Epoch,
    Opened,
    SegmentHeader,
    check_release,
    check_signers,
    decode_header,
    encode,
    head_note_bytes,
    link_after_head,
    link_after_header,
    open_file,
    segment_name,
    told,
)
from compliance.merkle import Frontier, leaf_hash
from compliance.signing import Checkpoint, VerifyingKey, note_text

__all__ = [
    "MISSING",
    "ChainState",
    "CommitSink",
    "SegmentReport",
    "begins_like_a_header",
    "epochs_of",
    "read_header",
    "read_segment",
]

MISSING = "the segment is missing"

CHUNK_BYTES = 1 << 20
MAX_HEAD_LINE_BYTES = 512
OVERHEAD_BYTES = PREFIX.size + CHECKSUM_BYTES
BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
RECORD_KINDS = frozenset((RECORD, SYSTEM, PUBLIC))

CommitSink = Callable[[SegmentHeader, Sequence[bytes], Sequence[bytes]], None]
"""Called with the header, the records' bytes and their leaf hashes after each commit whose root is as its head says."""


class ChainState(msgspec.Struct, frozen=True):
    """What a ledger must know of all that stands before, to go on."""

    size: int
    link: bytes
    peaks: tuple[bytes, ...]


class SegmentReport(msgspec.Struct, frozen=True):
    """What one file holds."""

    number: int
    header: SegmentHeader | None
    """None when the file ends before its header does."""
    end: ChainState | None
    """State after its last head; None when it has none."""
    head: bytes
    """The last signed checkpoint."""
    tail: Cut | None
    """Bytes after the last head, when they can be the beginning of a commit."""
    stub: bytes
    """The whole file, when it ends before its header does."""
    problem: str | None
    bad_index: int | None
    """First record that is not as it was written; None when the file cannot tell, and the state before it must."""
    roots: dict[int, bytes]
    """Size to root, for the sizes that were asked for."""


class _Damaged(Exception):
    """Ends the walk; never leaves this module."""

    def __init__(self, index: int | None, problem: str) -> None:
        super().__init__(index, problem)
        self.index, self.problem = index, problem


def read_segment(
    opened: Opened, number: int, wanted: Sequence[int] = (), sink: CommitSink | None = None
) -> SegmentReport:
    """
    Read a segment through, and say what it holds and what is wrong with it.

    Args:
        opened: The ledger it belongs to.
        number: Of the segment.
        wanted: Sizes of the tree at which the root is asked for.
        sink: Gets the commits; without one no record is kept.

    Raises:
        OSError: It cannot be read. A link or special file in its place is a problem of the report.
    """
    try:
        descriptor = open_file(opened.folder, segment_name(number))
    except FileNotFoundError:
        return _failed(number, None, MISSING)
    except OSError as problem:
        if problem.errno in IRREGULAR:
            return _failed(number, None, f"the segment is a link or no regular file ({told(problem)})")
        raise
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        report = _SegmentReader(opened, number, file, wanted=wanted, sink=sink).report()
        if report.problem != _SegmentReader.UNSIGNED:
            return report
        # Everything fits but the signature. The heads between tell where the rewriting began.
        file.seek(0)
        strict = _SegmentReader(opened, number, file)
        strict.check_every_head = True
        return strict.report()


def read_header(opened: Opened, number: int) -> SegmentHeader | None:
    """Return a segment's header alone, or None when it has none that can be read."""
    try:
        with os.fdopen(open_file(opened.folder, segment_name(number)), "rb") as file:
            start = file.read(SHORT_PREFIX.size + MAX_HEADER_BYTES)
    except OSError:
        return None  # reading it whole says why
    if len(start) < SHORT_PREFIX.size:
        return None
    _, length = SHORT_PREFIX.unpack_from(start)
    return decode_header(start[SHORT_PREFIX.size : SHORT_PREFIX.size + length])


def epochs_of(opened: Opened, numbers: Sequence[int]) -> dict[int, Epoch]:
    """Return all key epochs that the genesis and the headers name."""
    epochs = {}
    if not numbers or numbers[0] == 0:  # a retention may have released the first, and whole epochs with it
        epochs[0] = opened.genesis.epoch
    for number in numbers:
        header = read_header(opened, number)
        if header is not None:
            epochs[header.epoch.number] = header.epoch
    return epochs or {0: opened.genesis.epoch}


def begins_like_a_header(stub: bytes, number: int, before: ChainState, opened: Opened, cuts: Sequence[Cut]) -> bool:
    """
    Tell whether a file that ends before its header does can be what a writer in that state began to write.

    It may have begun with a retention; that is neither more nor less than any commit that was never acknowledged.
    """
    length = int.from_bytes(stub[1:5].ljust(4, b"\0"), "big")
    if not BEGIN.startswith(stub[:1]) or length > MAX_HEADER_BYTES or len(stub) > SHORT_PREFIX.size + MAX_HEADER_BYTES:
        return False
    text = stub[SHORT_PREFIX.size :]
    behind = text.startswith(b'{"format":%d' % RELEASED_FORMAT)
    fields = {
        "format": RELEASED_FORMAT if behind else FORMAT,
        "origin": opened.origin,
        "number": number,
        "first": before.size,
        "previous": before.link,
        "frontier": before.peaks,
        "cuts": tuple(cuts),
    }
    known = b"{" + b",".join(b'"%s":%s' % (name.encode(), encode(value)) for name, value in fields.items())
    known += b',"created":"'
    return known.startswith(text[: len(known)]) and all(32 <= byte < 127 for byte in text[len(known) :])


def _failed(number: int, index: int | None, problem: str) -> SegmentReport:
    return SegmentReport(number, None, None, b"", None, b"", problem, index, {})


class _SegmentReader:
    """The walk over one file."""

    UNSIGNED = "its signature is not valid"

    def __init__(
        self, opened: Opened, number: int, file: BinaryIO, *, wanted: Sequence[int] = (), sink: CommitSink | None = None
    ) -> None:
        self._opened, self._number, self._file, self._sink = opened, number, file, sink
        self._left = self._size_bytes = os.fstat(file.fileno()).st_size
        self._wanted = sorted(wanted)
        self.check_every_head = False
        self._buffer, self._position = b"", 0
        self._taken = 0  # bytes of the file before the buffer
        self._header: SegmentHeader | None = None
        self._signer: VerifyingKey | None = None
        self._frontier = Frontier()
        self._link, self._index = b"", 0
        self._pending: list[bytes] = []  # leaf hashes of the open commit
        self._frames: list[bytes] = []
        self._end: ChainState | None = None
        self._head, self._committed = b"", 0  # the last head, and where it ends
        self._commit_first = self._last_first = 0  # of the open commit, and of the one that `_head` closes
        self._roots: dict[int, bytes] = {}

    def report(self) -> SegmentReport:
        try:
            stub = self._read_header()
            if stub is not None:
                cut = Cut(self._number, len(stub), hashlib.sha256(stub).digest())
                return SegmentReport(self._number, None, None, b"", cut, stub, None, None, {})
            while self._step():
                pass
            if self._end is not None and not self._is_signed(self._head):
                raise _Damaged(self._last_first, self.UNSIGNED)
            tail = self._tail() if self._committed < self._size_bytes else None
        except _Damaged as damage:
            return SegmentReport(
                self._number, self._header, None, b"", None, b"", damage.problem, damage.index, self._roots
            )
        return SegmentReport(self._number, self._header, self._end, self._head, tail, b"", None, None, self._roots)

    def _read_header(self) -> bytes | None:
        """Take the header; return the whole file when it ends before the header does."""
        self._refill(SHORT_PREFIX.size + MAX_HEADER_BYTES)
        if len(self._buffer) >= SHORT_PREFIX.size:
            kind, length = SHORT_PREFIX.unpack_from(self._buffer)
            if kind != BEGIN or length > MAX_HEADER_BYTES:
                raise _Damaged(None, "its header cannot be read")
        if len(self._buffer) < SHORT_PREFIX.size or len(self._buffer) < SHORT_PREFIX.size + length:
            return self._buffer
        self._position = SHORT_PREFIX.size + length
        frame = self._buffer[: self._position]
        header = decode_header(frame[SHORT_PREFIX.size :])
        if header is None or header.origin != self._opened.origin or header.number != self._number:
            raise _Damaged(None, "its header is not one of this ledger in this place")
        problem = check_signers(self._opened.origin, self._opened.genesis.public_key, header.signers)
        if problem is None and header.released is not None:
            problem = check_release(self._opened.origin, header.signers, header.released)
        if problem is not None:
            raise _Damaged(None, problem)
        self._header = header
        self._signer = VerifyingKey.from_raw(header.signers[-1].public_key)
        self._frontier = Frontier(header.first, header.frontier)
        self._index = self._commit_first = header.first
        self._link = link_after_header(frame)
        if header.first in self._wanted:
            self._roots[header.first] = self._frontier.root()
        return None

    def _step(self) -> bool:
        """Take what stands next; tell whether there may be more."""
        self._take_records()
        if self._taken + self._position - self._committed > MAX_COMMIT_BYTES or len(self._pending) > MAX_COMMIT_RECORDS:
            raise _Damaged(self._commit_first, "its records go on without a head")
        have = len(self._buffer) - self._position
        need = OVERHEAD_BYTES + MAX_BODY_BYTES
        if have < need and self._left:
            self._refill(need)
            return True
        if not have:
            return False
        kind = self._buffer[self._position : self._position + 1]
        if kind in RECORD_KINDS:
            return self._odd_record(have)
        if kind == HEAD:
            return self._take_head(have)
        rest = self._buffer[self._position + SHORT_PREFIX.size :]
        is_head = self._pending and rest.startswith(self._opened.origin.encode() + b"\n")
        bad = self._commit_first if is_head else self._index
        raise _Damaged(bad, "something that is neither record nor head stands in its place")

    def _take_records(self) -> None:
        """Take all whole and sound records that are in the buffer."""
        buffer, position, end = self._buffer, self._position, len(self._buffer)
        unpack, sha256, crc32 = PREFIX.unpack_from, hashlib.sha256, zlib.crc32
        link, index, pending = self._link, self._index, self._pending
        keep = self._frames.append if self._sink is not None else None
        last = end - OVERHEAD_BYTES
        while position <= last:
            kind, length, told_index, told_link = unpack(buffer, position)
            stop = position + OVERHEAD_BYTES + length
            if kind not in RECORD_KINDS or stop > end or not MIN_BODY_BYTES <= length <= MAX_BODY_BYTES:
                break
            frame = buffer[position:stop]
            if told_index != index or told_link != link or crc32(frame) != CHECKSUM_RESIDUE:
                break
            link = sha256(b"\0" + frame).digest()
            pending.append(link)
            if keep is not None:
                keep(frame)
            index += 1
            position = stop
        self._position, self._link, self._index = position, link, index

    def _odd_record(self, have: int) -> bool:
        """Tell the end of a torn commit from a damaged record."""
        data = self._buffer[self._position : self._position + OVERHEAD_BYTES + MAX_BODY_BYTES]
        expected = PREFIX.pack(data[:1], 0, self._index, self._link)
        length = int.from_bytes(data[1:5].ljust(4, b"\0"), "big")
        if length > MAX_BODY_BYTES or (have >= 5 and length < MIN_BODY_BYTES):
            raise _Damaged(self._index, "its length is out of bounds")
        stop = OVERHEAD_BYTES + length
        if have < PREFIX.size or have < stop:
            if data[5 : PREFIX.size] == expected[5 : min(have, PREFIX.size)]:
                return False
            bad = self._index if self._pending else self._blamed(data, b"")
            raise _Damaged(bad, "it does not follow the record before it")
        frame = data[:stop]
        if zlib.crc32(frame) != CHECKSUM_RESIDUE:
            raise _Damaged(self._index, "its checksum does not fit")
        _, _, told_index, told_link = PREFIX.unpack_from(frame)
        if told_index != self._index:
            raise _Damaged(min(self._index, told_index), f"record {told_index} stands in the place of {self._index}")
        raise _Damaged(self._blamed(frame, told_link), "it does not follow what stands before it")

    def _blamed(self, frame: bytes, told_link: bytes) -> int:
        """Tell which of two neighbours is not as it was written, when the later one does not follow the earlier."""
        if not self._pending:
            head_is_bad = self._end is not None and not self._is_signed(self._head)
            return self._last_first if head_is_bad else self._index
        following = self._buffer[self._position + len(frame) :]
        leaf = leaf_hash(frame)
        if len(following) >= PREFIX.size and following[:1] in RECORD_KINDS:
            vouched = PREFIX.unpack_from(following)[3] == leaf
        else:
            tree = Frontier(self._frontier.size, self._frontier.peaks)
            tree.extend([*self._pending[:-1], told_link, leaf])
            text = Checkpoint(self._opened.origin, self._index + 1, tree.root()).text()
            vouched = following[SHORT_PREFIX.size :].startswith(text)
        return self._index - 1 if vouched else self._index

    def _take_head(self, have: int) -> bool:
        """Take a head that says what was read since the last one, or tell that it is torn."""
        if not self._pending:
            raise _Damaged(self._index, "a head without records stands in its place")
        pending, first = self._pending, self._commit_first
        wanted = [size for size in self._wanted if first < size < self._index]
        before = Frontier(self._frontier.size, self._frontier.peaks) if wanted else self._frontier
        self._frontier.extend(pending)
        text = Checkpoint(self._opened.origin, self._index, self._frontier.root()).text()
        note_bytes = head_note_bytes(self._opened.origin, self._index)
        frame_bytes = SHORT_PREFIX.size + note_bytes
        frame = self._buffer[self._position : self._position + frame_bytes]
        fixed = SHORT_PREFIX.pack(HEAD, note_bytes) + text + f"\n\u2014 {self._opened.origin} ".encode()
        if not frame.startswith(fixed):
            if have < frame_bytes and fixed.startswith(frame):
                return False
            raise self._wrong_head(frame[SHORT_PREFIX.size :], text)
        if have < frame_bytes:
            if BASE64.issuperset(frame[len(fixed) :]):
                return False
            raise _Damaged(first, "its head is damaged")
        if not frame.endswith(b"\n"):
            raise _Damaged(first, "its head is damaged")
        for size in wanted:
            tree = Frontier(before.size, before.peaks)
            tree.extend(pending[: size - first])
            self._roots[size] = tree.root()
        if self._index in self._wanted:
            self._roots[self._index] = self._frontier.root()
        self._close_commit(frame)
        return True

    def _close_commit(self, frame: bytes) -> None:
        note = frame[SHORT_PREFIX.size :]
        if self.check_every_head and not self._is_signed(note):
            raise _Damaged(self._commit_first, "its head is not signed")
        if self._sink is not None:
            assert self._header is not None, "a commit stands behind a header"
            self._sink(self._header, self._frames, self._pending)
            self._frames = []
        self._last_first, self._commit_first = self._commit_first, self._index
        self._link = link_after_head(self._link, frame)
        self._position += len(frame)
        self._pending = []
        self._head, self._committed = note, self._taken + self._position
        self._end = ChainState(self._index, self._link, self._frontier.peaks)

    def _wrong_head(self, note: bytes, text: bytes) -> _Damaged:
        """Tell which record a head misses, or that one of its commit was changed."""
        lines = note.split(b"\n", 3)
        if lines[2:3] == text.split(b"\n")[2:3]:
            return _Damaged(self._commit_first, "its head is damaged")
        size = int(lines[1]) if len(lines) == 4 and lines[1].isdigit() and len(lines[1]) < 20 else self._index
        if size > self._index and note.startswith(text.split(b"\n", 1)[0] + b"\n"):
            return _Damaged(self._index, "records before its head are missing")
        if self._commit_first < size < self._index:
            return _Damaged(size, "it is not among the records that its head closes")
        return _Damaged(self._commit_first, "the root of its head is not that of the records")

    def _is_signed(self, note: bytes) -> bool:
        assert self._signer is not None, "a head stands behind a header"
        try:
            _ = note_text(note, self._opened.origin, self._signer, segment_name(self._number))
        except CheckpointInvalid:
            return False
        return True

    def _tail(self) -> Cut:
        """
        Digest what stands after the last head; the walk found that it can be the beginning of a commit.

        Its bytes must hold no signed head: then they are a commit whose lengths were changed to look unfinished.
        """
        line = re.compile(re.escape(f"\n\n\u2014 {self._opened.origin} ".encode()) + rb"[A-Za-z0-9+/=]{92}\n")
        self._file.seek(self._committed)
        digest, left, carried = hashlib.sha256(), self._size_bytes - self._committed, b""
        while left and (chunk := self._file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
            if line.search(carried + chunk):
                raise _Damaged(self._index, "its length reaches over a signed head")
            carried = chunk[-MAX_HEAD_LINE_BYTES:]
        return Cut(self._number, self._size_bytes - self._committed, digest.digest())

    def _refill(self, need: int) -> None:
        """Read on until `need` bytes are ahead, or the file ends; what was taken leaves the memory."""
        self._taken += self._position
        parts, have = [self._buffer[self._position :]], len(self._buffer) - self._position
        while have < need + CHUNK_BYTES and self._left:
            chunk = self._file.read(min(CHUNK_BYTES, self._left))
            self._left = self._left - len(chunk) if chunk else 0
            parts.append(chunk)
            have += len(chunk)
        self._buffer, self._position = b"".join(parts), 0
