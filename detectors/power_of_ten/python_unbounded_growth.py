"""Rule 3 in Python: what is kept has a bound."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_scope import containers_of
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile, Scope

__all__ = ["PythonUnboundedGrowth"]

QUEUES = frozenset(
    {
        *(f"queue.{name}" for name in ("Queue", "LifoQueue", "PriorityQueue", "SimpleQueue")),
        *(f"asyncio.{name}" for name in ("Queue", "LifoQueue", "PriorityQueue")),
        *(f"multiprocessing.{name}" for name in ("Queue", "JoinableQueue", "SimpleQueue")),
    }
)
WITHOUT_A_SIZE = frozenset({"queue.SimpleQueue", "multiprocessing.SimpleQueue"})
GROWS = frozenset({"add", "append", "appendleft", "extend", "insert", "setdefault", "update"})
SHRINKS = frozenset({"clear", "discard", "pop", "popitem", "popleft", "remove", "difference_update"})


class PythonUnboundedGrowth(FileRule):
    """
    Something that is kept and grows without a bound: a cache, a queue, a container of the module.

    Why: memory that only grows ends a long-running program at a time that nobody chose.
    Instead: `lru_cache(maxsize=1024)`, `Queue(maxsize=100)`, `deque(maxlen=100)`; drop what is old.
    Reported: `functools.cache` and `lru_cache(maxsize=None)` on functions with parameters, queues without a size, and
    containers of the module that functions of the module fill and none empties.
    Not found: attributes of objects that only grow.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 3, read across to Python.
    """

    id = "P10-R3-python-unbounded-growth"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import functools
import queue
from functools import lru_cache

seen = {}

@functools.cache
def once():
    return 1

@lru_cache
def default(n):
    return n

@lru_cache(maxsize=8)
def small(n):
    seen[n] = queue.Queue(maxsize=3)
    seen.pop(n)
    return queue.Queue(5)
""",
        """
import asyncio
import functools
import queue
from functools import lru_cache

seen = {}  # expect: P10-R3-python-unbounded-growth
names = []  # expect: P10-R3-python-unbounded-growth

@functools.cache  # expect: P10-R3-python-unbounded-growth
def every(n):
    seen[n] = n
    names.append(n)
    return n

@lru_cache(maxsize=None)  # expect: P10-R3-python-unbounded-growth
def other(n):
    first = queue.Queue()  # expect: P10-R3-python-unbounded-growth
    second = asyncio.Queue(0)  # expect: P10-R3-python-unbounded-growth
    third = queue.SimpleQueue()  # expect: P10-R3-python-unbounded-growth
    return first, second, third
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each."""
        unit = as_python(parsed)
        for scope in unit.functions:
            assert scope.parent is not None, "a function stands in a module at least"
            arguments = scope.node.args
            parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            takes = bool(parameters or arguments.vararg or arguments.kwarg)
            for decorator in scope.node.decorator_list:
                if takes and _keeps_everything(unit, scope.parent, decorator):
                    yield self.finding(unit.at(decorator), f"the results of {scope.name} are kept without a limit")
        for _, call, meaning, _ in unit.calls_of(QUEUES):
            assert meaning.names & QUEUES, "only these were asked for"
            if meaning.names & WITHOUT_A_SIZE or not _sized(call):
                yield self.finding(unit.at(call), "a queue without a size; give it maxsize")
        yield from self._grown(unit)

    def _grown(self, unit: PythonFile) -> Iterator[Finding]:
        if not (containers := containers_of(unit)):
            return
        module = unit.scopes[0]
        assert module.kind == "module", "it is the first scope"
        grown: set[str] = set()
        emptied: set[str] = set()
        for scope in unit.scopes:
            for name, grows in _moves(scope):
                if name in containers and unit.lookup(name, scope)[0] is module:
                    if not grows:
                        emptied.add(name)
                    elif scope.function is not None:
                        grown.add(name)
        # What a function binds anew is emptied by that.
        anew = {name for scope in unit.scopes if scope.function for name in scope.global_names & scope.bindings.keys()}
        for name in sorted(grown - emptied - anew):
            values = [value for value in module.bindings[name] if isinstance(value, ast.expr)]
            bounded = values and isinstance(values[0], ast.Call) and any(w.arg == "maxlen" for w in values[0].keywords)
            if values and not bounded:
                yield self.finding(unit.at(values[0]), f"{name} only grows; nothing is ever taken out")


def _moves(scope: Scope) -> Iterator[tuple[str, bool]]:
    """Yield names of containers that a scope fills (True) or empties (False)."""
    if not scope.calls and not scope.stores:
        return
    for call in scope.calls:
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            if call.func.attr in SHRINKS:
                yield call.func.value.id, False
            elif call.func.attr in GROWS:
                yield call.func.value.id, True
    for store in scope.stores:
        if isinstance(store, ast.Subscript) and isinstance(store.value, ast.Name):
            if isinstance(store.ctx, ast.Del):
                yield store.value.id, False
            elif not isinstance(store.slice, (ast.Slice, ast.Constant)):
                yield store.value.id, True


def _keeps_everything(unit: PythonFile, scope: Scope, decorator: ast.expr) -> bool:
    if not isinstance(decorator, ast.Call):
        return "functools.cache" in unit.dotted(decorator, scope)
    if "functools.lru_cache" not in unit.dotted(decorator.func, scope):
        return False
    if not decorator.args and not decorator.keywords:
        return False  # the default has a size
    sizes = [*decorator.args[:1], *(word.value for word in decorator.keywords if word.arg == "maxsize")]
    return any(isinstance(size, ast.Constant) and size.value is None for size in sizes)


def _sized(call: ast.Call) -> bool:
    if not call.args and not call.keywords:
        return False
    if any(word.arg is None for word in call.keywords):
        return True  # it may be among `**options`
    sizes = [*call.args[:1], *(word.value for word in call.keywords if word.arg == "maxsize")]
    return any(not (isinstance(size, ast.Constant) and size.value in (0, None)) for size in sizes)
