"""
What the preprocessor would take away from C or C++ source, and which of the rest makes one text that can be parsed.

A grammar sees directives as part of the program, but they may stand anywhere: between two heads of one function, inside
an expression, around half of an `if`. So the text is laid out first. All offsets stay those of the source, because
nothing is ever cut out, only blanked:

- `Layout.parsable`: directives and comments are blank. Of a conditional group whose branches are whole (balanced
  brackets, ended statements), all branches stay; of any other, the one branch that fits what was chosen before.
- `Layout.code`: directives, comments and the insides of strings are blank, but every branch is there. `#if 0` is not.
- `Layout.macros`: the bodies that no grammar looks into.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

__all__ = ["Directive", "Layout", "Macro", "lay_out"]

_BLOCK_COMMENT = rb"/\*[^*]*+\*++(?:[^/*][^*]*+\*++)*+/"
_LINE_COMMENT = rb"//(?:[^\\\n]++|\\[\s\S]?)*+"
_STRING = rb'"(?:[^"\\\n]++|\\[\s\S]?)*+"?'
_CHARACTER = rb"'(?:[^'\\\n]++|\\[\s\S]?)*+'?"
_DIRECTIVE = (
    rb"(?:#|%:|\?\?=)"
    rb"(?:[^\n\\/\"']++|\\\r?\n|\\|" + rb"|".join((_BLOCK_COMMENT, _LINE_COMMENT, _STRING, _CHARACTER)) + rb"|/)*+"
)
# Each alternative begins with a literal, and what stands before is looked at afterwards: so the engine skips to them,
# which it cannot with groups around. The first byte of a match tells its kind.
# A raw string ends at its own delimiter only; C++ alone has them in all of its dialects.
_RAW_STRING = (
    rb'"(?:(?<=\bR")|(?<=\b[uUL]R")|(?<=\bu8R"))'
    rb'(?P<delimiter>[^()\\\s"]{0,16})\([\s\S]*?(?:\)(?P=delimiter)"|\Z)|'
)
# Digit separators (1'000) must not open a character; u8'a' opens one.
_TEXTS = (
    rb"/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|"
    + _LINE_COMMENT
    + rb"|"
    + _STRING
    + rb"|'(?:(?<![0-9a-fA-F]')|(?<=\bu8'))"
    + _CHARACTER[1:]
)
_INSIDE = {"c": re.compile(_TEXTS), "cpp": re.compile(_RAW_STRING + _TEXTS)}
_REST = _TEXTS + rb"|" + _DIRECTIVE
_LEXERS = {"c": re.compile(_REST), "cpp": re.compile(_RAW_STRING + _REST)}
_KEYWORD = re.compile(rb"(?:#|%:|\?\?=)(?:[ \t\f\v]|\\\r?\n|" + _BLOCK_COMMENT + rb")*+(\w*)")
_DEFINE = re.compile(rb"\s*+([A-Za-z_$]\w*+)(\([^()]*+\))?")
_SPLICE = re.compile(rb"\\\r?\n")
_NO_BRACE = bytes(byte for byte in range(256) if byte not in b"{}")
_BETWEEN_BRACES = 124
"""Less the byte of a brace: 1 for one that opens, -1 for one that closes."""
_SLASH, _QUOTES = ord("/"), b"\"'"
_SPACES = bytes(byte if byte == 10 else 32 for byte in range(256))
# Indented, so that it stands in a body: further out it may be the type of a function's result.
_LONELY = re.compile(rb"\n([ \t]++[A-Z](?=\w*[A-Z])\w*+(?:\([^()\n;{}]*+\))?[ \t]*+\r?$)", re.M)
_ENDS_A_STATEMENT = (b";", b"{", b"}")
_GOES_ON = (b"}", b"*", b"_")
_WHOLE_ENDS = b";},:"


class Macro(msgspec.Struct, frozen=True):
    """One `#define` outside of `#if 0`."""

    name: str
    start: int
    """Offset of the directive."""
    body: int
    """Offset of the replacement text."""
    code: bytes
    """The replacement text with comments and the insides of strings blank; `code[i]` stands at `body + i`."""
    takes_arguments: bool
    parameters: frozenset[bytes]


class Directive(msgspec.Struct, frozen=True):
    """One preprocessor directive outside of `#if 0`; the conditionals around dead code are live."""

    keyword: bytes
    """Such as `ifdef`, without the mark."""
    start: int
    """Offset of the line's first byte."""
    rest: int
    """Offset behind the keyword."""
    end: int


class Layout(msgspec.Struct, frozen=True):
    """One source text, laid out; see the module."""

    parsable: bytes
    code: bytes
    macros: tuple[Macro, ...]
    directives: tuple[Directive, ...]
    hidden: tuple[tuple[int, int, int], ...]
    """Branches that are in `code`, not in `parsable`: start, end, where their group begins; sorted, disjoint."""


