"""
C and C++: tree-sitter's tree over a text that can be parsed, and a pass over words beside it.

A grammar is led astray by conditional heads and leaves macro bodies unparsed. The source is therefore laid out first
(`c_directive_parsing`), so that the tree sees one consistent program; words and calls are taken from the laid-out code
with all of its branches and macro bodies, and placed into the tree's functions by offset.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from detectors.c_directive_parsing import Layout, lay_out
from detectors.c_directive_parsing import Macro as MacroText
from detectors.model import Language
from detectors.parsing import ParsedFile

if TYPE_CHECKING:
    from tree_sitter import Language as Grammar
    from tree_sitter import Node, Query, Tree

__all__ = ["CFile", "Call", "Fragment", "Function", "Macro", "Object", "Prototype"]

Dialect = Literal["c", "cpp"]
KEYWORDS = frozenset(
    b"alignas alignof asm case catch co_await co_return co_yield constexpr decltype defined delete do else for goto if "
    b"new noexcept return sizeof static_assert switch throw typeof typeof_unqual while _Alignas _Alignof _Generic "
    b"_Static_assert __alignof__ __asm__ __attribute__ __declspec __extension__ __typeof__ and or not".split()
)
"""Words that stand before a parenthesis, or before a call, without being a function or a type."""
STATEMENTS = frozenset(b"case delete do else for goto if new return sizeof switch throw while".split())
OPENS_A_CALL = KEYWORDS - {b"alignas", b"constexpr", b"decltype"}
CALL = re.compile(rb"\b([A-Za-z_]\w*+)\s*+\(")
CALL_BACKWARDS = re.compile(rb"\(\s*+(\w++)(?<=[A-Za-z_])\s*+(?=([;{}(!,=&|])?)")
"""`CALL` in the mirrored code, and what no declaration and no member access has before its name: from an opening
parenthesis back there is far less to look at than from each word on."""
STARTS_A_VALUE = frozenset(b"case co_await co_return co_yield do else return throw".split())
BEFORE = re.compile(rb"(?:\w+|[)\]])\s*\Z")
PARENTHESISED_CALL = re.compile(rb"\(\s*+([A-Za-z_]\w*+)\s*+\)\s*+\(")
WORD = re.compile(rb"[A-Za-z_]\w*+")
QUALIFIER = re.compile(rb"(\w*)\s*::\Z")
THIS = re.compile(rb"\bthis\s*->\Z")
DECLARED_BACKWARDS = re.compile(rb"[;,=\[)]\s*+(\w++)(?<=[A-Za-z_])[\s*&]++(\w++)(?<=[A-Za-z_])")
"""A variable or parameter and its type or a qualifier before it, in the mirrored code."""
POINTER_TO_FUNCTION = re.compile(rb"\(\s*+[*^]\s*+(?:const\s++)?([A-Za-z_]\w*+)\s*+(?:\[[^\]]*+\]\s*+)?\)\s*+\(")
NO_TYPE_BACKWARDS = frozenset(word[::-1] for word in STATEMENTS)
BEFORE_A_VALUE = b"=&(,{:?"
AFTER_A_VALUE = re.compile(rb"\s*+[,;)}:?]")
"""What stands around a name used as a value, such as a call-back that is passed on."""
ONLY_IN_CPLUSPLUS = (b"class", b"namespace", b"template", b"public", b"private", b"protected")
CPLUSPLUS = re.compile(rb"\b(?:class\s+\w+\s*[:{]|namespace\s+\w*\s*\{|template\s*<|(?:public|private|protected)\s*:)")
BRACE = re.compile(rb"[{}]")
WRAPPED = (b"void f(){", b";}")
WORTH_A_PARSE = re.compile(rb"\b(?:for|while|do)\b|->|\*")
"""What a macro's body must hold for any capture in it to matter."""
BRACKETS = re.compile(rb"[(){},]")
TABLE = re.compile(rb"\{(?=\s*+[-+0-9])[\s0-9xXa-fA-FuUlL,.+-]{24,}+\}")
"""An initialiser of nothing but numbers."""
SPACE = re.compile(rb"\s*+")
WORD_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
QUERY = """
(function_definition) @function
(array_declarator size: (_) @size)
(ERROR) @error
(for_statement) @loop (while_statement) @loop (do_statement) @loop
(compound_statement) @block
(for_statement body: (compound_statement) @block.loop)
(while_statement body: (compound_statement) @block.loop)
(do_statement body: (compound_statement) @block.loop)
(switch_statement body: (compound_statement) @block.switch)
(declaration declarator: (_) @declarator)
(parameter_declaration declarator: (_) @parameter)
(field_declaration declarator: (_) @member)
(type_definition declarator: (_) @alias)
(expression_statement . [
  (call_expression function: (identifier) @dropped.call)
  (call_expression function: (field_expression field: (field_identifier) @dropped.member))
  (comma_expression) @dropped
  (conditional_expression) @dropped
  (parenthesized_expression) @dropped
  (binary_expression) @dropped
])
(comma_expression left: (_) @dropped.left)
(for_statement update: [(call_expression) (comma_expression)] @dropped)
(for_statement initializer: [(call_expression) (comma_expression)] @dropped)
(function_definition declarator: (pointer_declarator) @result)
(field_expression
  argument: [(parenthesized_expression) (field_expression) (subscript_expression)
             (cast_expression) (call_expression)]
  operator: "->") @reached
(pointer_expression
  operator: "*"
  argument: [(pointer_expression) (parenthesized_expression) (field_expression) (subscript_expression)
             (cast_expression) (call_expression) (update_expression)]) @reached
(subscript_expression argument: (field_expression operator: "->")) @indexed
"""
"""
What rules ask for by `CFile.nodes` and `CFile.fragments`; all in one query, since each walks the whole tree.

`block.loop` and `block.switch` are among `block` too. `declarator` holds prototypes and locals; `dropped` is an
expression whose value nothing takes, and `dropped.call` or `dropped.member` the name where it is one call; `reached` is
a dereference of something that may be a dereference itself, and `indexed` an item of a member behind a pointer.
"""
QUERY_CPP = """
(new_expression) @new (delete_expression) @delete
(class_specifier body: (_)) @scope (struct_specifier body: (_)) @scope (union_specifier body: (_)) @scope
(namespace_definition) @scope
"""
NAMES = frozenset({"identifier", "field_identifier", "operator_name", "destructor_name", "type_identifier"})
MAX_DECLARATOR_DEPTH = 64
MAX_SPECIFIERS = 400
"""Bytes before a declared name that are read for `static`, `const` and the like."""
FIXED = b"* const"
"""Stands among the specifiers of a pointer that is constant itself."""
FOLLOWS_AN_OBJECT = frozenset((b";", b",", b"=", b"[", b")", b"{", b":"))
_PER_THREAD = threading.local()
OUTSIDE = -1
"""Stands for the body of what is in none."""


