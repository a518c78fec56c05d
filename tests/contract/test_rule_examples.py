"""Every rule is held against its own examples."""

from __future__ import annotations

import pytest

from detectors.detector import Rule, RuleGroup, discover
from detectors.testing import check_detector

RULES = [
    type(rule)
    for group in discover()
    if isinstance(group, RuleGroup)
    for rule in (*group.file_rules, *group.tree_rules)
]


@pytest.mark.parametrize("rule", RULES, ids=[rule.id for rule in RULES])
def test_finds_what_its_examples_say_and_no_more(rule: type[Rule]) -> None:
    """An `expect:` mark is a finding on its line; a line without one has none."""
    check_detector(rule)
