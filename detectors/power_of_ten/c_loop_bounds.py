"""Rule 2 in C: every loop has an upper bound that can be shown by looking at it."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing, split, unwrapped
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["CLoopBounds"]

PATH = rb"[A-Za-z_]\w*+(?:\s*+(?:->|\.)\s*+[A-Za-z_]\w*+)*+"
WRITES = re.compile(rb"\+\+|--|=(?!=)|&(?![&=])")
BACKWARDS = re.compile(rb"\s*+(\)\s*+)?(\w++(?:\s*+(?:>-|\.)\s*+\w++)*+)(\s*+\*(?:\s*+\()?)?")
"""A path and the star before it, in the mirrored code: what stands before an operator is matched, not searched."""
FORWARDS = re.compile(rb"\s*+(\(\s*+\*\s*+)?(" + PATH + rb")(?!\s*+[(\[])")
COMPOUND = re.compile(rb"(?:<<|>>|[-+*/%&|^])\Z")
JUMP = re.compile(rb"\b(?:break|continue|return|goto|throw|co_return|exit|_exit|_Exit|abort|longjmp|siglongjmp)\b")
IF = re.compile(rb"\bif\s*+\(")
LEAVES = re.compile(rb"\b(?:break|return|goto|throw|co_return|exit|_exit|_Exit|abort|longjmp|siglongjmp)\b")
CONDITIONAL = re.compile(rb"\b(?:if|else|switch|case|while|for)\b")
COMPARISON = re.compile(rb"(?<![<>=!-])(<=|>=|!=|<|>)(?![<>=])")
WORD = re.compile(rb"[A-Za-z_]\w*+")
NAMES = re.compile(PATH)
SPACES = re.compile(rb"\s+")
CALLED = re.compile(rb"\b([A-Za-z_]\w*+)\s*+\(")
CAST = re.compile(rb"\(\s*(?:const |unsigned |signed |long |short |struct )*\w+[\s*]*\)\s*(?=[\w(*])")
COUNTS = re.compile(rb"(?:\+\+|--)?(\*?\s*" + PATH + rb")(?:\+\+|--)?(?:\s*[-+*/]\s*[\w.]+)*\Z")
DISTANCE = re.compile(rb"(" + PATH + rb")(?:\+\+|--)?\s*-\s*(" + PATH + rb")(?:\+\+|--)?\Z")
SIZE = re.compile(rb"\bsizeof\b\s*+(?:" + PATH + rb"|\([^()]*+\))")
TRUE = frozenset((b"", b"1", b"true", b"TRUE", b"True", b"!0", b"1==1", b"0==0", b"!false", b"1u", b"1U"))
FALSE = frozenset((b"0", b"false", b"FALSE", b"!1", b"!true"))
BRACES = re.compile(rb"[{}]")
OPENING = ord("{")
LABEL = re.compile(rb"\b(\w+)\s*+:(?!:)")
NUMBER = re.compile(rb"(?:0[xX][0-9a-fA-F']+|[0-9][0-9']*)[uUlLzZ]*\Z|'(?:\\.[^']*|[^'])'\Z")
UNSIGNED = rb"\b(?:unsigned(?:\s+\w+)?|size_t|u?int(?:8|16|32|64|ptr|max)_t|uint\w*|u(?:8|16|32|64)|DWORD|UINT\w*)\s"
SMALL = rb"\b(u?int(?:8|16)_t|unsigned char|signed char|unsigned short)\s"
STABLE_CALLS = frozenset(
    (b"sizeof", b"strlen", b"wcslen", b"strnlen", b"alignof", b"_Alignof", b"offsetof", b"ARRAY_SIZE")
)
SAME = frozenset((b"size", b"length", b"count", b"capacity", b"max", b"min"))
"""Members of containers and functions whose result is fixed while what they are asked about is."""
MAX_CONDITION = 2_000
"""Bytes of a condition that are read; nobody sees a bound in a longer one."""
MAX_DEPTH = 20
MAX_CONTINUES = 100


class _Write(NamedTuple):
    offset: int
    operator: bytes
    """`++`, `--`, `=`, `+=` …, or `&` where the address is taken."""
    value: bytes
    """What an assignment takes, up to its end; empty else."""


class _Loop:
    """One loop, by offsets in the code."""

    __slots__ = ("body", "body_end", "breaks", "condition", "continues", "end", "ifs", "kind", "start", "update")

    def __init__(self, node: Node) -> None:
        self.kind = node.type
        self.start, self.end = node.start_byte, node.end_byte
        body = node.child_by_field_name("body")
        self.body, self.body_end = (body.start_byte, body.end_byte) if body is not None else (self.end, self.end)
        condition = node.child_by_field_name("condition")
        self.condition = (
            (condition.start_byte, condition.end_byte) if condition is not None else (self.start, self.start)
        )
        update = node.child_by_field_name("update") if self.kind == "for_statement" else None
        self.update = (update.start_byte, update.end_byte) if update is not None else (self.start, self.start)
        self.breaks: list[int] = []
        self.continues: list[int] = []
        self.ifs: list[int] = []


class CLoopBounds(FileRule):
    """
    A loop without an upper bound that can be shown by looking at it.

    Why: a loop that may run on makes the worst case unknowable; with a fixed bound a tool can prove that it ends.
    Instead: count towards a limit that the loop does not change; where a list is walked or a peer is waited for, count
    the passes as well: `if (++passes > MAX_PASSES) break;`.
    Reported: `while` and `do` whose condition no counter limits, `for` whose counter or limit is changed in the body,
    walks over lists and strings, endless loops with a way out; also in the bodies of macros.
    Not reported: an endless loop without any way out, the paper's scheduler; loops with a guarded counter that leaves
    them; a counter that is halved or shifted towards zero.
    Not found: limits that are changed through a pointer or by a called function.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 2.
    """

    id = "P10-R2-loop-bound"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
#define MAX 10
#define ONCE(x) do { use(x); } while ((void) 0, 0)
void bounded(int n, const char *end, const char *p, unsigned bits)
{
    for (int i = n; i-- > 0;) { use(i); }
    for (; p < end; p += 2) { use(*p); }
    for (unsigned i = 0; i < sizeof n; i++) { n = 1; }
    while (n > 0) { use(n); n--; }
    while (bits) { bits >>= 1; }
    do { use(n); } while (0);
    for (;;) { schedule(); }
}
void guarded(const char *p)
{
    int passes = 0;
    while (*p) { p++; if (++passes > MAX) break; }
}
""",
        """
void unbounded(struct node *list, const char *p, int n)
{
    for (; list; list = list->next) { use(list); }   // expect: P10-R2-loop-bound
    while (*p) { p++; }                              // expect: P10-R2-loop-bound
    for (int i = 0; i < n; i++) { if (skip()) i--; } // expect: P10-R2-loop-bound
    for (int i = 0; i < n; i++) { n += more(); }     // expect: P10-R2-loop-bound
    for (unsigned i = 9; i >= 0; i--) { use(i); }    // expect: P10-R2-loop-bound
    while (1) { if (done()) break; }                 // expect: P10-R2-loop-bound
    do { n = next(); } while (n);                    // expect: P10-R2-loop-bound
    while (n > 0) { if (odd()) n--; }                // expect: P10-R2-loop-bound
}
#define EACH(v, h) for (v = (h); v; v = v->next)     // expect: P10-R2-loop-bound
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each loop whose bound does not show, at its keyword."""
        unit = as_c(parsed)
        for start, problem in _problems(unit.layout.code, unit.nodes("loop"), unit.nodes("block.switch")):
            yield self.finding(unit.region(start, start + len(_keyword(unit.source, start))), problem)
        for fragment in unit.fragments:
            text = fragment.text
            for start, problem in _problems(text, fragment.nodes("loop"), fragment.nodes("block.switch")):
                at = fragment.base + start
                yield self.finding(unit.region(at, at + len(_keyword(text, start))), problem)


