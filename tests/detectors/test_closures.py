"""What a module's result depends on: too many files would run too much again, too few would keep what is stale."""

from __future__ import annotations

import ast
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.closures import Closure, ImportClosures, references
from detectors.model import Digest
from detectors.parsing import looks_binary

NAMES = st.sampled_from(["a", "b", "c", "imports", "x1", "_y", "é", "ﬁ"])


def _closures(sources: Mapping[str, str]) -> dict[str, Closure]:
    closures = ImportClosures(sources, lambda path: references(sources[path].encode(), "python"))
    return closures.of_all(dict.fromkeys(sources, "python"))


def _digests(sources: Mapping[str, str]) -> dict[str, str]:
    digests = {path: Digest(text) for path, text in sources.items()}
    return {path: closure.digest(digests) for path, closure in _closures(sources).items()}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            for alias in node.names:
                if alias.name != "*":
                    yield f"{base}{'' if base.endswith('.') else '.'}{alias.name}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a, b.c as d", {"a", "b.c"}),
        ("if x: import a; import b", {"a", "b"}),
        ("from.a import b", {".a", ".a.b"}),
        ("from . .a import(b)", {"..a", "..a.b"}),
        ("from .import b", {".", ".b"}),
        ("from a import (  # of (two)\n    b,  # the first\n    c as d,\n)", {"a", "a.b", "a.c"}),
        ("from a \\\n    import b", {"a", "a.b"}),
        ("import a . b", {"a.b"}),
        ("\fimport a\rimport b", {"a", "b"}),
        ("from a import *", {"a"}),
        ("# coding: latin-1\nimport \xe9", {"\xe9"}),
    ],
)
def test_reads_every_form_of_an_import(text: str, expected: set[str]) -> None:
    """An import that is overlooked leaves a stale result in the cache."""
    data = text.encode("latin-1" if "latin" in text else "utf-8")

    assert expected <= set(references(data, "python"))


@given(
    level=st.integers(0, 3),
    module=st.lists(NAMES, max_size=3),
    names=st.lists(NAMES, min_size=1, max_size=3),
    blank=st.sampled_from(["", " ", "\t", " \\\n"]),
    before=st.sampled_from(["", "pass; ", "if x: ", "try:\n    ", "class K:\n\t", "x = '''\n'''\n"]),
    brackets=st.sampled_from([("", ""), ("(", ")"), ("(\n  # why (\n", ",\n)")]),
)
def test_whatever_python_imports_is_a_reference(
    level: int, module: list[str], names: list[str], blank: str, before: str, brackets: tuple[str, str]
) -> None:
    """Python's own parser is the judge of what is imported."""
    dotted = f"{blank}.{blank}".join(module)
    text = f"import {dotted}{blank}, {names[0]}" if module and not level else ""
    if not text or len(names) > 1:
        dots = blank.join("." * level)
        listed = f",{blank}".join(names)
        text = f"from {dots}{blank}{dotted or ('' if level else 'a')} import{blank or ' '}{brackets[0]}{listed}{brackets[1]}"
    source = before + text + ("\nfinally: pass" if before.startswith("try") else "")

    assert set(_imported(ast.parse(source))) <= set(references(source.encode(), "python"))


def test_imports_of_published_modules_are_references() -> None:
    """Real code imports in ways that nobody thought of."""
    files = [file for file in sorted(Path(os.__file__).parent.rglob("*.py")) if "site-packages" not in file.parts]
    read = 0
    for file in itertools.islice(files, 0, None, 40):
        data = file.read_bytes()
        try:
            tree = ast.parse(data)
        except (SyntaxError, ValueError):
            continue
        assert looks_binary(data) or set(_imported(tree)) <= set(references(data, "python")), file
        read += 1
    assert read > 20


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14), st.integers(0, 6))
def test_an_edited_module_touches_exactly_those_that_reach_it(edges: list[tuple[int, int]], edited: int) -> None:
    """Fewer would keep stale results; more would make every edit a run over the tree."""
    imported = {number: {to for here, to in edges if here == number} for number in range(7)}
    sources = {
        f"m{number}.py": "".join(f"import m{to}\n" for to in sorted(imported[number])) or "\n" for number in range(7)
    }
    reaching = {edited}
    for _ in range(7):
        reaching |= {number for number in range(7) if imported[number] & reaching}
    before = _digests(sources)
    after = _digests({**sources, f"m{edited}.py": sources[f"m{edited}.py"] + "# edited\n"})

    changed = {path for path in sources if before[path] != after[path]}

    assert changed - {f"m{edited}.py"} == {f"m{number}.py" for number in reaching - {edited}}


@pytest.mark.parametrize(
    ("sources", "path", "expected"),
    [
        pytest.param(
            {"p/__init__.py": "", "p/q/r/m.py": "from . import n", "p/q/r/n.py": ""},
            "p/q/r/m.py",
            {"p/__init__.py", "p/q/r/n.py"},
            id="packages-above-a-folder-without-init",
        ),
        pytest.param({"m.py": "", "m.pyi": ""}, "m.py", {"m.pyi"}, id="its-stub"),
        pytest.param({"m.py": "", "m/__init__.py": ""}, "m.py", {"m/__init__.py"}, id="a-package-of-its-name"),
        pytest.param({"m.py": "import n", "n/b.py": "", "n/a.py": ""}, "m.py", {"n/a.py"}, id="a-folder-is-a-module"),
        pytest.param(
            {"m.py": "import n.b", "n/b.py": "", "n/a.py": ""}, "m.py", {"n/b.py"}, id="no-more-of-the-folder"
        ),
        pytest.param(
            {"m.py": "import n", "n.py": "", "n-stubs/__init__.pyi": ""},
            "m.py",
            {"n.py", "n-stubs/__init__.pyi"},
            id="stubs",
        ),
        pytest.param(
            {"src/p/__init__.py": "", "src/p/a.py": "", "tests/t.py": "import p.a"},
            "tests/t.py",
            {"src/p/__init__.py", "src/p/a.py"},
            id="a-package-below-src",
        ),
        pytest.param({"one/m.py": "import n", "one/n.py": "", "two/n.py": ""}, "one/m.py", {"one/n.py"}, id="a-script"),
        pytest.param({"m.py": "from ..... import x", "x.py": ""}, "m.py", set(), id="out-of-the-tree"),
    ],
)
def test_what_decides_the_meaning_of_an_import_is_in_the_closure(
    sources: dict[str, str], path: str, expected: set[str]
) -> None:
    """A file that changes what a name means must be shown to the tool, and be in the cache's key."""
    assert set(_closures(sources)[path].files) == expected
