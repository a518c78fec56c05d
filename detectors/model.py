"""
The frozen data that moves between the engine's modules, its workers and the evidence.

Everything is a `msgspec.Struct`: immutable, hashable, picklable for Dask, and encoded as msgpack for the cache
and JSON for evidence without code of ours. Paths are *report paths*: relative to the scanned root, with `/`, never
Unicode-normalised; bytes that are not UTF-8 are percent-encoded, and then `%` is `%25`; with several roots the
label of the root stands before.
"""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

__all__ = [
    "Analysed",
    "BatchRecord",
    "CanaryCount",
    "CanaryRecord",
    "Completed",
    "DeadlineRecord",
    "DetectorRecord",
    "Digest",
    "Excluded",
    "FileReport",
    "Finding",
    "FunctionSpan",
    "ImportRecord",
    "Imported",
    "Language",
    "Level",
    "LocatedFinding",
    "Marker",
    "MutedFinding",
    "MutingEffect",
    "Narrowed",
    "NotAnalysed",
    "Outcome",
    "QualificationRecord",
    "Reason",
    "Region",
    "Related",
    "Root",
    "RuleRecord",
    "RunRecord",
    "SinceRecord",
    "SourceFile",
    "Suppression",
    "TableCheck",
    "UnitRecord",
    "WaiverRecord",
]

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hexadecimal digits."""

Language = Literal["c", "cpp", "python", "text", "binary"]
"""What a file is taken for, by suffix and first line. `text` is any other decodable file, `binary` the rest."""

Level = Literal["error", "warning", "note"]
"""SARIF 2.1.0 §3.27.10 `level`, without `none`."""

Reason = Literal[
    "breaker-open",
    "canary-missed",
    "changed",
    "crashed",
    "header-missing",
    "not-reached",
    "not-reported",
    "parse-error",
    "special-file",
    "symlink",
    "timed-out",
    "too-large",
    "tool-missing",
    "unreadable",
    "vanished",
]
"""Why a file has no result. Closed, so that a report can count every case."""


class Region(msgspec.Struct, frozen=True, gc=False, order=True):
    """Where in a file: lines and columns from 1, columns in Unicode code points, the end column exclusive."""

    start_line: int
    start_column: int = 1
    end_line: int = 0
    """0 where the detector names no end."""
    end_column: int = 0


class Related(msgspec.Struct, frozen=True, order=True):
    """Another place that explains a finding, such as the next function of a cycle."""

    path: str
    """Report path; empty for the file of the finding itself."""
    line: int
    message: str


class Suppression(msgspec.Struct, frozen=True):
    """A marker in the source that asked for silence (SARIF §3.35 `suppression`, kind `inSource`)."""

    marker: str
    """The marker as written, such as `# nosec B602`."""
    reason: str = ""
    owner: str = ""
    until: str = ""
    """Such as `2027-01-31`; empty for no end."""


class Marker(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A comment that asks for silence about rules of ours; see `detectors.suppressions`."""

    line: int
    column: int
    target: int
    """The line that it speaks of."""
    rules: tuple[str, ...]
    """Such as `R3` or `P10-R3-dynamic-memory`."""
    reason: str
    owner: str
    until: str
    text: str
    """As written, white space folded."""
    problem: str = ""
    """Why it has no effect; empty for a good one."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What a detector says of one place in a file (SARIF *result*); it does not know the file's path."""

    rule: str
    """Such as `P10-R1-goto` or `ruff/F401`."""
    level: Level
    message: str
    region: Region
    related: tuple[Related, ...] = ()
    suppression: Suppression | None = None
    context: str = ""
    """The finding's first line with white space folded; filled in by `findings.with_context`, hashed by `settle`."""


class FileReport(msgspec.Struct, frozen=True):
    """What one detector found in one file."""

    findings: tuple[Finding, ...] = ()
    facts: dict[str, bytes] = {}
    """Msgpack by fact name, for rules over the whole tree. Treated as immutable."""
    understood: float = 1.0
    """Share of the file's bytes outside of syntax errors, 0 to 1."""
    markers: tuple[Marker, ...] = ()
    """Comments that ask for silence."""


