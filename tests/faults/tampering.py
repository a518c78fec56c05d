"""
A ledger with one of everything, and what can be done to its bytes.

The reader here is written from docs/ledger.md alone: where a byte lies tells which record must be named when it changes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from compliance.errors import LedgerError
from compliance.ledger import Ledger
from compliance.ledger_format import (
    PREFIX,
    decode_header,
    head_frame,
    header_frame,
    link_after_head,
    link_after_header,
    read_genesis,
    with_checksum,
)
from compliance.ledger_retention import Keep
from compliance.ledger_verify import Verdict, verify
from compliance.merkle import Frontier, leaf_hash
from compliance.signing import Checkpoint, SigningKey, signed_note

PASSPHRASE = b"correct horse"
OVERHEAD = 49


@dataclasses.dataclass(frozen=True)
class Piece:
    """A header, record, head or torn rest, and the record that is to be named when one of its bytes changes."""

    start: int
    stop: int
    kind: str
    blamed: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """A ledger, its keys, and what an auditor kept elsewhere."""

    folder: Path
    keys: Path
    checkpoint: Path
    public_key: Path
    fork: Path
    """The same ledger, gone on otherwise from its fifth segment."""
    older: Path
    """A copy from before the last segment."""
    records: int

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.segment"))


def build(scratch: Path) -> Sample:
    """Make a ledger of several openings, commits of one and of many, rotated keys and a torn tail that was cut."""
    folder, keys = scratch / "ledger", scratch / "keys"
    Ledger.create(folder, keys, PASSPHRASE, segment_records=12)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        for number in range(4):
            ledger.append({"type": "one", "n": number})
        ledger.append_all([{"type": "many", "n": number, "text": "x" * number * 7} for number in range(11)])
    torn = folder / "0000000001.segment"
    with torn.open("ab") as file:  # as a crash leaves it: the beginning of what could have come
        file.write(_torn_record(torn, 15))
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append({"type": "after the cut"})
        ledger.rotate(keys, PASSPHRASE, reason="a test")
    shutil.copytree(folder, scratch / "fork")
    with Ledger.open(scratch / "fork", keys, PASSPHRASE) as fork:
        fork.append_all([{"n": 3}, {"n": 4}, {"n": 5}])
    with Ledger.open(scratch / "fork", keys, PASSPHRASE) as fork:
        fork.append_all([{"n": 9}])
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": 1}, {"n": 2}])
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": 7}, {"n": 8}])
    shutil.copytree(folder, scratch / "older")
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": number} for number in range(5)])
        ledger.append({"type": "alone"})
        receipt = ledger.append_all([{"n": number} for number in range(3)])
    (scratch / "checkpoint").write_bytes(receipt.checkpoint)
    return Sample(
        folder, keys, scratch / "checkpoint", keys / "public-key.pem", scratch / "fork", scratch / "older",
        receipt.indices.stop,
    )  # fmt: skip


def build_retained(scratch: Path) -> Sample:
    """Make the same, and release its first two segments, one of which ends in a torn tail; then go on twice."""
    sample = build(scratch)
    first_kept = frames_of(sample.segments()[2])[0][0].blamed
    shutil.rmtree(sample.fork)
    shutil.copytree(sample.folder, sample.fork)
    with Ledger.open(sample.fork, sample.keys, PASSPHRASE) as fork:
        assert fork.retain(Keep(records=1)) is not None
        fork.append_all([{"n": 3}, {"n": 4}])
    shutil.rmtree(sample.older)
    shutil.copytree(sample.folder, sample.older)
    with Ledger.open(sample.folder, sample.keys, PASSPHRASE) as ledger:
        done = ledger.retain(Keep(records=sample.records - first_kept))
        assert done is not None
        assert (done.segments, done.records) == (range(2), range(first_kept))
        ledger.append_all([{"n": 1}, {"n": 2}])
    with Ledger.open(sample.folder, sample.keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": number} for number in range(5)])
        receipt = ledger.append_all([{"n": number} for number in range(3)])
    sample.checkpoint.write_bytes(receipt.checkpoint)
    return dataclasses.replace(sample, records=receipt.indices.stop)


def _torn_record(segment: Path, index: int) -> bytes:
    data = segment.read_bytes()
    pieces = pieces_of(data, 0)
    link = b""
    for piece in pieces:
        frame = data[piece.start : piece.stop]
        link = {"B": link_after_header, "R": leaf_hash, "S": leaf_hash}.get(
            piece.kind, lambda head, before=link: link_after_head(before, head)
        )(frame)
    return struct.pack(">cIQ32s", b"R", 60, index, link) + b"\x5a" * 30


def pieces_of(data: bytes, torn_blamed: int) -> list[Piece]:
    """Cut a segment into its pieces (docs/ledger.md); bytes after the last whole one are a torn rest."""
    pieces: list[Piece] = []
    length = int.from_bytes(data[1:5], "big")
    first = commit_first = json.loads(data[5 : 5 + length])["first"]
    pieces.append(Piece(0, 5 + length, "B", first))
    position, index = 5 + length, first
    while position + 5 <= len(data):
        kind, length = (
            data[position : position + 1].decode("latin-1"),
            int.from_bytes(data[position + 1 : position + 5], "big"),
        )
        stop = position + 5 + length + (44 if kind in "RS" else 0)
        if stop > len(data):
            break
        if kind == "H":
            pieces.append(Piece(position, stop, kind, commit_first))
            commit_first = index
        else:
            pieces.append(Piece(position, stop, kind, index))
            index += 1
        position = stop
    if position < len(data):
        pieces.append(Piece(position, len(data), "torn", torn_blamed))
    return pieces


def all_pieces(sample: Sample) -> dict[Path, list[Piece]]:
    """Return the pieces of all files."""
    genesis = sample.folder / "genesis"
    found = {genesis: [Piece(0, genesis.stat().st_size, "genesis", 0)]}
    segments = sample.segments()
    for place, file in enumerate(segments):
        after = (
            pieces_of(segments[place + 1].read_bytes(), 0)[0].blamed if place + 1 < len(segments) else sample.records
        )
        found[file] = pieces_of(file.read_bytes(), after)
    return found


def flips(sample: Sample, seed: int, count: int) -> Iterator[str | None]:
    """Flip one bit at a time, spread over all files; yield what was missed, or None."""
    chooser = random.Random(seed)
    pieces = all_pieces(sample)
    files = sorted(pieces)
    for number in range(count):
        file = files[number % len(files)]
        original = file.read_bytes()
        offset, bit = chooser.randrange(len(original)), chooser.randrange(8)
        blamed = next(piece.blamed for piece in pieces[file] if piece.start <= offset < piece.stop)
        damaged = bytearray(original)
        damaged[offset] ^= 1 << bit
        file.write_bytes(damaged)
        verdict = verify(sample.folder, processes=1)
        file.write_bytes(original)
        caught = verdict.verdict == "tampered" and verdict.first_bad_index == blamed
        yield None if caught else f"{file.name} byte {offset} bit {bit}: {verdict}, not at {blamed}"


# Attacks: each changes a copy of the ledger, and says which record is the first that is not as it was written.

Change = Callable[[Sample], int | None]


@dataclasses.dataclass(frozen=True)
class Attack:
    """Something done to a ledger's folder, and the weakest anchor that shows it."""

    name: str
    anchor: str
    """`none`: the folder's own bytes show it; else `public key` or `checkpoint`."""
    change: Change


