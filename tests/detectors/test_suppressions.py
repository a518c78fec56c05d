"""Suppressions in the source: heard when good, told when not, and never a way to lose a finding."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.parsing import parse
from detectors.suppressions import applied, markers_of

TODAY = datetime.date(2026, 11, 24)
RAN = {"d": frozenset({"P10-R1-goto", "P10-R3-dynamic-memory", "P10-R10-x"})}


def markers(text: str, language: str = "c") -> list[tuple[int, tuple[str, ...], str, str, str, str]]:
    """Return (target, rules, reason, owner, until, problem) of each marker."""
    parsed = parse(text.encode(), language, "a.c")  # type: ignore[arg-type]
    return [(m.target, m.rules, m.reason, m.owner, m.until, m.problem) for m in markers_of(parsed)]


@pytest.mark.parametrize(
    ("text", "language", "target"),
    [
        ("goto a; /* p10: ignore[R1] why by who */\n", "c", 1),
        ("goto a; // p10: ignore[R1] why by who\n", "c", 1),
        ("/* p10: ignore[R1] why by who */ goto a;\n", "c", 1),
        ("// p10: ignore[R1] why by who\n\n// more\ngoto a;\n", "c", 4),
        ("/* p10: ignore[R1]\n * why by who\n */\ngoto a;\n", "c", 4),
        ("eval(a)  # p10: ignore[R1] why by who\n", "python", 1),
        ("def f():\n    # p10: ignore[R1] why by who\n    eval(a)\n", "python", 3),
    ],
)
def test_a_comment_speaks_of_its_line_or_the_next(text: str, language: str, target: int) -> None:
    """When this fails, a suppression hides its neighbour."""
    found = markers(text, language)
    assert [(item[0], item[1], item[5]) for item in found] == [(target, ("R1",), "")]
    assert found[0][3] == "who"


def test_all_parts_are_read() -> None:
    """The auditor asks who, why and how long."""
    text = "x; /* p10: ignore[R3, P10-R1-goto] taken by the start-up until 2027-01-31 by A. Person */\n"
    assert markers(text) == [(1, ("R3", "P10-R1-goto"), "taken by the start-up", "A. Person", "2027-01-31", "")]


@pytest.mark.parametrize(
    "text",
    [
        "// p10: ignore why by who",
        "// p10: ignore[] why by who",
        "// p10: ignore[R11] why by who",
        "// p10: ignore[ruff/F401] why by who",
        "// p10: ignore[R1] why",
        "// p10: ignore[R1] by who",
        "// p10: ignore[R1] why until soon by who",
        "// p10: ignore[R1] why until 2027-02-31 by who",
    ],
)
def test_what_lacks_a_part_has_no_effect_and_is_told(text: str) -> None:
    """Silence that nobody answers for is none."""
    assert markers(text + "\n")[0][5]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ('const char *s = "p10: ignore[R1] why by who";\n', "c"),
        ("s = 'p10: ignore[R1] why by who'\n", "python"),
        ("s = '''\n# p10: ignore[R1] why by who\n'''\n", "python"),
        ("// p10: each is entered once\n", "c"),
    ],
)
def test_what_is_no_comment_or_no_request_is_left_alone(text: str, language: str) -> None:
    """Texts are data, and remarks are remarks."""
    assert markers(text, language) == []


def heard(text: str, *rules: str) -> list[tuple[str, bool]]:
    """Return (rule, whether suppressed) for findings of `rules` on line 1."""
    from detectors.model import Finding, Region

    found = [("a.c", "d", Finding(rule, "warning", "m", Region(1))) for rule in rules]
    listed = {("a.c", "d"): markers_of(parse(text.encode(), "c", "a.c"))}
    return sorted((f.rule, f.suppression is not None) for _, _, f in applied(found, listed, TODAY, RAN, {}))


def test_what_it_names_is_marked_and_the_rest_is_not() -> None:
    """R1 is not R10."""
    text = "x; // p10: ignore[R1] why by who\n"
    assert heard(text, "P10-R1-goto", "P10-R10-x") == [("P10-R1-goto", True), ("P10-R10-x", False)]


def test_a_date_is_good_through_its_day() -> None:
    """The day after, the finding is back, and says why."""
    assert heard("x; // p10: ignore[R1] why until 2026-11-24 by who\n", "P10-R1-goto") == [("P10-R1-goto", True)]
    assert heard("x; // p10: ignore[R1] why until 2026-11-23 by who\n", "P10-R1-goto") == [
        ("P10-R1-goto", False),
        ("P10-suppression-expired", False),
    ]


def test_what_suppresses_nothing_is_a_finding() -> None:
    """It would hide the next one; but a rule that did not run says nothing."""
    assert heard("x; // p10: ignore[R1] why by who\n") == [("P10-suppression-unused", False)]
    assert heard("x; // p10: ignore[R2] why by who\n") == []


@given(st.text(max_size=200))
def test_no_finding_is_lost_whatever_the_comment_says(text: str) -> None:
    """N in, N out."""
    rules = [
        rule
        for rule, _ in heard("x; // p10: ignore" + "".join(text.split("\0")).replace("\n", " ") + "\n", "P10-R1-goto")
    ]
    assert rules.count("P10-R1-goto") == 1


def test_a_scan_keeps_them_from_the_gate_and_in_the_evidence(pool_command: Callable[..., Any], tmp_path: Path) -> None:
    """A rule over the whole tree is heard too, from the cache as well."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text(
        "/* p10: ignore[R1] bounded by the depth of the tree by A. Person */\n"
        "int down(int n)\n{\n    assert(n);\n    assert(n > 0);\n    return n > 1 ? down(n - 1) : 0;\n}\n"
    )
    base = (
        "scan", tree, "--cache", tmp_path / "cache", "--detectors", "power-of-ten-c", "--fail-on", "note",
    )  # fmt: skip
    for _ in range(2):
        done = pool_command(*base, "--json")
        found = json.loads(done.stdout)["findings"]
        assert [(item["rule"], item["suppressed"]) for item in found] == [("P10-R1-recursion", True)]
        assert done.returncode == 0
    sarif = json.loads(pool_command(*base, "--format", "sarif").stdout)
    told = sarif["runs"][0]["results"][0]["suppressions"][0]
    assert (told["justification"], told["properties"]["owner"]) == ("bounded by the depth of the tree", "A. Person")
