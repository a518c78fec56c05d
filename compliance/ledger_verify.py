"""
A whole ledger verified: self-consistency of every byte, and anchors that the caller kept elsewhere.

Needs no passphrase, never writes, follows no link. Segments are read side by side, by processes of this module; then
their joints are checked one after another. What the folder's own bytes cannot show (a consistent older copy, a removed
last segment, a rewrite under another key) only an anchor shows, so a verdict without one says that it is not anchored.

Where a retention released old segments, the walk begins with what its signed header says of them; a segment that is
missing and was not released is missing, whoever removed it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from compliance.errors import (
    CheckpointInvalid,
    CheckpointReleased,
    KeyUnusable,
    LedgerDamaged,
    LedgerLocked,
    LedgerUnwritable,
)
from compliance.ledger_format import (
    Cut,
    Epoch,
    Opened,
    Release,
    SegmentHeader,
    Signer,
    read_genesis,
    segment_name,
    segment_numbers,
    told,
)
from compliance.ledger_keys import SegmentCipher, unlock, unwrap_segment_key
from compliance.ledger_read import (
    MISSING,
    ChainState,
    SegmentReport,
    begins_like_a_header,
    epochs_of,
    read_segment,
)
from compliance.merkle import EMPTY_ROOT, Frontier
from compliance.signing import Checkpoint, VerifyingKey, note_text

__all__ = ["Chain", "Released", "Verdict", "beginning", "begun", "chain_of", "last_chain", "start_of", "verify"]

MAX_ANCHOR_BYTES = 64 << 10
ALONE_BYTES = 16 << 20
"""Below this, a second process costs more than it brings."""

VerdictName = Literal["intact", "tampered", "recoverable", "busy", "auth", "io"]
EXIT_CODES: Mapping[VerdictName, int] = {"intact": 0, "tampered": 1, "recoverable": 4, "busy": 5, "auth": 6, "io": 7}


class Released(msgspec.Struct, frozen=True):
    """What the last retention gave up; it cannot be verified any more, but copies of it can be held against this."""

    segments: int
    """Those before this number."""
    records: int
    """Those before this index."""
    time: str
    checkpoint: str
    """The signed checkpoint of exactly these records."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer of `verify`."""

    ok: bool
    verdict: VerdictName
    records: int
    """Up to the last head that holds; what follows was never acknowledged, or is not as it was written."""
    first_bad_index: int | None
    problem: str | None
    root: str
    """Over those records, hexadecimal."""
    checkpoint: str
    """The last signed checkpoint that holds."""
    anchored: bool
    """Whether it was held against a key or a checkpoint that the caller brought."""
    segments: int
    first_index: int = 0
    """The first record that is here; those before it were released by a retention."""
    released: Released | None = None

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        return EXIT_CODES[self.verdict]


class Chain(msgspec.Struct, frozen=True):
    """Segments joined, as far as they hold."""

    state: ChainState
    head: bytes
    signers: tuple[Signer, ...]
    epoch: Epoch
    next_number: int
    torn: tuple[Cut, ...]
    problem: str | None
    bad_index: int | None
    roots: dict[int, bytes]
    released: Release | None = None
    """The last retention that was read of."""
    first: int = 0
    """Where it begins."""


class _Anchors(msgspec.Struct, frozen=True):
    key: VerifyingKey | None
    note: bytes | None
    """A checkpoint kept elsewhere."""
    file: str = ""
    """Where that was read from, for messages."""


class _Job(msgspec.Struct, frozen=True):
    """What a process of this module gets on standard input."""

    opened: Opened
    numbers: tuple[int, ...]
    wanted: tuple[int, ...]
    root_keys: dict[int, bytes]


