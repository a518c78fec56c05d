"""
`findings.sarif`: SARIF 2.1.0, one SARIF run for each detector.

Source: OASIS "Static Analysis Results Interchange Format (SARIF) Version 2.1.0".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from compliance.errors import EvidenceExists
from compliance.taxonomies import CWE, references, taxa_of
from compliance.waived_runs import sarif_suppression
from detectors.findings import FINGERPRINT
from detectors.model import DetectorRecord, LocatedFinding, RuleRecord, RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "dumps", "write"]

NAME = "findings.sarif"
MEDIA_TYPE = "application/sarif+json"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "SRCROOT"


def write(run: RunRecord, file: Path) -> None:
    """Write the log; raises EvidenceExists."""
    if file.exists():
        raise EvidenceExists(str(file))
    assert file.suffix == ".sarif", "viewers know the format by its suffix"
    file.write_bytes(dumps(run))


def dumps(run: RunRecord) -> bytes:
    """Return the log as UTF-8 JSON."""
    by_detector: dict[str, list[LocatedFinding]] = {detector.name: [] for detector in run.detectors}
    for item in run.findings:
        by_detector.setdefault(item.detector, []).append(item)
    assert len(by_detector) == len(run.detectors), "each finding is of a detector that ran"
    assert run.whole or run.problems, "a run that is not whole says why"
    runs = [_run(run, detector, by_detector[detector.name]) for detector in run.detectors]
    return msgspec.json.encode({"$schema": SCHEMA, "version": "2.1.0", "runs": runs}) + b"\n"


def _run(run: RunRecord, detector: DetectorRecord, found: list[LocatedFinding]) -> dict[str, Any]:
    assert run.run_id, "the log is of a run"
    assert all(item.detector == detector.name for item in found), "others have a run of their own"
    described = {rule.id: rule for rule in detector.rules}
    assert len(described) == len(detector.rules), "a rule is described once"
    ids = sorted(set(described) | {item.finding.rule for item in found})
    taxonomies, related = references(ids)
    rules = [_rule(rule_id, described.get(rule_id), related[rule_id]) for rule_id in ids]
    places = {rule_id: place for place, rule_id in enumerate(ids)}
    paths = sorted({item.path for item in found})
    digests = {file.path: file.digest.removeprefix("sha256:") for file in run.files}
    index = {path: place for place, path in enumerate(paths)}
    return {
        "tool": {
            "driver": {
                "name": detector.name,
                "version": detector.version,
                "rules": rules,
                "supportedTaxonomies": [
                    {"name": taxonomy["name"], "index": index} for index, taxonomy in enumerate(taxonomies)
                ],
                "properties": {"codeDigest": detector.code_digest, "configDigest": detector.config_digest},
            }
        },
        "taxonomies": taxonomies,
        "automationDetails": {"id": f"{detector.name}/{run.run_id}"},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: {"description": {"text": "The scanned root."}}},
        "invocations": [_invocation(run, detector.name)],
        "artifacts": [
            {"location": {"uri": _uri(path), "uriBaseId": ROOT}, "hashes": {"sha-256": digests[path]}}
            if path in digests
            else {"location": {"uri": _uri(path), "uriBaseId": ROOT}}
            for path in paths
        ],
        "results": [_waived(run, item, _result(item, places, index)) for item in found],
    }


def _rule(rule_id: str, rule: RuleRecord | None, related: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"id": rule_id}
    if rule is not None:
        told["shortDescription"] = {"text": rule.summary or rule_id}
        told["help"] = {"text": rule.help, "markdown": rule.help}
        told["defaultConfiguration"] = {"level": rule.level}
    if related:
        told["relationships"] = related
    # As code scanning of forges reads a weakness.
    tags = [f"external/cwe/cwe-{id_}" for taxonomy, id_ in taxa_of(rule_id) if taxonomy == CWE]
    if tags:
        told["properties"] = {"tags": tags}
    assert told["id"], "a rule has an id"
    return told


def _invocation(run: RunRecord, detector: str) -> dict[str, Any]:
    assert detector, "the empty name stands for all detectors"
    entries = [entry for entry in run.not_analysed if entry.detector in {detector, ""}]
    notifications: list[dict[str, Any]] = [
        {
            "descriptor": {"id": f"not-analysed/{entry.reason}"},
            "level": "warning",
            "message": {"text": f"not analysed: {entry.reason}" + (f": {entry.detail}" if entry.detail else "")},
            "locations": [_location(entry.path)],
        }
        for entry in entries
    ]
    if not run.whole:
        notifications += [{"level": "error", "message": {"text": f"not whole: {problem}"}} for problem in run.problems]
    assert run.whole or notifications, "what is not successful says why"
    return {
        "executionSuccessful": run.whole,
        "startTimeUtc": run.started,
        "toolExecutionNotifications": notifications,
    }


def _result(item: LocatedFinding, places: dict[str, int], index: dict[str, int]) -> dict[str, Any]:
    assert item.fingerprint, "viewers follow a result by it from run to run"
    finding = item.finding
    region = {"startLine": finding.region.start_line, "startColumn": finding.region.start_column}
    if finding.region.end_line:
        region["endLine"] = finding.region.end_line
        region["endColumn"] = max(finding.region.end_column, 1)
    location = _location(item.path)
    location["physicalLocation"]["artifactLocation"]["index"] = index[item.path]
    location["physicalLocation"]["region"] = region
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": places[finding.rule],
        "level": finding.level,
        "message": {"text": finding.message or finding.rule},
        "locations": [location],
        "partialFingerprints": {FINGERPRINT: item.fingerprint},
    }
    if finding.related:
        result["relatedLocations"] = [
            _location(related.path or item.path, related.line) | {"id": number, "message": {"text": related.message}}
            for number, related in enumerate(finding.related)
        ]
    if finding.suppression is not None:
        excuse = finding.suppression
        told: dict[str, Any] = {"kind": "inSource", "justification": excuse.reason or excuse.marker}
        if excuse.owner:
            told["properties"] = {"marker": excuse.marker, "owner": excuse.owner, "until": excuse.until or None}
        result["suppressions"] = [told]
    if item.baseline != "none":
        result["baselineState"] = item.baseline
    return result


def _waived(run: RunRecord, item: LocatedFinding, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result with the waiver that lets it pass, beside what its source asks for."""
    told = sarif_suppression(run, item)
    if told is None:
        return result
    return result | {"suppressions": [*result.get("suppressions", ()), told]}


def _location(path: str, line: int | None = None) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(path), "uriBaseId": ROOT}}
    if line is None:
        return {"physicalLocation": physical}
    return {"physicalLocation": physical | {"region": {"startLine": line}}}


def _uri(path: str) -> str:
    """Return a report path as relative reference (RFC 3986 §4.2): `%` in it is a character, so it is encoded too."""
    assert not path.startswith("/"), "a report path counts from the scanned root"
    if not path:
        return "."
    encoded = quote(path, safe="/-._~!$&'()*+,;=@")
    # A first segment with a colon would read as a scheme; quote() encodes it, and the rest needs no dot segment.
    assert ":" not in encoded.partition("/")[0], "it is no scheme"
    return encoded