class Call(msgspec.Struct, frozen=True):
    """A name before a parenthesis in live code, that is no declaration."""

    name: str
    start: int
    """Offset of the name in `source`."""
    arguments: int = -1
    """How many; -1 where it is not known, and always in C, which has no overloads."""
    qualifier: str | None = None
    """`A` of `A::f()`, empty for `::f()`, `this` for `this->f()`; C++ only."""


class Fragment:
    """The body of a macro, parsed as statements. Offsets of its nodes count from `base` in the file's source."""

    def __init__(self, macro: MacroText, dialect: Dialect) -> None:
        self.macro = macro
        self.base = macro.body - len(WRAPPED[0])
        self.text = WRAPPED[0] + macro.code + WRAPPED[1]
        self.tree = _parsed(self.text, dialect)
        self._captures = _captured(self.tree, dialect)

    def nodes(self, capture: str) -> Sequence[Node]:
        """Return the nodes of a capture in order, without those of the wrapping."""
        nodes = sorted(self._captures.get(capture, ()), key=lambda node: node.start_byte)
        return [node for node in nodes if node.start_byte >= len(WRAPPED[0])]


class Macro(msgspec.Struct, frozen=True):
    """A `#define` with a body."""

    name: str
    start: int
    calls: tuple[Call, ...]
    takes_arguments: bool


class Function(msgspec.Struct, frozen=True):
    """A function with a body."""

    name: str
    """Last part of the name, without scope."""
    scope: str
    """Classes and namespaces around it, joined with `::`; empty in C."""
    static: bool
    start: int
    name_start: int
    name_end: int
    body: int
    """Offset of the opening brace."""
    end: int
    parameters: int
    """How many; -1 when variadic or not known."""


class Prototype(NamedTuple):
    """A function's declaration without a body."""

    name: str
    head: bytes
    """What stands before the name, the type of its result among it."""
    static: bool


