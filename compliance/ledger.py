"""
The tamper-evident ledger, written: events go in, and come back acknowledged when they are durable.

A commit is its records and the signed head that closes them, in one append and one fdatasync; appends of many threads
that wait for one another share it. Files only grow. Each opening for writing begins a segment with a key of its own, so
that no nonce is used twice whatever was cut or restored before. A commit that was torn by a crash is left where it
lies: the next segment's header accounts for its bytes, so recovery is one more append and can itself be torn.

    with Ledger.open(folder, keys, passphrase) as ledger:
        receipt = ledger.append({"type": "scan.started"})

`receipt.checkpoint` is the anchor to keep elsewhere. docs/ledger.md has the format and the threats.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec

from compliance.errors import KeyUnusable, LedgerBusy, LedgerLocked, LedgerMissing, LedgerUnwritable
from compliance.ledger_format import (
    FORMAT,
    GENESIS,
    GENESIS_DRAFT,
    MAX_COMMIT_BYTES,
    MAX_COMMIT_RECORDS,
    MAX_EVENT_BYTES,
    MAX_SEGMENT_RECORDS,
    PREFIX,
    PUBLIC,
    RECORD,
    RELEASED_FORMAT,
    SYSTEM,
    TAG_BYTES,
    Cut,
    Genesis,
    Opened,
    Payload,
    Release,
    SegmentHeader,
    Signer,
    certificate,
    encode,
    head_frame,
    header_frame,
    link_after_head,
    link_after_header,
    open_file,
    read_genesis,
    segment_name,
    segment_numbers,
    sign_genesis,
    told,
    with_checksum,
)
from compliance.ledger_keys import KEY_BYTES, NONCE_BYTES, SegmentCipher, make_epoch, unlock, wrap_segment_key
from compliance.ledger_retention import Keep, Retention, choose, event_of, remove_released
from compliance.ledger_verify import Chain, last_chain
from compliance.merkle import Frontier
from compliance.signing import Checkpoint, SigningKey, signed_note
from detectors.errors import UsageError

__all__ = ["Disk", "Ledger", "Publication", "Receipt"]

SEGMENT_RECORDS, SEGMENT_SECONDS = 16_384, 86_400
SEGMENT_BYTES = 64 << 20
LOCK_PATIENCE_S, LOCK_STEP_S = 0.5, 0.02
"""A verifier that looks whether a writer is at work holds the folder for an instant; that is no other writer."""


class Disk:
    """What the ledger asks of the file system; tests put one that fails in its place."""

    def create(self, path: str) -> int:
        """Make a new file, mode 0600; return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data` at the end; return how much."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Return when what was written, and the file's length, are durable."""
        os.fdatasync(descriptor)

    def sync_folder(self, path: str) -> None:
        """Return when the folder's entries are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Take back what a failed write left."""
        os.ftruncate(descriptor, size_bytes)

    def remove(self, path: str) -> None:
        """Take back a file that a failed write left, or give up a segment that a retention released."""
        Path(path).unlink()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an acknowledgement says: these records are durable."""

    indices: range
    checkpoint: bytes
    """The signed head that closes them."""

    @property
    def index(self) -> int:
        """Of the first record."""
        return self.indices[0]


@dataclass(frozen=True, slots=True)
class Publication:
    """That a record in clear is durable, and the proof that it is there (RFC 9162 §2.1.3)."""

    index: int
    leaf: bytes
    """The record as it stands in its file; its leaf hash is SHA-256(0x00 || leaf)."""
    path: tuple[bytes, ...]
    """Sibling hashes of 32 bytes, from the leaf upwards."""
    checkpoint: bytes
    """The signed head of the `index + 1` records up to it; the path leads to its root."""


@dataclass(slots=True)
class _Ticket:
    """Events of one caller on their way into commits."""

    payloads: Sequence[bytes]
    taken: int = 0
    first: int = -1
    checkpoint: bytes = b""
    done: bool = False
    failure: BaseException | None = None


@dataclass(slots=True)
class _Segment:
    """The file that is written to."""

    header: SegmentHeader
    path: str
    descriptor: int
    cipher: SegmentCipher
    began_s: float
    records: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Commit:
    """A commit before it is written."""

    parts: list[bytes] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)


class Ledger:
    """A ledger open for writing; one at a time, held by a lock on its folder. Threads may append at once."""

    def __init__(  # noqa: PLR0917  # made by `open` only
        self, opened: Opened, chain: Chain, key: SigningKey, root_key: bytes, lock: int, disk: Disk, patience_s: float
    ) -> None:
        self._opened, self._signers, self._epoch = opened, chain.signers, chain.epoch
        self._key, self._root_key, self._lock_descriptor, self._disk = key, root_key, lock, disk
        self._patience_s = patience_s
        self._segment: _Segment | None = None
        self._last_record = b""
        self._released: Release | None = None
        self._stand(chain)
        self._queue: deque[_Ticket] = deque()
        self._queue_lock, self._commit_lock = threading.Lock(), threading.Lock()
        self._failed: str | None = None

    @classmethod
    def create(
        cls,
        folder: Path,
        keys: Path,
        passphrase: bytes,
        *,
        segment_records: int = SEGMENT_RECORDS,
        segment_seconds: int = SEGMENT_SECONDS,
    ) -> Opened:
        """
        Make an empty ledger.

        Args:
            folder: New, or empty.
            keys: Where the signing key lies or shall lie; not in `folder`.
            passphrase: Encrypts records and signing key.
            segment_records: A segment with so many records is followed by a new one, 1 to 1,000,000; opening reads one.
            segment_seconds: A segment of that age, too.

        Raises:
            LedgerMissing: The folder holds something, or cannot be made.
            UsageError: A number is out of bounds, or the keys would lie in the ledger.
            LedgerLocked: The signing key cannot be used, or lies there unencrypted.
        """
        if not 1 <= segment_records <= MAX_SEGMENT_RECORDS or segment_seconds < 1:
            raise UsageError(f"a segment takes 1 to {MAX_SEGMENT_RECORDS} records, and a second or more")
        _keep_apart(folder, keys)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if any(entry.name != GENESIS_DRAFT for entry in folder.iterdir()):
                raise LedgerMissing(str(folder), "it exists and is not empty; name a new folder for the ledger")
        except OSError as problem:
            raise LedgerUnwritable(str(folder), told(problem)) from problem
        try:
            key = SigningKey.load_or_create(keys, passphrase)
        except KeyUnusable as problem:
            raise LedgerLocked(str(folder), str(problem)) from problem
        _require_encrypted(folder, key)
        ledger_id = os.urandom(16).hex()
        epoch, _ = make_epoch(ledger_id, 0, passphrase)
        genesis = Genesis(FORMAT, ledger_id, _now(), key.public.raw, segment_records, segment_seconds, epoch)
        draft = folder / GENESIS_DRAFT
        try:
            draft.unlink(missing_ok=True)
            disk = Disk()
            descriptor = disk.create(str(draft))
            with os.fdopen(descriptor, "wb") as file:
                file.write(sign_genesis(genesis, key))
                file.flush()
                disk.sync(descriptor)
            draft.rename(folder / GENESIS)
            disk.sync_folder(str(folder))
        except OSError as problem:
            raise LedgerUnwritable(str(folder), told(problem)) from problem
        return read_genesis(str(folder))

    @classmethod
    def open(
        cls, folder: Path, keys: Path, passphrase: bytes, *, disk: Disk | None = None,
        patience_s: float = LOCK_PATIENCE_S,
    ) -> Ledger:  # fmt: skip
        """
        Open a ledger for writing. Reads the last segment only, whatever the ledger's size.

        Args:
            folder: The ledger's.
            keys: Where the signing key lies.
            passphrase: Of the records and of the signing key.
            disk: What writes; the operating system when absent.
            patience_s: How long another writer is waited for.

        Raises:
            LedgerMissing: There is none.
            LedgerBusy: Another writer holds it.
            LedgerDamaged: Its last segment is not as it was written.
            LedgerLocked: The passphrase or the signing key is wrong or missing.
            LedgerUnwritable: It cannot be read.
            FormatTooNew: A newer release wrote it.
        """
        opened = read_genesis(str(folder))
        lock = _lock(str(folder), patience_s)
        try:
            _keep_apart(folder, keys)
            chain = last_chain(opened)
            root_key = unlock(opened, passphrase, {chain.epoch.number: chain.epoch})[chain.epoch.number]
            key = _signing_key(opened, keys, passphrase, chain)
            _settle(opened, chain, disk or Disk())
            return cls(opened, chain, key, root_key, lock, disk or Disk(), patience_s)
        except BaseException:
            os.close(lock)
            raise

    @property
    def origin(self) -> str:
        """The ledger's name."""
        return self._opened.origin

    @property
    def verifier_key(self) -> str:
        """The key that signs heads now, as a verifier key of C2SP signed-note."""
        return self._key.public.vkey(self._opened.origin)

    @property
    def size(self) -> int:
        """Records so far."""
        return self._frontier.size

    @property
    def torn_bytes(self) -> int:
        """Bytes of unacknowledged commits that the next append will account for."""
        return sum(cut.size_bytes for cut in self._torn)

    @property
    def checkpoint(self) -> bytes:
        """The last signed head."""
        return self._head

    def append(self, event: Mapping[str, object]) -> Receipt:
        """Append an event; see `append_all`."""
        return self.append_all((event,))

    def append_all(self, events: Sequence[Mapping[str, object]]) -> Receipt:
        """
        Append events in order, and return when they are durable. Threads that append at once share commits.

        Args:
            events: JSON objects, each of at most 1 MiB when encoded; at least one.

        Raises:
            UsageError: An event is no JSON object, or too large; none was appended.
            LedgerUnwritable: The disk is full or failed, or failed before; open the ledger again. None of the events
                is acknowledged; those before are kept.
        """
        if not events:
            raise UsageError("there is no event to append")
        ticket = _Ticket(_payloads(events, _now()))
        with self._queue_lock:
            self._queue.append(ticket)
        while not ticket.done:
            with self._commit_lock:
                if not ticket.done:
                    self._lead()
        if ticket.failure is not None:
            raise LedgerUnwritable(self._opened.folder, str(ticket.failure)) from ticket.failure
        return Receipt(range(ticket.first, ticket.first + len(ticket.payloads)), ticket.checkpoint)

    def publish(self, event: Mapping[str, object]) -> Publication:
        """
        Append an event in clear, for who verifies without the passphrase, and return when it is durable.

        Costs no reading: the path of the newest leaf is the peaks of the tree before it.

        Raises:
            UsageError, LedgerUnwritable: See `append_all`.
        """
        payload = _payloads((event,), _now())[0]
        with self._commit_lock:
            self._hold()
            if self._torn:
                _ = self._commit([])
            path = tuple(reversed(self._frontier.peaks))
            index = self._commit([(PUBLIC, payload)])
            assert self.size == index + 1, "nothing follows it in its commit"
            return Publication(index, self._last_record, path, self._head)

    def recover(self) -> Receipt | None:
        """Account for a torn commit now, and record that; None when there is none."""
        with self._commit_lock:
            self._hold()
            if not self._torn:
                return None
            first = self.size
            _ = self._commit([])
            return Receipt(range(first, self.size), self._head)

    def rotate(self, keys: Path, passphrase: bytes, *, reason: str = "", revoke: bool = False) -> Receipt:
        """
        Begin to use a new signing key and a new root key, and record that.

        Args:
            keys: Where the signing key lies; the new one takes its place, the old one is kept by its id.
            passphrase: Of the new keys; may be another than before, which older records no longer need then.
            reason: For the record.
            revoke: The old signing key must no longer be trusted.

        Raises:
            KeyUnusable: The new key cannot be written.
            LedgerUnwritable: See `append_all`.
        """
        with self._commit_lock:
            self._hold()
            old = self._key
            new = SigningKey.create_successor(keys, passphrase)
            number = self._epoch.number + 1
            epoch, root_key = make_epoch(self._opened.genesis.ledger_id, number, passphrase, self._root_key)
            draft = Signer(new.public.raw, self.size, self._link, revoke, b"")
            signed = old.sign(certificate(self._opened.origin, draft))
            self._signers = (*self._signers, msgspec.structs.replace(draft, certificate=signed))
            self._epoch, self._root_key, self._key = epoch, root_key, new
            self._close_segment()
            event = {
                "type": "ledger.keys-rotated", "old_key": old.public.id, "new_key": new.public.id,
                "old_key_revoked": revoke, "key_epoch": number, "reason": reason,
            }  # fmt: skip
            first = self.size
            _ = self._commit([(SYSTEM, payload) for payload in _payloads((event,), _now())])
            SigningKey.promote(keys, old.public.id, new.public.id)
            new.publish(keys)
            return Receipt(range(first, self.size), self._head)

    def retain(self, keep: Keep) -> Retention | None:
        """
        Release old segments: verify, record it, then remove their files.

        Args:
            keep: What must stay. Whole segments are released, never the last one.

        Returns:
            What was done; None when all must stay, and nothing was written.

        Raises:
            LedgerDamaged: The ledger does not verify; nothing was released.
            LedgerUnwritable: See `append_all`; or a file cannot be removed: that is recorded, and the next opening
                for writing goes on with it.
        """
        with self._commit_lock:
            self._hold()
            chosen = choose(self._opened, keep, datetime.datetime.now(datetime.UTC))
            if chosen is None:
                return None
            release, segments, records = chosen
            self._close_segment()
            self._released = release
            payloads = _payloads((event_of(keep, release, segments, records),), _now())
            index = self._commit([(SYSTEM, payload) for payload in payloads])
            _ = remove_released(self._opened, release, self._disk)
            return Retention(segments, records, index, release.checkpoint, self._head)

    def release(self) -> None:
        """
        Let other writers in until the next append, which goes on from where they left it.

        The keys stay unlocked in memory: taking the ledger up again costs no derivation.
        """
        with self._commit_lock:
            if self._lock_descriptor >= 0 and self._failed is None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def close(self) -> None:
        """Give the ledger free."""
        with self._commit_lock:
            self._failed = self._failed or "it was closed"
            self._close_segment()
            if self._lock_descriptor >= 0:
                os.close(self._lock_descriptor)
                self._lock_descriptor = -1

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _stand(self, chain: Chain) -> None:
        """Stand at the end of what is there."""
        self._frontier = Frontier(chain.state.size, chain.state.peaks)
        self._link, self._head = chain.state.link, chain.head
        self._number, self._torn = chain.next_number, chain.torn
        self._released = chain.released

    def _hold(self) -> None:
        """
        Have the lock, and know where the ledger stands.

        Raises:
            LedgerBusy: Another writer holds it, and may be waited for.
            LedgerLocked: Another writer has rotated the keys.
            LedgerDamaged, LedgerUnwritable: As `open`.
        """
        if self._lock_descriptor >= 0 or self._failed is not None:
            return
        lock = _lock(self._opened.folder, self._patience_s)
        try:
            if not self._is_as_it_was_left():
                chain = last_chain(self._opened)
                if (chain.epoch, chain.signers) != (self._epoch, self._signers):
                    raise LedgerLocked(self._opened.folder, "another writer has rotated its keys; open it again")
                _settle(self._opened, chain, self._disk)
                self._close_segment()
                self._stand(chain)
        except BaseException:
            os.close(lock)
            raise
        self._lock_descriptor = lock

    def _is_as_it_was_left(self) -> bool:
        """Tell whether nobody wrote since, by the number of the last file and its length."""
        segment = self._segment
        if segment is None or segment.descriptor < 0:
            return False
        try:
            numbers, _ = segment_numbers(self._opened.folder)
            named, ours = os.lstat(segment.path), os.fstat(segment.descriptor)
        except OSError:
            return False
        same_file = (named.st_ino, named.st_dev) == (ours.st_ino, ours.st_dev)
        return same_file and named.st_size == segment.size_bytes and numbers[-1:] == [segment.header.number]

    def _lead(self) -> None:
        """Commit what waits, for all who wait: as much as one commit takes."""
        batch: list[tuple[_Ticket, int, int]] = []
        entries: list[tuple[bytes, bytes]] = []
        room, space = self._room(), MAX_COMMIT_BYTES // 2
        with self._queue_lock:
            while self._queue and room > 0 and space > 0:
                ticket = self._queue[0]
                start = ticket.taken
                while ticket.taken < len(ticket.payloads) and room > 0 and space > 0:
                    payload = ticket.payloads[ticket.taken]
                    entries.append((RECORD, payload))
                    room, space, ticket.taken = room - 1, space - len(payload), ticket.taken + 1
                batch.append((ticket, start, ticket.taken))
                if ticket.taken == len(ticket.payloads):
                    self._queue.popleft()
        try:
            first = self._commit(entries)
        except BaseException as problem:
            self._give_up(problem, [ticket for ticket, _, _ in batch])
            raise
        for ticket, start, stop in batch:
            if not start:
                ticket.first = first
            first += stop - start
            ticket.checkpoint = self._head
            ticket.done = stop == len(ticket.payloads)

    def _give_up(self, problem: BaseException, tickets: Sequence[_Ticket]) -> None:
        """Fail everybody who waits: after a failed write nothing more can be promised without opening anew."""
        with self._queue_lock:
            waiting = [*tickets, *self._queue]
            self._queue.clear()
        for ticket in waiting:
            ticket.failure, ticket.done = problem, True

    def _room(self) -> int:
        """Return how many records the next commit may hold."""
        if self._segment is None or self._is_full(self._segment):
            return min(self._opened.genesis.segment_records, MAX_COMMIT_RECORDS - 1)
        return min(self._opened.genesis.segment_records - self._segment.records, MAX_COMMIT_RECORDS - 1)

    def _is_full(self, segment: _Segment) -> bool:
        return (
            segment.records >= self._opened.genesis.segment_records
            or segment.size_bytes >= SEGMENT_BYTES
            or time.monotonic() - segment.began_s >= self._opened.genesis.segment_seconds
        )

    def _commit(self, entries: list[tuple[bytes, bytes]]) -> int:
        """
        Write records and their head, and make them durable.

        Returns:
            Index of the first of `entries`; what is recorded of a recovery stands before it.

        Raises:
            LedgerUnwritable: Nothing was acknowledged, and nothing more will be.
        """
        if self._failed is not None:
            raise LedgerUnwritable(self._opened.folder, f"{self._failed}; open the ledger again")
        self._hold()
        segment = self._segment
        commit = _Commit()
        link = self._link
        if segment is None or self._is_full(segment):
            self._close_segment()
            segment, frame = self._new_segment()
            commit.parts.append(frame)
            link = link_after_header(frame)
            if self._torn:
                entries = [(SYSTEM, _recovered(self._torn)), *entries]
        link = _encrypt(commit, entries, segment.cipher, self.size, link)
        frontier = Frontier(self._frontier.size, self._frontier.peaks)
        frontier.extend(commit.leaves)
        text = Checkpoint(self._opened.origin, frontier.size, frontier.root()).text()
        note = signed_note(text, self._opened.origin, self._key)
        head = head_frame(note)
        commit.parts.append(head)
        # Until the state below is that of the file again, an interrupt must not let another commit follow.
        self._failed = "a commit was interrupted"
        self._persist(segment, b"".join(commit.parts))
        first = self.size + bool(self._torn)
        segment.records += len(entries)
        # Behind the last record's frame stands the head alone.
        self._last_record = commit.parts[-2]
        self._frontier, self._link, self._head = frontier, link_after_head(link, head), note
        self._number, self._torn, self._segment = segment.header.number + 1, (), segment
        self._failed = None
        return first

    def _new_segment(self) -> tuple[_Segment, bytes]:
        """Return a segment that is not yet a file, and its header."""
        key = os.urandom(KEY_BYTES)
        place = (self._number, self.size, self._epoch.number)
        form = FORMAT if self._released is None else RELEASED_FORMAT
        header = SegmentHeader(
            form, self._opened.origin, self._number, self.size, self._link, self._frontier.peaks, self._torn, _now(),
            self._signers, self._epoch, wrap_segment_key(self._root_key, key, self._opened, place), self._released,
        )  # fmt: skip
        path = str(Path(self._opened.folder) / segment_name(self._number))
        return _Segment(header, path, -1, SegmentCipher(key), time.monotonic()), header_frame(header)

    def _persist(self, segment: _Segment, data: bytes) -> None:
        """Append in one go and make it durable; on a failed write, take back what was written of it."""
        created = segment.descriptor < 0
        written, durable = 0, False
        try:
            if created:
                segment.descriptor = self._disk.create(segment.path)
            view = memoryview(data)
            while written < len(data):
                written += self._disk.write(segment.descriptor, view[written:])
            self._disk.sync(segment.descriptor)
            if created:
                self._disk.sync_folder(self._opened.folder)
            durable = True
        except OSError as problem:
            self._failed = f"writing failed ({told(problem)})"
            if segment.descriptor >= 0 and written < len(data):
                self._take_back(segment, created=created)
            raise LedgerUnwritable(self._opened.folder, told(problem)) from problem
        finally:
            if not durable and segment.descriptor >= 0:
                os.close(segment.descriptor)
                segment.descriptor = -1
                self._segment = None
        segment.size_bytes += len(data)

    def _take_back(self, segment: _Segment, *, created: bool) -> None:
        """Undo a write that ended early. What cannot be undone is a torn tail, and the next opening accounts for it."""
        with contextlib.suppress(OSError):
            if created:
                self._disk.remove(segment.path)
            else:
                self._disk.truncate(segment.descriptor, segment.size_bytes)

    def _close_segment(self) -> None:
        if self._segment is not None and self._segment.descriptor >= 0:
            os.close(self._segment.descriptor)
        self._segment = None


def _encrypt(
    commit: _Commit, entries: Sequence[tuple[bytes, bytes]], cipher: SegmentCipher, index: int, link: bytes
) -> bytes:
    """Add the records to the commit, public ones in clear; return the last one's leaf hash."""
    pack, encrypt, sha256 = PREFIX.pack, cipher.encrypt, hashlib.sha256
    for kind, payload in entries:
        if kind == PUBLIC:
            frame = with_checksum(pack(kind, len(payload), index, link) + payload)
        else:
            prefix = pack(kind, len(payload) + TAG_BYTES, index, link)
            frame = with_checksum(prefix + encrypt(index.to_bytes(NONCE_BYTES, "big"), payload, prefix))
        link = sha256(b"\0" + frame).digest()
        commit.parts.append(frame)
        commit.leaves.append(link)
        index += 1
    return link


def _payloads(events: Sequence[Mapping[str, object]], now: str) -> list[bytes]:
    payloads = []
    for event in events:
        if not isinstance(event, Mapping):
            raise UsageError("an event is a JSON object")
        try:
            payload = encode(Payload(now, dict(event)))
        except (TypeError, ValueError, OverflowError, RecursionError) as problem:
            raise UsageError(f"an event cannot be written as JSON: {problem}") from problem
        if len(payload) > MAX_EVENT_BYTES:
            raise UsageError(f"an event has {len(payload)} bytes, {MAX_EVENT_BYTES} are the most")
        payloads.append(payload)
    return payloads


def _recovered(cuts: Sequence[Cut]) -> bytes:
    torn = [{"segment": cut.number, "bytes": cut.size_bytes, "sha256": cut.digest.hex()} for cut in cuts]
    return _payloads(({"type": "ledger.recovered", "cut": torn},), _now())[0]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _lock(folder: str, patience_s: float) -> int:
    """Hold the folder for writing. The lock is on the folder itself: there is no lock file that could be removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as problem:
        raise LedgerUnwritable(folder, told(problem)) from problem
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as problem:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise LedgerBusy(folder) from problem
        except OSError as problem:
            os.close(descriptor)
            raise LedgerUnwritable(folder, told(problem)) from problem
        time.sleep(LOCK_STEP_S)  # flock has no wait with an end


def _keep_apart(folder: Path, keys: Path) -> None:
    if keys.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"the keys {keys} would lie in the ledger {folder}; name a folder elsewhere by --keys")


def _settle(opened: Opened, chain: Chain, disk: Disk) -> None:
    """
    Make durable what a killed writer may have left in the system's memory, before anything is built upon it.

    That holds for a retention, too: once it is durable, the removal that it began is finished.
    """
    try:
        for number in range(max(0, chain.next_number - 1 - len(chain.torn)), chain.next_number):
            descriptor = open_file(opened.folder, segment_name(number))
            try:
                disk.sync(descriptor)
            finally:
                os.close(descriptor)
        disk.sync_folder(opened.folder)
    except OSError as problem:
        raise LedgerUnwritable(opened.folder, told(problem)) from problem
    if chain.released is not None:
        _ = remove_released(opened, chain.released, disk)


def _require_encrypted(folder: Path, key: SigningKey) -> None:
    if not key.encrypted:
        raise LedgerLocked(
            str(folder), "its signing key lies unencrypted; name another folder by --keys, where one is made encrypted"
        )


def _signing_key(opened: Opened, keys: Path, passphrase: bytes, chain: Chain) -> SigningKey:
    signer = chain.signers[-1].public_key
    try:
        key = SigningKey.load(keys, passphrase, hashlib.sha256(signer).hexdigest())
    except KeyUnusable as problem:
        raise LedgerLocked(opened.folder, str(problem)) from problem
    _require_encrypted(Path(opened.folder), key)
    return key
