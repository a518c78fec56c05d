"""
`oscal.json`: OSCAL assessment results, by control of NIST SP 800-53 and task of SP 800-218.

`oscal_mapping.json` beside this file says which rule speaks for which control. A control judged *by findings* is not
satisfied while an unsuppressed error or warning of a rule that speaks for it is open, or while such a rule left a file
not analysed; one judged *by analysis* asks for a whole run without a gap. What no detector of the run speaks for is not
in the results: its absence is no "satisfied". This is evidence for an assessor's judgement, not the judgement.

Ids are version 5 UUIDs of what they name, so that equal runs give equal bytes but for times.

Source: OSCAL 1.2.1 assessment results; RFC 9562 §5.5. Needs the extra `oscal`.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec

from compliance import coverage
from compliance.errors import EvidenceError
from detectors.model import DetectorRecord, RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "ControlMapping", "Mapped", "dumps", "mapping", "missing", "write"]

NAME = "oscal.json"
MEDIA_TYPE = "application/oscal+json"
NAMESPACE = uuid.UUID("5c0e5f0e-5c55-5d0a-9d4f-6a5d1a0f2d41")
"""Of this project's names; any fixed value serves."""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A control that rules speak for."""

    source: str
    statement: str
    """Id of its statement in NIST's own OSCAL catalog."""
    title: str
    by: Literal["findings", "analysis"]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A publication."""

    title: str
    href: str


class ControlMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rule speaks for which control."""

    version: int
    sources: dict[str, Source]
    controls: dict[str, Control]
    rules: dict[str, tuple[str, ...]]
    """Rule id, or its beginning up to a dash or slash, to control ids."""


class Mapped(msgspec.Struct, frozen=True):
    """One rule prefix that detectors of a run spoke for."""

    prefix: str
    detectors: tuple[str, ...]
    open_findings: int
    """Errors and warnings that are not suppressed."""
    suppressed: int
    """In the source, or by a waiver."""
    notes: int
    files: int
    gaps: int
    """Files that its detectors left without an answer."""

    @property
    def clean(self) -> bool:
        """Whether nothing is open and nothing was left out."""
        return not self.open_findings and not self.gaps


def missing() -> str:
    """Return why this format cannot be written here; empty if it can."""
    if importlib.util.find_spec("trestle") is None:
        return f"{NAME} is left out: pip install 'enterprise-detector-pool[oscal]'"
    return ""


def mapping() -> ControlMapping:
    """Return the mapping of the package; raises EvidenceError if it names a control or a source that it has not."""
    data = resources.files("compliance.formats").joinpath("oscal_mapping.json").read_bytes()
    found = msgspec.json.decode(data, type=ControlMapping)
    unknown = {name for names in found.rules.values() for name in names} - set(found.controls)
    if unknown or {control.source for control in found.controls.values()} - set(found.sources):
        raise EvidenceError(f"oscal_mapping.json names what it does not have: {', '.join(sorted(unknown))}")
    return found


def write(run: RunRecord, file: Path) -> None:
    """Write the results; raises EvidenceError where the mapping is broken."""
    file.write_bytes(dumps(run))


def dumps(run: RunRecord) -> bytes:
    """Return the results as UTF-8 JSON; raises EvidenceError where the mapping is broken."""
    from trestle.oscal import OSCAL_VERSION
    from trestle.oscal.assessment_results import AssessmentResults

    known = mapping()
    observed = tuple(_observed(run, known))
    names = _Names(run)
    plan = names.id("plan")
    sources = [
        {"uuid": names.id(f"source {name}"), "title": source.title, "rlinks": [{"href": source.href}]}
        for name, source in sorted(known.sources.items())
    ]
    # The model checks what OSCAL's schema asks for, and writes it in its own order.
    results: Any = AssessmentResults.model_validate(
        {
            "uuid": names.id("results"),
            "metadata": {
                "title": "Static analysis of source code",
                "last-modified": run.started,
                "version": run.version,
                "oscal-version": OSCAL_VERSION,
            },
            "import-ap": {"href": f"#{plan}", "remarks": "The run's configuration is the plan."},
            "results": [_result(run, known, observed, names)],
            "back-matter": {"resources": [{"uuid": plan, "title": "Plan", "rlinks": [{"href": "run.json"}]}, *sources]},
        }
    )
    encoded: bytes = results.oscal_serialize_json_bytes()
    assert encoded.startswith(b'{"assessment-results"'), "the model's own wrapping, which its reader asks for"
    return encoded + b"\n"


