"""
What runs on a worker: read once, parse once, every detector, one outcome for each (file, detector). Knows no Dask.

Whatever a file or a detector does, each pair asked for has an answer: `analyse` raises only what makes the whole
batch worthless (a detector that wrote to the tree, a detector that cannot be loaded).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from detectors import snapshot
from detectors.canaries import Canary, Watch
from detectors.circuit_breaker import Breaker, BreakerPolicy
from detectors.detector import ClosureTool, Detector, Registry, RuleGroup, Tool, discover
from detectors.errors import DetectorBroken, DetectorPoolError, SourceChanged
from detectors.findings import with_context
from detectors.model import (
    Analysed,
    CanaryCount,
    FileReport,
    Finding,
    Language,
    NotAnalysed,
    Outcome,
    Reason,
    SourceFile,
)
from detectors.parsing import ParsedFile, Unparsable, collector_paused, parse
from detectors.rule_settings import RuleSettings
from detectors.sandbox import analyse_in_context, analyse_with_tool
from detectors.workload_optimizer import Batch

__all__ = ["BatchResult", "Blobs", "analyse", "blobs_of", "warm"]

KNOWN_BREAKERS = 256
Blobs = Mapping[str, bytes | str]
"""By report path, the content of files that travel with their batch; where it could not be read, what happened."""
Read = Callable[[SourceFile], bytes]
WARMING: Mapping[Language, bytes] = {
    "c": b"int warm(void) { return 0; }\n",
    "cpp": b"int warm() { return 0; }\n",
    "python": b"def warm():\n    return 0\n",
}


class BatchResult(msgspec.Struct, frozen=True):
    """What a worker hands back."""

    outcomes: tuple[Outcome, ...]
    worker: str
    started: float
    """`time.time()` on the worker."""
    seconds: float
    canaries: tuple[CanaryCount, ...] = ()
    """By detector; empty where the batch has none."""

    @property
    def distrusted(self) -> bool:
        """Whether a detector missed a canary, so that the batch is invalid."""
        return any(count.missed for count in self.canaries)


def warm() -> None:
    """Load what every batch needs, so that the first one does not wait for it."""
    groups = [detector for detector in _configured(RuleSettings()) if isinstance(detector, RuleGroup)]
    assert groups, "there are rules"
    for language, source in WARMING.items():
        parsed = parse(source, language, "warm")
        for group in groups:
            if language in group.languages:
                # Parsers and queries are made when the first rule asks for them.
                report = group.check_file(parsed)
                assert report.understood > 0, "what warms is understood"


def blobs_of(batch: Batch, roots: tuple[str, ...]) -> Blobs:
    """Return the content of a batch's files and of what they depend on, for a worker that does not see the roots."""
    assert batch.files, "a batch has files"
    found: dict[str, bytes | str] = {}
    for file in (*batch.files, *batch.support):
        try:
            found[file.path] = snapshot.read_verified(roots[file.root], file)
        except SourceChanged as problem:
            found[file.path] = problem.problem
    return found


