"""
SARIF that GitHub code scanning takes whole. Output only, no evidence: what it leaves out, the evidence has.

GitHub refuses a file that is over one of its limits, and of the rest it shows a part. This profile leaves out by
severity, and says in each run of the file, and in the log, how much of what it left out. Suppressed and waived findings
are left out first: GitHub would open an alert for each.

Source: GitHub Docs, "SARIF results exceed one or more limits" and "SARIF results file is too large" (read in 2026).
"""

from __future__ import annotations

import gzip
from collections import Counter
from typing import Any, Final

import msgspec

from compliance.formats import sarif
from detectors.model import LocatedFinding, RunRecord

__all__ = ["Profile", "dumps", "profile"]

MAX_RUNS: Final = 20
MAX_RESULTS: Final = 5_000
"""Of one run that are shown; a file with more than 25,000 in a run is refused."""
MAX_RELATED: Final = 100
"""Of the places of one result that are shown; more than 1,000 are refused."""
MAX_NOTIFICATIONS: Final = 1_000
"""Of a run: GitHub states no limit, but they count for the size."""
MAX_GZIP_BYTES: Final = 10_000_000
"""Of the compressed file: 10 MB, read as the smaller of its two meanings."""
MAX_ROUNDS: Final = 40
RANKS: Final = {"error": 0, "warning": 1, "note": 2}


class Profile(msgspec.Struct, frozen=True):
    """The log, and what is not in it."""

    data: bytes
    cut: tuple[str, ...]
    """In words; empty where nothing was left out."""


def dumps(run: RunRecord) -> bytes:
    """Return the log as UTF-8 JSON."""
    return profile(run).data


def profile(run: RunRecord) -> Profile:
    """Return the log of a run within GitHub's limits, and what was left out of it."""
    counted = [item for item in run.findings if not item.excused]
    by_severity = sorted(counted, key=_severity)
    names = _named(run, by_severity)
    kept: list[LocatedFinding] = []
    seen: Counter[str] = Counter()
    for item in by_severity:
        if item.detector in names and seen[item.detector] < MAX_RESULTS:
            seen[item.detector] += 1
            kept.append(item)
    for _ in range(MAX_ROUNDS):
        cut = _cut(run, kept, names)
        data = _encoded(run, kept, names, cut)
        size = len(gzip.compress(data, 6, mtime=0))
        if size <= MAX_GZIP_BYTES or not kept:
            break
        # The last in severity go; a tenth below what the size asks for, since texts differ in length.
        kept = kept[: min(len(kept) - 1, int(len(kept) * 0.9 * MAX_GZIP_BYTES / size))]
    assert max(Counter(item.detector for item in kept).values(), default=0) <= MAX_RESULTS, "GitHub shows no more"
    return Profile(data, cut)


def _severity(item: LocatedFinding) -> tuple[int, int]:
    """Order by level; of one level, what is new first. The order of the findings decides the rest."""
    return RANKS[item.finding.level], int(item.baseline == "unchanged")


def _named(run: RunRecord, by_severity: list[LocatedFinding]) -> frozenset[str]:
    """Return the detectors that have a run in the file: where they are too many, those with the worst findings."""
    worst: dict[str, tuple[int, int, int]] = {item.name: (len(RANKS), 0, 0) for item in run.detectors}
    for place, item in enumerate(by_severity):
        if worst[item.detector] == (len(RANKS), 0, 0):
            worst[item.detector] = (*_severity(item), place)
    names = sorted(worst, key=lambda name: (worst[name], name))[:MAX_RUNS]
    assert len(names) <= MAX_RUNS, "GitHub refuses more"
    return frozenset(names)


def _cut(run: RunRecord, kept: list[LocatedFinding], names: frozenset[str]) -> tuple[str, ...]:
    """Say what is left out of the file."""
    here = {item.fingerprint for item in kept}
    told = []
    excused = sum(item.excused for item in run.findings)
    if excused:
        told.append(f"{excused} suppressed or waived findings are left out")
    lost = Counter(
        (item.detector, item.finding.level)
        for item in run.findings
        if not item.excused and item.fingerprint not in here
    )
    for (detector, level), count in sorted(lost.items(), key=lambda entry: (entry[0][0], RANKS[entry[0][1]])):
        told.append(f"{count} findings of {detector} at level {level} are left out to keep within GitHub's limits")
    away = sorted(item.name for item in run.detectors if item.name not in names)
    if away:
        told.append(f"of {len(run.detectors)} detectors, {len(away)} have no run in the file: {', '.join(away)}")
    related = sum(len(item.finding.related) > MAX_RELATED for item in kept)
    if related:
        told.append(f"{related} findings have their first {MAX_RELATED} related places alone")
    for name in sorted(names):
        count = sum(entry.detector in {name, ""} for entry in run.not_analysed)
        if count > MAX_NOTIFICATIONS:
            told.append(f"of {count} entries that {name} did not analyse, {MAX_NOTIFICATIONS} are listed")
    assert len(here) + excused + sum(lost.values()) == len(run.findings), "what is not there is counted"
    return tuple(told)


def _encoded(run: RunRecord, kept: list[LocatedFinding], names: frozenset[str], cut: tuple[str, ...]) -> bytes:
    used = {item.finding.rule for item in kept}
    detectors = tuple(
        msgspec.structs.replace(item, rules=tuple(rule for rule in item.rules if rule.id in used))
        for item in run.detectors
        if item.name in names
    )
    here = {item.fingerprint for item in kept}
    findings = tuple(_short(item) for item in run.findings if not item.excused and item.fingerprint in here)
    log: dict[str, Any] = msgspec.json.decode(
        sarif.dumps(msgspec.structs.replace(run, detectors=detectors, findings=findings))
    )
    for part in log["runs"]:
        told = part["invocations"][0]["toolExecutionNotifications"][:MAX_NOTIFICATIONS]
        told += [{"descriptor": {"id": "left-out"}, "level": "warning", "message": {"text": text}} for text in cut]
        part["invocations"][0]["toolExecutionNotifications"] = told
        part["properties"] = {"leftOut": list(cut)}
    return msgspec.json.encode(log) + b"\n"


def _short(item: LocatedFinding) -> LocatedFinding:
    related = item.finding.related
    if len(related) <= MAX_RELATED:
        return item
    return msgspec.structs.replace(item, finding=msgspec.structs.replace(item.finding, related=related[:MAX_RELATED]))
