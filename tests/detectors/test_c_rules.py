"""C as it is: hard cases of the tokens beside the tree, and laws that hold for any bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.c_parsing import CFile
from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import ParsedFile, Unparsable, parse
from detectors.power_of_ten.c_dynamic_memory import CDynamicMemory
from detectors.power_of_ten.c_function_length import CFunctionLength
from detectors.power_of_ten.c_goto import CGoto
from detectors.power_of_ten.c_recursion import CRecursion
from detectors.power_of_ten.cycles import cycles
from detectors.testing import reported


def _group() -> RuleGroup:
    group = discover()["power-of-ten-c"]
    assert isinstance(group, RuleGroup)
    return group


def _c(source: str | bytes, language: Language = "c") -> CFile:
    data = source.encode() if isinstance(source, str) else source
    parsed = parse(data, language, "x.c")
    assert isinstance(parsed, CFile)
    return parsed


RECURSION = {
    "direct": ("int f(int n) { return f(n); }", [1]),
    "in a macro of the file": ("#define AGAIN(n) f(n)\nint f(int n) { return AGAIN(n); }", [2]),
    "through two": ("int g(int);\nint f(int n) { return g(n); }\nint g(int n) { return f(n); }", [2, 3]),
    "prototype inside": ("int f(int n) { int f(int); return n; }", []),
    "local variable": ("int f(int n) { int (*f)(int) = 0; return f(n); }", []),
    "parameter": ("int f(int (*f)(int)) { return f(1); }", []),
    "member": ("struct s { int (*f)(int); };\nint f(struct s *p) { return p->f(1) + (*p).f(2); }", []),
    "in a string": ('int f(int n) { puts("f(n)"); /* f(n) */ return n; } // f(n)', []),
    "dead branch": ("int f(int n) {\n#if 0\n return f(n);\n#endif\n return n; }", []),
    "else of a dead branch": ("int f(int n) {\n#if 0\n#else\n return f(n);\n#endif\n}", [1]),
    "other conditional": ("int f(int n) {\n#ifdef X\n return f(n);\n#else\n return 0;\n#endif\n}", [1]),
    "nested dead": ("int f(int n) {\n#if 0\n#if 1\n f(n);\n#endif\n f(n);\n#endif\n return n; }", []),
    "two heads": ("#if A\nint f(int n)\n#else\nlong f(long n)\n#endif\n{\n return n;\n}", []),
    "two heads, recursive": ("#if A\nint f(int n)\n#else\nlong f(long n)\n#endif\n{\n return f(n);\n}", [2]),
    "K&R": ("int f(n)\nint n;\n{ return f(n); }", [1]),
    "pointer result": ("char *f(char *p) { return f(p); }", [1]),
    "attribute": ("__attribute__((noinline)) static int f(int n) { return f(n); }", [1]),
    "spliced name": ("int f(int n) { return f \\\n (n); }", [1]),
    "gnu nested": ("int f(int n) { int g(int m) { return m; } return g(n); }", []),
    "macro head": (
        "#define TEST(x) void t_##x(void)\nint stop(int);\nTEST(kill) { stop(1); }\nint stop(int n) { return kill(n); }",
        [],
    ),
    "generic": ("int f(int n) { return _Generic(n, int: f)(n); }", []),
    "sizeof": ("int f(int n) { return sizeof(f(n)); }", [1]),
}


@pytest.mark.parametrize("name", RECURSION)
def test_recursion(name: str) -> None:
    """Each was seen to mislead a checker that parses only, or reads tokens only."""
    source, lines = RECURSION[name]

    assert [line for _, line in reported(source + "\n", CRecursion)] == lines


CPP = {
    "method and function of one name": (
        "struct A { int f(int n) { return n; } };\nint f(int n) { A a; return a.f(n); }",
        [],
    ),
    "overload by count": ("int f(int n) { return n; }\nint f(int n, int m) { return f(n + m); }", []),
    "recursive method": ("struct A {\n int f(int n) { return f(n - 1); }\n};", [2]),
    "namespaces": ("namespace a { int f(int n) { return n; } }\nnamespace b { int f(int n) { return a::f(n); } }", []),
    "out of line": ("struct A { int f(int); };\nint A::f(int n) { return f(n); }", [2]),
    "raw string": ('int f(int n) { const char *s = R"x(f(n) " goto )x"; return n; }', []),
    "lambda": ("int f(int n) { auto g = [](int m) { return m; }; return g(n); }", []),
}


@pytest.mark.parametrize("name", CPP)
def test_recursion_in_cpp(name: str) -> None:
    """A name is not a function where classes, namespaces and overloads part them."""
    source, lines = CPP[name]

    assert [line for _, line in reported(f"// file: a.cpp\n{source}\n", CRecursion)] == [n + 1 for n in lines]


def test_calls_between_files_follow_linkage() -> None:
    """A static function is its file's own; of two external ones the nearest is meant; a header's is everybody's."""
    example = """
// file: unix/core.c
int stop(int n) { return close_it(n); }
// file: unix/close.c
int close_it(int n) { return n; }
// file: win/close.c
int close_it(int n) { return stop(n); }
// file: include/list.h
static inline int walk(int n) { return n ? visit(n) : 0; }
// file: src/visit.c
int visit(int n) { return walk(n - 1); }
"""
    assert [path for path, _ in reported(example, CRecursion)] == ["include/list.h", "src/visit.c"]


