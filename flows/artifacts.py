"""
What Prefect's UI shows of a scan: tables by rule and detector, the trend over runs, a summary, a link to the report.

All of it is read off the run's record, and small: a larger artifact makes an event that the server drops (1.5 MB).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

from prefect.artifacts import Artifact, create_link_artifact, create_markdown_artifact, create_table_artifact

from detectors.model import RunRecord

__all__ = ["publish", "trend_key"]

ROWS = 200
RUNS = 50
"""Kept in a trend."""


def publish(record: RunRecord, evidence: Path | None, wholeness: str) -> None:
    """
    Make the artifacts of a run.

    Args:
        record: Of the run.
        evidence: Its folder; None for a run without.
        wholeness: Whether every planned unit has its answer, in words.

    Raises:
        httpx.HTTPError: The server is away.
    """
    assert wholeness, "each artifact says whether the run is whole"
    create_table_artifact(table=_by_rule(record), key="findings-by-rule", description=wholeness)
    create_table_artifact(table=_by_detector(record), key="units-by-detector", description=wholeness)
    create_table_artifact(table=_trend(record), key=trend_key(record), description=_told_trend(record))
    if evidence is not None:
        report = (evidence / "report.html").absolute()
        create_link_artifact(
            link=report.as_uri(), link_text=str(report), key="scan-report", description=f"On {platform.node()}"
        )
    create_markdown_artifact(markdown=_summary(record, evidence, wholeness), key="scan-summary")


def trend_key(record: RunRecord) -> str:
    """Return the key of the trend that a run belongs to: that of its trees, wherever it ran from."""
    roots = sorted(str(root.path) for root in record.roots)
    assert roots, "a run has trees"
    return f"scan-trend-{hashlib.sha256(json.dumps(roots).encode()).hexdigest()[:12]}"


def _by_rule(record: RunRecord) -> list[dict[str, Any]]:
    counts = Counter((item.detector, item.finding.rule, item.finding.level) for item in record.findings)
    assert sum(counts.values()) == len(record.findings), "each finding is counted once"
    return [
        {"detector": detector, "rule": rule, "level": level, "findings": count}
        for (detector, rule, level), count in counts.most_common(ROWS)
    ]


def _by_detector(record: RunRecord) -> list[dict[str, Any]]:
    findings = Counter(item.detector for item in record.findings)
    states = Counter((unit.detector, unit.state) for unit in record.units)
    rows = [
        {
            "detector": detector.name, "version": detector.version, "findings": findings[detector.name],
            **{state: states[detector.name, state] for state in ("executed", "cached", "not-analysed")},
        }
        for detector in record.detectors
    ]  # fmt: skip
    assert len(rows) == len(record.detectors), "a row a detector"
    return rows[:ROWS]


def _trend(record: RunRecord) -> list[dict[str, Any]]:
    """Return the rows of earlier runs and this one's, the newest first; the server has the earlier ones."""
    before = Artifact.get(trend_key(record))
    assert not inspect.isawaitable(before), "a task without a loop is answered at once"
    rows = json.loads(before.data) if before is not None and isinstance(before.data, str) else []
    earlier = [row for row in rows if isinstance(row, dict)][: RUNS - 1] if isinstance(rows, list) else []
    mine = {
        "started": record.started, "run": record.run_id, "whole": record.whole, "files": len(record.files),
        "findings": len(record.findings),
        "errors": sum(item.finding.level == "error" for item in record.findings),
        "change": _change(record, earlier), "not analysed": len(record.not_analysed),
        "from cache, %": round(100 * record.cached / max(record.planned, 1), 1), "seconds": round(record.seconds, 1),
    }  # fmt: skip
    assert len(earlier) < RUNS, "it does not grow for ever"
    return [mine, *earlier]


def _change(record: RunRecord, earlier: list[dict[str, Any]]) -> str:
    last = earlier[0].get("findings") if earlier else None
    assert last is None or isinstance(last, int), "counts are whole numbers"
    return "" if last is None else f"{len(record.findings) - last:+d}"


def _told_trend(record: RunRecord) -> str:
    roots = ", ".join(str(root.path) for root in record.roots)
    assert roots, "a run has trees"
    return f"The last {RUNS} runs over {roots[:400]}, the newest first"


def _summary(record: RunRecord, evidence: Path | None, wholeness: str) -> str:
    where = f"\nEvidence: `{evidence}` (report.html in it)\n" if evidence else ""
    assert record.findings_digest, "a run has a digest"
    return (
        f"# Scan {record.run_id}\n\n{wholeness}\n\n"
        f"- {len(record.files)} files, {record.planned} units: {record.executed} executed, {record.cached} cached\n"
        f"- {len(record.findings)} findings, {len(record.not_analysed)} entries not analysed\n"
        f"- findings digest `{record.findings_digest}`\n{where}"
    )
