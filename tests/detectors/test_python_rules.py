"""The Python rules on hard cases: what must be seen, and what only looks like it."""

from __future__ import annotations

import ast
import contextlib
import gc
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detectors.detector import RuleGroup, discover
from detectors.model import Finding
from detectors.parsing import Unparsable, collector_paused, parse

GROUP = discover()["power-of-ten-python"]
assert isinstance(GROUP, RuleGroup)
KNOWN = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def _findings(text: str | bytes) -> list[Finding]:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return list(GROUP.check_file(parse(data, "python", "a.py")).findings)


def _lines(text: str | bytes) -> list[int]:
    """Return the lines that rule 8 reports."""
    return sorted(finding.region.start_line for finding in _findings(text) if finding.rule.startswith("P10-R8-"))


def _recursive(**files: str) -> list[tuple[str, int]]:
    """Return (path, line) of what rule 1 reports; `__` in a name stands for `/`, and `init` for `__init__`."""
    facts: dict[str, dict[str, object]] = {}
    for name, text in files.items():
        path = name.replace("__", "/").replace("init", "__init__") + ".py"
        report = GROUP.check_file(parse(text.encode(), "python", path.rpartition("/")[2]))
        for fact, packed in report.facts.items():
            facts.setdefault(fact, {})[path] = msgspec.msgpack.decode(packed)
    return sorted(
        (path, finding.region.start_line)
        for path, finding in GROUP.check_tree(facts)
        if finding.rule.startswith("P10-R1-")
    )


REACHED = {
    "imported under another name in a function": "def f():\n    from builtins import eval as e\n    e(1)  # here\n",
    "beside a shadow in another function": "def f(eval):\n    eval(1)\ndef g():\n    eval(2)  # here\n",
    "beside a method of the name": "class A:\n    def eval(self): pass\ndef g():\n    eval(1)  # here\n",
    "an alias of an alias": "a = eval\nb = a\nb(1)  # here\n",
    "a walrus": "if (e := exec):\n    e(1)  # here\n",
    "a module's dictionary": "import builtins as b\nb.__dict__['eval'](1)  # here\n",
    "vars of a module": "import builtins\nvars(builtins)['exec'](1)  # here\n",
    "__builtins__": "__builtins__['eval'](1)  # here\n__builtins__.exec(1)  # here\n",
    "__import__": "__import__('builtins').eval(1)  # here\n",
    "import_module": "import importlib\nimportlib.import_module('builtins').eval(1)  # here\n",
    "getattr kept": "import builtins as b\ne = getattr(b, 'eval')\ne(1)  # here\n",
    "handed to map": "list(map(eval, x))  # here\n",
    "handed on as an attribute": "import builtins\nrun(builtins.exec)  # here\n",
    "handed on through getattr": "import builtins\nrun(getattr(builtins, 'exec'))  # here\n",
    "kept in a table": "T = {'e': eval}  # here\n",
    "unpacked": "e, x = eval, 1  # here\n",
    "a default": "def f(e=eval):  # here\n    e(1)\n",
    "a name given back": "eval = eval\neval(1)  # here\n",
    "in an f-string": 'x = f"é{eval(1)}"  # here\n',
    "in an f-string of many lines": 'x = f"""\n{a}\n{eval(1)}"""  # here\n',
    "a decorator": "@eval  # here\ndef f(): pass\n",
    "a global from a function": "def f():\n    global run\n    run = exec\ndef g():\n    run(1)  # here\n",
    "after a star import": "from a import *  # here\neval(1)  # here\n",
    "types by from": "from types import new_class as n, ModuleType\nn('A')  # here\nModuleType('x')  # here\n",
    "type with a star": "type(*parts)  # here\n",
    "a metaclass and its use": "class M(type):  # here\n    pass\nclass A(metaclass=M):  # here\n    pass\n",
    "six": "import six\nclass A(six.with_metaclass(M, B)):  # here\n    pass\n",
    "del and +=": "import os\ndel os.a  # here\nos.b += 1  # here\n",
    "annotated and in tuples": "import os\nos.c: int = 1  # here\n(os.d, e) = x  # here\n",
    "targets of for and with": "import os\nfor os.i in x:  # here\n    pass\nwith x as os.f:  # here\n    pass\n",
    "a submodule": "import a.b\na.b.c = 1  # here\n",
    "a class below a module": "import requests\nrequests.sessions.Session.get = f  # here\n",
    "a sibling module": "from . import b\nb.x = 1  # here\n",
    "another name of a module": "import os as o\np = o\np.sep = 1  # here\n",
    "the table of modules": "from sys import modules as m\nm['a'] = b  # here\n",
    "a module's namespace": "import os\nos.__dict__['a'] = 1  # here\n",
    "deleted by function": "import os\ndelattr(os, 'a')  # here\n",
    "old line ends": "x = 1\r\n\r\neval(1)  # here\r\n",
    "a form feed": "\x0c\nx = 1\x0c\neval(1)  # here\n",
    "separators that are no line ends": "x = '''\u2028\x85\x1c'''\neval(1)  # here\n",
}

