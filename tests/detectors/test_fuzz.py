"""A seeded sample of what `make prove` runs in full."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from detectors.model import Language
from tests.detectors.fuzz import made, mutated, problem_of

SAMPLE = 150


def test_mutated_files_get_one_answer_each() -> None:
    """When this fails, one odd file ends a night's run, or gives another digest each time."""
    for number, (name, language, data) in enumerate(mutated(7, SAMPLE)):
        assert problem_of(name, language, data) is None, (number, name, data[:200])


@settings(deadline=None, max_examples=SAMPLE, suppress_health_check=[HealthCheck.too_slow])
@given(made())
def test_made_up_files_get_one_answer_each(item: tuple[str, Language, bytes]) -> None:
    """When this fails, a file that nobody has seen yet ends a night's run."""
    assert problem_of(*item) is None
