"""
A ledger watched while it grows: each look verifies the records that are new, from the last verified frontier on.

A look reads the active segment behind the last verified head, and the stat of others. What it cannot take at once is no
verdict of its own: `ledger_verify` is asked, with the last verified head as its anchor, so that a rollback to a
consistent older copy is seen, too; so it is when a retention removed old segments. A segment is read a second time,
whole, when it is closed. In-place edits of old bytes of the active segment are seen then, at the first look after an
edit without an append, and by `look(whole=True)`.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from compliance.errors import CheckpointInvalid, CheckpointReleased, LedgerDamaged, LedgerError, LedgerMissing
from compliance.ledger_format import (
    CHECKSUM_BYTES,
    CHECKSUM_RESIDUE,
    HEAD,
    MAX_BODY_BYTES,
    MAX_COMMIT_BYTES,
    PREFIX,
    SHORT_PREFIX,
    Opened,
    SegmentHeader,
    head_note_bytes,
    header_frame,
    link_after_head,
    open_file,
    read_genesis,
    segment_name,
    segment_numbers,
)
from compliance.ledger_read import RECORD_KINDS, ChainState, read_header, read_segment
from compliance.ledger_verify import Chain, Verdict, VerdictName, begun, chain_of, last_chain, start_of, verify
from compliance.merkle import Frontier, leaf_hash
from compliance.signing import Checkpoint, VerifyingKey, note_text

__all__ = ["LedgerState", "LedgerWatch"]

STATS_A_LOOK = 512
"""Closed segments whose stat is compared at one look; the next look goes on with the next ones."""
READ_BYTES = 4 << 20
LOOKS_TAMPERED = 12
"""Looks for which a ledger that was found tampered stays so; then all of it is verified again."""

Stat = tuple[int, int, int, int]


class LedgerState(msgspec.Struct, frozen=True):
    """What one look showed."""

    ok: bool
    verdict: VerdictName
    records: int
    """Verified so far."""
    new_records: int
    """Of those, since the look before."""
    problem: str | None
    checkpoint: str
    """The last signed head that holds."""


class _Doubtful(Exception):
    """What stands there is not plainly the next commit; `ledger_verify` must say what it is. Never leaves here."""


class _Active:
    """The segment that may grow: where its last verified head ends, and what stood before the segment."""

    def __init__(self, number: int, before: Chain, key: VerifyingKey, end_bytes: int, stat: Stat) -> None:
        assert end_bytes > 0, "a header stands at the beginning"
        self.number, self.before, self.key = number, before, key
        self.end_bytes, self.stat = end_bytes, stat
        self.unfinished = b""
        """Beginning of what stood behind the head at the last look, to see whether it moves."""


class _Ends:
    """A commit sink that adds up where a segment's last head ends, and keeps its header."""

    def __init__(self, origin: str) -> None:
        assert origin, "a ledger has a name"
        self._origin = origin
        self.header: SegmentHeader | None = None
        self.end_bytes = 0
        self._index = 0

    def __call__(self, header: SegmentHeader, frames: Sequence[bytes], _leaves: Sequence[bytes]) -> None:
        assert frames, "a commit has records"
        if self.header is None:
            self.header, self._index, self.end_bytes = header, header.first, len(header_frame(header))
        self._index += len(frames)
        head_bytes = SHORT_PREFIX.size + head_note_bytes(self._origin, self._index)
        self.end_bytes += sum(len(frame) for frame in frames) + head_bytes