class Root(msgspec.Struct, frozen=True):
    """One scanned folder (or single file's folder)."""

    label: str
    """Stands before each path of this root when there are several; else empty."""
    path: str
    """Absolute path on the machine of the run."""
    listed: bool = False
    """Whether only files that were named are looked at, and not the folder."""


class SourceFile(msgspec.Struct, frozen=True):
    """One regular file of the snapshot."""

    path: str
    raw: bytes
    """Path below the root as the file system's bytes: what is opened."""
    root: int
    """Index into the snapshot's roots."""
    size_bytes: int
    mtime_ns: int
    inode: int
    digest: Digest
    language: Language


class Excluded(msgspec.Struct, frozen=True, order=True):
    """Something in the tree that scope rules keep out; evidence, never silence."""

    path: str
    by: str
    """The file and line, or the option, with its pattern: `.gitignore:3: *.o`, `--exclude third_party`."""
    files: int = 1
    """Regular files that it hides; more than 1 for a folder."""


class Analysed(msgspec.Struct, frozen=True, tag="analysed"):
    """A detector's answer for one file."""

    path: str
    detector: str
    report: FileReport
    seconds: float
    worker: str = ""


class NotAnalysed(msgspec.Struct, frozen=True, tag="not-analysed", order=True):
    """A detector gave no answer for this file; it is never counted as clean."""

    path: str
    detector: str
    """Empty where the file cannot be read at all, so that no detector could."""
    reason: Reason
    detail: str = ""


Outcome = Analysed | NotAnalysed
"""Consumers `match` and end in `assert_never`."""


class Completed(msgspec.Struct, frozen=True):
    """What a foreign process left behind."""

    exit_code: int
    """Negative: ended by that signal."""
    stdout: bytes
    stderr: bytes
    seconds: float


class FunctionSpan(msgspec.Struct, frozen=True, array_like=True):
    """A function with a body, by the lines from its head to its end."""

    name: str
    start_line: int
    end_line: int


class LocatedFinding(msgspec.Struct, frozen=True):
    """A finding with its file, identity and baseline state: what reports show."""

    path: str
    detector: str
    finding: Finding
    fingerprint: str
    """Survives moved and reindented lines; see `findings.settle`."""
    baseline: Literal["none", "new", "unchanged"] = "none"
    waiver: str = ""
    """Id of the waiver that lets it pass; see `WaiverRecord`."""

    @property
    def suppressed(self) -> bool:
        """Whether a marker in the source asked for silence; the gate does not count it, the reports show it."""
        return self.finding.suppression is not None

    @property
    def waived(self) -> bool:
        """Whether a waiver of two persons lets it pass."""
        return bool(self.waiver)

    @property
    def excused(self) -> bool:
        """Whether the gate does not count it."""
        return self.suppressed or self.waived


class RuleRecord(msgspec.Struct, frozen=True):
    """What a report says of a rule (SARIF §3.49 `reportingDescriptor`)."""

    id: str
    level: Level
    summary: str
    help: str
    """Markdown: why, what instead, what is not found, source."""
    languages: tuple[str, ...] = ()
    """Which it reads; empty for all that its detector does."""


class DetectorRecord(msgspec.Struct, frozen=True):
    """Which detector ran: enough to run the same again."""

    name: str
    version: str
    code_digest: Digest
    """Over the detector's own code, the engine's parsing, and the wrapped tool's files."""
    config_digest: Digest
    languages: tuple[str, ...]
    rules: tuple[RuleRecord, ...] = ()


class BatchRecord(msgspec.Struct, frozen=True):
    """One batch as it ran, for the timeline."""

    name: str
    """Such as `bandit-3f2a`: the detector first, so that dashboards group by it."""
    worker: str
    start_s: float
    """Since the start of the run."""
    seconds: float
    predicted_s: float
    files: int
    low_s: float = 0.0
    high_s: float = 0.0
    """The interval of 90 % that was stated for its seconds before it began; both 0 where none was."""
    ended: bool = False
    """Whether a deadline ended it: its seconds are those until then, and it gave no answer."""


