"""lizard: cyclomatic complexity of functions in C, C++ and Python."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree  # reads what lizard prints, of which the tree gives names only

from detectors.canaries import Canary, laid
from detectors.detector import Tool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, NotAnalysed, Region
from detectors.tools.suppressions import lines_of, suppressed

LIMIT = 15
"""McCabe's number over which lizard itself warns."""
RULE = "lizard/cyclomatic-complexity"
PLACE = re.compile(r"(?P<function>.*) at (?P<file>.+):(?P<line>\d+)\Z", re.DOTALL)
FORGIVE = re.compile(rb"lizard forgive", re.IGNORECASE)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
"""Characters that a file's function names may carry and XML forbids."""
GENERATED = re.compile(rb"GENERATED CODE")
MARKER = re.compile(r"#\s*lizard forgives?.*|GENERATED CODE")


class Lizard(Tool):
    """
    lizard: a function of more than 15 independent paths.

    lizard has no switch against its own mute markers (`#lizard forgives`, and `GENERATED CODE`, which ends the file),
    so the shadow copy has them broken, byte for byte of the same length.
    """

    name = "lizard"
    distribution = "lizard"
    languages = frozenset({"c", "cpp", "python"})
    complexity_score = 0.7
    files_per_batch = 500
    start_s = 0.3
    marks = re.compile(rb"lizard forgive|GENERATED CODE", re.IGNORECASE)
    heeds = ("whitelizer.txt",)

    def prepare(self, data: bytes) -> bytes:
        """Return the bytes with lizard's markers broken."""
        if self.hears == "markers":
            return data
        shown = GENERATED.sub(b"GENERATED_CODE", FORGIVE.sub(b"lizard_forgive", data))
        assert len(shown) == len(data), "what is found must stand where it stands in the file"
        return shown

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a function of one path too many."""
        assert language in self.languages, "a canary is in a language that it reads"
        if language == "python":
            body = "".join(f"    if a == {number}:\n        a += 1\n" for number in range(LIMIT))
            return laid(language, token, RULE, f"def f{token[:8]}(a):\n{body}    return a")
        body = " ".join(f"if (a == {number}) {{ a++; }}" for number in range(LIMIT))
        return laid(language, token, RULE, f"int f{token[:8]}(int a) {{ {body} return a; }}")

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; XML, since only that lists files without functions."""
        assert files, "with nothing to read it would read the folder"
        assert not any(name.startswith("-") for name in files), "a name must not be taken for an option"
        return [sys.executable, "-I", "-m", "lizard", "--xml", *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the measures of functions, and the list of files."""
        assert sources, "somebody asked"
        if completed.exit_code not in (0, 1):
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode("utf-8", "replace"))
        try:
            root = ElementTree.fromstring(CONTROL.sub(b"?", completed.stdout))  # noqa: S314
        except ElementTree.ParseError as problem:
            raise ToolOutputInvalid(self.name, str(problem)) from problem
        read = {item.get("name", "").removeprefix("./") for item in root.iterfind("measure[@type='File']/item")}
        found: dict[str, list[Finding]] = {}
        for item in root.iterfind("measure[@type='Function']/item"):
            place = PLACE.match(item.get("name", ""))
            values = [value.text or "0" for value in item.iterfind("value")]
            if place is None or int(place["line"]) < 1 or len(values) < 3:
                raise ToolOutputInvalid(self.name, f"a function without a place: {item.get('name')!r}")
            paths = int(values[2])
            if paths > LIMIT:
                message = f"{place['function']} has {paths} independent paths, over {LIMIT}; split it"
                found.setdefault(place["file"].removeprefix("./"), []).append(
                    Finding(RULE, "warning", message, Region(int(place["line"])))
                )
        if found.keys() - sources.keys():
            raise ToolOutputInvalid(self.name, "it names functions of files that it was not asked about")
        return {
            name: FileReport(tuple(suppressed(f, lines_of(sources[name]), _marker) for f in found.get(name, [])))
            for name in read & set(sources)
        }


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    assert finding.rule.startswith("lizard/"), "others have other markers"
    assert finding.region.start_line >= 1, "its head stands on a line"
    # lizard forgives the function whose body, or the line above whose head, holds the marker; seen here for the whole
    # file from 3 lines above the head to 200 below, which never hides more than it shows: the finding is still listed.
    start = finding.region.start_line
    for text in lines[max(start - 3, 0) : start + 200]:
        match = MARKER.search(text)
        if match:
            return match.group()
    return None