class Object(NamedTuple):
    """A declared variable, by offsets; a parameter or a member is none."""

    name: bytes
    start: int
    end: int
    """Of the name."""
    specifiers: frozenset[bytes]
    """All words before the name, and FIXED."""
    pointer: bool
    array: bool
    in_head: bool
    """Whether it stands in the parentheses of a `for` or `if`."""


class CFile(ParsedFile):
    """A C or C++ file. Linear in its size; nothing recurses over its nesting."""

    def __init__(self, data: bytes, language: Language, name: str = "") -> None:
        super().__init__(data, language, name)
        # What tree-sitter counts in is bytes of UTF-8; a mark at the front would shift every column of line 1.
        self.text = self.text.removeprefix("\ufeff")

    @functools.cached_property
    def dialect(self) -> Dialect:
        """C, or C++ also for a header under C's suffix that holds classes or templates."""
        if self.language == "cpp":
            return "cpp"
        source = self.source
        if self.name.endswith(".h") and any(word in source for word in ONLY_IN_CPLUSPLUS) and CPLUSPLUS.search(source):
            # Seldom; only now is it worth to look again without the comments.
            return "cpp" if CPLUSPLUS.search(lay_out(source, "c").code) else "c"
        return "c"

    @functools.cached_property
    def layout(self) -> Layout:
        """The source without what the preprocessor takes away; same offsets."""
        return lay_out(self.source, self.dialect)

    @functools.cached_property
    def mirror(self) -> bytes:
        """`layout.code` from its end to its front, to match what stands before something."""
        return self.layout.code[::-1]

    @functools.cached_property
    def tree(self) -> Tree:
        """The syntax tree of `layout.parsable` without tables of numbers; its offsets are those of `source`."""
        # No rule asks for a number in a table, and some files are hardly anything else.
        return _parsed(TABLE.sub(_emptied, self.layout.parsable), self.dialect)

    @property
    def understood(self) -> float:
        """Share of the bytes outside of error nodes."""
        covered = end = 0
        for node in sorted(self._captures.get("error", ()), key=lambda n: n.start_byte):
            covered += max(node.end_byte - max(node.start_byte, end), 0)
            end = max(end, node.end_byte)
        return 1.0 - covered / len(self.source) if self.source else 1.0

    @functools.cached_property
    def functions(self) -> Sequence[Function]:
        """Functions with a body in live code, by their body's offset."""
        scopes = _Scopes(self._captures.get("scope", ()))
        nodes = sorted(self._captures.get("function", ()), key=lambda node: node.start_byte)
        found = (self._function(node, scopes) for node in nodes)
        both = {function.body: function for function in found if function is not None}
        return list(self._outermost(both)) if self.dialect == "c" else [both[body] for body in sorted(both)]

    @functools.cached_property
    def objects(self) -> Sequence[Object]:
        """Variables that declarations name, at file scope and in functions, in order."""
        return [found for node in self.nodes("declarator") if (found := self._object(node)) is not None]

    @functools.cached_property
    def prototypes(self) -> Sequence[Prototype]:
        """Functions that are declared without a body, outside of functions."""
        found = []
        # A structure whose members a macro writes swallows what follows it: in C, a function is no member.
        astray = self.nodes("member") if self.dialect == "c" else ()
        for node in (*self.nodes("declarator"), *astray):
            if node.type in {"identifier", "field_identifier", "init_declarator", "array_declarator"}:
                continue
            name, is_function = _declared(node)
            if is_function and name is not None and name.text and not self.in_function(node.start_byte):
                code, end = self.layout.code, name.start_byte
                head = code[statement_start(code, max(node.start_byte - MAX_SPECIFIERS, 0), end) : end]
                static = not self._static_words.isdisjoint(WORD.findall(head))
                found.append(Prototype(name.text.decode("utf-8", "replace"), head, static))
        return found

    @functools.cached_property
    def calls(self) -> Sequence[Call]:
        """Calls outside of macro bodies, in order."""
        code, heads = self.layout.code, self._hidden_heads
        found = self._plain_calls() if self.dialect == "c" else _calls(code, self.dialect)
        for match in PARENTHESISED_CALL.finditer(code):
            before = BEFORE.search(code, max(match.start() - 64, 0), match.start())
            # `if (f) (x)` and `g(f)(x)` do not call f, `return (f)(x)` does.
            if match[1] not in KEYWORDS and (before is None or before[0].rstrip() in STARTS_A_VALUE):
                found.append(Call(match[1].decode(), match.start(1)))
        found.sort(key=lambda call: call.start)
        return [call for call in found if not _within(heads, call.start)] if heads else found

    def _plain_calls(self) -> list[Call]:
        """Return the calls of C that no parentheses are around the name of, the last first."""
        code, length = self.layout.code, len(self.layout.code)
        found = []
        for match in CALL_BACKWARDS.finditer(self.mirror):
            name = match[1][::-1]
            if name not in KEYWORDS:
                start = length - match.end(1)
                if match[2] is not None:
                    found.append(Call(name.decode(), start))
                elif (call := _call(code, start, name, -1, None)) is not None:
                    found.append(call)
        return found

    @functools.cached_property
    def calls_in_functions(self) -> Sequence[tuple[Call, Function]]:
        """Calls in the bodies of functions with the innermost of these, in order."""
        owners = self._owners(call.start for call in self.calls)
        return [(call, owner) for call, owner in zip(self.calls, owners, strict=True) if owner is not None]

    @functools.cached_property
    def called(self) -> Mapping[str, Sequence[tuple[Call, Function]]]:
        """Names to their calls in the bodies of functions, in order of the first of each."""
        found: dict[str, list[tuple[Call, Function]]] = {}
        for call, owner in self.calls_in_functions:
            found.setdefault(call.name, []).append((call, owner))
        return found

    @functools.cached_property
    def macros(self) -> Sequence[Macro]:
        """Macros with a body, in order."""
        return [_macro(macro, self.dialect) for macro in self.layout.macros]

    def is_value(self, name: str) -> bool:
        """Tell whether a name stands where a value stands, in live code, as a function does that is handed on."""
        code, word = self.layout.code, name.encode()
        return any(
            AFTER_A_VALUE.match(code, place + len(word)) is not None and _byte_before(code, place) in BEFORE_A_VALUE
            for place in self._places.get(word, ())
        )

    def places(self, word: bytes, start: int, end: int) -> Sequence[int]:
        """Return the offsets of a word in live code from `start` on and before `end`, without macro bodies."""
        places = self._places.get(word, ())
        first = bisect.bisect_left(places, start)
        return places[first : bisect.bisect_left(places, end, first)]

    def words(self, wanted: frozenset[bytes]) -> Sequence[tuple[int, str]]:
        """Return (offset, word) of each of `wanted` in live code, macro bodies included, in order."""
        if not wanted:
            return []
        found = [(place, word.decode()) for word in wanted for place in self._places.get(word, ())]
        for macro, words in zip(self.layout.macros, self.macro_words, strict=True):
            if not wanted.isdisjoint(words):
                matches = WORD.finditer(macro.code)
                found += ((macro.body + m.start(), m[0].decode()) for m in matches if m[0] in wanted)
        return sorted(found)

    @functools.cached_property
    def macro_words(self) -> Sequence[frozenset[bytes]]:
        """The words in each macro's body, as in `layout.macros`."""
        return [frozenset(WORD.findall(macro.code)) for macro in self.layout.macros]

    def function_at(self, offset: int) -> Function | None:
        """Return the innermost function whose body holds `offset`."""
        borders, owners = self._bodies
        place = bisect.bisect_right(borders, offset) - 1
        return owners[place] if place >= 0 else None

    def in_function(self, offset: int) -> bool:
        """Tell whether an offset lies in a function, its head included (where K&R declares its parameters)."""
        starts, reach = self._extents
        place = bisect.bisect_right(starts, offset) - 1
        return place >= 0 and offset < reach[place]

    def has_directive(self, start: int, end: int) -> bool:
        """Tell whether the preprocessor may change the course between two offsets."""
        directives = self.layout.directives
        place = bisect.bisect_left(directives, start, key=lambda directive: directive.start)
        return place < len(directives) and directives[place].start < end

    def locals_of(self, function: Function) -> frozenset[str]:
        """Return the names that parameters and local variables of a function take away from functions."""
        return self._locals.get(function.body, frozenset())

    @functools.cached_property
    def declared(self) -> frozenset[str]:
        """Names of all parameters and variables, whatever function they are of."""
        return frozenset[str]().union(*self._locals.values())

    @property
    def globals(self) -> frozenset[str]:
        """Names declared outside of functions."""
        return self._locals.get(OUTSIDE, frozenset())

    def nodes(self, capture: str) -> Sequence[Node]:
        """Return the nodes of a capture of `QUERY` in order; those of macro bodies are in `fragments`."""
        if capture not in self._in_order:
            self._in_order[capture] = sorted(self._captures.get(capture, ()), key=lambda node: node.start_byte)
        return self._in_order[capture]

    @functools.cached_property
    def blocks(self) -> Sequence[tuple[int, int]]:
        """Where blocks of statements start and end, in order."""
        return [node.byte_range for node in self.nodes("block")]

    @functools.cached_property
    def _in_order(self) -> dict[str, list[Node]]:
        return {}

    @functools.cached_property
    def _places(self) -> dict[bytes, list[int]]:
        """Where each word stands in live code: one pass for all who look for some."""
        found: defaultdict[bytes, list[int]] = defaultdict(list)
        matches = list(WORD.finditer(self.layout.code))
        for word, start in zip(map(re.Match.group, matches), map(re.Match.start, matches), strict=True):
            found[word].append(start)
        return dict(found)

    @functools.cached_property
    def locals(self) -> Sequence[tuple[Object, Function]]:
        """The objects in the bodies of functions with the innermost of these, in order."""
        owners = self._owners(declared.start for declared in self.objects)
        return [(declared, owner) for declared, owner in zip(self.objects, owners, strict=True) if owner is not None]

    @functools.cached_property
    def file_objects(self) -> Sequence[Object]:
        """The objects outside of functions, in order."""
        return [declared for declared in self.objects if not self.in_function(declared.start)]

    def _owners(self, offsets: Iterable[int]) -> Iterator[Function | None]:
        """Yield what `function_at` returns for each of ascending offsets, in one sweep."""
        return _swept(self._bodies, offsets)

    @functools.cached_property
    def fragments(self) -> Sequence[Fragment]:
        """Bodies of macros that hold a loop or a dereference, parsed; a pointer type such as `char *` does, too."""
        return [Fragment(macro, self.dialect) for macro in self.layout.macros if WORTH_A_PARSE.search(macro.code)]

    @functools.cached_property
    def _captures(self) -> dict[str, list[Node]]:
        return _captured(self.tree, self.dialect)

    @functools.cached_property
    def _bodies(self) -> tuple[list[int], list[Function | None]]:
        """For the stretch from each border to the next: whose body it belongs to."""
        return _stretches([(function.body, function.end, function) for function in self.functions])

    @functools.cached_property
    def _extents(self) -> tuple[list[int], list[int]]:
        """Where functions start, and how far those up to there reach."""
        # A block outside of what was seen as functions is the body of one whose head a macro writes.
        spans = sorted({*((function.start, function.end) for function in self.functions), *self.blocks})
        return [start for start, _ in spans], list(itertools.accumulate((end for _, end in spans), max))

    @functools.cached_property
    def _locals(self) -> dict[int, frozenset[str]]:
        length = len(self.layout.code)
        declared = [
            (length - match.end(), match[1][::-1])
            for match in DECLARED_BACKWARDS.finditer(self.mirror)
            if match[2] not in NO_TYPE_BACKWARDS
        ]
        declared += ((match.start(), match[1]) for match in POINTER_TO_FUNCTION.finditer(self.layout.code))
        declared.sort()
        wholes = _stretches([(function.start, function.end, function) for function in self.functions])
        found: dict[int, set[bytes]] = {}
        for (_, name), owner in zip(declared, _swept(wholes, (start for start, _ in declared)), strict=True):
            found.setdefault(owner.body if owner else OUTSIDE, set()).add(name)
        return {body: frozenset(name.decode() for name in names) for body, names in found.items()}

    @functools.cached_property
    def _hidden_heads(self) -> Sequence[tuple[int, int]]:
        """
        Stretches of hidden branches that hold other heads of a function, not calls.

        Such a group begins before the function's body; what its hidden branches say outside of braces is a head.
        """
        heads: list[tuple[int, int]] = []
        for start, end, group in self.layout.hidden:
            owner = self.function_at(start)
            if owner is None or group > owner.body:
                continue
            depth, outside = 0, start
            for brace in BRACE.finditer(self.layout.code, start, end):
                if brace[0] == b"{":
                    if depth == 0:
                        heads.append((outside, brace.start()))
                    depth += 1
                else:
                    depth = max(depth - 1, 0)
                    outside = brace.end()
            if depth == 0:
                heads.append((outside, end))
        return heads

    def _object(self, node: Node) -> Object | None:
        kind = node.type
        inner = node.child(0) if kind == "init_declarator" else node
        plain = inner is not None and (kind == "identifier" or inner.type == "identifier")
        name, is_function = (inner, False) if plain else _declared(node)
        if name is None or is_function:
            return None
        code, (start, end), first = self.layout.code, name.byte_range, node.start_byte
        follows = code[end : end + 1]
        if follows.isspace():
            after = SPACE.match(code, end)
            follows = code[after.end() : after.end() + 1] if after is not None else b""
        if start == end or follows not in FOLLOWS_AN_OBJECT:
            return None  # `BOOL WINAPI f(int)`: what a macro hides is no object
        specifiers = code[statement_start(code, max(first - MAX_SPECIFIERS, 0), first) : first]
        shape = code[first:start]
        words = WORD.findall(specifiers + b" " + shape)
        if b"*" in shape and b"const" in shape.rpartition(b"*")[2]:
            words.append(FIXED)
        in_head = specifiers.count(b"(") > specifiers.count(b")")
        return Object(
            self.layout.parsable[start:end], start, end, frozenset(words), b"*" in shape, follows == b"[", in_head
        )

    def _outermost(self, by_body: dict[int, Function]) -> Iterator[Function]:
        """Drop functions within functions: in C they are statements that the parser lost track of, save GNU's."""
        end = 0
        for body in sorted(by_body):
            if body >= end:
                yield by_body[body]
                end = by_body[body].end

    @functools.cached_property
    def _closing(self) -> dict[int, int]:
        """Offset behind the closing brace of each opening one, by the braces alone."""
        code = bytearray(self.layout.code)
        for start, end, _ in self.layout.hidden:
            code[start:end] = b" " * (end - start)
        closing: dict[int, int] = {}
        opened: list[int] = []
        for brace in BRACE.finditer(code):
            if brace[0] == b"{":
                opened.append(brace.start())
            elif opened:
                closing[opened.pop()] = brace.end()
        return closing

    def _end(self, body: Node) -> int:
        """Where a body ends: errors in it, such as an assembler's own syntax, must not draw others in."""
        return self._closing.get(body.start_byte, body.end_byte) if body.has_error else body.end_byte

    @functools.cached_property
    def _static_words(self) -> frozenset[bytes]:
        aliases = (macro.name.encode() for macro in self.layout.macros if macro.code.split() == [b"static"])
        return frozenset({b"static", *aliases})

    def _function(self, node: Node, scopes: _Scopes) -> Function | None:
        body = node.child_by_field_name("body")
        declarator = node.child_by_field_name("declarator")
        if body is None or declarator is None or body.type not in {"compound_statement", "try_statement"}:
            return None
        name, is_function = _declared(declarator)
        if name is None or not name.text or name.text in KEYWORDS:
            return None
        if not is_function:
            # `TEST(name) {`: a macro writes the head. Nobody calls it by what stands in the parentheses.
            shown = self.source[node.start_byte : name.end_byte].decode("utf-8", "replace") + ")"
            at = (node.start_byte, node.start_byte, name.end_byte, body.start_byte, self._end(body))
            return Function(shown, "", True, *at, -1)
        static = not self._static_words.isdisjoint(WORD.findall(self.source[node.start_byte : name.start_byte]))
        head = declarator if declarator.type == "function_declarator" else _function_declarator(declarator)
        scope = ""
        if self.dialect == "cpp":
            scope = "::".join(part for part in (scopes.at(node.start_byte), _qualification(head)) if part)
        at = (node.start_byte, name.start_byte, name.end_byte, body.start_byte, self._end(body))
        return Function(name.text.decode("utf-8", "replace"), scope, static, *at, _parameters(head))