def verify(
    folder: Path,
    *,
    public_key: Path | None = None,
    checkpoint: Path | None = None,
    passphrase: bytes | None = None,
    processes: int | None = None,
) -> Verdict:
    """
    Verify a ledger; see the module's text.

    Args:
        folder: The ledger's.
        public_key: The key that the caller trusts: PEM, or a verifier key of C2SP.
        checkpoint: A signed checkpoint that the caller kept.
        passphrase: With one, every record is decrypted, too.
        processes: How many at most; the processors that this process may use when absent.

    Raises:
        LedgerMissing: There is no ledger.
        KeyUnusable: `public_key` is no key.
        CheckpointInvalid: `checkpoint` is empty, damaged, forged, or of another ledger of the same key.
        CheckpointReleased: `checkpoint` lies before what a retention kept.
        FormatTooNew: A newer release wrote it.
    """
    anchors = _read_anchors(public_key, checkpoint)
    at_once = processes or len(os.sched_getaffinity(0))
    try:
        opened = read_genesis(str(folder))
        verdict = _verdict(opened, anchors, passphrase, at_once)
        if not verdict.ok and _may_be_at_work(opened, verdict):
            # A writer's unfinished commit looks like a torn one, and a folder listed while it grows may lack a file.
            verdict = _verdict(opened, anchors, passphrase, at_once)
            if verdict.verdict == "recoverable" and _is_held(opened.folder):
                told_busy = "another writer holds the ledger, and has not finished its commit"
                verdict = msgspec.structs.replace(verdict, verdict="busy", problem=told_busy)
    except LedgerDamaged as damage:
        return _refused("tampered", damage.problem, damage.index)
    except LedgerUnwritable as problem:
        return _refused("io", str(problem))
    except OSError as problem:
        return _refused("io", f"{folder} cannot be read: {told(problem)}")
    return verdict


def start_of(opened: Opened) -> Chain:
    """Return the chain of a ledger without segments."""
    signers = (Signer(opened.genesis.public_key, 0, b"", False, b""),)
    state = ChainState(0, opened.link, ())
    return Chain(state, opened.note, signers, opened.genesis.epoch, 0, (), None, None, {0: EMPTY_ROOT})


def chain_of(opened: Opened, reports: Sequence[SegmentReport], begin: Chain | None = None) -> Chain:
    """
    Join segments one after another.

    Args:
        opened: The ledger.
        reports: Of segments, in order.
        begin: What stands before the first of them; the genesis, or a retention, when absent.

    Returns:
        The chain up to the first joint that does not hold, with its problem.
    """
    chain = begin or beginning(opened, reports)
    told = [report.header.released for report in reports if report.header is not None and report.problem is None]
    releases = {release.number: release for release in told if release is not None}
    for place, report in enumerate(reports):
        problem = _problem_of_joint(opened, chain, report, releases.get(report.number))
        if problem is not None:
            bad = _blamed(opened, chain, reports, place)
            return msgspec.structs.replace(chain, problem=f"segment {report.number}: {problem}", bad_index=bad)
        header, end, tail = report.header, report.end, (report.tail,) if report.tail else ()
        if header is None or end is None:
            chain = msgspec.structs.replace(chain, next_number=report.number + 1, torn=(*chain.torn, *tail))
        else:
            chain = Chain(
                end, report.head, header.signers, header.epoch, report.number + 1, tail, None, None,
                {**chain.roots, **report.roots}, header.released, chain.first,
            )  # fmt: skip
    return chain


def beginning(opened: Opened, reports: Sequence[SegmentReport]) -> Chain:
    """
    Return what stands before the first segment that is there: nothing, or what a retention released.

    Args:
        opened: The ledger.
        reports: Of all of its segments, in order.

    Returns:
        Where the ledger must begin. Without word of a retention that is the genesis, whatever is missing.
    """
    start = start_of(opened)
    headers = [report.header for report in reports if report.header is not None]
    if not headers or reports[0].number == 0:
        return start
    header, number = headers[0], reports[0].number
    release = _told_release(reports)
    damaged = [report.header for report in reports if report.problem not in {None, MISSING}]
    if release is None and all(bad is not None and bad.released is None for bad in damaged):
        return start
    # Where the only segment that could tell of a retention is damaged, that must be blamed, and not the beginning.
    return begun(opened, header, number, release)


def begun(opened: Opened, header: SegmentHeader, number: int, release: Release | None) -> Chain:
    """
    Return what stands before a segment that is not the first one.

    Args:
        opened: The ledger.
        header: The first one that is there.
        number: Of the first segment that is there; it may have been torn before it had a header.
        release: What was released. A removal that was not finished leaves more, and that speaks for itself.
    """
    state = ChainState(header.first, header.previous, header.frontier)
    if release is not None and number >= release.number:
        state, number = ChainState(release.first, release.link, release.frontier), release.number
    start = start_of(opened)
    return msgspec.structs.replace(
        start, state=state, signers=header.signers, epoch=header.epoch, next_number=number,
        head=start.head if release is None else release.checkpoint,
        torn=tuple(cut for cut in header.cuts if cut.number < number), roots={0: EMPTY_ROOT, **_roots_of_peaks(state)},
        released=header.released, first=state.size,
    )  # fmt: skip


