"""GitHub's workflow commands: an annotation a finding. Output only, no evidence."""

from __future__ import annotations

from detectors.model import RunRecord

__all__ = ["dumps"]

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def dumps(run: RunRecord) -> bytes:
    """Return one line for each finding that is neither suppressed nor in the baseline."""
    lines = []
    for item in run.findings:
        if item.suppressed or item.baseline == "unchanged":
            continue
        region = item.finding.region
        place = f"file={_property(item.path)},line={region.start_line},col={region.start_column}"
        title = _property(item.finding.rule)
        lines.append(f"::{COMMANDS[item.finding.level]} {place},title={title}::{_data(item.finding.message)}\n")
    return "".join(lines).encode()


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
