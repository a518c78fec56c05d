"""Rule 8 in Python: what is read is what runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import MADE, Meaning, PythonFile, Reference, Scope, namespace_of

__all__ = ["PythonDynamicCode"]

RUNS = frozenset({"builtins.eval", "builtins.exec", "builtins.compile"})
MAKES = frozenset(
    {
        "builtins.__build_class__",
        "dataclasses.make_dataclass",
        "imp.new_module",
        "importlib.util.module_from_spec",
        "six.add_metaclass",
        "six.with_metaclass",
        "types.CodeType",
        "types.FunctionType",
        "types.ModuleType",
        "types.new_class",
    }
)
MAY_MAKE = MAKES | {"builtins.type", "collections.namedtuple"}
SETTERS = frozenset(
    {"builtins.setattr", "builtins.delattr", "builtins.object.__setattr__", "builtins.type.__setattr__"}
)
# A name written like a class, `Session` but not `LIMITS` or `settings`.
CLASS_NAME = re.compile(r"_*[A-Z]\w*[a-z]\w*")

_Place = tuple[ast.expr | ast.stmt, str]


class PythonDynamicCode(FileRule):
    """
    Code, classes or modules made or changed at run time.

    Reported are `eval`, `exec` and `compile` by whatever name they are reached (where they are called, or handed on),
    star imports, metaclasses, classes and modules made by a call, and changes to the attributes of imported modules
    and classes.

    Why: as with the C preprocessor, the text that a reviewer reads is not the program that runs.
    Instead: functions in a table, explicit imports, plain classes, parameters; `abc.ABC` in place of `ABCMeta`.
    Not found: names computed at run time; patches of what `from m import name` brings under a name in lower case, since
    that may be an object made to be changed; patches by libraries such as `mock`; calls of own metaclasses.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8, read across to Python.
    """

    id = "P10-R8-python-dynamic-code"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import re
import abc
import types
from re import compile
from conf import settings

class Own(abc.ABC):
    pass

def run(text, model, eval):
    pattern = re.compile(text)
    model.eval()
    eval(text)
    own = Own()
    own.name = text
    Own.name = text
    settings.debug = True
    self_type = type(own)
    return compile(text), pattern, self_type, isinstance(text, types.ModuleType)

def patched(os):
    os.sep = "/"
""",
        """
import builtins
import os.path
import sys
import types
from builtins import eval as e
from os.path import *  # expect: P10-R8-python-dynamic-code
from json import JSONDecoder

run = exec
again = run

def f(text):
    eval(text)  # expect: P10-R8-python-dynamic-code
    e(text)  # expect: P10-R8-python-dynamic-code
    builtins.exec(text)  # expect: P10-R8-python-dynamic-code
    again(text)  # expect: P10-R8-python-dynamic-code
    getattr(builtins, "eval")(text)  # expect: P10-R8-python-dynamic-code
    vars(builtins)["eval"](text)  # expect: P10-R8-python-dynamic-code
    list(map(eval, text))  # expect: P10-R8-python-dynamic-code
    code = compile(text, "f", "exec")  # expect: P10-R8-python-dynamic-code
    return code, type("Made", (), {})  # expect: P10-R8-python-dynamic-code

class Meta(type):  # expect: P10-R8-python-dynamic-code
    pass

class Made(metaclass=Meta):  # expect: P10-R8-python-dynamic-code
    pass

made = types.ModuleType("made")  # expect: P10-R8-python-dynamic-code
os.sep = "/"  # expect: P10-R8-python-dynamic-code
os.path.sep = "/"  # expect: P10-R8-python-dynamic-code
JSONDecoder.decode = f  # expect: P10-R8-python-dynamic-code
setattr(os, "name", "x")  # expect: P10-R8-python-dynamic-code
sys.modules["made"] = made  # expect: P10-R8-python-dynamic-code
vars(os)["name"] = "x"  # expect: P10-R8-python-dynamic-code
del os.name  # expect: P10-R8-python-dynamic-code
""",
        """
def eval(text):
    return text

def g():
    return eval("1")
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each place."""
        unit = as_python(parsed)
        for scope in unit.scopes:
            if scope.kind == "class" and scope.parent is not None and _is_metaclass_work(unit, scope):
                yield self.finding(unit.name_of(scope), f"{scope.name} is a metaclass or is made by one")
            for statement, _ in scope.stars:
                yield self.finding(unit.at(statement), "a star import hides where names come from")
        modules = _imported_modules(unit)
        for node, message in (*_runs(unit), *_makes(unit), *_changes(unit, modules)):
            yield self.finding(unit.at(node), message)


