"""cppcheck: its own checks for C and C++, where the system has it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree  # reads what cppcheck prints, of which the tree gives names and messages only

from detectors.canaries import Canary, laid
from detectors.closures import Context
from detectors.detector import MISSING, ClosureTool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.tools import system_programs
from detectors.tools.suppressions import lines_of, suppressed
from detectors.tools.translation_units import language_of, place_of, search_flags

ENABLED = "warning,style,performance,portability"
BLIND = frozenset(
    {"syntaxError", "internalError", "internalAstError", "cppcheckError", "unknownMacro", "preprocessorErrorDirective"}
)
"""Ids that mean that the rest of the file was not looked at."""
OF_THE_RUN = frozenset(
    {"missingInclude", "missingIncludeSystem", "toomanyconfigs", "checkersReport", "noValidConfiguration"}
)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
MARKER = re.compile(r"cppcheck-suppress(?:-file|-macro)?\b\s*(?:\[(?P<many>[^\]]*)\]|(?P<one>[\w*]+))[^\n]*")


class Cppcheck(ClosureTool):
    """
    cppcheck, with warnings, style, performance and portability, and none of the tree's project files or suppressions.

    Translation units and headers are looked at one by one. A header that is not found is no error to cppcheck: it goes
    on without what it declares. A file that it cannot parse is *not analysed*. Its licence is GPL-3.0: it is run as a
    program of its own. Level `error` for its errors, `warning` for its warnings, `note` for the rest.
    """

    name = "cppcheck"
    languages = frozenset({"c", "cpp"})
    closure = "includes"
    complexity_score = 10.0
    files_per_batch = 20
    start_s = 0.05
    marks = re.compile(rb"cppcheck-suppress")

    @functools.cached_property
    def version(self) -> str:  # type: ignore[override]  # a value on other detectors, looked up once here
        """Return what cppcheck says of its version, or `missing`."""
        said = system_programs.version(system_programs.program("cppcheck"))
        assert "\n" not in said, "it stands on one line of a report"
        return said

    def missing(self) -> str | None:
        """Return how to get cppcheck, or `None`."""
        if self.version == MISSING:
            return "install cppcheck, for example: apt-get install cppcheck"
        return None

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper's modules, the program and its library descriptions."""
        own = {*super().code_files(), Path(__file__).with_name("translation_units.py")}
        if self.version == MISSING:
            return sorted(own)
        place = system_programs.program("cppcheck")
        assert place is not None, "it told its version"
        return sorted({*own, place.resolve(), *Path("/usr/share/cppcheck/cfg").glob("std.cfg")})

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a read through a null pointer."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        violation = f"int f{token[:8]}(void) {{ int *p = 0; return *p; }}"
        return laid(language, token, "cppcheck/nullPointer", violation)

    def command_in(self, context: Context, files: Sequence[str]) -> list[str]:
        """Return the command for one file; results are on standard error as XML, the file's name on standard output."""
        assert len(files) == self.files_per_run, "each file has a context of its own"
        (file,) = files
        assert not file.startswith("/"), "what is outside of the shadow tree is not to be read"
        language = "c" if language_of(file, context) == "c" else "c++"
        inline = ("--inline-suppr",) if self.hears == "markers" else ()
        fixed = (*inline, "--xml", f"--enable={ENABLED}", f"--language={language}", "--max-configs=4")
        macros = [flag for flag in context.flags if flag.startswith(("-D", "-U"))]
        binary = system_programs.program("cppcheck")
        assert binary is not None, "a program that is missing is not run"
        return [
            str(binary),
            *fixed,
            *macros,
            *(flag for flag in search_flags(context) if flag.startswith("-I")),
            f"./{file}",
        ]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the results; the file counts as read when standard output says that it was checked."""
        assert len(sources) == self.files_per_run, "each file has a run of its own"
        ((name, data),) = sources.items()
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, completed.stdout.decode("utf-8", "replace"))
        try:
            root = ElementTree.fromstring(CONTROL.sub(b"?", completed.stderr))  # noqa: S314
        except ElementTree.ParseError as problem:
            raise ToolOutputInvalid(self.name, str(problem)) from problem
        if f"Checking {name} ..." not in completed.stdout.decode("utf-8", "replace").replace("./", ""):
            return {}
        lines = lines_of(data)
        found: dict[Finding, None] = {}
        for error in root.iterfind("errors/error"):
            place = error.find("location")
            if error.get("id") in BLIND:
                where = f"line {place.get('line')}: " if place is not None else ""
                return {name: NotAnalysed("", "", "parse-error", f"{where}{error.get('msg')}"[:200])}
            if place is not None and place_of(place.get("file", "")) == name and error.get("id") not in OF_THE_RUN:
                found[_finding(error, place, len(lines))] = None
        return {name: FileReport(tuple(suppressed(finding, lines, _marker) for finding in found))}


def _finding(error: ElementTree.Element, place: ElementTree.Element, last_line: int) -> Finding:
    if not error.get("id"):
        raise ValueError("an error without an id")
    assert last_line >= 1, "an empty file has one line"
    severity = error.get("severity", "")
    level: Level = "error" if severity == "error" else "warning" if severity == "warning" else "note"
    region = Region(min(max(int(place.get("line", 1)), 1), last_line), max(int(place.get("column", 1)), 1))
    return Finding(f"cppcheck/{error.get('id')}", level, error.get("msg", ""), region)


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    """Return the comment that asks cppcheck for silence, on the line or alone on the one before."""
    assert finding.rule.startswith("cppcheck/"), "others have other markers"
    assert finding.region.start_line <= len(lines), "its line is one of the file"
    wanted = finding.rule.partition("/")[2]
    line = finding.region.start_line
    for text in lines[max(line - 2, 0) : line]:
        match = MARKER.search(text) if "cppcheck-suppress" in text else None
        if match is not None:
            asked = re.split(r"[,\s]+", match["many"] if match["many"] is not None else match["one"])
            if wanted in asked or "*" in asked:
                return match.group()
    return None
