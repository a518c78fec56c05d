"""What the pool's benchmark runs: importable, so that processes and Dask workers find it by name."""

from __future__ import annotations

import functools
import time

from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import Unparsable, parse

__all__ = ["calibrated", "findings_in", "nothing", "spin"]


def nothing(number: int = 0) -> int:
    """Return what it is given: what is left is the pool's own time."""
    return number


def spin(rounds: int) -> int:
    """Keep one processor busy for `rounds` steps, without memory and without the system."""
    value = 1
    for step in range(rounds):
        value = (value * 31 + step) & 0xFFFFFF
    return value


def calibrated(seconds: float) -> int:
    """Return the rounds of `spin` that take `seconds` of processor time here: the median of several tries."""
    probe = 200_000
    rates = []
    for _ in range(7):
        clock = time.thread_time()
        spin(probe)
        rates.append((time.thread_time() - clock) / probe)
    return max(1, round(seconds / sorted(rates)[len(rates) // 2]))


def findings_in(path: str, language: Language) -> int:
    """Read a file, run the rules of its language, and return the number of findings; -1 where it cannot be parsed."""
    with open(path, "rb") as file:  # noqa: PTH123  # a Path costs what is measured here
        data = file.read()
    try:
        report = _rules(language).check_file(parse(data, language, path.rpartition("/")[2]))
    except Unparsable:
        return -1
    return len(report.findings)


@functools.lru_cache(maxsize=4)
def _rules(language: Language) -> RuleGroup:
    group = discover()[f"power-of-ten-{language}"]
    assert isinstance(group, RuleGroup), "the rules are a group"
    return group
