"""Rule 4 in Python: functions that fit on a page."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from detectors.detector import Facts, FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile

__all__ = ["PythonFunctionLength", "PythonFunctions"]

_BODY = "    n += 1\n"


class PythonFunctions(Facts):
    """The functions of a file and their lines, decorators included."""

    id = "python-functions"
    detector = DETECTOR
    languages = PYTHON

    def collect(self, parsed: ParsedFile) -> object:
        """Return `FunctionSpan`s as plain lists."""
        found = []
        for scope in as_python(parsed).functions:
            first = min([scope.node.lineno, *(decorator.lineno for decorator in scope.node.decorator_list)])
            last = scope.node.end_lineno or scope.node.lineno
            assert first >= 1, "lines count from 1"
            assert first <= last, "a decorator stands above its function"
            found.append((scope.name, first, last))
        return found


class PythonFunctionLength(FileRule):
    """
    A function of more than 60 lines, its docstring not counted.

    Why: what does not fit on a page cannot be understood and verified as a unit.
    Instead: split it where a comment would announce the next step.
    Not found: a module's own top level, however long.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 4. Physical lines from `def` to the last line
    of the body, both counted; decorators are not part of them.
    """

    id = "P10-R4-python-function-length"
    detector = DETECTOR
    tunable = True
    languages = PYTHON
    examples = (
        "@decorated\ndef page(n):\n    '''\n    Doc\n    '''\n" + _BODY * 59,
        "def long_one(n):  # expect: P10-R4-python-function-length\n    'Doc'\n" + _BODY * 60,
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each function that is too long, at its name."""
        unit, limit = as_python(parsed), self.settings.function_lines
        for function in unit.functions:
            node = function.node
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines >= 1, "a function ends where it begins or later"
            if lines <= limit:
                continue
            lines -= _docstring_lines(unit, node)
            assert lines >= 1, "the line of `def` is no docstring"
            if lines > limit:
                yield self.finding(unit.name_of(function), f"{function.name} has {lines} lines, over {limit}; split it")


def _docstring_lines(unit: PythonFile, node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines hold the docstring and nothing else."""
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return 0
    start, end = unit.span(first)
    lines = (first.end_lineno or first.lineno) - first.lineno + 1
    before = unit.source[:start].rpartition(b"\n")[2].strip()
    after = unit.source[end:].partition(b"\n")[0].strip()
    shared = {first.lineno} if before else set()
    if after.startswith(b";"):
        shared.add(first.end_lineno or first.lineno)
    assert len(shared) <= lines, "what shares a line with code is one of them"
    return lines - len(shared)
