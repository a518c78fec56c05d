"""Rule 4 in C: functions that fit on a page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detectors.c_parsing import CFile
from detectors.detector import Facts, FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c

__all__ = ["CFunctionLength", "CFunctions"]

HEAD = re.compile(rb"(?:\A|[;}]\s*+|\n[ \t]*+\n)([A-Z_][A-Z0-9_]*+)\s*+\((?=[^;{}]*+\Z)")
"""A macro's use between the end of something and a brace."""
MARK = re.compile(rb"[{};]")
DEFINITION = re.compile(rb"\s*+(?!(?:if|for|while|switch|do|else)\b)[A-Za-z_][\w\s*#]*+\([^{};]*\)\s*+\{")
MAX_HEAD = 1_000
"""Bytes of such a head."""
_LONG = "int long_one(int n)  // expect: P10-R4-function-length\n{\n" + "    n++;\n" * 58 + "}\n"
_HIDDEN = "EXPORT(int f(int n,  // expect: P10-R4-function-length\n    int m)) {\n" + "    n++;\n" * 59 + "}\n"
_MACRO = (
    "#define SHORT(name) \\\n  int name(void) \\\n  { \\\n    return 1; \\\n  }\n"
    "#define LONG(name) \\\n  int other_##name(void); \\\n"
    "  int name(int n)  /* expect: P10-R4-function-length */ \\\n  { \\\n" + "    n++; \\\n" * 59 + "  }\n"
)
_PAGE = "int page(int n)\n{\n" + "    n++;\n" * 57 + "}\n"


class CFunctions(Facts):
    """The functions of a file and their lines."""

    id = "c-functions"
    detector = DETECTOR
    languages = C_LANGUAGES

    def collect(self, parsed: ParsedFile) -> object:
        """Return `FunctionSpan`s as plain lists."""
        unit = as_c(parsed)
        assert all(each.start < each.body < each.end for each in unit.functions), "a head, then a body"
        return [(each.name, unit.line_of(each.start), unit.line_of(each.end)) for each in unit.functions]


class CFunctionLength(FileRule):
    """
    A function of more than 60 lines.

    Why: what does not fit on a page cannot be understood and verified as a unit.
    Instead: split it where a comment would announce the next step.
    A body below a head that a macro writes, such as `EXPORT(int f(int n)) {`, is a function too; so is one in a macro.
    Not found: functions of which a macro writes one brace.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 4. Physical lines from the definition's first
    to its closing brace, both counted.
    """

    id = "P10-R4-function-length"
    detector = DETECTOR
    tunable = True
    languages = C_LANGUAGES
    examples = (_PAGE, _LONG, _PAGE.replace("int page(int n)", "int page(n) int n;"), _HIDDEN, _MACRO)

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each function that is too long, at its name."""
        unit, limit = as_c(parsed), self.settings.function_lines
        assert limit >= 1, "settings refuse others"
        for function in unit.functions:
            lines = unit.line_of(function.end) - unit.line_of(function.start) + 1
            assert lines >= 1, "it ends where it begins, or below"
            if lines > limit:
                message = f"{function.name} has {lines} lines, over {limit}; split it"
                yield self.finding(unit.region(function.name_start, function.name_end), message)
        for start, end in (*_below_hidden_heads(unit), *_in_macros(unit)):
            assert start < end, "a head stands before its body's end"
            whole = unit.region(start, end)
            lines = whole.end_line - whole.start_line + 1
            if lines > limit:
                message = f"this function has {lines} lines, over {limit}; split it"
                yield self.finding(unit.region(start, unit.source.index(b"(", start)), message)


def _in_macros(unit: CFile) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the functions that the bodies of macros define."""
    for macro in unit.layout.macros:
        depth = head = 0
        assert 0 < macro.body <= len(unit.source), "a macro's name stands before its body"
        for mark in MARK.finditer(macro.code):
            if mark[0] == b"{":
                depth += 1
            elif mark[0] == b"}":
                depth -= 1
            assert head < mark.end(), "what follows a head was not yet looked at"
            if depth == 0:
                text = macro.code[head : mark.end()]
                if mark[0] == b"}" and DEFINITION.match(text):
                    yield macro.body + head + len(text) - len(text.lstrip()), macro.body + mark.end()
                head = mark.end()


def _below_hidden_heads(unit: CFile) -> Iterator[tuple[int, int]]:
    """Yield (start of the head, end) of the blocks at file scope whose head is the use of a macro."""
    code, last = unit.layout.code, 0
    for start, end in unit.blocks:
        if start < last:
            continue
        last = end
        assert start < end <= len(code), "a block lies in its file"
        if unit.function_at(start) is None and code[max(start - 80, 0) : start].rstrip().endswith(b")"):
            head = HEAD.search(code, max(start - MAX_HEAD, 0), start)
            assert head is None or head.end() <= start, "a head stands before its block"
            if head is not None and closing(code, head.end() - 1, start) == code.rfind(b")", 0, start):
                yield head.start(1), end
