"""Rule 5 in C: assertions, two a function on average, free of side effects and able to fail."""

from __future__ import annotations

import functools
import re
import weakref
from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from detectors.c_parsing import CFile
from detectors.detector import Facts, FileRule, TreeRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing, split, unwrapped
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, HEADERS, Place, as_c, place_of

__all__ = ["CAssertionConstant", "CAssertionDensity", "CAssertionFacts", "CAssertionSideEffect"]

WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
NOT_ASSERTIONS = frozenset({"static_assert", "_Static_assert", "STATIC_ASSERT", "BUILD_ASSERT", "C_ASSERT"})
"""Checked when compiling: they neither count nor offend."""
RECOVERY = re.compile(
    rb"if(?<=\bif)\s*+\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*+\))*+\))*+\))*+\)\s*+(?:\{(?:[^{}]*+[;}\s])?\s*+)?"
    rb"return\s*+\(?\s*+(?:-|NULL\b|nullptr\b|false\b|FALSE\b|[A-Z_][A-Z0-9_]{2,}+\b(?!\s*+\())[^;]*+;\s*+(?!\}?\s*+else\b)"
)
"""The paper's own form: a test whose failure is recovered from by telling the caller."""
CHANGES = re.compile(rb"\+\+|--|(?<![=!<>])(?:[-+*/%&|^]|<<|>>)?=(?!=)")
NUMBER = re.compile(rb"\(?\s*+(?:0[xX][0-9a-fA-F]++|[0-9]++)[uUlL]*+\s*+\)?\Z")
TEXT = re.compile(rb'(?:L|u8|u|U)?"[^"]*"\Z')
SAME = re.compile(rb"(.+?)\s*+(==|<=|>=)\s*+(.+)\Z", re.S)
ADDRESS = re.compile(rb"&\s*+[A-Za-z_]\w*+(?:\s*+!=\s*+(?:NULL|0|nullptr))?")
COMPARED = re.compile(rb"([^<>=!]+?)\s*+(==|!=|<=|>=|<|>)\s*+([^<>=!]+)\Z")
OPPOSITE = {b"==": b"!=", b"!=": b"==", b"<": b">=", b">=": b"<", b">": b"<=", b"<=": b">"}
AT_LEAST_ZERO = re.compile(rb"([A-Za-z_]\w*+)\s*+>=\s*+0[uUlL]*+\Z|0[uUlL]*+\s*+<=\s*+([A-Za-z_]\w*+)\Z")
UNSIGNED = (
    rb"\b(?:unsigned(?:\s+(?:int|long|short|char))*|size_t|uint\w*_t|u?int(?:8|16|32|64)|uintptr_t|DWORD|UINT\w*)\s++"
    rb"(?:[\w\s]*,\s*+)?"
)
MAX_ARGUMENT = 4_000
"""Bytes of an assertion that are read."""


_OF_FILE: weakref.WeakKeyDictionary[CFile, dict[tuple[str, ...], list[tuple[str, int, bytes]]]]
_OF_FILE = weakref.WeakKeyDictionary()


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    first: Place | None
    """The name of the first function; none where the file has no function."""
    functions: int
    recovered: int
    """Tests of the paper's form."""
    called: dict[str, int]
    """Names called in functions that are, or may be through a macro, assertions: how often."""
    macros: dict[str, tuple[str, ...]]
    """Macros to what their bodies call."""


@functools.lru_cache(maxsize=8192)
def asserts(name: str, more: tuple[str, ...] = ()) -> bool:
    """Tell whether a name is that of an assertion: one of its words is `assert`."""
    lowered = name.lower()
    if "assert" not in lowered and name not in more:
        return False  # nearly all names, and cheap to tell
    if name in NOT_ASSERTIONS or "static" in lowered:
        return False
    return name in more or any(word.lower() in {"assert", "asserts"} for word in WORDS.findall(name))


class CAssertionFacts(Facts):
    """How many functions a file has, and what may assert in them."""

    id = "c-assertions"
    detector = DETECTOR
    languages = C_LANGUAGES
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_c(parsed)
        called = {name: len(calls) for name, calls in unit.called.items()}
        assert all(count > 0 for count in called.values()), "what is called is called somewhere"
        first = unit.functions[0] if unit.functions else None
        return _FileFacts(
            place_of(unit, first.name_start, first.name_end) if first else None,
            len(unit.functions),
            sum(1 for match in RECOVERY.finditer(unit.layout.code) if unit.function_at(match.start())),
            {name: count for name, count in called.items() if asserts(name) or name.isupper() or "_" in name}
            | {name: called[name] for name in self.settings.assertions if name in called},
            {macro.name: tuple({call.name for call in macro.calls}) for macro in unit.macros if macro.calls},
        )


