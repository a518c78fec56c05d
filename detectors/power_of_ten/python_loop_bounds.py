"""Rule 2 in Python: every loop has a bound that can be shown by looking at it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile, Scope, parts_of

__all__ = ["PythonLoopBound"]

CLOCKS = frozenset(
    {
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.process_time",
        "time.time",
        "time.time_ns",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
    }
)
ENDLESS = frozenset({"itertools.count", "itertools.cycle"})
CONSUMERS = frozenset(f"builtins.{name}" for name in ("list", "tuple", "set", "sum", "sorted", "max", "min", "dict"))
SHRINKS = frozenset({"pop", "popleft", "popitem"})
GROWS = frozenset({"append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault", "put"})
FIXED_CALLS = frozenset({"len", "int", "abs", "min", "max", "round"})
MAX_NODES = 20_000
"""Nodes of one loop that are looked at; a bound that only shows in a larger one is none for a reader."""
MAX_NESTED = 40
"""Loops around each other that each look at their own body."""

_Loop = ast.While | ast.For | ast.AsyncFor
_FUNCTIONS = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef})
_LOOPS = frozenset({ast.While, ast.For, ast.AsyncFor})
_SEEN = frozenset(
    {
        *(ast.Return, ast.Raise, ast.Break, ast.AugAssign, ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.For),
        *(ast.AsyncFor, ast.Call, ast.If),
    }
)
"""What `_Body` looks at."""
_PLAIN = frozenset({ast.Name, ast.Constant, ast.Pass, ast.Continue, str, int, bool})
"""What has nothing below it that `_Body` looks at."""


class PythonLoopBound(FileRule):
    """
    A loop without a bound that can be shown by looking at it.

    Why: a loop that may run on makes the worst case unknowable, and hangs where nobody waits for it.
    Instead: `for` over something finite; a counter or a deadline that the loop cannot miss.
    Reported: `while` without a counter, a deadline or a container that only shrinks; endless loops with a way out;
    iteration over `itertools.count`, `cycle`, `repeat` and `iter(f, sentinel)` without a limit; containers that grow
    while they are walked. Not reported: an endless loop without any way out, a server's.
    Not found: endless generators of the tree; limits that another function changes.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 2, read across to Python.
    """

    id = "P10-R2-python-loop-bound"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import itertools
import time

def f(items, n, more):
    i = 0
    while i < n:
        i += 1
    while n > 0 and more():
        n -= 1
    while n:
        n //= 2
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        more()
    while True:
        more()

def g(items, more):
    tries = 0
    while True:
        tries += 1
        if tries > 3:
            break
    while items:
        items.pop()
    for item in list(items):
        items.append(item)
    for a, b in zip(itertools.count(), items):
        more(a, b)
    for n in itertools.count():
        if n > 3:
            return
""",
        """
import itertools

def f(items, n, more, file):
    while more():  # expect: P10-R2-python-loop-bound
        pass
    while True:  # expect: P10-R2-python-loop-bound
        if more():
            break
    while items:  # expect: P10-R2-python-loop-bound
        items.extend(items.pop())
    while n > 0:  # expect: P10-R2-python-loop-bound
        n -= more()
    while (line := file.read()):  # expect: P10-R2-python-loop-bound
        more(line)
    for i in itertools.count():  # expect: P10-R2-python-loop-bound
        if more(i):
            break
    for part in iter(file.read, b""):  # expect: P10-R2-python-loop-bound
        more(part)
    for item in items:  # expect: P10-R2-python-loop-bound
        items.append(item)
    return list(itertools.cycle(items))  # expect: P10-R2-python-loop-bound
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each loop whose bound does not show."""
        unit = as_python(parsed)
        for scope, loop in unit.statements(ast.While):
            problem = _while(unit, scope, loop)
            if problem:
                yield self.finding(unit.at(loop), problem)
        for scope, loop in unit.statements(ast.For, ast.AsyncFor):
            problem = _for(unit, scope, loop)
            if problem:
                yield self.finding(unit.at(loop), problem)
        for scope in unit.scopes:
            if scope.kind == "comprehension":
                for generator in scope.node.generators:
                    outer = scope.parent or scope
                    if _endless(unit, outer, generator.iter):
                        yield self.finding(unit.at(scope.node), "takes from an endless iterator without a limit")
        for scope, call, _, _ in unit.calls_of(CONSUMERS):
            if call.args and _endless(unit, scope, call.args[0]):
                yield self.finding(unit.at(call), "takes from an endless iterator without a limit")


