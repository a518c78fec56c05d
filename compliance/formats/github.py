"""GitHub's workflow commands: an annotation a finding. Output only, no evidence."""

from __future__ import annotations

from detectors.model import RunRecord

__all__ = ["dumps"]

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY = DATA | str.maketrans({":": "%3A", ",": "%2C"})


def dumps(run: RunRecord) -> bytes:
    """Return one line for each finding that is neither suppressed nor in the baseline."""
    lines = []
    for item in run.findings:
        if item.excused or item.baseline == "unchanged":
            continue
        region = item.finding.region
        path, title = item.path.translate(PROPERTY), item.finding.rule.translate(PROPERTY)
        place = f"file={path},line={region.start_line},col={region.start_column},title={title}"
        assert place.count(",") == 3, "a name of the tree must not add a property"
        assert ":" not in place, "nor end them"
        lines.append(f"::{COMMANDS[item.finding.level]} {place}::{item.finding.message.translate(DATA)}\n")
    assert all(line.find("\n") == len(line) - 1 for line in lines), "a text of the tree must not start a command"
    return "".join(lines).encode()