def analyse(batch: Batch, roots: tuple[str, ...], run_id: str = "", blobs: Blobs | None = None) -> BatchResult:
    """
    Analyse the files of a batch.

    Args:
        batch: Detectors and files.
        roots: Absolute paths of the snapshot's roots, as this machine sees them.
        run_id: Of the scan. A tool that keeps failing is left alone for the rest of what this process does in it.
        blobs: What the files hold, where this machine does not see the roots; held against the digests like any file.

    Raises:
        DetectorWroteFiles: A detector changed what it was given to read.
        DetectorBroken: A detector of the batch does not exist here.
    """
    started = time.time()
    clock = time.perf_counter()
    registry = _configured(batch.settings)
    try:
        detectors = [registry[name] for name in batch.detectors]
    except DetectorPoolError as problem:
        raise DetectorBroken(", ".join(batch.detectors), f"this worker does not have it: {problem}") from problem
    groups = tuple(detector for detector in detectors if isinstance(detector, RuleGroup))
    tools = tuple(detector for detector in detectors if isinstance(detector, Tool))
    outcomes: list[Outcome] = []
    counts: list[CanaryCount] = []
    read = functools.partial(_content, roots=roots, blobs=blobs)
    if groups:
        dumb: dict[tuple[str, Language], Watch] = {}
        if batch.canary:
            tried, dumb = _tried(groups, batch)
            counts += tried
        for file in batch.files:
            # The list is made while it is paused, so that the parsed file is gone when the collector comes.
            with collector_paused():
                found = list(_by_rules(groups, file, read))
            outcomes += [_unless_dumb(outcome, dumb.get((outcome.detector, file.language))) for outcome in found]
    for tool in tools:
        watch = _watch(tool, batch)
        outcomes += _by_tool(tool, batch, read, _breaker(run_id, tool.name), watch)
        if batch.canary:
            counts.append(CanaryCount(tool.name, watch.placed, watch.missed, int(not watch.canaries)))
    worker = f"{os.uname().nodename}:{os.getpid()}"
    return BatchResult(tuple(outcomes), worker, started, time.perf_counter() - clock, tuple(counts))


def _languages(batch: Batch, detector: Detector) -> list[Language]:
    found = sorted({file.language for file in batch.files} & detector.languages)
    assert found, "a batch holds files that its detectors read"
    return found


def _watch(tool: Tool, batch: Batch) -> Watch:
    """Return the canaries of a tool, one for each language of the batch; none where the batch has no token."""
    if not batch.canary:
        return Watch(tool.name, ())
    offered = (tool.canary(language, batch.canary) for language in _languages(batch, tool))
    return Watch(tool.name, (canary for canary in offered if canary is not None))


def _tried(groups: tuple[RuleGroup, ...], batch: Batch) -> tuple[list[CanaryCount], dict[tuple[str, Language], Watch]]:
    """Try each group on a canary of each language; return the counts, and who is dumb in which language."""
    counts: list[CanaryCount] = []
    dumb: dict[tuple[str, Language], Watch] = {}
    for group in groups:
        placed = missed = 0
        for language in _languages(batch, group):
            canary = group.canary(language, batch.canary)
            if canary is None:
                continue
            watch = Watch(group.name, (canary,))
            if watch.judge({canary.name: _answer(group, canary, language)}):
                dumb[group.name, language] = watch
            placed, missed = placed + watch.placed, missed + watch.missed
        counts.append(CanaryCount(group.name, placed, missed, int(not placed)))
    assert len(counts) == len(groups), "each group is counted"
    return counts, dumb


def _answer(group: RuleGroup, canary: Canary, language: Language) -> FileReport | NotAnalysed:
    try:
        return group.check_file(parse(canary.data, language, canary.name))
    except Unparsable as answer:
        return NotAnalysed(canary.name, group.name, answer.reason, answer.detail)
    except (Exception, SystemExit) as problem:  # one rule's mistake, which must not end the batch
        return NotAnalysed(canary.name, group.name, "crashed", _told(problem))


def _unless_dumb(outcome: Outcome, watch: Watch | None) -> Outcome:
    """Return an outcome, or that it does not count, where its group missed the canary of its language."""
    if watch is None:
        return outcome
    (canary,) = watch.canaries
    told = f"{outcome.detector} did not report a known violation beside it: {canary.rule} on line {canary.line}"
    return NotAnalysed(outcome.path, outcome.detector, "canary-missed", told)


@functools.lru_cache(maxsize=8)
def _configured(settings: RuleSettings) -> Registry:
    return discover().configured(settings)


@functools.lru_cache(maxsize=KNOWN_BREAKERS)
def _breaker(run_id: str, tool: str) -> Breaker:
    """Return the breaker of a tool in one scan, beside the tool: on Dask, each worker finds out by itself."""
    assert tool, "every tool has a name"
    del run_id
    return Breaker(BreakerPolicy())


