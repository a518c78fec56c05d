"""What the C rules have in common: the detector's name, languages, and the facts of calls over the whole tree."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from detectors.c_parsing import Call, CFile, Function
from detectors.detector import Facts
from detectors.model import Language, Region
from detectors.parsing import ParsedFile

__all__ = ["C_LANGUAGES", "DETECTOR", "CCalls", "CallGraph", "FunctionFacts", "Place", "as_c", "place_of"]

DETECTOR = "power-of-ten-c"
C_LANGUAGES: frozenset[Language] = frozenset({"c", "cpp"})
HEADERS = (".h", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tcc")
ALLOCATION = frozenset(
    b"malloc calloc realloc reallocarray free cfree alloca __builtin_alloca aligned_alloc posix_memalign "
    b"memalign valloc pvalloc strdup strndup strdupa strndupa wcsdup asprintf vasprintf getline "
    b"getdelim sbrk brk open_memstream reallocf recallocarray freezero __builtin_malloc __builtin_free "
    b"__builtin_alloca_with_align make_unique make_shared allocate_shared "
    b"_alloca _malloca _strdup _aligned_malloc _aligned_free _aligned_realloc".split()
)
ALLOCATORS = frozenset(name.decode() for name in ALLOCATION)
ALWAYS_ALLOCATION = frozenset({"malloc", "calloc", "realloc", "free"})
"""Names that stay the allocator's, though the tree defines a function of that name for others to see."""
MAKES = re.compile(rb"\b(make_unique|make_shared|allocate_shared)\s*+<")
"""What calls `new` for a type; the brackets keep it from looking like a call."""
MAX_EXPANSIONS = 1_000
Meaning = tuple[int, int, tuple[int, ...] | None]
"""
What a name calls in the functions of a file whose last line is one of these (the second excluded), since a macro counts
only where it was defined before; `None` where it hangs on the call or the function's class, too.
"""
NO_LINE = 1 << 62
UNSETTLED: Meaning = (0, NO_LINE, None)


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where something stands: line and column from 1, and the end."""

    line: int
    column: int
    end_line: int
    end_column: int

    @property
    def region(self) -> Region:
        """As a region."""
        return Region(self.line, self.column, self.end_line, self.end_column)


class FunctionFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What tree rules know of a function."""

    name: str
    scope: str
    static: bool
    parameters: int
    place: Place
    """Of the name."""
    last_line: int
    calls: tuple[tuple[str, int], ...]
    """(name, number of arguments), each once; in C++ with its qualifier, such as `this::f`, `::f` or `std::f`."""
    allocations: tuple[tuple[str, Place], ...]


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    functions: tuple[FunctionFacts, ...]
    macros: dict[str, tuple[int, tuple[tuple[str, int], ...]]]
    """Macro to the line of its first definition and the calls of its bodies."""
    loose: tuple[tuple[str, Place], ...]
    """Allocations in macro bodies."""
    handed_on: frozenset[str]
    """The file's functions that are used as values, so that nobody can tell who calls them."""


class CCalls(Facts):
    """Functions with their linkage, what they call, and where they allocate."""

    id = "c-calls"
    detector = DETECTOR
    languages = C_LANGUAGES
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_c(parsed)
        calls: dict[int, dict[tuple[str, int], None]] = {}
        allocations: dict[int, list[tuple[str, Place]]] = {}
        for call, owner in unit.calls_in_functions:
            if call.name in unit.declared and call.name in unit.locals_of(owner):
                continue
            calls.setdefault(owner.body, {})[_qualified(call), call.arguments] = None
            if call.name in ALLOCATORS and call.qualifier in {None, "", "std"}:
                place = place_of(unit, call.start, call.start + len(call.name))
                allocations.setdefault(owner.body, []).append((call.name, place))
        # One that is also a variable is a macro in one configuration, and in the next it calls nothing.
        constants = frozenset(
            macro.name.encode()
            for macro in unit.macros
            if macro.calls and not macro.takes_arguments and macro.name not in unit.globals
        )
        for start, word in unit.words(constants):
            # A macro without parameters calls what its body calls, though no parenthesis follows its name.
            user = unit.function_at(start)
            if user is not None:
                calls.setdefault(user.body, {})[word, -1] = None
        for start, end, kind in _operators(unit):
            user = unit.function_at(start)
            if user is not None:
                allocations.setdefault(user.body, []).append((kind, place_of(unit, start, end)))
        lines: dict[str, int] = {}
        macros: dict[str, dict[tuple[str, int], None]] = {}
        for macro in unit.macros:
            if macro.calls:
                lines.setdefault(macro.name, unit.line_of(macro.start))
            for call in macro.calls:
                # Definitions of one name under several conditions all count.
                macros.setdefault(macro.name, {})[_qualified(call), call.arguments] = None
        return _FileFacts(
            tuple(
                _function_facts(unit, f, tuple(calls.get(f.body, ())), allocations.get(f.body, []))
                for f in unit.functions
            ),
            {name: (lines[name], tuple(body)) for name, body in macros.items()},
            tuple(
                (call.name, place_of(unit, call.start, call.start + len(call.name)))
                for macro in unit.macros
                for call in macro.calls
                if call.name in ALLOCATORS
            ),
            frozenset(name for name in {function.name for function in unit.functions} if unit.is_value(name)),
        )


