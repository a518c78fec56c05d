"""Rule 7 in Python: results and exceptions are looked at."""

from __future__ import annotations

import ast
import bisect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from detectors.detector import Facts, FileRule, TreeRule, once
from detectors.model import Finding, Region
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, PythonCallGraph, Target, as_python, targets_of
from detectors.python_parsing import MADE, PythonFile, Scope

__all__ = ["PythonDroppedResult", "PythonResults", "PythonSwallowedException", "PythonUncheckedResult"]

BROAD = frozenset({"builtins.Exception", "builtins.BaseException"})
PURE = frozenset(
    {
        *(f"builtins.{name}" for name in ("sorted", "reversed", "len", "isinstance", "issubclass", "zip", "range")),
        *(f"builtins.{name}" for name in ("enumerate", "min", "max", "sum", "any", "all", "abs", "round", "format")),
        *(f"builtins.{name}" for name in ("filter", "map", "str", "repr", "frozenset", "hash", "id", "callable")),
        *("copy.copy", "copy.deepcopy", "os.path.join", "os.path.exists", "shutil.which", "functools.partial"),
        *("asyncio.create_task", "asyncio.ensure_future", "asyncio.gather", "dataclasses.replace", "hashlib.sha256"),
        *("subprocess.call", "subprocess.Popen", "os.system", "json.loads", "json.dumps", "re.sub", "re.match"),
    }
)
"""Functions that do nothing but give a result, or whose result must be kept or looked at."""
CHECKED = frozenset({"subprocess.run"})
"""Functions whose result matters unless `check=True` is given."""
METHODS = frozenset(
    {
        *("capitalize", "casefold", "center", "encode", "endswith", "expandtabs", "isalnum", "isalpha", "isdigit"),
        *("isidentifier", "islower", "isspace", "isupper", "ljust", "lower", "lstrip", "removeprefix", "removesuffix"),
        *("rjust", "rsplit", "rstrip", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"),
        *("create_task", "submit", "run_in_executor", "_replace"),
    }
)
"""Methods of `str` that no well-known class has with another meaning, and those that give a future or task."""
WAITS = frozenset({"raises", "assertRaises", "assertRaisesRegex", "warns", "assertWarns", "assertWarnsRegex"})
STR_METHODS = frozenset({"replace", "join", "format", "split", "partition", "translate", "count", "index", "find"})
"""Methods of `str` that others have too: reported on texts that are written out only."""


class PythonSwallowedException(FileRule):
    """
    An exception that is swallowed, or caught without a name.

    Why: the failure is known at this place only, and forgotten here; what follows runs on what is not there.
    Instead: catch what can be handled, handle it or tell it, and let the rest pass.
    Reported: `except:` without `raise`, handlers that do nothing, handlers of `Exception` that neither raise, call nor
    use anything, `suppress(Exception)`, and `return`, `break` or `continue` in `finally`.
    Not found: handlers that only set a variable for a narrow exception.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7, read across to Python.
    """

    id = "P10-R7-python-swallowed-exception"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import contextlib
import logging

def f(n):
    try:
        return n()
    except ValueError:
        return None
    except Exception as problem:
        logging.warning("%s", problem)
    except BaseException:
        n.close()
        raise
    finally:
        n.close()

def g(n):
    with contextlib.suppress(KeyError):
        n()
    try:
        n()
    except:
        n.close()
        raise
""",
        """
import contextlib

def f(n):
    try:
        n()
    except ValueError:  # expect: P10-R7-python-swallowed-exception
        pass
    try:
        n()
    except Exception:  # expect: P10-R7-python-swallowed-exception
        n = None
    try:
        n()
    except:  # expect: P10-R7-python-swallowed-exception
        print(n)
    with contextlib.suppress(Exception):  # expect: P10-R7-python-swallowed-exception
        n()
    try:
        n()
    finally:
        return n  # expect: P10-R7-python-swallowed-exception
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each."""
        unit = as_python(parsed)
        for scope, statement in unit.statements(ast.Try, ast.TryStar):
            for handler in statement.handlers:
                problem = _swallows(unit, scope, handler)
                if problem:
                    yield self.finding(_head(unit, handler), problem)
            for leaving in _leaving(statement.finalbody):
                yield self.finding(unit.at(leaving), "leaving in finally drops the exception on its way")
        for scope, statement in unit.statements(ast.With, ast.AsyncWith):
            for item in statement.items:
                if _suppresses(unit, scope, item.context_expr):
                    yield self.finding(unit.at(item.context_expr), "every exception is dropped here")


class PythonDroppedResult(FileRule):
    """
    The result of a call of the standard library that is dropped although it is all that the call does.

    Why: the call has no effect, or its failure goes unseen.
    Instead: use the result, `check=True` for `subprocess.run`, or `_ =` to say that it does not matter.
    Reported: `subprocess.run` without `check=True`, tasks and futures that nobody keeps, functions and methods of `str`
    that only return something.
    Not found: methods of other types that only return something.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7, read across to Python.
    """

    id = "P10-R7-python-dropped-result"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import asyncio
import subprocess

async def f(text, path, items, loop):
    subprocess.run(["a"], check=True)
    done = subprocess.run(["a"])
    _ = sorted(items)
    items.sort()
    path.replace("a")
    task = asyncio.create_task(text)
    await loop.create_task(text)
    return text.strip(), done, task
""",
        """
import asyncio
import subprocess

async def f(text, items, pool):
    subprocess.run(["a"])  # expect: P10-R7-python-dropped-result
    sorted(items)  # expect: P10-R7-python-dropped-result
    text.strip()  # expect: P10-R7-python-dropped-result
    "a b".replace(" ", "")  # expect: P10-R7-python-dropped-result
    asyncio.create_task(text)  # expect: P10-R7-python-dropped-result
    pool.submit(print, text)  # expect: P10-R7-python-dropped-result
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each dropped result."""
        unit = as_python(parsed)
        for scope, call in _dropped(unit):
            names = unit.dotted(call.func, scope)
            if names & CHECKED and not _checked(call):
                yield self.finding(unit.at(call), "its exit code is dropped; say check=True")
            elif names & PURE:
                yield self.finding(unit.at(call), "its result is all that this call does, and it is dropped")
            elif isinstance(call.func, ast.Attribute) and _of_instances(names) and _only_returns(call.func):
                yield self.finding(unit.at(call), f"the result of {call.func.attr} is dropped")


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    dropped: tuple[tuple[tuple[Target, ...], str, tuple[int, int, int, int]], ...]
    """What is called, its name, and where."""
    returning: tuple[int, ...]
    """Numbers of the functions that return a value."""


class PythonResults(Facts):
    """Which functions return a value, and which calls drop it."""

    id = "python-results"
    detector = DETECTOR
    languages = PYTHON
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_python(parsed)
        dropped = []
        for scope, call in _dropped(unit):
            references = unit.resolve(call.func, scope).references
            found = tuple(targets_of(references))
            if found and len(found) == len(references):
                region = unit.at(call)
                name = getattr(call.func, "attr", getattr(call.func, "id", ""))
                place = (region.start_line, region.start_column, region.end_line, region.end_column)
                dropped.append((found, name, place))
        values: dict[int, list[ast.expr | None]] = {}
        for scope, statement in unit.statements(ast.Return):
            values.setdefault(scope.number, []).append(statement.value)
        returning = (scope.number for scope in unit.functions if _returns(scope, values.get(scope.number, [])))
        return _FileFacts(tuple(dropped), tuple(returning))


class PythonUncheckedResult(TreeRule):
    """
    The result of a function of the tree that is dropped.

    Why: most failures that are not raised are told by a result; what is not looked at goes on with what is not there.
    Instead: use it, or write `_ =` to say that it does not matter.
    Reported are calls as statements of functions that return something other than `None` or `self`, of generators and,
    without `await`, of coroutines; seen over all modules.
    Not found: calls of what cannot be told without running it.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7, read across to Python.
    """

    id = "P10-R7-python-unchecked-result"
    detector = DETECTOR
    languages = PYTHON
    needs = ("python-calls", "python-results")
    examples = (
        """
# file: a.py
from b import give
def act(n):
    print(n)
class Chain:
    def link(self):
        return self
def run(chain):
    act(3)
    Chain().link()
    _ = give()
    if give():
        return give()
# file: b.py
def give():
    return 3
""",
        """
# file: a.py
import b
from b import give
class Own:
    def name(self):
        return "own"
    def run(self):
        self.name()  # expect: P10-R7-python-unchecked-result
async def later():
    pass
def run():
    give()  # expect: P10-R7-python-unchecked-result
    b.give()  # expect: P10-R7-python-unchecked-result
    later()  # expect: P10-R7-python-unchecked-result
# file: b.py
def give():
    return 3
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each dropped result of a function of the tree."""
        graph = once(PythonCallGraph, facts["python-calls"])
        files = {path: msgspec.convert(value, _FileFacts) for path, value in facts["python-results"].items()}
        returning = {(path, number) for path, file in files.items() for number in file.returning}
        for path, file in files.items():
            for found, name, place in file.dropped:
                called = [function for target in found for function in graph.functions(path, target)]
                if called and all(function in returning for function in called):
                    yield path, self.finding(Region(*place), f"the result of {name} is dropped; use it, or say _ =")


def _dropped(unit: PythonFile) -> Iterator[tuple[Scope, ast.Call]]:
    """Yield calls that are statements; in a block that waits for their exception, the result is not the point."""
    waiting: dict[int, list[tuple[int, int]]] = {}
    for scope, statement in unit.statements(ast.With, ast.AsyncWith):
        if any(_waits(item) for item in statement.items):
            lines = statement.body[0].lineno, statement.end_lineno or statement.lineno
            waiting.setdefault(scope.number, []).append(lines)
    apart = {number: _apart(blocks) for number, blocks in waiting.items()}
    for scope, statement in unit.statements(ast.Expr):
        call = statement.value
        blocks = apart.get(scope.number, ())
        place = bisect.bisect_right(blocks, (call.lineno, sys.maxsize)) - 1
        if place < 0 or blocks[place][1] < call.lineno:
            yield scope, call


def _apart(blocks: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return blocks of lines in order, those within others left out, so that a line is in one at most."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(blocks):
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


def _waits(item: ast.withitem) -> bool:
    called = item.context_expr.func if isinstance(item.context_expr, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", "")) in WAITS


def _returns(scope: Scope, values: Sequence[ast.expr | None]) -> bool:
    """Tell whether the value of a call of a function is something to look at."""
    if scope.yields:
        # A context manager or a fixture is called by its decorator.
        return not scope.decorators()
    if isinstance(scope.node, ast.AsyncFunctionDef):
        return True
    own = scope.parameter()
    kept = [
        value
        for value in values
        if value is not None
        and not (isinstance(value, ast.Constant) and value.value is None)
        and not (isinstance(value, ast.Name) and value.id == own)
    ]
    return bool(kept)


def _checked(call: ast.Call) -> bool:
    """Tell whether `check` is given, or may be by `**options`."""
    return any(
        word.arg is None
        or (word.arg == "check" and not (isinstance(word.value, ast.Constant) and not word.value.value))
        for word in call.keywords
    )


def _of_instances(names: frozenset[str]) -> bool:
    """Tell whether nothing known is called, or a method of what a known call made."""
    return all(MADE in name for name in names)


def _only_returns(called: ast.Attribute) -> bool:
    text = isinstance(called.value, (ast.Constant, ast.JoinedStr))
    return called.attr in METHODS or (called.attr in STR_METHODS and text)


def _swallows(unit: PythonFile, scope: Scope, handler: ast.ExceptHandler) -> str | None:
    nodes = [node for statement in handler.body for node in _inside(statement)]
    raises = any(isinstance(node, ast.Raise) for node in nodes)
    if handler.type is None:
        return None if raises else "except without a name also catches the end of the program; name what is handled"
    if all(_does_nothing(statement) for statement in handler.body):
        return "the exception is swallowed; handle it, or tell it"
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    if raises or not any(unit.dotted(item, scope) & BROAD for item in types):
        return None
    used = any(isinstance(node, ast.Name) and node.id == handler.name for node in nodes if handler.name)
    told = any(isinstance(node, (ast.Call, ast.Return)) for node in nodes)
    return None if used or told else "every exception is swallowed; catch what can be handled"


def _inside(statement: ast.stmt) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, without those of functions in it."""
    stack: list[ast.AST] = [statement]
    while stack:  # p10: every node of a finite tree is put there once
        node = stack.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            stack.extend(ast.iter_child_nodes(node))


def _does_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, (ast.Pass, ast.Continue))


def _suppresses(unit: PythonFile, scope: Scope, item: ast.expr) -> bool:
    if not isinstance(item, ast.Call) or "contextlib.suppress" not in unit.dotted(item.func, scope):
        return False
    return any(unit.dotted(argument, scope) & BROAD for argument in item.args)


def _leaving(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what leaves a `finally` before the exception that is on its way."""
    stack: list[tuple[ast.AST, bool]] = [(statement, False) for statement in body]
    while stack:  # p10: every node of a finite tree is put there once
        node, looped = stack.pop()
        if isinstance(node, ast.Return) or (isinstance(node, (ast.Break, ast.Continue)) and not looped):
            yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            inner = looped or isinstance(node, (ast.For, ast.AsyncFor, ast.While))
            stack += [(child, inner) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]


def _head(unit: PythonFile, handler: ast.ExceptHandler) -> Region:
    """Return where the word `except` stands."""
    start, _ = unit.span(handler)  # type: ignore[arg-type]  # a handler has the same positions as a statement
    return unit.region(start, start + len("except"))
