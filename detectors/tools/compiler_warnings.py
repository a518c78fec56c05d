"""compiler-warnings: rule 10 of the Power of Ten for C and C++, by what gcc or clang says with all warnings on."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from detectors.canaries import Canary, laid
from detectors.closures import Context
from detectors.detector import MISSING, ClosureTool
from detectors.errors import ToolCrashed
from detectors.model import Completed, FileReport, Finding, Language, NotAnalysed, Region
from detectors.tools import system_programs
from detectors.tools.suppressions import lines_of, suppressed
from detectors.tools.translation_units import language_of, place_of, search_flags, told, unmuted

COMPILERS = {"c": ("gcc", "clang"), "cpp": ("g++", "clang++")}
"""In the order of choice."""
COMMON = (
    "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wcast-qual", "-Wcast-align",
    "-Wformat=2", "-Wundef", "-Wvla", "-Wwrite-strings", "-Wswitch-enum", "-Wswitch-default", "-Wdouble-promotion",
    "-Wfloat-equal", "-Wnull-dereference", "-Wimplicit-fallthrough", "-Wmissing-declarations",
)  # fmt: skip
OF_LANGUAGE = {
    "c": ("-Wstrict-prototypes", "-Wold-style-definition", "-Wmissing-prototypes"),
    "cpp": ("-Wnon-virtual-dtor", "-Woverloaded-virtual", "-Wold-style-cast"),
}
OF_GCC = ("-Wlogical-op", "-Wduplicated-cond", "-Wduplicated-branches", "-fdiagnostics-plain-output")
OF_CLANG = ("-fno-caret-diagnostics", "-fno-color-diagnostics")
DIAGNOSTIC = re.compile(
    r"^(?P<file>[^\n]+?):(?P<line>\d+):(?:(?P<column>\d+):)? (?P<kind>warning|error|fatal error): (?P<message>.*)$",
    re.MULTILINE,
)
OPTION = re.compile(r"(?P<message>.*?)(?: \[(?:-Werror,)?-W(?P<option>[^\]\s=]+)(?:=[^\]\s]*)?\])?\Z", re.DOTALL)
HEADER_MISSING = re.compile(r"No such file or directory\Z|file not found\Z")
MUTE = re.compile(
    r"\s*(?:\#|%:)\s*pragma\s+(?:GCC|clang)\s+"
    r"(?:(?P<all>system_header)|diagnostic\s+(?:(?P<stack>push|pop)|ignored\s+\"-W(?P<option>[^\"]+)\"))"
)
WIDE = {"all", "extra", "pedantic", "everything"}


class CompilerWarnings(ClosureTool):
    """
    What the compiler says with all warnings on, at its second level of optimisation (rule 10).

    Translation units and headers are compiled one by one, with the flags of a compile database where the tree has one,
    and with include folders guessed from the tree where not. A file with an error, or whose headers cannot be found, is
    *not analysed*: its warnings would be incomplete. A warning counts in the file where it stands; a header's are those
    that it has by itself. Pragmas that mute the compiler and directives that move its lines are blanked in what it is
    shown; a finding that such a pragma would have muted is marked as suppressed.
    """

    name = "compiler-warnings"
    languages = frozenset({"c", "cpp"})
    speaks_for = "P10-R10"
    closure = "includes"
    complexity_score = 6.0
    files_per_batch = 50
    start_s = 0.05
    marks = re.compile(rb"pragma|#[ \t]*line", re.IGNORECASE)

    @functools.cached_property
    def version(self) -> str:  # type: ignore[override]  # a value on other detectors, looked up once here
        """Return the compiler's first line about itself."""
        said = system_programs.version(_compiler("c"))
        assert "\n" not in said, "it stands on one line of a report"
        return said

    def missing(self) -> str | None:
        """Return how to get a compiler, or `None`."""
        if self.version == MISSING or _compiler("cpp") is None:
            return "install gcc and g++, or clang"
        return None

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper's modules, and the programs that do the compiler's work."""
        own = {*super().code_files(), Path(__file__), Path(__file__).with_name("translation_units.py")}
        if self.version == MISSING:
            return sorted(own)
        compilers = [place for language in COMPILERS if (place := _compiler(language)) is not None]
        assert compilers, "one of them told its version"
        parts = [
            Path(system_programs.said(place, f"-print-prog-name={part}"))
            for place in compilers
            for part in ("cc1", "cc1plus")
            if "clang" not in place.name
        ]
        return sorted({*own, *(place.resolve() for place in (*compilers, *parts) if place.is_file())})

    def prepare(self, data: bytes) -> bytes:
        """Return the bytes without what mutes the compiler or moves its lines."""
        if self.hears == "markers":
            return data
        shown = unmuted(data)
        assert len(shown) == len(data), "what is found must stand where it stands in the file"
        return shown

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a comparison of floating-point numbers."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        violation = f"int f{token[:8]}(double a) {{ return a == 1.0; }}"
        return laid(language, token, "compiler-warnings/float-equal", violation)

    def command_in(self, context: Context, files: Sequence[str]) -> list[str]:
        """Return the command for one file: everything but assembling, and nothing is kept."""
        assert len(files) == self.files_per_run, "each file has a context of its own"
        (file,) = files
        assert not file.startswith("/"), "what is outside of the shadow tree is not to be read"
        assert context.language in {None, *self.languages}, "a context speaks of C or C++"
        language = language_of(file, context)
        compiler = _compiler(language)
        assert compiler is not None, "a program that is missing is not run"
        own = OF_CLANG if "clang" in compiler.name else OF_GCC
        fixed = ("-O2", "-S", "-o", "/dev/null", "-x", "c" if language == "c" else "c++")
        # Included into nothing: a header that is compiled by itself would be told of its `#pragma once`.
        header = file.rpartition(".")[2].startswith("h")
        what = ("-include", f"./{file}", "/dev/null") if header else (f"./{file}",)
        return [
            str(compiler),
            *fixed,
            *COMMON,
            *OF_LANGUAGE[language],
            *own,
            *context.flags,
            *search_flags(context),
            *what,
        ]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the diagnostics; those of other files are theirs to report."""
        assert len(sources) == self.files_per_run, "each file has a run of its own"
        ((name, data),) = sources.items()
        text = completed.stderr.decode("utf-8", "replace")
        said = list(DIAGNOSTIC.finditer(text))
        wrong = next((match for match in said if match["kind"] != "warning"), None)
        if wrong is not None:
            return {name: _broken(wrong)}
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, text)
        lines = lines_of(data)
        found = dict.fromkeys(_finding(match, len(lines)) for match in said if place_of(match["file"]) == name)
        return {name: FileReport(tuple(suppressed(finding, lines, _marker) for finding in found))}


