"""The Power-of-Ten score of this project's own code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectors.benchmark_record import Figure, measured
from detectors.benchmark_work import Work
from detectors.dimension import BenchmarkFailed, Dimension, answer, command

__all__ = ["OwnScore"]

ROOMS = ("detectors", "compliance", "flows", "deployments")


class OwnScore(Dimension):
    """`detector-pool comply` on the four packages that are installed; every file is scored, so nothing is sampled."""

    name = "power-of-ten"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the score, and the strict one that counts what is suppressed."""
        house = Path(__file__).parents[2]
        trees = [house / room for room in ROOMS if (house / room).is_dir()]
        if len(trees) != len(ROOMS):
            raise BenchmarkFailed(f"not all of {', '.join(ROOMS)} lie in {house}")
        run = command("comply", *trees, "--no-controls", "--json", home=work.place("home-score"), codes=(0, 1))
        scored = answer(run)
        assert run.code in (0, 1), "it scored them"
        for name, key, words in (
            ("own-score", "score", "Power-of-Ten score of this project's own code"),
            ("own-strict-score", "strict_score", "the same, where what is suppressed counts"),
        ):
            if scored.get(key) is None:
                raise BenchmarkFailed(
                    "too few rules could be scored here (`detector-pool doctor` says what is missing)"
                )
            assert 0 <= scored[key] <= 100, "per cent"
            yield measured(name, self.name, words, [float(scored[key])], unit="%", better="higher")
