"""
`immunity.json`: what the scanned tree holds that mutes, steers or hijacks tools, and why that changed nothing.

It speaks of what this project knows and tries in tests that plant each: files by name, markers in sources that asked
for silence, and what scope rules kept out. A tree's version control is never shown to a tool, and is not listed.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from compliance.errors import EvidenceExists
from detectors.model import Excluded, MutingEffect, RunRecord

__all__ = [
    "MEDIA_TYPE",
    "NAME",
    "THREATS",
    "Immunity",
    "Neutralised",
    "Silenced",
    "Threat",
    "immunity_of",
    "threats_of",
    "write",
]

NAME = "immunity.json"
MEDIA_TYPE = "application/json"
FORMAT = 1
THREATS = Path(__file__).with_name("immunity_threats.json")


class Threat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of file by which a tree reaches a tool."""

    names: tuple[str, ...]
    """Patterns of base names."""
    tools: tuple[str, ...]
    effect: Literal["executes", "mutes", "hides"]
    would: str
    because: str
    """Why it does not."""


class Neutralised(msgspec.Struct, frozen=True):
    """One file of the tree that would have reached tools."""

    path: str
    effect: str
    would: str
    because: str
    tools: tuple[str, ...]
    """Those of this run that it is about; empty when none of them ran."""


class Silenced(msgspec.Struct, frozen=True):
    """Markers of one text in one file: their findings are reported, marked as suppressed."""

    path: str
    marker: str
    rules: tuple[str, ...]
    lines: tuple[int, ...]
    """Of the findings."""


class Immunity(msgspec.Struct, frozen=True):
    """The whole statement."""

    format: int
    run_id: str
    neutralised: tuple[Neutralised, ...]
    silenced: tuple[Silenced, ...]
    kept_out: tuple[Excluded, ...]
    """What ignore rules and options took out of scope, with the line that did."""
    effects: tuple[MutingEffect, ...] | None = None
    """What each would have muted, where `scan --show-effect` asked for it; None where it was not asked for."""


def write(run: RunRecord, file: Path) -> None:
    """Write the statement; raises EvidenceExists."""
    if file.exists():
        raise EvidenceExists(str(file))
    file.write_bytes(msgspec.json.format(msgspec.json.encode(immunity_of(run)), indent=1) + b"\n")


def immunity_of(run: RunRecord) -> Immunity:
    """Return what a run's tree held against its tools."""
    ran = {detector.name for detector in run.detectors}
    neutralised = [
        Neutralised(
            file.path, threat.effect, threat.would, threat.because,
            tuple(tool for tool in threat.tools if tool in ran),
        )
        for file in run.files
        for threat in threats_of(file.path)
    ]  # fmt: skip
    marked: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for item in run.findings:
        if item.finding.suppression is not None:
            place = (item.finding.region.start_line, item.finding.rule)
            marked[item.path, item.finding.suppression.marker].append(place)
    silenced = [
        Silenced(path, marker, tuple(sorted({rule for _, rule in places})), tuple(sorted({line for line, _ in places})))
        for (path, marker), places in sorted(marked.items())
    ]
    assert sum(map(len, marked.values())) == sum(item.suppressed for item in run.findings), "none is left out"
    return Immunity(FORMAT, run.run_id, tuple(neutralised), tuple(silenced), run.excluded, run.effects)


@functools.cache
def _threats() -> tuple[Threat, ...]:
    threats = msgspec.json.decode(THREATS.read_bytes(), type=tuple[Threat, ...])
    assert all(threat.names and threat.tools for threat in threats), "a threat has a name and reaches somebody"
    return threats


def threats_of(path: str) -> list[Threat]:
    """Return the kinds of file by which one of the tree would reach tools; none for most."""
    name = path.rpartition("/")[2]
    assert name, "a file has a name"
    return [threat for threat in _threats() if any(fnmatchcase(name, pattern) for pattern in threat.names)]
