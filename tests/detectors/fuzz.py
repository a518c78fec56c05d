"""Mutated and made-up source files for the rules: no input may crash them, hang them, or get two different answers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import Unparsable, parse

ROOT = Path(__file__).parents[2]
LONGEST_S = 10.0
LARGEST = 40_000
PIECES = (
    *(
        b"{",
        b"}",
        b"(",
        b")",
        b"[",
        b"]",
        b";",
        b":",
        b"#if 0\n",
        b"#else\n",
        b"#endif\n",
        b"#define X ",
        b"\\\n",
        b'"',
        b"'",
    ),
    *(
        b"/*",
        b"*/",
        b"//",
        b"->",
        b"**",
        b"goto ",
        b"while (",
        b"for (;;) ",
        b"do ",
        b"\0",
        b"\xff",
        b"\r",
        b"\t",
        b"    ",
    ),
    *(
        b"def f(x):\n",
        b"class A:\n",
        b"lambda: ",
        b"if x:\n",
        b"else:\n",
        b"async ",
        b"\n",
        b'R"(',
        b"p10: ignore[R1] ",
    ),
)


PYTHON_HEADS = (
    *("def f(a, b=g(), *c, d=1, **e):", "async def f(self):", "class A(B, metaclass=C):", "if a < len(b):", "else:"),
    *("elif a and b:", "while n > 0:", "while True:", "for a in iter(f, b):", "async for a in count():", "try:"),
    *("except (A, B) as e:", "except:", "except* A:", "finally:", "with suppress(Exception), raises(E):", "match a:"),
    *("case {'a': True, **b} | [*_] if c:", "@f(a)", "with f() as a.b:"),
)
PYTHON_LINES = (
    *(
        "return a",
        "raise A from b",
        "break",
        "continue",
        "pass",
        "n -= 1",
        "a.b.append(c)",
        "f()",
        "self.f(a)",
        "x = f",
    ),
    *("global a, b", "nonlocal a", "import a.b as c", "from . import *", "from builtins import eval as e", "e(text)"),
    *("getattr(a, name)()", "assert (a, 'b')", "assert a.pop() == (b := c)", "x = [f(y) for y in z if (w := y)]"),
    *(
        "lambda *a: f(a)",
        "yield from f()",
        "await f()",
        "del a[b], c.d",
        "a: int = 3",
        "f'{a!r:{b}} {f(1)}'",
        "os.a = 1",
    ),
    *("type('A', (B,), {})", "x = {**a, 'b': {1, 2}}", "super().f()", "_ = f()", "f().g[1:2].h()", "é = 'ü\\\n'"),
    *(
        "a = b = lambda: a",
        "print(a, sep='')",
        "text.strip()",
        "subprocess.run(a, check=b)",
        "x = 1  # p10: ignore[R2] a by b",
    ),
)
C_WORDS = (
    *(
        "int",
        "static",
        "const",
        "char",
        "*",
        "**",
        "f",
        "g",
        "h(",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ";",
        ",",
        "=",
        "==",
        "++",
    ),
    *(
        "if (a)",
        "else",
        "for (i = 0; i < n; i++)",
        "while (n)",
        "do",
        "switch (a)",
        "case 1:",
        "goto f;",
        "return a;",
        "f:",
    ),
    *("\n#if A\n", "\n#else\n", "\n#endif\n", "\n#define M(x) x ## y\n", "\n#define f f\n", "\n#undef M\n"),
    *(
        "malloc(n)",
        "free(p);",
        "assert(a);",
        "assert(a++);",
        "p->q->r",
        "(*p)(a);",
        "(void)f();",
        "f(g(a));",
        "'a'",
        '"b"',
    ),
    *(
        "struct s",
        "typedef",
        "enum { A }",
        "extern",
        "/* c */",
        "// c\n",
        "\\\n",
        "int f(int a)\n{",
        "}\n",
        "sizeof(a)",
        "::",
    ),
    *(
        "class A {",
        "template <class T>",
        "new A",
        "delete a;",
        "~A()",
        "namespace n {",
        "auto",
        "operator+",
        'R"(a)"',
        "é",
    ),
)


def made() -> st.SearchStrategy[tuple[str, Language, bytes]]:
    """Give (name, language, bytes) of inputs that no file was before: blocks of Python, words of C, text, bytes."""
    lines = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(PYTHON_HEADS + PYTHON_LINES)), max_size=40)
    words = st.lists(st.sampled_from(C_WORDS), max_size=120).map(" ".join)
    anything = st.one_of(st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary())
    return st.one_of(
        st.tuples(st.just("a.py"), st.just("python"), lines.map(_indented)),
        st.tuples(st.just("a.c"), st.just("c"), words.map(str.encode)),
        st.tuples(st.just("a.h"), st.just("c"), words.map(str.encode)),
        st.tuples(st.just("a.cpp"), st.just("cpp"), words.map(str.encode)),
        st.tuples(st.just("a.x"), st.sampled_from(("c", "cpp", "python")), anything),
    )


def _indented(lines: list[tuple[int, str]]) -> bytes:
    """Return lines as a file, each as deep as asked for and allowed, with something below each head."""
    text: list[str] = []
    deepest = 0
    for depth, line in lines:
        head = bool(text) and text[-1].endswith(":")
        level = deepest if head else min(depth, deepest)
        text.append("    " * level + line)
        deepest = level + 1 if line.endswith(":") else level
    return "\n".join([*text, "    " * deepest + "pass", ""]).encode()


def sources() -> list[tuple[str, Language, bytes]]:
    """Return (name, language, bytes) of files of this repository, and of the fetched packages where they are there."""
    places = (ROOT / "tests" / "corpus" / "made", ROOT / "examples", ROOT / "detectors", ROOT / ".demo" / "sources")
    languages: dict[str, Language] = {".c": "c", ".h": "c", ".cpp": "cpp", ".py": "python"}
    found = []
    for path in sorted(path for place in places for path in place.rglob("*") if path.suffix in languages):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST:
            found.append((path.name, languages[path.suffix], path.read_bytes()))
    return found


def mutated(seed: int, count: int) -> Iterator[tuple[str, Language, bytes]]:
    """Yield files with pieces cut out, repeated, moved from another file, or put in."""
    chooser = random.Random(seed)
    known = sources()
    for _ in range(count):
        name, language, data = chooser.choice(known)
        for _ in range(chooser.randint(1, 6)):
            at, length = chooser.randrange(len(data) + 1), chooser.randint(0, 200)
            other = chooser.choice(known)[2]
            start = chooser.randrange(len(other) + 1)
            put = chooser.choice((b"", chooser.choice(PIECES) * chooser.randint(1, 40), other[start : start + length]))
            data = data[:at] + put + data[at + chooser.choice((0, length)) :]
        yield name, language, data


def problem_of(name: str, language: Language, data: bytes) -> str | None:
    """Return what went wrong with one input; `None` if each group answered twice the same, in time."""
    groups = [group for group in discover() if isinstance(group, RuleGroup) and language in group.languages]
    began = time.perf_counter()
    for group in groups:
        if group.name.startswith("power-of-ten") and _answer(group, name, language, data) != _answer(
            group, name, language, data
        ):
            return "two answers"
    spent = time.perf_counter() - began
    return f"{spent:.1f} s" if spent > LONGEST_S else None


def _answer(group: RuleGroup, name: str, language: Language, data: bytes) -> bytes:
    try:
        report = group.check_file(parse(data, language, name))
    except Unparsable as answer:
        return answer.reason.encode()
    facts = {fact: {name: msgspec.msgpack.decode(packed)} for fact, packed in report.facts.items()}
    return msgspec.msgpack.encode((report, [(path, finding) for path, finding in group.check_tree(facts)]))
