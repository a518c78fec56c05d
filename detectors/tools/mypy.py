"""mypy: rule 10 of the Power of Ten for Python, by what the type checker says in its strict mode."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.canaries import Canary, laid
from detectors.closures import Context
from detectors.detector import ClosureTool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, NotAnalysed, Region
from detectors.parsing import Unparsable, parse
from detectors.tools import mypy_build
from detectors.tools.suppressions import column_of, lines_of, suppressed

ENCODINGS = re.compile(r"(?:utf-8(?:-sig)?|ascii|iso-8859-\d+|cp\d+|koi8-[ru])\Z")
"""Those in which a comment is the same bytes as in ASCII: in others a comment could hide from `prepare`."""
IGNORE = re.compile(rb"(#[ \t\f]*type[ \t\f]*):(?=[ \t\f]*ignore)")
INLINE = re.compile(rb"(#[ \t\f]*mypy[ \t\f]*):")
UNCHECKED = re.compile(
    rb"^([ \t\f]*)@(?=[ \t]*(?:[\w.]+[ \t]*\.[ \t]*)?no_type_check[ \t]*(?:#[^\r\n]*)?\r?$)", re.MULTILINE
)
IGNORED = re.compile(r"#\s*type\s*:\s*ignore\s*(?:\[(?P<codes>[^\]]*)\])?.*")
CONFIGURED = re.compile(r"#\s*mypy\s*:(?P<options>.*)")
OPTION = re.compile(r"(?P<name>[\w-]+)\s*(?:=\s*(?P<value>\"[^\"]*\"|[^,]*))?")
RELAXED = {
    "untyped-defs": {"no-untyped-def"},
    "incomplete-defs": {"no-untyped-def"},
    "untyped-calls": {"no-untyped-call"},
    "any-generics": {"type-arg"},
    "strict-equality": {"comparison-overlap"},
    "warn-redundant-casts": {"redundant-cast"},
    "implicit-reexport": {"attr-defined"},
}
"""Inline options that relax the strict mode, without their `allow`, `disallow` or `no`: what each one mutes."""
HEAD = re.compile(r"\s*(?:async\s+def|def|class|@)\b|\s*@")
UNKNOWN_BASE = re.compile(r"Class cannot subclass .* \(has type \"Any\"\)")


class Mypy(ClosureTool):
    """
    What `mypy --strict` says of a file and the modules of the tree that it imports, for Python 3.11 on Linux (rule 10).

    What is imported from outside of the tree and the standard library is unknown (`Any`). So three parts of the strict
    mode are left out that would speak of a missing package and not of the code: bases, decorators and results of type
    `Any`. A file with a syntax error is *not analysed*; whoever imports it sees a module of unknown content. Comments
    and decorators that mute mypy (`# type: ignore`, `# mypy: …`, `@no_type_check`) are broken in what it is shown; a
    finding that one would have muted is marked as suppressed. Not seen: `no_type_check` under another name.
    """

    name = "mypy"
    distribution = "mypy"
    languages = frozenset({"python"})
    closure = "imports"
    complexity_score = 3.0
    files_per_batch = 200
    files_per_run = 10_000
    start_s = 2.0
    marks = re.compile(rb"type[ \t\f]*:[ \t\f]*ignore|mypy[ \t\f]*:|no_type_check")

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper's modules, mypy's code and its types of the standard library."""
        program = Path(mypy_build.__file__)
        assert program.is_absolute(), "it is run from another folder"
        return sorted({*super().code_files(), program})

    def prepare(self, data: bytes) -> bytes:
        """Return the bytes without what mutes mypy, of the same length; a stand-in for what Python cannot parse."""
        if _refused(data) is not None:
            return mypy_build.ANYTHING.encode()
        if self.hears == "markers":
            return data
        shown = UNCHECKED.sub(rb"\1#", INLINE.sub(rb"\1;", IGNORE.sub(rb"\1;", data)))
        assert len(shown) == len(data), "what is found must stand where it stands in the file"
        return shown

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a value of another type than its name's."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a name"
        return laid(language, token, "mypy/assignment", f'value_{token[:8]}: int = ""')

    def command_in(self, context: Context, files: Sequence[str]) -> list[str]:
        """Return the command for files below the folders of the context."""
        assert files, "with nothing to read it would say that all is well"
        assert len(set(files)) == len(files), "a file named twice would hide itself"
        assert not any(folder.startswith("/") for folder in context.search), "modules are those of the shadow tree"
        # Not -I: it would ignore the fixed seed of hashes, on which the order of mypy's work must not hang.
        python = (sys.executable, "-P", "-s", mypy_build.__file__)
        return [*python, str(len(context.search)), *context.search, *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read mypy's diagnostics, and the lists of the files that were checked and that could not be read."""
        assert sources, "somebody asked"
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode("utf-8", "replace")[-2000:])
        checked: set[str] = set()
        blocked: dict[str, str] = {}
        found: dict[str, list[dict[str, Any]]] = {}
        for line in completed.stdout.splitlines():
            entry = msgspec.json.decode(line)
            if "checked" in entry:
                checked |= set(entry["checked"])
            elif "blocked" in entry:
                blocked[entry["file"]] = entry["blocked"]
            elif entry["severity"] == "error":
                found.setdefault(entry["file"], []).append(entry)
        if (found.keys() | blocked.keys() | checked) - sources.keys():
            raise ToolOutputInvalid(self.name, "it names files that it was not asked about")
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name, data in sources.items():
            refused = _refused(data)
            if refused is not None or name in blocked:
                answers[name] = NotAnalysed("", "", "parse-error", (refused or blocked[name])[:200])
            elif name in checked:
                answers[name] = _report(data, found.get(name, []))
        return answers


