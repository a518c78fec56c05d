"""clang-tidy: a chosen set of its checks for C and C++."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from detectors.canaries import Canary, laid
from detectors.closures import Context
from detectors.detector import ClosureTool
from detectors.errors import ToolCrashed
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.tools.suppressions import lines_of, suppressed
from detectors.tools.translation_units import language_of, place_of, search_flags, told, unmuted

CHECKS = (
    "-*", "bugprone-*", "-bugprone-easily-swappable-parameters", "-bugprone-narrowing-conversions", "cert-*",
    "clang-analyzer-*", "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling", "concurrency-*",
    "misc-misplaced-const", "misc-no-recursion", "misc-redundant-expression", "misc-unused-alias-decls",
    "portability-*", "readability-misleading-indentation", "readability-suspicious-call-argument",
)  # fmt: skip
"""Defects, not style. Narrowing and unused parameters are the compiler's to tell; the swappable ones are guesses."""
DIAGNOSTIC = re.compile(
    r"^(?P<file>[^\n]+?):(?P<line>\d+):(?P<column>\d+): (?P<kind>warning|error): "
    r"(?P<message>.*) \[(?P<check>[\w.,-]+)\]$",
    re.MULTILINE,
)
FATAL = re.compile(r"^(?:Error|error|fatal error): .*$", re.MULTILINE)
NOLINT = re.compile(rb"NOLINT")
MARKER = re.compile(r"(?P<what>NOLINT(?P<kind>NEXTLINE|BEGIN|END)?)\b(?:\s*\((?P<checks>[^)]*)\))?[^\n]*")


class ClangTidy(ClosureTool):
    """
    clang-tidy, with a fixed set of checks and nothing of the tree's configuration or compile database.

    Translation units and headers are looked at one by one. A file with an error, or whose headers cannot be found, is
    *not analysed*. clang-tidy has no switch against its own mute marker, `NOLINT`, so what it is shown has it broken,
    byte for byte of the same length, and pragmas that mute the compiler blanked; findings that would have been mute
    are marked as suppressed.
    """

    name = "clang-tidy"
    distribution = "clang-tidy"
    languages = frozenset({"c", "cpp"})
    closure = "includes"
    complexity_score = 20.0
    files_per_batch = 10
    start_s = 0.3
    marks = re.compile(rb"NOLINT|pragma|#[ \t]*line", re.IGNORECASE)

    def prepare(self, data: bytes) -> bytes:
        """Return the bytes with all that mutes clang-tidy broken."""
        if self.hears == "markers":
            return data
        shown = NOLINT.sub(b"NO_INT", unmuted(data))
        assert len(shown) == len(data), "what is found must stand where it stands in the file"
        assert b"NOLINT" not in shown, "nothing asks for silence"
        return shown

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper's modules and the tool's files."""
        return sorted({*super().code_files(), Path(__file__).with_name("translation_units.py")})

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a comparison of a thing with itself."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        violation = f"int f{token[:8]}(int a) {{ return a == a; }}"
        return laid(language, token, "clang-tidy/misc-redundant-expression", violation)

    def command_in(self, context: Context, files: Sequence[str]) -> list[str]:
        """Return the command for one file; after `--` stands all that the compiler is told."""
        assert len(files) == self.files_per_run, "each file has a context of its own"
        (file,) = files
        assert not file.startswith("/"), "what is outside of the shadow tree is not to be read"
        assert context.language in {None, *self.languages}, "a context speaks of C or C++"
        binary = Path(sys.executable).with_name("clang-tidy")
        language = "c" if language_of(file, context) == "c" else "c++"
        fixed = ("--quiet", "--config={}", f"--checks={','.join(CHECKS)}", "--header-filter=^$")
        return [str(binary), *fixed, f"./{file}", "--", "-x", language, *context.flags, *search_flags(context)]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the diagnostics on standard output."""
        assert len(sources) == self.files_per_run, "each file has a run of its own"
        ((name, data),) = sources.items()
        text = completed.stdout.decode("utf-8", "replace")
        said = list(DIAGNOSTIC.finditer(text))
        wrong = next((match for match in said if match["kind"] == "error"), None)
        if wrong is not None:
            return {name: _broken(wrong)}
        failed = FATAL.search(text) or FATAL.search(completed.stderr.decode("utf-8", "replace"))
        if failed is not None and failed.group().endswith("[clang-diagnostic-error]"):
            return {name: NotAnalysed("", "", "parse-error", failed.group()[:200])}
        if completed.exit_code != 0 or failed is not None:
            told = failed.group() if failed else completed.stderr.decode("utf-8", "replace")
            raise ToolCrashed(self.name, completed.exit_code, told)
        lines = lines_of(data)
        found = dict.fromkeys(_finding(match, len(lines)) for match in said if place_of(match["file"]) == name)
        return {name: FileReport(tuple(suppressed(finding, lines, _marker) for finding in found))}


def _broken(match: re.Match[str]) -> NotAnalysed:
    assert match["kind"] == "error", "a warning breaks nothing off"
    detail = told(match["file"], match["line"], match["message"])
    if match["message"].endswith("file not found"):
        return NotAnalysed("", "", "header-missing", detail)
    return NotAnalysed("", "", "parse-error", detail)


def _finding(match: re.Match[str], last_line: int) -> Finding:
    assert match["kind"] == "warning", "an error makes the file not analysed"
    assert last_line >= 1, "an empty file has one line"
    # Two names of one check stand side by side; the first is the check's own.
    check = match["check"].partition(",")[0]
    level: Level = "warning"
    region = Region(min(max(int(match["line"]), 1), last_line), max(int(match["column"]), 1))
    return Finding(f"clang-tidy/{check}", level, match["message"], region)


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    """Return the `NOLINT` that would have muted a finding."""
    assert finding.rule.startswith("clang-tidy/"), "others have other markers"
    assert finding.region.start_line <= len(lines), "its line is one of the file"
    check = finding.rule.partition("/")[2]
    opened: str | None = None
    for number, line in enumerate(lines[: finding.region.start_line], 1):
        match = MARKER.search(line) if "NOLINT" in line else None
        if match is None or not _covers(match["checks"], check):
            continue
        if match["kind"] == "BEGIN":
            opened = match.group()
        elif match["kind"] == "END":
            opened = None
        elif number + (match["kind"] == "NEXTLINE") == finding.region.start_line:
            return match.group()
    return opened


def _covers(checks: str | None, check: str) -> bool:
    assert check, "a finding names its check"
    if checks is None:
        return True
    patterns = (re.escape(item.strip()).replace(r"\*", ".*") for item in checks.split(","))
    return any(re.fullmatch(pattern, check) for pattern in patterns)
