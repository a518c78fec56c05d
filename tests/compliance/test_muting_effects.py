"""What a tree would mute if it were obeyed: each kind of thing is shown by a run, and nothing of the tree is run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compliance.formats import immunity
from compliance.muting_effects import with_effects
from detectors.detector import discover
from detectors.errors import UsageError
from detectors.model import MutingEffect, RunRecord
from detectors.scan import ScanOptions, scan

PYTHON = """\
import os  # noqa
import subprocess


def f(x):  # type: ignore
    return subprocess.call(x, shell=True)  # nosec
key = "AKIAIOSFODNN7EXAMPLQ"  # pragma: allowlist secret
"""
C = """\
#include <string.h>
void g(char *to, const char *from)
{
    strcpy(to, from); /* Flawfinder: ignore */
}
#pragma GCC diagnostic ignored "-Wfloat-equal"
int h(double a) { return a == 1.0; }
int k(int a) { return a == a; } // NOLINT
int j(int n) { if (n) { goto out; } /* p10: ignore[R1] for a test by a tester */ out: return n; }
"""
TOOLS = ("bandit", "clang-tidy", "compiler-warnings", "detect-secrets", "flawfinder", "mypy", "power-of-ten-c", "ruff")
Shown = dict[tuple[str, str], list[tuple[str, int, str]]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that mutes each tool by a comment, and some by files."""
    folder = tmp_path / "tree"
    (folder / "hidden").mkdir(parents=True)
    (folder / "a.py").write_text(PYTHON)
    (folder / "a.c").write_text(C)
    (folder / "hidden" / "x.py").write_text("import sys\n")
    return folder


def _effects(tree: Path, tools: tuple[str, ...] = TOOLS, **changes: Any) -> tuple[RunRecord, tuple[MutingEffect, ...]]:
    options = dataclasses.replace(ScanOptions((tree,), tools, "inline", 2), **changes)
    run = with_effects(scan(options), options)
    assert run.effects is not None
    return run, run.effects


def _shown(effects: tuple[MutingEffect, ...]) -> Shown:
    return {
        (one.kind, one.detector): [(item.path, item.line, item.rule) for item in one.muted]
        for one in effects
        if one.state == "shown"
    }


def test_each_comment_is_shown_by_what_its_own_tool_does_with_it(tree: Path) -> None:
    """What a marker mutes is not guessed from its text: the tool is run once more, and hears it."""
    run, effects = _effects(tree)

    assert _shown(effects) == {
        ("markers", "bandit"): [("a.py", 6, "bandit/B602")],
        ("markers", "clang-tidy"): [("a.c", 8, "clang-tidy/misc-redundant-expression")],
        ("markers", "compiler-warnings"): [("a.c", 7, "compiler-warnings/float-equal")],
        ("markers", "detect-secrets"): [("a.py", 7, "detect-secrets/aws-access-key")],
        ("markers", "flawfinder"): [("a.c", 4, "flawfinder/strcpy")],
        ("markers", "mypy"): [("a.py", 5, "mypy/no-untyped-def")],
        ("markers", "power-of-ten-c"): [("a.c", 9, "P10-R1-goto")],
        ("markers", "ruff"): [("a.py", 1, "ruff/F401")],
    }
    found = {(item.path, item.finding.region.start_line, item.finding.rule) for item in run.findings}
    assert all(set(muted) <= found for muted in _shown(effects).values()), "the scan itself is not muted"


def test_files_that_configure_or_hide_are_shown(tree: Path) -> None:
    """A configuration that mutes is obeyed in a run of its own; what an ignore file hides is analysed beside the run."""
    (tree / "ruff.toml").write_text('[lint]\nignore = ["F401"]\n')
    (tree / ".bandit").write_text("[bandit]\nskips = B404\n")
    (tree / ".gitignore").write_text("# made\nhidden/\n")
    (tree / "a.py").write_text("import os\nimport subprocess\n")
    _, effects = _effects(tree, ("bandit", "ruff"))

    assert _shown(effects) == {
        ("configuration", "bandit"): [("a.py", 2, "bandit/B404")],
        ("configuration", "ruff"): [("a.py", 1, "ruff/F401"), ("a.py", 2, "ruff/F401")],
        ("ignore-files", ""): [("hidden/x.py", 1, "ruff/F401")],
    }
    (hides,) = (one for one in effects if one.kind == "ignore-files")
    assert hides.things == (".gitignore:2: hidden/",)


def test_a_configuration_that_excludes_everything_mutes_everything(tree: Path) -> None:
    """A file that the tool passes over is the widest muting of all, and no failure of the tool."""
    (tree / "pyproject.toml").write_text('[tool.ruff]\nexclude = ["**"]\n')
    (tree / "a.py").write_text("import os\n")
    _, effects = _effects(tree, ("ruff",))

    all_ = [("a.py", 1, "ruff/F401"), ("hidden/x.py", 1, "ruff/F401")]
    assert _shown(effects) == {("configuration", "ruff"): all_}
    (tree / "pyproject.toml").write_text('[tool.other]\nname = "x"\n')
    assert _shown(_effects(tree, ("ruff",))[1]) == {("configuration", "ruff"): []}


