"""Rules 2 and 6 in C on what is hard about them: guards, moving limits, macros, carried state, held addresses."""

from __future__ import annotations

import random

import pytest

from detectors.detector import FileRule
from detectors.parsing import parse
from detectors.power_of_ten.c_loop_bounds import CLoopBounds
from detectors.power_of_ten.c_scope import CFileScope, CInnerScope


def lines(rule: FileRule, source: str, name: str = "a.c") -> list[int]:
    """Return the lines that a rule reports."""
    parsed = parse(source.encode(), "cpp" if name.endswith(".cpp") else "c", name)
    return [finding.region.start_line for finding in rule.check(parsed)]


def in_function(loop: str) -> str:
    """Put a loop on line 2 of a function with some names in view."""
    return f"void f(struct s *s, const char *p, const char *end, int n, unsigned u, int a[])\n{{ int i, j, k = 0;\n{loop}\n}}\n"


BOUNDED = [
    "for (i = 0; i < n; i++) { a[i] = 0; }",
    "for (i = 0; i < n; ++i) a[i] = n;",
    "for (i = n - 1; i >= 0; i--) { use(i); }",
    "for (i = 0; i != n; i++) { }",
    "for (i = 0, j = 9; i < j; i++, j--) { }",
    "for (i = 0; p[i] && i < n; i++) { }",
    "for (i = 0; i < n && i < 10; i += 2) { }",
    "for (s->i = 0; s->i < s->n; s->i++) { }",
    "for (i = 0; i < MAX(n, 4); i++) { }",
    "for (i = 1; i < n; i <<= 1) { }",
    "for (; u; u >>= 1) { }",
    "for (; u; u &= u - 1) { }",
    "while (n-- > 0) { }",
    "while (n--) { use(n); }",
    "while (p < end) { use(*p); p++; }",
    "while (end - p > 4) { p += 4; }",
    "while (u) { use(u % 10); u = u / 10; }",
    "do { n--; } while (n > 0);",
    "do { use(n); } while (0);",
    "while (more()) { if (++k > 100) { break; } }",
    "while (more()) { k++; if (k >= 100 || failed()) { return; } }",
    "while (1) { if (k++ == 100) break; }",
    "for (;;) { serve(); }",
    "while (1) { switch (next()) { case 1: break; default: use(n); } }",
    "for (i = 0; i < n; i++) { if (a[i]) continue; use(i); }",
    "while (i < n) { if (a[i]) { i++; continue; } i++; }",
    "for (i = 0; i < n; i++) { for (j = 0; j < i; j++) { } }",
    "for (i = 0; i < *s->count; i++) { }",
]
UNBOUNDED = [
    "while (*p) { p++; }",
    "while (more()) { }",
    "while (s) { s = s->next; }",
    "for (; s; s = s->next) { }",
    "for (i = 0; p[i]; i++) { }",
    "for (i = 0; i < n; i++) { n++; }",
    "for (i = 0; i < n; i++) { if (a[i]) i--; }",
    "for (i = 0; i < n; i++) { scan(&i); }",
    "for (i = 0; i < n || more(); i++) { }",
    "for (i = 0; i < n; i--) { }",
    "for (i = 0; i < n; i += a[i]) { i; a[i] = 0; i = 0; }",
    "for (u = 9; u >= 0; u--) { }",
    "while (n > 0) { n -= take(n); }",
    "while (i < n) { if (more()) i++; }",
    "while (i < n) { if (a[i]) continue; i++; }",
    "do { n = next(); } while (n);",
    "while (1) { if (more()) break; }",
    "for (;;) { if (more()) return; }",
    "for (;;) { if (more()) goto out; }",
    "while (more()) { if (n) { if (++k > 100) break; } }",
    "while (i < limit()) { i++; }",
]


@pytest.mark.parametrize("loop", BOUNDED)
def test_a_bound_that_shows_is_seen(loop: str) -> None:
    """A reviewer would let these pass."""
    assert lines(CLoopBounds(), in_function(loop)) == []


@pytest.mark.parametrize("loop", UNBOUNDED)
def test_a_loop_without_a_bound_is_reported(loop: str) -> None:
    """A reviewer would stop at these."""
    assert lines(CLoopBounds(), in_function(loop)) == [3]


def test_loops_in_macros_are_reported_where_they_stand() -> None:
    """The grammar does not look into macro bodies; the line is that of the loop, not of the directive."""
    source = "#define A(x) \\\n  do { \\\n    while (x) { x = x->next; } \\\n  } while (0)\nvoid f(void);\n"
    assert lines(CLoopBounds(), source) == [3]


