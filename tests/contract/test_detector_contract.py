"""What holds for every detector, ours and a third party's."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detectors.detector import Detector, FileRule, Rule, RuleGroup, Tool, TreeRule, discover

DETECTORS = list(discover())
GROUPS = [detector for detector in DETECTORS if isinstance(detector, RuleGroup)]
RULES: list[FileRule | TreeRule] = [rule for group in GROUPS for rule in (*group.file_rules, *group.tree_rules)]
OURS = [rule for rule in RULES if type(rule).__module__.startswith("detectors.")]
LANGUAGES = {"c", "cpp", "python", "text", "binary"}

RULE = '''
from __future__ import annotations
from collections.abc import Iterator
from detectors.detector import FileRule
from detectors.model import Finding, Region
from detectors.parsing import ParsedFile

class {name}(FileRule):
    """
    The word `{word}`.

    Why: a reader trips over it.
    Instead: another word.
    Not found: the word in other cases.
    Source: the house.
    """

    id = "HOUSE-{word}"
    detector = "house-words"
    languages = frozenset({{"python"}})
    examples = ("pass\\n", "{word} = 1  # expect: HOUSE-{word}\\n")

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        for number, line in enumerate(parsed.text.split("\\n"), 1):
            if "{word}" in line:
                yield self.finding(Region(number), "{word}")
'''
LIST_RULES = """
import json
from detectors.detector import discover
from detectors.testing import check_detector
groups = {d.name: [r.id for r in d.rules()] for d in discover()}
for d in discover():
    for rule in getattr(d, "file_rules", ()):
        if rule.id.startswith("HOUSE-"):
            check_detector(type(rule))
print(json.dumps(groups))
"""


@pytest.fixture
def third_party(tmp_path: Path) -> Path:
    """A folder as `pip install` leaves it: a package with one rule, and its entry point."""
    package = tmp_path / "house_words"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shout.py").write_text(RULE.format(name="Shout", word="shout"))
    metadata = tmp_path / "house_words-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: house-words\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[detector_pool.detectors]\nhouse_words = house_words\n")
    return tmp_path


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_names_and_ids_are_unique() -> None:
    """When this fails, `--detectors` or a suppression means two things."""
    names, ids = [detector.name for detector in DETECTORS], [rule.id for rule in RULES]

    assert len(names) == len(set(names))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_a_detector_says_what_it_is_and_what_decides_its_results(detector: Detector) -> None:
    """When this fails, the cache cannot tell an old result from a new one, or nobody can select the detector."""
    code = list(detector.code_files())

    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", detector.name)
    assert detector.version
    assert detector.languages
    assert detector.languages <= LANGUAGES
    assert code
    assert all(path.is_file() for path in code)
    assert any(path.samefile(inspect.getfile(type(detector))) for path in code if path.suffix == ".py")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", detector.config_digest())
    assert detector.missing() is None or isinstance(detector, Tool)


@pytest.mark.parametrize("rule", OURS, ids=lambda rule: rule.id)
def test_a_rule_of_ours_is_named_after_the_paper_and_documented(rule: Rule) -> None:
    """When this fails, whoever matches on `P10-R<n>` misses a rule, or its page in the report is bare."""
    text = inspect.cleandoc(type(rule).__doc__ or "")

    assert re.fullmatch(r"P10-R(10|[1-9])-[a-z0-9]+(-[a-z0-9]+)*", rule.id)
    assert rule.level in ("error", "warning", "note")
    assert rule.record().summary.endswith((".", "`"))
    assert [part for part in ("Why:", "Instead:", "Not found:", "Source:") if f"\n{part}" not in text] == []
    assert rule.examples


def test_facts_that_tree_rules_need_exist() -> None:
    """When this fails, a tree rule is given nothing and finds nothing, which looks like a clean tree."""
    known = {fact.id for group in GROUPS for fact in group.facts}

    assert {need for group in GROUPS for rule in group.tree_rules for need in rule.needs} <= known


def test_adding_a_rule_is_one_file(third_party: Path) -> None:
    """When this fails, a newcomer has to touch a list, a settings key or another's module."""
    (third_party / "house_words" / "mumble.py").write_text(RULE.format(name="Mumble", word="mumble"))

    done = _python(third_party, "-c", LIST_RULES)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["house-words"] == ["HOUSE-mumble", "HOUSE-shout"]


@pytest.mark.parametrize("code", ["import no_such_library\n", "def broken(:\n", "raise RuntimeError('no')\n"])
def test_a_broken_module_of_a_third_party_stops_the_run_and_is_named(third_party: Path, code: str) -> None:
    """When this fails, a detector that cannot be loaded makes the tree look cleaner."""
    (third_party / "house_words" / "rotten.py").write_text(code)
    (third_party / "a.py").write_text("shout = 1\n")

    done = _python(third_party, "-m", "deployments.cli", "scan", "a.py", "--cache", "cache")

    assert done.returncode == 3, done.stdout
    assert "house_words.rotten" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_rules_with_one_id_stop_the_run(third_party: Path) -> None:
    """When this fails, one of two rules silently takes the other's place."""
    (third_party / "house_words" / "again.py").write_text(RULE.format(name="Again", word="shout"))

    done = _python(third_party, "-c", LIST_RULES)

    assert done.returncode != 0
    assert "HOUSE-shout" in done.stderr
    assert "already taken" in done.stderr
