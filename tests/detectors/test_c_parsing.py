"""What is laid out before C is parsed: conditionals, macros, dialects; each case was seen in public code."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.c_directive_parsing import lay_out
from detectors.c_parsing import CFile
from detectors.power_of_ten.c_dynamic_memory import CDynamicMemory, CVariableLengthArray
from detectors.power_of_ten.c_function_length import CFunctionLength
from detectors.power_of_ten.c_goto import CGoto
from detectors.power_of_ten.c_recursion import CRecursion
from detectors.testing import reported

PARSED = {
    "two heads": "#if A\nint f(int n)\n#else\nlong f(long n)\n#endif\n{ return n; }\n",
    "half an if": "int f(int n) {\n#if A\n  if (n) {\n#else\n  if (!n) {\n#endif\n    n++;\n  }\n  return n;\n}\n",
    "opened and closed": "int f(int n) {\n#ifdef A\n  if (n) {\n#endif\n    n++;\n#ifdef A\n  }\n#endif\n  return n;\n}\n",
    "closed under the opposite": (
        "int f(int n) {\n#ifndef A\n  if (n) {\n#else\n  {\n#endif\n    n++;\n#ifdef A\n  }\n#else\n  }\n#endif\n"
        "  return n;\n}\n"
    ),
    "inside of an expression": "int f(int n) {\n  return n +\n#if A\n    1\n#else\n    2\n#endif\n    ;\n}\n",
    "for C++ alone": '#ifdef __cplusplus\nextern "C" {\n#endif\nint f(int n);\n#ifdef __cplusplus\n}\n#endif\n',
    "a body for each": "int f(int n)\n#if A\n{ return n; }\n#else\n{ return 2 * n; }\n#endif\nint x;\n",
    "an else for each": "int f(int n) {\n  if (n) n++;\n#if A\n  else n--;\n#else\n  else n = 0;\n#endif\n  return n;\n}\n",
    "assembler by macros": "int f(void);\n#if 0\n  mov r0, #1 ' don't\n#endif\nint g(void);\n",
}


@pytest.mark.parametrize("name", PARSED)
def test_conditionals_leave_one_text_that_parses(name: str) -> None:
    """A text of all branches at once is no program, and its functions are lost."""
    assert CFile(PARSED[name].encode(), "c", "x.c").understood == 1.0


def test_every_branch_but_a_dead_one_is_code() -> None:
    """Code that only another configuration compiles would go unchecked."""
    source = b"#if A\nint f(int a)\n#else\nint f(long b)\n#endif\n{\n#if 1\none;\n#else\nnever;\n#endif\n#if 0\nzero;\n#elif X\ntwo;\n#endif\n}\n"
    code = lay_out(source, "c").code

    assert code.split() == b"int f(int a) int f(long b) { one; two; }".split()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"#if A\n", b"#if 0\n", b"#else\n", b"#elif B\n", b"#endif\n", b"{", b"}", b"f(", b");\n", b'"', b"'", b"\\\n", b"/*", b"*/",
             b"//", b'R"(', b')"', b"#define M(x) x /*\n", b"\n", b"1'0", b" ", b"\xff"]
        ),
        max_size=40,
    ).map(b"".join),
    st.sampled_from(["c", "cpp"]),
)  # fmt: skip
def test_nothing_moves(source: bytes, dialect: str) -> None:
    """An offset that shifts would put every later finding on a wrong line."""
    layout = lay_out(source, dialect)  # type: ignore[arg-type]
    breaks = [at for at, byte in enumerate(source) if byte == 10]

    assert len(layout.code) == len(layout.parsable) == len(source)
    assert [at for at, byte in enumerate(layout.code) if byte == 10] == breaks
    assert [at for at, byte in enumerate(layout.parsable) if byte == 10] == breaks
    assert all(end <= start for (_, end, _), (start, _, _) in zip(layout.hidden, layout.hidden[1:], strict=False))


RECURSION = {
    # FreeRTOS-Kernel, MPU wrappers: the macro and the function it wraps never meet in one unit.
    "a macro over a function of the tree": (
        "// file: wrap.h\n#define run MPU_run\n#define go(x) MPU_go(x)\n// file: a.c\nvoid run(void) {}\nvoid go(int x) {}\n"
        "// file: b.c\nvoid MPU_run(void) { run(); }\nvoid MPU_go(int x) { go(x); }\n",
        [],
    ),
    # libsodium: the macro is defined behind the function that uses what it stands for.
    "a macro not yet defined": ("static int shim(int n) { return load(n); }\n#define load(n) shim(n)\n", []),
    # FreeRTOS-Kernel: a variable in one configuration, a call in the other.
    "a macro that is also a variable": (
        "#if ONE\nint current;\n#else\n#define current get()\n#endif\nint get(void) { return current; }\n",
        [],
    ),
    "a macro in its own body": ("#define f(n) f((n) - 1)\nint f(int n);\nint g(int n) { return f(n); }\n", []),
    "a head in a hidden branch": (
        "#if A\nvoid f(int n) {\n#else\nchar *\nf(long n) {\n#endif\n  n++;\n}\n",
        [],
    ),
    "a call in a hidden branch": (
        "#if A\nint f(int n) {\n  if (n) {\n#else\nint f(long n) {\n  if (f(n)) {\n#endif\n  n++;\n}\n return n; }\n",
        [2],
    ),
    "through parentheses": ("int f(int n) { return (f)(n - 1); }\n", [1]),
    # RVDS and CC-RH: a function of assembler, behind which the parser lost the closing brace.
    "an assembler's function": (
        "__asm void first(void)\n{\n    PRESERVE8\n    ldr r3, = x\n    movs r0, # 2\n    bx r3\n}\nvoid later(void) { first(); }\n",
        [],
    ),
    # zlib: text behind a false condition is no statement, but all branches count.
    "prose in a branch": (
        "void f(void) {\n  HASH(1);\n#if M != 3\n  Call HASH() M times\n#endif\n  while (x) {\n    HASH(2);\n  }\n}\n",
        [],
    ),
}


@pytest.mark.parametrize("name", RECURSION)
def test_calls_that_only_look_recursive(name: str) -> None:
    """A checker that cries wolf is switched off."""
    source, lines = RECURSION[name]

    assert [line for _, line in reported(source, CRecursion)] == lines


CPP = {
    "the base's member": (
        "struct B { int f(int n) { return n; } };\nstruct D : B {\n int f(int n) { return B::f(n); }\n};\n",
        [],
    ),
    "through this": ("struct A {\n int f(int n) { return this->f(n); }\n};\n", [2]),
    "the global one": ("int f(int n) { return n; }\nstruct A { int f(int n) { return ::f(n); } };\n", []),
}


@pytest.mark.parametrize("name", CPP)
def test_qualified_calls(name: str) -> None:
    """A qualified name is somebody else's, save by the own name."""
    source, lines = CPP[name]

    assert [line - 1 for _, line in reported(f"// file: a.cpp\n{source}", CRecursion)] == lines


