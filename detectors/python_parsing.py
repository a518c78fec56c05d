"""
Python source to its syntax tree, scopes and names, in one walk that all rules share.

`PythonFile.scopes` is the index: every module, class, function, lambda and comprehension, with its calls, uses of
names and bindings. `PythonFile.resolve` tells what an expression may stand for: something of this file, or a dotted
name from elsewhere. The walk keeps its own stack, so that no nesting overflows the interpreter's. The code is never
imported or run.
"""

from __future__ import annotations

import ast
import builtins
import functools
import operator
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from detectors.model import Region
from detectors.parsing import ParsedFile, Unparsable

__all__ = [
    "MADE",
    "STATEMENTS",
    "SUPER",
    "CallSite",
    "Import",
    "Meaning",
    "PythonFile",
    "Reference",
    "Scope",
    "namespace_of",
    "parts_of",
]

MADE = "()"
"""Stands in `Reference.path` for an instance of what is named before it."""
SUPER = "super()"
"""Stands in `Reference.path` for the bases of the class."""
MAX_STEPS = 32
"""Aliases of aliases that `resolve` follows before it gives up."""
MAX_DEPTH = 10_000
"""Nesting of scopes and attributes; Python's parser refuses what is deeper long before."""
MAX_ASSIGNED = 8
"""Assignments to one name in one scope that count as aliases; of more, none does."""
MAX_STARS = 500
"""Star imports of a module that a name may come from; of more, none is asked."""

STATEMENTS = (
    ast.While,
    ast.For,
    ast.AsyncFor,
    ast.Assert,
    ast.Expr,
    ast.If,
    ast.Return,
    ast.Try,
    ast.TryStar,
    ast.With,
    ast.AsyncWith,
    ast.Global,
)
"""What rules ask for by `PythonFile.statements`; of `Expr`, those of calls."""

Kind = Literal["module", "class", "function", "comprehension"]

