"""
Old segments given up, so that what is left still proves what it proved.

A retention is a commit like any other, in a segment of its own: its header says which segments are released, with the
link, the peaks and the signed checkpoint at the cut, and its record says so to readers. Only when that is durable are
the files removed, the oldest first and each durably, so that whatever stops it leaves a ledger that begins later or
earlier, and never one with a gap. The next opening for writing goes on with a removal that was not finished.

Nothing is released that does not verify: what is wrong with a ledger must not go with its old segments.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from compliance.errors import LedgerDamaged, LedgerUnwritable
from compliance.ledger_format import (
    MAX_RECORDS,
    Opened,
    Release,
    SegmentHeader,
    segment_name,
    segment_numbers,
    told,
)
from compliance.ledger_read import ChainState, read_header, read_segment
from compliance.ledger_verify import verify
from detectors.errors import UsageError

__all__ = ["Keep", "Retention", "choose", "event_of", "remove_released"]

MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Keep:
    """What must stay; where both are given, what either keeps."""

    records: int | None = None
    """At least so many of the newest records."""
    days: int | None = None
    """All segments with a record of these last days."""

    def __post_init__(self) -> None:
        """Raise UsageError if nothing is said, or what nobody can mean."""
        if self.records is None and self.days is None:
            raise UsageError("a retention needs to know what to keep: days, or a number of records")
        if self.records is not None and not 1 <= self.records <= MAX_RECORDS:
            raise UsageError(f"a retention keeps 1 record or more, not {self.records}")
        if self.days is not None and not 1 <= self.days <= MAX_DAYS:
            raise UsageError(f"a retention keeps 1 to {MAX_DAYS} days, not {self.days}")


@dataclass(frozen=True, slots=True)
class Retention:
    """What a retention did."""

    segments: range
    records: range
    """Released; both have an end that is kept."""
    index: int
    """Of the record that says so."""
    checkpoint: bytes
    """The signed head at the cut: of exactly the records up to it."""
    head: bytes
    """The signed head behind the record."""


class Removal(Protocol):
    """What removes files (`ledger.Disk`)."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def sync_folder(self, path: str) -> None:
        """Return when the folder's entries are durable."""


def choose(opened: Opened, keep: Keep, now: datetime.datetime) -> tuple[Release, range, range] | None:
    """
    Find what can be released; the caller holds the ledger.

    Args:
        opened: The ledger.
        keep: What must stay.
        now: With a time zone.

    Returns:
        The release, the numbers of its segments and the indices of its records; None when all must stay.

    Raises:
        LedgerDamaged: The ledger does not verify.
        LedgerUnwritable: It cannot be read.
    """
    verdict = verify(Path(opened.folder))
    if verdict.verdict == "tampered":
        raise LedgerDamaged(opened.folder, verdict.first_bad_index or 0, verdict.problem or "it does not verify")
    if verdict.verdict == "io":
        raise LedgerUnwritable(opened.folder, verdict.problem or "it cannot be read")
    numbers, _ = segment_numbers(opened.folder)
    limit = None if keep.days is None else (now - datetime.timedelta(days=keep.days)).astimezone(datetime.UTC)
    kept: SegmentHeader | None = None
    for number in numbers[1:]:
        header = read_header(opened, number)
        if header is None:
            continue  # a file that was torn before it had one
        if keep.records is not None and verdict.records - header.first < keep.records:
            break
        # All records before a segment are older than it.
        if limit is not None and datetime.datetime.fromisoformat(header.created) > limit:
            break
        kept = header
    if kept is None or kept.first <= verdict.first_index:
        return None
    checkpoint = _checkpoint_before(opened, kept, numbers)
    at = now.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    release = Release(kept.number, kept.first, kept.previous, kept.frontier, checkpoint, at)
    assert release.number > numbers[0], "something is released"
    return release, range(numbers[0], kept.number), range(verdict.first_index, kept.first)


def event_of(keep: Keep, release: Release, segments: range, records: range) -> dict[str, object]:
    """Return what the ledger records of a retention; both ranges are told by their first and last."""
    assert segments, "a retention releases whole segments"
    assert records, "and the records in them"
    return {
        "type": "ledger.retained", "segments": [segments[0], segments[-1]], "records": [records[0], records[-1]],
        "keep_records": keep.records, "keep_days": keep.days, "checkpoint": release.checkpoint.decode(),
        "frontier": [peak.hex() for peak in release.frontier],
    }  # fmt: skip


def remove_released(opened: Opened, release: Release, disk: Removal) -> int:
    """
    Remove the files that a durable retention released; a second call goes on where a first one was stopped.

    Returns:
        How many were removed.

    Raises:
        LedgerUnwritable: The operating system refused; the next opening for writing tries again.
    """
    numbers, _ = segment_numbers(opened.folder)
    assert release.number in numbers, "what a retention kept is there"
    released = [number for number in numbers if number < release.number]
    try:
        for number in released:
            with contextlib.suppress(FileNotFoundError):
                disk.remove(str(Path(opened.folder) / segment_name(number)))
            disk.sync_folder(opened.folder)
    except OSError as problem:
        raise LedgerUnwritable(
            opened.folder,
            f"released segments cannot be removed ({told(problem)}); the retention is recorded, and the next writer "
            "goes on with it",
        ) from problem
    return len(released)


def _checkpoint_before(opened: Opened, kept: SegmentHeader, numbers: Sequence[int]) -> bytes:
    """Return the last head before a segment; raises LedgerDamaged if the segment does not follow it."""
    expected = ChainState(kept.first, kept.previous, kept.frontier)
    for number in reversed([number for number in numbers if number < kept.number]):
        report = read_segment(opened, number)
        if report.end is not None or report.problem is not None:
            if report.end != expected:
                break
            return report.head
    raise LedgerDamaged(opened.folder, kept.first, f"segment {kept.number} does not follow the one before it")