class _Scopes:
    """Names of classes and namespaces around an offset; asked in ascending order, so that one sweep serves all."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._ranges = [
            (node.start_byte, node.end_byte, name.text.decode("utf-8", "replace"))
            for node in sorted(nodes, key=lambda node: node.start_byte)
            if (name := node.child_by_field_name("name")) is not None and name.text
        ]
        self._next = 0
        self._open: list[tuple[int, str]] = []

    def at(self, offset: int) -> str:
        for place in range(self._next, len(self._ranges)):
            start, end, name = self._ranges[place]
            if start > offset:
                break
            self._next = place + 1
            self._close(start)
            self._open.append((end, name))
        self._close(offset)
        return "::".join(name for _, name in self._open)

    def _close(self, offset: int) -> None:
        for end, _ in self._open[::-1]:
            if end > offset:
                break
            self._open.pop()


@functools.cache
def _grammar(dialect: Dialect) -> tuple[Grammar, Query]:
    from tree_sitter import Language as Grammar
    from tree_sitter import Query

    if dialect == "cpp":
        import tree_sitter_cpp

        grammar = Grammar(tree_sitter_cpp.language())
        return grammar, Query(grammar, QUERY + QUERY_CPP)
    import tree_sitter_c

    grammar = Grammar(tree_sitter_c.language())
    return grammar, Query(grammar, QUERY)


def _parsed(text: bytes, dialect: Dialect) -> Tree:
    """Parse with this thread's parser: a new one for each text would ask for all of its memory again."""
    from tree_sitter import Parser

    parsers: dict[Dialect, Parser] = vars(_PER_THREAD).setdefault("parsers", {})
    if dialect not in parsers:
        parsers[dialect] = Parser(_grammar(dialect)[0])
    return parsers[dialect].parse(text)