def _compiler(language: str) -> Path | None:
    assert language in COMPILERS, "headers and units are of C or C++"
    return system_programs.program(*COMPILERS[language])


def _broken(match: re.Match[str]) -> NotAnalysed:
    assert match["kind"] != "warning", "a warning breaks nothing off"
    detail = told(match["file"], match["line"], match["message"])
    if HEADER_MISSING.search(match["message"]):
        return NotAnalysed("", "", "header-missing", detail)
    return NotAnalysed("", "", "parse-error", detail)


def _finding(match: re.Match[str], last_line: int) -> Finding:
    assert match["kind"] == "warning", "an error makes the file not analysed"
    assert last_line >= 1, "an empty file has one line"
    parts = OPTION.match(match["message"])
    assert parts is not None, "the pattern fits any text"
    line = min(max(int(match["line"]), 1), last_line)
    region = Region(line, max(int(match["column"] or 1), 1))
    return Finding(f"compiler-warnings/{parts['option'] or 'warning'}", "warning", parts["message"], region)


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    """Return the pragma that would have muted a finding: the last one in force on its line."""
    assert finding.rule.startswith("compiler-warnings/"), "others have other markers"
    assert finding.region.start_line <= len(lines), "its line is one of the file"
    option = finding.rule.partition("/")[2]
    muted: str | None = None
    stack: list[str | None] = []
    for line in lines[: finding.region.start_line]:
        match = MUTE.match(line) if "pragma" in line else None
        if match is None:
            continue
        if match["stack"] == "push":
            stack.append(muted)
        elif match["stack"] == "pop":
            muted = stack.pop() if stack else None
        elif match["all"] or match["option"].partition("=")[0] in {option, *WIDE}:
            muted = line
    assert muted is None or "pragma" in muted, "only pragmas mute a compiler"
    return muted