QUIET = {
    "a parameter": "def f(eval):\n    return eval(1)\n",
    "another's function of the name": "import re\nfrom re import compile\nre.compile(a)\ncompile(a)\nmodel.eval()\n",
    "a class's own": "class A:\n    def exec(self): pass\n    def f(self): self.exec()\n",
    "asking for a type": "import types\nisinstance(x, types.ModuleType)\ntype(x)\n",
    "a parameter called type": "def f(type):\n    return type('a', (), {})\n",
    "a parameter named as a module": "import os\ndef f(os):\n    os.x = 1\n",
    "an imported object": "from conf import settings, LIMITS\nsettings.debug = True\nLIMITS.x = 1\n",
    "an instance of an imported class": "from a import Thing\nThing().x = 1\nt = Thing()\nt.y = 2\n",
    "own class": "class A: pass\nA.x = 1\nsetattr(A, 'y', 2)\n",
    "own setattr": "import os\ndef setattr(a, b, c): pass\nsetattr(os, 'a', 1)\n",
    "environment": "import os\nos.environ['A'] = 'b'\n",
    "comments and texts": "# eval(1)\nx = 'exec(1)'\n",
    "a local in a comprehension": "[eval(1) for eval in x]\n",
    "a match": "def f(x):\n    match x:\n        case {'a': 1, **eval}: eval(1)\n        case [*exec]: exec(1)\n",
    "an exception's name": "try:\n    pass\nexcept E as eval:\n    eval(1)\n",
}


@pytest.mark.parametrize("text", REACHED.values(), ids=REACHED.keys())
def test_dynamic_code_is_seen_by_whatever_name(text: str) -> None:
    """When this fails, rule 8 can be walked around by a new name."""
    wanted = [number for number, line in enumerate(text.split("\n"), 1) if "# here" in line]

    assert _lines(text) == wanted


@pytest.mark.parametrize("text", QUIET.values(), ids=QUIET.keys())
def test_what_only_looks_like_dynamic_code_is_left_alone(text: str) -> None:
    """When this fails, rule 8 cries wolf."""
    assert _lines(text) == []


