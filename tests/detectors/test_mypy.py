"""mypy as a detector: what it says of a file hangs on the file and its closure, never on who else is asked about."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from detectors.closures import ImportClosures, references
from detectors.errors import ToolCrashed
from detectors.model import Completed, FileReport, NotAnalysed
from detectors.sandbox import analyse_in_context
from detectors.tools.mypy import Mypy

WRONG = 'x: int = ""\n'
TREE: dict[str, str | bytes] = {
    "pkg/__init__.py": "",
    "pkg/a.py": "from . import b\nfrom .bad import thing\nb.g(1)\nthing.attribute\nb.nothing\n",
    "pkg/a.pyi": WRONG,
    "pkg/b.py": "import third.party\n\n\ndef g(a: str) -> None: ...\n\n\nclass C(third.party.Base, frozen=True): ...\n",
    "pkg/bad.py": "def (:\n",
    "pkg/0001.py": "from . import b\nb.g(1)\n",
    "pkg/x.y.py": "from . import b\nb.g(1)\n",
    "pkg/deep/mod.py": "from ..b import g\ng(1)\n",
    "types.py": WRONG,
    "json/__init__.py": "from . import inner\ninner.nothing\n",
    "json/inner.py": WRONG,
    "uses.py": "import json\nimport types\nimport tools.tool\nimport tools\njson.loads(1)\ntools.tool.f('')\n",
    "tools/tool.py": "def f(a: int) -> int:\n    return a\n",
    "other/tool.py": WRONG,
    "we-ird/__init__.py": "",
    "we-ird/tool.py": WRONG,
    "latin.py": b'x = "\xe9"\n',
    "declared.py": b'# coding: latin-1\nx: int = "\xe9"\n',
    "hidden.py": b'# coding: utf-7\nx: int = ""  +ACM- type: ignore\n',
    "blocks.py": "def f() -> None:\n    pass\n\n\nreturn 1\n",
    "imports_it.py": "import blocks\nblocks.f(1)\n",
    "my folder/m.py": WRONG,
    "conftest.py": WRONG,
}
EXPECTED: dict[str, list[tuple[str, int]] | str] = {
    "pkg/__init__.py": [],
    "pkg/a.py": [("arg-type", 3), ("attr-defined", 5)],
    "pkg/a.pyi": [("assignment", 1)],
    "pkg/b.py": [],
    "pkg/bad.py": "parse-error",
    "pkg/0001.py": [("arg-type", 2)],
    "pkg/x.y.py": [("arg-type", 2)],
    "pkg/deep/mod.py": [("arg-type", 2)],
    "types.py": [("assignment", 1)],
    "json/__init__.py": [("attr-defined", 2)],
    "json/inner.py": [("assignment", 1)],
    "uses.py": [("arg-type", 5), ("arg-type", 6)],
    "tools/tool.py": [],
    "other/tool.py": [("assignment", 1)],
    "we-ird/__init__.py": [],
    "we-ird/tool.py": [("assignment", 1)],
    "latin.py": "parse-error",
    "declared.py": [("assignment", 2)],
    "hidden.py": "parse-error",
    "blocks.py": [("misc", 5)],
    "imports_it.py": [("call-arg", 2)],
    "my folder/m.py": [("assignment", 1)],
    "conftest.py": [("assignment", 1)],
}


def _bytes(sources: Mapping[str, str | bytes]) -> dict[str, bytes]:
    return {path: text if isinstance(text, bytes) else text.encode() for path, text in sources.items()}


def _analysed(sources: Mapping[str, bytes], asked: list[str]) -> dict[str, FileReport | NotAnalysed]:
    """Ask about some files of a tree as a scan would: with their closures, and nothing else of the tree."""
    closures = ImportClosures(sources, lambda path: references(sources[path], "python")).of_all(
        dict.fromkeys(sources, "python")
    )
    support = {file for path in asked for file in closures[path].files} - set(asked)
    return analyse_in_context(
        Mypy(),
        {path: sources[path] for path in asked},
        {path: sources[path] for path in support},
        {path: closures[path].context for path in asked},
    )


def _shown(answer: FileReport | NotAnalysed) -> list[tuple[str, int]] | str:
    if isinstance(answer, NotAnalysed):
        return answer.reason
    return [(finding.rule.removeprefix("mypy/"), finding.region.start_line) for finding in answer.findings]


@pytest.fixture(scope="module")
def together() -> dict[str, FileReport | NotAnalysed]:
    """Return the answers for the whole tree at once."""
    return _analysed(_bytes(TREE), sorted(TREE))


def test_each_file_of_a_difficult_tree_has_its_own_answer(together: dict[str, FileReport | NotAnalysed]) -> None:
    """Odd names, equal names, names of the standard library, syntax errors: none may cost a neighbour its answer."""
    assert {path: _shown(answer) for path, answer in together.items()} == EXPECTED


@pytest.mark.parametrize("path", ["pkg/a.py", "uses.py"])
def test_a_file_alone_is_told_what_it_is_told_in_a_batch(
    path: str, together: dict[str, FileReport | NotAnalysed]
) -> None:
    """A result that hangs on the batch would be wrong for the next one, since the cache keeps it."""
    assert _analysed(_bytes(TREE), [path])[path] == together[path]


MUTES = [
    (WRONG, False),
    ('x: int = ""  # type: ignore\n', True),
    ('x: int = ""  #type:ignore[assignment, misc]\n', True),
    ('x: int = ""  # type: ignore[misc]\n', False),
    ('x: int = ""  # noqa # type: ignore\n', True),
    ('x: int = (\n    ""  # type: ignore\n)\n', True),
    ('# type: ignore\nx: int = ""\n', True),
    ('y = 1\n# type: ignore\nx: int = ""\n', False),
    ('# mypy: ignore-errors\nx: int = ""\n', True),
    ('# mypy: ignore_errors=False\nx: int = ""\n', False),
    ('# mypy: disable-error-code="misc, assignment"\nx: int = ""\n', True),
    ('# mypy: disable-error-code=misc\nx: int = ""\n', False),
    ("# mypy: allow-untyped-defs\ndef f(a): ...\n", True),
    ('import typing\n@typing.no_type_check\ndef f(a: int) -> None:\n    x: int = ""\n', True),
]


def test_what_mutes_mypy_suppresses_openly() -> None:
    """The finding is still there, and says that the source asked for silence."""
    answers = _analysed(
        {f"m{number}.py": source.encode() for number, (source, _) in enumerate(MUTES)},
        list(map("m{}.py".format, range(len(MUTES)))),
    )

    for number, (source, expected) in enumerate(MUTES):
        answer = answers[f"m{number}.py"]
        assert isinstance(answer, FileReport)
        assert [finding.suppression is not None for finding in answer.findings] == [expected], source


def test_what_is_shown_has_the_length_of_what_is_there() -> None:
    """Columns and lines are counted in what mypy is shown."""
    source = b"# mypy: ignore-errors\n@no_type_check\ndef f(): ...  # type: ignore\n"

    assert len(Mypy().prepare(source)) == len(source)
    assert source.count(b"\n") == Mypy().prepare(source).count(b"\n")


def test_columns_are_of_code_points() -> None:
    """A region that is wrong points a reader, and a suppression, elsewhere."""
    answer = _analysed({"m.py": 'é = ("éé", 1); v: int = "é"\n'.encode()}, ["m.py"])["m.py"]

    assert isinstance(answer, FileReport)
    assert [(f.region.start_column, f.region.end_column) for f in answer.findings] == [(25, 28)]


def test_a_file_that_mypy_does_not_name_is_not_clean() -> None:
    """Only what mypy says that it checked was checked."""
    tool = Mypy()

    assert tool.parse(Completed(0, b'{"checked": ["a.py"]}\n', b"", 0.0), {"a.py": b"", "b.py": b""}) == {
        "a.py": FileReport()
    }
    with pytest.raises(ToolCrashed):
        tool.parse(Completed(1, b"", b"Traceback", 0.0), {"a.py": b""})
