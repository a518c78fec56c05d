"""ruff: the set of its rules that speaks for rule 10 of the Power of Ten, P10-R10-python version 1."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.canaries import Canary, laid
from detectors.detector import Tool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.tools.suppressions import lines_of, suppressed

SELECTED = ("E4", "E7", "E9", "W6", "F", "B", "PLC", "PLE", "PLR", "PLW", "RUF")
"""
The set P10-R10-python, version 1: errors and warnings of pycodestyle, pyflakes, bugbear, pylint, and ruff's own rules.

Layout is left out (E1, E2, E3, E5, W1 to W5), and so is S101, which forbids the assertions that rule 5 asks for. A
change of this list or of `IGNORED` needs a new version, here and in the module's first line.
"""
IGNORED = ("PLC0415", "PLR0917", "PLR2004", "RUF100")
"""
Imports inside of functions; a second count of what PLR0913 counts; numbers without a name, which small formulas read
better with; and `noqa` comments without use, which other selections of rules may need.
"""
ERRORS = re.compile(r"E9|F63|F7|F82|PLE")
CHECKED = re.compile(r"\[DEBUG\] Checking: (.+)$", re.MULTILINE)
LINE = re.compile(r"#.*?\b(?:noqa(?P<codes>:\s*[A-Z0-9, ]+)?|ruff:\s*ignore\[(?P<more>[^\]]*)\]).*", re.IGNORECASE)
WHOLE_FILE = re.compile(r"\s*#\s*(?:ruff|flake8):\s*noqa(?P<codes>:\s*[A-Z0-9, ]+)?", re.IGNORECASE)
RANGE = re.compile(r"\s*#\s*ruff:\s*(?P<verb>disable|enable)\[(?P<codes>[^\]]*)\]")


class Ruff(Tool):
    """
    ruff with the set of rules P10-R10-python, version 1, and nothing of the tree's configuration.

    A file that ruff cannot parse is *not analysed*: its other rules would be silent. Level `error` for E9, F63, F7,
    F82 and PLE, `warning` for the rest.
    """

    name = "ruff"
    distribution = "ruff"
    languages = frozenset({"python"})
    speaks_for = "P10-R10"
    complexity_score = 0.1
    files_per_batch = 500
    start_s = 0.05
    marks = re.compile(rb"noqa|ruff\s*:|flake8\s*:", re.IGNORECASE)
    heeds = ("pyproject.toml", "ruff.toml", ".ruff.toml")

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return an undefined name."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        return laid(language, token, "ruff/F821", f"value = undefined_{token[:8]}")

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command: verbose, since only the log says which files were read."""
        assert files, "with nothing to read it would read the folder"
        assert len(set(files)) == len(files), "a file named twice may be reported twice"
        binary = Path(sys.executable).with_name("ruff")
        deaf = (
            "--force-exclude" if self.hears == "configuration" else "--isolated",
            *(() if self.hears == "markers" else ("--ignore-noqa",)),
        )
        fixed = (*deaf, "--no-cache", "--output-format=json", "--target-version=py311", "-v")
        # What is selected here takes the place of what the tree ignores, whatever that is.
        ours = (f"--select={','.join(SELECTED)}", f"--ignore={','.join(IGNORED)}")
        rules = () if self.hears == "configuration" else ours
        return [str(binary), "check", *fixed, *rules, "--", *(f"./{name}" for name in files)]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the JSON list of diagnostics, and the log for the files read."""
        assert sources, "somebody asked"
        diagnostics = completed.stderr.decode("utf-8", "replace")
        if completed.exit_code not in (0, 1):
            raise ToolCrashed(self.name, completed.exit_code, diagnostics)
        read = {path.removeprefix("./") for path in CHECKED.findall(diagnostics)}
        found: dict[str, list[dict[str, Any]]] = {}
        for entry in msgspec.json.decode(completed.stdout):
            found.setdefault(entry["filename"].removeprefix("./"), []).append(entry)
        if found.keys() - sources.keys():
            raise ToolOutputInvalid(self.name, "it names files that it was not asked about")
        return {name: _report(data, found.get(name, [])) for name, data in sources.items() if name in read}


def _report(data: bytes, entries: list[dict[str, Any]]) -> FileReport | NotAnalysed:
    if not entries:
        return FileReport()
    if broken := [entry for entry in entries if entry["code"] in (None, "invalid-syntax", "E902")]:
        where = broken[0].get("location") or {}
        return NotAnalysed("", "", "parse-error", f"line {where.get('row', 0)}: {broken[0]['message']}"[:200])
    lines = lines_of(data)
    return FileReport(tuple(suppressed(_finding(entry), lines, _marker) for entry in entries))


def _finding(entry: dict[str, Any]) -> Finding:
    if not 1 <= entry["location"]["row"] <= entry["end_location"]["row"]:
        raise ValueError(f"{entry['code']} has no place: {entry['location']}")
    start, end = entry["location"], entry["end_location"]
    level: Level = "error" if ERRORS.match(entry["code"]) else "warning"
    region = Region(start["row"], start["column"], end["row"], end["column"])
    return Finding(f"ruff/{entry['code']}", level, entry["message"], region)


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    assert finding.rule.startswith("ruff/"), "others have other markers"
    assert finding.region.start_line >= 1, "a finding stands on a line"
    code = finding.rule.removeprefix("ruff/")
    # A marker counts on the first and the last line of what it mutes (a string or call of several lines).
    for number in {finding.region.start_line, finding.region.end_line}:
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        match = LINE.search(line)
        if match and _covers(match["codes"] or match["more"], code):
            return match.group()
    open_range = None
    for number, line in enumerate(lines, 1):
        if "#" not in line:
            continue
        whole = WHOLE_FILE.match(line)
        if whole and _covers(whole["codes"], code):
            return whole.group()
        switch = RANGE.match(line)
        if switch and number <= finding.region.start_line and _covers(switch["codes"], code):
            open_range = switch.group() if switch["verb"] == "disable" else None
    return open_range


def _covers(codes: str | None, code: str) -> bool:
    assert code, "a finding has a code"
    if codes is None:
        return True
    wanted = re.findall(r"[A-Z]+[0-9]*", codes.upper())
    return any(code.startswith(prefix) for prefix in wanted)