def _captured(tree: Tree, dialect: Dialect) -> dict[str, list[Node]]:
    from tree_sitter import QueryCursor

    return QueryCursor(_grammar(dialect)[1]).captures(tree.root_node)


def _emptied(initialiser: re.Match[bytes]) -> bytes:
    return b"{" + b" " * (len(initialiser[0]) - 2) + b"}"


def statement_start(code: bytes, start: int, end: int) -> int:
    """Return the offset behind the last `;`, `{` or `}` between two offsets; `start` where there is none."""
    return max(code.rfind(b";", start, end), code.rfind(b"{", start, end), code.rfind(b"}", start, end), start - 1) + 1


def _byte_before(code: bytes, offset: int) -> bytes:
    """Return the last byte before `offset` that is not white space; a line break where there is none."""
    reach = 64
    while True:  # p10: reaches eight times as far in each pass, at most to the front
        before = code[max(offset - reach, 0) : offset].rstrip()
        if before or reach >= offset:
            return before[-1:] or b"\n"
        reach *= 8


def _call(code: bytes, start: int, name: bytes, opening: int, counts: dict[int, int] | None) -> Call | None:
    """Return the call at `start`, unless it is a member's or a declaration's; in C there are no `counts`."""
    before = code[max(start - 64, 0) : start].rstrip()
    last = before[-1:]
    qualifier: str | None = None
    if last in (b".", b"#") or before.endswith(b"->"):
        if counts is None or not THIS.search(before):
            return None
        qualifier = "this"
    elif last.isalnum() or last == b"_":
        word = before[len(before.rstrip(WORD_BYTES)) :]
        if word not in OPENS_A_CALL and not word.isdigit():
            return None  # `int f(` or `TYPE f(`: a declaration
    if counts is None:
        return Call(name.decode(), start)
    if last == b":" and (scope := QUALIFIER.search(before)):
        qualifier = scope[1].decode()
    return Call(name.decode(), start, counts.get(opening, -1), qualifier)


