"""What the Python rules have in common: the detector's name, and the calls between the functions of a tree."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from detectors.detector import Facts
from detectors.model import Language, Region
from detectors.parsing import ParsedFile
from detectors.python_parsing import MADE, SUPER, CallSite, Meaning, PythonFile, Reference, Scope

__all__ = ["DETECTOR", "PYTHON", "PythonCallGraph", "PythonCalls", "Target", "as_python", "targets_of"]

DETECTOR = "power-of-ten-python"
PYTHON: frozenset[Language] = frozenset({"python"})
CONSTRUCTORS = ("__new__", "__init__", "__post_init__")
MAX_STEPS = 256
"""Re-exports, bases and attributes that are followed for one call."""

# Built-in functions that call what they are given, and where they take it.
CALLERS: Mapping[str, int | str] = {
    "builtins.map": 0,
    "builtins.filter": 0,
    "functools.reduce": 0,
    "builtins.sorted": "key",
    "builtins.min": "key",
    "builtins.max": "key",
}


_State = tuple[str, int, bool, tuple[str, ...]]
"""A file and the number of a scope in it (or a module's path without suffix, and -1), whether an instance is meant, and
the names that are still to be looked up there."""


class Target(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A `Reference` as plain data."""

    scope: int
    """Number of the scope in the file; -1 for what is imported."""
    level: int
    path: tuple[str, ...]


class _Scope(msgspec.Struct, frozen=True, array_like=True, gc=False):
    kind: str
    qualname: str
    region: tuple[int, int, int, int]
    members: dict[str, tuple[Target, ...]]
    """Of modules and classes: what their names stand for; empty where that cannot be known."""
    bases: tuple[Target, ...]
    calls: tuple[Target, ...]


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    scopes: dict[int, _Scope]
    """By number; 0 is the module."""
    stars: tuple[Target, ...]


class PythonCalls(Facts):
    """Functions, classes and modules, and what they call."""

    id = "python-calls"
    detector = DETECTOR
    languages = PYTHON
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_python(parsed)
        hidden = _hidden(unit)
        targets = _Targets()
        calls = _calls(unit, targets)
        scopes = {
            scope.number: _Scope(
                scope.kind,
                scope.qualname,
                _place(unit, scope),
                {} if scope.kind == "function" else _members(unit, scope, hidden.get(scope, set()), targets),
                tuple(_bases(unit, scope, targets)),
                tuple(calls.get(scope.number, ())),
            )
            for scope in unit.scopes
            if scope.kind != "comprehension"
        }
        stars = tuple(Target(-1, star.level, star.path) for _, star in unit.scopes[0].stars)
        return _FileFacts(scopes, stars)


class PythonCallGraph:
    """
    The calls between the functions of a tree.

    Args:
        facts: `python-calls` by report path.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._files = {path: msgspec.convert(value, _FileFacts) for path, value in sorted(facts.items())}
        self._folders = frozenset(
            "/".join(path.split("/")[:depth]) for path in self._files for depth in range(path.count("/") + 1)
        )
        self._packages: dict[str, list[str]] = {}
        for path in self._files:
            folder = path.removesuffix("/__init__.py")
            if folder != path and not self._is_package(_parent(folder)):
                self._packages.setdefault(folder.rpartition("/")[2], []).append(folder)
        self.nodes: list[tuple[str, str, Region]] = []
        """(report path, qualified name, region of the name)."""
        numbers: dict[tuple[str, int], int] = {}
        for path, file in self._files.items():
            for number, scope in sorted(file.scopes.items()):
                if scope.kind == "function":
                    numbers[path, number] = len(self.nodes)
                    self.nodes.append((path, scope.qualname, Region(*scope.region)))
        self._numbers = numbers

    @functools.cached_property
    def edges(self) -> list[tuple[int, ...]]:
        """For each of `nodes` the numbers of those that it calls."""
        numbers = self._numbers
        return [
            tuple(
                sorted(
                    {
                        numbers[callee]
                        for target in self._files[path].scopes[number].calls
                        for callee in self._callees(path, target)
                    }
                )
            )
            for path, number in numbers
        ]

    def functions(self, path: str, target: Target) -> Iterator[tuple[str, int]]:
        """Yield (report path, number) of the functions that `target`, seen in the file `path`, means; no classes."""
        for where, number, made in self._resolved(path, target):
            if not made and self._files[where].scopes[number].kind == "function":
                yield where, number

    def _callees(self, path: str, target: Target) -> Iterator[tuple[str, int]]:
        """Yield the functions that a call of `target` in the file `path` enters."""
        for where, number, made in self._resolved(path, target):
            if self._files[where].scopes[number].kind == "function":
                yield where, number
                continue
            for method in ("__call__",) if made else CONSTRUCTORS:
                for found, inner, _ in self._resolved(where, Target(number, 0, (MADE, method))):
                    if self._files[found].scopes[inner].kind == "function":
                        yield found, inner

    def _resolved(self, path: str, target: Target) -> Iterator[tuple[str, int, bool]]:
        """Yield the functions and classes that a target means; True for an instance of the class."""
        for state in self._start(path, target):
            if state not in self._ends:
                # Files that import the same ask for the same.
                self._ends[state] = tuple(self._followed(state))
            yield from self._ends[state]

    @functools.cached_property
    def _ends(self) -> dict[_State, tuple[tuple[str, int, bool], ...]]:
        return {}

    def _followed(self, start: _State) -> Iterator[tuple[str, int, bool]]:
        todo = [start]
        seen: set[_State] = set()
        for _ in range(MAX_STEPS):
            if not todo:
                return
            state = todo.pop()
            where, number, made, rest = state
            if rest and state not in seen:
                seen.add(state)
                todo += self._in_module(where, rest) if number < 0 else self._in_scope(where, number, made, rest)
            elif number >= 0 and not rest:
                yield where, number, made

    def _start(self, path: str, target: Target) -> Iterator[_State]:
        """Turn what is written in the file `path` into a place to look from."""
        if target.scope >= 0:
            yield path, target.scope, False, target.path
        elif target.level > 0:
            folders = path.split("/")
            if target.level <= len(folders):
                yield "/".join(folders[: -target.level]), -1, False, target.path
        elif target.path:
            base = self._root(_parent(path), target.path[0])
            if base is not None:
                yield base, -1, False, target.path[1:]

    def _in_scope(self, path: str, number: int, made: bool, rest: tuple[str, ...]) -> Iterator[_State]:
        scope = self._files[path].scopes[number]
        name = rest[0]
        if scope.kind != "class":
            return
        if name == MADE:
            if not made:
                yield path, number, True, rest[1:]
            return
        if name == SUPER:
            targets, after = scope.bases, (MADE, *rest[1:])
        elif name in scope.members:
            targets, after = scope.members[name], rest[1:]
        else:
            targets, after = scope.bases, (MADE, *rest) if made else rest
        for target in targets:
            yield from self._start(path, _further(target, after))

    def _in_module(self, base: str, rest: tuple[str, ...]) -> tuple[_State, ...]:
        """Look up `rest` in the module or folder `base` (its path without suffix); the same few are asked for often."""
        key = base, rest
        if key not in self._looked_up:
            self._looked_up[key] = tuple(self._look_up(base, rest))
        return self._looked_up[key]

    @functools.cached_property
    def _looked_up(self) -> dict[tuple[str, tuple[str, ...]], tuple[_State, ...]]:
        return {}

    def _look_up(self, base: str, rest: tuple[str, ...]) -> Iterator[_State]:
        path = self._file_of(base)
        inner = _join(base, rest[0])
        if path is not None and rest[0] in self._files[path].scopes[0].members:
            for target in self._files[path].scopes[0].members[rest[0]]:
                yield from self._start(path, _further(target, rest[1:]))
        elif inner in self._folders or f"{inner}.py" in self._files:
            yield inner, -1, False, rest[1:]
        elif path is not None:
            for star in self._files[path].stars:
                yield from self._start(path, _further(star, rest))

    @functools.cached_property
    def _roots(self) -> dict[tuple[str, str], str | None]:
        return {}

    def _root(self, folder: str, top: str) -> str | None:
        """Return where the top-level name `top` is found from a file in `folder`, without suffix."""
        if (folder, top) not in self._roots:
            self._roots[folder, top] = self._find_root(folder, top)
        return self._roots[folder, top]

    def _find_root(self, folder: str, top: str) -> str | None:
        parts = folder.split("/") if folder else []
        above = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
        # Python looks where the program was started: any folder above may be that, but none inside of a package.
        starts = [start for place in above if not self._is_package(place) for start in (place, _join(place, "src"))]
        candidates = [_join(start, top) for start in starts]
        for candidate in candidates:
            if self._file_of(candidate) is not None:
                return candidate
        if len(self._packages.get(top, ())) == 1:
            return self._packages[top][0]
        return next((candidate for candidate in candidates if candidate in self._folders), None)

    def _file_of(self, base: str) -> str | None:
        return next((path for path in (_join(base, "__init__.py"), f"{base}.py") if path in self._files), None)

    def _is_package(self, folder: str) -> bool:
        return _join(folder, "__init__.py") in self._files


def as_python(parsed: ParsedFile) -> PythonFile:
    """Return the parsed file as what it is for this language."""
    assert isinstance(parsed, PythonFile), "Python rules are asked for Python only"
    return parsed


_Known: TypeAlias = tuple[Meaning, tuple[Target, ...], tuple[int | str, ...]]


class _Targets:
    """Meanings as plain data; the same few are asked for again and again."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def of(self, meaning: Meaning) -> tuple[Target, ...]:
        """Return the targets of a meaning."""
        return self.known(meaning)[1]

    def known(self, meaning: Meaning) -> _Known:
        """Return what is kept of a meaning: its targets, and which argument it calls if it may be one of CALLERS."""
        found = self._known.get(id(meaning))
        if found is None:
            places = (CALLERS.get(".".join(item.path)) for item in meaning.references if item.scope is None)
            callers = tuple(place for place in places if place is not None)
            # The meaning is kept too, so that no other can take its id.
            self._known[id(meaning)] = found = meaning, tuple(targets_of(meaning.references)), callers
        return found


def _calls(unit: PythonFile, targets: _Targets) -> dict[int, dict[Target, None]]:
    """Return what each function calls, by its number."""
    inside: dict[Scope | None, list[Scope]] = {}
    for scope in unit.scopes:
        inside.setdefault(scope.parent, []).append(scope)
    found: dict[int, dict[Target, None]] = {}
    first = 0
    for scope in unit.scopes:
        sites = unit.calls[first : first + len(scope.calls)]
        first += len(sites)
        if scope.function is not None and (sites or scope in inside):
            mine = found.setdefault(scope.function.number, {})
            for called in _called(unit, scope, sites, inside.get(scope, ()), targets):
                mine.update(dict.fromkeys(called))
    return found


def _called(
    unit: PythonFile, scope: Scope, sites: Sequence[CallSite], inside: Sequence[Scope], targets: _Targets
) -> Iterator[tuple[Target, ...]]:
    """Yield what the statements of a scope call, each as all that it may be."""
    for _, call, meaning, _ in sites:
        _, means, callers = targets.known(meaning)
        if means:
            yield means
        for place in callers:
            given = call.args[:1] if place == 0 else [word.value for word in call.keywords if word.arg == place]
            for argument in given:
                yield tuple(Target(inner.number, 0, ()) for inner in inside if inner.node is argument)
                yield targets.of(unit.resolve(argument, scope))
    for inner in inside:
        for decorator in getattr(inner.node, "decorator_list", ()):
            if not isinstance(decorator, ast.Call):
                yield targets.of(unit.resolve(decorator, scope))


def targets_of(references: tuple[Reference, ...]) -> Iterator[Target]:
    """Yield references as plain data, without those to what is built in."""
    for item in references:
        if item.scope is not None:
            yield Target(item.scope.number, 0, item.path)
        elif item.level or item.path[0] != "builtins":
            yield Target(-1, item.level, item.path)


def _members(unit: PythonFile, scope: Scope, hidden: set[str], targets: _Targets) -> dict[str, tuple[Target, ...]]:
    found = {name: targets.of(unit.resolve_name(name, scope)) for name in sorted(scope.bindings) if name not in hidden}
    # In a class, a name that nothing is known of still hides that of a base.
    kept = {name: means for name, means in found.items() if means or scope.kind == "class"}
    return {**kept, **dict.fromkeys(sorted(hidden & scope.bindings.keys()), ())}


def _hidden(unit: PythonFile) -> dict[Scope, set[str]]:
    """Return, for each class, the names that its methods assign on `self`, which hide its methods."""
    found: dict[Scope, set[str]] = {}
    for scope in unit.scopes:
        for store in scope.stores:
            if isinstance(store, ast.Attribute) and isinstance(store.value, ast.Name):
                for reference in unit.resolve(store.value, scope).references:
                    if reference.scope is not None and reference.path == (MADE,):
                        found.setdefault(reference.scope, set()).add(store.attr)
    return found


def _bases(unit: PythonFile, scope: Scope, targets: _Targets) -> Iterator[Target]:
    if scope.kind != "class" or scope.parent is None:
        return
    for base in scope.node.bases:
        # `class A(Generic[T])` and `class A(B[int])`: what stands before the bracket.
        plain = base.value if isinstance(base, ast.Subscript) else base
        yield from targets.of(unit.resolve(plain, scope.parent))


def _place(unit: PythonFile, scope: Scope) -> tuple[int, int, int, int]:
    if scope.kind == "module":
        region = Region(1)
        return region.start_line, region.start_column, region.end_line, region.end_column
    return unit.place_of_name(scope)


def _further(target: Target, rest: tuple[str, ...]) -> Target:
    return Target(target.scope, target.level, (*target.path, *rest))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
