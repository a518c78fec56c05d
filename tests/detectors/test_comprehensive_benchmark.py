"""The benchmark's doors: what is measured is real, what cannot be measured is refused, what was found is kept."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path

import msgspec
import pytest

from detectors import ComprehensiveBenchmark, create_enterprise_pool
from detectors.benchmark_record import (
    AIMS,
    FALSE_ALARMS,
    BenchmarkRun,
    Figure,
    counted,
    history,
    judged,
    measured,
    regressions,
    remember,
)
from detectors.benchmark_work import LANGUAGES, findings_in, grown
from detectors.comprehensive_benchmark import SuitePlan, chosen_dimensions, run_suite
from detectors.dimension import BenchmarkFailed, find_dimensions
from detectors.errors import FormatTooNew, UnknownDetector, UsageError
from detectors.measurement import environment

HERE = environment()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files: this project's own Python, and C of the examples."""
    root = Path(__file__).parents[2]
    folder = tmp_path_factory.mktemp("sources")
    for number, path in enumerate([*sorted((root / "detectors").glob("*.py"))[:16], *root.glob("examples/**/*.c")]):
        (folder / f"{number}_{path.name}").write_bytes(path.read_bytes())
    return folder


def _run(figures: dict[str, float], run: str = "r", better: str = "lower") -> BenchmarkRun:
    made = tuple(measured(name, "d", name, [value], unit="s", better=better) for name, value in figures.items())  # type: ignore[arg-type]
    return BenchmarkRun(run, "quick", HERE, 0.0, {"d": 1.0}, made, {})


def test_the_specifications_snippet_and_its_report(sources: Path, tmp_path: Path) -> None:
    """When this fails, the published API of the benchmark does not work as it is written."""
    calls = [("rules", (str(path), "python"), {}) for path in sorted(sources.glob("*.py"))[:4]]
    with create_enterprise_pool(max_workers=2) as pool:
        pool.register_detector("rules", findings_in)
        benchmark = ComprehensiveBenchmark(pool, folder=tmp_path / "history", budget_s=0.5)
        results = benchmark.run_comprehensive_suite(calls)
        page, samples, everything = benchmark.generate_performance_report(tmp_path / "report.html")

    import pyarrow.parquet as pq

    names = {figure.name for figure in results.figures}
    text = page.read_text()
    shown = json.loads(everything.read_bytes())
    table = pq.read_table(samples).to_pandas()
    assert {"rules-mean", "rules-p99", "rules-over-bare", "speed-up-2-of-1", "rate-1"} <= names
    assert text.startswith("<!DOCTYPE html>")
    assert "<script" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert len(shown["aims"]) == len(AIMS)
    assert len(table) == sum(len(side) for figure in results.figures for side in figure.samples.values())
    assert [one.run for one in history(tmp_path / "history")] == [results.run]


def test_a_detector_is_measured_on_its_corpus_or_not_at_all(sources: Path) -> None:
    """When this fails, a benchmark without inputs looks like a very fast detector."""
    file = str(next(sources.glob("*.py")))
    with create_enterprise_pool(max_workers=1) as pool:
        pool.register_detector("bare", findings_in)
        pool.register_detector("full", findings_in, corpus=[((file, "python"), {})])
        pool.register_detector("broken", int)
        benchmark = ComprehensiveBenchmark(pool, budget_s=0.5)
        with pytest.raises(UsageError, match="no registered corpus"):
            benchmark.run_single_detector_benchmark("bare", 10)
        with pytest.raises(UnknownDetector):
            benchmark.run_single_detector_benchmark("nobody", 10)
        with pytest.raises(UsageError, match="at least 8"):
            benchmark.run_single_detector_benchmark("full", 3)
        with pytest.raises(BenchmarkFailed, match="invalid literal"):
            benchmark.run_single_detector_benchmark("broken", 10, inputs=[(("x",), {})])
        with pytest.raises(UsageError, match="nothing was measured"):
            benchmark.generate_performance_report("report.html")
        figures = {one.name: one for one in benchmark.run_single_detector_benchmark("full", 10)}

    assert len(figures["full-mean"].samples["values"]) == 10
    assert figures["full-mean"].interval.low > 0


def test_a_suite_that_was_stopped_goes_on_and_a_finished_one_is_left_alone(sources: Path, tmp_path: Path) -> None:
    """When this fails, an hour of measuring is lost with the first interruption, or overwritten."""
    plan = SuitePlan("quick", ("io", "latency"), str(sources), 2, budget_s=2.0)
    seen: list[str] = []

    class Stopped(Exception):
        pass

    def stop_at_the_second(name: str, done: int, _total: int) -> None:
        if done == 1:
            raise Stopped
        seen.append(name)

    with pytest.raises(Stopped):
        run_suite(plan, tmp_path / "out", progress=stop_at_the_second)
    kept = (tmp_path / "out" / "checkpoints" / "io.json").read_bytes()
    run = run_suite(plan, tmp_path / "out", remembered=tmp_path / "history")

    assert seen == ["io"]
    assert (tmp_path / "out" / "checkpoints" / "io.json").read_bytes() == kept
    assert {figure.dimension for figure in run.figures} == {"io", "latency"}
    assert json.loads((tmp_path / "out" / "benchmark.json").read_bytes())["run"] == run.run
    assert not list((tmp_path / "out").glob("scratch-*"))
    with pytest.raises(UsageError, match="finished benchmark"):
        run_suite(plan, tmp_path / "out")
    other = msgspec.structs.replace(plan, workers=1)
    (tmp_path / "out" / "benchmark.json").unlink()
    with pytest.raises(UsageError, match="another plan"):
        run_suite(other, tmp_path / "out")


