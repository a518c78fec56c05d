"""What several tools report of one cause is shown once, and none of it is lost."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from compliance.same_cause import shared_causes
from detectors import findings
from detectors.model import Finding, LocatedFinding, Region

RULES = {
    "ruff/S307": "ruff", "bandit/B307": "bandit", "P10-R8-python-dynamic-code": "power-of-ten-python",
    "import:x/r": "import:x", "ruff/E501": "ruff", "bandit/B102": "bandit",
}  # fmt: skip


def located(*found: tuple[str, int, str]) -> tuple[LocatedFinding, ...]:
    return findings.settle((path, RULES[rule], Finding(rule, "note", "m", Region(line))) for path, line, rule in found)[
        0
    ]


def shown(*found: tuple[str, int, str]) -> set[tuple[str, ...]]:
    return {
        (cause.first.finding.rule, *(item.finding.rule for item in cause.also))
        for cause in shared_causes(located(*found))
    }


def test_one_cause_of_three_tools_is_shown_once() -> None:
    """Ruff's S307 is bandit's B307, and answers the question that our own rule asks."""
    assert shown(("a", 1, "ruff/S307"), ("a", 1, "bandit/B307")) == {("bandit/B307", "ruff/S307")}
    assert shown(("a", 1, "P10-R8-python-dynamic-code"), ("a", 1, "bandit/B307")) == {
        ("P10-R8-python-dynamic-code", "bandit/B307")
    }


def test_another_line_another_meaning_and_two_of_one_tool_stay_apart() -> None:
    """Where it is not known that the cause is one, two findings are two."""
    assert len(shown(("a", 1, "ruff/S307"), ("a", 2, "bandit/B307"))) == 2
    assert len(shown(("a", 1, "ruff/S307"), ("b", 1, "bandit/B307"))) == 2
    assert len(shown(("a", 1, "ruff/E501"), ("a", 1, "bandit/B307"))) == 2
    assert len(shown(("a", 1, "bandit/B102"), ("a", 1, "bandit/B307"))) == 2


def test_what_counts_is_not_hidden_behind_what_does_not() -> None:
    """A new finding behind an old one of the same cause would pass the eye."""
    first, second = located(("a", 1, "ruff/S307"), ("a", 1, "bandit/B307"))
    assert len(shared_causes((msgspec.structs.replace(first, baseline="unchanged"), second))) == 2
    louder = msgspec.structs.replace(second, finding=msgspec.structs.replace(second.finding, level="error"))
    (cause,) = shared_causes((first, louder))
    assert cause.others() == (f"{second.finding.rule} (error)",)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.sampled_from(sorted(RULES))), max_size=20))
def test_none_is_lost_and_none_is_doubled(found: list[tuple[str, int, str]]) -> None:
    """N findings in, N out, whatever they are."""
    given_ = located(*found)
    causes = shared_causes(given_)

    assert sorted([x.fingerprint for c in causes for x in (c.first, *c.also)]) == sorted(x.fingerprint for x in given_)