RECURSIVE = {
    "a lambda": ({"a": "f = lambda n: n and f(n - 1)\n"}, [1]),
    "a callback of map": ({"a": "def walk(n):\n    return list(map(walk, n))\n"}, [1]),
    "a lambda as a key": ({"a": "def f(x):\n    return sorted(x, key=lambda y: f(y))\n"}, [1, 2]),
    "coroutines": ({"a": "async def f():\n    await f()\n"}, [1]),
    "a generator": ({"a": "def f(n):\n    yield from (x for c in n for x in f(c))\n"}, [1]),
    "a constructor": ({"a": "class A:\n    def __init__(self):\n        A()\n"}, [2]),
    "an instance on the spot": ({"a": "class A:\n    def m(self):\n        return A().m()\n"}, [2]),
    "an instance with a name": ({"a": "class A:\n    def m(self):\n        a = A()\n        a.m()\n"}, [2]),
    "a call of an instance": ({"a": "class A:\n    def __call__(self):\n        self()\n"}, [2]),
    "static and class methods": (
        {"a": "class A:\n    @staticmethod\n    def s(): A.s()\n    @classmethod\n    def c(cls): cls.c()\n"},
        [3, 5],
    ),
    "through an inner function": ({"a": "def f():\n    def g():\n        return f()\n    return g()\n"}, [1, 2]),
    "through super": (
        {"a": "class A:\n    def f(self): B().f()\nclass B(A):\n    def f(self): super().f()\n"},
        [2, 4],
    ),
    "through a nonlocal": (
        {"a": "def o():\n    def f(): g()\n    g = None\n    def h():\n        nonlocal g\n        g = f\n"},
        [2],
    ),
}
APART = {
    "another object": "class A:\n    def f(self, o):\n        o.f(self)\n        self.child.f()\n",
    "a method replaced on the object": "class A:\n    def f(self):\n        self.f = make()\n        return self.f()\n",
    "called later": "def tick():\n    Timer(1, lambda: tick())\n",
    "a function and a method": "def write(x): pass\nclass A:\n    def write(self, x):\n        write(x)\n",
    "a definition replaced": "def f():\n    return 1\nold = f\ndef f():\n    return old()\n",
    "a constructor that stays": "class A:\n    def __init__(self): pass\n    def f(self):\n        return A()\n",
    "an inner function given out": "def deco():\n    def inner():\n        deco()\n    return inner\n",
    "a closure's parameter": "def f(g):\n    def h():\n        return g()\n    return h()\ndef g():\n    return f(g)\n",
    "locals": "def f(x):\n    for f in x: f()\ndef g(x):\n    with x as g: g()\ndef h(x):\n    import h\n    h()\n",
    "a comprehension's name": "def f(x):\n    return [f() for f in x]\n",
    "inner classes with equal names": (
        "class O:\n    class A:\n        def f(self): self.g()\n    class B:\n        def f(self): pass\n"
        "        def g(self): self.f()\n"
    ),
    "two branches": "if x:\n    def f(): g()\n    def g(): pass\nelse:\n    def f(): pass\n    def g(): pass\n",
    "super": "class A(B):\n    def f(self):\n        super().f()\n",
    "a static method's first parameter": "class A:\n    @staticmethod\n    def f(self):\n        self.f()\n",
    "a name of a class, from a method": "class A:\n    def f(self):\n        f()\n",
}
OVER_MODULES = {
    "a script's folder": (
        {"s__a": "import b\ndef f(): b.g()\n", "s__b": "from a import f\ndef g(): f()\n"},
        [("s/a.py", 2), ("s/b.py", 2)],
    ),
    "a package deep in the tree": (
        {
            "x__p__init": "",
            "x__p__a": "from p.b import g\ndef f(): g()\n",
            "x__p__b": "import p.a as z\ndef g(): z.f()\n",
        },
        [("x/p/a.py", 2), ("x/p/b.py", 2)],
    ),
    "a package under src, from outside": (
        {"src__p__init": "import t\ndef f(): t.g()\n", "t": "import p\ndef g(): p.f()\n"},
        [("src/p/__init__.py", 2), ("t.py", 2)],
    ),
    "a package that has no other of its name": (
        {
            "x__p__init": "def f():\n    import q.r\n    q.r.g()\n",
            "y__q__init": "",
            "y__q__r": "def g():\n    from p import f\n    f()\n",
        },
        [("x/p/__init__.py", 1), ("y/q/r.py", 1)],
    ),
    "folders that are no packages": (
        {"n__a": "import n.b\ndef f(): n.b.g()\n", "n__b": "from n import a\ndef g(): a.f()\n"},
        [("n/a.py", 2), ("n/b.py", 2)],
    ),
    "what a package gives on": (
        {"p__init": "from .b import go\n", "p__b": "import p\ndef go(): p.go()\n"},
        [("p/b.py", 2)],
    ),
    "a star": (
        {"p__init": "from .b import *\n", "p__b": "def go():\n    from . import go as g\n    g()\n"},
        [("p/b.py", 1)],
    ),
    "two dots": (
        {
            "p__init": "",
            "p__a": "from .q.b import g\ndef f(): g()\n",
            "p__q__init": "",
            "p__q__b": "from ..a import f\ndef g(): f()\n",
        },
        [("p/a.py", 2), ("p/q/b.py", 2)],
    ),
    "a method of a base elsewhere": (
        {
            "a": "import b\nclass A(b.B[int]):\n    def f(self): self.g()\n",
            "b": "class B:\n    def g(self):\n        from a import A\n        A().f()\n",
        },
        [("a.py", 3), ("b.py", 2)],
    ),
    "a library of the same name as a sibling": (
        {"p__init": "", "p__json": "import json\ndef dumps(x): json.dumps(x)\n"},
        [],
    ),
    "more dots than folders": ({"a": "from ....b import f\ndef g(): f()\n"}, []),
    "a name in two packages": (
        {"x__p__init": "def f(): pass\n", "y__p__init": "def f(): pass\n", "z__a": "import p\ndef f(): p.f()\n"},
        [],
    ),
    "modules that import each other's stars": (
        {"a": "from b import *\ndef f(): nothing()\n", "b": "from a import *\ndef g(): nothing()\n"},
        [],
    ),
}


