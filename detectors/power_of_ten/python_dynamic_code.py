"""Rule 8 in Python: what is read is what runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from detectors.detector import FileRule
from detectors.model import Finding, Region
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import PythonFile, dotted

__all__ = ["PythonDynamicCode"]

RUNS = frozenset({"eval", "exec", "compile"})
MAKES = frozenset({"types.new_class", "types.ModuleType", "types.prepare_class", "builtins.__build_class__"})
BUILTINS = frozenset({"builtins", "__builtins__"})


class PythonDynamicCode(FileRule):
    """
    Code, classes or modules made or changed at run time.

    Reported are `eval`, `exec` and `compile` by whatever name they are reached, star imports, metaclasses, classes and
    modules made by a call, and assignments to the attributes of imported modules and classes.

    Why: as with the C preprocessor, the text that a reviewer reads is not the program that runs.
    Instead: functions in a table, explicit imports, plain classes, parameters.
    Not found: names reached through containers or computed strings; patches through `__dict__`.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8, read across to Python.
    """

    id = "P10-R8-python-dynamic-code"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
import re
import abc

class Own:
    pass

def run(text, model):
    pattern = re.compile(text)
    model.eval()
    own = Own()
    own.name = text
    self_type = type(own)
    return pattern, self_type
""",
        """
import builtins
import os
import types
from builtins import eval as e
from os.path import *  # expect: P10-R8-python-dynamic-code
from json import JSONDecoder

run = exec

def f(text):
    eval(text)  # expect: P10-R8-python-dynamic-code
    e(text)  # expect: P10-R8-python-dynamic-code
    builtins.exec(text)  # expect: P10-R8-python-dynamic-code
    run(text)  # expect: P10-R8-python-dynamic-code
    getattr(builtins, "eval")(text)  # expect: P10-R8-python-dynamic-code
    code = compile(text, "f", "exec")  # expect: P10-R8-python-dynamic-code
    return code, type("Made", (), {})  # expect: P10-R8-python-dynamic-code

class Meta(metaclass=type):  # expect: P10-R8-python-dynamic-code
    pass

made = types.ModuleType("made")  # expect: P10-R8-python-dynamic-code
os.sep = "/"  # expect: P10-R8-python-dynamic-code
JSONDecoder.decode = f  # expect: P10-R8-python-dynamic-code
setattr(os, "name", "x")  # expect: P10-R8-python-dynamic-code
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
        own = {definition.name for definition in unit.definitions if definition.qualified == definition.name}
        aliases = _aliases(unit) - own
        handlers: dict[
            type[ast.AST], Callable[[PythonFile, ast.AST, set[str], set[str]], tuple[Region, str] | None]
        ] = {
            ast.Call: _call,
            ast.ImportFrom: _star,
            ast.ClassDef: _metaclass,
            ast.Assign: _patch,
            ast.AugAssign: _patch,
        }
        for node, _ in unit.nodes:
            handler = handlers.get(type(node))
            said = handler(unit, node, aliases, own) if handler is not None else None
            if said is not None:
                yield self.finding(*said)


def _call(unit: PythonFile, node: ast.AST, aliases: set[str], own: set[str]) -> tuple[Region, str] | None:
    assert isinstance(node, ast.Call), "dispatched by type"
    name = _reached(unit, node.func)
    plain = dotted(node.func)
    if plain in own:
        return None
    if plain in aliases or name in RUNS or (name or "").removeprefix("builtins.") in RUNS:
        return unit.at(node.func), f"{plain or name} runs text as code"
    if name in MAKES or (name in {"type", "builtins.type"} and len(node.args) == 3):
        return unit.at(node.func), f"{plain} makes a class or module at run time"
    if name in {"setattr", "builtins.setattr", "delattr"} and node.args and _is_foreign(unit, node.args[0]):
        return unit.at(node.func), f"{plain} changes an imported module or class"
    return None


def _star(unit: PythonFile, node: ast.AST, aliases: set[str], own: set[str]) -> tuple[Region, str] | None:
    del aliases, own
    assert isinstance(node, ast.ImportFrom), "dispatched by type"
    if any(alias.name == "*" for alias in node.names):
        return unit.at(node), "a star import hides where names come from"
    return None


def _metaclass(unit: PythonFile, node: ast.AST, aliases: set[str], own: set[str]) -> tuple[Region, str] | None:
    del aliases, own
    assert isinstance(node, ast.ClassDef), "dispatched by type"
    for keyword in node.keywords:
        if keyword.arg == "metaclass" and unit.resolve(keyword.value) not in {"abc.ABCMeta", "ABCMeta"}:
            return unit.name_of(node), f"{node.name} is made by a metaclass"
    return None


def _patch(unit: PythonFile, node: ast.AST, aliases: set[str], own: set[str]) -> tuple[Region, str] | None:
    del aliases, own
    assert isinstance(node, (ast.Assign, ast.AugAssign)), "dispatched by type"
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        if isinstance(target, ast.Attribute) and _is_foreign(unit, target.value):
            return unit.at(target), f"{dotted(target)} changes an imported module or class"
    return None


def _is_foreign(unit: PythonFile, node: ast.expr) -> bool:
    """Tell whether an expression is an imported module, or an imported name that is written like a class."""
    name = dotted(node)
    if name is None:
        return False
    head, _, rest = name.partition(".")
    origin = unit.imports.get(head)
    if origin is None:
        return False
    is_module = origin == head or any(isinstance(n, ast.Import) and _binds(n, head) for n, _ in unit.nodes)
    last = (rest or head).rpartition(".")[2]
    return (is_module and not rest) or last[:1].isupper()


def _binds(node: ast.Import, name: str) -> bool:
    return any((alias.asname or alias.name.partition(".")[0]) == name for alias in node.names)


def _reached(unit: PythonFile, node: ast.expr) -> str | None:
    """Return the dotted name of what is called; sees through `getattr(builtins, "eval")`."""
    if isinstance(node, ast.Call) and dotted(node.func) == "getattr" and len(node.args) >= 2:
        holder, wanted = unit.resolve(node.args[0]), node.args[1]
        if holder in BUILTINS and isinstance(wanted, ast.Constant) and isinstance(wanted.value, str):
            return f"builtins.{wanted.value}"
        return None
    return unit.resolve(node)


def _aliases(unit: PythonFile) -> set[str]:
    """Return local names that are bound to `eval`, `exec` or `compile`."""
    found = {
        local for local, origin in unit.imports.items() if origin.removeprefix("builtins.") in RUNS and "." in origin
    }
    for node, _ in unit.nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Attribute)):
            name = unit.resolve(node.value) or ""
            if name in RUNS or (name.startswith("builtins.") and name.removeprefix("builtins.") in RUNS):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found