class CAssertionDensity(TreeRule):
    """
    A file with fewer than two assertions a function on average.

    Why: assertions catch, near their cause, the states that no test had; the more there are, the fewer faults slip by.
    Instead: check what each function takes for granted of its arguments and of its results.
    Counted: `assert`, functions and macros with the word assert in their name or defined through one, the names that
    the configuration adds, and the paper's own form, a test whose failure is told to the caller by
    `return` of a negative number, NULL, false or an upper-case constant. `static_assert` neither counts nor offends.
    Reported once a file, at the name of its first function.
    Not found: checks that end in another way, such as by a jump.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5.
    """

    id = "P10-R5-assertion-density"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-assertions",)
    examples = (
        """
#include <assert.h>
#define CHECK(x) assert(x)
int f(int n) { assert(n > 0); CHECK(n < 9); return n; }
int g(int *p)
{
    if (p == NULL) { return -1; }
    if (*p > 9) return ERROR_RANGE;
    return *p;
}
struct only { int declarations; };
""",
        """
#include <assert.h>
_Static_assert(sizeof(int) == 4, "size");
int first(int n) { assert(n); return n; }  // expect: P10-R5-assertion-density
int second(int n) { static_assert(1, ""); return n > 3 ? 1 : 2; }
""",
        "// file: a.h\n#define MUST(x) assert(x)\n// file: b.c\nint f(int n) { MUST(n); MUST(n < 3); return n; }\n",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each file whose mean is too low."""
        files = {path: msgspec.convert(value, _FileFacts) for path, value in facts["c-assertions"].items()}
        shared: dict[str, tuple[str, ...]] = {}
        for path, file in files.items():
            if path.endswith(HEADERS):
                shared.update(file.macros)
        # In files without macros of their own, a name means the same.
        alike: dict[str, bool] = {}
        for path, file in files.items():
            if file.first is None:
                continue
            known: dict[str, bool] = {} if file.macros else alike
            macros = ChainMap(file.macros, shared) if file.macros else shared
            found = file.recovered + sum(
                count for name, count in file.called.items() if self._is_assertion(name, macros, known)
            )
            wanted = self.settings.assertions_per_function
            assert wanted >= 0, "settings refuse others"
            assert file.functions > 0, "where there is a first there are some"
            if found < wanted * file.functions:
                message = f"{found} assertions in {file.functions} functions; {wanted:g} a function are wanted"
                yield path, self.finding(file.first.region, message)

    def _is_assertion(self, name: str, macros: Mapping[str, tuple[str, ...]], known: dict[str, bool]) -> bool:
        """Tell whether a call asserts, itself or through macros."""
        assert name, "what is called through a pointer is not asked about"
        if name not in macros:
            return asserts(name, self.settings.assertions)
        if name not in known:
            seen, pending = {name}, [name]
            while pending:  # p10: each macro is looked at once
                one = pending.pop()
                if asserts(one, self.settings.assertions):
                    known[name] = True
                    break
                fresh = [other for other in macros.get(one, ()) if other not in seen]
                seen.update(fresh)
                pending += fresh
            known.setdefault(name, False)
        return known[name]


class CAssertionSideEffect(FileRule):
    """
    An assertion that changes something.

    Why: built without assertions, the program does something else.
    Instead: change first, then assert.
    Not found: functions called in an assertion that change something.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5.
    """

    id = "P10-R5-assertion-side-effect"
    detector = DETECTOR
    tunable = True
    languages = C_LANGUAGES
    examples = (
        'void f(int n) { assert(n == 3); assert(n <= 3 && n != 2); assert(p->x >= 0 || s == "a=b"); }\n',
        """
void f(int n)
{
    assert(n++ < 3);     // expect: P10-R5-assertion-side-effect
    my_assert(n = 3);    // expect: P10-R5-assertion-side-effect
    assert((n += 2));    // expect: P10-R5-assertion-side-effect
}
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each assertion whose condition assigns or counts."""
        unit = as_c(parsed)
        for name, start, argument in _assertions(unit, self.settings.assertions):
            assert 0 <= start < len(unit.source), "an assertion stands in its file"
            if CHANGES.search(argument):
                yield self.finding(unit.region(start, start + len(name)), f"{name} changes what it looks at")


class CAssertionConstant(FileRule):
    """
    An assertion that can never fail.

    Why: it looks like a check and is none.
    Instead: assert what could be false, or nothing.
    Not found: what only follows from the values that a variable can have.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 5.
    """

    id = "P10-R5-assertion-constant"
    detector = DETECTOR
    tunable = True
    languages = C_LANGUAGES
    examples = (
        'void f(int n) { assert(n >= 0); assert(0); assert(0 && "never"); assert(!"here"); assert(n || m); }\n',
        """
void f(unsigned n, int m)
{
    assert(1);            // expect: P10-R5-assertion-constant
    assert(true);         // expect: P10-R5-assertion-constant
    assert("a text");     // expect: P10-R5-assertion-constant
    assert(m == m);       // expect: P10-R5-assertion-constant
    assert(m || 1);       // expect: P10-R5-assertion-constant
    assert(n >= 0);       // expect: P10-R5-assertion-constant
}
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each assertion that always holds."""
        unit = as_c(parsed)
        for name, start, argument in _assertions(unit, self.settings.assertions):
            parts = split(argument, b",")
            assert 0 <= start < len(unit.source), "an assertion stands in its file"
            # With a message behind it the first is the condition; of `ASSERT_EQ(1, n)` neither is.
            if (len(parts) == 1 or parts[1].strip().startswith(b'"')) and _always(unit, start, parts[0]):
                yield self.finding(unit.region(start, start + len(name)), f"{name} can never fail")


def _assertions(unit: CFile, more: tuple[str, ...]) -> list[tuple[str, int, bytes]]:
    """Return (name, offset, argument) of each assertion in a function."""
    # Two rules ask for them, one after the other; a file that is held any longer keeps its memory from the next.
    known = _OF_FILE.setdefault(unit, {})
    if more not in known:
        known[more] = _found(unit, more)
    return known[more]


def _found(unit: CFile, more: tuple[str, ...]) -> list[tuple[str, int, bytes]]:
    code, arguments = unit.layout.code, []
    found = [(call.start, name) for name, calls in unit.called.items() if asserts(name, more) for call, _ in calls]
    for start, name in sorted(found):
        opening = code.find(b"(", start)
        end = closing(code, opening, min(opening + MAX_ARGUMENT, len(code)))
        if end is not None:
            assert start < opening < end, "an argument follows a name"
            arguments.append((name, start, code[opening + 1 : end].strip()))
    assert len(arguments) <= len(found), "a call has one argument list"
    return arguments


def _always(unit: CFile, start: int, text: bytes) -> bool:
    """Tell whether a condition holds whatever the state."""
    text = unwrapped(text)
    either = split(text, b"||")
    if len(either) > 1:
        if len(either) == 2 and _complements(*either):
            return True
        return any(_always_plain(unit, start, part) for part in either)
    both = split(text, b"&&")
    assert len(either) == 1, "more than one was judged above"
    return all(_always_plain(unit, start, part) for part in both)


def _complements(one: bytes, other: bytes) -> bool:
    """Tell whether of two comparisons one always holds, as of `n < 0` and `n >= 0`."""
    first, second = COMPARED.match(unwrapped(one)), COMPARED.match(unwrapped(other))
    if first is None or second is None or b"(" in one or b"++" in one:
        return False
    return (
        OPPOSITE[first[2]] == second[2]
        and first[1].split() == second[1].split()
        and first[3].split() == second[3].split()
    )


def _always_plain(unit: CFile, start: int, text: bytes) -> bool:
    text = unwrapped(text)
    if text in (b"true", b"TRUE", b"!0", b"!false") or TEXT.match(text):
        return True
    if NUMBER.match(text):
        return text.strip(b"()uUlLxX0 ") != b""
    if ADDRESS.fullmatch(text):
        return True
    same = SAME.match(text)
    if (
        same is not None
        and b"(" not in same[1]
        and b"++" not in text
        and b"".join(same[1].split()) == b"".join(same[3].split())
    ):
        return True
    least = AT_LEAST_ZERO.match(text)
    owner = unit.function_at(start)
    if least is None or owner is None:
        return False
    assert owner.body <= start < owner.end, "an assertion stands in the body of its function"
    name = least[1] or least[2]
    declared = re.compile(UNSIGNED + rb"\b" + name + rb"\b")
    return declared.search(unit.layout.code, owner.start, start) is not None