def test_a_header_of_classes_is_read_as_cpp() -> None:
    """zlib's zstream.h: a method named `read` is not what C code calls by that name."""
    example = (
        "// file: stream.h\nclass In {\npublic:\n  int read(char *to) { return gzread(to); }\n};\n"
        "// file: gz.c\nint gzread(char *to) { return read(to); }\n"
    )
    assert reported(example, CRecursion) == []


ARRAYS = {
    "constants of the file": ("enum { key_BYTES = 8 };\nvoid f(int n) { char k[key_BYTES]; char s[sizeof(n)]; }\n", []),
    "a parameter": ("void f(int n) {\n char v[2 * n];\n}\n", [2]),
    "no declaration": ("void f(int n, char *a) { a[n] = a[n - 1]; }\n", []),
    "a macro of constants": ("void f(void) { int from[3]; char to[ARRAY_SIZE(from)]; }\n", []),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_variable_length_arrays(name: str) -> None:
    """libsodium's lengths are macros in small letters; 131 of them were taken for variables."""
    source, lines = ARRAYS[name]

    assert [line for _, line in reported(source, CVariableLengthArray)] == lines


def test_a_constant_of_cpp_is_a_length() -> None:
    """C++ folds what C does not."""
    source = "// file: a.cpp\nvoid f(int m) {\n const int n = 3;\n char v[n];\n char w[m];\n}\n"

    assert [line for _, line in reported(source, CVariableLengthArray)] == [5]


def test_memory_behind_other_names() -> None:
    """What hides the allocator must not hide the finding, and what only shares its name must not make one."""
    hidden = "#define release free\n#define GET(n) \\\n    malloc(n)\nvoid f(char *p) { (free)(p); }\n"
    shared = "static char *strdup(char *s) { return s; }\nchar *f(char *s) { return strdup(s); }\n"

    assert [line for _, line in reported(hidden, CDynamicMemory)] == [1, 3, 4]
    assert reported(shared, CDynamicMemory) == []


def test_memory_in_cpp() -> None:
    """Placement builds in memory that is there; everything else behind `new` allocates."""
    source = (
        "// file: a.cpp\nvoid f(void *p) {\n new (p) T;\n new (std::nothrow) T;\n new T;\n std::make_unique<T>();\n}\n"
    )

    assert [line for _, line in reported(source, CDynamicMemory)] == [4, 5, 6]


def test_jumps_of_other_spellings() -> None:
    """A splice, a digraph and a pair of parentheses are not a way around a rule."""
    source = (
        "%:define OUT go\\\nto_is_no_word; goto out\nvoid f(void) {\n  (longjmp)(b, 1);\n}\n#  define X \\\n  goto y\n"
    )

    assert [line for _, line in reported(source, CGoto)] == [2, 4, 7]


def test_length_of_a_function_behind_a_lost_brace() -> None:
    """One unclosed branch must not make one function of the rest of the file."""
    source = (
        "void f(int n) {\n#if A\n  if (n) {\n#endif\n  n++;\n#if A\n  }\n#endif\n}\n"
        + "int g(void) { return 1; }\n" * 80
    )

    assert reported(source, CFunctionLength) == []


def test_columns_on_long_lines_count_code_points() -> None:
    """A minified line is megabytes long; its last column must be exact, and not take minutes."""
    line = "void f(void) { " + "/*ü*/ goto x; " * 20_000 + "x:; }"
    columns = [finding.region.start_column for finding in CGoto().check(CFile(line.encode(), "c", "x.c"))]

    assert columns == [22 + 14 * n for n in range(20_000)]


def test_a_name_behind_a_macro_and_a_type_is_the_name() -> None:
    """`API type f(void)` is f: else two functions of that type call each other, and look recursive."""
    source = b"API hash_t one (int n)\n{\n    return two(n);\n}\nAPI hash_t two (int n)\n{\n    return (hash_t) n;\n}\n"
    unit = CFile(source, "c", "a.c")

    assert [function.name for function in unit.functions] == ["one", "two"]
    assert reported(source.decode(), CRecursion) == []


def test_an_array_behind_an_alignment_is_an_object() -> None:
    """`ALIGN(N) byte_t block[N]` declares block: else no rule about scope sees it."""
    unit = CFile(b"void f(void)\n{\n    ALIGN(N) byte_t block[N];\n    use(block);\n}\n", "c", "a.c")

    assert [declared.name for declared in unit.objects] == [b"block"]


def test_prototypes_behind_members_that_a_macro_writes() -> None:
    """A structure without a visible member must not take the functions declared behind it for its own."""
    source = b"struct handle {\n  FIELDS\n  MORE_FIELDS\n};\n\nAPI int start(struct handle *h);\nAPI int stop(struct handle *h);\n"
    unit = CFile(source, "c", "a.h")

    assert {prototype.name for prototype in unit.prototypes} == {"start", "stop"}


def test_tables_of_numbers_are_left_out_in_place() -> None:
    """A table that is not parsed must move nothing behind it, nor swallow what is no number."""
    table = "static const int t[] = {\n" + "    -1, 0x2aUL, 3.5e+3f,\n" * 40 + "};\n"
    mixed = "static const int u[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, (int) sizeof(int) };\n"
    text = (table + mixed + "int f(int n) { return g(n); }\n").encode()
    unit = CFile(text, "c", "x.c")
    assert unit.understood == 1.0
    assert [function.start for function in unit.functions] == [text.index(b"int f(")]
    assert [declared.name for declared in unit.objects] == [b"t", b"u"]
    assert b"0x2a" not in (unit.tree.root_node.text or b"")
    assert b"sizeof(int)" in (unit.tree.root_node.text or b"")


def test_calls_within_calls_and_split_heads_are_all_seen() -> None:
    """Calls are read backwards from their parentheses: one that opens another's arguments must not hide it."""
    text = b"int f(int n)\n{\n    return outer(inner(n), (last)(n)) + spaced\n        (n) + s.member(n) + p->member(n);\n}\n"
    unit = CFile(text, "c", "x.c")
    assert [call.name for call in unit.calls] == ["outer", "inner", "last", "spaced"]
    assert [text[call.start :].split(b"(")[0].split(b")")[0].strip() for call in unit.calls] == [
        call.name.encode() for call in unit.calls
    ]