def _keyword(code: bytes, start: int) -> bytes:
    word = WORD.match(code, start)
    return word[0] if word is not None else b""


def _problems(code: bytes, loops: Sequence[Node], switches: Sequence[Node]) -> Iterator[tuple[int, str]]:
    """Yield (offset, what is wrong) of loops without a bound."""
    if not loops:
        return
    function = _Loops(code, [_Loop(node) for node in loops], [(node.start_byte, node.end_byte) for node in switches])
    for loop in function.loops:
        problem = function.problem(loop)
        if problem:
            yield loop.start, problem


class _Loops:
    """All loops of a text, with what is written and where they are left; each is looked at once."""

    def __init__(self, code: bytes, loops: list[_Loop], switches: list[tuple[int, int]]) -> None:
        self.code = code
        self.mirror = code[::-1]
        self.loops = loops
        self._writes: dict[bytes, list[_Write]] = {}
        self._leaving: list[int] = []
        self._known: dict[tuple[object, ...], bool] = {}
        self._small: dict[tuple[_Loop, bytes], bytes] = {}
        end = 0
        for loop in loops:
            if loop.start >= end:
                end = loop.end
                self._read_writes(loop.start, end)
        for writes in self._writes.values():
            writes.sort(key=lambda write: write.offset)
        self._place(switches)

    # p10: ignore[R10] a check that answers as soon as it knows reads better than one that nests by the maintainers
    def problem(self, loop: _Loop) -> str | None:
        """Return why the bound of a loop does not show; `None` if it does."""
        condition = self._condition(loop)
        plain = SPACES.sub(b"", condition).strip(b"()")
        if plain in FALSE and loop.kind == "do_statement":
            return None
        endless = plain in TRUE
        if endless and not self._has_a_way_out(loop):
            return None
        if not endless:
            changed = self._changed_counter(loop, condition)
            if changed:
                return f"{changed.decode('utf-8', 'replace')} counts this loop and is changed in its body"
            if self._bounds(loop, condition):
                return None
        if self._is_guarded(loop):
            return None
        if endless:
            return "an endless loop with a way out; count its passes and leave at a limit"
        return "no upper bound of this loop can be shown; let a counter limit it"

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read_writes(self, start: int, end: int) -> None:
        for match in WRITES.finditer(self.code, start, end):
            write = self._written(match.start(), match.end(), match[0])
            if write is not None:
                path, offset, operator = write
                value = self._value(match.end(), end) if operator.endswith(b"=") else b""
                self._writes.setdefault(path, []).append(_Write(offset, operator, value))

    def _written(self, start: int, end: int, operator: bytes) -> tuple[bytes, int, bytes] | None:
        """Return (path, offset, operator) of what an operator writes; `*p = x` and `(*p)++` write to `*p`."""
        if operator == b"=":
            compound = COMPOUND.search(self.code, max(start - 2, 0), start)
            if compound is not None:
                operator, start = compound[0] + b"=", compound.start()
            elif self.code[start - 1 : start] in (b"=", b"!", b"<", b">"):
                return None
        elif operator == b"&" and self.code[start - 1 : start] == b"&":
            return None
        before = BACKWARDS.match(self.mirror, len(self.code) - start)
        if before is not None and operator != b"&" and not before[2][-1:].isdigit():
            path, offset = SPACES.sub(b"", before[2][::-1]), len(self.code) - before.end(2)
            # `*p++` moves p.
            if before[3] and (before[1] or not operator.startswith((b"++", b"--"))):
                path = b"*" + path
            return None if before[1] and not before[3] else (path, offset, operator)
        if operator.endswith(b"=") or (operator == b"&" and before is not None):
            return None
        after = FORWARDS.match(self.code, end)
        if after is None:
            return None
        return (b"*" if after[1] else b"") + SPACES.sub(b"", after[2]), after.start(2), operator

    def _value(self, start: int, end: int) -> bytes:
        stop = self.code.find(b";", start, min(end, start + 200))
        return self.code[start : stop if stop >= 0 else start + 200].strip()

    def _place(self, switches: list[tuple[int, int]]) -> None:
        """Give each jump and each `if` to the innermost loop around it; `break` may belong to a switch instead."""
        ranges: list[tuple[int, int, _Loop | None]] = [(loop.start, loop.end, loop) for loop in self.loops]
        ranges += [(start, end, None) for start, end in switches]
        ranges.sort(key=lambda item: (item[0], -item[1]))
        events = [(match.start(), match[0]) for match in self._in_loops(JUMP)]
        events += [(match.end() - 1, b"if") for match in self._in_loops(IF)]
        events.sort()
        opened: list[tuple[int, _Loop | None]] = []
        loops: list[tuple[int, _Loop]] = []
        place = 0
        for offset, word in events:
            while place < len(ranges) and ranges[place][0] <= offset:  # p10: each range is entered once
                start, end, loop = ranges[place]
                place += 1
                _leave(opened, start)
                _leave(loops, start)
                opened.append((end, loop))
                if loop is not None:
                    loops.append((end, loop))
            _leave(opened, offset)
            _leave(loops, offset)
            if not loops:
                continue
            if word == b"if":
                loops[-1][1].ifs.append(offset)
            elif word == b"continue":
                loops[-1][1].continues.append(offset)
            elif word != b"break":
                self._leaving.append(offset)
            elif opened[-1][1] is not None:
                opened[-1][1].breaks.append(offset)

    def _in_loops(self, pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
        end = 0
        for loop in self.loops:
            if loop.start >= end:
                end = loop.end
                yield from pattern.finditer(self.code, loop.start, end)

    # -- judging ---------------------------------------------------------------------------------------------------

    def _condition(self, loop: _Loop) -> bytes:
        start, end = loop.condition
        # Of `(void) 0, 0` only the last counts.
        return split(unwrapped(self.code[start : min(end, start + MAX_CONDITION)]), b",")[-1]

    def _has_a_way_out(self, loop: _Loop) -> bool:
        if loop.breaks:
            return True
        first = bisect.bisect_left(self._leaving, loop.start)
        for offset in self._leaving[first : bisect.bisect_left(self._leaving, loop.end)]:
            target = re.compile(rb"goto\s+(\w+)").match(self.code, offset)
            if target is None:
                return True
            labels = self._labels.get(target[1], ())
            if bisect.bisect_left(labels, loop.start) == bisect.bisect_left(labels, loop.end):
                return True
        return False

    @functools.cached_property
    def _labels(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for match in LABEL.finditer(self.code):
            found.setdefault(match[1], []).append(match.start())
        return found

    @functools.cached_property
    def _braces(self) -> list[int]:
        return [match.start() for match in BRACES.finditer(self.code)]

    @functools.cached_property
    def _levels(self) -> list[int]:
        """How many braces are open behind each number of braces."""
        return [0, *itertools.accumulate(1 if self.code[place] == OPENING else -1 for place in self._braces)]

    def _is_direct(self, loop: _Loop, offset: int) -> bool:
        """Tell whether an offset lies in the body itself, not in a block within."""
        first = bisect.bisect_left(self._braces, loop.body)
        last = max(bisect.bisect_left(self._braces, offset), first)
        own = loop.body < offset and self.code.startswith(b"{", loop.body)
        return self._levels[last] - self._levels[first] == (1 if own else 0)

    def _changes(self, path: bytes, start: int, end: int) -> Sequence[_Write]:
        writes = self._writes.get(path, ())
        first = bisect.bisect_left(writes, start, key=lambda write: write.offset)
        return writes[first : bisect.bisect_left(writes, end, key=lambda write: write.offset)]

    def _is_fixed(self, text: bytes, loop: _Loop) -> bool:
        """Tell whether nothing that an expression names is changed in the loop, and all that it calls is known."""
        for call in CALLED.finditer(text):
            name = call[1]
            if name not in STABLE_CALLS and name not in SAME and not name.isupper() and not name.endswith(b"_t"):
                return False
        for match in NAMES.finditer(SIZE.sub(b"", text)):
            path = SPACES.sub(b"", match[0])
            # `s->n` also changes with `s`, `*p` with p.
            parts = re.split(rb"(->|\.)", path)
            prefixes = [b"".join(parts[: place + 1]) for place in range(0, len(parts), 2)]
            if match.start() and text[match.start() - 1 : match.start()] == b"*":
                prefixes.append(b"*" + path)
            if any(self._alters(prefix, path, loop) for prefix in prefixes):
                return False
        return True

    def _alters(self, prefix: bytes, path: bytes, loop: _Loop) -> bool:
        """Tell whether a pass writes to `prefix`, which is `path` or what it is a part of."""
        if prefix not in self._writes:
            return False
        key = ("alters", loop, prefix, prefix == path)
        if key not in self._known:
            writes = self._changes(prefix, self._start_of_passes(loop), loop.end)
            # A structure that is handed to others by its address is taken to keep the member that limits the loop.
            self._known[key] = any(write.operator != b"&" or prefix == path for write in writes)
        return self._known[key]

    def _changed_counter(self, loop: _Loop, condition: bytes) -> bytes | None:
        """Return the counter of a `for` that its body changes too."""
        if loop.kind != "for_statement" or loop.update[0] == loop.start:
            return None
        for match in NAMES.finditer(condition):
            path = SPACES.sub(b"", match[0])
            if self._changes(path, *loop.update) and self._changes(path, loop.body, loop.body_end):
                return path
        return None

    def _bounds(self, loop: _Loop, condition: bytes, depth: int = 0) -> bool:
        """Tell whether a condition limits the loop: each part of an `||`, one part of an `&&`."""
        condition = unwrapped(condition)
        either = split(condition, b"||")
        if len(either) > 1:
            return depth < MAX_DEPTH and all(self._bounds(loop, part, depth + 1) for part in either)
        both = split(condition, b"&&")
        if len(both) > 1:
            return depth < MAX_DEPTH and any(self._bounds(loop, part, depth + 1) for part in both)
        return self._limits(loop, condition)

    def _limits(self, loop: _Loop, atom: bytes) -> bool:
        text = CAST.sub(b"", atom).strip()
        found = _compared(text)
        if found is None:
            counter = COUNTS.match(text)
            return counter is not None and self._converges(loop, counter[1], b">")
        left, operator, right = found
        if operator in (b">=", b"<=") and self._always_holds(left, operator, right, loop):
            return False
        if operator in (b"<", b"<=") and self._wraps(left, operator, right, loop):
            return False
        flipped = {b"<": b">", b">": b"<", b"<=": b">=", b">=": b"<=", b"!=": b"!="}
        return self._side(loop, left, operator, right) or self._side(loop, right, flipped[operator], left)

    def _side(self, loop: _Loop, counting: bytes, operator: bytes, limit: bytes) -> bool:
        """Tell whether `counting` is moved towards `limit` in every pass."""
        counting = unwrapped(counting)
        distance = DISTANCE.match(counting)
        if distance is not None and self._is_fixed(limit, loop):
            one, other = SPACES.sub(b"", distance[1]), SPACES.sub(b"", distance[2])
            down = operator in (b">", b">=", b"!=")
            near = self._converges(loop, one, b">" if down else b"<") and self._is_fixed(other, loop)
            far = self._converges(loop, other, b"<" if down else b">") and self._is_fixed(one, loop)
            if near or far:
                return True
        counter = COUNTS.match(counting)
        if counter is None:
            return False
        if self._is_fixed(limit, loop):
            return self._converges(loop, SPACES.sub(b"", counter[1]), operator)
        # Two that run towards each other, such as `lo < hi`.
        other_side = COUNTS.match(unwrapped(limit))
        return (
            other_side is not None
            and operator in (b"<", b"<=")
            and self._converges(loop, SPACES.sub(b"", counter[1]), b"<")
            and self._converges(loop, SPACES.sub(b"", other_side[1]), b">")
        )

    def _converges(self, loop: _Loop, path: bytes, operator: bytes) -> bool:
        """Tell whether a counter moves in every pass, in one direction, by steps that the loop does not change."""
        path = SPACES.sub(b"", path)
        key = ("converges", loop, path, operator)
        if key not in self._known:
            # Each of many guards may ask for the same counter.
            self._known[key] = self._moves(loop, path, operator)
        return self._known[key]

    def _moves(self, loop: _Loop, path: bytes, operator: bytes) -> bool:
        first = self._start_of_passes(loop)
        writes = self._changes(path, first, loop.end)
        if not writes or not any(self._in_every_pass(loop, path, write.offset) for write in writes):
            return False
        directions = {self._direction(write, path, loop) for write in writes}
        if len(directions) != 1:
            return False
        direction = directions.pop()
        if direction == 0:
            return False
        if operator == b"!=":
            return True
        return direction == (1 if operator in (b"<", b"<=") else -1)

    def _start_of_passes(self, loop: _Loop) -> int:
        if loop.kind != "for_statement":
            return loop.start
        places = [place for place, end in (loop.condition, loop.update) if place > loop.start]
        return min([*places, loop.body])

    def _direction(self, write: _Write, path: bytes, loop: _Loop) -> int:
        """1 for a step up, -1 for one down or towards zero, 0 for what cannot be told."""
        operator, value = write.operator, write.value
        if operator in (b"++", b"--"):
            return 1 if operator == b"++" else -1
        if operator in (b"+=", b"-=", b"*=", b"<<=", b"/=", b">>="):
            step = _first_operand(value)
            if not step or step == b"0" or not self._is_fixed(step, loop):
                return 0
            negative = step.startswith(b"-")
            return (1 if operator in (b"+=", b"*=", b"<<=") else -1) * (-1 if negative else 1)
        if operator == b"&=" and SPACES.sub(b"", _first_operand(value)).strip(b"()") == path + b"-1":
            return -1
        if operator == b"=":
            step = unwrapped(value)
            moved = re.compile(re.escape(path) + rb"\s*(\+|-(?!>)|/|>>|\*|<<)\s*(.+)\Z", re.S).match(step)
            if moved is not None and self._is_fixed(_first_operand(moved[2]), loop):
                return 1 if moved[1] in (b"+", b"*", b"<<") else -1
        return 0

    def _in_every_pass(self, loop: _Loop, path: bytes, offset: int) -> bool:
        if not loop.body <= offset < loop.body_end:
            return True  # in a clause of the loop itself
        if any(offset > leap and not self._steps_before(path, leap) for leap in loop.continues[:MAX_CONTINUES]):
            return False
        if not self._is_direct(loop, offset):
            return False
        begin = loop.body
        for mark in (b";", b"{", b"}", b":"):
            begin = max(begin, self.code.rfind(mark, begin, offset) + 1)
        statement = self.code[begin:offset]
        if CONDITIONAL.search(statement) is None:
            return b"&&" not in statement and b"||" not in statement and b"?" not in statement
        within = statement.count(b"(") - statement.count(b")")
        return within > 0 and b"&&" not in statement and b"||" not in statement

    def _steps_before(self, path: bytes, leap: int) -> bool:
        """Tell whether the block that ends in a `continue` moves the counter itself."""
        nearest = max(leap - MAX_CONDITION, 0)
        opening = max(self.code.rfind(b"{", nearest, leap), self.code.rfind(b"}", nearest, leap))
        return bool(self._changes(path, max(opening, leap - MAX_CONDITION), leap))

    def _is_guarded(self, loop: _Loop) -> bool:
        """Tell whether a counter that moves in every pass leaves the loop at a limit."""
        for opening in loop.ifs:
            end = closing(self.code, opening, min(loop.end, opening + MAX_CONDITION))
            if end is None:
                continue
            text = self.code[opening + 1 : end]
            if not self._is_direct(loop, opening):
                continue  # only what stands in the body itself is reached in every pass
            if LEAVES.search(_consequence(self.code, end + 1, loop.end)) is None:
                continue
            if any(self._passes(loop, part) for part in split(unwrapped(text), b"||")):
                return True
        return False

    def _passes(self, loop: _Loop, atom: bytes) -> bool:
        """Tell whether a condition that leaves comes to hold: its opposite limits the loop."""
        text = CAST.sub(b"", unwrapped(atom)).strip()
        if text.startswith(b"!"):
            return self._bounds(loop, text[1:])
        if len(split(text, b"&&")) > 1:
            return False
        found = _compared(text)
        if found is None:
            equal = text.split(b"==")
            if len(equal) != 2:
                return False
            return self._side(loop, equal[0], b"!=", equal[1]) or self._side(loop, equal[1], b"!=", equal[0])
        left, operator, right = found
        opposite = {b"<": b">=", b">": b"<=", b"<=": b">", b">=": b"<", b"!=": b"=="}[operator]
        return opposite != b"==" and self._limits(loop, left + opposite + right)

    def _wraps(self, left: bytes, operator: bytes, right: bytes, loop: _Loop) -> bool:
        """Tell whether a small counter cannot reach a limit that is written out."""
        if WORD.fullmatch(left) is None or re.fullmatch(rb"[0-9]+", right) is None:
            return False
        if (loop, left) not in self._small:
            declared = re.compile(SMALL + rb"[^;(){}]*\b" + left + rb"\b")
            found = declared.search(self.code, max(loop.start - 4_000, 0), loop.end)
            self._small[loop, left] = found[1] if found is not None else b""
        kind = self._small[loop, left]
        if not kind:
            return False
        size = {b"8": 8, b"16": 16}.get(re.sub(rb"\D", b"", kind), 8 if kind.endswith(b"char") else 16)
        most = (1 << (size if kind.startswith(b"u") else size - 1)) - 1
        return int(right) > most or (operator == b"<=" and int(right) == most)

    def _always_holds(self, left: bytes, operator: bytes, right: bytes, loop: _Loop) -> bool:
        """Tell whether `left >= 0` compares an unsigned counter, which wraps instead of ending."""
        name = left if operator == b">=" else right
        if (right if operator == b">=" else left).strip() not in (b"0", b"0u", b"0U") or WORD.fullmatch(name) is None:
            return False
        key = ("unsigned", loop, name)
        if key not in self._known:
            declared = re.compile(UNSIGNED + rb"[^;(){}]*\b" + name + rb"\b")
            self._known[key] = declared.search(self.code, max(loop.start - 4_000, 0), loop.end) is not None
        return self._known[key]


def _leave(opened: list[tuple[int, _Loop | None]] | list[tuple[int, _Loop]], offset: int) -> None:
    while opened and opened[-1][0] <= offset:  # p10: each range is left once
        opened.pop()


def _compared(text: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return (left, operator, right) of a comparison outside of brackets."""
    for match in COMPARISON.finditer(text):
        before = text[: match.start()]
        if before.count(b"(") == before.count(b")") and before.count(b"[") == before.count(b"]"):
            return before.strip(), match[1], text[match.end() :].strip()
    return None


def _first_operand(value: bytes) -> bytes:
    """Return an assignment's value up to the end of its expression."""
    end, depth = len(value), 0
    for match in re.compile(rb"[()\[\],{}]").finditer(value):
        if match[0] in b"([":
            depth += 1
        elif match[0] == b"," and depth == 0:
            end = match.start()
            break
        elif match[0] in b")]{}":
            depth -= 1
            if depth < 0:
                end = match.start()
                break
    return value[:end].strip()


def _consequence(code: bytes, start: int, end: int) -> bytes:
    """Return the text of the statement after an `if`: its block, or up to its semicolon."""
    begin = re.compile(rb"\s*+").match(code, start)
    assert begin is not None, "white space may be empty"
    start = begin.end()
    if code[start : start + 1] != b"{":
        stop = code.find(b";", start, end)
        return code[start : stop if stop >= 0 else end]
    depth = 0
    for match in re.compile(rb"[{}]").finditer(code, start, min(end, start + MAX_CONDITION)):
        depth += 1 if match[0] == b"{" else -1
        if depth == 0:
            return code[start : match.end()]
    return code[start : min(end, start + MAX_CONDITION)]
