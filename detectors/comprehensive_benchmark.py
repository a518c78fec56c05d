"""
Benchmarks of a pool and its detectors, and the suite over all dimensions.

    benchmark = ComprehensiveBenchmark(pool)
    results = benchmark.run_comprehensive_suite(detector_configs)
    benchmark.generate_performance_report(Path("report.html"))

How things are measured stands in `detectors.measurement`; what a figure is, in `detectors.benchmark_record`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.benchmark_record import (
    BenchmarkRun,
    Figure,
    Frame,
    compared,
    history,
    measured,
    regressions,
    remember,
    write_samples,
)
from detectors.benchmark_work import Work
from detectors.dimension import BenchmarkFailed, checked, find_dimensions, timed
from detectors.errors import DetectorPoolError, UsageError
from detectors.measurement import compare, environment, mean_interval, quantile_interval, steady_from
from detectors.ports import Progress
from detectors.registration import Registration

if TYPE_CHECKING:
    from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
    from detectors.load_test import LoadTestConfig, LoadTestResult

__all__ = ["MODES", "ComprehensiveBenchmark", "SuitePlan", "chosen_dimensions", "report_files", "run_suite"]

Inputs = Sequence[tuple[tuple[Any, ...], Mapping[str, Any]]]
PILOT = 12
LEAST_SAMPLES = 8
COMPARED_S = 10.0
MODES = {"quick": 150.0, "full": 2_400.0}
"""Seconds that the dimensions share; least numbers of runs may make it more on a slow machine."""
PLAN, CHECKPOINTS, RESULT = "plan.json", "checkpoints", "benchmark.json"


class ComprehensiveBenchmark:
    """
    Measures one pool, with the detectors that are registered in it.

    Args:
        pool: Open; it is measured as it is configured.
        folder: Where the history of suites is kept; `None` for none.
        budget_s: What one comparison may take; least numbers of pairs may make it more.

    Raises:
        UsageError: The pool is closed, or there is no time.
    """

    def __init__(
        self, pool: EnterpriseDetectorPool, *, folder: Path | None = None, budget_s: float = COMPARED_S
    ) -> None:
        if not budget_s > 0:
            raise UsageError(f"a comparison takes some time, not {budget_s} s")
        if pool.closed:
            raise UsageError("the pool is closed; benchmark it inside its `with` block")
        self._pool, self._folder, self._budget_s = pool, folder, budget_s
        self._environment = environment()
        self._figures: dict[str, Figure] = {}
        self._seconds: dict[str, float] = {}

    def run_single_detector_benchmark(
        self, detector_name: str, sample_size: int, *, inputs: Inputs | None = None
    ) -> tuple[Figure, ...]:
        """
        Measure one detector, one execution after another.

        Args:
            detector_name: A registered name.
            sample_size: Executions, at least 8; a pilot of 12 more comes first.
            inputs: (args, kwargs) each, taken in turn; the detector's registered corpus when absent.

        Returns:
            Mean, median and 99th percentile of its latency in seconds, the share answered from the cache, and the
            pool's time over that of bare calls.

        Raises:
            UnknownDetector: It is not registered.
            UsageError: Too few samples, or neither inputs nor a registered corpus: there is nothing to measure.
            BenchmarkFailed: An execution fails.
        """
        if sample_size < LEAST_SAMPLES:
            raise UsageError(f"an interval needs at least {LEAST_SAMPLES} samples, not {sample_size}")
        registration = self._pool.registration_of(detector_name)
        given = tuple(inputs) if inputs is not None else registration.corpus
        if not given:
            raise UsageError(
                f"{detector_name!r} has no registered corpus (`register_detector(…, corpus=…)`), and no `inputs` were "
                "given: there is nothing to measure it on"
            )
        with self._clocked(f"single: {detector_name}"):
            seen: list[float] = []
            cached = 0
            for args, kwargs in islice(cycle(given), PILOT + sample_size):
                began = time.perf_counter()
                result = self._pool.execute_detector(detector_name, *args, **kwargs)
                seen.append(time.perf_counter() - began)
                cached += checked([result])[0].from_cache
            start = steady_from(seen[:PILOT])
            values = seen[PILOT:]
            assert len(values) == sample_size, "no sample is dropped"
            made = [
                measured(f"{detector_name}-{word}", "single", f"latency of {detector_name}, {word}", values, unit="s",
                         better="lower", interval=interval)
                for word, interval in (
                    ("mean", mean_interval(values)), ("median", quantile_interval(values, 0.5)),
                    ("p99", quantile_interval(values, 0.99)),
                )
            ]  # fmt: skip
            made = [
                msgspec.structs.replace(
                    figure, samples={**figure.samples, "pilot": tuple(seen[:PILOT])},
                    warm_up=PILOT if start is None else start, steady=start is not None,
                )
                for figure in made
            ]  # fmt: skip
            words = f"executions of {detector_name} answered from the cache"
            made.append(measured(f"{detector_name}-cached", "single", words, [cached / len(seen)], unit="share"))
            made.append(self._over_bare(registration, given))
        return self._kept(made)

    def run_parallel_benchmark(
        self, detector_configs: Sequence[DetectorConfig], concurrency_levels: Sequence[int]
    ) -> tuple[Figure, ...]:
        """
        Measure how much faster many executions are at several levels of concurrency than at the first of them.

        Args:
            detector_configs: (name, args, kwargs) each.
            concurrency_levels: Executions at once; the first is what the others are compared with.

        Returns:
            Executions a second at the first level, and a speed-up for each other one.

        Raises:
            UsageError: No executions, or levels that are none.
            BenchmarkFailed: An execution fails.
        """
        if not detector_configs:
            raise UsageError("there is nothing to execute")
        levels = list(dict.fromkeys(concurrency_levels))
        if not levels or min(levels) < 1:
            raise UsageError(f"concurrency levels are numbers from 1, not {concurrency_levels}")
        first, made = levels[0], []
        with self._clocked("parallel"):
            for level in levels[1:]:
                found = compare(
                    partial(self._seconds_at, detector_configs, first),
                    partial(self._seconds_at, detector_configs, level), half_width=0.03, budget_s=self._budget_s,
                )  # fmt: skip
                words = f"{len(detector_configs)} executions, {level} at once: times as fast as {first}"
                made.append(compared(f"speed-up-{level}-of-{first}", "parallel", words, found, "higher"))
            seconds = [self._seconds_at(detector_configs, first) for _ in range(LEAST_SAMPLES)]
            words = f"executions a second, {first} at once"
            rates = [len(detector_configs) / one for one in seconds]
            made.append(measured(f"rate-{first}", "parallel", words, rates, unit="1/s", better="higher"))
        assert len(made) == len(levels), "one figure a level"
        assert first >= 1, "something runs"
        return self._kept(made)

    def run_load_test(self, config: LoadTestConfig) -> LoadTestResult:
        """
        Put the pool under load as real work arrives; see `detectors.load_test`.

        Raises:
            UsageError: A trace that cannot be read, or nothing to send.
        """
        from detectors.load_test import run_load_test

        return run_load_test(self._pool, config)

    def run_comprehensive_suite(self, detector_configs: Sequence[DetectorConfig]) -> BenchmarkRun:
        """
        Measure each detector of the executions alone, all of them at several levels, and the pool over bare threads.

        Args:
            detector_configs: (name, args, kwargs) each: real work, which every detector must be able to do.

        Returns:
            Everything that was measured, held against the history if there is a folder for one.

        Raises:
            UsageError: No executions.
            BenchmarkFailed: An execution fails.
        """
        if not detector_configs:
            raise UsageError("a suite needs executions to measure")
        inputs: dict[str, list[tuple[tuple[Any, ...], Mapping[str, Any]]]] = {}
        for name, args, kwargs in detector_configs:
            inputs.setdefault(name, []).append((args, kwargs))
        for name, given in inputs.items():
            figures = self.run_single_detector_benchmark(name, max(2 * LEAST_SAMPLES, len(given)), inputs=given)
            assert figures, "each detector was measured"
        workers = int(self._pool.configuration["max_workers"])
        levels = [level for level in (1, 2, 4, 8, 16, 32) if level <= workers]
        if len(levels) > 1:
            figures = self.run_parallel_benchmark(detector_configs, levels)
            assert len(figures) == len(levels), "each level was measured"
        run = self._run()
        if self._folder is not None:
            found, against = regressions(run, history(self._folder))
            run = msgspec.structs.replace(run, regressions=found, held_against=against)
            remember(self._folder, run)
        return run

    def generate_performance_report(self, output_path: str | Path) -> tuple[Path, ...]:
        """
        Write what was measured: a page that needs no network, and beside it samples as Parquet and all as JSON.

        Args:
            output_path: Of the page; the others are called after it, ending in `.parquet` and `.json`.

        Returns:
            The three files.

        Raises:
            UsageError: Nothing was measured yet, or a file cannot be written.
        """
        if not self._figures:
            raise UsageError("nothing was measured yet: run a benchmark before its report")
        files = report_files(self._run(), Path(output_path))
        assert all(file.exists() for file in files), "all of it was written"
        return files

    def _run(self) -> BenchmarkRun:
        assert self._figures, "something was measured"
        assert self._seconds, "and took time"
        return BenchmarkRun(
            uuid.uuid4().hex, "pool", self._environment, os.getloadavg()[0], dict(self._seconds),
            tuple(self._figures.values()), {},
        )  # fmt: skip

    def _kept(self, figures: Sequence[Figure]) -> tuple[Figure, ...]:
        assert figures, "a benchmark has figures"
        assert len({figure.name for figure in figures}) == len(figures), "each has a name of its own"
        self._figures |= {figure.name: figure for figure in figures}
        return tuple(figures)

    def _clocked(self, name: str) -> _Clocked:
        assert name, "a step has a name"
        assert all(spent >= 0 for spent in self._seconds.values()), "clocks do not run backwards"
        return _Clocked(self._seconds, name)

    def _seconds_at(self, configs: Sequence[DetectorConfig], level: int) -> float:
        assert configs, "something is executed"
        assert level > 0, "something runs"
        return timed(lambda: checked(self._pool.execute_parallel(configs, max_concurrent=level)))

    def _over_bare(self, registration: Registration, inputs: Inputs) -> Figure:
        """Compare the pool with bare calls in as many threads; for a detector elsewhere the way there is in it."""
        workers = int(self._pool.configuration["max_workers"])
        name, config = registration.name, registration.config
        configs: list[DetectorConfig] = [(name, args, dict(kwargs)) for args, kwargs in inputs]
        assert configs, "there are inputs"
        assert workers > 0, "somebody works"

        def bare() -> float:
            with ThreadPoolExecutor(workers) as threads:
                calls = [
                    partial(registration.function, *args, **{**config, **kwargs}) for args, kwargs in inputs
                ]  # fmt: skip
                return timed(lambda: list(threads.map(_called, calls)))

        found = compare(
            partial(self._seconds_at, configs, workers), bare, half_width=0.02, budget_s=self._budget_s
        )  # fmt: skip
        words = f"pool over bare threads: {len(configs)} executions of {name}, isolation {registration.isolation}"
        return compared(f"{name}-over-bare", "single", words, found)


class _Clocked:
    """Adds the seconds of a block to a record."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self._seconds, self._name = seconds, name
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        assert self._began > 0, "the clock runs"

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._began
        assert self._began > 0, "it was entered"
        assert spent >= 0, "the clock is monotonic"
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + spent