def _runs(unit: PythonFile) -> Iterator[_Place]:
    """Yield where text is run as code: calls first, then what is handed on without a call that is seen."""
    settled: set[int] = set()
    for _, call, meaning, _ in unit.calls_of(RUNS):
        settled |= {id(item) for item in meaning.passed}
        yield call.func, f"{min(meaning.names & RUNS).removeprefix('builtins.')} runs text as code"
    words = {name.removeprefix("builtins.") for name in RUNS}
    known = words | _imported_names(unit, words)
    # `getattr(builtins, "eval")`, `.eval` of anything, and `eval` by a name of its own.
    fetched = (site for site in unit.calls if site.name == "getattr" and site.node.func.__class__ is ast.Name)
    handed_on: list[ast.expr] = [site.node for site in fetched if unit.dotted(site.node, site.scope) & RUNS]
    # In most files these words stand nowhere; other letters than ASCII's may be folded to them.
    absent = unit.text.isascii() and not any(word in unit.text for word in words)
    for scope in () if absent else unit.scopes:
        suspects: list[ast.expr] = [name for name in scope.loads if name.id in known]
        suspects += [item for item in scope.attributes if item.attr in words]
        handed_on += [item for item in suspects if unit.dotted(item, scope) & RUNS]
    if handed_on:
        settled |= {id(site.node.func) for site in unit.calls}
    for item in handed_on:
        if id(item) not in settled:
            yield item, f"{ast.unparse(item)} is handed on, and runs text as code"


def _makes(unit: PythonFile) -> Iterator[_Place]:
    """Yield calls that make a class, a module or a function."""
    for _, call, meaning, _ in unit.calls_of(MAY_MAKE):
        names = meaning.names
        # `type(x)` asks, `type(name, bases, dict)` makes.
        many = len(call.args) > 1 or any(isinstance(item, ast.Starred) for item in call.args) or call.keywords
        if names & MAKES or (many and "builtins.type" in names):
            made = min(names & (MAKES | {"builtins.type"})).removeprefix("builtins.")
            yield call.func, f"{made} makes a class, module or function at run time"
        elif "collections.namedtuple" in names and len(call.args) > 1 and not _is_written_out(call.args[1]):
            yield call.func, "namedtuple makes a class whose fields are computed"


def _is_written_out(fields: ast.expr) -> bool:
    items = fields.elts if isinstance(fields, (ast.List, ast.Tuple)) else [fields]
    return all(isinstance(item, ast.Constant) for item in items)


def _changes(unit: PythonFile, modules: frozenset[tuple[str, ...]]) -> Iterator[_Place]:
    """Yield where an imported module or class is changed."""
    foreign = _Foreign(modules)
    for scope in unit.scopes:
        for store in scope.stores:
            if isinstance(store, ast.Attribute):
                changed: ast.expr | None = store.value
            else:
                inner = namespace_of(store)
                changed = None if inner is None else inner[0]
                if "sys.modules" in unit.dotted(store.value, scope):
                    yield store, "an entry of sys.modules is changed"
            if changed is not None and foreign.may_be(unit.resolve(changed, scope)):
                yield store, f"{ast.unparse(changed)} is an imported module or class, and is changed"
    for scope, call, _, _ in unit.calls_of(SETTERS):
        if call.args and foreign.may_be(unit.resolve(call.args[0], scope)):
            yield call.func, f"{ast.unparse(call.args[0])} is an imported module or class, and is changed"


class _Foreign:
    """Tells imported modules, and imported names that are written like classes."""

    def __init__(self, modules: frozenset[tuple[str, ...]]) -> None:
        self._modules = modules
        self._known: dict[int, tuple[Meaning, bool]] = {}

    def may_be(self, meaning: Meaning) -> bool:
        """Tell whether an expression of this meaning may be foreign; `self` and its like are asked for often."""
        key = id(meaning)
        if key not in self._known:
            # The meaning is kept too, so that no other can take its id.
            self._known[key] = meaning, any(self._is_foreign(item) for item in meaning.references if item.path)
        return self._known[key][1]

    def _is_foreign(self, item: Reference) -> bool:
        if item.scope is not None or MADE in item.path:
            return False
        module = item.path in self._modules if not item.level else len(item.path) == 1
        return module or CLASS_NAME.fullmatch(item.path[-1]) is not None


def _imported_modules(unit: PythonFile) -> frozenset[tuple[str, ...]]:
    """Return the dotted names that must be modules, since an `import` statement of the file names them."""
    found = {("builtins",), ("os", "path")}
    for scope in unit.scopes:
        for statement in scope.imports:
            for alias in statement.names if isinstance(statement, ast.Import) else ():
                parts = tuple(alias.name.split("."))
                found |= {parts[:depth] for depth in range(1, len(parts) + 1)}
    return frozenset(found)


def _imported_names(unit: PythonFile, words: set[str]) -> set[str]:
    """Return the names under which `from builtins import …` brings one of `words`."""
    return {
        alias.asname or alias.name
        for scope in unit.scopes
        for statement in scope.imports
        for alias in statement.names
        if f"{getattr(statement, 'module', '')}.{alias.name}".strip(".").startswith("builtins.")
        and alias.name.rpartition(".")[2] in words
    }


def _is_metaclass_work(unit: PythonFile, scope: Scope) -> bool:
    assert scope.parent is not None, "a class stands in something"
    outer = scope.parent
    return any(word.arg == "metaclass" for word in scope.node.keywords) or any(
        unit.dotted(base, outer) & {"builtins.type", "abc.ABCMeta", "enum.EnumMeta", "enum.EnumType"}
        for base in scope.node.bases
    )