_BUILTINS = frozenset(dir(builtins))
_HEAD = re.compile(rb"(?:(?:async[ \t\f\\\r\n]+)?def|class)[ \t\f\\\r\n]+")
_NAME = re.compile(rb"[^\s(:\[\\]+")
_NO_NODES = frozenset({"ctx", "op", "ops", "id", "attr", "arg", "module", "level", "kind", "kwd_attrs", "conversion"})
_FIELDS: dict[type, tuple[str, ...]] = {
    kind: () if kind is ast.Constant else tuple(field for field in kind._fields if field not in _NO_NODES)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
# Values of fields that are no nodes: names, flags, and the `True` of `case True`.
_FIELDS.update(dict.fromkeys((type(None), str, int, bool), ()))
_GETTERS: dict[type, tuple[Callable[[Any], Any] | None, bool]] = {
    kind: (operator.attrgetter(*fields) if fields else None, len(fields) == 1) for kind, fields in _FIELDS.items()
}
"""What fetches all fields of a kind of node at once, and whether that is the one value itself."""


class Import(NamedTuple):
    """A dotted name from an import statement."""

    level: int
    """Leading dots of a relative import."""
    path: tuple[str, ...]


class Reference(NamedTuple):
    """What an expression may stand for."""

    scope: Scope | None
    """The class or function of this file; `None` for what is imported or built in."""
    level: int
    """Leading dots of a relative import; 0 else."""
    path: tuple[str, ...]
    """Attributes below `scope`, or the whole dotted name (`builtins` leads what is built in); see MADE and SUPER."""


class Meaning(NamedTuple):
    """What an expression may stand for, and how that was found."""

    references: tuple[Reference, ...]
    passed: tuple[ast.expr, ...]
    """The expressions of assignments that led there."""
    names: frozenset[str]
    """The absolute dotted names among the references: what stands outside of this file."""


class CallSite(NamedTuple):
    """A call, where it stands, and what is called."""

    scope: Scope
    node: ast.Call
    meaning: Meaning
    name: str
    """Last word of what is called; empty where that is no name."""


Value: TypeAlias = "Scope | Import | ast.expr | None"
"""What a name is bound to: a `Scope`, an `Import`, the expression assigned, or `None` for what cannot be known."""


class Scope:
    """A module, class, function or comprehension, with what stands in it but not in the scopes inside of it."""

    __slots__ = (
        "attributes",
        "bindings",
        "calls",
        "elsewhere",
        "function",
        "global_names",
        "imports",
        "kind",
        "loads",
        "meanings",
        "name",
        "node",
        "number",
        "parent",
        "stars",
        "statements",
        "stores",
        "yields",
    )

    def __init__(self, kind: Kind, node: Any, parent: Scope | None) -> None:
        self.kind: Kind = kind
        self.node = node
        self.parent = parent
        self.number = 0
        """Position in `PythonFile.scopes`."""
        self.name: str = getattr(node, "name", "<lambda>" if isinstance(node, ast.Lambda) else "")
        """Of a lambda the name that it is assigned to, if there is one."""
        outer = None if parent is None else parent.function
        self.function: Scope | None = self if kind == "function" else outer
        """The nearest function around what stands here, itself included."""
        self.bindings: dict[str, list[Value]] = {}
        self.meanings: dict[str, dict[tuple[str, ...], Meaning]] = {}
        """Of names seen here, by the attributes below them; all scopes that see the same name share its part."""
        self.global_names: set[str] = set()
        self.elsewhere: set[str] = set()
        """Names declared `nonlocal`."""
        self.calls: list[ast.Call] = []
        self.loads: list[ast.Name] = []
        self.attributes: list[ast.Attribute] = []
        """Attributes that are read."""
        self.stores: list[ast.Attribute | ast.Subscript] = []
        """Attributes and items that are assigned or deleted."""
        self.statements: list[ast.stmt] = []
        """Of the kinds in STATEMENTS, in no order."""
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.yields = False
        """Whether it is a generator."""
        self.stars: list[tuple[ast.ImportFrom, Import]] = []

    def bind(self, name: str, value: Value) -> None:
        """Note that `name` is bound here."""
        self.bindings.setdefault(name, []).append(value)

    def parameter(self) -> str:
        """Return the name of the first positional parameter; empty when there is none."""
        if self.kind != "function":
            return ""
        first = self.node.args.posonlyargs or self.node.args.args
        return first[0].arg if first else ""

    def decorators(self) -> frozenset[str]:
        """Return the last words of the decorators' names."""
        found = (
            decorator.func if isinstance(decorator, ast.Call) else decorator
            for decorator in getattr(self.node, "decorator_list", ())
        )
        return frozenset(getattr(item, "attr", getattr(item, "id", "")) for item in found)

    def release(self) -> None:
        """Let go of the other scopes."""
        self.parent = self.function = None
        self.bindings.clear()
        self.meanings.clear()

    @property
    def qualname(self) -> str:
        """The names of the classes and functions around it, and its own, with dots."""
        names = [self.name]
        outer = self.parent
        for _ in range(MAX_DEPTH):
            if outer is None:
                break
            if outer.name:
                names.append(outer.name)
            outer = outer.parent
        return ".".join(reversed(names))


NOTHING = Meaning((), (), frozenset())
_Todo = tuple[ast.expr, Scope, tuple[str, ...], bool]


class PythonFile(ParsedFile):
    """A Python file: tree, scopes and names are made on first use."""

    def __del__(self) -> None:
        """Cut the rings that scopes form, so that they and the tree go with the file, not when the collector comes."""
        for scope in self.__dict__.get("scopes", ()):
            scope.release()

    @property
    def understood(self) -> float:
        """Return 1.0; raises Unparsable, since Python's parser takes a file whole or not at all."""
        assert self.tree is not None
        return 1.0

    @functools.cached_property
    def tree(self) -> ast.Module:
        """
        The syntax tree.

        Raises:
            Unparsable: Python's parser refuses the text, or cannot hold it.
        """
        try:
            return _parse(self.text)
        except RecursionError:
            # How deep a tree may be hangs on how deep the caller's stack is already. A fresh thread has always the
            # same, so that every worker gives the same answer.
            return _parse_in_thread(self.text)

    @functools.cached_property
    def scopes(self) -> Sequence[Scope]:
        """All scopes in order of appearance; the module is the first."""
        return _Indexer(self.tree).run()

    @functools.cached_property
    def functions(self) -> Sequence[Scope]:
        """The scope of every `def` in order of appearance; lambdas are not among them."""
        return [item for item in self.scopes if isinstance(item.node, (ast.FunctionDef, ast.AsyncFunctionDef))]

    @functools.cached_property
    def calls(self) -> Sequence[CallSite]:
        """All calls by scope, and what they call; resolved once for all rules."""
        found = []
        resolve, plain, attribute = self.resolve, ast.Name, ast.Attribute
        for scope in self.scopes:
            for call in scope.calls:
                func: Any = call.func
                kind = func.__class__
                name = func.id if kind is plain else func.attr if kind is attribute else ""
                found.append(CallSite(scope, call, resolve(func, scope), name))
        return found

    def calls_of(self, names: frozenset[str]) -> Sequence[CallSite]:
        """Return the calls of what may be one of these absolute dotted names, each once."""
        known = self._calls_by_name
        found = {id(site.node): site for name in sorted(known.keys() & names) for site in known[name]}
        return tuple(found.values())

    def statements(self, *kinds: type[ast.stmt]) -> Sequence[tuple[Scope, Any]]:
        """Return the statements of some of the kinds in STATEMENTS, kind by kind, each in order of its scope."""
        assert set(kinds) <= set(STATEMENTS), "no others are kept"
        found = self._statements
        if len(kinds) == 1:
            return found.get(kinds[0], ())
        return [item for kind in kinds for item in found.get(kind, ())]

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return the offsets in `source` of a node's first byte and of the byte after its last."""
        start = self._offset(node.lineno, node.col_offset)
        end = self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return start, max(start, end)

    def at(self, node: ast.expr | ast.stmt) -> Region:
        """Return where a node stands."""
        return self.region(*self.span(node))

    def name_of(self, scope: Scope) -> Region:
        """Return where the name of a function or class stands in its definition; the whole of a lambda."""
        return Region(*self.place_of_name(scope))

    def place_of_name(self, scope: Scope) -> tuple[int, int, int, int]:
        """Return what `name_of` returns, as `positions` does."""
        head = _HEAD.match(self.source, self._offset(scope.node.lineno, scope.node.col_offset))
        name = _NAME.match(self.source, head.end()) if head is not None else None
        return self.positions(*(name.span() if name is not None else self.span(scope.node)))

    def lookup(self, name: str, scope: Scope) -> tuple[Scope | None, list[Value]]:
        """Return the scope that binds a name seen in `scope`, and its bindings; `None` if it is built in or unknown."""
        here: Scope | None = scope
        for _ in range(MAX_DEPTH):
            if here is None:
                break
            if name in here.global_names:
                return self.scopes[0], self.scopes[0].bindings.get(name, [])
            # The names of a class are seen by its own statements only, not by the functions inside.
            if name in here.bindings and name not in here.elsewhere and (here is scope or here.kind != "class"):
                return here, here.bindings[name]
            here = here.parent
        return None, []

    def resolve(self, expression: ast.expr, scope: Scope) -> Meaning:
        """
        Return what an expression in `scope` may stand for.

        Known are names, aliases by assignment, imports, attributes, `getattr(x, "name")`, `x.__dict__["name"]`,
        `vars(x)["name"]`, `__import__("name")`, `importlib.import_module("name")`, `self`, `cls`, `super()` and
        instances made on the spot. What is not known is left out.
        """
        root, attributes = _peel(expression)
        if isinstance(root, ast.Name):
            # Seen here before, as most are.
            known = scope.meanings.get(root.id)
            found = known.get(attributes) if known is not None else None
            return self.resolve_name(root.id, scope, attributes) if found is None else found
        if not isinstance(root, (ast.Call, ast.Subscript)):
            return NOTHING
        key = (id(expression), scope.number)
        if key not in self._resolved:
            self._resolved[key] = expression, self._followed([(root, scope, attributes, False)])
        return self._resolved[key][1]

    def resolve_name(self, name: str, scope: Scope, attributes: tuple[str, ...] = ()) -> Meaning:
        """Return what a name that is seen in `scope`, or an attribute below it, may stand for."""
        known = scope.meanings.get(name)
        if known is None:
            owner, _ = self.lookup(name, scope)
            # Whoever binds the name decides what it stands for, wherever it is seen.
            known = self._named.setdefault((-1 if owner is None else owner.number, name), {})
            scope.meanings[name] = known
        found = known.get(attributes)
        if found is None:
            found = known[attributes] = self._meaning(name, scope, attributes)
        return found

    def dotted(self, expression: ast.expr, scope: Scope) -> frozenset[str]:
        """Return the absolute dotted names from outside of this file that an expression may stand for."""
        return self.resolve(expression, scope).names

    def _meaning(self, name: str, scope: Scope, attributes: tuple[str, ...]) -> Meaning:
        values = self._values(name, scope, aliased=False)
        found = [
            Reference(value.scope, value.level, (*value.path, *attributes))
            for value, _ in values
            if isinstance(value, Reference)
        ]
        if len(found) == len(values):
            return _meaning_of(found, [])
        return self._followed([(ast.Name(name, ast.Load()), scope, attributes, False)])

    def _followed(self, todo: list[_Todo]) -> Meaning:
        """Follow expressions through aliases to what they may stand for."""
        found: list[Reference] = []
        passed: list[ast.expr] = []
        for _ in range(MAX_STEPS):
            if not todo:
                break
            item, where, tail, aliased = todo.pop()
            root, attributes = _peel(item)
            path = (*attributes, *tail)
            if isinstance(root, ast.Name):
                for value, owner in self._values(root.id, where, aliased):
                    if isinstance(value, Reference):
                        found.append(Reference(value.scope, value.level, (*value.path, *path)))
                    else:
                        passed.append(value)
                        todo.append((value, owner, path, True))
            elif isinstance(root, ast.Call):
                reference = self._called(root, where, path, todo)
                if reference is not None:
                    found.append(reference)
            elif isinstance(root, ast.Subscript):
                inner = namespace_of(root)
                if inner is not None:
                    todo.append((inner[0], where, (inner[1], *path), aliased))
        return _meaning_of(found, passed)

    @functools.cached_property
    def _statements(self) -> dict[type, list[tuple[Scope, Any]]]:
        found: dict[type, list[tuple[Scope, Any]]] = {}
        for scope in self.scopes:
            for statement in scope.statements:
                found.setdefault(statement.__class__, []).append((scope, statement))
        return found

    @functools.cached_property
    def _calls_by_name(self) -> dict[str, list[CallSite]]:
        found: dict[str, list[CallSite]] = {}
        for site in self.calls:
            for name in site.meaning.names:
                found.setdefault(name, []).append(site)
        return found

    @functools.cached_property
    def _outside(self) -> Scope:
        """Where nothing is bound but what is built in."""
        scope = Scope("module", self.tree, None)
        scope.number = -1
        return scope

    @functools.cached_property
    def _resolved(self) -> dict[tuple[int, int], tuple[ast.expr, Meaning]]:
        return {}  # holds the expression too, so that no other can take its id

    @functools.cached_property
    def _named(self) -> dict[tuple[int, str], dict[tuple[str, ...], Meaning]]:
        return {}

    @functools.cached_property
    def _value_cache(self) -> dict[tuple[int, str, bool], tuple[tuple[Reference | ast.expr, Scope], ...]]:
        return {}

    @functools.cached_property
    def _ast_line_starts(self) -> Sequence[int]:
        # Python's tokeniser ends lines at a lone carriage return too, unlike `line_starts`.
        if b"\r" not in self.source:
            return self.line_starts
        return [0, *(match.end() for match in re.finditer(rb"\r\n?|\n", self.source))]

    def _offset(self, line: int, column: int) -> int:
        starts = self._ast_line_starts
        # Nodes inside of f-strings may lie off the text under Python 3.11; a finding must not.
        return min(starts[min(max(line, 1), len(starts)) - 1] + max(column, 0), len(self.source))

    def _values(self, name: str, scope: Scope, aliased: bool) -> tuple[tuple[Reference | ast.expr, Scope], ...]:
        owner, values = self.lookup(name, scope)
        key = (-1 if owner is None else owner.number, name, aliased)
        if key not in self._value_cache:
            self._value_cache[key] = tuple(self._looked_up(name, owner, values, aliased))
        return self._value_cache[key]

    def _looked_up(
        self, name: str, owner: Scope | None, values: list[Value], aliased: bool
    ) -> Iterator[tuple[Reference | ast.expr, Scope]]:
        module = self.scopes[0]
        if owner is None:
            if name in _BUILTINS or name == "__builtins__":
                yield Reference(None, 0, ("builtins",) if name == "__builtins__" else ("builtins", name)), module
            for _, star in module.stars if len(module.stars) <= MAX_STARS else ():
                yield Reference(None, star.level, (*star.path, name)), module
            return
        if len(values) == 1 and values[0] is None and owner.kind != "function":
            return  # most names are loop variables and the like
        definitions = [value for value in values if isinstance(value, Scope)]
        if aliased and definitions and len(values) > 1:
            return  # `old = f` before `def f` again: which one it is hangs on when it ran
        receiver = _receiver(name, owner, values)
        if receiver is not None:
            yield receiver, owner
        for scope in sorted(set(definitions) - _replaced(owner, definitions), key=lambda scope: scope.number):
            yield Reference(scope, 0, ()), owner
        for imported in sorted({value for value in values if isinstance(value, Import)}):
            yield Reference(None, imported.level, imported.path), owner
        assigned = [value for value in values if isinstance(value, ast.expr)]
        for value in assigned if len(assigned) <= MAX_ASSIGNED else ():
            if not isinstance(value, ast.Name) or value.id != name:
                yield value, owner
            else:
                yield value, owner.parent or self._outside  # `f = f` takes the name from further out

    def _called(self, call: ast.Call, scope: Scope, path: tuple[str, ...], todo: list[_Todo]) -> Reference | None:
        """Return what the result of a call stands for, or put what is to be resolved for that on `todo`."""
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        texts = [item.value if isinstance(item, ast.Constant) else None for item in call.args]
        if name == "getattr" and len(texts) > 1 and isinstance(texts[1], str):
            todo.append((call.args[0], scope, (texts[1], *path), False))
        elif name in ("__import__", "import_module") and texts and isinstance(texts[0], str):
            parts = tuple(texts[0].split("."))
            # `__import__("a.b")` returns `a`, import_module returns `a.b`.
            return Reference(None, 0, (*(parts[:1] if name == "__import__" else parts), *path))
        elif name == "super" and path:
            method = scope.function
            if method is not None and method.parent is not None and method.parent.kind == "class":
                return Reference(method.parent, 0, (SUPER, *path))
        elif path:
            todo.append((call.func, scope, (MADE, *path), False))
        return None


class _Indexer:
    """One walk over a tree that fills the scopes."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope("module", tree, None)
        self.pending = [self.module]
        self.scope = self.module
        self.stack: list[Any] = []

    def run(self) -> list[Scope]:
        """Return all scopes, the module first, the rest as they begin in the file."""
        for scope in self.pending:  # grows while it is walked, by one for each scope of the tree
            self._walk(scope)
        for scope in self.pending:
            _hand_on(scope, self.module)
        first, *rest = self.pending
        rest.sort(key=lambda scope: (scope.node.lineno, scope.node.col_offset))
        for number, scope in enumerate([first, *rest]):
            scope.number = number
        return [first, *rest]

    def _walk(self, scope: Scope) -> None:
        self.scope = scope
        stack = self.stack = _parts_of(scope)
        loads, attributes, calls = scope.loads, scope.attributes, scope.calls
        # The four kinds that most nodes are of are told apart here; for the rest a handler's call does not count.
        name, attribute, constant, call, load = ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.Load
        handlers, getters, bindings = _HANDLERS, _GETTERS, scope.bindings
        while stack:  # bounded: every node of a finite tree is put there once
            node = stack.pop()
            kind = node.__class__
            if kind is name:
                if node.ctx.__class__ is load:
                    loads.append(node)
                else:
                    bindings.setdefault(node.id, []).append(None)
            elif kind is attribute:
                (attributes if node.ctx.__class__ is load else scope.stores).append(node)
                stack.append(node.value)
            elif kind is call:
                calls.append(node)
                stack.append(node.func)
                stack.extend(node.args)
                stack.extend(node.keywords)
            elif kind is not constant:
                handler = handlers.get(kind)
                if handler is not None and not handler(self, node):
                    continue
                getter, single = getters[kind]
                if getter is not None:
                    values = getter(node)
                    for value in (values,) if single else values:
                        if value.__class__ is list:
                            stack.extend(value)
                        elif value is not None:
                            stack.append(value)

    def _open(self, kind: Kind, node: Any) -> Scope:
        scope = Scope(kind, node, self.scope)
        self.pending.append(scope)
        return scope

    def _function(self, node: Any) -> bool:
        self.scope.bind(node.name, self._open("function", node))
        self.stack += [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults, node.returns]
        self.stack += [arg.annotation for arg in _arguments(node.args)]
        return False

    def _lambda(self, node: ast.Lambda) -> bool:
        _ = self._open("function", node)
        self.stack += [*node.args.defaults, *node.args.kw_defaults]
        return False

    def _class(self, node: ast.ClassDef) -> bool:
        self.scope.bind(node.name, self._open("class", node))
        self.stack += [*node.decorator_list, *node.bases, *node.keywords]
        return False

    def _comprehension(self, node: Any) -> bool:
        _ = self._open("comprehension", node)
        self.stack.append(node.generators[0].iter)  # the first one runs outside
        return False

    def _import(self, node: ast.Import) -> bool:
        self.scope.imports.append(node)
        for alias in node.names:
            parts = tuple(alias.name.split("."))
            name, path = (alias.asname, parts) if alias.asname else (parts[0], parts[:1])
            self.scope.bind(name, Import(0, path))
        return False

    def _import_from(self, node: ast.ImportFrom) -> bool:
        self.scope.imports.append(node)
        module = tuple(node.module.split(".")) if node.module else ()
        for alias in node.names:
            if alias.name == "*":
                self.scope.stars.append((node, Import(node.level, module)))
            else:
                self.scope.bind(alias.asname or alias.name, Import(node.level, (*module, alias.name)))
        return False

    def _global(self, node: ast.Global) -> bool:
        self.scope.global_names.update(node.names)
        self.scope.statements.append(node)
        return False

    def _nonlocal(self, node: ast.Nonlocal) -> bool:
        self.scope.elsewhere.update(node.names)
        return False

    def _assign(self, node: Any) -> bool:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        self.stack.append(getattr(node, "annotation", None))
        if node.value is None:
            return False
        bound: Value = node.value
        if isinstance(bound, ast.Lambda) and isinstance(targets[0], ast.Name):
            _ = self._lambda(bound)
            bound = self.pending[-1]
            bound.name = targets[0].id
        else:
            self.stack.append(node.value)
        for target in targets:
            if isinstance(target, ast.Name):
                self.scope.bind(target.id, bound)
            else:
                self.stack.append(target)
        return False

    def _named(self, node: Any) -> bool:
        owner = self.scope
        for _ in range(MAX_DEPTH):
            if owner.kind != "comprehension" or owner.parent is None:
                break
            owner = owner.parent  # PEP 572: the name belongs to the function around the comprehension
        owner.bind(node.target.id, node.value)
        self.stack.append(node.value)
        return False

    def _named_part(self, node: Any) -> bool:
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name is not None:
            self.scope.bind(name, None)
        return True

    def _statement(self, node: ast.stmt) -> bool:
        self.scope.statements.append(node)
        return True

    def _yield(self, _node: ast.expr) -> bool:
        self.scope.yields = True
        return True

    def _expression(self, node: ast.Expr) -> bool:
        if node.value.__class__ is ast.Call:
            self.scope.statements.append(node)
        self.stack.append(node.value)
        return False

    def _subscript(self, node: ast.Subscript) -> bool:
        if node.ctx.__class__ is not ast.Load:
            self.scope.stores.append(node)
        return True


# A handler puts the children on the stack itself, or returns True to have them all put there.
_HANDLERS: dict[type, Callable[[_Indexer, Any], bool]] = {
    **dict.fromkeys((ast.FunctionDef, ast.AsyncFunctionDef), _Indexer._function),
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), _Indexer._comprehension),
    **dict.fromkeys((ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.MatchMapping), _Indexer._named_part),
    **dict.fromkeys((ast.Assign, ast.AnnAssign), _Indexer._assign),
    **dict.fromkeys(STATEMENTS, _Indexer._statement),
    ast.Expr: _Indexer._expression,
    ast.Lambda: _Indexer._lambda,
    ast.ClassDef: _Indexer._class,
    ast.Import: _Indexer._import,
    ast.ImportFrom: _Indexer._import_from,
    ast.Global: _Indexer._global,
    ast.Yield: _Indexer._yield,
    ast.YieldFrom: _Indexer._yield,
    ast.Nonlocal: _Indexer._nonlocal,
    ast.NamedExpr: _Indexer._named,
    ast.Subscript: _Indexer._subscript,
}


def parts_of(node: ast.AST) -> list[Any]:
    """Return the nodes right below one, without its context and operators; other values may be among them."""
    found: list[Any] = []
    for field in _FIELDS[node.__class__]:
        value = getattr(node, field, None)
        if value.__class__ is list:
            found.extend(value)
        elif value is not None:
            found.append(value)
    return found


def namespace_of(item: ast.Subscript) -> tuple[ast.expr, str] | None:
    """Split `x.__dict__["name"]`, `vars(x)["name"]` and `__builtins__["name"]` into `x` and `name`, else `None`."""
    if not isinstance(item.slice, ast.Constant) or not isinstance(item.slice.value, str):
        return None
    name, value = item.slice.value, item.value
    if isinstance(value, ast.Attribute) and value.attr == "__dict__":
        return value.value, name
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "vars" and len(value.args) == 1:
        return value.args[0], name
    return (value, name) if isinstance(value, ast.Name) and value.id == "__builtins__" else None


def _parts_of(scope: Scope) -> list[Any]:
    """Return the nodes that run inside of a scope, and bind its parameters."""
    node = scope.node
    if scope.kind == "comprehension":
        first, *rest = node.generators
        parts = [getattr(node, field) for field in ("elt", "key", "value") if hasattr(node, field)]
        return [*parts, first.target, *first.ifs, *rest]
    if scope.kind == "function":
        for arg in _arguments(node.args):
            scope.bind(arg.arg, None)
    return [node.body] if isinstance(node, ast.Lambda) else list(node.body)


def _arguments(args: ast.arguments) -> list[ast.arg]:
    every = (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg)
    return [arg for arg in every if arg is not None]


def _hand_on(scope: Scope, module: Scope) -> None:
    """Bind further out what a function binds under `global` or `nonlocal`."""
    for name in scope.global_names & scope.bindings.keys():
        if scope is not module:
            module.bindings.setdefault(name, []).extend(scope.bindings[name])
    for name in scope.elsewhere & scope.bindings.keys():
        owner = scope.parent
        while owner is not None and (owner.kind == "class" or name in owner.elsewhere or name not in owner.bindings):
            owner = owner.parent  # bounded by the depth of the scopes
        if owner is not None:
            owner.bindings[name].extend(scope.bindings[name])


def _replaced(owner: Scope, definitions: list[Scope]) -> set[Scope]:
    """Return the definitions of one name that a later one in the scope's own block replaces whatever happens."""
    if len(definitions) < 2:
        return set()
    block = {id(item) for item in owner.node.body} if isinstance(getattr(owner.node, "body", None), list) else set()
    last = max((item.node.lineno for item in definitions if id(item.node) in block), default=0)
    return {item for item in definitions if item.node.lineno < last}


def _receiver(name: str, owner: Scope, values: list[Value]) -> Reference | None:
    """Return what `self` or `cls` stands for, when the name is a method's first parameter and nothing else."""
    outer = owner.parent
    if outer is None or outer.kind != "class" or len(values) != 1 or owner.parameter() != name:
        return None
    decorators = owner.decorators()
    if "staticmethod" in decorators:
        return None
    of_class = "classmethod" in decorators or owner.name in ("__new__", "__init_subclass__", "__class_getitem__")
    return Reference(outer, 0, () if of_class else (MADE,))


def _meaning_of(found: list[Reference], passed: list[ast.expr]) -> Meaning:
    if not found and not passed:
        return NOTHING
    names = frozenset([".".join(item.path) for item in found if item.scope is None and not item.level])
    return Meaning(tuple(dict.fromkeys(found)) if len(found) > 1 else tuple(found), tuple(passed), names)


def _peel(expression: ast.expr) -> tuple[ast.expr, tuple[str, ...]]:
    """Split `a.b.c` into `a` and `("b", "c")`."""
    if not isinstance(expression, ast.Attribute):
        return expression, ()
    inner = expression.value
    if not isinstance(inner, ast.Attribute):
        return inner, (expression.attr,)  # by far the most
    attributes: list[str] = [expression.attr]
    for _ in range(MAX_DEPTH):
        if not isinstance(inner, ast.Attribute):
            break
        attributes.append(inner.attr)
        inner = inner.value
    return inner, tuple(reversed(attributes))


def _parse(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in the scanned text are not this run's warnings
            return ast.parse(text)
    except SyntaxError as problem:
        raise Unparsable("parse-error", f"line {problem.lineno or 0}: {problem.msg}"[:200]) from problem
    except MemoryError as problem:
        raise Unparsable("parse-error", "nested too deeply for Python's parser") from problem
    except (ValueError, OverflowError) as problem:
        raise Unparsable("parse-error", f"{type(problem).__name__}: {problem}"[:200]) from problem


def _parse_in_thread(text: str) -> ast.Module:
    answers: list[ast.Module | Unparsable] = []

    def work() -> None:
        try:
            answers.append(_parse(text))
        except RecursionError:
            answers.append(Unparsable("parse-error", "nested too deeply for Python's parser"))
        except Unparsable as answer:
            answers.append(answer)

    thread = threading.Thread(target=work, name="parse")
    thread.start()
    thread.join()
    assert len(answers) == 1, "the parser answers, or raises what is caught above"
    if isinstance(answers[0], Unparsable):
        raise answers[0]
    return answers[0]
