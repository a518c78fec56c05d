"""What the C rules have in common: the detector's name, languages, and the facts of calls over the whole tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from detectors.c_parsing import Call, CFile, Function
from detectors.detector import Facts
from detectors.model import Language, Region
from detectors.parsing import ParsedFile

__all__ = ["C_LANGUAGES", "DETECTOR", "CCalls", "CallGraph", "FunctionFacts", "as_c"]

DETECTOR = "power-of-ten-c"
C_LANGUAGES: frozenset[Language] = frozenset({"c", "cpp"})
HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tcc")
ALLOCATION = frozenset(
    b"malloc calloc realloc reallocarray free cfree alloca __builtin_alloca aligned_alloc posix_memalign "
    b"memalign valloc pvalloc strdup strndup strdupa strndupa wcsdup asprintf vasprintf getline "
    b"getdelim sbrk brk open_memstream "
    b"_alloca _malloca _strdup _aligned_malloc _aligned_free _aligned_realloc".split()
)
MAX_EXPANSIONS = 1_000


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where something stands: line and column from 1, and the end."""

    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def region(self) -> Region:
        """As a region."""
        return Region(self.line, self.column, self.end_line, self.end_column)


class FunctionFacts(msgspec.Struct, frozen=True, array_like=True):
    """What tree rules know of a function."""

    name: str
    scope: str
    static: bool
    parameters: int
    place: Place
    calls: tuple[tuple[str, int], ...]
    """(name, number of arguments), each once."""
    allocations: tuple[tuple[str, Place], ...]


class _FileFacts(msgspec.Struct, frozen=True, array_like=True):
    functions: tuple[FunctionFacts, ...]
    macros: dict[str, tuple[tuple[str, int], ...]]
    """Macro to the calls of its body."""
    loose: tuple[tuple[str, Place], ...]
    """Allocations in macro bodies."""