@pytest.mark.parametrize("repeated", ["while (x) {", "for (;;) { if (y) break; ", "do { if (++i > 3) break; "])
def test_deep_nesting_and_many_loops_end_soon(repeated: str) -> None:
    """Nothing is quadratic, and nothing recurses."""
    lines(CLoopBounds(), "void f(void) {" + repeated * 3_000)
    lines(CLoopBounds(), "void f(void) {" + (repeated + "}") * 5_000 + "}")
    lines(CInnerScope(), "void f(void) { int x; " + "{ int a; a = x; " * 3_000)


WIDE = [
    "int x; if (n) { x = n; use(x); }",
    "int x = 0; if (n) { use(x); }",
    "char *x; if (n) { if (m) { x = take(); use(x); } }",
    "int x; for (int i = 0; i < n; i++) { x = i; use(x); }",
    "char x[8]; if (n) { fill(x); }",
    "int x; if (n) { use(&x); use(x); }",
]
FITTING = [
    "int x; if (n) { x = 1; } use(x);",
    "int x; if (n) { x = 1; } else { x = 2; }",
    "int x = n; if (n) { n = 3; use(x); }",
    "int x; for (int i = 0; i < n; i++) { if (i) { use(x); } x = i; }",
    "int x = 0; for (int i = 0; i < n; i++) { x = x + i; use(x); }",
    "static int x; if (n) { x = 1; use(x); }",
    "volatile int x; if (n) { x = 1; use(x); }",
    "char x[8]; char *y = 0; if (n) { y = x; } use(y);",
    "int x; int *y = 0; if (n) { y = &x; } use(y);",
    "int x; switch (n) { case 1: x = 1; use(x); break; }",
    "int x; for (x = 0; x < n; x++) { use(x); }",
    "int x; while ((x = next()) > 0) { use(x); }",
    "int x; do { x = next(); } while (x);",
    "int x; { int x = 1; use(x); } use(x);",
    "int x; if (n) { BY_MACRO; use(x); }",
]


@pytest.mark.parametrize("body", WIDE)
def test_a_local_that_is_too_wide_is_reported(body: str) -> None:
    """One inner block alone uses it."""
    assert lines(CInnerScope(), f"void f(int n, int m)\n{{\n{body}\n}}\n") == [3]


@pytest.mark.parametrize("body", FITTING)
def test_a_local_that_must_stay_is_not_reported(body: str) -> None:
    """It is used outside, carried over, held by address, or reached through a macro."""
    assert (
        lines(
            CInnerScope(),
            f"#define BY_MACRO x = 1\nvoid f(int n, int m)\n{{\n{body}\n}}\n".replace("x = 1\n", "(x = 1)\n"),
        )
        == []
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("static int x;\nint f(void) { return x++; }\n", [1]),
        ("static int x;\nint f(void) { return x++; }\nint g(void) { return x; }\n", []),
        ("static const int x = 3;\nint f(void) { return x; }\n", []),
        ("static const char *const x = 0;\nint f(void) { return *x; }\n", []),
        ("static const char *x;\nint f(void) { return *x; }\n", [1]),
        ("static int x;\nint *p = &x;\nint f(void) { return x; }\n", []),
        ("static int x;\nint f(void) { keep(&x); return x; }\n", []),
        ("static char x[9];\nint f(void) { memset(x, 0, 9); return x[0]; }\n", [1]),
        ("static int x_a;\n#define X(n) x_ ## n\nint f(void) { return x_a; }\n", []),
        ("static int x;\nint f(int x) { return x; }\nint g(void) { return x; }\n", [1]),
        ("static int x;\nint f(a, x) int a; int x; { return x; }\n", []),
        ("int x;\nint f(void) { return x; }\n", []),
    ],
)
def test_file_scope_objects_with_one_user(source: str, expected: list[int]) -> None:
    """Shadowing, tables, addresses and pasted names are told apart."""
    assert lines(CFileScope(), source) == expected


def test_junk_does_not_stop_the_rules() -> None:
    """Whatever the bytes, each rule answers."""
    chooser = random.Random(5)
    parts = [
        "for (",
        "while",
        "do {",
        "}",
        "{",
        "(",
        ")",
        ";",
        "x",
        "++",
        "static int x",
        "#define A while (x) {",
        "\n",
        "&",
        "=",
        "'",
        '"',
    ]
    for _ in range(200):
        source = " ".join(chooser.choices(parts, k=60))
        for rule in (CLoopBounds(), CInnerScope(), CFileScope()):
            lines(rule, source)