def _function_facts(
    unit: CFile, function: Function, calls: tuple[tuple[str, int], ...], allocations: list[tuple[str, Place]]
) -> FunctionFacts:
    return FunctionFacts(
        function.name,
        function.scope,
        function.static,
        function.parameters,
        place_of(unit, function.name_start, function.name_end),
        unit.line_of(function.end),
        calls,
        tuple(sorted(allocations, key=lambda allocation: (allocation[1].line, allocation[1].column))),
    )


def _qualified(call: Call) -> str:
    return call.name if call.qualifier is None else f"{call.qualifier}::{call.name}"


def _operators(unit: CFile) -> Iterator[tuple[int, int, str]]:
    for node in unit.nodes("new"):
        placement = node.child_by_field_name("placement")
        # `new (place) T` builds in memory that is there; `new (std::nothrow) T` allocates like any other.
        if placement is None or b"nothrow" in (placement.text or b""):
            yield node.start_byte, node.end_byte, "new"
    for node in unit.nodes("delete"):
        yield node.start_byte, node.end_byte, "delete"
    if unit.dialect == "cpp":
        for match in MAKES.finditer(unit.layout.code):
            yield match.start(1), match.end(1), "new"


class CallGraph:
    """
    The calls of a whole tree, resolved by linkage.

    A call means a function of the same file; else an external one, or a static one of a header. Where several files
    define it (platforms), the nearest by folder is meant. A macro stands for the calls of its body, unless the tree
    has a function of its name: then the macro wraps the function in some configurations, and in others it does not.

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
        headers = [file for path, file in self.files.items() if path.endswith(HEADERS)]
        defined = Counter(name for file in headers for name in file.macros)
        # Which of several headers a file includes is not known; what only one of them says is taken.
        self._macros = {
            name: calls for file in headers for name, (_, calls) in file.macros.items() if defined[name] == 1
        }
        self._split: dict[str, list[str]] = {}
        self._alike: dict[str, dict[str, Meaning]] = {path: {} for path in self.files}
        self._spoken = frozenset(
            itertools.chain(
                (function.name for _, function in self.nodes), *(file.macros for file in self.files.values())
            )
        )
        """Names that mean something somewhere in the tree."""
        self.edges = [self._callees(number) for number in range(len(self.nodes))]

    def is_allocator(self, path: str, name: str) -> bool:
        """Tell whether `name`, called in a file, is the allocator's and not a function of the tree."""
        own = self._own.get((path, name), ())
        if any(self.nodes[number][1].static for number in own):
            return False
        return name in ALWAYS_ALLOCATION or not (own or self._visible.get(name))

    def _callees(self, caller: int) -> tuple[int, ...]:
        path, function = self.nodes[caller]
        found: set[int] = set()
        seen: set[tuple[str, int]] = set()
        pending = self._unsettled(path, function, function.calls, seen, found)
        for _ in range(MAX_EXPANSIONS):
            if not pending:
                break
            name, arguments = pending.pop()
            body = self._body_of(path, function, name)
            if body is None or any(call[0] == name for call in body):
                # A macro is not expanded in its own body: there, the name is the function's.
                found.update(self._resolve(path, function, name, arguments))
            if body is not None:
                others = [call for call in body if call[0] != name]
                pending += self._unsettled(path, function, others, seen, found)
        return tuple(sorted(found))

    def _unsettled(
        self,
        path: str,
        function: FunctionFacts,
        calls: Iterable[tuple[str, int]],
        seen: set[tuple[str, int]],
        found: set[int],
    ) -> list[tuple[str, int]]:
        """Add what calls mean to `found`; return those, not seen before, whose meaning hangs on function or call."""
        known = self._alike[path]
        spoken, last_line = self._spoken, function.last_line
        unsettled = []
        for call in calls:
            name = call[0]
            meaning = known.get(name)
            if meaning is None and name not in spoken and "::" not in name:
                continue  # many names: functions that the tree does not have
            if meaning is None or not meaning[0] <= last_line < meaning[1]:
                meaning = known[name] = self._means(path, function, name)
            if meaning[2]:
                found.update(meaning[2])
            elif meaning[2] is None and call not in seen:
                seen.add(call)
                unsettled.append(call)
        assert len(unsettled) <= len(seen), "each is looked at once"
        return unsettled

    def _means(self, path: str, function: FunctionFacts, name: str) -> Meaning:
        """Return what a name calls in the functions of a file that end where this one does, or near it."""
        if "::" not in name:
            candidates = self._own.get((path, name))
            if candidates is None and name not in self.files[path].macros:
                candidates = self._visible.get(name)
                if candidates is None and name not in self._macros:
                    return 0, NO_LINE, ()
            if _has_overloads(path):
                return UNSETTLED
            if candidates is not None and len(candidates) == 1 and not self.nodes[candidates[0]][1].scope:
                return 0, NO_LINE, (candidates[0],)
        return self._expanded(path, function, name)

    def _expanded(self, path: str, function: FunctionFacts, name: str) -> Meaning:
        """Return what a name calls through macros, some of which count only from their definition on."""
        macros = self.files[path].macros
        pending, seen = [name], {name}
        found: set[int] = set()
        first, end = 0, NO_LINE
        for _ in range(MAX_EXPANSIONS):
            if not pending:
                break
            word = pending.pop()
            if "::" in word or _has_overloads(path):
                return UNSETTLED
            own = self._own.get((path, word))
            line, body = (0, None) if own else macros.get(word, (0, None))
            if line > function.last_line:
                end, body = min(end, line), None
            else:
                first = max(first, line)
            candidates = own or self._visible.get(word, [])
            if line == 0 and not candidates:
                body = self._macros.get(word)
            if body is not None:
                others = [call[0] for call in body if call[0] not in seen]
                seen.update(others)
                pending += others
                if all(call[0] != word for call in body):
                    continue
                # A macro is not expanded in its own body: there, the name is the function's.
            if not path.endswith(".c") and any(self.nodes[number][1].scope for number in candidates):
                return UNSETTLED
            found.update(self._resolve(path, function, word, -1))
        assert first <= function.last_line < end, "it is of this function at least"
        return first, end, tuple(found)

    def _body_of(self, path: str, function: FunctionFacts, name: str) -> tuple[tuple[str, int], ...] | None:
        """Return the calls of the macro that `name` means in a function, if it means one."""
        if (path, name) in self._own:
            return None
        line, body = self.files[path].macros.get(name, (0, None))
        if body is not None:
            return body if line <= function.last_line else None
        return None if name in self._visible else self._macros.get(name)

    def _resolve(self, path: str, caller: FunctionFacts, written: str, arguments: int) -> tuple[int, ...]:
        qualifier, separator, name = written.rpartition("::")
        own = self._own.get((path, name))
        candidates = own or self._visible.get(name, [])
        if separator:
            candidates = [n for n in candidates if _qualifies(qualifier, caller.scope, self.nodes[n][1].scope)]
        if not candidates:
            return ()
        if path.endswith(".c") or not (_has_overloads(path) or any(self.nodes[n][1].scope for n in candidates)):
            candidates = [n for n in candidates if not self.nodes[n][1].scope]
            if own:
                return tuple(candidates)  # one function under several conditions
        else:
            candidates = [n for n in candidates if self._fits(caller, self.nodes[n][1], arguments)]
            if len({self.nodes[n][1].scope for n in candidates}) > 1:
                nearest = max(len(self.nodes[n][1].scope) for n in candidates)
                candidates = [n for n in candidates if len(self.nodes[n][1].scope) == nearest]
            if len(candidates) > 1 and len({self.nodes[n][0] for n in candidates}) == 1:
                return ()  # overloads that only types tell apart
        if not candidates:
            return ()
        if len(candidates) == 1:
            return (candidates[0],)
        folders = self._folders(path)
        return (max(candidates, key=lambda n: (_near(folders, self._folders(self.nodes[n][0])), -n)),)

    def _folders(self, path: str) -> list[str]:
        """Return a path's components, split once."""
        known = self._split.get(path)
        if known is None:
            known = self._split[path] = path.split("/")
        return known

    def _fits(self, caller: FunctionFacts, callee: FunctionFacts, arguments: int) -> bool:
        counts = arguments < 0 or callee.parameters < 0 or arguments == callee.parameters
        # A plain name reaches the own class and the scopes around it, not another class's members.
        reaches = not callee.scope or caller.scope == callee.scope or caller.scope.startswith(callee.scope + "::")
        return counts and reaches