def _calls(code: bytes, dialect: Dialect) -> list[Call]:
    """Return the calls that no parentheses are around the name of, in order."""
    counts = _argument_counts(code) if dialect == "cpp" else None
    return [
        call
        for match in CALL.finditer(code)
        if match[1] not in KEYWORDS and (call := _call(code, match.start(), match[1], match.end() - 1, counts))
    ]


def _macro(macro: MacroText, dialect: Dialect) -> Macro:
    code = macro.code
    found = [
        msgspec.structs.replace(call, start=macro.body + call.start)
        for call in (_calls(code, dialect) if b"(" in code else ())
        if call.name.encode() not in macro.parameters
    ]
    alias = code.strip()
    if WORD.fullmatch(alias) and alias not in macro.parameters:
        # `#define GET malloc`: whoever calls the one calls the other.
        found.append(Call(alias.decode(), macro.body + code.index(alias)))
    return Macro(macro.name, macro.start, tuple(found), macro.takes_arguments)


def _stretches(ranges: list[tuple[int, int, Function]]) -> tuple[list[int], list[Function | None]]:
    """Cut nested ranges into flat stretches: sorted borders, and the innermost owner from each border on."""
    borders: list[int] = []
    owners: list[Function | None] = []
    open_ranges: list[tuple[int, Function]] = []

    def leave(offset: int) -> None:
        for end, _ in open_ranges[::-1]:
            if end > offset:
                break
            open_ranges.pop()
            borders.append(end)
            owners.append(open_ranges[-1][1] if open_ranges else None)

    for start, end, function in sorted(ranges, key=lambda item: (item[0], -item[1])):
        leave(start)
        borders.append(start)
        owners.append(function)
        open_ranges.append((min(end, open_ranges[-1][0]) if open_ranges else end, function))
    leave(1 << 62)
    return borders, owners


