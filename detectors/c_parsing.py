"""
C and C++: a tokens' pass beside tree-sitter's tree.

The tree knows functions, parameters and locals; but it leaves macro bodies unparsed and is led astray by macros in odd
places and by conditional heads, where a plain walk finds calls that are none. Words and calls are therefore taken from
the tokens (comments, strings and `#if 0` left out, macro bodies in), and placed into the tree's functions by offset.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from detectors.model import Language
from detectors.parsing import ParsedFile

if TYPE_CHECKING:
    from tree_sitter import Language as Grammar
    from tree_sitter import Node, Query, Tree

__all__ = ["CFile", "Call", "Function", "Macro"]

TOKENS = re.compile(
    rb"""
    (?P<skip> //(?:[^\n\\]|\\.|\\\n)*
            | /\*[\s\S]*?(?:\*/|\Z)
            | R"(?P<mark>[^()\\\s]{0,16})\([\s\S]*?\)(?P=mark)"
            | "(?:[^"\\\n]|\\[\s\S])*"?
            | '(?:[^'\\\n]|\\[\s\S])*'? )
  | ^[ \t]*\#[ \t]*(?P<directive>if|ifdef|ifndef|elif|elifdef|elifndef|else|endif|define|undef|include)\b
    (?P<rest>(?:[^\n\\]|\\[\s\S])*)
  | (?P<word>[A-Za-z_]\w*)
  | (?P<number>\.?[0-9](?:[eEpP][+-]|'[0-9A-Za-z]|[\w.])*)
    """,
    re.VERBOSE | re.MULTILINE,
)
MACRO_HEAD = re.compile(rb"[ \t]*(?P<name>[A-Za-z_]\w*)(?P<parameters>\([^)]*\))?")
KEYWORDS = frozenset(
    b"alignas alignof asm catch constexpr decltype defined do else for if noexcept return sizeof static_assert switch "
    b"throw typeof typeof_unqual while _Alignas _Alignof _Generic _Static_assert __alignof__ __asm__ __attribute__ "
    b"__declspec __extension__ __typeof__ case goto and or not co_return co_await co_yield delete new".split()
)
"""Words that stand before a parenthesis, or before a call, without being a function or a type."""
STATEMENTS = frozenset(b"if else for while do switch case return goto".split())
OPENS_A_CALL = KEYWORDS - {b"alignas", b"decltype"}
QUERY = """
(function_definition) @function
(parameter_declaration declarator: (_) @local)
(declaration declarator: (_) @local)
(array_declarator size: (_) @size)
(ERROR) @error
(translation_unit (compound_statement) @orphan)
(preproc_if (compound_statement) @orphan)
(preproc_ifdef (compound_statement) @orphan)
(preproc_else (compound_statement) @orphan)
"""
QUERY_CPP = "(new_expression) @new (delete_expression) @delete (optional_parameter_declaration declarator: (_) @local)"
NAMES = frozenset({"identifier", "field_identifier", "operator_name", "destructor_name", "type_identifier"})
SCOPES = frozenset({"class_specifier", "struct_specifier", "namespace_definition", "union_specifier"})
MAX_DECLARATOR_DEPTH = 64


class Call(msgspec.Struct, frozen=True):
    """A name before a parenthesis in live code, that is no declaration."""

    name: str
    """With its qualification, as in `a::f`."""
    start: int
    """Offset of the name's last part in `source`."""
    arguments: int
    """How many; -1 where the parentheses do not close."""


class Macro(msgspec.Struct, frozen=True):
    """A `#define` with a body."""

    name: str
    start: int
    calls: tuple[Call, ...]


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


class CFile(ParsedFile):
    """A C or C++ file. Linear in its size; nothing recurses over its nesting."""

    def __init__(self, data: bytes, language: Language, name: str = "") -> None:
        super().__init__(data, language, name)
        # What tree-sitter counts in is bytes of UTF-8; a mark at the front would shift every column of line 1.
        self.text = self.text.removeprefix("\ufeff")

    @functools.cached_property
    def tree(self) -> Tree:
        """The syntax tree of `source`."""
        from tree_sitter import Parser

        return Parser(_grammar(self.language)[0]).parse(self.source)

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
        found = (self._function(node) for node in self._captures.get("function", ()))
        orphans = (self._orphan(node) for node in self._captures.get("orphan", ()))
        both = (function for function in (*found, *orphans) if function is not None)
        live = (function for function in both if not self.is_dead(function.start))
        return sorted(live, key=lambda function: function.body)

    @functools.cached_property
    def calls(self) -> Sequence[Call]:
        """Calls outside of macro bodies, in order."""
        return [call for call in (self._call(start, word) for start, word in self._code[0]) if call is not None]

    @functools.cached_property
    def macros(self) -> Sequence[Macro]:
        """Macros with a body, in order."""
        return [self._macro(start, end) for start, end in self._code[1] if not self.is_dead(start)]

    def words(self, wanted: frozenset[bytes]) -> Iterator[tuple[int, str]]:
        """Yield (offset, word) of each of `wanted` in live code, macro bodies included."""
        for start, word in self._code[0]:
            if word in wanted and not self.is_dead(start):
                yield start, word.decode()
        for start, end in self._code[1]:
            if not self.is_dead(start):
                yield from ((at, word.decode()) for at, word in self._words_in(start, end) if word in wanted)

    def function_at(self, offset: int) -> Function | None:
        """Return the innermost function whose body holds `offset`."""
        place = bisect.bisect_right(self._bodies, offset) - 1
        # Functions within functions are rare (GNU, lambdas, local classes): a few steps back find the one around.
        for candidate in reversed(self.functions[max(place - 8, 0) : place + 1]):
            if candidate.body <= offset < candidate.end:
                return candidate
        return None

    def locals_of(self, function: Function) -> frozenset[str]:
        """Return the names that parameters and local variables of a function take away from functions."""
        return self._locals.get(function.body, frozenset())

    def nodes(self, capture: str) -> Iterator[Node]:
        """Yield the live nodes of a capture: `size` (of an array), `new`, `delete`."""
        return (node for node in self._captures.get(capture, ()) if not self.is_dead(node.start_byte))

    def is_dead(self, offset: int) -> bool:
        """Tell whether `offset` lies in an `#if 0` branch."""
        place = bisect.bisect_right(self._dead_starts, offset) - 1
        return place >= 0 and offset < self._code[2][place][1]

    @functools.cached_property
    def _captures(self) -> dict[str, list[Node]]:
        from tree_sitter import QueryCursor

        return QueryCursor(_grammar(self.language)[1]).captures(self.tree.root_node)

    @functools.cached_property
    def _code(self) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]], list[tuple[int, int]]]:
        """Words outside of directives, (start, end) of macro definitions, and dead ranges; one pass over the bytes."""
        words: list[tuple[int, bytes]] = []
        macros: list[tuple[int, int]] = []
        dead: list[tuple[int, int]] = []
        stack: list[int] = []
        """For each open conditional: where its dead branch began, or -1."""
        for match in TOKENS.finditer(self.source):
            kind = match.lastgroup
            if kind == "word":
                words.append((match.start(), match.group()))
            elif match["directive"] is not None:
                directive = match["directive"]
                if directive == b"define":
                    macros.append(match.span("rest"))
                else:
                    _conditional(directive, match, stack, dead)
        dead += [(start, len(self.source)) for start in stack if start >= 0]
        return words, macros, sorted(dead)

    @functools.cached_property
    def _parentheses(self) -> dict[int, tuple[int, int]]:
        return _matched(self.source)

    @functools.cached_property
    def _dead_starts(self) -> list[int]:
        return [start for start, _ in self._code[2]]

    @functools.cached_property
    def _bodies(self) -> list[int]:
        return [function.body for function in self.functions]

    @functools.cached_property
    def _locals(self) -> dict[int, frozenset[str]]:
        found: dict[int, set[str]] = {}
        starts = [function.start for function in self.functions]
        ordered = starts == sorted(starts)
        for node in self._captures.get("local", ()):
            place = bisect.bisect_right(starts, node.start_byte) - 1 if ordered else -1
            owner = self.functions[place] if place >= 0 else self.function_at(node.start_byte)
            if owner is None or not owner.start <= node.start_byte < owner.end:
                continue
            name, is_function = _declared(node)
            if name is not None and not is_function:
                found.setdefault(owner.body, set()).add(name.text.decode("utf-8", "replace") if name.text else "")
        return {body: frozenset(names) for body, names in found.items()}

    def _words_in(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        for match in TOKENS.finditer(self.source, start, end):
            if match.lastgroup == "word":
                yield match.start(), match.group()

    def _macro(self, start: int, end: int) -> Macro:
        head = MACRO_HEAD.match(self.source, start, end)
        name = head["name"].decode() if head else ""
        inside = self._words_in(head.end(), end) if head else iter(())
        calls = (self._call(at, word, head.end() if head else 0) for at, word in inside)
        return Macro(name, start, tuple(call for call in calls if call is not None))

    def _call(self, start: int, word: bytes, floor: int = 0) -> Call | None:
        """Return the call that begins at `start`, unless it is a keyword, a member, a declaration or a head."""
        source = self.source
        opening = _skip_space(source, start + len(word))
        if source[opening : opening + 1] != b"(" or word in KEYWORDS or self.is_dead(start):
            return None
        before = source[max(start - 256, floor) : start].rstrip()
        if before.endswith((b".", b"->")):
            return None
        name = word.decode()
        qualifier = QUALIFIER.search(before) if before.endswith(b"::") else None
        if qualifier is not None:
            before = before[: qualifier.start()].rstrip()
            name = re.sub(r"\s", "", qualifier.group(1).decode()) + name
        if before[-1:].isalnum() or before.endswith(b"_"):
            last = re.search(rb"\w+\Z", before)
            if last is not None and last.group() not in OPENS_A_CALL and not last.group().isdigit():
                return None  # `int f(` or `TYPE f(`: a declaration
        closing, arguments = self._parentheses.get(opening, (-1, -1))
        if closing < 0:
            return Call(name, start, -1)
        # What follows a head, also one of several under #if and #else, is a brace or another declaration.
        following = re.compile(rb"(?:\s|\\\n|//[^\n]*|/\*[\s\S]*?\*/|(?<=\n)[ \t]*\#[^\n]*)*(\{|[A-Za-z_])?").match(
            source, closing
        )
        after_directive = (
            b"\n#" in source[closing : following.start(1)].replace(b" ", b"") if following and following[1] else False
        )
        if following and (following[1] == b"{" or (following[1] and after_directive)):
            return None
        return Call(name, start, arguments)

    def _orphan(self, body: Node) -> Function | None:
        """
        Return the function whose head tree-sitter did not connect with its body.

        Several heads under `#if` and `#else` before one body are the usual cause. The function begins at the first of
        its heads: what follows the last `;` or `}` before.
        """
        source, words = self.source, self._code[0]
        border = max(source.rfind(b";", 0, body.start_byte), source.rfind(b"}", 0, body.start_byte))
        first = bisect.bisect_left(words, (border + 1, b""))
        last = bisect.bisect_left(words, (body.start_byte, b""))
        if any(word in STATEMENTS for _, word in words[first:last]):
            return None  # a statement of a function that the parser lost track of
        for start, word in words[first:last]:
            if word not in KEYWORDS and source[_skip_space(source, start + len(word)) :][:1] == b"(":
                static = any(word == b"static" for _, word in words[first:last])
                end = start + len(word)
                return Function(
                    word.decode(), "", static, words[first][0], start, end, body.start_byte, body.end_byte, -1
                )
        return None

    def _function(self, node: Node) -> Function | None:
        body = node.child_by_field_name("body")
        declarator = node.child_by_field_name("declarator")
        if body is None or declarator is None or body.type not in {"compound_statement", "try_statement"}:
            return None
        name, is_function = _declared(declarator)
        if name is None or name.text is None:
            return None
        if not is_function:
            # `TEST(name) {`: a macro writes the head. Nobody calls it by what stands in the parentheses.
            shown = self.source[node.start_byte : name.end_byte].decode("utf-8", "replace") + ")"
            at = (node.start_byte, node.start_byte, name.end_byte, body.start_byte, body.end_byte)
            return Function(shown, "", True, *at, -1)
        head = self.source[node.start_byte : name.start_byte]
        parameters = _parameters(declarator)
        prefix = _qualification(declarator)
        scope = "::".join(part for part in (_scope(node) if self.language == "cpp" else "", prefix) if part)
        return Function(
            name.text.decode("utf-8", "replace"), scope, b"static" in head.split(), node.start_byte, name.start_byte,
            name.end_byte, body.start_byte, body.end_byte, parameters,
        )  # fmt: skip


@functools.cache
def _grammar(language: Language) -> tuple[Grammar, Query]:
    from tree_sitter import Language as Grammar
    from tree_sitter import Query

    if language == "cpp":
        import tree_sitter_cpp

        grammar = Grammar(tree_sitter_cpp.language())
        return grammar, Query(grammar, QUERY + QUERY_CPP)
    import tree_sitter_c

    grammar = Grammar(tree_sitter_c.language())
    return grammar, Query(grammar, QUERY)


def _conditional(directive: bytes, match: re.Match[bytes], stack: list[int], dead: list[tuple[int, int]]) -> None:
    """Follow `#if 0` and its `#else`; every branch of any other conditional is live."""
    if directive in {b"if", b"ifdef", b"ifndef"}:
        never = directive == b"if" and re.fullmatch(rb"[ \t]*\(?[ \t]*0[ \t]*\)?[ \t]*(?:/[/*][\s\S]*)?", match["rest"])
        stack.append(match.end() if never else -1)
    elif directive in {b"else", b"elif", b"elifdef", b"elifndef", b"endif"} and stack:
        start = stack.pop()
        if start >= 0:
            dead.append((start, match.start()))
        if directive != b"endif":
            stack.append(-1)


def _declared(node: Node) -> tuple[Node | None, bool]:
    """Return the name node that a declarator declares, and whether it declares a function (not a pointer to one)."""
    is_function = False
    current: Node | None = node
    for _ in range(MAX_DECLARATOR_DEPTH):
        if current is None or current.type in NAMES:
            return current, is_function
        if current.type == "qualified_identifier":
            current = current.child_by_field_name("name")
            continue
        if current.type == "template_function":
            current = current.child_by_field_name("name")
            continue
        if current.type == "function_declarator":
            is_function = True
        elif current.type == "pointer_declarator":
            is_function = False  # of `(*f)(int)`, seen from outside in; `*f(int)` is a function again
        inner = current.child_by_field_name("declarator")
        if inner is None and current.named_child_count:
            inner = next((c for c in current.named_children if c.type.endswith("declarator") or c.type in NAMES), None)
        current = inner
    return None, False


def _function_declarator(node: Node) -> Node | None:
    current: Node | None = node
    for _ in range(MAX_DECLARATOR_DEPTH):
        if current is None or current.type == "function_declarator":
            return current
        inner = current.child_by_field_name("declarator")
        current = inner or next((c for c in current.named_children if c.type.endswith("declarator")), None)
    return None


def _parameters(declarator: Node) -> int:
    function = _function_declarator(declarator)
    listed = function.child_by_field_name("parameters") if function is not None else None
    if listed is None:
        return -1
    kinds = [child.type for child in listed.named_children if child.type != "comment"]
    if any(
        kind in {"variadic_parameter", "variadic_parameter_declaration", "optional_parameter_declaration"}
        for kind in kinds
    ):
        return -1
    only = listed.named_children[0].text if len(kinds) == 1 else None
    return 0 if only == b"void" else len(kinds)


def _qualification(declarator: Node) -> str:
    function = _function_declarator(declarator)
    inner = function.child_by_field_name("declarator") if function is not None else None
    parts = []
    for _ in range(MAX_DECLARATOR_DEPTH):
        if inner is None or inner.type != "qualified_identifier":
            break
        scope = inner.child_by_field_name("scope")
        parts.append(scope.text.decode("utf-8", "replace") if scope is not None and scope.text else "")
        inner = inner.child_by_field_name("name")
    return "::".join(parts)


def _scope(node: Node) -> str:
    parts: list[str] = []
    current = node.parent
    for _ in range(4 * MAX_DECLARATOR_DEPTH):
        if current is None:
            break
        if current.type in SCOPES:
            name = current.child_by_field_name("name")
            parts.append(name.text.decode("utf-8", "replace") if name is not None and name.text else "")
        current = current.parent
    return "::".join(part for part in reversed(parts) if part)


def _skip_space(source: bytes, start: int) -> int:
    match = SPACE.match(source, start)
    return match.end() if match else start


SPACE = re.compile(rb"(?:[ \t\r\n\f\v]|\\\r?\n)*")
BRACKETS = re.compile(
    rb"""[(){},]|"(?:[^"\\\n]|\\[\s\S])*"?|'(?:[^'\\\n]|\\[\s\S])*'?|//[^\n]*|/\*[\s\S]*?(?:\*/|\Z)"""
)
QUALIFIER = re.compile(rb"((?:[A-Za-z_]\w*[ \t]*)?(?:::[ \t]*(?:[A-Za-z_]\w*[ \t]*)?)*::)\s*\Z")


def _matched(source: bytes) -> dict[int, tuple[int, int]]:
    """
    Return, for each opening parenthesis that closes, (offset behind the closing one, number of arguments).

    One pass with a stack. Conditional branches may leave parentheses open or close one twice; a closing brace drops
    what was left open inside of it, so that such a mismatch stays within its block.
    """
    found: dict[int, tuple[int, int]] = {}
    stack: list[list[int]] = []
    """(offset, commas) of what is open; commas is -1 for a brace."""
    braces: list[int] = []
    """Places of the braces in the stack."""
    for match in BRACKETS.finditer(source):
        token = match.group()
        if token == b"(":
            stack.append([match.start(), 0])
        elif token == b"{":
            braces.append(len(stack))
            stack.append([match.start(), -1])
        elif token == b"}":
            if braces:
                del stack[braces.pop() :]
        elif token == b")" and stack and stack[-1][1] >= 0:
            opening, commas = stack.pop()
            empty = commas == 0 and not source[opening + 1 : match.start()].strip()
            found[opening] = match.end(), 0 if empty else commas + 1
        elif token == b"," and stack and stack[-1][1] >= 0:
            stack[-1][1] += 1
    return found