class CCalls(Facts):
    """Functions with their linkage, what they call, and where they allocate."""

    id = "c-calls"
    detector = DETECTOR
    languages = C_LANGUAGES

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts` as plain lists."""
        unit = as_c(parsed)
        calls: dict[int, dict[tuple[str, int], None]] = {}
        allocations: dict[int, list[tuple[str, Place]]] = {}
        hidden: dict[int, frozenset[str]] = {function.body: unit.locals_of(function) for function in unit.functions}
        for call in unit.calls:
            owner = unit.function_at(call.start)
            if owner is None or call.name in hidden[owner.body]:
                continue
            calls.setdefault(owner.body, {})[call.name, call.arguments] = None
            if _last(call) in ALLOCATION:
                place = _place(unit, call.start, call.start + len(_last(call)))
                allocations.setdefault(owner.body, []).append((call.name, place))
        constants = frozenset(macro.name.encode() for macro in unit.macros if macro.calls)
        for start, word in unit.words(constants):
            # A macro without parameters calls what its body calls, though no parenthesis follows its name.
            owner = unit.function_at(start)
            if owner is not None:
                calls.setdefault(owner.body, {})[word, -1] = None
        for kind in ("new", "delete"):
            for node in unit.nodes(kind):
                owner = unit.function_at(node.start_byte)
                if owner is not None:
                    place = _place(unit, node.start_byte, node.end_byte)
                    allocations.setdefault(owner.body, []).append((kind, place))
        facts = _FileFacts(
            tuple(
                self._function(unit, f, tuple(calls.get(f.body, ())), allocations.get(f.body, []))
                for f in unit.functions
            ),
            {
                macro.name: tuple((call.name, call.arguments) for call in macro.calls)
                for macro in unit.macros
                if macro.calls
            },
            tuple(
                (call.name, _place(unit, call.start, call.start + len(_last(call))))
                for macro in unit.macros
                for call in macro.calls
                if _last(call) in ALLOCATION
            ),
        )
        return msgspec.to_builtins(facts)

    def _function(
        self, unit: CFile, function: Function, calls: tuple[tuple[str, int], ...], allocations: list[tuple[str, Place]]
    ) -> FunctionFacts:
        place = _place(unit, function.name_start, function.name_end)
        return FunctionFacts(
            function.name,
            function.scope,
            function.static,
            function.parameters,
            place,
            calls,
            tuple(sorted(allocations, key=lambda a: a[1].line)),
        )


class CallGraph:
    """
    The calls of a whole tree, resolved by linkage.

    A call means a function of the same file; else an external one, or a static one of a header. Where several files
    define it (platforms), the nearest by folder is meant. A macro stands for the calls of its body.

    Args:
        facts: `c-calls` by report path.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.files = {path: msgspec.convert(value, _FileFacts) for path, value in facts.items()}
        self.nodes: list[tuple[str, FunctionFacts]] = [
            (path, function) for path, file in self.files.items() for function in file.functions
        ]
        self._own: dict[tuple[str, str], list[int]] = {}
        self._visible: dict[str, list[int]] = {}
        for number, (path, function) in enumerate(self.nodes):
            self._own.setdefault((path, function.name), []).append(number)
            if not function.static or path.endswith(HEADERS):
                self._visible.setdefault(function.name, []).append(number)
        self._macros: dict[str, tuple[tuple[str, int], ...]] = {}
        for path, file in sorted(self.files.items()):
            if path.endswith(HEADERS):
                for name, calls in file.macros.items():
                    self._macros.setdefault(name, calls)
        self.edges = [self._callees(number) for number in range(len(self.nodes))]

    def _callees(self, caller: int) -> tuple[int, ...]:
        path, function = self.nodes[caller]
        own_macros = self.files[path].macros
        pending = list(function.calls)
        seen = set(pending)
        found: set[int] = set()
        for _ in range(MAX_EXPANSIONS):
            if not pending:
                break
            name, arguments = pending.pop()
            body = own_macros.get(name) or self._macros.get(name)
            if body is not None and (path, name) not in self._own:
                fresh = [call for call in body if call not in seen]
                seen.update(fresh)
                pending += fresh
                continue
            target = self._resolve(path, function, name, arguments)
            if target is not None:
                found.add(target)
        return tuple(sorted(found))

    def _resolve(self, path: str, caller: FunctionFacts, name: str, arguments: int) -> int | None:
        qualifier, qualified, last = name.rpartition("::")
        candidates = self._own.get((path, last)) or self._visible.get(last, [])
        if qualified:
            wanted = qualifier.removeprefix("::")
            inside = [n for n in candidates if f"::{self.nodes[n][1].scope}".endswith(f"::{wanted}")]
            return max(inside, key=lambda n: (_near(path, self.nodes[n][0]), -n), default=None)
        if not path.endswith((".c", ".h")) or any(self.nodes[n][1].scope for n in candidates):
            candidates = [n for n in candidates if self._fits(caller, self.nodes[n][1], arguments)]
            if len({self.nodes[n][1].scope for n in candidates}) > 1:
                inner = [n for n in candidates if self.nodes[n][1].scope == caller.scope]
                candidates = inner or [n for n in candidates if not self.nodes[n][1].scope]
            if len(candidates) > 1 and len({self.nodes[n][0] for n in candidates}) == 1:
                return None  # overloads that only types tell apart
        if not candidates:
            return None
        return max(candidates, key=lambda n: (_near(path, self.nodes[n][0]), -n))

    def _fits(self, caller: FunctionFacts, callee: FunctionFacts, arguments: int) -> bool:
        counts = arguments < 0 or callee.parameters < 0 or arguments == callee.parameters
        # A plain name reaches the own class and the scopes around it, not another class's members.
        reaches = not callee.scope or caller.scope == callee.scope or caller.scope.startswith(callee.scope + "::")
        return counts and reaches


def as_c(parsed: ParsedFile) -> CFile:
    """Return the parsed file as what it is for these languages."""
    assert isinstance(parsed, CFile), "C rules are asked for C and C++ only"
    return parsed


def calls_named(unit: CFile, names: frozenset[bytes]) -> Iterator[tuple[str, int]]:
    """Yield (name, offset) of live calls to `names`, in macro bodies too."""
    for call in unit.calls:
        if _last(call) in names:
            yield call.name, call.start
    for macro in unit.macros:
        for call in macro.calls:
            if _last(call) in names:
                yield call.name, call.start


def _last(call: Call) -> bytes:
    """Return a call's name without its qualification."""
    return call.name.rpartition("::")[2].encode()


def _place(unit: CFile, start: int, end: int) -> Place:
    region = unit.region(start, end)
    return Place(region.start_line, region.start_column, region.end_line, region.end_column)


def _near(one: str, other: str) -> int:
    """Return how many leading folders two paths share; the same file is nearest of all."""
    if one == other:
        return 1_000_000
    shared = 0
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left != right:
            break
        shared += 1
    return shared
