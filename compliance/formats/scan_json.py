"""The object that `scan --json` prints."""

from __future__ import annotations

from typing import Any

import msgspec

from compliance import coverage
from compliance.waived_runs import open_counts
from detectors.findings import as_json, sort_key
from detectors.model import RunRecord

__all__ = ["dumps"]


def dumps(run: RunRecord) -> bytes:
    """Return the run as one JSON object, UTF-8, with a newline at its end."""
    assert run.whole or run.problems, "a run that is not whole says why"
    assert not run.findings or sort_key(run.findings[0]) <= sort_key(run.findings[-1]), "they come in their total order"
    shown: dict[str, Any] = {
        "findings": [as_json(item) for item in run.findings],
        "not_analysed": [
            {"path": entry.path, "detector": entry.detector, "reason": entry.reason}
            | ({"detail": entry.detail} if entry.detail else {})
            for entry in run.not_analysed
        ],
        "summary": {
            "files": len(run.files),
            "executed": run.executed,
            "cached": run.cached,
            "seconds": round(run.seconds, 6),
            "workers": run.workers,
            "findings_digest": run.findings_digest,
            "whole": run.whole,
            "problems": list(run.problems),
            "excluded": sum(entry.files for entry in run.excluded),
        },
    }
    if run.waivers:
        without, with_them = open_counts(run)
        shown["summary"] |= {"open_without_waivers": without, "open_with_waivers": with_them}
        shown["waivers"] = msgspec.to_builtins(run.waivers)
    if run.qualifications:
        shown["qualifications"] = msgspec.to_builtins(run.qualifications)
    if run.deadline is not None:
        shown["deadline"] = msgspec.to_builtins(coverage.stated(run).deadline)
    if run.effects is not None:
        shown["effects"] = msgspec.to_builtins(run.effects)
    if any(item.baseline != "none" for item in run.findings) or run.absent:
        shown["absent"] = list(run.absent)
    return msgspec.json.encode(shown) + b"\n"