class SuitePlan(msgspec.Struct, frozen=True):
    """What a suite over dimensions does; a suite that was interrupted goes on where the plan is the same."""

    mode: str
    dimensions: tuple[str, ...]
    sources: str
    workers: int
    machine: str = ""
    version: str = ""
    budget_s: float = 0.0
    sizes: tuple[int, ...] = ()
    """Files of the trees on which growth is measured."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"a suite is one of {', '.join(MODES)}, not {self.mode!r}")
        if not self.dimensions or self.workers < 1:
            raise UsageError("a suite needs a dimension and a worker")


class _Checkpoint(msgspec.Struct, frozen=True):
    """What one dimension gave."""

    seconds: float
    figures: tuple[Figure, ...]
    problem: str
    profile: Frame | None


def chosen_dimensions(names: Sequence[str] | None) -> tuple[str, ...]:
    """
    Return the dimensions of these names; without names, all that need not be named.

    Raises:
        UsageError: There is none of a name; the message says which there are.
    """
    found = find_dimensions()
    if names is None:
        return tuple(name for name, dimension in found.items() if not dimension.by_name_only)
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        raise UsageError(f"there is no dimension {', '.join(unknown)}; there are {', '.join(found)}")
    assert names, "one at least"
    assert set(names) <= set(found), "each is known"
    return tuple(dict.fromkeys(names))


def run_suite(
    plan: SuitePlan, folder: Path, *, remembered: Path | None = None, progress: Progress | None = None
) -> BenchmarkRun:
    """
    Measure dimension by dimension; each that is done is kept at once, so that an interrupted suite goes on.

    Args:
        plan: What to do.
        folder: For the result and what is done already; made when missing.
        remembered: Where the history is kept; `None` for none.
        progress: Told of each dimension.

    Returns:
        Everything that was measured, held against the history.

    Raises:
        UsageError: The folder holds a suite of another plan, or a finished one.
    """
    here = environment()
    plan = msgspec.structs.replace(plan, machine=here.fingerprint, version=here.version)
    done = _opened(folder, plan)
    dimensions = find_dimensions()
    shares = sum(dimensions[name].share for name in plan.dimensions)
    # A dimension that is named alone gets what it would get among all, times two; it need not wait for a whole suite.
    total_s = plan.budget_s or MODES[plan.mode] * min(1.0, shares * 2 / sum(one.share for one in dimensions.values()))
    for place, name in enumerate(plan.dimensions):
        if progress is not None:
            progress(name, place, len(plan.dimensions))
        if name not in done:
            done[name] = _measured(name, plan, total_s * dimensions[name].share / shares, folder)
    if progress is not None:
        progress("report", len(plan.dimensions), len(plan.dimensions))
    profiles = [one.profile for one in done.values() if one.profile is not None]
    run = BenchmarkRun(
        uuid.uuid4().hex, plan.mode, here, os.getloadavg()[0], {name: done[name].seconds for name in plan.dimensions},
        tuple(figure for name in plan.dimensions for figure in done[name].figures),
        {name: done[name].problem for name in plan.dimensions if done[name].problem},
        profile=profiles[0] if profiles else None,
    )  # fmt: skip
    if remembered is not None:
        found, against = regressions(run, history(remembered))
        run = msgspec.structs.replace(run, regressions=found, held_against=against)
        remember(remembered, run)
    assert set(done) == set(plan.dimensions), "each dimension was measured, or says why not"
    files = report_files(run, folder / "report.html")
    assert all(file.exists() for file in files), "the report stands beside the checkpoints"
    (folder / "report.json").rename(folder / RESULT)
    return run


def _opened(folder: Path, plan: SuitePlan) -> dict[str, _Checkpoint]:
    """Return what of a plan is done in a folder already; the folder is made when missing."""
    if (folder / RESULT).exists():
        raise UsageError(f"{folder} holds a finished benchmark; name another folder, or move it away")
    checkpoints = folder / CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    kept = folder / PLAN
    try:
        if kept.exists() and msgspec.json.decode(kept.read_bytes(), type=SuitePlan) != plan:
            raise UsageError(f"{folder} holds a benchmark of another plan, version or machine; name another folder")
        done = {
            name: msgspec.json.decode(file.read_bytes(), type=_Checkpoint)
            for name in plan.dimensions
            if (file := checkpoints / f"{name}.json").exists()
        }
        # What could not be measured may be possible now.
        done = {name: one for name, one in done.items() if not one.problem}
    except msgspec.MsgspecError as problem:
        raise UsageError(f"{folder} holds what is no benchmark: {problem}; name another folder") from problem
    written = kept.write_bytes(msgspec.json.encode(plan))
    assert set(done) <= set(plan.dimensions), "nothing else is taken over"
    assert written > 0, "the plan is kept"
    return done


def _measured(name: str, plan: SuitePlan, budget_s: float, folder: Path) -> _Checkpoint:
    """Measure one dimension and keep what it gave; what cannot be measured here is a result, too."""
    dimension = find_dimensions()[name]
    began = time.perf_counter()
    figures: list[Figure] = []
    problem = ""
    # Beside the result and not in a folder for temporary files, which may lie in memory.
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=folder)).absolute()
    try:
        work = Work(Path(plan.sources), scratch, plan.workers, budget_s)
        work = msgspec.structs.replace(work, sizes=plan.sizes) if plan.sizes else work
        for figure in dimension.measure(work):
            figures.append(figure)
    except (BenchmarkFailed, DetectorPoolError, OSError) as error:
        if isinstance(error, UsageError):
            raise
        problem = f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    assert figures or problem, "a dimension has figures, or says why it has none"
    assert all(figure.dimension for figure in figures), "each is of a dimension"
    done = _Checkpoint(time.perf_counter() - began, tuple(figures), problem, dimension.profile)
    file = folder / CHECKPOINTS / f"{name}.json"
    draft = file.with_suffix(".draft")
    written = draft.write_bytes(msgspec.json.encode(done))
    assert written > 0, "something is kept"
    draft.replace(file)
    return done


def report_files(run: BenchmarkRun, page: Path) -> tuple[Path, ...]:
    """
    Write a run's page, its samples and all of it.

    Returns:
        `page`, and beside it the same name with `.parquet` and `.json`.

    Raises:
        UsageError: A file cannot be written.
    """
    from detectors.benchmark_report import page_of

    samples, everything = page.with_suffix(".parquet"), page.with_suffix(".json")
    if len({page, samples, everything}) < 3:
        raise UsageError(f"{page} is the name of the samples' or the record's file; let it end in .html")
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        size = page.write_text(page_of(run), "utf-8")
        rows = write_samples(run, samples)
        shown: dict[str, Any] = {**msgspec.to_builtins(run), "aims": msgspec.to_builtins(run.judgements())}
        size = min(size, everything.write_bytes(msgspec.json.encode(shown)))
    except OSError as problem:
        raise UsageError(f"the report {page} cannot be written: {problem}") from problem
    assert size > 0, "nothing is empty"
    assert rows > 0 or not run.figures, "figures have samples"
    return page, samples, everything


def _called(call: Callable[[], Any]) -> Any:
    assert callable(call), "a call that is bound to its arguments"
    return call()
