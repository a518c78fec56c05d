"""What the Python rules have in common: the detector's name, and the facts of calls over the whole tree."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import msgspec

from detectors.detector import Facts
from detectors.model import Language, Region
from detectors.parsing import ParsedFile
from detectors.python_parsing import PythonFile, dotted

__all__ = ["DETECTOR", "PYTHON", "PythonCallGraph", "PythonCalls", "as_python"]

DETECTOR = "power-of-ten-python"
PYTHON: frozenset[Language] = frozenset({"python"})


class _Function(msgspec.Struct, frozen=True, array_like=True):
    qualified: str
    class_name: str | None
    region: tuple[int, int, int, int]
    calls: tuple[str, ...]
    """Dotted names as written, through imports; `self.x` and `cls.x` as such."""


class _FileFacts(msgspec.Struct, frozen=True, array_like=True):
    functions: tuple[_Function, ...]
    bases: dict[str, tuple[str, ...]]
    """Class to its bases, dotted through imports."""


class PythonCalls(Facts):
    """Functions and methods, and the names that they call."""

    id = "python-calls"
    detector = DETECTOR
    languages = PYTHON

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts` as plain lists."""
        unit = as_python(parsed)
        calls: dict[int, dict[str, None]] = {}
        bound = _bound(unit)
        for node, owner in unit.nodes:
            if not isinstance(node, ast.Call) or owner is None:
                continue
            written = dotted(node.func)
            if written is None or written.partition(".")[0] in bound.get(id(owner), frozenset()) - {"self", "cls"}:
                continue
            calls.setdefault(id(owner), {})[unit.resolve(node.func) or written] = None
        functions = []
        for definition in unit.definitions:
            region = unit.name_of(definition.node)
            place = (region.start_line, region.start_column, region.end_line, region.end_column)
            functions.append(
                _Function(definition.qualified, definition.class_name, place, tuple(calls.get(id(definition), ())))
            )
        bases = {
            node.name: tuple(filter(None, (unit.resolve(base) for base in node.bases)))
            for node, _ in unit.nodes
            if isinstance(node, ast.ClassDef)
        }
        return msgspec.to_builtins(_FileFacts(tuple(functions), bases))


class PythonCallGraph:
    """
    The calls between the functions of a tree's modules.

    Args:
        facts: `python-calls` by report path.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        files = {path: msgspec.convert(value, _FileFacts) for path, value in facts.items()}
        self.nodes: list[tuple[str, str, Region]] = []
        """(report path, qualified name, region of the name)."""
        places: dict[tuple[str, str], int] = {}
        callers: list[tuple[str, _Function]] = []
        for path, file in sorted(files.items()):
            for function in file.functions:
                # Of several definitions under one name (overloads, `if` and `else`) the last is what a call means.
                places[path, function.qualified] = len(self.nodes)
                self.nodes.append((path, function.qualified, Region(*function.region)))
                callers.append((path, function))
        self._places, self._files = places, files
        self._modules = {_module(path): path for path in files}
        # A call inside of the earlier of two equal names means the later one: that alone makes no recursion.
        self.edges = [
            tuple(sorted({t for name in function.calls if (t := self._target(path, function, name)) is not None}))
            for path, function in callers
        ]

    def _target(self, path: str, caller: _Function, name: str) -> int | None:
        head, _, rest = name.partition(".")
        if head in {"self", "cls"} and caller.class_name is not None:
            return self._method(path, caller.class_name, rest) if rest and "." not in rest else None
        if name.startswith("."):
            return self._imported(_absolute(path, name))
        # From the inside out: siblings in the functions around, then the module. Methods are no plain names.
        scope = caller.qualified.split(".")
        for depth in range(len(scope), -1, -1):
            around = ".".join(scope[:depth])
            if around and around == caller.class_name:
                continue
            found = self._places.get((path, f"{around}.{name}" if around else name))
            if found is not None:
                return found
        return self._imported(name)

    def _method(self, path: str, class_name: str, name: str) -> int | None:
        """Return the method that `self.name` means, in the class or a base of the same file."""
        pending, seen = [class_name], set()
        for _ in range(64):
            if not pending:
                return None
            current = pending.pop(0)
            seen.add(current)
            found = self._places.get((path, f"{current}.{name}"))
            if found is not None:
                return found
            bases = self._files[path].bases.get(current.rpartition(".")[2], ())
            pending += [base for base in bases if base not in seen]
        return None

    def _imported(self, name: str) -> int | None:
        module, _, rest = name.rpartition(".")
        for _ in range(8):
            if not module:
                return None
            path = self._modules.get(module)
            if path is not None:
                return self._places.get((path, rest))
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}"
        return None


def as_python(parsed: ParsedFile) -> PythonFile:
    """Return the parsed file as what it is for this language."""
    assert isinstance(parsed, PythonFile), "Python rules are asked for Python only"
    return parsed


def _bound(unit: PythonFile) -> dict[int, frozenset[str]]:
    """Return, for each function, the names that its parameters and assignments take away from functions."""
    found: dict[int, set[str]] = {}
    for node, owner in unit.nodes:
        if owner is None:
            continue
        if isinstance(node, ast.arg):
            found.setdefault(id(owner), set()).add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.setdefault(id(owner), set()).add(node.id)
    return {owner: frozenset(names) for owner, names in found.items()}


def _module(path: str) -> str:
    """Return the dotted module of a path: its longest name; a `src` folder is not part of it."""
    parts = path.removesuffix(".pyi").removesuffix(".pyw").removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    if "src" in parts[:-1]:
        parts = parts[parts.index("src") + 1 :]
    return ".".join(parts)


def _absolute(path: str, name: str) -> str:
    dots = len(name) - len(name.lstrip("."))
    package = path.split("/")[:-dots] if dots else []
    if "src" in package:
        package = package[package.index("src") + 1 :]
    return ".".join([*package, name.lstrip(".")])
