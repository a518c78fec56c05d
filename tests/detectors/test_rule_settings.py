"""Settings of the rules: read from where the operator says, refused with a hint, and followed by every rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detectors.errors import UsageError
from detectors.rule_settings import RuleSettings, read_settings, settings_from

LONG = "int f(int n)\n{\n" + "    n++;\n" * 20 + "    return n;\n}\n"


def test_a_pyproject_and_a_file_of_its_own_say_the_same(tmp_path: Path) -> None:
    """Both spellings are for people; neither may lose a key."""
    (tmp_path / "pyproject.toml").write_text('[tool.detector-pool]\nfunction-lines = 9\nselect = ["P10-R4"]\n')
    (tmp_path / "own.toml").write_text('function-lines = 9\nselect = ["P10-R4"]\n')

    wanted = RuleSettings(function_lines=9, select=("P10-R4",))
    assert read_settings(tmp_path / "pyproject.toml") == wanted
    assert read_settings(tmp_path / "own.toml") == wanted


def test_other_tools_tables_are_not_ours(tmp_path: Path) -> None:
    """A pyproject without our table changes nothing."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')

    assert read_settings(tmp_path / "pyproject.toml") == RuleSettings()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"function_lines": 3}, "did you mean 'function-lines'"),
        ({"asertions": []}, "did you mean 'assertions'"),
        ({"zzz": 1}, "known are function-lines"),
        ({"function-lines": "many"}, "Expected `int`"),
        ({"select": "P10-R4"}, "Expected `array`"),
        ({"function-lines": 0}, "at least 1, not 0"),
        ({"assertions-per-function": -1.0}, "at least 0, not -1.0"),
        ({"include-folders": ["include"]}, "absolute paths, not 'include'"),
    ],
)
def test_what_is_not_known_is_refused_with_a_hint(table: dict[str, Any], told: str) -> None:
    """A key that is silently ignored would be a limit that nobody keeps."""
    with pytest.raises(UsageError, match="here: ") as problem:
        settings_from(table, "here")
    assert told in str(problem.value)


def test_a_file_that_is_too_large_is_not_read_in_part(tmp_path: Path) -> None:
    """A limit behind the first megabyte would be left out without a word."""
    file = tmp_path / "own.toml"
    file.write_text(f"#{'.' * (1 << 20)}\nfunction-lines = 9\n")

    with pytest.raises(UsageError, match="larger than"):
        read_settings(file)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a = ", b"tool = 3\n", b"[tool]\ndetector-pool = 3\n"])
def test_a_file_that_is_no_configuration_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    """Junk is told, whatever it is."""
    file = tmp_path / "pyproject.toml"
    file.write_bytes(content)
    if content == b"tool = 3\n":
        assert read_settings(file) == RuleSettings()
        return
    with pytest.raises(UsageError):
        read_settings(file)
    with pytest.raises(UsageError):
        read_settings(tmp_path / "missing.toml")


def test_the_longest_prefix_decides() -> None:
    """One rule of a family can be taken back."""
    settings = RuleSettings(select=("P10-R1", "P10-R7-unread"), ignore=("P10-R1-goto", "P10-R7"))

    chosen = ("P10-R1-goto", "P10-R1-recursion", "P10-R7-unread-result", "P10-R7-x", "P10-R9-x")
    assert [settings.runs(rule) for rule in chosen] == [False, True, True, False, False]
    assert RuleSettings(ignore=("P10-R8",)).runs("P10-R2-x")


def test_a_scan_follows_them_and_caches_apart(scan_json: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The same tree under other settings is another question; the tree itself is not asked."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text(LONG)
    (tree / "pyproject.toml").write_text("[tool.detector-pool]\nfunction-lines = 10\n")
    own = tmp_path / "own.toml"
    own.write_text('function-lines = 10\nignore = ["P10-R5"]\n')

    def rules(*options: str | Path) -> list[str]:
        scanned = scan_json(
            tree, "--cache", tmp_path / "cache", "--detectors", "power-of-ten-c", "--fail-on", "never", *options
        )
        return sorted(finding["rule"] for finding in scanned["findings"])

    assert rules() == ["P10-R5-assertion-density"]
    assert rules("--config", own) == ["P10-R4-function-length"]
    assert rules("--trust-tree") == ["P10-R4-function-length", "P10-R5-assertion-density"]
    assert rules() == ["P10-R5-assertion-density"]
    assert json.dumps(rules("--config", own, "--cluster", "inline", "--workers", "2")) == '["P10-R4-function-length"]'
