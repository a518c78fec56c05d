"""Rule 8 in C: the preprocessor includes headers and names constants, and does little more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from detectors.c_directive_parsing import Macro
from detectors.c_parsing import CFile
from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c
from detectors.power_of_ten.cycles import cycles

__all__ = [
    "CConditionalCompilation",
    "CIncompleteMacro",
    "CRecursiveMacro",
    "CTokenPasting",
    "CUndefine",
    "CVariadicMacro",
]

WORD = re.compile(rb"[A-Za-z_]\w*+")
PASTE = re.compile(rb"##|%:%:|\?\?=\?\?=")
BRACKET = re.compile(rb"[()\[\]{}]")
CLOSES = {b")": b"(", b"]": b"[", b"}": b"{"}
STARTS_INSIDE = re.compile(rb"(?:[=/%|^?,.)\]}]|<<?|>>?|&&|\|\||->|==|!=|:(?!:)|else\b|case\b[^:]*+\Z)")
ENDS_INSIDE = re.compile(
    rb"(?:[=/%|^?,.(\[<>!~-]|(?<!:):|\+(?<!\+\+)|(?<!\w)\*|&|\b(?:else|do|if|for|while|switch|case|goto|return\s*\())\Z"
)
HEAD = re.compile(rb"\b(for|while|if|switch)\s*+\(")
CAST = re.compile(
    rb"\(\s*+(?:const\s++|unsigned\s++|signed\s++|struct\s++\w++\s*+|long\s++|short\s++)*+(?:char|double|float|int|long|short|signed|unsigned|void|\w+_t)?\s*+\**+\s*+\)"
)
OPENED_DO = re.compile(rb"\bdo\b")
IFNDEF = re.compile(rb"\s*+([A-Za-z_]\w*+)")
NOT_DEFINED = re.compile(rb"\s*+!\s*+defined\s*+\(?\s*+([A-Za-z_]\w*+)")


class _MacroRule(FileRule):
    """What the rules about one `#define` share."""

    detector = DETECTOR
    languages = C_LANGUAGES

    def at(self, unit: CFile, macro: Macro, message: str) -> Finding:
        """Make a finding at a macro's name."""
        start = unit.source.find(macro.name.encode(), macro.start)
        return self.finding(unit.region(start, start + len(macro.name)), message)


class CTokenPasting(_MacroRule):
    """
    `##` in a macro.

    Why: the pasted name stands nowhere in the source, so that no reader and no search finds its use.
    Instead: spell the names out.
    Not found: macros of headers that are not in the tree.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-token-pasting"
    examples = (
        '#define TEXT "a ## b"  /* ## */\n#define S(x) #x\n',
        "#define V(n) var_##n  // expect: P10-R8-token-pasting\n"
        "%:define W(n) var_ %:%: n  // expect: P10-R8-token-pasting\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each macro that pastes tokens."""
        unit = as_c(parsed)
        for macro in unit.layout.macros:
            if PASTE.search(macro.code):
                yield self.at(unit, macro, f"{macro.name} pastes tokens to names that stand nowhere in the source")


class CVariadicMacro(_MacroRule):
    """
    A macro with a variable number of arguments.

    Why: neither their number nor their types are checked.
    Instead: a function, or one macro for each number of arguments.
    Not found: macros of headers that are not in the tree.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-variadic-macro"
    examples = (
        "#define LOG(a, b) log2(a, b)\nvoid log_all(const char *, ...);\n",
        "#define LOG(...) log(__VA_ARGS__)  // expect: P10-R8-variadic-macro\n"
        "#define OLD(args...) log(args)  // expect: P10-R8-variadic-macro\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each variadic macro."""
        unit = as_c(parsed)
        for macro in unit.layout.macros:
            head = unit.source[macro.start : macro.body]
            if macro.takes_arguments and b"..." in head[head.find(b"(") :]:
                yield self.at(unit, macro, f"{macro.name} takes any number of arguments, unchecked")


class CRecursiveMacro(_MacroRule):
    """
    A macro that names itself, directly or through others.

    Why: the preprocessor stops expanding such a name at a place that few can tell.
    Instead: a function, or a macro of another name.
    Not found: cycles through macros of other files.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-recursive-macro"
    examples = (
        "#define A(x) B(x)\n#define B(x) ((x) + 1)\n#define same same_\n",
        "#define A(x) B(x)  // expect: P10-R8-recursive-macro\n#define B(x) A(x)  // expect: P10-R8-recursive-macro\n"
        "#define f(x) (f)(x)  // expect: P10-R8-recursive-macro\n"
        "#define stdin stdin  // expect: P10-R8-recursive-macro\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each macro of each cycle."""
        unit = as_c(parsed)
        macros = unit.layout.macros
        numbers: dict[bytes, list[int]] = {}
        for number, macro in enumerate(macros):
            numbers.setdefault(macro.name.encode(), []).append(number)
        edges: list[Sequence[int]] = [
            sorted({n for word in set(WORD.findall(macro.code)) - macro.parameters for n in numbers.get(word, ())})
            for macro in macros
        ]
        for number in sorted(number for cycle in cycles(edges) for number in cycle):
            # Two definitions of one name under different conditions are no cycle of each other.
            yield self.at(unit, macros[number], f"{macros[number].name} names itself in its expansion")


class CIncompleteMacro(_MacroRule):
    """
    A macro that is not a complete expression, statement, declaration or type.

    Why: the code that uses it has brackets, heads or operators that a reader cannot see.
    Instead: let each macro stand for one whole unit; write loops and blocks out.
    Reported: brackets that the macro does not close itself, heads without their statement, operators at an end.
    Not found: specifiers, qualifiers and attributes are allowed, since they are whole words of a declaration.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-incomplete-macro"
    examples = (
        """
