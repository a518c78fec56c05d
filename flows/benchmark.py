"""The flow `benchmark`: measure dimension by dimension, publish tables, plots and the trend."""

from __future__ import annotations

import base64
import contextvars
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.utilities.annotations import quote
from pydantic import Field

from detectors.benchmark_record import BenchmarkRun, history
from detectors.benchmark_report import number, plots_of
from detectors.comprehensive_benchmark import SuitePlan, chosen_dimensions, run_suite
from detectors.errors import DetectorPoolError
from detectors.ports import Progress
from flows.admission import admit_run

__all__ = ["FiguresMissed", "benchmark_flow", "run_benchmark_flow"]

DETECTORS = ("power-of-ten-c", "power-of-ten-python", "ruff", "flawfinder")
"""What the dimensions run; who may not run these may not benchmark."""
MAX_IMAGE_BYTES = 300_000
"""A larger artifact makes an event that the server may drop (1.5 MB)."""
TREND_RUNS = 20
_PROGRESS: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("progress", default=None)


class FiguresMissed(DetectorPoolError):
    """A figure misses its aim, or is worse than it was."""

    exit_code = 1

    def __init__(self, run: BenchmarkRun, problems: tuple[str, ...]) -> None:
        assert problems, "what is missed has a name"
        super().__init__("missed: " + "; ".join(problems))
        self.run, self.problems = run, problems


@task(name="measure", tags=["benchmark"], cache_policy=NO_CACHE, persist_result=False)
def measure(plan: SuitePlan, folder: Path, remembered: Path | None, progress: Progress | None) -> BenchmarkRun:
    """Measure; dimensions that an interrupted run has done in this folder are taken from there."""
    run = run_suite(plan, folder, remembered=remembered, progress=progress)
    assert run.figures or run.not_measured, "each dimension has figures, or says why not"
    assert set(run.seconds) == set(plan.dimensions), "none is passed over"
    for judgement in run.judgements():
        get_run_logger().info("%s: %s (%s)", judgement.aim.row, judgement.verdict, judgement.reason)
    return run


@task(name="publish", tags=["benchmark"], cache_policy=NO_CACHE, persist_result=False)
def publish(run: BenchmarkRun, remembered: Path | None, problems: tuple[str, ...]) -> None:
    """Make the artifacts: figures, aims, plots, and how the figures were in earlier runs."""
    figures = [
        {
            "dimension": one.dimension, "figure": one.name, "value": number(one.interval.estimate), "unit": one.unit,
            "from": number(one.interval.low), "to": number(one.interval.high), "samples": one.interval.samples,
        }
        for one in run.figures
    ]  # fmt: skip
    assert len(figures) == len(run.figures), "a row a figure"
    create_table_artifact(table=figures, key="benchmark-figures", description=run.environment.told())
    aims = [
        {"figure": one.aim.row, "aim": one.aim.aim, "verdict": one.verdict, "why": one.reason}
        for one in run.judgements()
    ]
    create_table_artifact(table=aims, key="benchmark-aims", description=_told(problems))
    assert all(row["verdict"] for row in aims), "each aim has a verdict"
    for name, data in plots_of(run).items():
        if len(data) <= MAX_IMAGE_BYTES:
            link = f"data:image/png;base64,{base64.b64encode(data).decode()}"
            create_image_artifact(image_url=link, key=f"benchmark-{name}", description=f"{name} of run {run.run}")
    create_markdown_artifact(
        markdown=f"# Benchmark\n\n{_told(problems)}\n\n{_trend(run, remembered)}", key="benchmark-summary"
    )


