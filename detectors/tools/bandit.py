"""bandit: security of Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from detectors.canaries import Canary, laid
from detectors.detector import Tool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.tools.suppressions import column_of, lines_of, suppressed

LEVELS: dict[str, Level] = {"HIGH": "error", "MEDIUM": "warning", "LOW": "note"}
NOSEC = re.compile(r"#.*?\bnosec\b:?(?P<tests>[^#]*)", re.IGNORECASE)
HERE = re.compile(r"\A(?:\./)+")
IDS = re.compile(r"B\d+|[a-z_]{6,}")


class Bandit(Tool):
    """bandit with all its tests; severity HIGH is `error`, MEDIUM `warning`, LOW `note`."""

    name = "bandit"
    distribution = "bandit"
    languages = frozenset({"python"})
    complexity_score = 2.5
    start_s = 0.8
    marks = re.compile(rb"nosec", re.IGNORECASE)
    heeds = (".bandit",)

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a call of `eval`."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a literal"
        return laid(language, token, "bandit/B307", f'value = eval("0x{token[:8]}")')

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; explicit files, since with `-r` bandit obeys the tree's `.bandit`."""
        assert files, "with nothing to read it would read the folder"
        assert not any(name.startswith("-") for name in files), "a name must not be taken for an option"
        python = (sys.executable, "-I", "-m", "bandit")
        # An exclude pattern of ours that matches nothing takes the place of bandit's own (`*.egg`, `.tox`, …).
        ini = min(self.obeyed, key=lambda path: path.count("/"), default="/dev/null")
        exclude = () if self.hears == "configuration" else ("--exclude", "/nothing")
        nosec = () if self.hears == "markers" else ("--ignore-nosec",)
        return [*python, "-q", "-f", "json", "--ini", ini, *exclude, *nosec, *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the JSON report: `metrics` names what was read, `errors` what could not be parsed."""
        assert sources, "somebody asked"
        if completed.exit_code not in (0, 1):
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode("utf-8", "replace"))
        report = msgspec.json.decode(completed.stdout)
        errors = {HERE.sub("", entry["filename"]): entry["reason"] for entry in report["errors"]}
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in report["results"]:
            found.setdefault(HERE.sub("", entry["filename"]), []).append(entry)
        if found.keys() - sources.keys():
            raise ToolOutputInvalid(self.name, "it names files that it was not asked about")
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name in {HERE.sub("", path) for path in report["metrics"]} & set(sources):
            if name in errors:
                answers[name] = NotAnalysed("", "", "parse-error", errors[name])
                continue
            lines = lines_of(sources[name])
            answers[name] = FileReport(tuple(_finding(entry, lines) for entry in found.get(name, [])))
        return answers


def _finding(entry: dict[str, Any], lines: Sequence[str]) -> Finding:
    if entry["line_number"] < 1:
        raise ValueError(f"a result without a place: line {entry['line_number']}")
    number = entry["line_number"]
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    region = Region(number, column_of(line, entry.get("col_offset", 0)))
    # B105 to B107 quote the password that they found; evidence must not spread it.
    message = re.sub(r"password: .*", "password", entry["issue_text"], flags=re.DOTALL)
    assert "password: " not in message, "it would quote the password"
    finding = Finding(f"bandit/{entry['test_id']}", LEVELS.get(entry["issue_severity"], "note"), message, region)
    span = entry.get("line_range") or [number]

    def marker(texts: Sequence[str], found: Finding) -> str | None:
        assert found.rule.startswith("bandit/"), "others have other markers"
        # bandit takes a marker on any line of the statement; one with test ids or names speaks of these only.
        marked = (NOSEC.search(texts[n - 1]) for n in span if 0 < n <= len(texts))
        wanted = {found.rule.removeprefix("bandit/"), entry["test_name"]}
        return next(
            (m.group() for m in marked if m and (not m["tests"] or wanted & set(IDS.findall(m["tests"])))), None
        )

    return suppressed(finding, lines, marker)
