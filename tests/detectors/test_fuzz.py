"""A seeded sample of what `make prove` runs in full."""

from __future__ import annotations

from tests.detectors.fuzz import mutated, problem_of

SAMPLE = 150


def test_mutated_files_get_one_answer_each() -> None:
    """When this fails, one odd file ends a night's run, or gives another digest each time."""
    for number, (name, language, data) in enumerate(mutated(7, SAMPLE)):
        assert problem_of(name, language, data) is None, (number, name, data[:200])