ALLOCATION = {
    "plain": ("void f(void) { malloc(1); }", 1),
    "cast": ("char *f(void) { return (char *)malloc(1); }", 1),
    "prototype": ("void *malloc(unsigned long);\nvoid f(void) { void free(void *); }", 0),
    "own definition": ("void *malloc(unsigned long n) { return 0; }", 0),
    "initialises": ("void radio_init(void) { malloc(1); }\nvoid SetupRadio(void) { malloc(1); }", 0),
    "not a word": ("void initial(void) { malloc(1); }\nvoid reinit2(void) { malloc(1); }", 2),
    "helper of two": ("static void h(void) { malloc(1); }\nvoid a_init(void) { h(); }\nvoid b_init(void) { h(); }", 0),
    "helpers of each other": (
        "static void g(int);\nstatic void h(int n) { malloc(1); g(n); }\nstatic void g(int n) { h(n); }\nvoid a_init(void) { h(1); }",
        0,
    ),
    "helper of another, too": (
        "static void h(void) { malloc(1); }\nvoid a_init(void) { h(); }\nvoid run(void) { h(); }",
        1,
    ),
    "never called": (
        "static void g(int);\nstatic void h(int n) { malloc(1); g(n); }\nstatic void g(int n) { h(n); }",
        1,
    ),
    "kin": ("void f(char *s) { strdup(s); getline(0, 0, 0); free(s); alloca(3); }", 4),
}


@pytest.mark.parametrize("name", ALLOCATION)
def test_dynamic_memory(name: str) -> None:
    """Inside of initialisation, and what only it calls, memory may be taken."""
    source, count = ALLOCATION[name]

    assert len(reported(source + "\n", CDynamicMemory)) == count


def test_length_counts_from_the_first_head() -> None:
    """Exact under conditional heads and K&R, both ends counted."""
    body = "{\n" + "    n++;\n" * 54 + "}\n"
    heads = "#if A\nint f(int n)\n#else\nint f(long n)\n#endif\n"

    assert reported(heads + body, CFunctionLength) == []
    assert [line for _, line in reported(heads + body.replace("{\n", "{\n" + "\n" * 4, 1), CFunctionLength)] == [2]


C_PIECES = st.lists(
    st.sampled_from(
        ["int f(int n)", "{", "}", "(", ")", ";", "goto x", "x:", "#if 0\n", "#else\n", "#endif\n", "\n", "f(n)", "malloc(n)", '"', "'",
         "/*", "*/", "//", "\\\n", "#define M(x) f(x)\n", "R\"(", "static ", "struct s", ",", "=", "ü", "\0x", "if (n)"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=300), C_PIECES.map(str.encode)), st.sampled_from(["c", "cpp"]))
def test_any_bytes_give_an_answer_twice_the_same(data: bytes, language: Language) -> None:
    """A file that crashes the rules would be lost."""
    try:
        one = _group().check_file(parse(data, language, "x.c"))
        two = _group().check_file(parse(data, language, "x.c"))
    except Unparsable:
        return

    assert one == two
    assert 0 <= one.understood <= 1


@settings(max_examples=80, deadline=None)
@given(C_PIECES, st.integers(1, 5))
def test_lines_put_above_move_findings_down(source: str, down: int) -> None:
    """A finding that moved by another number than its line would point elsewhere."""
    if "\0" in source:
        return
    rule = CGoto()
    before = [finding.region.start_line for finding in rule.check(_c(source))]
    after = [finding.region.start_line for finding in rule.check(_c("\n" * down + source))]

    assert after == [line + down for line in before]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_columns_count_code_points(mark: bytes) -> None:
    """An editor must jump to the word, whatever stands before it and however the file is encoded."""
    finding = next(iter(CGoto().check(_c(mark + "void f(void) { /* üß */ goto x; x:; }".encode()))))
    latin = next(iter(CGoto().check(_c("void f(void) { /* üß */ goto x; x:; }".encode("latin-1")))))

    assert finding.region.start_column == latin.region.start_column == 25


def test_understood_tells_how_much_was_parsed() -> None:
    """A file with errors is analysed, and the result says how much of it was understood."""
    assert _c("int f(void) { return 0; }\n").understood == 1.0
    assert _c("").understood == 1.0
    assert 0 < _c("int f(void) { return 0; }\n@@@ ??? !!! ((( \n").understood < 1


@pytest.mark.parametrize(
    "source",
    [
        "int f(int n) {\n" + "    if (n) goto out;\n" * 100_000 + "out:\n    return n;\n}\n",
        "".join(f"int f{n}(int a) {{ return f{n + 1}(a); }}\n" for n in range(40_000)),
        "int x = " + "(" * 20_000 + "1" + ")" * 20_000 + ";\n",
        "#if 0\n" * 20_000,
        '"' * 100_000,
        "/*" * 100_000,
        "f(" * 50_000,
        "#define A(x) \\\n" * 20_000,
    ],
    ids=["long function", "many functions", "deep", "open conditionals", "quotes", "comments", "open calls", "splices"],
)
def test_nothing_is_quadratic(source: str) -> None:
    """A hostile file must not hold a worker for minutes; the bound is far above what linear work takes."""
    clock = time.process_time()
    _group().check_file(parse(source.encode(), "c", "x.c"))

    assert time.process_time() - clock < 30


def test_cycles_of_long_chains() -> None:
    """Call chains are longer than Python's stack."""
    length = 50_000
    ring = [((n + 1) % length,) for n in range(length)]
    chain = [(n + 1,) if n + 1 < length else () for n in range(length)]

    assert [len(cycle) for cycle in cycles(ring)] == [length]
    assert cycles(chain) == []
    assert cycles([(0,), (2,), (1,), ()]) == [(0,), (1, 2)]


def test_other_languages_are_not_asked() -> None:
    """A rule group answers for its languages only."""
    assert _group().check_file(ParsedFile(b"goto", "text")).findings == ()