def _refused(data: bytes) -> str | None:
    """Return why Python would not compile a file; `None` where it would."""
    if not data:
        return None
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
        if not ENCODINGS.match(encoding):
            return f"its encoding {encoding} is not read"
        data.decode(encoding)
        tree = parse(data, "python").tree  # type: ignore[attr-defined]  # of Python's class
    except Unparsable as problem:
        return problem.detail
    except (SyntaxError, UnicodeError, LookupError) as problem:
        return str(problem)
    assert isinstance(tree, ast.Module), "a file of Python is a module"
    return None


def _report(data: bytes, entries: Sequence[Mapping[str, Any]]) -> FileReport:
    if not entries:
        return FileReport()
    unknown = {entry["line"] for entry in entries if UNKNOWN_BASE.match(entry["message"])}
    lines = lines_of(data)
    mutes = _Mutes(data, lines)
    # Of a class whose base is of a missing package, neither that base nor its keywords say anything.
    founded = (
        entry
        for entry in entries
        if entry["line"] not in unknown
        or not (UNKNOWN_BASE.match(entry["message"]) or '"__init_subclass__" of "object"' in entry["message"])
    )
    found = dict.fromkeys(_finding(entry, lines) for entry in founded)
    assert len(found) <= len(entries), "a finding is of an entry"
    return FileReport(tuple(suppressed(finding, lines, mutes.marker) for finding in found))


def _finding(entry: Mapping[str, Any], lines: Sequence[str]) -> Finding:
    if not entry["message"]:
        raise ValueError("a diagnostic that says nothing")
    assert lines, "an empty file has one line"
    line = min(max(entry["line"], 1), len(lines))
    end = min(max(entry["end_line"] or line, line), len(lines))
    assert line <= end, "what ends before it begins ends where it begins"
    message = entry["message"] + (f" ({entry['hint']})" if entry["hint"] else "")
    region = Region(
        line, column_of(lines[line - 1], entry["column"]), end, column_of(lines[end - 1], entry["end_column"])
    )
    return Finding(f"mypy/{entry['code'] or 'error'}", "warning", message, region)


class _Mutes:
    """What asks mypy for silence in one file."""

    def __init__(self, data: bytes, lines: Sequence[str]) -> None:
        assert lines, "an empty file has one line"
        self._ignored = {
            number: match
            for number, line in enumerate(lines, 1)
            if "ignore" in line and (match := IGNORED.search(line))
        }
        self._of_file = list(_of_file(lines))
        self._unchecked: list[range] = []
        """The lines of functions and classes that `no_type_check` decorates."""
        tree = parse(data, "python").tree if UNCHECKED.search(data) else None  # type: ignore[attr-defined]  # of Python's
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names = (ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list)
                if "no_type_check" in names:
                    self._unchecked.append(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        assert all(self._unchecked), "a definition has a line at least"

    def marker(self, lines: Sequence[str], finding: Finding) -> str | None:
        """Return what would have muted a finding; see `suppressions.Marker`."""
        assert finding.rule.startswith("mypy/"), "others have other markers"
        assert 1 <= finding.region.start_line <= len(lines), "its line is one of the file"
        code = finding.rule.partition("/")[2]
        first = finding.region.start_line
        # Of a function or class only the first line counts, of an expression each of its lines.
        last = first if HEAD.match(lines[first - 1]) else finding.region.end_line
        assert first <= last, "an expression ends where it begins or later"
        for number in range(first, last + 1):
            match = self._ignored.get(number)
            if match and (match["codes"] is None or code in re.split(r"[\s,]+", match["codes"])):
                return match.group()
        for text, muted in self._of_file:
            if muted is None or code in muted:
                return text
        inside = (span for span in self._unchecked if first in span)
        return "@no_type_check" if next(inside, None) else None


def _of_file(lines: Sequence[str]) -> Iterator[tuple[str, set[str] | None]]:
    """Yield the comments that mute the whole file, each with the codes that it mutes; `None` for all."""
    leading = True
    for line in lines:
        leading = leading and (not line.strip() or line.lstrip("\ufeff \t\f").startswith("#"))
        if leading and (whole := IGNORED.search(line)) and whole["codes"] is None:
            yield whole.group(), None
        if "mypy" in line and (configured := CONFIGURED.search(line)):
            yield configured.group(), _muted_by(configured["options"])


def _muted_by(options: str) -> set[str] | None:
    """Return the codes that inline options mute; `None` for all."""
    if not options.strip():
        return set()
    muted: set[str] = set()
    for option in OPTION.finditer(options):
        name = option["name"].replace("_", "-").lower()
        value = (option["value"] or "").strip(" \"'")
        if name == "ignore-errors" and value.lower() not in {"false", "0", "no", "off"}:
            return None
        if name == "disable-error-code":
            muted |= set(re.split(r"[\s,]+", value))
        muted |= RELAXED.get(re.sub(r"\A(?:allow|disallow|no)-", "", name), set())
    return muted