def _while(unit: PythonFile, scope: Scope, loop: ast.While) -> str | None:
    body = _Body(loop)
    if isinstance(loop.test, ast.Constant) and loop.test.value:
        if not body.exits or body.guarded(unit, scope):
            return None
        return "an endless loop with a way out; count its passes or set a deadline"
    if body.bounds(unit, scope, loop.test) or body.guarded(unit, scope):
        return None
    return "no bound of this loop can be shown; use for, a counter or a deadline"


def _for(unit: PythonFile, scope: Scope, loop: ast.For | ast.AsyncFor) -> str | None:
    walked = _path(loop.iter)
    if walked:
        body = _Body(loop)
        if walked in body.grown:
            return f"{walked} grows while it is walked"
        return None
    if _endless(unit, scope, loop.iter):
        body = _Body(loop)
        if isinstance(loop.target, ast.Name):
            body.stepped[loop.target.id] = {1}
        if not body.guarded(unit, scope):
            return "takes from an endless iterator without a limit"
    return None


def _endless(unit: PythonFile, scope: Scope, item: ast.expr) -> bool:
    if not isinstance(item, ast.Call):
        return False
    names = unit.dotted(item.func, scope)
    if names & ENDLESS:
        return True
    if "itertools.repeat" in names:
        return len(item.args) < 2 and not item.keywords
    if "builtins.enumerate" in names and item.args and isinstance(item.args[0], ast.Call):
        return bool(unit.dotted(item.args[0].func, scope) & ENDLESS)  # one level; nobody nests them
    return "builtins.iter" in names and len(item.args) == 2


class _Body:
    """What one loop does in each pass, from one walk over it."""

    def __init__(self, loop: _Loop) -> None:
        self.exits = False
        self.stepped: dict[str, set[int]] = {}
        """Counters that every pass moves: 1 up, -1 down or towards zero."""
        self.changed: dict[str, int] = {}
        """Names and attributes: how often they are assigned in the loop."""
        self.grown: set[str] = set()
        self.shrunk: set[str] = set()
        self.guards: list[ast.expr] = []
        """Conditions under which the loop is left."""
        self._top = {id(statement) for statement in loop.body}
        self._read(loop)

    def _read(self, loop: _Loop) -> None:
        test = [loop.test] if isinstance(loop, ast.While) else []
        stack: list[tuple[Any, bool]] = [(node, True) for node in (*loop.body, *test)]
        for _ in range(MAX_NODES):
            if not stack:
                return
            node, own = stack.pop()
            kind = node.__class__
            if kind in _SEEN:
                self._see(node, own)
            elif kind in _FUNCTIONS:
                continue
            inner = own and kind not in _LOOPS
            stack += [(child, inner) for child in parts_of(node) if child.__class__ not in _PLAIN]

    def _see(self, node: ast.AST, own: bool) -> None:
        if isinstance(node, (ast.Return, ast.Raise)) or (isinstance(node, ast.Break) and own):
            self.exits = True
        elif isinstance(node, ast.AugAssign):
            self._step(node)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for part in ast.walk(target) if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                    self._assigned(_path(part), node if part is target else None)
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr, ast.For, ast.AsyncFor)):
            self._assigned(_path(node.target), None)
        elif isinstance(node, ast.Call):
            self._called(node)
        elif isinstance(node, ast.If) and id(node) in self._top and _leaves(node.body):
            self.guards.append(node.test)

    def _called(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            owner = _path(node.func.value)
            if owner and node.func.attr in GROWS:
                self.grown.add(owner)
            elif owner and node.func.attr in SHRINKS:
                self.shrunk.add(owner)
        # Whoever is handed a container may fill it.
        self.changed.update({path: 1 for item in node.args if (path := _path(item)) and path not in self.changed})

    def _assigned(self, path: str, assign: ast.Assign | None) -> None:
        if not path:
            return
        self.changed[path] = self.changed.get(path, 0) + 1
        value = assign.value if assign is not None else None
        if (
            assign is not None
            and isinstance(value, ast.BinOp)
            and _path(value.left) == path
            and id(assign) in self._top
            and (direction := _direction(value.op, value.right))
        ):
            self.stepped.setdefault(path, set()).add(direction)
        else:
            self.stepped.setdefault(path, set()).add(0)

    def _step(self, node: ast.AugAssign) -> None:
        path = _path(node.target)
        if not path:
            return
        self.changed[path] = self.changed.get(path, 0) + 1
        if isinstance(node.op, ast.Add) and isinstance(node.value, (ast.List, ast.ListComp, ast.Name, ast.Call)):
            self.grown.add(path)
        direction = _direction(node.op, node.value)
        known = self.stepped.setdefault(path, set())
        # A step that only some passes take neither bounds the loop nor turns another step back.
        known.add(direction if id(node) in self._top or direction == 0 else direction * 2)

    def bounds(self, unit: PythonFile, scope: Scope, test: ast.expr) -> bool:
        """Tell whether a condition limits the loop: one part of an `and`, each part of an `or`."""
        stack: list[ast.expr] = [test]
        for _ in range(MAX_NESTED):
            if not stack:
                return True
            item = stack.pop()
            if isinstance(item, ast.BoolOp) and isinstance(item.op, ast.And):
                if not any(self._limits(unit, scope, part) for part in item.values):
                    return False
            elif isinstance(item, ast.BoolOp):
                stack += item.values
            elif not self._limits(unit, scope, item):
                return False
        return False

    def _limits(self, unit: PythonFile, scope: Scope, item: ast.expr) -> bool:
        path = _path(item)
        if path:
            emptied = path in self.shrunk and path not in self.grown and path not in self.changed
            return emptied or self._moves(path) == -1
        if not isinstance(item, ast.Compare) or len(item.ops) > 2:
            return False
        sides = [item.left, *item.comparators]
        if any(_asks_clock(unit, scope, side) for side in sides):
            return True
        for left, operator, right in zip(sides, item.ops, sides[1:], strict=False):
            if self._side(left, operator, right) or self._side(right, _FLIPPED.get(type(operator), operator), left):
                return True
        return False

    def _side(self, counter: ast.expr, operator: ast.cmpop, limit: ast.expr) -> bool:
        if isinstance(counter, ast.Call) and getattr(counter.func, "id", "") == "len" and len(counter.args) == 1:
            path = _path(counter.args[0])
            shrinking = path in self.shrunk and path not in self.grown and isinstance(operator, (ast.Gt, ast.GtE))
            growing = path in self.grown and path not in self.shrunk and isinstance(operator, (ast.Lt, ast.LtE))
            return bool(path) and (shrinking or growing) and self._fixed(limit)
        path = _path(counter)
        moved = self._moves(path) if path else 0
        if not moved or not self._fixed(limit):
            return False
        if isinstance(operator, ast.NotEq):
            return True
        return moved == (1 if isinstance(operator, (ast.Lt, ast.LtE)) else -1) and not isinstance(operator, ast.Eq)

    def _moves(self, path: str) -> int:
        steps = self.stepped.get(path, set())
        directions = {1 if step > 0 else -1 if step < 0 else 0 for step in steps}
        certain = steps & {1, -1}
        return certain.pop() if len(directions) == 1 and 0 not in directions and certain else 0

    def _fixed(self, limit: ast.expr) -> bool:
        for node in ast.walk(limit):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") not in FIXED_CALLS:
                return False
            path = _path(node)
            if path and (path in self.stepped or path in self.grown):
                return False
        return True

    def guarded(self, unit: PythonFile, scope: Scope) -> bool:
        """Tell whether the loop is left once a counter or a clock has passed a limit."""
        for test in self.guards:
            for part in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) else [test]:
                if not isinstance(part, ast.Compare) or len(part.ops) != 1:
                    continue
                opposite = _OPPOSITE.get(type(part.ops[0]))
                if opposite is not None and self._limits(
                    unit, scope, ast.Compare(part.left, [opposite()], part.comparators)
                ):
                    return True
        return False


