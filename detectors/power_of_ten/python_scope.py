"""Rule 6 in Python: state stands where it is needed, and no wider."""

from __future__ import annotations

import ast
import bisect
from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile, Scope

__all__ = ["PythonGlobalWrite", "PythonModuleState", "PythonWideName", "containers_of"]

CHANGES = frozenset(
    {
        *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop", "popitem"),
        *("popleft", "remove", "reverse", "rotate", "setdefault", "sort", "update", "put", "put_nowait"),
    }
)
CONTAINERS = frozenset(
    {
        *(f"builtins.{name}" for name in ("dict", "list", "set", "bytearray")),
        *(f"collections.{name}" for name in ("Counter", "OrderedDict", "defaultdict", "deque")),
        "weakref.WeakKeyDictionary",
        "weakref.WeakValueDictionary",
        "weakref.WeakSet",
    }
)

MIN_STATEMENTS = 3
MIN_LINES = 10


class PythonGlobalWrite(FileRule):
    """
    A module's name that a function writes by `global`.

    Why: every function of the module, and of others, sees the change, at a time that cannot be told by reading.
    Instead: hand the value over and return it, or keep it in an object that its users hold.
    Not found: nothing. A `global` that is only read is not reported.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6, read across to Python.
    """

    id = "P10-R6-python-global-write"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        "count = 0\n\ndef f():\n    global count\n    return count\n",
        "count = 0\n\ndef f():\n    global count  # expect: P10-R6-python-global-write\n    count += 1\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each `global` statement of a function that binds the name."""
        if not (unit := as_python(parsed)).functions:
            return
        for scope, statement in unit.statements(ast.Global):
            written = [name for name in statement.names if name in scope.bindings]
            if scope.function is not None and written:
                assert scope.parent is not None, "a function stands in a module at least"
                message = f"{', '.join(written)} of the module is written by {scope.qualname or 'a function'}"
                yield self.finding(unit.at(statement), message)


class PythonModuleState(FileRule):
    """
    A container of the module that functions change.

    Why: calls that do not mention each other change each other's results; tests and threads meet in it.
    Instead: an object that is made where it is needed and handed on.
    Reported where a function changes it, once for each function and name.
    Not found: changes through another name, and by other modules.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6, read across to Python.
    """

    id = "P10-R6-python-module-state"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
LIMITS = {"a": 1}
seen = []
for name in LIMITS:
    seen.append(name)

def f(seen):
    seen.append(LIMITS["a"])
    own = []
    own.append(3)
    return own
""",
        """
from collections import deque

seen = []
names = {}
queue = deque(maxlen=3)

def f(name):
    seen.append(name)  # expect: P10-R6-python-module-state
    names[name] = 1  # expect: P10-R6-python-module-state
    seen.append(name)
    queue.popleft()  # expect: P10-R6-python-module-state
    del names[name]
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield the first change of each module-level container in each function."""
        if not (containers := containers_of(unit := as_python(parsed))):
            return
        told: set[tuple[int, str]] = set()
        for function, name, node in sorted(
            _mutations(unit, containers), key=lambda found: (found[0].number, found[1], found[2].lineno)
        ):
            assert function.number > 0, "0 is the module"
            if (function.number, name) not in told:
                told.add((function.number, name))
                message = f"{name} of the module is changed by {function.qualname or 'a function'}"
                yield self.finding(unit.at(node), message)


class PythonWideName(FileRule):
    """
    A local that is bound far above the one block that uses it.

    Why: in between, a reader must keep in mind what is not needed, and a later change may use it by mistake.
    Instead: bind it in that block.
    Reported are locals bound once at the top of a function, of which only one branch of an `if` makes use, at least ten
    lines and three statements further down.
    Not found: names of modules and classes; what a loop uses is not reported, since it would be made in every pass.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6, read across to Python.
    """

    id = "P10-R6-python-wide-name"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        "def f(n):\n    a = n + 1\n    b = n\n"
        + "    n += 1\n" * 12
        + "    if n:\n        return b\n    return a, b\n",
        "def f(n):\n    a = n + 1  # expect: P10-R6-python-wide-name\n"
        + "    n += 1\n" * 12
        + "    if n:\n        return a\n    return n\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each such local, where it is bound."""
        if not (unit := as_python(parsed)).functions:
            return
        inside: dict[int, list[Scope]] = {}
        for scope in unit.scopes:
            if scope.parent is not None and scope.parent.function is not None:
                inside.setdefault(scope.parent.function.number, []).append(scope)
        for function in unit.functions:
            for name, statement, block in _wide(function, inside.get(function.number, [])):
                assert statement.lineno < block, "what is bound too early is used further down"
                yield self.finding(unit.at(statement), f"only the block of line {block} uses {name}; bind it there")


