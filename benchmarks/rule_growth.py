"""
How the C rules' time grows with the size of one file, by shape, and how long real files take.

    python -m benchmarks.rule_growth [--lines N] [--shape NAME] [FILE...]

For each shape, files of N, 2N and 4N units are made, parsed alone and analysed by the group `power-of-ten-c`. Printed
are the CPU seconds of each and two exponents, of the rules and of tree-sitter's parse: 1 is linear in the size, 2 is
quadratic. What of an exponent is the parser's own shows in the second. With the default of 10,000 units the largest
files are 40,000 small functions, a function of 40,000 lines, an error of 100,000 tokens, and so on. Each FILE is
analysed as it is, and twice in a row as one file, which tells whether its time is linear too.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import parse

if TYPE_CHECKING:
    from tree_sitter import Parser

STATEMENTS = (
    "    int v{0} = compute(a, {0});",
    "    if (v{0} > limit) {{ total += v{0}; }}",
    "    for (i = 0; i < n; i++) {{ table[i] = v{0}; }}",
    "    p = next(p->link); report(total, v{0});",
)
BODY = "    assert(n > 0);\n    total += n;\n    return helper{1}(p->x, n);\n"


def _one_function(units: int) -> str:
    lines = (STATEMENTS[number % len(STATEMENTS)].format(number // len(STATEMENTS)) for number in range(units))
    return "int f(struct s *p, int n)\n{\n" + "\n".join(lines) + "\n}\n"


def _many_functions(units: int) -> str:
    one = "static int helper{0}(struct s *p, int n)\n{{\n" + BODY + "}}\n"
    return "".join(one.format(number, max(number - 1, 0)) for number in range(units))


def _one_loop(units: int) -> str:
    lines = (f"        if (n == {number}) {{ break; }} n += step(n, {number});" for number in range(units))
    return "int f(int n)\n{\n    while (n > 0) {\n" + "\n".join(lines) + "\n    }\n    return n;\n}\n"


def _many_loops(units: int) -> str:
    loop = "    for (i{0} = 0; i{0} < n; i{0}++) {{ sum{0} += i{0}; }}"
    return "void f(int n)\n{\n" + "\n".join(loop.format(number) for number in range(units)) + "\n}\n"


def _file_scope(units: int) -> str:
    one = "static int kept{0};\nint use{0}(int n) {{ kept{0} += n; return kept{0}; }}\n"
    return "".join(one.format(number) for number in range(units // 2))


def _macros(units: int) -> str:
    return "".join(f"#define M{number}(p) ((p)->x + M{number // 2}(p))\n" for number in range(units))


def _conditionals(units: int) -> str:
    one = "#ifdef A{0}\nint f{0}(int n) {{\n#else\nlong f{0}(long n) {{\n#endif\n    return n;\n}}\n"
    return "".join(one.format(number) for number in range(units // 7))


def _flat_error(units: int) -> str:
    return "int f(int n)\n{\n" + "\n".join(") a b ( c ] d" for _ in range(units * 5 // 14)) + "\n}\n"


def _table(units: int) -> str:
    return (
        "static const int t[] = {\n"
        + "".join(f"    {number}, {number}, {number},\n" for number in range(units))
        + "};\n"
    )


def _nested_blocks(units: int) -> str:
    depth = units // 2
    return "void f(int n)\n{\n" + "if (n) {\n" * depth + "n++;\n" + "}\n" * depth + "}\n"


def _nested_expression(units: int) -> str:
    depth = units // 2
    return "int f(int n)\n{\nreturn " + "g(1 + (" * depth + "n" + "))" * depth + ";\n}\n"


def _nested_conditionals(units: int) -> str:
    depth = units // 2
    return "#if A\n" * depth + "int x;\n" + "#endif\n" * depth


def _long_line(units: int) -> str:
    return "int f(int n) { " + " ".join(f"n = g(n, {number});" for number in range(units)) + " return n; }\n"


def _classes(units: int) -> str:
    one = "class C{0} : B {{\npublic:\n    int get(int n) {{ return kept + C{0}::put(n, 1); }}\n"
    one += "    int put(int, int);\n    int kept;\n}};\n"
    return "".join(one.format(number) for number in range(units // 6))


def _methods(units: int) -> str:
    one = "int C::m{0}(const T &t, int n)\n{{\n    auto *p = new T(n);\n    this->m{1}(t, n);\n"
    one += "    delete p;\n    return n;\n}}\n"
    return "".join(one.format(number, max(number - 1, 0)) for number in range(units // 7))


SHAPES: dict[str, tuple[Language, Callable[[int], str]]] = {
    "one function": ("c", _one_function),
    "small functions": ("c", _many_functions),
    "one loop": ("c", _one_loop),
    "loops in a row": ("c", _many_loops),
    "file-scope objects": ("c", _file_scope),
    "macros": ("c", _macros),
    "conditionals": ("c", _conditionals),
    "flat error": ("c", _flat_error),
    "table": ("c", _table),
    "one line": ("c", _long_line),
    "nested blocks": ("c", _nested_blocks),
    "nested expression": ("c", _nested_expression),
    "nested conditionals": ("c", _nested_conditionals),
    "C++ classes": ("cpp", _classes),
    "C++ methods": ("cpp", _methods),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a shape."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="rule_growth", description=__doc__, formatter_class=shape)
    parser.add_argument("--lines", type=int, default=10_000, help="units of the smallest file (default 10000)")
    parser.add_argument("--shape", choices=list(SHAPES), help="this shape only")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="C files that are there")
    options = parser.parse_args(arguments)
    group = discover()["power-of-ten-c"]
    assert isinstance(group, RuleGroup), "the rules are a group"
    print(f"{'shape':22} {'MB':>22}  {'rules, CPU s':>24}  exponent  of the parse")
    for name, (language, make) in SHAPES.items():
        if options.shape in (None, name):
            print(_grown(name, language, [make(options.lines * factor).encode() for factor in (1, 2, 4)], group))
    for path in options.files:
        data = path.read_bytes()
        print(_grown(path.name, "c", [data, data + b"\n" + data], group))
    return 0


def _grown(name: str, language: Language, sources: list[bytes], group: RuleGroup) -> str:
    bare = _parser(language)
    group.check_file(parse(sources[0], language, "warm.c"))

    def rules(data: bytes) -> None:
        group.check_file(parse(data, language, "grown.c"))

    ruled = [_seconds(partial(rules, data)) for data in sources]
    parsed = [_seconds(partial(bare.parse, data)) for data in sources]
    sizes = " ".join(f"{len(data) / 1e6:6.2f}" for data in sources)
    times = " ".join(f"{seconds:7.3f}" for seconds in ruled)
    return f"{name:22} {sizes:>22}  {times:>24}  {_exponent(sources, ruled):8.2f}  {_exponent(sources, parsed):12.2f}"


def _exponent(sources: list[bytes], seconds: list[float]) -> float:
    return math.log(seconds[-1] / seconds[0]) / math.log(len(sources[-1]) / len(sources[0]))


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _parser(language: Language) -> Parser:
    import tree_sitter_c
    import tree_sitter_cpp
    from tree_sitter import Language as Grammar
    from tree_sitter import Parser

    return Parser(Grammar(tree_sitter_cpp.language() if language == "cpp" else tree_sitter_c.language()))


if __name__ == "__main__":
    raise SystemExit(main())
