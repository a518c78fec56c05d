"""What the pool's benchmark runs: importable, so that processes and Dask workers find it by name."""

from __future__ import annotations

import functools
import time
import zlib

from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import Unparsable, parse

__all__ = ["calibrated", "findings_in", "nothing", "spin"]


BLOCK = bytes(range(256)) * 8
"""Short enough that zlib keeps the interpreter's lock."""


def nothing(number: int = 0) -> int:
    """Return what it is given: what is left is the pool's own time."""
    return number


def spin(rounds: int) -> int:
    """
    Keep one processor busy for `rounds` checksums of 2 kB, holding the interpreter's lock.

    A loop of byte code would not do: equal processes run it at speeds up to 15 % apart, as their addresses fall, and
    these checksums within 2 %.
    """
    value = 1
    for _ in range(rounds):
        value = zlib.crc32(BLOCK, value)
    return value


def calibrated(seconds: float) -> int:
    """Return the rounds of `spin` that take `seconds` of processor time here: the median of several tries."""
    probe = 20_000
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
