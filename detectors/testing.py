"""`check_detector`: test a rule by the examples in its class, in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from detectors.detector import Facts, FileRule, Rule, RuleGroup, TreeRule, discover
from detectors.model import Language
from detectors.parsing import parse

__all__ = ["check_detector", "expected", "reported"]

EXPECT = re.compile(r"expect: (\S+)")
FILE = re.compile(r"^(?://|#) file: (\S+)\s*$", re.MULTILINE)
SECTIONS = ("Why:", "Instead:", "Not found:", "Source:")
SUFFIXES: dict[str, Language] = {"c": "c", "h": "c", "cpp": "cpp", "hpp": "cpp", "py": "python"}
NAMES: dict[Language, str] = {"c": "example.c", "cpp": "example.cpp", "python": "example.py", "text": "example.txt"}


def check_detector(rule: type[Rule]) -> None:
    """
    Hold a rule against its own examples and documentation.

    Raises:
        AssertionError: A finding too many or too few, a section that is missing, or no example of both kinds.
    """
    text = inspect.cleandoc(rule.__doc__ or "")
    assert text, f"{rule.id}: a rule's docstring is its documentation"
    for section in SECTIONS:
        assert f"\n{section}" in text, f"{rule.id}: the docstring has no paragraph {section!r}"
    kinds = {bool(expected(example, rule)) for example in rule.examples}
    assert kinds == {True, False}, f"{rule.id}: there must be a clean and a flagged example"
    for number, example in enumerate(rule.examples):
        wanted, found = expected(example, rule), reported(example, rule)
        assert wanted == found, f"{rule.id}, example {number}: expected {wanted}, found {found}"


def expected(example: str, rule: type[Rule]) -> list[tuple[str, int]]:
    """Return the (file, line) of each `expect:` mark of the rule, sorted."""
    return sorted(
        (name, number)
        for name, source in _files(example, rule)
        for number, line in enumerate(source.split("\n"), 1)
        for rule_id in EXPECT.findall(line)
        if rule_id == rule.id
    )


def reported(example: str, rule: type[Rule]) -> list[tuple[str, int]]:
    """Run the rule on an example, and return the (file, line) of its findings, sorted."""
    found: list[tuple[str, int]] = []
    facts: dict[str, dict[str, Any]] = {}
    collectors = _facts(rule)
    for name, source in _files(example, rule):
        parsed = parse(source.encode(), SUFFIXES.get(name.rpartition(".")[2], "text"), name.rpartition("/")[2])
        if issubclass(rule, FileRule):
            found += [(name, finding.region.start_line) for finding in rule().check(parsed)]
        for collector in collectors:
            packed = msgspec.msgpack.encode(collector.collect(parsed))
            facts.setdefault(collector.id, {})[name] = msgspec.msgpack.decode(packed, type=collector.shape)
    if issubclass(rule, TreeRule):
        found += [(path, finding.region.start_line) for path, finding in rule().check_tree(facts)]
    return sorted(found)


def _facts(rule: type[Rule]) -> list[Facts]:
    needs = getattr(rule, "needs", ())
    groups = [detector for detector in discover() if isinstance(detector, RuleGroup)]
    found = [fact for group in groups for fact in group.facts if fact.id in needs]
    assert {fact.id for fact in found} == set(needs), f"{rule.id}: it needs facts that no class collects: {needs}"
    return found


def _files(example: str, rule: type[Rule]) -> Iterator[tuple[str, str]]:
    assert rule.languages, f"{rule.id}: it reads no language"
    if FILE.search(example) is None:
        yield NAMES.get(min(rule.languages), "example.txt"), example
        return
    parts = FILE.split(example)
    assert not parts[0].strip(), f"{rule.id}: text before the first `file:` is in no file"
    yield from zip(parts[1::2], parts[2::2], strict=True)
