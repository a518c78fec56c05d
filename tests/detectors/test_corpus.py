"""The made cases of tests/corpus: enough of them, readable, and no rule falls behind what it could do."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import pytest

from tests.corpus import evaluate

LEAST_CASES = 10
"""Of each rule, both verdicts together."""
EXPECTED: dict[str, dict[str, dict[str, float]]] = json.loads(evaluate.EXPECTED.read_text("utf-8"))
RULES = [f"P10-R{number}" for number in range(1, 11)]
FIGURES = [
    (language, rule, figure)
    for language, rules in EXPECTED.items()
    for rule, figures in rules.items()
    for figure in figures
]


@cache
def measured() -> dict[tuple[str, str], dict[str, object]]:
    """Return the figures of the made cases by language and rule."""
    rows = evaluate.Evaluation().rows()
    return {(str(row["language"]), str(row["rule"])): row for row in rows}


@pytest.mark.xdist_group("corpus")
@pytest.mark.parametrize(("language", "rule", "figure"), FIGURES)
def test_no_rule_falls_behind_what_it_could_do(language, rule, figure):
    """A change of a rule that finds fewer of the labelled violations, or reports more clean lines, was not noticed."""
    found = measured()[language, rule][figure]

    if found is None:
        pytest.skip("the tool that speaks for this rule is not here")
    assert found >= EXPECTED[language][rule][figure]


@pytest.mark.parametrize("language", [name for name in evaluate.LANGUAGES if evaluate.LANGUAGES[name] in EXPECTED])
def test_each_rule_has_cases_of_both_verdicts(language):
    """A rule with a handful of cases, or of one kind only, would have figures that say nothing."""
    cases = Counter((case.rule, case.verdict) for case in evaluate.made_cases(language))

    for rule in RULES:
        assert cases[rule, "violation"] + cases[rule, "clean"] >= LEAST_CASES
        assert cases[rule, "violation"]
        assert cases[rule, "clean"]


@pytest.mark.parametrize("language", evaluate.LANGUAGES)
def test_found_cases_are_in_order_and_once(language):
    """Two verdicts for one place would count twice, and a file out of order would make diffs unreadable."""
    places = [(case.package, case.file, case.line, case.rule) for case in evaluate.found_cases(language)]

    assert places == sorted(set(places))


def test_an_interval_holds_the_share_it_is_of():
    """The intervals shown beside the figures would be wrong (Wilson's of 8 of 10: 49 to 94 %)."""
    low, high = evaluate.wilson(8, 10)

    assert (round(low, 2), round(high, 2)) == (0.49, 0.94)
    assert evaluate.wilson(0, 0) is None