#define EMPTY
#define LIMIT (-1)
#define NEGATIVE -1
#define TEXT char *
#define API __attribute__((visibility("default"))) extern
#define ONCE(x) do { use(x); } while (0)
#define WHEN(x) if (x) { use(x); }
#define EACH(i) for (i = 0; i < 3; i++) use(i)
#define DECLARE(x) int x;
#define ADDRESS(x) &x
#define OPEN_TEXT "("
#define INCREMENT(x) x++
""",
        """
#define BEGIN {                               // expect: P10-R8-incomplete-macro
#define END }                                 // expect: P10-R8-incomplete-macro
#define CALL f(                               // expect: P10-R8-incomplete-macro
#define PLUS + 1 +                            // expect: P10-R8-incomplete-macro
#define EACH(i) for (i = 0; i < 3; i++)       // expect: P10-R8-incomplete-macro
#define OTHERWISE else                        // expect: P10-R8-incomplete-macro
#define ITEMS 1, 2,                           // expect: P10-R8-incomplete-macro
#define WITH(x) if (x)                        // expect: P10-R8-incomplete-macro
#define SWAP ] = x[                           // expect: P10-R8-incomplete-macro
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each macro whose body is a part of something only."""
        unit = as_c(parsed)
        for macro in unit.layout.macros:
            problem = _incomplete(macro.code.strip())
            if problem:
                yield self.at(unit, macro, f"{macro.name} {problem}")


class CUndefine(FileRule):
    """
    `#undef`.

    Why: after it, one name means different things in different parts of a file.
    Instead: a second name.
    Not found: nothing.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-undef"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        '/* #undef A */\nconst char *s = "#undef A";\n#if 0\n#undef A\n#endif\n',
        "#undef A  // expect: P10-R8-undef\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each `#undef` in live code."""
        unit = as_c(parsed)
        for directive in unit.layout.directives:
            if directive.keyword == b"undef":
                yield self.finding(unit.region(directive.start, directive.end), "#undef changes what a name means")


class CConditionalCompilation(FileRule):
    """
    Conditional compilation beyond include guards.

    Why: n conditions make up to 2^n programs, of which few are tested.
    Instead: choose the platform's source file in the build.
    Not found: nothing; `#if 0` counts too.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 8.
    """

    id = "P10-R8-conditional"
    level = "note"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        "/* first */\n#ifndef A_H\n#define A_H\nint f(void);\n#endif\n",
        """
#if !defined(A_H)
#define A_H 1
#ifdef LINUX  // expect: P10-R8-conditional
int f(void);
#else
#endif
#endif
""",
        "#ifndef LIMIT  // expect: P10-R8-conditional\n#define LIMIT 3\n#endif\nint x;\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each condition, once for all of its branches."""
        unit = as_c(parsed)
        guard = _guard(unit)
        for directive in unit.layout.directives:
            if directive.keyword in (b"if", b"ifdef", b"ifndef") and directive.start != guard:
                region = unit.region(directive.start, directive.end)
                yield self.finding(region, "conditional compilation: one more program to test")


def _guard(unit: CFile) -> int | None:
    """Return where the include guard starts: the first directive, closed by the last, with nothing outside of it."""
    directives = [d for d in unit.layout.directives if d.keyword != b"pragma"]
    if len(directives) < 3 or directives[-1].keyword != b"endif" or directives[1].keyword != b"define":
        return None
    first, second, last = directives[0], directives[1], directives[-1]
    pattern = {b"ifndef": IFNDEF, b"if": NOT_DEFINED}.get(first.keyword)
    name = pattern.match(unit.source, first.rest, first.end) if pattern is not None else None
    defined = IFNDEF.match(unit.source, second.rest, second.end)
    if name is None or defined is None or name[1] != defined[1]:
        return None
    depth = 0
    for directive in directives[:-1]:
        depth += (directive.keyword in (b"if", b"ifdef", b"ifndef")) - (directive.keyword == b"endif")
        if depth == 0:
            return None
    code = unit.layout.code
    return None if code[: first.start].strip() or code[last.end :].strip() else first.start


# p10: ignore[R10] a check that answers as soon as it knows reads better than one that nests by the maintainers
def _incomplete(code: bytes) -> str | None:
    """Return what a macro's body lacks to be whole."""
    if not code:
        return None
    opened: list[bytes] = []
    for match in BRACKET.finditer(code):
        if match[0] not in CLOSES:
            opened.append(match[0])
        elif not opened or opened.pop() != CLOSES[match[0]]:
            return "closes a bracket that it does not open"
    if opened:
        return "opens a bracket that it does not close"
    if CAST.fullmatch(code):
        return "is a cast without what it casts"
    if STARTS_INSIDE.match(code):
        return "begins in the middle of something"
    if ENDS_INSIDE.search(code) and not code.endswith(b"++") and not code.endswith(b"--") and not _is_type(code):
        return "ends in the middle of something"
    heads = list(HEAD.finditer(code))
    if heads and closing(code, heads[-1].end() - 1) == len(code) - 1:
        head = heads[-1][1]
        if head != b"while" or OPENED_DO.search(code) is None:
            return f"is the head of a {head.decode()} without its statement"
    return None


def _is_type(code: bytes) -> bool:
    """Tell whether a body is a pointer type, such as `unsigned char *`, or one symbol that is an operator's name."""
    return re.fullmatch(rb"[\w\s:<>]*[\w>]\s*+(?:\*|&|const|volatile|restrict|\s)*+", code) is not None
