"""
The ledger's bytes: what stands in its files, the one spelling of each, and the limits that are checked before memory is
taken. docs/ledger.md draws them byte by byte.

A folder holds `genesis` and segments, which only grow:

    genesis             canonical JSON, newline, signed checkpoint of the empty tree
    0000000000.segment  B header, then commits: one or more records (R, S, P), closed by one signed head (H)

Everything is bound to what stands before it. A record carries the leaf hash of the record before it; the first record
after a header or a head carries a hash over that header, or over that head and the record before it. Thus each byte
below a signed head is covered by its signature, and a fork of the same ledger cannot be spliced in.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from compliance.errors import CheckpointInvalid, KeyUnusable, LedgerDamaged, LedgerMissing, LedgerUnwritable
from compliance.merkle import EMPTY_ROOT, HASH_BYTES, Frontier
from compliance.signing import Checkpoint, SigningKey, VerifyingKey, note_text, signed_note
from detectors.errors import FormatTooNew

__all__ = [
    "Cut",
    "Epoch",
    "Genesis",
    "Opened",
    "Payload",
    "Release",
    "SegmentHeader",
    "Signer",
    "certificate",
    "check_release",
    "check_signers",
    "decode_header",
    "encode",
    "head_frame",
    "head_note_bytes",
    "header_frame",
    "link_after_head",
    "link_after_header",
    "open_file",
    "public_payload",
    "read_genesis",
    "segment_name",
    "segment_numbers",
    "sign_genesis",
    "with_checksum",
]

FORMAT, RELEASED_FORMAT = 1, 2
"""Of the ledger; of the headers of segments behind a retention, which say what was released."""
GENESIS, GENESIS_DRAFT, SUFFIX = "genesis", "genesis.draft", ".segment"
NUMBER_DIGITS = 10

BEGIN, RECORD, SYSTEM, PUBLIC, HEAD = b"B", b"R", b"S", b"P", b"H"
PREFIX: Final = struct.Struct(">cIQ32s")
"""Of a record: kind, bytes of the ciphertext, index, link. All of it is the cipher's associated data."""
SHORT_PREFIX: Final = struct.Struct(">cI")
"""Of a header or a head: kind, bytes that follow."""
CHECKSUM_BYTES = 4
CHECKSUM_RESIDUE: Final = 0x2144DF1C
"""CRC-32 over anything that its own CRC-32 follows. It tells accidents where they are; it keeps nobody out."""
TAG_BYTES = 16

MAX_EVENT_BYTES = 1 << 20
MAX_BODY_BYTES = MAX_EVENT_BYTES + 256
MIN_BODY_BYTES = TAG_BYTES + 2
MAX_COMMIT_RECORDS = 8192
MAX_COMMIT_BYTES = 64 << 20
MAX_HEADER_BYTES = 256 << 10
MAX_GENESIS_BYTES = 16 << 10
MAX_CUTS, MAX_SIGNERS = 1024, 256
MAX_RECORDS = 1 << 62
MAX_SEGMENT_RECORDS = 1_000_000
MIN_ROUNDS, MAX_ROUNDS = 600_000, 10_000_000
"""Fewer make guessing cheap, more make opening an attack on who opens: both are refused before anything is derived."""
KDF = "PBKDF2-HMAC-SHA256"
SALT_BYTES, WRAPPED_BYTES = 16, 12 + 32 + TAG_BYTES

IRREGULAR = frozenset((0, errno.ELOOP, errno.ENXIO))
"""What `open_file` fails with where a link, socket, pipe, device or folder stands."""
SUCCESSION = b"detector-pool ledger key succession v1\0"


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One passphrase's time: how it unwraps the root key, which wraps the keys of segments."""

    number: int
    kdf: str
    rounds: int
    salt: bytes
    wrapped_root: bytes
    """12 bytes nonce, then AES-256-GCM of the root key under the passphrase's key."""
    previous_root: bytes
    """The root key of the epoch before, wrapped under this one's; empty in the first."""


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ledger begins with; the ledger's name (origin) is made from its digest."""

    format: int
    ledger_id: str
    """16 random bytes, hexadecimal."""
    created: str
    public_key: bytes
    segment_records: int
    segment_seconds: int
    epoch: Epoch