def test_what_can_run_code_is_told_and_never_run(tree: Path, tmp_path: Path) -> None:
    """To show the effect of a plugin one would have to let it run: it is listed instead."""
    marker = tmp_path / "executed"
    evil = f"import pathlib\npathlib.Path({str(marker)!r}).write_text('ran')\n"
    (tree / "evil.py").write_text(evil + "def plugin(version):\n    raise SystemExit\n")
    (tree / "conftest.py").write_text(evil)
    (tree / "sitecustomize.py").write_text(evil)
    (tree / "mypy.ini").write_text("[mypy]\nignore_errors = True\nplugins = ./evil.py\n")
    (tree / "pyproject.toml").write_text('[tool.mypy]\nplugins = ["./evil.py"]\n')
    (tree / ".clang-tidy").write_text("Checks: '-*'\nExtraArgs: ['-fplugin=./x.so']\n")
    (tree / "compile_commands.json").write_text("[]")
    (tree / ".secrets.baseline").write_text('{"plugins_used": [{"name": "X", "path": "file://evil.py"}]}')
    _, effects = _effects(tree)
    listed = {(one.detector, thing) for one in effects if one.state == "never-run" for thing in one.things}

    assert not marker.exists()
    assert {
        ("mypy", "mypy.ini"), ("mypy", "pyproject.toml"), ("mypy", "conftest.py"), ("bandit", "sitecustomize.py"),
        ("clang-tidy", ".clang-tidy"), ("clang-tidy", "compile_commands.json"), ("detect-secrets", ".secrets.baseline"),
    } <= listed  # fmt: skip
    assert all(one.told and not one.muted for one in effects if one.state == "never-run")


def test_a_configuration_that_breaks_its_tool_is_not_called_harmless(tree: Path) -> None:
    """No finding is counted as muted, and none as left, where the tool could not be run with the file."""
    (tree / "ruff.toml").write_text("this is no toml =\n")
    _, effects = _effects(tree, ("ruff",))
    (one,) = (effect for effect in effects if effect.kind == "configuration")

    assert (one.state, one.muted) == ("not-shown", ())
    assert "ruff" in one.told


def test_a_file_that_was_changed_since_shows_nothing(tree: Path) -> None:
    """Other bytes than the run's would show the effect of something else."""
    options = ScanOptions((tree,), ("ruff",), "inline", 1)
    run = scan(options)
    (tree / "a.py").write_text("x = 1  # noqa\n")
    effects = with_effects(run, options).effects or ()

    assert [(one.kind, one.state) for one in effects] == [("markers", "not-shown")]


def test_no_tool_obeys_what_it_was_not_made_safe_for() -> None:
    """Whoever asks for a run that could execute the tree gets an error, and no run."""
    for name, kind, files in (
        ("mypy", "configuration", {"mypy.ini": b""}),
        ("ruff", "configuration", {"conftest.py": b""}),
        ("bandit", "configuration", {"setup.cfg": b""}),
    ):
        with pytest.raises(UsageError):
            discover()[name].obeying(kind, files)  # type: ignore[attr-defined]  # these are tools
    assert all(not getattr(detector, "hears", None) for detector in discover())


def test_the_command_prints_it_and_the_evidence_keeps_it(
    pool_command: Callable[..., Any], tree: Path, tmp_path: Path
) -> None:
    """Who asked sees it, and who gets the evidence finds it signed; a run that was not asked does not claim it."""
    arguments = (tree, "--detectors", "ruff", "--fail-on", "never", "--evidence")
    done = pool_command("scan", *arguments, tmp_path / "asked", "--show-effect")
    assert done.returncode == 0, done.stderr
    assert b"what the tree would mute, if it were obeyed (1):" in done.stdout
    assert b"markers for ruff (a.py): 1 findings\n    a.py:1: ruff/F401" in done.stdout
    assert pool_command("scan", *arguments, tmp_path / "plain").returncode == 0
    told = json.loads((tmp_path / "asked" / immunity.NAME).read_bytes())
    assert told["effects"] == [
        {
            "kind": "markers", "detector": "ruff", "things": ["a.py"], "state": "shown", "told": "",
            "muted": [["a.py", 1, "ruff/F401"]],
        }
    ]  # fmt: skip
    assert json.loads((tmp_path / "plain" / immunity.NAME).read_bytes())["effects"] is None
    refused = pool_command("scan", *arguments, tmp_path / "late", "--show-effect", "--deadline", "1h")
    assert (refused.returncode, b"--show-effect" in refused.stderr) == (2, True)
