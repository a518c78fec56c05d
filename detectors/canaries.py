"""
Known violations that each batch must report: a detector that says nothing of one says nothing by its silence.

For each batch a token is made of the run's secret seed and the batch's name. It decides what a canary's file is called,
on which line its violation stands, and which rule of a group is tried; so nobody can prepare an answer before the run.
The seed's digest is recorded before the run (`commitment`), the seed itself in its record, and whoever has both can
make every canary again. Canaries live in the shadow copy of a tool, or in memory for rules: their answers are taken
out before anything is counted, stored or shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from detectors.model import FileReport, Language, NotAnalysed

__all__ = ["SEED_BYTES", "Canary", "Watch", "commitment", "laid", "name_of", "token_of"]

SUFFIXES: dict[Language, str] = {"c": "c", "cpp": "cpp", "python": "py", "text": "txt"}
COMMENTS: dict[Language, str] = {"c": "//", "cpp": "//", "python": "#", "text": "#"}
MOST_LINES = 16
"""Before the violation; a few bytes each."""
SEED_BYTES = 32


class Canary(msgspec.Struct, frozen=True):
    """A source that breaks one rule on one line."""

    name: str
    """Of its file in a shadow tree."""
    data: bytes
    rule: str
    line: int

    def heard(self, report: FileReport | NotAnalysed | None) -> bool:
        """Tell whether a detector's answer about it has the violation in its place."""
        assert self.line >= 1, "a violation stands on a line"
        if not isinstance(report, FileReport):
            return False
        return any(one.rule == self.rule and one.region.start_line == self.line for one in report.findings)


class Watch:
    """The canaries of one detector in one batch, and what became of them."""

    def __init__(self, detector: str, canaries: Iterable[Canary]) -> None:
        self.detector, self.canaries = detector, tuple(canaries)
        self.placed = self.missed = 0
        assert len({one.name for one in self.canaries}) == len(self.canaries), "each has a file of its own"

    def sources(self) -> dict[str, bytes]:
        """Return name to bytes."""
        made = {one.name: one.data for one in self.canaries}
        assert all(made.values()), "an empty file breaks no rule"
        return made

    def judge(self, answers: Mapping[str, FileReport | NotAnalysed]) -> tuple[str, ...]:
        """Count the canaries, and return for each that was not heard what is missing."""
        silent = [one for one in self.canaries if not one.heard(answers.get(one.name))]
        self.placed += len(self.canaries)
        self.missed += len(silent)
        assert self.missed <= self.placed, "what was missed was placed"
        return tuple(f"{one.rule} on line {one.line} of {one.name}" for one in silent)

    def distrusted(self, paths: Iterable[str], missing: Sequence[str]) -> dict[str, FileReport | NotAnalysed]:
        """Return the answers of a run whose canaries were missed: none of what it said counts."""
        assert missing, "a run is distrusted for a reason"
        told = f"{self.detector} did not report a known violation beside it: {missing[0]}"
        return {path: NotAnalysed(path, self.detector, "canary-missed", told) for path in paths}


def commitment(seed: bytes) -> str:
    """Return what may be told of a seed before the run: its sha256, hexadecimal."""
    assert len(seed) == SEED_BYTES, "a seed that could be guessed hides nothing"
    return hashlib.sha256(seed).hexdigest()


def token_of(seed: bytes, batch: str) -> str:
    """Return a batch's token: HMAC-SHA256 of its name under the seed (RFC 2104), hexadecimal."""
    assert len(seed) == SEED_BYTES, "a seed that could be guessed hides nothing"
    assert batch, "each batch has a name"
    return hmac.new(seed, batch.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def name_of(language: Language, token: str) -> str:
    """Return the file name of a canary: nothing about it says what it is."""
    assert language in SUFFIXES, "no detector reads what is not text"
    return f"m{token[:16]}.{SUFFIXES[language]}"


def laid(language: Language, token: str, rule: str, violation: str, at: int = 1) -> Canary:
    """
    Make a canary.

    Args:
        language: Of its source.
        token: See `token_of`.
        rule: The rule that is broken.
        violation: Source text.
        at: The line of it, from 1, on which the rule is broken.
    """
    if not 1 <= at <= violation.count("\n") + 1:
        raise ValueError(f"the violation has no line {at}")
    before = int(token[:2], 16) % MOST_LINES
    head = f"{COMMENTS[language]} {token[:12]}\n" * before
    return Canary(name_of(language, token), (head + violation + "\n").encode(), rule, before + at)
