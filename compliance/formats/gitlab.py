"""GitLab's code quality report (a subset of Code Climate's issues). Output only, no evidence."""

from __future__ import annotations

import msgspec

from detectors.model import RunRecord

__all__ = ["dumps"]

SEVERITIES = {"error": "major", "warning": "minor", "note": "info"}


def dumps(run: RunRecord) -> bytes:
    """Return a JSON array of the findings that are not suppressed."""
    issues = [
        {
            "type": "issue",
            "check_name": item.finding.rule,
            "description": item.finding.message,
            "fingerprint": item.fingerprint,
            "severity": SEVERITIES[item.finding.level],
            "location": {"path": item.path, "lines": {"begin": item.finding.region.start_line}},
        }
        for item in run.findings
        if not item.excused
    ]
    assert len({issue["fingerprint"] for issue in issues}) == len(issues), "GitLab merges issues of one fingerprint"
    assert not any(item.path.startswith("/") for item in run.findings), "paths count from the repository's root"
    return msgspec.json.encode(issues) + b"\n"
