"""The tool with which rules are tested must itself fail when it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from detectors.detector import FileRule
from detectors.model import Finding, Language, Region
from detectors.parsing import ParsedFile
from detectors.testing import check_detector


class Word(FileRule):
    """
    The word bad.

    Why: it is bad.
    Instead: write good.
    Not found: worse.
    Source: none.
    """

    id = "TT-word"
    detector = "tests-of-testing"
    languages: frozenset[Language] = frozenset({"text"})
    examples = ("good\n", "good\nbad  # expect: TT-word\n")

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each line with the word."""
        for number, line in enumerate(parsed.text.split("\n"), 1):
            if "bad" in line:
                yield self.finding(Region(number), "bad")


def test_a_rule_that_does_what_it_says_passes() -> None:
    """Otherwise no rule could be tested."""
    check_detector(Word)


@pytest.mark.parametrize(
    ("examples", "told"),
    [
        (("good\n", "bad  # expect: TT-word\nbad\n"), "example 1"),
        (("good\n", "bad  # expect: TT-word\ngood  # expect: TT-word\n"), "example 1"),
        (("bad  # expect: TT-word\n",), "clean and a flagged"),
        (("good\n",), "clean and a flagged"),
    ],
    ids=["too many", "too few", "no clean", "no flagged"],
)
def test_neither_less_nor_more(examples: tuple[str, ...], told: str) -> None:
    """A rule that fires ten times too often, or never, must not pass."""
    mutant = type("Mutant", (Word,), {"examples": examples, "__doc__": Word.__doc__})

    with pytest.raises(AssertionError, match=told):
        check_detector(mutant)


def test_documentation_is_asked_for() -> None:
    """A rule that hides what it misses would be trusted too far."""
    mutant = type("Mutant", (Word,), {"__doc__": (Word.__doc__ or "").replace("Not found:", "Besides:")})

    with pytest.raises(AssertionError, match="Not found:"):
        check_detector(mutant)