class DeadlineRecord(msgspec.Struct, frozen=True):
    """What a run was given in time; what it did not reach is *not analysed* for the reason `not-reached`."""

    limit_s: float
    """From the start of the scan."""
    reserved_s: float
    """Of it, what was kept free of batches, for all that comes after them."""


class MutedFinding(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A finding of this run that would not be there if the tree had its way."""

    path: str
    line: int
    rule: str


class MutingEffect(msgspec.Struct, frozen=True, order=True):
    """What one kind of muting thing in the tree would have done to one detector."""

    kind: Literal["configuration", "ignore-files", "markers"]
    detector: str
    """Empty for ignore files, which hide from all."""
    things: tuple[str, ...]
    """Files of the tree; of ignore files the line that hides, such as `.gitignore:3: *.o`."""
    state: Literal["shown", "never-run", "not-shown"]
    """`never-run`: it can execute code of the tree. `not-shown`: there is no run that would show it."""
    told: str = ""
    """Why it was not shown."""
    muted: tuple[MutedFinding, ...] = ()
    """Findings that are gone where the tree is obeyed."""


class CanaryCount(msgspec.Struct, frozen=True, order=True):
    """What became of one detector's canaries; see `detectors.canaries`."""

    detector: str
    placed: int = 0
    missed: int = 0
    without: int = 0
    """Batches that had none, since the detector offers none for their languages."""


class CanaryRecord(msgspec.Struct, frozen=True):
    """The canaries of a run."""

    seed: str
    """Hexadecimal; revealed after the run."""
    commitment: str
    """Sha256 of the seed's bytes, told before the run."""
    counts: tuple[CanaryCount, ...]
    """By detector that ran a batch."""


class UnitRecord(msgspec.Struct, frozen=True, order=True):
    """One planned (file, detector) pair and what became of it."""

    path: str
    detector: str
    state: Literal["executed", "cached", "not-analysed"]
    run_id: str
    """The run that computed the result: this one, or the one that the cache remembers."""
    key: str = ""
    """Sha256, hexadecimal, over all that decides the result (`cache.result_key`); empty in early releases."""


class WaiverRecord(msgspec.Struct, frozen=True):
    """A waiver that was given to a run, and what became of it."""

    id: str
    """Empty for one that was refused."""
    file: str
    digest: str
    """Of the file; empty for one that could not be read."""
    state: Literal["applied", "unused", "refused"]
    author: str = ""
    approver: str = ""
    reason: str = ""
    control: str = ""
    until: str = ""
    """Last day."""
    matched: int = 0
    """Findings of this run that it lets pass."""
    named: int = 0
    """Findings that it names."""
    problem: str = ""
    """Why it was refused, or that it matches nothing."""


class QualificationRecord(msgspec.Struct, frozen=True):
    """Whether a signed statement says how good a detector of this run is."""

    detector: str
    version: str
    state: Literal["qualified", "expired", "unqualified"]
    statement: str = ""
    """Digest of the statement's file."""
    expires: str = ""
    recall: tuple[float | None, float | None, float | None] = (None, None, None)
    """Share, and its 95 % interval."""
    precision: tuple[float | None, float | None, float | None] = (None, None, None)
    problem: str = ""
    """Why it is not qualified."""


class Narrowed(msgspec.Struct, frozen=True, order=True):
    """A detector that looked at some files only."""

    detector: str
    paths: tuple[str, ...]
    """All at which it had to look, whatever their language; sorted."""


class SinceRecord(msgspec.Struct, frozen=True):
    """The commit that a run was held against; see `detectors.changes`."""

    ref: str
    """As it was asked for."""
    commit: str
    """The newest commit that it has in common with the one that is checked out."""
    touched: tuple[str, ...]
    """Files that are new or have other bytes; sorted."""
    narrowed: tuple[Narrowed, ...]
    """Detectors that did not look at every file, sorted; the others did."""

    def excludes(self) -> dict[str, frozenset[str]]:
        """Return, by detector that was narrowed, the files at which it looked."""
        return {one.detector: frozenset(one.paths) for one in self.narrowed}


class ImportRecord(msgspec.Struct, frozen=True):
    """One SARIF run of another tool that was taken in; see `detectors.sarif_import`."""

    detector: str
    """Under which its findings stand: `import:` and the tool's name."""
    file: str
    digest: Digest
    """Of the whole file."""
    results: int
    """That it has."""
    findings: int
    """Of them, findings of this run."""
    passed: int
    """The others: results that say that nothing is wrong (`kind` is not `fail`), or that it is gone (`absent`)."""


class Imported(msgspec.Struct, frozen=True):
    """What was taken in of other tools' results, of all files; see `detectors.sarif_import`."""

    findings: tuple[tuple[str, str, Finding], ...] = ()
    """(report path, detector, finding), as `findings.settle` takes them."""
    known: frozenset[tuple[str, str, Finding]] = frozenset()
    """Those of which the tool itself says that they are not new."""
    detectors: tuple[DetectorRecord, ...] = ()
    """One for each tool; they know no language, since what they looked at is not known."""
    records: tuple[ImportRecord, ...] = ()


class TableCheck(msgspec.Struct, frozen=True):
    """What validating one table of a run showed."""

    table: str
    """Such as `findings`."""
    rows: int
    checks: int
    """Expectations that were held against it."""
    outcome: Literal["passed", "failed", "broken"]
    """`failed`: the data is bad. `broken`: the suite is, and nothing is known of the data."""
    problems: tuple[str, ...]
    """What does not hold; counts and names, never cells."""


class RunRecord(msgspec.Struct, frozen=True):
    """Everything that one scan did and found: the engine's only output, and all that evidence is made from."""

    run_id: str
    version: str
    """Of this project."""
    started: str
    """RFC 3339, UTC."""
    seconds: float
    command: tuple[str, ...]
    """The options that shape the result; never secrets."""
    platform: dict[str, str]
    workers: int
    cluster: str
    """`inline`, `local` or the scheduler's address."""
    roots: tuple[Root, ...]
    files: tuple[SourceFile, ...]
    excluded: tuple[Excluded, ...]
    detectors: tuple[DetectorRecord, ...]
    units: tuple[UnitRecord, ...]
    batches: tuple[BatchRecord, ...]
    findings: tuple[LocatedFinding, ...]
    """In the total order of INTERFACE: path, line, column, rule, detector, message, fingerprint."""
    not_analysed: tuple[NotAnalysed, ...]
    absent: tuple[dict[str, object], ...]
    """Findings of the baseline that this run has not, as the baseline wrote them."""
    planned: int
    executed: int
    cached: int
    whole: bool
    """Every planned unit has exactly one outcome and the run was not interrupted."""
    problems: tuple[str, ...]
    """Why the run is not whole, and warnings worth keeping (a cache set aside)."""
    findings_digest: Digest
    validated: tuple[TableCheck, ...] = ()
    """The run's own tables held against expectations, where that was asked for."""
    waivers: tuple[WaiverRecord, ...] = ()
    """All that were given, with what became of them."""
    qualifications: tuple[QualificationRecord, ...] = ()
    """One for each detector, where statements were given."""
    canaries: CanaryRecord | None = None
    """None for a run without canaries."""
    deadline: DeadlineRecord | None = None
    """None for a run without one."""
    effects: tuple[MutingEffect, ...] | None = None
    """What the tree would have muted, where that was asked for; None where it was not."""
    since: SinceRecord | None = None
    """None for a run that looked at everything."""
    imports: tuple[ImportRecord, ...] = ()
    """What other tools had found, and was taken in."""

    def __post_init__(self) -> None:
        """Hold the record against itself; raises ValueError, also where one is read that somebody else wrote."""
        if self.executed + self.cached != len(self.units):
            raise ValueError(f"{self.executed} executed and {self.cached} cached are not {len(self.units)} units")
        if self.whole and self.planned != len(self.units):
            raise ValueError(f"a run of {self.planned} planned units is not whole with {len(self.units)}")
        if not self.whole and not self.problems:
            raise ValueError("a run that is not whole says why")
        unreached = any(entry.reason == "not-reached" for entry in self.not_analysed)
        if unreached and (self.whole or self.deadline is None):
            raise ValueError("what was not reached was left by a deadline, and such a run is not whole")
        if not self.seconds >= 0 or self.workers < 1:
            raise ValueError(f"{self.seconds} seconds of {self.workers} workers make no run")