class _Names:
    """Gives ids: equal results get equal ones."""

    def __init__(self, run: RunRecord) -> None:
        text = "\n".join((run.findings_digest, *run.command, *(f"{file.path} {file.digest}" for file in run.files)))
        self._space = uuid.uuid5(NAMESPACE, text)

    def id(self, name: str) -> str:
        """Return the id of what `name` names."""
        assert name, "what has no name has no id"
        return str(uuid.uuid5(self._space, name))


def _observed(run: RunRecord, known: ControlMapping) -> Iterator[Mapped]:
    """Yield what the run says of each rule prefix that one of its detectors speaks for."""
    spoken: dict[str, list[str]] = {}
    for detector in run.detectors:
        for prefix in _prefixes(detector, known):
            spoken.setdefault(prefix, []).append(detector.name)
    counts: Counter[tuple[str, str]] = Counter()
    files: dict[str, set[str]] = {}
    for item in run.findings:
        found = _prefix(item.finding.rule, known)
        if found is None:
            continue
        kind = "suppressed" if item.excused else "note" if item.finding.level == "note" else "open"
        counts[found, kind] += 1
        files.setdefault(found, set()).add(item.path)
    gaps = Counter(entry.detector for entry in run.not_analysed)
    for prefix, names in sorted(spoken.items()):
        # What could not be read at all was left out by every detector.
        left = sum(gaps[name] for name in names) + gaps[""]
        yield Mapped(prefix, tuple(names), counts[prefix, "open"], counts[prefix, "suppressed"], counts[prefix, "note"],
                     len(files.get(prefix, ())), left)  # fmt: skip


def _prefixes(detector: DetectorRecord, known: ControlMapping) -> set[str]:
    ids = (*(rule.id for rule in detector.rules), f"{detector.name}/")
    found = [_prefix(rule, known) for rule in ids]
    return {prefix for prefix in found if prefix is not None}


def _prefix(rule: str, known: ControlMapping) -> str | None:
    """Return the longest prefix of the mapping that ends where a part of the rule's id does."""
    fitting = [prefix for prefix in known.rules if rule == prefix or rule.startswith((f"{prefix}-", f"{prefix}/"))]
    return max(fitting, key=len) if fitting else None


def _result(run: RunRecord, known: ControlMapping, observed: tuple[Mapped, ...], names: _Names) -> dict[str, Any]:
    began = datetime.fromisoformat(run.started.replace("Z", "+00:00"))
    reviewed = {name for item in observed for name in known.rules[item.prefix]}
    reviewed |= {name for name, control in known.controls.items() if control.by == "analysis" and observed}
    selections = [
        {"description": source.title, "include-controls": [{"control-id": name} for name in chosen]}
        for key, source in sorted(known.sources.items())
        if (chosen := sorted(name for name in reviewed if known.controls[name].source == key))
    ]
    result: dict[str, Any] = {
        "uuid": names.id("result"),
        "title": "Static analysis",
        "description": _description(run),
        "start": run.started,
        "end": (began + timedelta(seconds=run.seconds)).isoformat(timespec="milliseconds"),
        "reviewed-controls": {"control-selections": selections or [{"include-all": {}}]},
    }
    if observed:
        # OSCAL has no empty lists: what is not there is left out.
        result["observations"] = [_covered(run, names), *(_observation(run, item, names) for item in observed)]
        result["findings"] = [_finding(run, known, name, observed, names) for name in sorted(reviewed)]
    return result


