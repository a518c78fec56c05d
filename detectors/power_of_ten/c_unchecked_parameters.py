"""Rule 7 in C, the callee's half: parameters are checked before they are followed."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from detectors.c_parsing import CFile, Function, statement_start
from detectors.detector import Facts, TreeRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_assertions import asserts
from detectors.power_of_ten.c_expressions import split
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, HEADERS, Place, as_c, place_of

__all__ = ["CParameters", "CUncheckedParameter"]

WORD = re.compile(rb"[A-Za-z_]\w*+")
INTEGER = re.compile(
    rb"\b(?:int|long|short|signed|unsigned|char|ptrdiff_t|s?size_t|u?int(?:\d+|_fast\d+|_least\d+|max|ptr)_t)\b"
)
CHECK_BEFORE = re.compile(
    rb"(?:!|==|!=|&&|\|\||(?<![-<>])[<>]=?|\b(?:if|while|switch)\s*+\(|[?])\s*+(?:\(\s*+)*+(?:\([\w\s*]++\)\s*+)?\Z"
)
CHECK_AFTER = re.compile(rb"\s*+\)*+\s*+(?:==|!=|&&|\|\||\?|(?<!-)[<>](?![<>])=?)")
BOUNDED_AFTER = re.compile(rb"\s*+(?:%|&(?!&))")
FOLLOWED = re.compile(rb"\s*+(?:->|\[)")
STAR = re.compile(rb"\*\s*+(?:\(\s*+)?\Z")
CALLER = re.compile(rb"([A-Za-z_]\w*+)\s*+\(((?:[^()]|\([^()]*+\))*+)\Z")
MEASURED = re.compile(rb"\b(?:sizeof|typeof|_Alignof|alignof)\b[^;]{0,40}\Z")
SIZE = re.compile(
    rb"(?!return\b|else\b|case\b)(?:[A-Za-z_]\w*+[\s*]++)++[A-Za-z_]\w*+\s*+(?:\[[^\[\]]*+\]\s*+)*+|.*\bnew\s++[\w:]++\s*+",
    re.S,
)
"""What stands before the length of an array that is declared or made."""
MAX_STATEMENT = 400
"""Bytes before a use that are read for the statement it stands in."""
MAX_HELPERS = 8


class _Parameter(NamedTuple):
    name: bytes
    place: int
    """From 0, among the parameters that have a name."""
    pointer: bool


class _Use(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The first use of a parameter that needs a check, where the function itself has none before."""

    function: str
    parameter: str
    pointer: bool
    place: Place
    helpers: tuple[tuple[str, int], ...]
    """(function, parameter) to which it is handed before."""


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    unchecked: tuple[_Use, ...]
    checks: dict[str, tuple[int, ...]]
    """Functions that check parameters before use, with those; `!` before a static one's name."""


class CParameters(Facts):
    """Which parameters a function checks, and which it follows without."""

    id = "c-parameters"
    detector = DETECTOR
    languages = C_LANGUAGES
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_c(parsed)
        parameters = _parameters(unit)
        unchecked: list[_Use] = []
        checks: dict[str, tuple[int, ...]] = {}
        for function in unit.functions:
            listed = parameters.get(function.body)
            if not listed:
                continue
            checked: list[int] = []
            for parameter, verdict in _judged(unit, function, listed, self.settings.assertions):
                if verdict is None:
                    checked.append(parameter.place)
                    continue
                start, helpers = verdict
                name = parameter.name.decode("utf-8", "replace")
                place = place_of(unit, start, start + len(parameter.name))
                unchecked.append(_Use(function.name, name, parameter.pointer, place, helpers))
            assert len(checked) <= len(listed), "each parameter is judged once"
            if checked and function.name:
                checks[("!" if function.static else "") + function.name] = tuple(checked)
        return _FileFacts(tuple(unchecked), checks)