def lay_out(source: bytes, language: Literal["c", "cpp"]) -> Layout:
    """
    Lay a source text out, in time linear in its length.

    Args:
        source: UTF-8, but any bytes will do.
        language: C++ has raw strings; in C a group under `__cplusplus` that is not whole is not taken.
    """
    directives: list[tuple[int, int]] = []
    parsable = bytearray(source)
    # A spliced line is one line to every pattern that takes white space for what it is.
    code = bytearray(source.replace(b"\\\n", b" \n").replace(b"\\\r\n", b" \r\n"))
    for match in _LEXERS[language].finditer(source):
        start, end = match.span()
        first = source[start]
        if first == _SLASH:
            # The grammar would read a comment that never ends from each of its beginnings again.
            parsable[start:end] = code[start:end] = source[start:end].translate(_SPACES)
        elif first in _QUOTES:
            # The quotes stay, so that `f("x")` is still a call with an argument.
            code[start + 1 : end - 1] = source[start + 1 : end - 1].translate(_SPACES)
        # What stands before a directive on its line may be comments only; those are blank by now.
        elif not code[code.rfind(b"\n", 0, start) + 1 : start].strip():
            directives.append((start, end))
            parsable[start:end] = code[start:end] = source[start:end].translate(_SPACES)
    conditionals = _Conditionals(bytes(code), language)
    defines: list[tuple[int, int]] = []
    seen: dict[int, Directive] = {}
    for start, end in directives:
        keyword = _KEYWORD.match(source, start, end)
        assert keyword is not None, "every directive has its mark"
        seen[start] = Directive(keyword[1], start, keyword.end(), end)
        if keyword[1] == b"define":
            defines.append((keyword.end(), end))
        elif keyword[1] in _CONDITIONS:
            conditionals.see(keyword[1], source[keyword.end() : end], start, end)
    conditionals.finish()
    for start, end in conditionals.dead:
        code[start:end] = parsable[start:end] = source[start:end].translate(_SPACES)
    hidden = tuple(_outermost(conditionals.hidden))
    for start, end, _ in hidden:
        parsable[start:end] = source[start:end].translate(_SPACES)
    for start, end in _lonely(bytes(parsable)):
        parsable[start:end] = source[start:end].translate(_SPACES)
    dead = list(_merged(conditionals.dead))
    macros = tuple(_macros(source, _outside(defines, dead), language))
    live = tuple(seen[start] for start, _ in _outside(directives, dead))
    return Layout(bytes(parsable), bytes(code), macros, live, hidden)


def _lonely(code: bytes) -> Iterator[tuple[int, int]]:
    """Yield where a macro stands alone on its line as a whole statement, without the semicolon that a grammar needs."""
    for match in _LONELY.finditer(code):
        before = code[max(match.start(1) - 200, 0) : match.start()].rstrip()
        after = code[match.end() : match.end() + 200].lstrip()
        if before[-1:] in _ENDS_A_STATEMENT and (after[:1].isalpha() or after[:1] in _GOES_ON):
            yield match.span(1)


def _macros(source: bytes, defines: Iterable[tuple[int, int]], language: Literal["c", "cpp"]) -> Iterator[Macro]:
    for start, end in defines:
        head = _DEFINE.match(source, start, end)
        if head is None:
            continue
        body = bytearray(_SPLICE.sub(lambda splice: b" " * len(splice[0]), source[head.end() : end]))
        for match in _INSIDE[language].finditer(bytes(body)):
            inside_from, inside_to = match.span()
            if body[inside_from] in _QUOTES:
                inside_from, inside_to = inside_from + 1, inside_to - 1
            body[inside_from:inside_to] = b" " * max(0, inside_to - inside_from)
        parameters = frozenset(re.findall(rb"\w+", head[2] or b""))
        name = head[1].decode("ascii", "replace")
        yield Macro(name, start, head.end(), bytes(body), head[2] is not None, parameters)


@dataclass
class _Text:
    """What must be known of a stretch of code to tell whether it is whole."""

    braces: int = 0
    lowest: int = 0
    """Of the braces' balance."""
    brackets: int = 0
    first: bytes = b""
    """Up to five bytes, enough for `else `."""
    last: bytes = b""

    def add(self, other: _Text) -> None:
        self.lowest = min(self.lowest, self.braces + other.lowest)
        self.braces += other.braces
        self.brackets += other.brackets
        self.first = self.first or other.first
        self.last = other.last or self.last

    def is_whole(self, before: bytes) -> bool:
        if not self.last:
            return True
        if self.first.startswith(b"else") or (self.first.startswith(b"{") and before not in b";{},:"):
            return False
        return not self.braces and not self.brackets and self.lowest >= 0 and self.last in _WHOLE_ENDS


@dataclass
class _Branch:
    start: int
    condition: tuple[str, bool] | None
    """The text of the condition and whether it must hold; `None` for `#else`."""
    dead: bool = False
    text: _Text = field(default_factory=_Text)
    end: int = 0