def _has_overloads(path: str) -> bool:
    return not path.endswith((".c", ".h"))


def _qualifies(qualifier: str, caller_scope: str, callee_scope: str) -> bool:
    if qualifier == "this":
        return callee_scope == caller_scope
    if not qualifier:
        return not callee_scope
    return callee_scope == qualifier or callee_scope.endswith("::" + qualifier)


def as_c(parsed: ParsedFile) -> CFile:
    """Return the parsed file as what it is for these languages."""
    assert isinstance(parsed, CFile), "C rules are asked for C and C++ only"
    return parsed


def calls_named(unit: CFile, names: frozenset[bytes]) -> Iterator[tuple[str, int]]:
    """Yield (name, offset) of live calls to `names`, in macro bodies too."""
    wanted = {name.decode() for name in names}
    for calls in (unit.calls, *(macro.calls for macro in unit.macros)):
        for call in calls:
            if call.name in wanted:
                yield call.name, call.start


def place_of(unit: CFile, start: int, end: int) -> Place:
    """Return where the bytes `start` to `end` stand."""
    return Place(*unit.positions(start, end))


def _near(one: list[str], other: list[str]) -> int:
    """Return how many leading folders two paths share; the same file is nearest of all."""
    if one == other:
        return 1_000_000
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return shared
