"""`detector-pool benchmark soak`: starts a soak in a mount namespace of its own, and writes its report."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.options import Json
from detectors.errors import DetectorPoolError, UsageError

if TYPE_CHECKING:
    from deployments.soak import SoakConfig, SoakReport

__all__ = ["SOAK_EXAMPLE", "run_apart", "soak_command"]

HOLDS, FAILS = 0, 1
NAMESPACES = (("--mount",), ("--user", "--map-root-user", "--mount"))
"""Of root, and of everybody else."""
GRACE_S = 900.0
"""Beyond its minutes, after which a soak that did not end is ended."""
SOAK_EXAMPLE = "Example: detector-pool benchmark soak --minutes 20 --output soak"


def soak_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    minutes: Annotated[float, typer.Option(help="For which faults are injected.")] = 20.0,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="Between faults.")] = 5.0,
    sources: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="Folder of real C and Python; what Python brings if none.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="NAME", help="Writes NAME.json and NAME.md, new files.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Of the pools and of the cluster.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the choice of work and victims.")] = 1,
    json: Json = False,
) -> None:
    """
    Put pools, scans and a Dask cluster under load while workers, tools and scheduler are killed, the disk fills and
    caches are damaged; check every answer.

    Exit codes: 0 all accepted work is right, 1 it is not, 2 usage, 3 internal failure.
    """
    import msgspec

    from deployments.output import print_answer, write_new
    from deployments.soak import SoakConfig, markdown

    if minutes <= 0 or every <= 0:
        raise UsageError(f"--minutes and --every take numbers above 0, not {minutes} and {every}")
    if workers < 1:
        raise UsageError(f"--workers takes a number from 1, not {workers}")
    files = [] if output is None else [output.with_name(f"{output.name}.{end}") for end in ("json", "md")]
    taken = [file for file in files if file.exists()]
    if taken:
        raise UsageError(f"{taken[0]} exists; name a new --output")
    named = tuple(map(str, sources or ()))  # relative ones hold: the soak runs in this process's folder
    report = run_apart(SoakConfig(minutes, every, named, workers=workers, seed=seed))
    encoded, page = msgspec.json.format(msgspec.json.encode(report)) + b"\n", markdown(report)
    for file, data in zip(files, (encoded, page.encode()), strict=False):
        write_new(file, data)
    assert page.endswith("\n"), "whole lines"
    print_answer({**msgspec.to_builtins(report), "held": report.held}, page.splitlines(), json=json)
    raise typer.Exit(HOLDS if report.held else FAILS)


def run_apart(config: SoakConfig) -> SoakReport:
    """
    Run a soak in a process of its own, with its mounts, and end all that it started with it.

    Args:
        config: Its folder is replaced by a temporary one.

    Raises:
        UsageError: This system has no mount namespaces.
        DetectorPoolError: The soak ended without a report.
    """
    import msgspec

    from deployments.soak import SoakReport

    unshare = shutil.which("unshare")
    if unshare is None:
        raise UsageError("a soak fills a disk of its own, and needs `unshare` (util-linux) for that")
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        asked, answer = place / "asked.json", place / "report.json"
        given = msgspec.structs.replace(config, folder=str(place / "work"))
        _ = asked.write_bytes(msgspec.json.encode(given))
        command = [unshare, *_namespaces(unshare), "--propagation", "private", "--fork", "--kill-child"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "deployments.soak", str(asked), str(answer)],
            stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False, timeout=config.minutes * 60 + GRACE_S,
        )  # fmt: skip
        if not answer.is_file():
            raise DetectorPoolError(f"the soak ended with {done.returncode} and without a report")
        report = msgspec.json.decode(answer.read_bytes(), type=SoakReport)
    assert report.held == (done.returncode == 0), "its exit code is its verdict"
    # Where it worked is gone, and is nobody's business.
    return msgspec.structs.replace(report, config=config)


def _namespaces(unshare: str) -> tuple[str, ...]:
    """Return the options with which this user may mount; raises UsageError where none does."""
    assert Path(unshare).is_absolute(), "it is looked up, and then run"
    for options in NAMESPACES:
        tried = subprocess.run([unshare, *options, "true"], capture_output=True, check=False, timeout=30)
        assert tried.returncode is not None, "it has ended"
        if tried.returncode == 0:
            return options
    raise UsageError("this user may not make a mount namespace, in which a soak fills a disk of its own")