def test_sources_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    """When this fails, a suite on an empty folder gives figures of nothing."""
    with pytest.raises(UsageError, match="no sources to measure on"):
        run_suite(SuitePlan("quick", ("io",), str(tmp_path), 1, budget_s=1.0), tmp_path / "out")
    with pytest.raises(UsageError, match="there is no dimension nonsense; there are cache, cpu"):
        chosen_dimensions(["nonsense"])


def test_every_dimension_says_what_it_measures_and_peers_and_growth_must_be_named() -> None:
    """When this fails, `--quick` takes an hour, or a dimension of the issue is missing."""
    found = find_dimensions()

    wanted = {"latency", "throughput", "overhead", "scaling", "cache", "memory", "cpu", "io", "start-up", "fairness"}
    assert wanted | {"fault-recovery"} <= set(chosen_dimensions(None))
    assert all(dimension.__doc__ for dimension in found.values())
    assert not {"peers", "growth"} & set(chosen_dimensions(None))


def test_a_verdict_is_of_the_end_that_speaks_against_the_figure() -> None:
    """When this fails, a lucky mean passes for an aim, or a figure that is not there for one that is met."""
    close = measured("overhead", "overhead", "o", [0.99, 1.0, 1.02, 1.03], unit="ratio", better="lower")
    figures = [close, counted("queued-answered", "t", "q", good=1_000, of=1_000)]
    verdicts = {one.aim.figure: one for one in judged(figures, {"cpu": "it was not there"})}

    assert close.interval.estimate <= 1.01
    assert verdicts["overhead"].verdict == "missed"
    assert "cannot tell" in verdicts["overhead"].reason
    assert verdicts["queued-answered"].verdict == "met"
    assert verdicts["busy"].verdict == "not measured"
    assert "it was not there" in verdicts["busy"].reason
    lost = judged([counted("queued-answered", "t", "q", good=999, of=1_000)], {})
    assert next(one for one in lost if one.aim.figure == "queued-answered").verdict == "missed"


def test_regressions_are_found_and_seldom_where_there_are_none(tmp_path: Path) -> None:
    """When this fails, the history says nothing, or cries wolf more often than it states."""
    chooser = random.Random(3)

    def figures(factor: float = 1.0) -> dict[str, float]:
        return {f"f{place}": factor ** (place == 0) * math.exp(chooser.gauss(0, 0.03)) for place in range(20)}

    wolf = found = 0
    for case in range(100):
        folder = tmp_path / str(case)
        for number in range(8):
            remember(folder, _run(figures(), str(number)))
        earlier = history(folder)
        wolf += bool(regressions(_run(figures()), earlier)[0])
        worse, against = regressions(_run(figures(1.5)), earlier)
        found += any(one.figure == "f0" for one in worse)
        assert against == 8

    # Of 100 runs that are no worse, so many alarms are seen once in ten thousand times at the stated share.
    assert wolf <= 100 * FALSE_ALARMS + 9
    assert found >= 95
    assert regressions(_run(figures()), earlier[:3]) == ((), 3)


def test_a_history_of_another_machine_or_version_is_not_used(tmp_path: Path) -> None:
    """When this fails, a slower machine is a regression, or a file of a newer version is half understood."""
    for number in range(6):
        remember(tmp_path, _run({"f": 1.0 + number / 1_000}, str(number)))
    elsewhere = msgspec.structs.replace(_run({"f": 9.0}), environment=msgspec.structs.replace(HERE, processors=99))

    assert regressions(elsewhere, history(tmp_path)) == ((), 0)
    (tmp_path / "history.jsonl").write_bytes(
        (tmp_path / "history.jsonl").read_bytes().replace(b'"format":1', b'"format":9')
    )
    with pytest.raises(FormatTooNew):
        history(tmp_path)
    (tmp_path / "history.jsonl").write_text("nonsense\n")
    with pytest.raises(UsageError, match="line 1"):
        history(tmp_path)


def test_a_grown_tree_is_of_real_files_with_content_of_their_own(tmp_path: Path) -> None:
    """When this fails, growth is measured on copies that the cache knows, or on files that no tree has."""
    corpus = Path(__file__).parents[1] / "corpus"
    originals = [
        path for path in sorted(corpus.rglob("*.[cp]*")) if path.suffix in LANGUAGES and path.stat().st_size >= 500
    ]
    files = list(grown(originals, tmp_path / "tree", 3 * len(originals)))

    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == len(files)
    for number, file in enumerate(files):
        original = originals[number % len(originals)].read_bytes()
        assert file.stat().st_size == len(original)
        assert [len(line) for line in file.read_bytes().split(b"\n")] == [len(line) for line in original.split(b"\n")]
        assert file.read_bytes().count(b"import ") == original.count(b"import ")
    found = [findings_in(str(file), LANGUAGES[file.suffix]) for file in files]
    assert sum(found[: len(originals)]) > 100
    assert sum(found[len(originals) :]) == pytest.approx(2 * sum(found[: len(originals)]), rel=0.15)


def test_a_figure_without_samples_cannot_be_made() -> None:
    """When this fails, a figure that was not measured looks like one that was."""
    with pytest.raises(UsageError):
        measured("f", "d", "w", [], unit="s")
    with pytest.raises(UsageError):
        counted("f", "d", "w", good=2, of=1)
    with pytest.raises(UsageError):
        judged([_run({"f": 1.0}).figures[0], _run({"f": 2.0}).figures[0]], {})
    assert isinstance(_run({"f": 1.0}).figures[0], Figure)
