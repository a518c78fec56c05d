"""flawfinder: dangerous calls in C and C++. GPL-2.0-or-later: run as a process of its own, never imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectors.canaries import Canary, laid
from detectors.detector import Tool
from detectors.errors import ToolCrashed
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.parsing import decode
from detectors.tools.suppressions import lines_of, suppressed

EXAMINED = re.compile(r"^Examining (.+)$", re.MULTILINE)
HIT = re.compile(
    r"^(?P<file>[^:\n]+):(?P<line>\d+):(?P<column>\d+):\s+\[(?P<risk>\d)\] "
    r"\((?P<kind>[^)]*)\) (?P<name>[^:\n]+): ?(?P<text>.*)$",
    re.MULTILINE,
)
MARKER = re.compile(r"(?:flawfinder|rats|its4)\s*:\s*ignore", re.IGNORECASE)
SKIPPED = re.compile(r"^Warning: (?:encoding error in|skipping) (\S+)", re.MULTILINE | re.IGNORECASE)


class Flawfinder(Tool):
    """flawfinder at its least risk level: risk 4 and 5 are `error`, 2 and 3 `warning`, 0 and 1 `note`."""

    name = "flawfinder"
    distribution = "flawfinder"
    languages = frozenset({"c", "cpp"})
    complexity_score = 0.3
    files_per_batch = 500
    start_s = 0.2
    marks = re.compile(rb"(?:flawfinder|rats|its4)\s*:\s*ignore", re.IGNORECASE)

    def prepare(self, data: bytes) -> bytes:
        """Return UTF-8: flawfinder skips a file that is anything else. Line ends and columns stay."""
        if data.isascii():
            return data
        return decode(data, "text").encode("utf-8", "surrogatepass")

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a copy without a bound."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        return laid(language, token, "flawfinder/strcpy", f"void f{token[:8]}(char *a, char *b) {{ strcpy(a, b); }}")

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; text output, since only that names the files examined."""
        assert files, "with nothing to read it would fail"
        assert not any("\n" in name for name in files), "its output is read by lines"
        script = Path(sys.executable).with_name("flawfinder")
        deaf = () if self.hears == "markers" else ("--neverignore",)
        fixed = ("--minlevel=0", "--columns", "--singleline", "--omittime")
        return [sys.executable, "-I", str(script), *deaf, *fixed, "--", *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read hits, and the list of files examined."""
        assert sources, "somebody asked"
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode("utf-8", "replace"))
        output = completed.stdout.decode("utf-8", "replace")
        found: dict[str, list[Finding]] = {}
        for hit in HIT.finditer(output):
            risk = int(hit["risk"])
            level: Level = "error" if risk >= 4 else "warning" if risk >= 2 else "note"
            region = Region(int(hit["line"]), int(hit["column"]))
            found.setdefault(hit["file"].removeprefix("./"), []).append(
                Finding(f"flawfinder/{hit['name'].strip()}", level, f"({hit['kind']}) {hit['text'].strip()}", region)
            )
        skipped = set(SKIPPED.findall(output))
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name in set(EXAMINED.findall(output)) & set(sources):
            if name in skipped:
                answers[name] = NotAnalysed("", "", "parse-error", "flawfinder cannot decode it")
                continue
            lines = lines_of(sources[name])
            answers[name] = FileReport(tuple(suppressed(finding, lines, _marker) for finding in found.get(name, [])))
        assert answers.keys() <= sources.keys(), "answers are about what was asked"
        return answers


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    assert finding.rule.startswith("flawfinder/"), "others have other markers"
    number = finding.region.start_line
    if not 0 < finding.region.start_line <= len(lines) + 1:
        return None
    here = MARKER.search(lines[number - 1]) if number <= len(lines) else None
    if here:
        return here.group()
    above = lines[number - 2] if number > 1 else ""
    # A marker that shares its line with code speaks of that line only.
    alone = MARKER.search(above) if above.lstrip().startswith(("//", "/*", "*")) else None
    return alone.group() if alone else None