@pytest.mark.parametrize(("files", "wanted"), RECURSIVE.values(), ids=RECURSIVE.keys())
def test_recursion_is_seen(files: dict[str, str], wanted: list[int]) -> None:
    """When this fails, rule 1 misses a cycle."""
    assert [line for _, line in _recursive(**files)] == wanted


@pytest.mark.parametrize("text", APART.values(), ids=APART.keys())
def test_what_only_looks_like_recursion_is_left_alone(text: str) -> None:
    """When this fails, rule 1 takes one function for another."""
    assert _recursive(a=text) == []


@pytest.mark.parametrize(("files", "wanted"), OVER_MODULES.values(), ids=OVER_MODULES.keys())
def test_cycles_over_modules(files: dict[str, str], wanted: list[tuple[str, int]]) -> None:
    """When this fails, an import leads to the wrong file, or to none."""
    assert _recursive(**files) == wanted


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def f():\n" + "    x = 1\n" * 59, None),
        ("def f():\n" + "    x = 1\n" * 60, 61),
        ("def f():\n    '''a\n    b'''\n" + "    x = 1\n" * 59, None),
        ("def f(): 'doc'; x = [\n" + "1,\n" * 58 + "]\n", None),
        ("def f(): 'doc'; x = [\n" + "1,\n" * 59 + "]\n", 61),
        ("def f():\n    'doc'; x = [\n" + "1,\n" * 58 + "]\n", 61),
        ("@a\n@b\ndef f():\n" + "    x = 1\n" * 59, None),
        ("class A:\n  async   def f(self):\n" + "    x = 1\n" * 60, 61),
        ("def f():\r\n" + "    x = 1\r\n" * 60, 61),
        ("def f():\n    f'{x}'\n" + "    x = 1\n" * 59, 61),
    ],
)
def test_lines_of_a_function(text: str, lines: int | None) -> None:
    """When this fails, rule 4 counts other lines than it says."""
    found = [finding for finding in _findings(text) if finding.rule.startswith("P10-R4")]

    assert [finding.message.split()[2] for finding in found] == ([] if lines is None else [str(lines)])


def test_a_finding_points_at_the_name_in_code_points() -> None:
    """When this fails, editors jump to the wrong column behind letters outside of ASCII."""
    text = "class Ünï: é = 1; x = eval(1)\nasync  def größe():\n" + "    x = 1\n" * 60
    regions = {finding.rule: finding.region for finding in _findings(text)}
    call, function = regions["P10-R8-python-dynamic-code"], regions["P10-R4-python-function-length"]

    assert (call.start_line, call.start_column, call.end_column) == (1, 23, 27)
    assert (function.start_line, function.start_column, function.end_column) == (2, 12, 17)


