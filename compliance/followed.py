"""What is told of findings over runs, as data: for the command line, reports and whoever reads the JSON."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = ["STATES", "Followed", "LeftOut", "PastRun", "State"]

State = Literal["new", "reopened", "open", "fixed"]
STATES: Final[tuple[State, ...]] = ("new", "reopened", "open", "fixed")


class LeftOut(msgspec.Struct, frozen=True):
    """A folder that was not read."""

    folder: str
    problem: str


class PastRun(msgspec.Struct, frozen=True):
    """One run, and what it changed."""

    run_id: str
    folder: str
    started: str
    """RFC 3339, UTC."""
    tree: str
    """The folders that were scanned, parted by `, `."""
    whole: bool
    since: str
    """The commit that it was held against; empty for a run of everything."""
    findings: int
    errors: int
    warnings: int
    notes: int
    new: int
    """Findings that no earlier run of the tree had."""
    reopened: int
    fixed: int
    open: int
    """After it, with those of places at which it did not look."""


class Followed(msgspec.Struct, frozen=True):
    """One finding over all runs of its tree; rule, place and words as the last run that had it says them."""

    state: State
    """`new` and `reopened` by the tree's newest run, `open` since an earlier one, or `fixed`."""
    fingerprint: str
    rule: str
    path: str
    line: int
    level: str
    message: str
    detector: str
    suppressed: bool
    waived: str
    tree: str
    first_seen: str
    """Run id; likewise the next two."""
    last_seen: str
    fixed_in: str | None
    reopenings: int
    age_days: float
    """From the run that had it first to the newest, or to the one that it was fixed in."""
    digest: str = ""
    """Of the file as the last run that had the finding saw it; empty for a place that is no file of the tree."""
    owner: str | None = None
    """See `compliance.owners`."""
    also: tuple[str, ...] = ()
    """Fingerprints of findings by others of the same cause; see `compliance.same_cause`."""
