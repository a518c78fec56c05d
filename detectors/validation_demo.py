"""
The validation: every installed claim tried on real work, its measured value beside its aim, and a verdict.

    python detectors/validation_demo.py [--sources DIR]... [--part PART]... [--json FILE] [--quick]

Basic function, overhead, compliance, benchmark, fault tolerance. Exits with 1 when any claim does not hold. What is
claimed of compliance stands above this room and is found through `detectors.ports`.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.errors import DetectorPoolError, UsageError
from detectors.file_work import here
from detectors.measurement import Environment, environment
from detectors.ports import Claim, Figure, Workplace, installed_claims

__all__ = ["PARTS", "ClaimVerdict", "Extent", "Validation", "main", "table", "validate"]

PARTS = ("basic function", "overhead", "benchmark", "fault tolerance", "compliance")
"""In the order in which they are tried: what is timed comes before what loads much."""
CLAIM_LIMIT_S = 300.0
"""A product that hangs must not hang its validation."""
MAX_WORDS = 400
WIDTH = 150


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is tried: files of each folder, seconds of one side of a timed pair, pairs."""

    files: int = 120
    side_s: float = 0.5
    pairs: int = 10


QUICK = Extent(files=24, side_s=0.2, pairs=4)


class ClaimVerdict(msgspec.Struct, frozen=True):
    """What trying one claim showed."""

    part: str
    title: str
    figures: tuple[Figure, ...]
    problem: str
    """What it ended with before its end; empty when it came there."""
    seconds: float

    @property
    def held(self) -> bool:
        """Whether something was measured, all of it meets its aim, and nothing went wrong."""
        return bool(self.figures) and not self.problem and all(figure.held for figure in self.figures)


