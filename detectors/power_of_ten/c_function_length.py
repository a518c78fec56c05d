"""Rule 4 in C: functions that fit on a page."""

from __future__ import annotations

from collections.abc import Iterator

from detectors.detector import Facts, FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c

__all__ = ["CFunctionLength", "CFunctions"]

_LONG = "int long_one(int n)  // expect: P10-R4-function-length\n{\n" + "    n++;\n" * 58 + "}\n"
_PAGE = "int page(int n)\n{\n" + "    n++;\n" * 57 + "}\n"


class CFunctions(Facts):
    """The functions of a file and their lines."""

    id = "c-functions"
    detector = DETECTOR
    languages = C_LANGUAGES

    def collect(self, parsed: ParsedFile) -> object:
        """Return `FunctionSpan`s as plain lists."""
        unit = as_c(parsed)
        return [(each.name, unit.line_of(each.start), unit.line_of(each.end)) for each in unit.functions]


class CFunctionLength(FileRule):
    """
    A function of more than 60 lines.

    Why: what does not fit on a page cannot be understood and verified as a unit.
    Instead: split it where a comment would announce the next step.
    Not found: functions whose braces a macro writes.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 4. Physical lines from the definition's first
    to its closing brace, both counted.
    """

    id = "P10-R4-function-length"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (_PAGE, _LONG, _PAGE.replace("int page(int n)", "int page(n) int n;"))

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each function that is too long, at its name."""
        unit, limit = as_c(parsed), self.settings.function_lines
        for function in unit.functions:
            lines = unit.line_of(function.end) - unit.line_of(function.start) + 1
            if lines > limit:
                message = f"{function.name} has {lines} lines, over {limit}; split it"
                yield self.finding(unit.region(function.name_start, function.name_end), message)