def _told_release(reports: Sequence[SegmentReport]) -> Release | None:
    """Return the last retention that the header of a sound segment tells of."""
    told = [report.header.released for report in reports if report.header is not None and report.problem is None]
    return next((release for release in reversed(told) if release is not None), None)


def _roots_of_peaks(state: ChainState) -> dict[int, bytes]:
    """Return the roots of the earlier trees that the peaks of one show: of those whose peaks are its first ones."""
    roots, size = dict[int, bytes](), 0
    levels = [level for level in range(state.size.bit_length() - 1, -1, -1) if state.size >> level & 1]
    for place, level in enumerate(levels):
        size += 1 << level
        roots[size] = Frontier(size, state.peaks[: place + 1]).root()
    assert size == state.size, "all peaks together are the tree"
    return roots


def last_chain(opened: Opened) -> Chain:
    """
    Read the end of a ledger: the last segment that holds a signed head, and what is torn after it.

    Raises:
        LedgerDamaged: That end is not as it was written.
        LedgerUnwritable: It cannot be read.
    """
    numbers, strange = segment_numbers(opened.folder)
    if strange:
        raise LedgerDamaged(
            opened.folder, 0, f"it holds what is not of the ledger: {', '.join(map(repr, strange[:5]))}"
        )
    lowest = numbers[0] if numbers else 0
    if numbers != list(range(lowest, lowest + len(numbers))):
        raise LedgerDamaged(opened.folder, 0, "a segment is missing")
    reports: list[SegmentReport] = []
    try:
        for number in reversed(numbers):
            reports.insert(0, read_segment(opened, number))
            if reports[0].problem is not None or reports[0].end is not None:
                break
    except OSError as problem:
        raise LedgerUnwritable(opened.folder, told(problem)) from problem
    begin = None
    if reports and reports[0].header is not None and reports[0].end is not None:
        # What stands before it is taken from its own header, which its signed head covers.
        header = reports[0].header
        state = ChainState(header.first, header.previous, header.frontier)
        begin = msgspec.structs.replace(
            start_of(opened), state=state, signers=header.signers, epoch=header.epoch, next_number=header.number,
            torn=header.cuts, released=header.released,
        )  # fmt: skip
    chain = chain_of(opened, reports, begin or start_of(opened))
    kept_number, kept_first = (0, 0) if chain.released is None else (chain.released.number, chain.released.first)
    if chain.problem is None and lowest > kept_number:
        raise LedgerDamaged(opened.folder, kept_first, f"segment {kept_number} is missing, and was not released")
    if chain.problem is not None:
        bad = chain.state.size if chain.bad_index is None else chain.bad_index
        raise LedgerDamaged(opened.folder, bad, chain.problem)
    return chain


def _trusted_key(text: bytes, file: str) -> VerifyingKey:
    """Read a public key in PEM, or a verifier key of C2SP; raises KeyUnusable."""
    if text.startswith(b"-----BEGIN"):
        return VerifyingKey.from_pem(text, file)
    try:
        return VerifyingKey.from_vkey(text.strip().decode(), file)[1]
    except UnicodeDecodeError as problem:
        raise KeyUnusable(file, "it is neither a PEM nor a verifier key") from problem


# p10: ignore[R10] a check that answers as soon as it knows reads better than one that nests by the maintainers
def _problem_of_joint(opened: Opened, chain: Chain, report: SegmentReport, release: Release | None) -> str | None:
    if report.problem is not None:
        return report.problem
    header = report.header
    if report.number != chain.next_number:
        return f"segment {chain.next_number} is missing, and was not released"
    if header is None:
        fits = begins_like_a_header(report.stub, report.number, chain.state, opened, chain.torn)
        return None if fits else "its header is not the beginning of one that could stand here"
    if header.first != chain.state.size:
        return f"it begins with record {header.first}, the records before it end at {chain.state.size}"
    if header.previous != chain.state.link or header.frontier != chain.state.peaks:
        return "it does not follow the records before it"
    if header.cuts != chain.torn:
        return "it does not account for the bytes after the last head before it"
    if release is not None and (header.first, header.previous, header.frontier) != (
        release.first, release.link, release.frontier
    ):  # fmt: skip
        return "it does not begin where the retention says that it does"
    return _problem_of_retention(chain, header) or _problem_of_keys(chain, header)


