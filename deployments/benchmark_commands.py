"""`detector-pool benchmark`: measure, print the tables, keep samples and history."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.options import Json
from deployments.output import plain, print_answer
from detectors.errors import UsageError

if TYPE_CHECKING:
    from detectors.benchmark_record import BenchmarkRun

__all__ = ["BENCHMARK_EXAMPLE", "benchmark_app", "fetched_sources", "lines_of", "run_benchmark_command", "shown_run"]

MET, MISSED = 0, 1
SOURCES = Path(".demo/sources")
BENCHMARK_EXAMPLE = "Example: detector-pool benchmark --quick --output benchmark/tonight"
PEERS_S, GROWTH_S = 480.0, 3_000.0
PEERS = ("pre-commit==4.7.0", "codechecker==6.29.1")

benchmark_app = typer.Typer(invoke_without_command=True)

Sources = Annotated[
    Path, typer.Option(metavar="DIR", help="Trees to measure on; without it the pinned ones, fetched as by the demo.")
]
Output = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the result; one in which a benchmark was stopped goes on.")
]
Quick = Annotated[bool, typer.Option("--quick", help="All dimensions in a few minutes; the default.")]
Full = Annotated[bool, typer.Option("--full", help="All dimensions, long enough for the wanted intervals.")]
Dimensions = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only these; may be repeated.", show_default=False)
]
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="How many at once; the processors when absent.")]
Table = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table to this Markdown file, too.")]


@benchmark_app.callback(epilog=BENCHMARK_EXAMPLE)
def benchmark_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    context: typer.Context,
    quick: Quick = False,
    full: Full = False,
    dimension: Dimensions = None,
    sources: Sources = SOURCES,
    output: Output = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """
    Measure every figure that is aimed at, on real work, and hold it against aim and history.

    Each dimension that is done is kept: a benchmark that was stopped goes on where it was, in the same folder.
    Exit codes: 0 every aim that was measured is met, 1 one is missed or a figure worse than before, 2 usage.
    """
    if context.invoked_subcommand is not None:
        return
    if quick and full:
        raise UsageError("--quick and --full exclude each other; give one of them")
    run, folder = _ran("full" if full else "quick", dimension, sources, output=output, workers=workers)
    assert run.figures or run.not_measured, "a benchmark says something of each dimension"
    print_answer(shown_run(run), [*lines_of(run), f"report: {folder / 'report.html'}"], json=json)
    missed = any(one.verdict == "missed" for one in run.judgements())
    raise typer.Exit(MISSED if missed or run.regressions else MET)


def run_benchmark_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    quick: Quick = False,
    full: Full = False,
    dimension: Dimensions = None,
    sources: Sources = SOURCES,
    output: Output = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """
    Measure every figure that is aimed at, as a Prefect flow; tables, plots and the trend become artifacts.

    Exit codes: 0 every aim that was measured is met, 1 one is missed or a figure worse than before, 2 usage.
    """
    from deployments.prefect_server import run_server
    from deployments.settings import Settings

    if quick and full:
        raise UsageError("--quick and --full exclude each other; give one of them")
    settings = Settings.read()
    found = fetched_sources(sources).absolute()
    with run_server(settings.prefect):
        from flows.benchmark import run_benchmark_flow

        run = run_benchmark_flow(
            found, mode="full" if full else "quick", dimensions=dimension, output=output, workers=workers,
            remembered=settings.state / "benchmark", progress=_tell,
        )  # fmt: skip
    assert run.figures or run.not_measured, "a benchmark says something of each dimension"
    print_answer(shown_run(run), lines_of(run), json=json)
    missed = any(one.verdict == "missed" for one in run.judgements())
    raise typer.Exit(MISSED if missed or run.regressions else MET)


@benchmark_app.command("peers", epilog="Example: detector-pool benchmark peers --install --table docs/benchmarks.md")
def peers_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    sources: Sources = SOURCES,
    output: Output = None,
    workers: Workers = None,
    table: Table = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install pre-commit and CodeChecker for it, from your package index.")
    ] = False,
    json: Json = False,
) -> None:
    """
    Run the same tools by other means, by turns, in some ten minutes: alone, xargs, processes, dask.bag, pre-commit.

    Exit codes: 0 measured, 2 usage, 3 a peer did not do its work.
    """
    from detectors.dimensions.peers import peers_table

    if install:
        _install_peers()
    run, folder = _ran("full", ("peers",), sources, output=output, workers=workers, budget_s=PEERS_S)
    text = peers_table(run)
    assert text.endswith("\n"), "whole lines"
    if table is not None:
        _into(table, "peers", text)
    print_answer(shown_run(run), [*text.splitlines(), f"report: {folder / 'report.html'}"], json=json)


@benchmark_app.command("growth", epilog="Example: detector-pool benchmark growth --files 1000 --files 100000")
def growth_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    files: Annotated[
        list[int] | None, typer.Option(metavar="N", min=100, help="Sizes, two at least.", show_default="1000, 10000")
    ] = None,
    sources: Sources = SOURCES,
    output: Output = None,
    workers: Workers = None,
    table: Table = None,
    json: Json = False,
) -> None:
    """
    Scan trees of more and more files, grown from real ones: time, memory, store, fitted exponents.

    Exit codes: 0 measured, 2 usage, 3 a scan did not do its work.
    """
    from detectors.dimensions.growth import growth_table

    sizes = tuple(files or (1_000, 10_000))
    if len(set(sizes)) < 2:
        raise UsageError("growth is between two sizes at least; repeat --files")
    run, folder = _ran(
        "full", ("growth",), sources, output=output, workers=workers, budget_s=GROWTH_S, sizes=sizes
    )  # fmt: skip
    text = growth_table(run)
    assert text.endswith("\n"), "whole lines"
    if table is not None:
        _into(table, "growth", text)
    print_answer(shown_run(run), [*text.splitlines(), f"report: {folder / 'report.html'}"], json=json)


def _install_peers() -> None:
    """Make an environment for programs that we are compared with, and put it on the path of this process."""
    import os
    import subprocess

    from deployments.settings import Settings

    place = Settings.read().state / "benchmark" / "peers"
    python = place / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(place)], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise UsageError(f"no environment can be made in {place}: {made.stderr.strip()[-300:]}")
    for peer in PEERS:
        _say(f"installing {peer}")
        words = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            _say(f"{peer} does not install here: {done.stderr.strip()[-300:]}")
    os.environ["PATH"] = f"{place / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    assert python.exists(), "the environment is there"
    assert os.environ["PATH"].startswith(str(place)), "its programs are found first"


def _into(file: Path, marker: str, text: str) -> None:
    """Put a table between its marks in a Markdown file; at the end of one that has none, or is not there."""
    first, last = f"<!-- {marker} -->\n", f"<!-- end of {marker} -->\n"
    try:
        before = file.read_text("utf-8") if file.exists() else ""
        head, found, rest = before.partition(first)
        tail = rest.partition(last)[2] if found else ""
        size = file.write_text(f"{head}{first}{text}{last}{tail}", "utf-8")
    except OSError as problem:
        raise UsageError(f"--table {file} cannot be written: {problem.strerror}") from problem
    assert marker, "a table has a name"
    assert size > len(text), "marks stand around it"


def _ran(
    mode: str,
    names: Sequence[str] | None,
    sources: Path,
    *,
    output: Path | None,
    workers: int | None,
    budget_s: float = 0.0,
    sizes: tuple[int, ...] = (),
) -> tuple[BenchmarkRun, Path]:
    """Run a suite in a folder, and return the folder in which its result lies."""
    import hashlib
    import os

    from deployments.settings import Settings
    from detectors.comprehensive_benchmark import SuitePlan, chosen_dimensions, run_suite

    settings = Settings.read()
    plan = SuitePlan(
        mode, chosen_dimensions(names), str(fetched_sources(sources).absolute()),
        workers or len(os.sched_getaffinity(0)), budget_s=budget_s, sizes=sizes,
    )  # fmt: skip
    kept = settings.state / "benchmark"
    digest = hashlib.sha256(repr(plan).encode()).hexdigest()[:8]
    folder = output or kept / "runs" / f"unfinished-{mode}-{digest}"
    run = run_suite(plan, folder, remembered=kept, progress=_tell)
    if output is None:
        moment = run.environment.time.replace(":", "").partition("+")[0]
        finished = folder.with_name(f"{moment}-{run.run[:8]}")
        folder = folder.rename(finished)
    assert folder.is_dir(), "the result lies in it"
    assert run.mode == mode, "it did what it was asked"
    return run, folder


def fetched_sources(sources: Path) -> Path:
    """
    Return the folder of the sources; the pinned ones are fetched where the default folder is not there yet.

    Raises:
        UsageError: There is no such folder, or they cannot be fetched.
    """
    if sources.is_dir():
        return sources
    house = Path(__file__).parents[1]
    pins, fetch = house / "demo" / "sources.json", house / "demo" / "fetch_source.py"
    if sources != SOURCES or not pins.is_file():
        raise UsageError(f"there is no folder {sources}; name one with sources by --sources")
    import json
    import subprocess

    for name in json.loads(pins.read_bytes()):
        _say(f"fetching {name}")
        command = [sys.executable, str(fetch), str(pins), str(name), str(sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UsageError(f"{done.stderr.strip()} (or name a folder by --sources)")
    assert sources.is_dir(), "what was fetched lies there"
    assert any(sources.iterdir()), "and is something"
    return sources


def shown_run(run: BenchmarkRun) -> dict[str, Any]:
    """Return a run as the one JSON object: samples and intervals of every figure, every aim with its verdict."""
    import msgspec

    shown: dict[str, Any] = msgspec.to_builtins(run)
    assert "figures" in shown, "it is an object"
    assert len(shown["figures"]) == len(run.figures), "every figure is in it"
    return {**shown, "aims": msgspec.to_builtins(run.judgements())}


def lines_of(run: BenchmarkRun) -> Iterator[str]:
    """Yield the tables of a run: every figure, then every aim."""
    from detectors.benchmark_report import number

    yield run.environment.told() + f", {run.load_average_after:.1f} at the end"
    for figure in run.figures:
        of = figure.interval
        noise = f"; equals {number(figure.noise.low)} to {number(figure.noise.high)}" if figure.noise else ""
        remarks = "".join(
            f"; {words}"
            for words, so in (
                ("never steady", not figure.steady), ("fewer pairs than wanted", figure.limited),
                (f"{figure.far_out} far out", figure.far_out > 0),
            )
            if so
        )  # fmt: skip
        yield (
            f"{figure.dimension:15} {figure.name:24} {number(of.estimate):>10} {figure.unit:10} "
            f"[{number(of.low)}, {number(of.high)}] n={of.samples}{noise}{remarks}"
        )
    for name, why in run.not_measured.items():
        yield f"{name:15} not measured: {why}"
    judgements = run.judgements()
    assert judgements, "the specification has figures"
    assert all(one.reason for one in judgements), "a verdict has a reason"
    for one in judgements:
        value = f" {number(one.interval.estimate)}" if one.interval else ""
        yield f"{one.verdict.upper():13} {one.aim.row} (aim: {one.aim.aim}):{value} {one.reason}"
    for worse in run.regressions:
        yield f"WORSE         {worse.figure}: {number(worse.now)}, before {number(worse.before)} ({worse.runs} runs)"
    yield f"held against {run.held_against} earlier runs of this mode on such a machine"


def _tell(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total, "some of all"
    assert stage, "a stage has a name"
    _say(f"{stage} ({min(done + 1, total)} of {total})")


def _say(message: str) -> None:
    assert message, "there is something to say"
    _ = sys.stderr.write(f"{plain(message)}\n")
    sys.stderr.flush()