def _content(file: SourceFile, *, roots: tuple[str, ...], blobs: Blobs | None) -> bytes:
    """Return what the snapshot saw in a file; raises SourceChanged."""
    if blobs is None:
        return snapshot.read_verified(roots[file.root], file)
    match blobs.get(file.path, "vanished"):
        case bytes() as data:
            return snapshot.verified(file, data)
        case problem:
            raise SourceChanged(file.path, problem)


def _by_rules(groups: tuple[RuleGroup, ...], file: SourceFile, read: Read) -> Iterator[Outcome]:
    clock = time.perf_counter()
    try:
        parsed = parse(read(file), file.language, file.path.rpartition("/")[2])
    except SourceChanged as problem:
        yield from (_lost(file, group.name, problem) for group in groups)
        return
    except Unparsable as answer:
        yield from (NotAnalysed(file.path, group.name, answer.reason, answer.detail) for group in groups)
        return
    for group in groups:
        outcome = _by_group(group, file, parsed)
        spent = time.perf_counter() - clock
        clock += spent
        yield msgspec.structs.replace(outcome, seconds=spent) if isinstance(outcome, Analysed) else outcome


def _by_group(group: RuleGroup, file: SourceFile, parsed: ParsedFile) -> Outcome:
    try:
        report = group.check_file(parsed)
    except Unparsable as answer:
        return NotAnalysed(file.path, group.name, answer.reason, answer.detail)
    except (Exception, SystemExit) as problem:  # one rule's mistake on one file costs that file only, and is told
        return NotAnalysed(file.path, group.name, "crashed", _told(problem))
    found = tuple(sorted((with_context(finding, parsed.line) for finding in report.findings), key=_order))
    return Analysed(file.path, group.name, msgspec.structs.replace(report, findings=found), 0.0)


def _by_tool(tool: Tool, batch: Batch, read: Read, breaker: Breaker, watch: Watch) -> Iterator[Outcome]:
    clock = time.perf_counter()
    files = batch.files
    sources: dict[str, bytes] = {}
    for file in files:
        try:
            sources[file.path] = read(file)
        except SourceChanged as problem:
            yield _lost(file, tool.name, problem)
    if not sources:
        return
    if isinstance(tool, ClosureTool):
        try:
            support = {file.path: read(file) for file in batch.support}
        except SourceChanged as problem:
            # What they would have said depends on what is no longer there.
            yield from (_lost(file, tool.name, problem) for file in files if file.path in sources)
            return
        reports = analyse_in_context(tool, sources, support, batch.contexts, breaker, watch=watch)
    else:
        reports = analyse_with_tool(tool, sources, breaker, watch)
    total = sum(len(data) for data in sources.values()) or 1
    seconds = time.perf_counter() - clock
    for file in files:
        if file.path not in sources:
            continue
        match reports.get(file.path):
            case None:
                yield NotAnalysed(
                    file.path, tool.name, "not-reported", f"{tool.name} did not say that it read this file"
                )
            case NotAnalysed() as answer:
                yield answer
            case FileReport() as report:
                found = _located(report, sources[file.path], file)
                share = seconds * len(sources[file.path]) / total
                yield Analysed(file.path, tool.name, msgspec.structs.replace(report, findings=found), share)


def _located(report: FileReport, data: bytes, file: SourceFile) -> tuple[Finding, ...]:
    if not report.findings:
        return ()
    parsed = ParsedFile(data, file.language, file.path.rpartition("/")[2])
    return tuple(sorted((with_context(finding, parsed.line) for finding in report.findings), key=_order))


def _order(finding: Finding) -> tuple[object, ...]:
    return finding.region, finding.rule, finding.message


def _lost(file: SourceFile, detector: str, problem: SourceChanged) -> NotAnalysed:
    reasons: dict[str, Reason] = {"vanished": "vanished", "changed": "changed"}
    return NotAnalysed(
        file.path, detector, reasons.get(problem.problem, "unreadable"), f"it {problem.problem} during the scan"
    )


def _told(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"[:400]