def _problem_of_retention(chain: Chain, header: SegmentHeader) -> str | None:
    before, now = chain.released, header.released
    if before is not None and now is None:
        return "it does not know of the retention before it"
    if before is not None and now is not None and now != before and now.number <= before.number:
        return "it tells of another retention than the one before it"
    return None


def _problem_of_keys(chain: Chain, header: SegmentHeader) -> str | None:
    known = len(chain.signers)
    if header.signers[:known] != chain.signers or len(header.signers) > known + 1:
        return "its keys do not go on from those before it"
    if len(header.signers) > known:
        latest = header.signers[-1]
        if latest.first != header.first or latest.link != header.previous:
            return "its new key was not certified for this place"
    if header.epoch not in (chain.epoch, msgspec.structs.replace(header.epoch, number=chain.epoch.number + 1)):
        return "its key epoch does not go on from the one before it"
    return None


def _blamed(opened: Opened, chain: Chain, reports: Sequence[SegmentReport], place: int) -> int:
    """Return the first record that is not as it was written, when the joint before `place` does not hold."""
    report, size = reports[place], chain.state.size
    header = report.header
    if report.problem is not None:
        # What a header says of its own place counts only if it is the one that is due.
        return report.bad_index if report.bad_index is not None and header and header.first == size else size
    before = reports[place - 1].header if place else None
    if header is None or report.number != chain.next_number or header.first > size:
        return size
    if before is None or chain.torn != header.cuts or _is_isolated(reports, place):
        return size
    # Both hold in themselves, and what comes later speaks for the later one: so the earlier one is not what was here.
    if header.first < size:
        same_until = read_segment(opened, report.number - 1, (header.first,)).roots.get(header.first)
        return header.first if same_until == Frontier(header.first, header.frontier).root() else before.first
    # It may be one of several of a fork, and a fork begins with a segment.
    same = _same_records(size, chain.state.peaks, header.frontier)
    firsts = [earlier.header.first for earlier in reports[:place] if earlier.header and earlier.end]
    return min((first for first in firsts if first >= same), default=before.first)