def _swept(stretches: tuple[list[int], list[Function | None]], offsets: Iterable[int]) -> Iterator[Function | None]:
    """Yield the owner of each of ascending offsets."""
    borders, owners = stretches
    place, count, owner = 0, len(borders), None
    for offset in offsets:
        while place < count and borders[place] <= offset:  # p10: each border is passed once
            owner = owners[place]
            place += 1
        yield owner


def _within(ranges: Sequence[tuple[int, int]], offset: int) -> bool:
    place = bisect.bisect_right(ranges, (offset, 1 << 62)) - 1
    return place >= 0 and ranges[place][0] <= offset < ranges[place][1]


def _declared(node: Node) -> tuple[Node | None, bool]:
    """Return the name node that a declarator declares, and whether it declares a function (not a pointer to one)."""
    is_function = False
    current: Node | None = node
    for _ in range(MAX_DECLARATOR_DEPTH):
        if current is None or current.type in NAMES:
            return current, is_function
        if current.type in {"qualified_identifier", "template_function"}:
            current = current.child_by_field_name("name")
            continue
        if current.type in {"function_declarator", "array_declarator"}:
            is_function = is_function or current.type == "function_declarator"
            if current.has_error and (name := _name_behind_a_type(current)) is not None:
                return name, is_function
        elif current.type == "pointer_declarator":
            is_function = False  # of `(*f)(int)`, seen from outside in; `*f(int)` is a function again
        inner = current.child_by_field_name("declarator")
        if inner is None and current.named_child_count:
            inner = next((c for c in current.named_children if c.type.endswith("declarator") or c.type in NAMES), None)
        current = inner
    return None, False