class Validation(msgspec.Struct, frozen=True):
    """All claims that were tried."""

    environment: Environment
    verdicts: tuple[ClaimVerdict, ...]
    seconds: float

    @property
    def held(self) -> bool:
        """Whether every claim holds; where none was tried, nothing does."""
        return bool(self.verdicts) and all(verdict.held for verdict in self.verdicts)

    def shown(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        claims = []
        for verdict in self.verdicts:
            figures = [{**_plain(figure), "held": figure.held} for figure in verdict.figures]
            claims.append({**_plain(verdict), "held": verdict.held, "figures": figures})
        assert len(claims) == len(self.verdicts), "each claim has its verdict"
        return {"held": self.held, "seconds": self.seconds, "environment": _plain(self.environment), "claims": claims}


def validate(
    sources: Sequence[Path] = (),
    parts: Sequence[str] = PARTS,
    extent: Extent | None = None,
    *,
    cache: Path | None = None,
    told: Callable[[ClaimVerdict], None] | None = None,
) -> Validation:
    """
    Try every installed claim.

    Args:
        sources: Folders of real C and Python; what the interpreter brings when empty.
        parts: Of `PARTS`.
        extent: How much is tried.
        cache: Folder of a result cache that outlives the run.
        told: Called with each verdict as it is there.

    Raises:
        UsageError: A folder that is none, or an unknown part.
        ConfigurationError: No claims are installed.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts:
        raise UsageError(f"there is no part {', '.join(unknown)!r}; there are: {', '.join(PARTS)}")
    missing = [folder for folder in sources if not folder.is_dir()]
    if missing:
        raise UsageError(f"{missing[0]} is no folder of sources")
    much = extent or Extent()
    seen, clock = environment(), time.perf_counter()
    claims = sorted(
        (claim for claim in installed_claims() if claim.part in parts), key=lambda one: PARTS.index(one.part)
    )
    verdicts = []
    for claim in claims:
        with tempfile.TemporaryDirectory(prefix="claim-", ignore_cleanup_errors=True) as folder:
            workers = len(os.sched_getaffinity(0))
            place = Workplace(
                Path(folder), tuple(sources) or here(), workers, much.files, much.side_s, much.pairs, cache
            )
            verdict = tried(claim, place)
        verdicts.append(verdict)
        if told is not None:
            told(verdict)
    assert len(verdicts) == len(claims), "no claim is left out"
    return Validation(seen, tuple(verdicts), time.perf_counter() - clock)


def tried(claim: Claim, workplace: Workplace, limit_s: float = CLAIM_LIMIT_S) -> ClaimVerdict:
    """Try one claim in a thread of its own; held only if it came to its end in time, measured, and met its aims."""
    if not limit_s > 0:
        raise UsageError(f"a claim needs time, not {limit_s} s")
    figures: list[Figure] = []
    problems: list[str] = []
    clock = time.perf_counter()
    thread = threading.Thread(target=_measure, args=(claim, workplace, figures, problems), name="claim", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        problems.append(f"it did not end within {limit_s:g} s")
    verdict = ClaimVerdict(claim.part, claim.title, tuple(figures), "; ".join(problems), time.perf_counter() - clock)
    assert not verdict.held or verdict.figures, "what was not measured does not hold"
    return verdict


def _measure(claim: Claim, workplace: Workplace, figures: list[Figure], problems: list[str]) -> None:
    try:
        for figure in claim.measure(workplace):
            assert figure.what, "a figure says what it is of"
            figures.append(figure)
    except Exception as problem:  # a product that is broken may raise anything, and that is what is to be seen
        problems.append(f"it ended with {type(problem).__name__}: {problem}"[:MAX_WORDS])


def table(validation: Validation) -> str:
    """Return a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, title="Validation", title_justify="left", pad_edge=False)
    for name in ("part", "claim, figure", "measured", "aim", "verdict"):
        made.add_column(name, overflow="fold")
    for verdict in validation.verdicts:
        made.add_row(*map(Text, (verdict.part, verdict.title, f"{verdict.seconds:.1f} s", "", _word(verdict.held))))
        for figure in verdict.figures:
            aim = f"{figure.rule} {_number(figure.aim)} {figure.unit}" if _limits(figure) else "none"
            made.add_row("", *map(Text, (f"  {figure.what}", _measured(figure), aim, _word(figure.held))))
        if verdict.problem:
            made.add_row("", Text(f"  {verdict.problem}"), "", "", Text(_word(False)))
    held = sum(verdict.held for verdict in validation.verdicts)
    assert held <= len(validation.verdicts), "some of all"
    written = io.StringIO()
    console = Console(file=written, width=WIDTH, highlight=False, markup=False)
    console.print(made)
    console.print(
        f"{held} of {len(validation.verdicts)} claims hold, in {validation.seconds:.0f} s on "
        f"{validation.environment.told()}"
    )
    return written.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write JSON where asked; return 0 when every claim holds, 1 when not, else the error's code."""
    parser = argparse.ArgumentParser(prog="validation_demo", description="Try every claim on real work.")
    parser.add_argument("--sources", type=Path, action="append", default=[], help="folder of real C and Python")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; repeated for more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument("--quick", action="store_true", help="fewer files and pairs")
    asked = parser.parse_args(arguments)
    try:
        seen = validate(asked.sources, tuple(asked.part or PARTS), QUICK if asked.quick else None, told=_progress)
        if asked.json is not None:
            asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(seen.shown())) + b"\n")
    except DetectorPoolError as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    except OSError as problem:
        sys.stderr.write(f"{asked.json} cannot be written: {problem.strerror}\n")
        return UsageError.exit_code
    sys.stdout.write(table(seen))
    assert seen.verdicts, "where claims are installed, some were tried"
    return 0 if seen.held else 1


def _progress(verdict: ClaimVerdict) -> None:
    assert verdict.seconds >= 0, "it took time"
    sys.stderr.write(f"{_word(verdict.held):6} {verdict.part}: {verdict.title} ({verdict.seconds:.1f} s)\n")


def _plain(record: msgspec.Struct) -> Mapping[str, Any]:
    built = msgspec.to_builtins(record)
    assert isinstance(built, dict), "a record has named fields"
    return built


def _limits(figure: Figure) -> bool:
    """Tell whether the aim can be missed at all; what is shown only has none."""
    return abs(figure.aim) != float("inf")


def _measured(figure: Figure) -> str:
    told = f"{_number(figure.value)} {figure.unit}".rstrip()
    if figure.low is not None and figure.high is not None:
        assert figure.low <= figure.high, "an interval has two ends"
        told += f" (95 %: {_number(figure.low)} to {_number(figure.high)}; n = {figure.sample})"
    return told


def _number(value: float) -> str:
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) < 1_000 else f"{value:,.0f}"


def _word(held: bool) -> str:
    return "held" if held else "FAILED"


if __name__ == "__main__":
    sys.exit(main())