def _same_records(size: int, one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return how many records two trees of one size surely share, as their largest subtrees show."""
    same = 0
    levels = [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]
    for level, peak, facing in zip(levels, one, other, strict=True):
        if peak != facing:
            break
        same += 1 << level
    return same


def _is_isolated(reports: Sequence[SegmentReport], place: int) -> bool:
    """Tell whether what follows a segment does not know it either."""
    report, after = reports[place], reports[place + 1] if place + 1 < len(reports) else None
    if after is None or after.problem is not None or after.header is None or report.end is None:
        return False
    return after.header.previous != report.end.link


def _read_anchors(public_key: Path | None, checkpoint: Path | None) -> _Anchors:
    key = note = None
    if public_key is not None:
        try:
            with public_key.open("rb") as opened:
                key = _trusted_key(opened.read(MAX_ANCHOR_BYTES), str(public_key))
        except OSError as problem:
            raise KeyUnusable(str(public_key), f"it cannot be read ({told(problem)})") from problem
    if checkpoint is not None:
        try:
            with checkpoint.open("rb") as opened:
                note = opened.read(MAX_ANCHOR_BYTES + 1)
        except OSError as problem:
            raise CheckpointInvalid(str(checkpoint), f"it cannot be read ({told(problem)})") from problem
        if not note or len(note) > MAX_ANCHOR_BYTES:
            raise CheckpointInvalid(str(checkpoint), "it is empty" if not note else "it is too large to be one")
        _ = _claimed(note, str(checkpoint))
    return _Anchors(key, note, str(checkpoint))


def _claimed(note: bytes, file: str) -> Checkpoint:
    """Return what a note says, whoever signed it."""
    text, blank, _ = note.rpartition(b"\n\n")
    if not blank:
        raise CheckpointInvalid(file, "it is no signed note")
    return Checkpoint.from_text(text + b"\n", file)


def _verdict(opened: Opened, anchors: _Anchors, passphrase: bytes | None, processes: int) -> Verdict:
    claimed = _claimed(anchors.note, anchors.file) if anchors.note is not None else None
    numbers, strange = segment_numbers(opened.folder)
    root_keys, locked = _root_keys(opened, numbers, passphrase)
    wanted = (claimed.size,) if claimed is not None else ()
    chain = chain_of(opened, _present(_reports(_Job(opened, tuple(numbers), wanted, root_keys), processes)))
    problem, bad = chain.problem, chain.bad_index
    if problem is None and strange:
        problem = f"the folder holds what is not of the ledger: {', '.join(map(repr, strange[:5]))}"
    if problem is None and anchors.key is not None:
        problem = _problem_of_key(chain, anchors.key)
    if problem is None and claimed is not None:
        problem, bad = _problem_of_checkpoint(opened, chain, anchors, claimed)
    named: VerdictName = "intact"
    if problem is not None:
        named = "tampered"
    elif locked is not None:
        named, problem = "auth", locked
    elif chain.torn:
        named, problem = "recoverable", (
            f"{sum(cut.size_bytes for cut in chain.torn)} bytes after the last head were never acknowledged; "
            "`audit recover` or the next append cuts them"
        )  # fmt: skip
    anchored = named != "tampered" and (anchors.key is not None or anchors.note is not None)
    root = Frontier(chain.state.size, chain.state.peaks).root().hex()
    return Verdict(
        named == "intact", named, chain.state.size, bad, problem, root, chain.head.decode(), anchored, len(numbers),
        chain.first, _released(chain.released),
    )  # fmt: skip


def _released(release: Release | None) -> Released | None:
    if release is None:
        return None
    return Released(release.number, release.first, release.time, release.checkpoint.decode())


def _present(reports: Sequence[SegmentReport]) -> Sequence[SegmentReport]:
    """Leave out segments that a retention removed between the listing of the folder and their reading."""
    release = _told_release(reports)
    if release is None:
        return reports
    vanished = itertools.takewhile(lambda report: report.problem == MISSING and report.number < release.number, reports)
    return reports[sum(1 for _ in vanished) :]


def _refused(verdict: VerdictName, problem: str, index: int | None = None) -> Verdict:
    return Verdict(False, verdict, 0, index, problem, EMPTY_ROOT.hex(), "", False, 0)


def _problem_of_checkpoint(
    opened: Opened, chain: Chain, anchors: _Anchors, claimed: Checkpoint
) -> tuple[str | None, int | None]:
    """Hold a kept checkpoint against the records; the root at its size was computed anew on the way."""
    keys = [VerifyingKey.from_raw(signer.public_key) for signer in chain.signers]
    note = anchors.note or b""
    if claimed.origin != opened.origin:
        if any(_signs(key, note, claimed.origin) for key in keys):
            raise CheckpointInvalid(anchors.file, f"it is of the ledger {claimed.origin}, this one is {opened.origin}")
        return f"the checkpoint is of the ledger {claimed.origin}, and this one has another name and other keys", None
    if not any(_signs(key, note, opened.origin) for key in keys):
        raise CheckpointInvalid(
            anchors.file,
            "no key of this ledger signed it: it is damaged or forged, or the ledger is from before that key",
        )
    if claimed.size > chain.state.size:
        missing = f"the checkpoint is of {claimed.size} records, {chain.state.size} are here: the others were removed"
        return missing, chain.state.size
    if claimed.size < chain.first and claimed.size not in chain.roots:
        raise CheckpointReleased(
            anchors.file,
            f"it is of {claimed.size} records and lies before the retained part, which begins with record "
            f"{chain.first}; a checkpoint of {chain.first} records or more anchors it",
        )
    if chain.roots.get(claimed.size) != claimed.root:
        return f"the first {claimed.size} records are not those of the checkpoint", None
    return None, None


def _signs(key: VerifyingKey, note: bytes, origin: str) -> bool:
    try:
        _ = note_text(note, origin, key, "")
    except CheckpointInvalid:
        return False
    return True


def _problem_of_key(chain: Chain, trusted: VerifyingKey) -> str | None:
    """Tell whether the last head is signed by the trusted key, or by one that follows it by certificates."""
    for place, signer in enumerate(chain.signers):
        if signer.public_key == trusted.raw:
            if any(later.revokes for later in chain.signers[place + 1 : place + 2]):
                return "the key that you trust was revoked by its owner; trust its successor"
            return None
    return "it is not signed by the key that you trust"


def _root_keys(opened: Opened, numbers: Sequence[int], passphrase: bytes | None) -> tuple[dict[int, bytes], str | None]:
    """Return the root keys of all epochs, and why there are none if the passphrase is wrong."""
    if passphrase is None:
        return {}, None
    try:
        return unlock(opened, passphrase, epochs_of(opened, numbers)), None
    except LedgerLocked as problem:
        return {}, str(problem)
    except LedgerDamaged:
        return {}, None  # the walk says what is damaged, and where


def _is_held(folder: str) -> bool:
    """Tell whether a writer holds the ledger; takes and gives back its lock in an instant."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _may_be_at_work(opened: Opened, verdict: Verdict) -> bool:
    """Tell whether what was found may be a writer's doing: one is there, or has just finished a commit."""
    if _is_held(opened.folder):
        return True
    return verdict.verdict == "recoverable" and not last_chain(opened).torn


def _reports(job: _Job, processes: int) -> list[SegmentReport]:
    """Read all segments, by several processes when there is enough to read."""
    sizes = {number: _size(job.opened.folder, number) for number in job.numbers}
    share = min(processes, len(job.numbers), 1 + sum(sizes.values()) // ALONE_BYTES)
    if share <= 1:
        return list(_read(job))
    shares = _shares(sizes, share)
    command = [sys.executable, "-m", "compliance.ledger_verify"]
    started = []
    for numbers in shares[1:]:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append((process, msgspec.structs.replace(job, numbers=numbers)))
        assert process.stdin is not None, "it was asked for a pipe"
        with contextlib.suppress(BrokenPipeError), process.stdin as given_to:  # it has ended: its share is read below
            given_to.write(msgspec.json.encode(started[-1][1]))
    reports = list(_read(msgspec.structs.replace(job, numbers=shares[0])))
    for process, given in started:
        assert process.stdout is not None, "it was asked for a pipe"
        with process.stdout as output:
            answer = output.read()
        if process.wait() == 0:
            reports += msgspec.json.decode(answer, type=list[SegmentReport])
        else:  # whatever ended it, the answer must not depend on it
            reports += _read(given)
    return sorted(reports, key=lambda report: report.number)


def _shares(sizes: Mapping[int, int], count: int) -> list[tuple[int, ...]]:
    """Deal the segments out, the largest first, to whoever has least."""
    dealt: list[list[int]] = [[] for _ in range(count)]
    heavy = [0] * count
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        lightest = heavy.index(min(heavy))
        dealt[lightest].append(number)
        heavy[lightest] += sizes[number] + 1
    return [tuple(sorted(numbers)) for numbers in dealt]


def _size(folder: str, number: int) -> int:
    try:
        return (Path(folder) / segment_name(number)).lstat().st_size
    except OSError:
        return 0


def _read(job: _Job) -> Iterator[SegmentReport]:
    for number in job.numbers:
        sink = _Decryption(job) if job.root_keys else None
        report = read_segment(job.opened, number, job.wanted, sink)
        if sink is not None and sink.bad_index is not None and report.problem is None:
            report = msgspec.structs.replace(report, problem="a record does not decrypt", bad_index=sink.bad_index)
        yield report


class _Decryption:
    """Opens every record of a segment, and remembers the first that does not open."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._cipher: SegmentCipher | None = None
        self.bad_index: int | None = None
        self._index = -1

    def __call__(self, header: SegmentHeader, frames: Sequence[bytes], _leaves: Sequence[bytes]) -> None:
        if self._index < 0:
            self._index = header.first
            root = self._job.root_keys.get(header.epoch.number)
            key = unwrap_segment_key(root, self._job.opened, header) if root is not None else None
            self._cipher = SegmentCipher(key) if key is not None else None
        for frame in frames:
            if self.bad_index is None and (self._cipher is None or self._cipher.decrypt(frame) is None):
                self.bad_index = self._index
            self._index += 1


def _serve() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=_Job)
    sys.stdout.buffer.write(msgspec.json.encode(list(_read(job))))


if __name__ == "__main__":
    _serve()