def _name_behind_a_type(declarator: Node) -> Node | None:
    """Return the name in `API type f(void)` or `ALIGN(N) type a[3]`, where the parser may take the type for it."""
    second = declarator.child(1)
    if second is None or second.type != "ERROR" or second.child_count != 1:
        return None
    name = second.child(0)
    return name if name is not None and name.type == "identifier" else None


def _function_declarator(node: Node) -> Node | None:
    current: Node | None = node
    for _ in range(MAX_DECLARATOR_DEPTH):
        if current is None or current.type == "function_declarator":
            return current
        inner = current.child_by_field_name("declarator")
        current = inner or next((c for c in current.named_children if c.type.endswith("declarator")), None)
    return None


def _parameters(function: Node | None) -> int:
    listed = function.child_by_field_name("parameters") if function is not None else None
    if listed is None:
        return -1
    children = [child for child in listed.named_children if child.type != "comment"]
    kinds = {child.type for child in children}
    if kinds & {"variadic_parameter", "variadic_parameter_declaration", "optional_parameter_declaration"}:
        return -1
    return 0 if len(children) == 1 and children[0].text == b"void" else len(children)


def _qualification(function: Node | None) -> str:
    inner = function.child_by_field_name("declarator") if function is not None else None
    parts = []
    for _ in range(MAX_DECLARATOR_DEPTH):
        if inner is None or inner.type != "qualified_identifier":
            break
        scope = inner.child_by_field_name("scope")
        parts.append(scope.text.decode("utf-8", "replace") if scope is not None and scope.text else "")
        inner = inner.child_by_field_name("name")
    return "::".join(parts)


def _argument_counts(code: bytes) -> dict[int, int]:
    """
    Return the number of arguments for each opening parenthesis that closes.

    One pass with a stack. Branches of conditionals may leave parentheses open or close one twice; a closing brace drops
    what was left open inside of it, so that such a mismatch stays within its block.
    """
    found: dict[int, int] = {}
    opened: list[list[int]] = []
    """(offset, commas) of what is open; commas is -1 for a brace."""
    braces: list[int] = []
    """Places of the braces in `opened`."""
    for match in BRACKETS.finditer(code):
        bracket = match[0]
        if bracket == b"(":
            opened.append([match.start(), 0])
        elif bracket == b"{":
            braces.append(len(opened))
            opened.append([match.start(), -1])
        elif bracket == b"}":
            if braces:
                del opened[braces.pop() :]
        elif opened and opened[-1][1] >= 0:
            if bracket == b",":
                opened[-1][1] += 1
                continue
            start, commas = opened.pop()
            # Only the first word is looked for: what an argument holds may be long, and nested.
            empty = commas == 0 and SPACE.fullmatch(code, start + 1, match.start()) is not None
            found[start] = 0 if empty else commas + 1
    return found