class LedgerWatch:
    """
    Looks at one ledger again and again; reads only. Not thread-safe.

    Args:
        folder: The ledger's.
        public_key: The key that the caller trusts.
        checkpoint: A checkpoint that the caller kept.
    """

    def __init__(self, folder: Path, *, public_key: Path | None = None, checkpoint: Path | None = None) -> None:
        self._folder, self._public_key, self._checkpoint = folder, public_key, checkpoint
        self._opened: Opened | None = None
        self._chain: Chain | None = None
        self._active: _Active | None = None
        self._stats: dict[int, Stat] = {}
        self._next_stat = 0
        self._told = self._lowest = 0
        self._failing: LedgerState | None = None
        self._looks_left = 0

    def look(self, *, whole: bool = False) -> LedgerState:
        """
        Verify what is new; the first look verifies all.

        Args:
            whole: Verify every byte again, too.

        Raises:
            KeyUnusable: `public_key` is no key.
            CheckpointInvalid: `checkpoint` is empty, damaged, forged, or of another ledger of the same key.
        """
        if self._failing is not None and self._looks_left > 0 and not whole:
            self._looks_left -= 1
            return self._failing
        self._failing = None
        try:
            if self._chain is None or self._opened is None:
                return self._begin()
            if whole:
                raise _Doubtful
            self._advance(self._opened, self._chain)
        except _Doubtful:
            return self._judged()
        except LedgerDamaged as damage:
            return self._refused("tampered", str(damage))
        except LedgerMissing as problem:
            return self._refused("tampered" if self._told else "io", str(problem))
        except CheckpointInvalid:
            raise
        except (LedgerError, OSError) as problem:
            return self._refused("io", str(problem))
        return self._intact()

    def _begin(self) -> LedgerState:
        """Verify all: by the anchors that the caller has, and segment by segment to know the frontier."""
        if self._public_key is not None or self._checkpoint is not None:
            verdict = verify(self._folder, public_key=self._public_key, checkpoint=self._checkpoint)
            if verdict.verdict not in {"intact", "recoverable", "busy"}:
                return self._failed(verdict)
        return self._read_all()

    def _read_all(self) -> LedgerState:
        """Verify segment by segment, to know where they end; raises _Doubtful."""
        opened = read_genesis(str(self._folder))
        numbers, strange = segment_numbers(opened.folder)
        chain = _start(opened, numbers)
        self._stats, self._active, self._lowest = {}, None, chain.next_number
        if strange or not self._follow(numbers):
            raise _Doubtful
        for number in numbers:
            chain = self._read_on(opened, chain, number)
        assert chain.problem is None, "a chain that does not hold is doubtful"
        self._opened, self._chain = opened, chain
        return self._intact()

    def _read_on(self, opened: Opened, before: Chain, number: int) -> Chain:
        """Read one segment whole behind what was verified."""
        sink, stat = _Ends(opened.origin), _stat(opened.folder, number)
        chain = chain_of(opened, [read_segment(opened, number, sink=sink)], before)
        if chain.problem is not None:
            raise _Doubtful
        self._stats[number] = stat
        self._active = None
        if sink.header is not None:
            assert sink.end_bytes > 0, "a commit has bytes"
            key = VerifyingKey.from_raw(sink.header.signers[-1].public_key)
            self._active = _Active(number, before, key, sink.end_bytes, stat)
        return chain

    def _advance(self, opened: Opened, chain: Chain) -> None:
        """Take new commits of the active segment, then new segments; raise _Doubtful for anything else."""
        if read_genesis(opened.folder).link != opened.link:
            raise _Doubtful
        numbers, strange = segment_numbers(opened.folder)
        if strange or not self._follow(numbers) or self._lowest + len(numbers) < chain.next_number:
            raise _Doubtful
        active, last = self._active, chain.next_number - 1
        self._compare_stats([number for number in numbers if number < last and number in self._stats])
        if active is not None and active.number == last:
            chain = self._chain = self._grown(opened, chain, active)
            if numbers[-1] >= chain.next_number:
                # It is closed: read it once more, whole, so that an edit of its older bytes does not stay unseen.
                again = self._read_on(opened, active.before, active.number)
                if again.state != chain.state:
                    raise _Doubtful
                chain = again
        elif last >= 0 and _stat(opened.folder, last) != self._stats.get(last):
            raise _Doubtful  # a file that had no head yet
        for number in numbers[chain.next_number - self._lowest :]:
            chain = self._read_on(opened, chain, number)
        self._chain = chain

    def _follow(self, numbers: list[int]) -> bool:
        """Tell whether the segments follow one another from where the ledger begins."""
        return numbers == list(range(self._lowest, self._lowest + len(numbers)))

    def _grown(self, opened: Opened, chain: Chain, active: _Active) -> Chain:
        stat = _stat(opened.folder, active.number)
        if stat == active.stat:
            return chain
        inode, size_bytes = stat[:2]
        if inode != active.stat[0] or size_bytes < active.end_bytes or size_bytes == active.stat[1]:
            raise _Doubtful  # replaced, cut, or edited in place
        with os.fdopen(open_file(opened.folder, segment_name(active.number)), "rb") as file:
            file.seek(active.end_bytes)
            data, room = b"", MAX_COMMIT_BYTES + READ_BYTES
            for _ in range(1 + size_bytes // READ_BYTES):
                read = file.read(READ_BYTES)
                data += read
                taken, chain = _commits(data, opened, chain, active)
                active.end_bytes += taken
                data = data[taken:]
                if not read:
                    break
                if len(data) > room:
                    raise _Doubtful
        if data and data == active.unfinished:
            raise _Doubtful  # it does not move: a torn commit
        active.unfinished = data
        # With bytes behind the head the next look must look again, whether the stat has changed or not.
        active.stat = stat if not data else (inode, size_bytes - 1, *stat[2:])
        self._stats[active.number] = stat
        return chain

    def _compare_stats(self, numbers: list[int]) -> None:
        """Compare some closed segments with how they were when they were verified."""
        assert self._opened is not None, "there is a ledger"
        if not numbers:
            return
        begin = self._next_stat % len(numbers)
        chosen = (numbers[begin:] + numbers[:begin])[:STATS_A_LOOK]
        self._next_stat = begin + len(chosen)
        if any(_stat(self._opened.folder, number) != self._stats[number] for number in chosen):
            raise _Doubtful

    def _judged(self) -> LedgerState:
        """Let the verifier say what is there, held against the last head that was verified here."""
        known = self._chain
        checkpoint = self._checkpoint
        with tempfile.TemporaryDirectory(prefix="ledger-watch-") as folder:
            if known is not None and known.state.size:
                checkpoint = Path(folder) / "checkpoint"
                _ = checkpoint.write_bytes(known.head)
            try:
                verdict = verify(self._folder, public_key=self._public_key, checkpoint=checkpoint)
            except CheckpointReleased:
                # A retention went further than was verified here. That this ledger's key signed it is all that is left.
                verdict = verify(self._folder, public_key=self._public_key)
            except CheckpointInvalid as problem:
                # Ours was of this ledger when it was taken, so what is here now is another one.
                return self._refused("tampered", f"it is no longer the ledger that was watched: {problem}")
            except LedgerError as problem:
                return self._refused("tampered" if self._told else "io", str(problem))
        if not verdict.ok:
            return self._failed(verdict)
        try:
            return self._read_all()
        except _Doubtful:
            return self._waiting("it changed while it was read; the next look reads it again")

    def _intact(self) -> LedgerState:
        chain = self._chain
        assert chain is not None, "something was verified"
        new, self._told = chain.state.size - max(self._told, chain.first), chain.state.size
        assert new >= 0, "a ledger only grows"
        return LedgerState(True, "intact", self._told, new, None, chain.head.decode())

    def _failed(self, verdict: Verdict) -> LedgerState:
        where = "" if verdict.first_bad_index is None else f" (record {verdict.first_bad_index})"
        problem = f"{verdict.problem}{where}" if verdict.problem else verdict.verdict
        # A commit under way, or a torn one that was never acknowledged, takes nothing back.
        return self._refused(verdict.verdict, problem) if verdict.verdict != "busy" else self._waiting(problem)

    def _waiting(self, problem: str) -> LedgerState:
        assert problem, "there is a reason to wait"
        head = self._chain.head.decode() if self._chain is not None else ""
        return LedgerState(True, "busy", self._told, 0, problem, head)

    def _refused(self, verdict: VerdictName, problem: str) -> LedgerState:
        assert verdict != "intact", "what is refused has a reason"
        head = self._chain.head.decode() if self._chain is not None else ""
        state = LedgerState(False, verdict, self._told, 0, problem, head)
        if verdict == "tampered":
            self._failing, self._looks_left = state, LOOKS_TAMPERED
        return state


def _start(opened: Opened, numbers: list[int]) -> Chain:
    """Return what stands before the first segment that is there; raises _Doubtful where that cannot be told."""
    if not numbers or numbers[0] == 0:
        return start_of(opened)
    release = last_chain(opened).released
    headers = (read_header(opened, number) for number in numbers)
    first = next((header for header in headers if header is not None), None)
    if first is None or release is None:
        raise _Doubtful
    return begun(opened, first, numbers[0], release)


def _stat(folder: str, number: int) -> Stat:
    """Return (inode, bytes, modified, changed) of a segment; raises _Doubtful where there is none."""
    try:
        found = (Path(folder) / segment_name(number)).lstat()
    except FileNotFoundError as problem:
        raise _Doubtful from problem
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _commits(data: bytes, opened: Opened, chain: Chain, active: _Active) -> tuple[int, Chain]:
    """
    Verify whole commits at the beginning of `data`.

    Returns:
        (bytes that they take, the chain behind them).

    Raises:
        _Doubtful: Something stands there that is not the next record or head.
    """
    state, head = chain.state, chain.head
    taken = position = 0
    link, leaves = state.link, list[bytes]()
    for _ in range(len(data)):
        if len(data) - position < PREFIX.size:
            break
        kind, length = SHORT_PREFIX.unpack_from(data, position)
        if kind == HEAD and leaves:
            stop = position + SHORT_PREFIX.size + length
            if length != head_note_bytes(opened.origin, state.size + len(leaves)):
                raise _Doubtful
            if stop > len(data):
                break
            frame = data[position:stop]
            state, head = _closed(frame, opened, state, (link, leaves), active)
            link, leaves, taken = state.link, [], stop
        elif kind in RECORD_KINDS:
            stop = position + PREFIX.size + length + CHECKSUM_BYTES
            if length > MAX_BODY_BYTES:
                raise _Doubtful
            if stop > len(data):
                break
            frame = data[position:stop]
            if (
                PREFIX.unpack_from(frame)[2:] != (state.size + len(leaves), link)
                or zlib.crc32(frame) != CHECKSUM_RESIDUE
            ):
                raise _Doubtful
            link = leaf_hash(frame)
            leaves.append(link)
        else:
            raise _Doubtful
        position = stop
    return taken, msgspec.structs.replace(chain, state=state, head=head, torn=())


def _closed(
    frame: bytes, opened: Opened, state: ChainState, pending: tuple[bytes, Sequence[bytes]], active: _Active
) -> tuple[ChainState, bytes]:
    """Hold a signed head against the records before it; return the state behind it, and the head."""
    link, leaves = pending
    assert leaves, "a head closes records"
    frontier = Frontier(state.size, state.peaks)
    frontier.extend(list(leaves))
    note, size = frame[SHORT_PREFIX.size :], state.size + len(leaves)
    try:
        text = note_text(note, opened.origin, active.key, segment_name(active.number))
    except CheckpointInvalid as problem:
        raise _Doubtful from problem
    if text != Checkpoint(opened.origin, size, frontier.root()).text():
        raise _Doubtful
    return ChainState(size, link_after_head(link, frame), frontier.peaks), note