def _description(run: RunRecord) -> str:
    whole = "whole" if run.whole else "NOT WHOLE"
    return (
        f"{len(run.files)} files by {len(run.detectors)} detectors; the run is {whole}; "
        f"{len(run.findings)} findings, {len(run.not_analysed)} entries not analysed; digest {run.findings_digest}"
    )


def _covered(run: RunRecord, names: _Names) -> dict[str, Any]:
    """Return the observation of the coverage statement: how many pairs of file and detector are in which state."""
    statement = coverage.stated(run)
    counts: Counter[str] = Counter()
    for column in statement.detectors:
        counts.update(column.counts)
    counted = {
        "planned": statement.planned, "accounted": statement.accounted, **dict(sorted(counts.items())),
        "suppressed": sum(entry.count for entry in statement.suppressed),
        "excluded-files": sum(entry.files for entry in statement.excluded),
        "unreadable-entries": len(statement.unreadable),
    }  # fmt: skip
    assert sum(counts.values()) == len(run.files) * len(run.detectors), "each pair has one state"
    return {
        "uuid": names.id("observation coverage"),
        "title": "coverage",
        "description": (
            f"Of {statement.planned} planned pairs of file and detector {statement.accounted} are accounted for; "
            f"snapshot root {statement.snapshot.merkle_root}."
        ),
        "props": [{"name": name, "value": str(count)} for name, count in counted.items()],
        "methods": ["EXAMINE"],
        "types": ["finding"],
        "relevant-evidence": [{"href": coverage.NAME, "description": "The state of each file with each detector."}],
        "collected": run.started,
    }


def _observation(run: RunRecord, item: Mapped, names: _Names) -> dict[str, Any]:
    counted = {
        "open": item.open_findings, "suppressed": item.suppressed, "notes": item.notes, "files": item.files,
        "not-analysed": item.gaps,
    }  # fmt: skip
    assert all(count >= 0 for count in counted.values()), "counts are not negative"
    versions = {detector.name: detector.version for detector in run.detectors}
    by = ", ".join(f"{name} {versions[name]}" for name in item.detectors)
    return {
        "uuid": names.id(f"observation {item.prefix}"),
        "title": item.prefix,
        "description": f"Rules {item.prefix} by {by}: {item.open_findings} open, {item.suppressed} suppressed.",
        "props": [{"name": name, "value": str(count)} for name, count in counted.items()],
        "methods": ["EXAMINE"],
        "types": ["finding"],
        "relevant-evidence": [{"href": "findings.sarif", "description": "Each finding with its place."}],
        "collected": run.started,
    }


def _finding(
    run: RunRecord, known: ControlMapping, name: str, observed: tuple[Mapped, ...], names: _Names
) -> dict[str, Any]:
    control = known.controls[name]
    related = [item for item in observed if control.by == "analysis" or name in known.rules[item.prefix]]
    assert related, "a control is reviewed because something speaks for it"
    if control.by == "analysis":
        held = run.whole and not run.not_analysed
        told = "the run is whole and left nothing out" if held else "the run is not whole, or left files out"
    else:
        held = run.whole and all(item.clean for item in related)
        unclean = [item.prefix for item in related if not item.clean]
        told = "nothing is open" if held else f"open findings or gaps: {', '.join(unclean) or 'the run is not whole'}"
    state = {"state": "satisfied", "reason": "pass"} if held else {"state": "not-satisfied", "reason": "fail"}
    return {
        "uuid": names.id(f"finding {name}"),
        "title": f"{name} {control.title}",
        "description": told,
        "target": {"type": "statement-id", "target-id": control.statement, "status": state},
        "related-observations": [{"observation-uuid": names.id(f"observation {item.prefix}")} for item in related],
    }