def test_line_ends_of_old_machines_do_not_shift_findings() -> None:
    """When this fails, a lone carriage return, which ends a line for Python only, moves all findings after it."""
    (finding,) = _findings("x = 1\ry = 2\rz = eval(1)\n")

    assert (finding.region.start_line, finding.region.start_column) == (1, 17)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "+".join(["1"] * 50_000),
        "x = a" + ".b" * 50_000,
        "not " * 100_000 + "a",
        "(" * 300 + ")" * 300,
        "def f(:\n",
        "print 'two'\n",
        "x = 1\n" * 3000 + "\0",
        b"# coding: unicode_escape\nx = '\\ud800'\n",
    ],
    ids=range(8),
)
def test_what_python_does_not_read_is_an_answer_of_its_own(text: str | bytes) -> None:
    """When this fails, a hostile file stops the run, or counts as clean."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")

    with pytest.raises(Unparsable, match="parse-error") as caught:
        GROUP.check_file(parse(data, "python", "a.py"))
    assert caught.value.reason == "parse-error"


def test_whether_a_deep_file_is_read_does_not_hang_on_the_callers_stack() -> None:
    """When this fails, one worker analyses a file that another cannot, and the findings' digest differs."""
    text = "x = a" + ".b" * 2_950 + "\neval(1)\n"

    def deep(levels: int) -> list[int]:
        return _lines(text) if not levels else deep(levels - 1)

    with pytest.raises(RecursionError):
        _at_depth(800, lambda: ast.parse(text))
    assert deep(0) == deep(800) == [2]


def _at_depth(levels: int, call: object) -> object:
    return call() if not levels else _at_depth(levels - 1, call)  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n if a: pass\n" + " elif a: pass\n" * 1_500,
        "x = A()\n" + "x = x.g()\n" * 4_000,
        "x = a" + ".b()" * 900,
        "".join(f"def f{n}(): f{n + 1}()\n" for n in range(4_000)),
        "def f(): pass\n" * 3_000 + "f()\n" * 3_000,
        "import a\n" * 2_000 + "a.b()\n" * 2_000,
        "from a import *\n" * 500 + "b()\n" * 500,
        "class A:\n" + "    def f(self): self.f()\n" * 1_500,
        "def f():\n" + " with raises(E):\n  f()\n" * 10_000,
    ],
    ids=range(9),
)
def test_large_and_deep_files_take_no_longer_than_their_size_allows(text: str) -> None:
    """When this fails, one odd file takes minutes, since some step looks at all names for each name."""
    began = time.process_time()
    _recursive(a=text)

    assert time.process_time() - began < 3.0


CONSTRUCTS = """
import a.b as c, d
from .e import f as g
from h import *
@i(1, *a, k=2, **b)
class J(K, metaclass=L):
    m: int = 3
    n: str
def o(p, /, q: int = 1, *r, s=2, **t) -> int:
    'Doc'
    global u
    u = yield
    x = lambda y, *z: (y, [z], {y: 1, **z}, {y})
    return 1 if x and not y or -z < +y <= ~x is None is not 2 in z not in () else x[1:2, ::3, ...]
async def v(w):
    def inner():
        nonlocal w
        w += 1 - 2 * 3 / 4 // 5 % 6 ** 7 @ 8 << 9 >> 10 | 11 ^ 12 & 13
    async for i in w: await i
    else: pass
    async with w as j, w: del j.a, j[0]
    return [x async for x in w if x], {x for x in w}, {x: x for x in w}, (x for x in w)
for a, *b in c:
    if (d := a) != 1 == 2 > 3 >= 4: continue
    elif a: break
    while a: pass
with a as b: assert b, f"{a!r:>{b}} text"
try: raise A from None
except (A, B) as e: pass
except: raise
else: pass
finally: pass
try: yield from a
except* A: pass
match a:
    case True | None | 1 | 'b' | -1: pass
    case A.b | [1, *rest] | [*_]: pass
    case {'a': 1, **more} | C(1, d=2) as e: pass
    case _ if a: pass
"""
ABSTRACT = {
    "AST",
    "mod",
    "stmt",
    "expr",
    "pattern",
    "slice",
    "Index",
    "ExtSlice",
    "Suite",
    "AugLoad",
    "AugStore",
    "Param",
}
ELSEWHERE = {
    "Interactive",
    "Expression",
    "FunctionType",
    "TypeIgnore",
    "type_ignore",
    "Num",
    "Str",
    "Bytes",
    "NameConstant",
    "Ellipsis",
}


