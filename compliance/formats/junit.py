"""
JUnit's XML, for CI servers that know no other: one suite a detector, one failure a finding. Output only, no evidence.

Source: the schema of Jenkins' xUnit plug-in (junit-10.xsd), which the other servers read, too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from xml.etree import ElementTree

from detectors.model import LocatedFinding, NotAnalysed, RunRecord

__all__ = ["dumps"]

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (§2.2) has no way to write."""


def dumps(run: RunRecord) -> bytes:
    """
    Return the report as UTF-8.

    A finding is a failed case of the class that its file is, a suppressed or known one a skipped case; what was not
    analysed is an error. A detector that found nothing has one case that passed, so that it is seen to have run.
    """
    found: dict[str, list[LocatedFinding]] = defaultdict(list)
    for item in run.findings:
        found[item.detector].append(item)
    failed: dict[str, list[NotAnalysed]] = defaultdict(list)
    for entry in run.not_analysed:
        failed[entry.detector].append(entry)
    root = ElementTree.Element("testsuites", name="detector-pool")
    names = {detector.name for detector in run.detectors} | set(found) | set(failed)
    for name in sorted(names):
        _suite(root, name or "snapshot", found[name], failed[name])
    ElementTree.indent(root)
    report: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return report + b"\n"


def _suite(root: ElementTree.Element, name: str, found: list[LocatedFinding], not_analysed: list[NotAnalysed]) -> None:
    skipped = sum(map(_is_known, found))
    counts = {
        "tests": max(len(found) + len(not_analysed), 1),
        "failures": len(found) - skipped,
        "errors": len(not_analysed),
        "skipped": skipped,
    }
    assert counts["failures"] + counts["errors"] + skipped <= counts["tests"], "each case has one state"
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **{key: str(n) for key, n in counts.items()}})
    if not found and not not_analysed:
        ElementTree.SubElement(suite, "testcase", classname=name, name="no findings")
    for item in found:
        place = f"{item.finding.rule} at line {item.finding.region.start_line}"
        case = ElementTree.SubElement(suite, "testcase", classname=_legal(item.path), name=_legal(place))
        told = _legal(item.finding.message)
        if _is_known(item):
            ElementTree.SubElement(case, "skipped", message=told)
            continue
        failure = ElementTree.SubElement(case, "failure", type=item.finding.level, message=told)
        failure.text = _legal(f"{item.path}:{item.finding.region.start_line}:{item.finding.region.start_column}")
    for entry in not_analysed:
        case = ElementTree.SubElement(suite, "testcase", classname=_legal(entry.path), name="not analysed")
        ElementTree.SubElement(case, "error", type=entry.reason, message=_legal(entry.detail or entry.reason))


def _is_known(item: LocatedFinding) -> bool:
    return item.excused or item.baseline == "unchanged"


def _legal(text: str) -> str:
    return ILLEGAL.sub("\ufffd", text)