def _wide(function: Scope, inside: list[Scope]) -> Iterator[tuple[str, ast.stmt, int]]:
    """Yield (name, statement that binds it, first line of the block that uses it)."""
    body: list[ast.stmt] = function.node.body
    if not (bound := _bound_early(function, body)):
        return
    uses: dict[str, list[ast.Name]] = {name: [] for name in bound}
    for load in function.loads:
        if load.id in uses:
            uses[load.id].append(load)
    inner = {load.id for scope in inside for load in scope.loads if load.id in uses}
    lines = [statement.lineno for statement in body]
    assert lines[0] <= lines[-1], "statements stand in their order"
    for name, number in bound.items():
        holders = {bisect.bisect_right(lines, load.lineno) - 1 for load in uses[name]}
        holder = holders.pop() if len(holders) == 1 else -1
        block = body[holder]
        if name in inner or holder - number < MIN_STATEMENTS or not isinstance(block, ast.If):
            continue
        first = min(load.lineno for load in uses[name])
        if block.lineno - body[number].lineno >= MIN_LINES and block.body[0].lineno <= first:
            yield name, body[number], block.lineno


def _bound_early(function: Scope, body: list[ast.stmt]) -> dict[str, int]:
    """Return the names bound once, far enough above the last `if` of a function's body, and by which statement."""
    if len(body) <= MIN_STATEMENTS:
        return {}
    last = next((number for number in reversed(range(len(body))) if isinstance(body[number], ast.If)), -1)
    found = {}
    for number, statement in enumerate(body[: max(last - MIN_STATEMENTS + 1, 0)]):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if (
            isinstance(target, ast.Name)
            and body[last].lineno - statement.lineno >= MIN_LINES
            and len(function.bindings.get(target.id, ())) == 1
        ):
            found[target.id] = number
    assert all(number < last for number in found.values()), "what uses them comes later"
    return found


def containers_of(unit: PythonFile) -> set[str]:
    """Return the module's names that are bound to containers."""
    module = unit.scopes[0]
    assert module.kind == "module", "it is the first scope"
    found: set[str] = set()
    for name, values in module.bindings.items():
        for value in values:
            literal = isinstance(value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))
            if literal or (isinstance(value, ast.Call) and unit.dotted(value.func, module) & CONTAINERS):
                found.add(name)
    assert found <= module.bindings.keys(), "they are the module's own"
    return found


def _mutations(unit: PythonFile, containers: set[str]) -> Iterator[tuple[Scope, str, ast.expr | ast.stmt]]:
    """Yield (function, name, node) of changes of a module's container by a function."""
    if not containers:
        return
    module = unit.scopes[0]
    assert module.function is None, "it is the first scope"
    for scope in unit.scopes:
        function = scope.function
        if function is None:
            continue
        changed: list[tuple[ast.expr, ast.expr | ast.stmt]] = [
            (call.func.value, call)
            for call in scope.calls
            if isinstance(call.func, ast.Attribute) and call.func.attr in CHANGES
        ]
        changed += [(store.value, store) for store in scope.stores if isinstance(store, ast.Subscript)]
        for owner, node in changed:
            if isinstance(owner, ast.Name) and owner.id in containers and unit.lookup(owner.id, scope)[0] is module:
                yield function, owner.id, node