_FLIPPED: dict[type, ast.cmpop] = {ast.Lt: ast.Gt(), ast.LtE: ast.GtE(), ast.Gt: ast.Lt(), ast.GtE: ast.LtE()}
_OPPOSITE: dict[type, type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
}


def _leaves(body: Sequence[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], (ast.Break, ast.Return, ast.Raise))


def _asks_clock(unit: PythonFile, scope: Scope, side: ast.expr) -> bool:
    return any(isinstance(node, ast.Call) and unit.dotted(node.func, scope) & CLOCKS for node in ast.walk(side))


def _path(node: ast.AST) -> str:
    """Return `a.b` for a name or an attribute of one, else nothing."""
    parts: list[str] = []
    for _ in range(MAX_NESTED):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Name):
            return ".".join([node.id, *reversed(parts)])
        else:
            break
    return ""


def _direction(operator: ast.operator, value: ast.expr) -> int:
    """1 for a step up, -1 for one down or towards zero, 0 for what cannot be told."""
    if not isinstance(value, ast.Constant) or not isinstance(value.value, (int, float)) or value.value <= 0:
        named = isinstance(value, (ast.Name, ast.Attribute)) and _path(value).rpartition(".")[2].isupper()
        if not named:
            return 0
    if isinstance(operator, (ast.Add, ast.Mult, ast.LShift)):
        return 1
    return -1 if isinstance(operator, (ast.Sub, ast.FloorDiv, ast.RShift)) else 0