class CUncheckedParameter(TreeRule):
    """
    A pointer parameter that is followed, or an index parameter that is used, before any check of it.

    Why: the caller's mistake becomes an access to memory that nobody owns, far from its cause.
    Instead: test or assert the parameter first; where a helper checks it, hand it to that first.
    A check is: a condition or comparison that names the parameter, an assertion, or its being handed to a function of
    the tree that checks that parameter itself. Reported once for each parameter, at its first use of that kind.
    Not found: uses through another name; checks of one path of several count for all that follows.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7.
    """

    id = "P10-R7-unchecked-parameter"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-parameters",)
    examples = (
        """
#include <assert.h>
int a(struct s *p) { if (p == 0) { return -1; } return p->x; }
int b(struct s *p) { assert(p); return p->x; }
int c(struct s *p) { return p ? p->x : 0; }
int d(struct s *p) { return p && p->x; }
int e(struct s *p) { return a(p) + p->x; }
int f(int *t, unsigned i) { if (!t || i >= 9) { return 0; } return t[i]; }
int g(struct s *p) { return sizeof(*p); }
int h(struct s *p) { return keep(p); }
static int table[8];
int k(unsigned i) { return table[i % 8] + table[i & 7]; }
""",
        """
// file: a.c
int check(struct s *p) { return p != 0; }
int blind(struct s *p) { return keep(p); }
static int table[8];
int a(struct s *p) { return p->x; }             // expect: P10-R7-unchecked-parameter
int b(int *p) { *p = 3; return p == 0; }        // expect: P10-R7-unchecked-parameter
int c(const char *p) { return p[0]; }           // expect: P10-R7-unchecked-parameter
int d(int i) { return table[i + 1]; }           // expect: P10-R7-unchecked-parameter
int e(struct s *p) { blind(p); return p->x; }   // expect: P10-R7-unchecked-parameter
int f(struct s *p) { check(p); return p->x; }
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each use that neither the function nor a helper checked before."""
        files = {path: msgspec.convert(value, _FileFacts) for path, value in facts["c-parameters"].items()}
        shared: dict[str, set[int]] = {}
        for path, file in files.items():
            for name, places in file.checks.items():
                if not name.startswith("!") or path.endswith(HEADERS):
                    shared.setdefault(name.lstrip("!"), set()).update(places)
        for path, file in files.items():
            for use in file.unchecked:
                assert len(use.helpers) <= MAX_HELPERS, "no more are kept"
                if any(
                    place in file.checks.get("!" + helper, ()) or place in shared.get(helper, ())
                    for helper, place in use.helpers
                ):
                    continue
                what = "followed" if use.pointer else "used as an index"
                yield path, self.finding(use.place.region, f"{use.parameter} is {what} before any check of it")


def _parameters(unit: CFile) -> dict[int, list[_Parameter]]:
    """Return the named parameters of each function, by the offset of its body."""
    functions = unit.functions
    if not functions:
        return {}
    ends = [function.name_end for function in functions]
    code = unit.layout.code
    found: dict[int, list[_Parameter]] = {}
    for node in unit.nodes("parameter"):
        start, end = node.byte_range
        place = bisect.bisect_right(ends, start) - 1
        if place < 0 or start >= functions[place].body:
            continue
        listed = found.setdefault(functions[place].body, [])
        text = code[start:end]
        words = WORD.findall(text)
        if b"(" in text or not words:
            listed.append(_Parameter(b"", len(listed), False))
            continue
        kind = node.type
        pointer = kind in ("pointer_declarator", "array_declarator")
        name = words[0] if kind == "array_declarator" else words[-1]
        if not pointer:
            before = code[max(start - 80, 0) : start].rsplit(b",", 1)[-1].rsplit(b"(", 1)[-1]
            if kind != "identifier" or INTEGER.search(before) is None:
                name = b""
        listed.append(_Parameter(name, len(listed), pointer))
    assert len(found) <= len(functions), "parameters belong to functions"
    return found


def _judged(
    unit: CFile, function: Function, listed: list[_Parameter], assertions: tuple[str, ...]
) -> Iterator[tuple[_Parameter, tuple[int, tuple[tuple[str, int], ...]] | None]]:
    """Yield parameters with `None` if they are checked first, or with their first use and the helpers before it."""
    named = {parameter.name: parameter for parameter in listed if parameter.name}
    judged = []
    for parameter in named.values():
        found = _verdict(unit, function, parameter, assertions)
        if found is not None:
            judged.append((found[0], parameter, found[1]))
    judged.sort(key=lambda item: item[0])
    for start, parameter, helpers in judged:
        assert function.body <= start < function.end, "it is judged by what stands in the body"
        yield parameter, None if helpers is None else (start, helpers)


def _verdict(
    unit: CFile, function: Function, parameter: _Parameter, assertions: tuple[str, ...]
) -> tuple[int, tuple[tuple[str, int], ...] | None] | None:
    """Return where a parameter is first checked or used, and the helpers before that use; `None` in it for a check."""
    assert parameter.name, "what has no name is not used"
    assert function.body < function.end, "a body has braces"
    code = unit.layout.code
    helpers: list[tuple[str, int]] = []
    for start in unit.places(parameter.name, function.body, function.end):
        end = start + len(parameter.name)
        statement = code[statement_start(code, max(start - MAX_STATEMENT, function.body), start) : start]
        if statement.endswith((b".", b"->")) or (b"of" in statement and MEASURED.search(statement)):
            continue
        kind = _kind(parameter, statement, code[end : end + 40])
        if kind:
            return start, tuple(helpers) if kind == "use" else None
        caller = CALLER.search(statement)
        if caller is None:
            continue
        if asserts(caller[1].decode(), assertions):
            return start, None
        if len(helpers) < MAX_HELPERS and code[end : end + 8].lstrip()[:1] in (b",", b")"):
            helpers.append((caller[1].decode(), len(split(caller[2], b",")) - 1))
    return None


def _kind(parameter: _Parameter, statement: bytes, after: bytes) -> str:
    """Tell whether an occurrence is a `use`, a `check`, or neither."""
    if parameter.pointer:
        if FOLLOWED.match(after) or STAR.search(statement):
            return "use"
        checked = CHECK_BEFORE.search(statement) or CHECK_AFTER.match(after)
        return "check" if checked else ""
    if CHECK_BEFORE.search(statement) or CHECK_AFTER.match(after):
        return "check"
    if statement.count(b"[") > statement.count(b"]") and not SIZE.fullmatch(statement[: statement.rfind(b"[")].strip()):
        return "" if BOUNDED_AFTER.match(after) else "use"
    return ""