@dataclass
class _Group:
    start: int
    before: bytes
    branches: list[_Branch]
    settled: bool = False


class _Conditionals:
    """Follows the conditional directives of one file; the stack is ours, since groups may nest by the thousand."""

    def __init__(self, code: bytes, language: Literal["c", "cpp"]) -> None:
        self._code = code
        self._chosen: dict[str, bool] = {"__cplusplus": language == "cpp"}
        self._outermost = _Text()
        self._open: list[_Group] = []
        self._seen_to = 0
        self.dead: list[tuple[int, int]] = []
        self.hidden: list[tuple[int, int, int]] = []

    def see(self, keyword: bytes, rest: bytes, start: int, end: int) -> None:
        """Take the next directive of `_CONDITIONS`."""
        self._read(start)
        self._seen_to = end
        if keyword in _OPENS:
            self._open.append(_Group(start, self._current().last, [_branch(keyword, rest, end)]))
        elif self._open:
            group = self._open[-1]
            group.branches[-1].end = start
            if keyword != b"endif":
                branch = _branch(keyword, rest, end)
                # What stands after `#if 1` is as dead as what stands under `#if 0`.
                group.settled = group.settled or group.branches[-1].condition == ("1", True)
                branch.dead = branch.dead or group.settled
                group.branches.append(branch)
            else:
                self._close(self._open.pop())

    def finish(self) -> None:
        """End the file; groups that are still open end with it."""
        self._read(len(self._code))
        for group in reversed(self._open):
            group.branches[-1].end = len(self._code)
            self._open.pop()
            self._close(group)

    def _current(self) -> _Text:
        return self._open[-1].branches[-1].text if self._open else self._outermost

    def _read(self, end: int) -> None:
        code = self._code[self._seen_to : end].strip()
        if not code:
            return
        if not self._open:
            self._outermost.last = code[-1:]  # nobody asks whether the whole file is whole
            return
        steps = map(_BETWEEN_BRACES.__sub__, code.translate(None, _NO_BRACE))
        balance = list(itertools.accumulate(steps, initial=0))
        brackets = code.count(b"(") + code.count(b"[") - code.count(b")") - code.count(b"]")
        self._current().add(_Text(balance[-1], min(balance), brackets, code[:5], code[-1:]))

    def _close(self, group: _Group) -> None:
        self.dead += ((branch.start, branch.end) for branch in group.branches if branch.dead)
        branches = [branch for branch in group.branches if not branch.dead]
        current = self._current()
        if all(branch.text.is_whole(group.before) for branch in branches):
            for branch in branches:
                current.add(branch.text)
            return
        kept = self._choose(branches)
        if kept is not None:
            current.add(kept.text)
        self.hidden += ((branch.start, branch.end, group.start) for branch in branches if branch is not kept)

    def _choose(self, branches: list[_Branch]) -> _Branch | None:
        """Take the branch that earlier choices ask for: a brace opened under a condition is closed under it."""
        for branch in branches:
            if branch.condition is None:
                return branch
            text, holds = branch.condition
            if self._chosen.setdefault(text, holds) == holds:
                return branch
        return None


_OPENS = frozenset((b"if", b"ifdef", b"ifndef"))
_CONDITIONS = _OPENS | {b"elif", b"elifdef", b"elifndef", b"else", b"endif"}
_DEFINED = re.compile(r"(!?)\s*defined\s*\(?\s*(\w+)\s*\)?\Z")


def _branch(keyword: bytes, rest: bytes, start: int) -> _Branch:
    if keyword == b"else":
        return _Branch(start, None)
    text = b" ".join(re.sub(_BLOCK_COMMENT + rb"|" + _LINE_COMMENT, b" ", rest).split()).decode("latin-1")
    if keyword.endswith(b"def"):
        return _Branch(start, (text, not keyword.endswith(b"ndef")))
    if defined := _DEFINED.match(text):
        return _Branch(start, (defined[2], not defined[1]))
    return _Branch(start, (text, True), dead=text.strip("() ") in ("0", "false"))


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start, end = 0, 0
    for next_start, next_end in sorted(ranges):
        if next_start > end:
            if end > start:
                yield start, end
            start, end = next_start, next_end
        end = max(end, next_end)
    if end > start:
        yield start, end


def _outermost(ranges: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the ranges that lie in no other; groups nest, so ranges never overlap in part."""
    seen_to = 0
    for start, end, group in sorted(ranges, key=lambda hidden: (hidden[0], -hidden[1])):
        if start >= seen_to:
            yield start, end, group
            seen_to = end


def _outside(inner: list[tuple[int, int]], holes: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of `inner` that lie in no hole; both are sorted."""
    remaining = iter(holes)
    hole = next(remaining, None)
    for start, end in inner:
        while hole is not None and hole[1] <= start:
            hole = next(remaining, None)
        if hole is None or not hole[0] <= start < hole[1]:
            yield start, end
