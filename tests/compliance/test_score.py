"""The Power-of-Ten score: who is counted, what is violated, and when there is no score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compliance.score import score_of
from detectors.model import FunctionSpan, RunRecord
from detectors.scan import Scan, ScanOptions

TWO_FUNCTIONS = """\
#include <assert.h>
int good(int n)
{
    assert(n > 0);
    assert(n < 9);
    return n;
}
int bad(int n)
{
    assert(n > 0);
    assert(n < 9);
    while (more(n)) { n++; }
    goto out;
out:
    return n;
}
"""


def scored(tree: Path, detectors: tuple[str, ...] = ("power-of-ten-c", "power-of-ten-python")) -> Any:
    """Scan a tree and return its score and the run."""
    import msgspec

    with Scan(ScanOptions(paths=(tree,), detectors=detectors)) as scan:
        run = scan.run()
        found = {**scan.facts("c-functions"), **scan.facts("python-functions")}
    return score_of(run, msgspec.convert(found, dict[str, tuple[FunctionSpan, ...]])), run


def test_a_rule_counts_functions_and_top_levels_once_each(tmp_path: Path) -> None:
    """Two findings in one function are one violation."""
    (tmp_path / "a.c").write_text(TWO_FUNCTIONS)

    score, _ = scored(tmp_path)

    assert (score.rules["R1"].checked, score.rules["R1"].violations) == (3, 1)
    assert (score.rules["R2"].checked, score.rules["R2"].violations) == (3, 1)
    assert (score.rules["R4"].checked, score.rules["R4"].score) == (2, 100.0)
    assert (score.rules["R5"].checked, score.rules["R5"].score) == (1, 100.0)
    assert score.rules["R1"].score == pytest.approx(200 / 3)


def test_the_score_is_the_mean_of_what_was_scored(tmp_path: Path) -> None:
    """Rule 10 has no answer without its tools: it is named and left out."""
    (tmp_path / "a.c").write_text(TWO_FUNCTIONS)

    score, _ = scored(tmp_path)

    known = [rule.score for rule in score.rules.values() if rule.score is not None]
    assert len(known) == 9
    assert score.score == pytest.approx(sum(known) / 9)
    assert score.rules["R10"].score is None
    assert "compiler-warnings" in score.rules["R10"].problem


def test_nothing_to_check_is_no_score(tmp_path: Path) -> None:
    """An empty tree is not a clean one."""
    (tmp_path / "notes.txt").write_text("goto\n")

    score, _ = scored(tmp_path)

    assert score.score is None
    assert {rule.problem for name, rule in score.rules.items() if name != "R10"} == {"nothing to check"}


def test_a_suppressed_finding_counts_in_the_strict_score_only(tmp_path: Path) -> None:
    """What was excused is still there."""
    import msgspec

    from detectors.model import Suppression

    (tmp_path / "a.c").write_text(TWO_FUNCTIONS)
    _, run = scored(tmp_path)
    excused = tuple(
        msgspec.structs.replace(
            found, finding=msgspec.structs.replace(found.finding, suppression=Suppression("by hand"))
        )
        for found in run.findings
    )
    spans = {"a.c": (FunctionSpan("good", 2, 7), FunctionSpan("bad", 8, 16))}
    score = score_of(msgspec.structs.replace(run, findings=excused), spans)

    assert score.rules["R1"].score == 100.0
    assert score.rules["R1"].strict_score == pytest.approx(200 / 3)
    assert score.strict_score < score.score


def test_a_finding_belongs_to_the_innermost_function(tmp_path: Path) -> None:
    """A nested function's fault is its own."""
    (tmp_path / "a.py").write_text(
        "def outer(n):\n    def inner(m):\n        while m():\n            pass\n        return m\n    return inner(n)\n"
    )
    score, run = scored(tmp_path)
    assert isinstance(run, RunRecord)

    assert (score.rules["R2"].checked, score.rules["R2"].violations) == (3, 1)


def test_the_command_prints_the_score_and_keeps_its_exit_codes(
    pool_command: Callable[..., Any], tmp_path: Path
) -> None:
    """A gate in CI hangs on these."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.c").write_text(TWO_FUNCTIONS)
    base = ("comply", tmp_path / "tree", "--cache", tmp_path / "cache", "--no-controls")

    plain = pool_command(*base)
    assert plain.returncode == 0, plain.stderr
    assert b"R10" in plain.stdout
    assert b"score " in plain.stdout
    machine = pool_command(*base, "--json", "--fail-under", "99.9")
    assert machine.returncode == 1
    told = json.loads(machine.stdout)
    assert told["controls"] == []
    assert told["rules"]["R1"]["violations"] == 1
    assert pool_command(*base, "--fail-under", "50").returncode == 0
    assert pool_command("comply", tmp_path / "missing").returncode == 2


def test_the_command_asks_those_that_speak_for_rule_ten(pool_command: Callable[..., Any], tmp_path: Path) -> None:
    """Without ruff and mypy there is no score of rule 10 for Python."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "kept.py").write_text("def kept(n: int) -> int:\n    return n\n")
    (tmp_path / "tree" / "broken.py").write_text("import kept\n\nkept.kept('')\n")

    told = json.loads(
        pool_command("comply", tmp_path / "tree", "--cache", tmp_path / "cache", "--json", "--no-controls").stdout
    )

    assert (told["rules"]["R10"]["checked"], told["rules"]["R10"]["violations"]) == (2, 1)
