"""Rule 5 in Python: checks, two a function on average, free of side effects and able to fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile, parts_of

__all__ = ["PythonAssertionConstant", "PythonAssertionDensity", "PythonAssertionSideEffect"]

VALIDATES = frozenset(
    (
        "assert",
        "asserts",
        "check",
        "checks",
        "ensure",
        "expect",
        "must",
        "raises",
        "require",
        "requires",
        "validate",
        "validates",
        "verify",
    )
)
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
CHANGES = frozenset(
    (
        "acquire",
        "add",
        "append",
        "clear",
        "close",
        "commit",
        "discard",
        "extend",
        "insert",
        "next",
        "pop",
        "popitem",
        "popleft",
        "put",
        "read",
        "readline",
        "recv",
        "release",
        "remove",
        "send",
        "setdefault",
        "sort",
        "unlink",
        "update",
        "write",
    )
)
MAX_NODES = 500
"""Nodes of one condition that are looked at."""


class PythonAssertionDensity(FileRule):
    """
    A file with fewer than two checks a function on average.

    Why: checks catch, near their cause, the states that no test had; the more there are, the fewer faults slip by.
    Instead: check what each function takes for granted of its arguments and of its results.
    Counted: `assert`; a `raise` or `return` under a condition on an argument; calls with a word such as check, ensure,
    validate or verify in their name, and the names that the configuration adds. Reported once a file, at the name of
    its first function.
    Not found: checks that a decorator or a type does.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5, read across to Python.
    """

    id = "P10-R5-python-assertion-density"
    detector = DETECTOR
    tunable = True
    languages = PYTHON
    examples = (
        """
def f(n, items):
    assert items
    if n < 3:
        raise ValueError(n)
    return items[n]

def g(n):
    validate(n)
    if not n:
        return None
    return 1 / n
""",
        """
def f(n):  # expect: P10-R5-python-assertion-density
    assert n
    return 1 / n
""",
        "LIMIT = 3\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield the file's first function if the mean is too low."""
        if not (unit := as_python(parsed)).functions:
            return
        found = _checks(unit, self.settings.assertions)
        count, wanted = len(unit.functions), self.settings.assertions_per_function
        assert wanted >= 0, "settings refuse others"
        if found < wanted * count:
            assert unit.functions[0].name, "lambdas are not among them"
            message = f"{found} checks in {count} functions; {wanted:g} a function are wanted"
            yield self.finding(unit.name_of(unit.functions[0]), message)


class PythonAssertionSideEffect(FileRule):
    """
    An `assert` that changes something.

    Why: under `python -O` the program does something else.
    Instead: change first, then assert.
    Not found: functions of the tree that change something.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5, read across to Python.
    """

    id = "P10-R5-python-assertion-side-effect"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        "def f(n):\n    assert n > 3 and len(n.copy()) == 2\n    assert isinstance(n, int), n.pop()\n",
        """
async def f(n, items):
    assert (m := n) > 3             # expect: P10-R5-python-assertion-side-effect
    assert items.pop() == m         # expect: P10-R5-python-assertion-side-effect
    assert await n                  # expect: P10-R5-python-assertion-side-effect
    assert next(items)              # expect: P10-R5-python-assertion-side-effect
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each assertion that changes what it looks at."""
        unit = as_python(parsed)
        for _, statement in unit.statements(ast.Assert):
            if any(_changes(node) for node in _nodes(statement.test)):
                yield self.finding(unit.at(statement), "this assertion changes what it looks at")