@flow(
    name="benchmark",
    flow_run_name="benchmark-{mode}",
    description="Measure every figure that is aimed at, on real work, and hold it against aim and history.",
    persist_result=False,
    validate_parameters=True,
)
def benchmark_flow(  # noqa: PLR0917  # p10: ignore[R10] Prefect: a field a parameter by the maintainers
    paths: Annotated[list[str], Field(min_length=1, max_length=1)],
    mode: Literal["quick", "full"] = "full",
    dimensions: list[str] | None = None,
    output: str | None = None,
    remembered: str | None = None,
    workers: Annotated[int | None, Field(ge=1)] = None,
    fail: bool = False,
    request: str | None = None,
) -> BenchmarkRun:
    """
    Measure every figure that is aimed at, on real work, and hold it against aim and history.

    Args:
        paths: The folder of the sources to measure on.
        mode: `quick`, or `full` for intervals as narrow as wanted, within an hour.
        dimensions: Only these.
        output: New folder of the result, or one in which a benchmark was stopped; a temporary one when absent.
        remembered: Folder of the history.
        workers: How many at once.
        fail: Whether a missed aim or a regression fails the run.
        request: What `detector-pool access request` printed, where an access policy asks for it; no secret.

    Raises:
        AccessDenied: Who asks for this run may not.
        FiguresMissed: After everything was published, where `fail` is set.
        DetectorPoolError: As `detectors.comprehensive_benchmark.run_suite`.
    """
    admit_run(benchmark_flow.fn, {**locals(), "detectors": DETECTORS})
    plan = SuitePlan(
        mode, chosen_dimensions(dimensions), str(Path(paths[0]).absolute()), workers or len(os.sched_getaffinity(0))
    )
    kept = Path(remembered) if remembered is not None else None
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        # Quoted, so that Prefect does not walk through them in search of futures.
        given: tuple[Any, ...] = tuple(map(quote, (plan, Path(output or scratch), kept, _PROGRESS.get())))
        run = measure(*given)
    assert run.mode == mode, "it did what it was asked"
    problems = _problems(run)
    published: tuple[Any, ...] = tuple(map(quote, (run, kept, problems)))
    publish(*published)
    if fail and problems:
        raise FiguresMissed(run, problems)
    return run


def run_benchmark_flow(
    sources: Path,
    *,
    mode: Literal["quick", "full"],
    dimensions: list[str] | None = None,
    output: Path | None = None,
    remembered: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> BenchmarkRun:
    """Run the flow in this process, against the server that `PREFECT_API_URL` names."""
    assert sources.is_dir(), "a benchmark has sources"
    assert workers is None or workers >= 1, "somebody does the work"
    token = _PROGRESS.set(progress)
    try:
        run = benchmark_flow(
            paths=[str(sources)], mode=mode, dimensions=dimensions, output=None if output is None else str(output),
            remembered=None if remembered is None else str(remembered), workers=workers,
        )  # fmt: skip
    finally:
        _PROGRESS.reset(token)
        # The server may end with this run; what was logged must be there before.
        APILogHandler().flush()
    assert isinstance(run, BenchmarkRun), "the flow returns what was measured"
    return run


def _problems(run: BenchmarkRun) -> tuple[str, ...]:
    missed = [f"{one.aim.row}: {one.reason}" for one in run.judgements() if one.verdict == "missed"]
    worse = [
        f"{one.figure} is worse than before ({number(one.now)}, was {number(one.before)})" for one in run.regressions
    ]
    assert all((*missed, *worse)), "a problem has words"
    assert len(worse) == len(run.regressions), "none is passed over"
    return (*missed, *worse)


def _told(problems: tuple[str, ...]) -> str:
    assert all(problems), "a problem has words"
    return "Every aim that was measured is met." if not problems else "MISSED: " + "; ".join(problems)


def _trend(run: BenchmarkRun, remembered: Path | None) -> str:
    """Return the figures of the last runs of this mode on such a machine as a Markdown table, oldest first."""
    if remembered is None:
        return "No history is kept."
    alike = [
        one for one in history(remembered) if (one.machine, one.mode) == (run.environment.fingerprint, run.mode)
    ][-TREND_RUNS:]  # fmt: skip
    assert len(alike) <= TREND_RUNS, "no more than are shown"
    assert all(one.mode == run.mode for one in alike), "only what may be compared"
    rows = ["| figure | " + " | ".join(one.time[:16] for one in alike) + " |", "|---" * (len(alike) + 1) + "|"]
    for figure in run.figures:
        cells = [number(one.figures[figure.name]) if figure.name in one.figures else "" for one in alike]
        rows.append(f"| {figure.name} ({figure.unit}) | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"
