"""The comparison with other tools: what they could see, and how findings are matched."""

import shutil
from pathlib import Path

import pytest

from benchmarks.differential import main
from benchmarks.peer_tools import Tree, ask, headers_of, preprocess

GCC = shutil.which("gcc")
SOURCE = b"""\
#include "shown.h"
#ifdef ELSEWHERE
int there(int n) { goto out; out: return n; }
#else
int here(int n) { goto out; out: return n; }
#endif
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return a tree with one source for this machine, one for another, and a header in a folder of its own."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "shown.h").write_bytes(b"int here(int n);\n")
    (tmp_path / "here.c").write_bytes(SOURCE)
    (tmp_path / "there.c").write_bytes(b"#include <no_such_header.h>\nint x;\n")
    return Tree(tmp_path, ())


def test_finds_the_folders_of_headers_in_the_tree() -> None:
    """When it fails, the tools are asked to compile without the tree's headers and read next to nothing."""
    sources = {
        "src/a.c": b'#include "own.h"\n#include <lib/api.h>\n# include <stdio.h>\n',
        "src/own.h": b"",
        "include/lib/api.h": b"",
    }

    assert headers_of(sources) == ("include",)


@pytest.mark.skipif(GCC is None, reason="needs gcc")
def test_code_that_is_not_compiled_is_not_seen(tree: Tree) -> None:
    """When it fails, findings in other platforms' branches are held against tools that never saw them."""
    assert GCC is not None
    compiled = preprocess(tree, GCC, 1)
    answers = ask(tree, "gcc", compiled, programs={"gcc": GCC}, jobs=1, most_bytes=1 << 20, seed=0)

    assert [path for path, _ in compiled.unread] == ["there.c"]
    assert answers.read == ("here.c",)
    assert 5 in answers.seen["here.c"]
    assert 3 not in answers.seen["here.c"]


def test_says_which_tools_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it fails, a machine without the tools gets a table of zeros that looks like agreement."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main([str(tmp_path)]) == 2
    assert "clang-tidy" in capsys.readouterr().err
