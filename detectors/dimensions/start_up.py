"""How long commands take that do little: what a user waits for an interpreter, imports and a first look."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from detectors.benchmark_record import Figure, seen
from detectors.benchmark_work import RULES, Work
from detectors.dimension import Dimension, command
from detectors.measurement import series

__all__ = ["StartUp"]

MOST_RUNS = 40


class StartUp(Dimension):
    """`--version`, `detectors list`, a warm scan of ten files; beside them an interpreter that does nothing."""

    name = "start-up"
    share = 1.5

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield seconds by command."""
        tree, home = work.tree("ten", 10), work.place("home-start")
        scan = ("scan", tree, "--detectors", ",".join(RULES), "--fail-on", "never", "--json")
        assert tree.is_dir(), "there is something to scan"
        listed = ("detectors", "list", "--json")
        commands = (
            ("start-python", "an interpreter that does nothing", partial(_seconds, home, "-c", "pass", python=True)),
            ("start-version", "`detector-pool --version`", partial(_seconds, home, "--version")),
            ("start-list", "`detector-pool detectors list --json`", partial(_seconds, home, *listed)),
            ("start-scan", "`detector-pool scan` of ten files, warm", partial(_seconds, home, *scan)),
        )
        for name, words, run in commands:
            found = series(run, half_width=0.05, budget_s=work.budget_s / len(commands), most_runs=MOST_RUNS)
            assert found.mean.estimate > 0, "a process takes time"
            yield seen(name, self.name, words, found, unit="s")


def _seconds(home: Path, *words: str | Path, python: bool = False) -> float:
    assert words, "a command has words"
    run = command(*words, home=home, program=sys.executable if python else None)
    assert run.code == 0, "it did what it was asked"
    return run.seconds
