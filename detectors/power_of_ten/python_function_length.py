"""Rule 4 in Python: functions that fit on a page."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python

__all__ = ["PythonFunctionLength"]

LIMIT = 60
_BODY = "    n += 1\n"


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
    languages = PYTHON
    examples = (
        "@decorated\ndef page(n):\n    '''\n    Doc\n    '''\n" + _BODY * 59,
        "def long_one(n):  # expect: P10-R4-python-function-length\n    'Doc'\n" + _BODY * 60,
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each function that is too long, at its name."""
        unit = as_python(parsed)
        for definition in unit.definitions:
            node = definition.node
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - _docstring_lines(node)
            if lines > LIMIT:
                message = f"{definition.name} has {lines} lines, over {LIMIT}; split it"
                yield self.finding(unit.name_of(node), message)


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return (first.end_lineno or first.lineno) - first.lineno + 1
    return 0