def test_every_construct_of_the_language_is_walked() -> None:
    """When this fails, a file that uses one construct is lost to all rules."""
    used = {type(node) for node in ast.walk(ast.parse(CONSTRUCTS))}
    known = {kind for kind in vars(ast).values() if isinstance(kind, type) and issubclass(kind, ast.AST)}
    missed = {kind.__name__ for kind in known - used if not kind.__subclasses__()} - ABSTRACT - ELSEWHERE

    assert not missed, "the text lacks a construct"
    assert "P10-R8-python-dynamic-code" in {finding.rule for finding in _findings(CONSTRUCTS)}


def test_odd_escapes_in_a_scanned_file_are_no_warnings_of_ours(recwarn: pytest.WarningsRecorder) -> None:
    """When this fails, a scan prints warnings about code that is not ours."""
    _findings("x = '\\d'\nassert (1, 'a')\n1 is 1\n")

    assert not recwarn.list


PIECES = st.sampled_from(
    [
        "eval(1)", "def f(self):", "class A(A):", "    ", "\t", "\n", "\r", "\r\n", "\x0c", "self.f()", "f()", "f = f",
        "x = f", "import f", "from . import f", "from .. import *", "from f import *", "global f", "nonlocal f",
        "lambda f: f()", "[f() for f in f]", "(f := eval)", "match f:", "case {**f}:", "del f", "é", "@f", ":", "pass",
        "getattr(f, 'eval')", "f.__dict__['exec']", "super().f()", "f'{f()}'", "'''", "async ", "await f()",
        "type(f, f, f)", "# coding: utf-7", "\ufeff", "\u2028", "f.f = f", "if f:", "else:", "try:", "except f as f:",
        "with f as f:",
    ]
)  # fmt: skip


@KNOWN
@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.lists(PIECES, max_size=30).map("\n".join), st.text()))
def test_any_text_gives_findings_or_is_unparsable(text: str) -> None:
    """When this fails, some text stops the run."""
    data = text.encode("utf-8", "surrogatepass")
    try:
        parsed = parse(data, "python", "a.py")
        report = GROUP.check_file(parsed)
    except Unparsable:
        return
    lines = parsed.source.count(b"\n") + 1
    facts = {fact: {"a.py": msgspec.msgpack.decode(packed)} for fact, packed in report.facts.items()}
    found = [*report.findings, *(finding for _, finding in GROUP.check_tree(facts))]

    assert report.understood == 1.0
    assert all(1 <= finding.region.start_line <= lines for finding in found)


@KNOWN
@given(
    st.binary(max_size=200).filter(lambda data: b"\0" not in data),
    st.sampled_from(["undefined", "idna", "punycode", "utf-7", "utf-16", "hex", "cp037", "zz"]),
)
def test_any_bytes_under_any_declared_encoding(data: bytes, encoding: str) -> None:
    """When this fails, a declared encoding that cannot be used stops the run."""
    parsed = parse(f"# coding: {encoding}\n".encode() + data, "python", "a.py")
    with contextlib.suppress(Unparsable):
        assert GROUP.check_file(parsed).understood == 1.0


CODE = st.lists(st.sampled_from([*REACHED.values(), *APART.values(), *(files["a"] for files, _ in RECURSIVE.values())]))


@KNOWN
@given(CODE.map("".join))
def test_a_line_put_above_moves_findings_by_one(text: str) -> None:
    """When this fails, positions hang on more than the text before them."""

    def everything(source: str) -> list[tuple[str, int, int]]:
        found = [*_findings(source)]
        report = GROUP.check_file(parse(source.encode(), "python", "a.py"))
        facts = {fact: {"a.py": msgspec.msgpack.decode(packed)} for fact, packed in report.facts.items()}
        found += [finding for _, finding in GROUP.check_tree(facts)]
        return sorted((item.rule, item.region.start_line, item.region.start_column) for item in found)

    assert everything("# above\n" + text) == [(rule, line + 1, column) for rule, line, column in everything(text)]


def test_a_file_that_was_looked_at_leaves_no_rings_behind() -> None:
    """When this fails, the trees of all files pile up until the collector comes, and it comes often."""
    text = "class A:\n    def f(self):\n        return [self.f() for _ in self.g(lambda: A())]\n" * 200
    gc.collect()
    with collector_paused():
        _recursive(a=text)
        assert not gc.isenabled()
        left = gc.collect()

    assert left < 100
    assert gc.isenabled()
