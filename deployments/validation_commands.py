"""`detector-pool validate`: every claim of the project tried on real work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.options import Json

if TYPE_CHECKING:
    from detectors.validation_demo import ClaimVerdict

__all__ = ["VALIDATE_EXAMPLE", "validate_command"]

HOLDS, FAILS = 0, 1
VALIDATE_EXAMPLE = "Example: detector-pool validate --part 'fault tolerance' --json"


def validate_command(
    sources: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of real C and Python; what Python brings if none.")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="basic function, overhead, benchmark, fault tolerance or compliance; all when absent."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer files and timed pairs.")] = False,
    json: Json = False,
) -> None:
    """
    Try every claim on real work: measured value, aim, verdict.

    Exit codes: 0 every claim holds, 1 one does not, 2 usage, 3 internal failure.
    """
    from deployments.output import print_answer
    from deployments.settings import Settings
    from detectors.validation_demo import PARTS, QUICK, table, validate

    seen = validate(
        tuple(sources or ()), tuple(part or PARTS), QUICK if quick else None, cache=Settings.read().cache, told=_told
    )
    assert seen.verdicts, "an installation has claims"
    print_answer(seen.shown(), () if json else table(seen).splitlines(), json=json)
    raise typer.Exit(HOLDS if seen.held else FAILS)


def _told(verdict: ClaimVerdict) -> None:
    assert verdict.title, "a claim says what it is"
    assert verdict.seconds >= 0, "a trial takes time"
    word = "held" if verdict.held else "FAILED"
    _ = sys.stderr.write(f"{word:6} {verdict.part}: {verdict.title} ({verdict.seconds:.1f} s)\n")