class PythonAssertionConstant(FileRule):
    """
    An `assert` that can never fail.

    Why: it looks like a check and is none.
    Instead: assert what could be false, or nothing; a message stands behind a comma without brackets.
    Not found: what only follows from the values that a variable can have.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5, read across to Python.
    """

    id = "P10-R5-python-assertion-constant"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        "def f(n, m):\n    assert n, 'text'\n"
        "    assert False\n    assert n == m\n    assert ()\n    assert not 'never'\n",
        """
def f(n):
    assert (n, "message")     # expect: P10-R5-python-assertion-constant
    assert "text"             # expect: P10-R5-python-assertion-constant
    assert True               # expect: P10-R5-python-assertion-constant
    assert n == n             # expect: P10-R5-python-assertion-constant
    assert n or True          # expect: P10-R5-python-assertion-constant
    assert len(n) >= 0        # expect: P10-R5-python-assertion-constant
    assert f"{n} is wrong"    # expect: P10-R5-python-assertion-constant
    assert lambda: n          # expect: P10-R5-python-assertion-constant
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each assertion that always holds."""
        unit = as_python(parsed)
        for _, statement in unit.statements(ast.Assert):
            if _always(statement.test):
                yield self.finding(unit.at(statement), "this assertion can never fail")


def _checks(unit: PythonFile, more: tuple[str, ...]) -> int:
    """Count what checks something inside of functions."""
    named: dict[str, bool] = {}
    arguments: dict[int, frozenset[str]] = {}
    found = 0
    for scope, _, _, name in unit.calls:
        if scope.function is not None:
            if name not in named:
                named[name] = _validates(name, more)
            found += named[name]
    found += sum(scope.kind == "function" for scope, _ in unit.statements(ast.Assert))
    for scope, statement in unit.statements(ast.If):
        if scope.kind == "function" and isinstance(statement.body[-1], (ast.Raise, ast.Return)):
            if scope.number not in arguments:
                taken = scope.node.args
                every = (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)
                arguments[scope.number] = frozenset(arg.arg for arg in every)
            names = arguments[scope.number]
            found += any(isinstance(node, ast.Name) and node.id in names for node in _nodes(statement.test))
    return found


def _validates(name: str, more: tuple[str, ...]) -> bool:
    if not name:
        return False  # what a call or a subscript gave is called
    if name in more:
        return True
    return any(word.lower() in VALIDATES for word in WORDS.findall(name))


def _nodes(item: ast.expr) -> Iterator[ast.AST]:
    """Yield the nodes of a condition, the outer ones first, without contexts and operators."""
    if isinstance(item, (ast.Name, ast.Constant)):
        yield item
        return
    found: list[Any] = [item]
    for number, node in enumerate(found):  # grows while it is walked, by the nodes of a finite tree
        if number > MAX_NODES:
            return
        yield node
        found += parts_of(node)


def _changes(node: ast.AST) -> bool:
    if isinstance(node, (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)):
        return True
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id == "next"
    return isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES


def _always(test: ast.expr) -> bool:
    """Tell whether a condition holds whatever the state."""
    if isinstance(test, ast.BoolOp):
        assert len(test.values) > 1, "one part needs no operator"
        # Only what stands in it itself; a nested one is looked at no further.
        parts = [_always_plain(value) for value in test.values]
        return any(parts) if isinstance(test.op, ast.Or) else all(parts)
    return _always_plain(test)


def _always_plain(test: ast.expr) -> bool:
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, (ast.Tuple, ast.List, ast.Set)):
        return bool(test.elts) and not any(isinstance(item, ast.Starred) for item in test.elts)
    if isinstance(test, ast.Dict):
        return any(key is not None for key in test.keys)
    if isinstance(test, ast.JoinedStr):
        return any(isinstance(part, ast.Constant) and part.value for part in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _always_holds(test)
    return isinstance(test, (ast.Lambda, ast.GeneratorExp))


def _always_holds(test: ast.Compare) -> bool:
    assert len(test.ops) == 1, "a chain is looked at no further"
    assert len(test.comparators) == 1, "an operator stands between two"
    left, operator, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(operator, ast.GtE) and getattr(getattr(left, "func", None), "id", "") == "len":
        return isinstance(right, ast.Constant) and right.value == 0
    plain = isinstance(left, (ast.Name, ast.Attribute)) and isinstance(operator, (ast.Eq, ast.Is, ast.LtE, ast.GtE))
    return plain and left.__class__ is right.__class__ and ast.dump(left) == ast.dump(right)