class Signer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that signs heads, and its predecessor's word for it."""

    public_key: bytes
    first: int
    """Index of the first record that it signs for."""
    link: bytes
    """What stood before that record; empty for the first key."""
    revokes: bool
    """Whether the predecessor must no longer be trusted."""
    certificate: bytes
    """The predecessor's signature over all this; empty for the first key, which the genesis names."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes after a file's last head that were never acknowledged; they stay where they are and are no records."""

    number: int
    """Of the segment."""
    size_bytes: int
    digest: bytes
    """Sha256 of them, 32 bytes."""


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a retention gave up: all segments before one. Verification begins with what is said here of them."""

    number: int
    """Of the first segment that is kept."""
    first: int
    """Index of its first record."""
    link: bytes
    """After the last head that was released; it binds every byte that was, so that a copy can be held against it."""
    frontier: tuple[bytes, ...]
    """Peaks of the tree over all records that were released."""
    checkpoint: bytes
    """That last head: the signed checkpoint of `first` records."""
    time: str


class SegmentHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a segment begins with: enough to verify and decrypt it alone."""

    format: int
    origin: str
    number: int
    first: int
    """Index of its first record."""
    previous: bytes
    """Link after the last head before it."""
    frontier: tuple[bytes, ...]
    """Peaks of the tree over all records before it."""
    cuts: tuple[Cut, ...]
    created: str
    signers: tuple[Signer, ...]
    epoch: Epoch
    wrapped_key: bytes
    """12 bytes nonce, then AES-256-GCM of the segment's key under the epoch's root key."""
    released: Release | None = None
    """The last retention before it or with it; absent in a ledger that still has all of its segments."""


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a record hides."""

    time: str
    event: dict[str, object]


class Opened(msgspec.Struct, frozen=True):
    """A genesis that holds together."""

    folder: str
    genesis: Genesis
    origin: str
    link: bytes
    note: bytes
    """The signed checkpoint of the empty tree."""


_encoder = msgspec.json.Encoder(order="deterministic")


def encode(value: object) -> bytes:
    """Return the one JSON that stands for `value`: fields in order, keys of dictionaries sorted, no spaces."""
    return _encoder.encode(value)


def public_payload(frame: bytes) -> Payload | None:
    """Return what a public record (with its checksum) says, or None when it is none or is not canonical."""
    if len(frame) < PREFIX.size or frame[:1] != PUBLIC:
        return None
    length = PREFIX.unpack_from(frame)[1]
    text = frame[PREFIX.size : PREFIX.size + length]
    try:
        payload = msgspec.json.decode(text, type=Payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return payload if encode(payload) == text else None


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"{number:0{NUMBER_DIGITS}}{SUFFIX}"


def segment_numbers(folder: str) -> tuple[list[int], list[str]]:
    """
    List a ledger's folder.

    Returns:
        Numbers of the segments in order, and the names of what does not belong there.

    Raises:
        LedgerMissing: It is no folder.
        LedgerUnwritable: It cannot be read.
    """
    numbers, strange = [], []
    try:
        names = os.listdir(folder)  # noqa: PTH208  # names only, a hundred thousand of them at times
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise LedgerMissing(folder, "there is no such folder; `detector-pool audit init` makes a ledger") from problem
    except OSError as problem:
        raise LedgerUnwritable(folder, told(problem)) from problem
    for name in names:
        stem = name.removesuffix(SUFFIX)
        if name.endswith(SUFFIX) and stem.isascii() and stem.isdigit() and segment_name(int(stem)) == name:
            numbers.append(int(stem))
        elif name != GENESIS:
            strange.append(name)
    return sorted(numbers), sorted(strange)


def open_file(folder: str, name: str) -> int:
    """Open a ledger's file for reading; raises OSError, also for a link or what is no regular file."""
    descriptor = os.open(Path(folder) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    return descriptor


def told(problem: OSError) -> str:
    """Return what the operating system said."""
    return problem.strerror or str(problem)


def sign_genesis(genesis: Genesis, key: SigningKey) -> bytes:
    """Return the bytes of the file `genesis`."""
    text = encode(genesis)
    return text + b"\n" + signed_note(Checkpoint(_origin(text), 0, EMPTY_ROOT).text(), _origin(text), key)


def read_genesis(folder: str) -> Opened:
    """
    Read and check `genesis`.

    Raises:
        LedgerMissing: There is none, and no segments either.
        LedgerDamaged: It does not hold together, or is gone while segments are there.
        FormatTooNew: A newer release wrote it.
        LedgerUnwritable: It cannot be read.
    """
    try:
        with os.fdopen(open_file(folder, GENESIS), "rb") as opened:
            data = opened.read(MAX_GENESIS_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as problem:
        if segment_numbers(folder)[0]:
            raise LedgerDamaged(folder, 0, f"the file {GENESIS} is missing") from problem
        raise LedgerMissing(folder, "there is no ledger; `detector-pool audit init` makes one") from problem
    except OSError as problem:
        if problem.errno in IRREGULAR:
            raise LedgerDamaged(folder, 0, f"the file {GENESIS} is a link or no regular file") from problem
        raise LedgerUnwritable(folder, f"{GENESIS}: {told(problem)}") from problem
    text, _, note = data.partition(b"\n")
    origin = _origin(text)
    try:
        genesis = msgspec.json.decode(text, type=Genesis)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        _refuse_newer(text, note)
        raise LedgerDamaged(folder, 0, f"the file {GENESIS} cannot be read") from problem
    _refuse_newer(text, note)
    if len(data) > MAX_GENESIS_BYTES or encode(genesis) != text or not _sound(genesis):
        raise LedgerDamaged(folder, 0, f"the file {GENESIS} is not as it was written")
    try:
        key = VerifyingKey.from_raw(genesis.public_key)
        if note_text(note, origin, key, GENESIS) != Checkpoint(origin, 0, EMPTY_ROOT).text():
            raise LedgerDamaged(folder, 0, f"the file {GENESIS} is not of an empty ledger")
    except (CheckpointInvalid, KeyUnusable, ValueError) as problem:
        raise LedgerDamaged(folder, 0, f"the signature of {GENESIS} is not valid") from problem
    if len(note) != head_note_bytes(origin, 0):
        raise LedgerDamaged(folder, 0, f"the file {GENESIS} is not as it was written")
    return Opened(folder, genesis, origin, hashlib.sha256(b"\4" + data).digest(), note)


def decode_header(data: bytes) -> SegmentHeader | None:
    """Return the header that `data` (without kind and length) spells, or None when it is none."""
    try:
        header = msgspec.json.decode(data, type=SegmentHeader)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    sound = (
        encode(header) == data
        and header.format == (FORMAT if header.released is None else RELEASED_FORMAT)
        and header.number >= 0
        and 0 <= header.first < MAX_RECORDS
        and len(header.previous) == HASH_BYTES
        and len(header.frontier) == header.first.bit_count()
        and all(len(peak) == HASH_BYTES for peak in header.frontier)
        and len(header.cuts) <= MAX_CUTS
        and all(cut.size_bytes >= 0 and len(cut.digest) == HASH_BYTES for cut in header.cuts)
        and 1 <= len(header.signers) <= MAX_SIGNERS
        and len(header.wrapped_key) == WRAPPED_BYTES
        and sound_epoch(header.epoch)
        and (header.released is None or _sound_release(header, header.released))
    )
    return header if sound else None


def header_frame(header: SegmentHeader) -> bytes:
    """Return a header as it stands in its file."""
    data = encode(header)
    assert len(data) <= MAX_HEADER_BYTES, "a header that could not be read again"
    return SHORT_PREFIX.pack(BEGIN, len(data)) + data


def head_frame(note: bytes) -> bytes:
    """Return a signed checkpoint as it stands in its file."""
    return SHORT_PREFIX.pack(HEAD, len(note)) + note


def head_note_bytes(origin: str, size: int) -> int:
    """Return how long the signed checkpoint of `size` records is; it holds one signature of 64 bytes."""
    text = len(origin) + 1 + len(str(size)) + 1 + 44 + 1
    return text + 1 + 4 + len(origin) + 1 + 92 + 1


def with_checksum(frame: bytes) -> bytes:
    """Return a record with its CRC-32 behind it."""
    return frame + zlib.crc32(frame).to_bytes(CHECKSUM_BYTES, "little")


def link_after_header(frame: bytes) -> bytes:
    """Return what the first record of a segment carries."""
    return hashlib.sha256(b"\2" + frame).digest()


def link_after_head(link: bytes, frame: bytes) -> bytes:
    """Return what the first record after a head carries, or the header after it."""
    return hashlib.sha256(b"\3" + link + frame).digest()


def certificate(origin: str, signer: Signer) -> bytes:
    """Return what the predecessor of `signer` signs."""
    return SUCCESSION + encode([origin, signer.public_key, signer.first, signer.link, signer.revokes])


@lru_cache(maxsize=64)
def check_signers(origin: str, first_key: bytes, signers: tuple[Signer, ...]) -> str | None:
    """Return what is wrong with a succession of keys that must begin with the genesis's, or None."""
    if signers[0] != Signer(first_key, 0, b"", False, b""):
        return "its keys do not begin with the key of the genesis"
    for before, signer in itertools.pairwise(signers):
        try:
            key = VerifyingKey.from_raw(before.public_key)
            _ = VerifyingKey.from_raw(signer.public_key)
        except ValueError:
            return "it names a key that is none"
        if signer.first < before.first or not key.verifies(signer.certificate, certificate(origin, signer)):
            return f"its key {hashlib.sha256(signer.public_key).hexdigest()[:16]} is not certified by the one before it"
    return None


@lru_cache(maxsize=64)
def check_release(origin: str, signers: tuple[Signer, ...], release: Release) -> str | None:
    """Return what is wrong with what a header says of a retention, or None."""
    expected = Checkpoint(origin, release.first, Frontier(release.first, release.frontier).root()).text()
    for signer in signers:
        try:
            text = note_text(release.checkpoint, origin, VerifyingKey.from_raw(signer.public_key), "of the retention")
        except (CheckpointInvalid, ValueError):
            continue
        return None if text == expected else "the checkpoint of its retention is not of the records before"
    return "the checkpoint of its retention is not signed by a key of this ledger"


def sound_epoch(epoch: Epoch) -> bool:
    """Tell whether an epoch's numbers and lengths are those that this release writes and derives from."""
    return (
        epoch.number >= 0
        and epoch.kdf == KDF
        and MIN_ROUNDS <= epoch.rounds <= MAX_ROUNDS
        and len(epoch.salt) == SALT_BYTES
        and len(epoch.wrapped_root) == WRAPPED_BYTES
        and len(epoch.previous_root) == (WRAPPED_BYTES if epoch.number else 0)
    )


def _sound_release(header: SegmentHeader, release: Release) -> bool:
    return (
        0 < release.number <= header.number
        and 0 < release.first <= header.first
        and len(release.link) == HASH_BYTES
        and len(release.frontier) == release.first.bit_count()
        and all(len(peak) == HASH_BYTES for peak in release.frontier)
        and len(release.checkpoint) == head_note_bytes(header.origin, release.first)
    )


def _sound(genesis: Genesis) -> bool:
    return (
        genesis.format == FORMAT
        and len(genesis.ledger_id) == 32
        and len(genesis.public_key) == 32
        and 1 <= genesis.segment_records <= MAX_SEGMENT_RECORDS
        and genesis.segment_seconds >= 1
        and genesis.epoch.number == 0
        and sound_epoch(genesis.epoch)
    )


def _origin(text: bytes) -> str:
    """Name the ledger by its genesis, so that each signed head binds all of it."""
    return f"detector-pool/ledger/{hashlib.sha256(text).hexdigest()[:32]}"


def _refuse_newer(text: bytes, note: bytes) -> None:
    """Raise FormatTooNew when a newer release wrote this: the name fits the text, so the number was not just edited."""

    class Versioned(msgspec.Struct):
        format: int

    try:
        found = msgspec.json.decode(text, type=Versioned).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if found > FORMAT and note.startswith(_origin(text).encode() + b"\n"):
        raise FormatTooNew("the ledger", found, FORMAT)