def frames_of(file: Path) -> list[tuple[Piece, bytes]]:
    data = file.read_bytes()
    return [(piece, data[piece.start : piece.stop]) for piece in pieces_of(data, -1)]


def _rewrite(file: Path, frames: list[bytes]) -> None:
    file.write_bytes(b"".join(frames))


def _records(file: Path) -> tuple[list[bytes], list[int]]:
    """Return all pieces of a file, and the places of its records."""
    found = frames_of(file)
    return [frame for _, frame in found], [place for place, (piece, _) in enumerate(found) if piece.kind in "RS"]


def delete_record(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    del frames[records[6]]
    _rewrite(sample.segments()[0], frames)
    return 6


def delete_last_record_of_a_commit(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    del frames[records[11]]
    _rewrite(sample.segments()[0], frames)
    return 11


def insert_record(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    frames.insert(records[7], frames[records[2]])
    _rewrite(sample.segments()[0], frames)
    return 2  # record 2 stands in the place of 7: the smaller of what is told and what is due


def duplicate_record(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    frames.insert(records[7], frames[records[7]])
    _rewrite(sample.segments()[0], frames)
    return 7


def swap_records(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    frames[records[8]], frames[records[9]] = frames[records[9]], frames[records[8]]
    _rewrite(sample.segments()[0], frames)
    return 8


def delete_commit(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    del frames[records[2] : records[2] + 2]
    _rewrite(sample.segments()[0], frames)
    return 2


def duplicate_commit(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    frames[records[3] : records[3]] = frames[records[2] : records[2] + 2]
    _rewrite(sample.segments()[0], frames)
    return 2


def replay_head(sample: Sample) -> int:
    frames, _ = _records(sample.segments()[-1])
    heads = [place for place in range(len(frames)) if frames[place][:1] == b"H"]
    frames[heads[-1]] = frames[heads[-2]]
    _rewrite(sample.segments()[-1], frames)
    return sample.records - 3


def swap_segments(sample: Sample) -> int:
    first, second = sample.segments()[1:3]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return 12


def remove_middle_segment(sample: Sample) -> int:
    file = sample.segments()[2]
    first = frames_of(file)[0][0].blamed
    file.unlink()
    return first


def remove_genesis(sample: Sample) -> int:
    (sample.folder / "genesis").unlink()
    return 0


def duplicate_last_segment(sample: Sample) -> int:
    last = sample.segments()[-1]
    shutil.copy(last, last.with_name(f"{int(last.stem) + 1:010}.segment"))
    return sample.records


def _splice(sample: Sample, place: int) -> int:
    file = sample.segments()[place]
    first = frames_of(file)[0][0].blamed
    shutil.copy(sample.fork / file.name, file)
    return first


def splice_fork_where_it_began(sample: Sample) -> int:
    return _splice(sample, 4)


def splice_fork_from_later(sample: Sample) -> int:
    return _splice(sample, 5)


def splice_all_of_the_fork(sample: Sample) -> int:
    first = _splice(sample, 4)
    _splice(sample, 5)
    return first - 1  # the last subtree that differs holds record 17, too: what follows can vouch for 0 to 16 only


def cut_middle_segment_at_a_head(sample: Sample) -> int:
    file = sample.segments()[0]
    frames, records = _records(file)
    _rewrite(file, frames[: records[4]])
    return 4


def edit_what_was_cut(sample: Sample) -> int:
    file = sample.segments()[1]
    file.write_bytes(file.read_bytes()[:-1])
    return frames_of(sample.segments()[2])[0][0].blamed


def replace_genesis_key(sample: Sample) -> int:
    file = sample.folder / "genesis"
    text, _, note = file.read_bytes().partition(b"\n")
    genesis = json.loads(text)
    import base64

    genesis["public_key"] = base64.b64encode(SigningKey.from_raw(b"k" * 32).public.raw).decode()
    file.write_bytes(json.dumps(genesis, separators=(",", ":")).encode() + b"\n" + note)
    return 0


def downgrade_kdf_of_genesis(sample: Sample) -> int:
    file = sample.folder / "genesis"
    file.write_bytes(file.read_bytes().replace(b'"rounds":600000', b'"rounds":1'))
    return 0


def _edit_header(file: Path, old: bytes, new: bytes) -> int:
    frames = frames_of(file)
    text = frames[0][1][5:].replace(old, new, 1)
    assert text != frames[0][1][5:], "the edit must change something"
    _rewrite(file, [b"B" + len(text).to_bytes(4, "big") + text, *(frame for _, frame in frames[1:])])
    return frames[0][0].blamed


def downgrade_kdf_of_segment(sample: Sample) -> int:
    return _edit_header(sample.segments()[-1], b'"rounds":600000', b'"rounds":1')


def raise_kdf_of_segment(sample: Sample) -> int:
    return _edit_header(sample.segments()[-1], b'"rounds":600000', b'"rounds":9999999999')


def change_kdf_within_bounds(sample: Sample) -> int:
    return _edit_header(sample.segments()[-1], b'"rounds":600000', b'"rounds":600001')


def renumber_a_segment(sample: Sample) -> int:
    file = sample.segments()[4]
    return _edit_header(file, b'"first":18', b'"first":10')


def oversize_record(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    frames[records[5]] = frames[records[5]][:1] + b"\xff\xff\xff\xff" + frames[records[5]][5:]
    _rewrite(sample.segments()[0], frames)
    return 5


def oversize_last_record(sample: Sample) -> int:
    """The length reaches just beyond the end of the last file, so that the commit looks unfinished."""
    file = sample.segments()[-1]
    frames, records = _records(file)
    rest = sum(map(len, frames[records[-1] :]))
    frames[records[-1]] = frames[records[-1]][:1] + rest.to_bytes(4, "big") + frames[records[-1]][5:]
    _rewrite(file, frames)
    return sample.records - 1


def oversize_header(sample: Sample) -> int:
    file = sample.segments()[1]
    data = file.read_bytes()
    file.write_bytes(data[:1] + b"\xff\xff\xff\xff" + data[5:])
    return 12


def oversize_head(sample: Sample) -> int:
    frames, records = _records(sample.segments()[0])
    head = records[3] + 1
    frames[head] = frames[head][:1] + b"\x7f\xff\xff\xff" + frames[head][5:]
    _rewrite(sample.segments()[0], frames)
    return 3


def oversize_genesis(sample: Sample) -> int:
    with (sample.folder / "genesis").open("ab") as file:
        file.truncate(1 << 30)
    return 0


def link_in_place_of_a_segment(sample: Sample) -> int:
    file = sample.segments()[1]
    moved = file.rename(sample.folder.parent / "elsewhere")
    file.symlink_to(moved)
    return 12


def pipe_in_place_of_a_segment(sample: Sample) -> int:
    file = sample.segments()[1]
    file.unlink()
    os.mkfifo(file)
    return 12


def add_a_file(sample: Sample) -> None:
    (sample.folder / "notes.txt").write_text("harmless?")


def append_junk(sample: Sample) -> int:
    with sample.segments()[-1].open("ab") as file:
        file.write(b"junk")
    return sample.records


def rewrite_without_the_key(sample: Sample) -> int:
    """Change a record and put right all that needs no key: checksum, links, roots of all heads after it."""
    _forge(sample, 2, SigningKey.from_raw(b"f" * 32))
    return 2


def _forge(sample: Sample, changed: int, key: SigningKey) -> None:
    """Compute the ledger anew from a changed record on, signed by `key` under the ledger's name."""
    opened = read_genesis(str(sample.folder))
    frontier, link = Frontier(), opened.link
    for file in sample.segments():
        out = []
        pending: list[bytes] = []
        for piece, frame in frames_of(file):
            if piece.kind == "B":
                header = decode_header(frame[5:])
                assert header is not None
                header = msgspec.structs.replace(header, previous=link, frontier=frontier.peaks)
                out.append(header_frame(header))
                link = link_after_header(out[-1])
            elif piece.kind in "RS":
                kind, length, index, _ = PREFIX.unpack_from(frame)
                body = bytearray(frame[PREFIX.size : -4])
                body[0] ^= index == changed
                out.append(with_checksum(PREFIX.pack(kind, length, index, link) + bytes(body)))
                link = leaf_hash(out[-1])
                pending.append(link)
            elif piece.kind == "H":
                frontier.extend(pending)
                pending = []
                text = Checkpoint(opened.origin, frontier.size, frontier.root()).text()
                note = signed_note(text, opened.origin, key) if frontier.size > changed else frame[5:]
                out.append(head_frame(note))
                link = link_after_head(link, out[-1])
            else:
                out.append(frame)
        _rewrite(file, out)


def remove_first_kept_segment(sample: Sample) -> int:
    first, *_ = sample.segments()
    blamed = frames_of(first)[0][0].blamed
    first.unlink()
    return blamed


def remove_what_tells_of_the_retention(sample: Sample) -> int:
    for file in sample.segments()[-2:]:
        file.unlink()
    return 0


def put_back_one_released_segment(sample: Sample) -> int:
    shutil.copy(sample.older / "0000000000.segment", sample.folder)
    return 12


def tell_of_a_longer_retention(sample: Sample) -> int:
    """Remove a kept segment, and make the last header say that it was released."""
    first, *_, last = sample.segments()
    blamed = frames_of(first)[0][0].blamed
    first.unlink()
    _edit_header(last, b'"released":{"number":2,', b'"released":{"number":3,')
    return blamed


def tell_of_no_retention(sample: Sample) -> int:
    frames = frames_of(sample.segments()[-1])
    text = frames[0][1][5:]
    told = text[text.index(b',"released":') : -1]
    _edit_header(sample.segments()[-1], told, b"")
    return _edit_header(sample.segments()[-1], b'{"format":2', b'{"format":1')


def splice_retention_of_a_fork(sample: Sample) -> int:
    """A retention of a fork, which released more, put in the place of this one's; what it released is removed."""
    first, *_, retained, _ = sample.segments()
    shutil.copy(sample.fork / retained.name, retained)
    return frames_of(first)[0][0].blamed  # the largest subtree differs: what follows can vouch for none that is kept


def older_copy(sample: Sample) -> None:
    shutil.rmtree(sample.folder)
    shutil.copytree(sample.older, sample.folder)


def remove_last_segment(sample: Sample) -> None:
    sample.segments()[-1].unlink()


def cut_last_segment_at_a_head(sample: Sample) -> None:
    file = sample.segments()[-1]
    frames = [frame for _, frame in frames_of(file)]
    heads = [place for place in range(len(frames)) if frames[place][:1] == b"H"]
    _rewrite(file, frames[: heads[-2] + 1])


def other_branch(sample: Sample) -> None:
    shutil.rmtree(sample.folder)
    shutil.copytree(sample.fork, sample.folder)


def rewrite_under_another_key(sample: Sample) -> None:
    shutil.rmtree(sample.folder)
    other = sample.folder.parent / "other-keys"
    Ledger.create(sample.folder, other, PASSPHRASE)
    with Ledger.open(sample.folder, other, PASSPHRASE) as ledger:
        ledger.append_all([{"n": number} for number in range(sample.records)])


SELF = (
    delete_record, delete_last_record_of_a_commit, insert_record, duplicate_record, swap_records, delete_commit,
    duplicate_commit, replay_head, swap_segments, remove_middle_segment, remove_genesis, duplicate_last_segment,
    splice_fork_where_it_began, splice_fork_from_later, splice_all_of_the_fork, cut_middle_segment_at_a_head, edit_what_was_cut,
    replace_genesis_key, downgrade_kdf_of_genesis, downgrade_kdf_of_segment, raise_kdf_of_segment,
    change_kdf_within_bounds, renumber_a_segment, oversize_record, oversize_last_record, oversize_header, oversize_head, oversize_genesis,
    link_in_place_of_a_segment, pipe_in_place_of_a_segment, add_a_file, append_junk, rewrite_without_the_key,
)  # fmt: skip
BY_CHECKPOINT = (older_copy, remove_last_segment, cut_last_segment_at_a_head, other_branch)
BY_KEY = (rewrite_under_another_key,)
RETAINED = (
    remove_first_kept_segment, remove_what_tells_of_the_retention, put_back_one_released_segment, tell_of_a_longer_retention,
    tell_of_no_retention, splice_retention_of_a_fork, remove_genesis, duplicate_last_segment, add_a_file, append_junk,
)  # fmt: skip
ATTACKS_AFTER_RETENTION = (
    *(Attack(change.__name__.replace("_", " "), "none", change) for change in RETAINED),
    *(
        Attack(change.__name__.replace("_", " "), "checkpoint", change)
        for change in (older_copy, remove_last_segment, cut_last_segment_at_a_head)
    ),
)
ATTACKS = (
    *(Attack(change.__name__.replace("_", " "), "none", change) for change in SELF),
    *(Attack(change.__name__.replace("_", " "), "checkpoint", change) for change in BY_CHECKPOINT),
    *(Attack(change.__name__.replace("_", " "), "public key", change) for change in BY_KEY),
)


def missed(attack: Attack, sample: Sample, scratch: Path) -> str | None:
    """Do it to a copy; return what was not as it must be: caught by its anchor, not anchored without one."""
    folder = scratch / "ledger"
    shutil.copytree(sample.folder, folder)
    copy = dataclasses.replace(sample, folder=folder)
    blamed = attack.change(copy)
    alone = verify(folder, processes=1)
    anchored = {
        "checkpoint": _with(folder, checkpoint=sample.checkpoint),
        "public key": _with(folder, public_key=sample.public_key),
    }
    if attack.anchor == "none":
        held = alone.verdict == "tampered" and alone.first_bad_index == blamed
        held = held and all(not isinstance(found, Verdict) or not found.ok for found in anchored.values())
    else:
        found = anchored[attack.anchor]
        held = alone.ok and not alone.anchored and isinstance(found, Verdict) and found.verdict == "tampered"
    return None if held else f"{attack.name}: alone {alone}, anchored {anchored}, to be blamed {blamed}"


def _with(folder: Path, checkpoint: Path | None = None, public_key: Path | None = None) -> Verdict | str:
    try:
        return verify(folder, checkpoint=checkpoint, public_key=public_key, processes=1)
    except LedgerError as refused:
        return str(refused)


def truncations(sample: Sample, step: int = 1) -> Iterator[str | None]:
    """Cut the last segment at every byte; yield what was missed, or None."""
    file = sample.segments()[-1]
    data = file.read_bytes()
    pieces = pieces_of(data, -1)
    heads = [piece.stop for piece in pieces if piece.kind == "H"]
    records = [piece for piece in pieces if piece.kind in "RS"]
    before = pieces[0].blamed
    for length in range(0, len(data), step):
        file.write_bytes(data[:length])
        last_head = max((stop for stop in heads if stop <= length), default=0)
        kept = before + sum(record.stop <= last_head for record in records)
        alone = verify(sample.folder, processes=1)
        anchored = verify(sample.folder, checkpoint=sample.checkpoint, processes=1)
        expected = "intact" if length in heads else "recoverable"
        held = (
            (alone.verdict, alone.records, alone.anchored) == (expected, kept, False)
            and anchored.verdict == "tampered"
            and anchored.first_bad_index == kept
        )
        yield None if held else f"cut at {length}: {alone}; with the checkpoint {anchored}; {kept} must be kept"
    file.write_bytes(data)
