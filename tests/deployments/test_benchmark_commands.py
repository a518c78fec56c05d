"""`detector-pool benchmark` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from detectors.benchmark_record import BenchmarkRun, measured
from detectors.dimension import BenchmarkFailed
from detectors.dimensions.growth import growth_table
from detectors.dimensions.peers import peers_table, run_tool
from detectors.measurement import environment

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def test_one_dimension_from_the_command_line(pool_command: Run, tmp_path: Path) -> None:
    """When this fails, the command measures nothing, hides what it measured, or does not remember it."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in sorted((ROOT / "detectors").glob("*.py"))[:12]:
        (sources / path.name).write_bytes(path.read_bytes())
    words = ("benchmark", "--quick", "--dimension", "io", "--sources", sources, "--workers", "2")

    done = pool_command(*words, "--output", tmp_path / "out", "--json")
    shown = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert {figure["name"] for figure in shown["figures"]} >= {"read-cold", "written-warm"}
    assert all(len(figure["samples"]["values"]) == figure["interval"]["samples"] for figure in shown["figures"])
    assert {aim["verdict"] for aim in shown["aims"]} == {"not measured"}
    assert b"io (1 of 1)" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "report.parquet", "benchmark.json"}
    assert json.loads((tmp_path / "out" / "benchmark.json").read_bytes())["run"] == shown["run"]

    again = pool_command(*words)
    assert again.returncode == 0, again.stderr
    assert b"read-cold" in again.stdout
    assert b"held against 1 earlier runs" in again.stdout
    kept = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "benchmark"
    assert len(list((kept / "runs").iterdir())) == 1
    assert not list((kept / "runs").glob("unfinished*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--quick", "--full"), b"exclude each other"),
        (("--dimension", "nonsense"), b"there is no dimension nonsense"),
        (("--sources", "nowhere"), b"there is no folder nowhere"),
        (("growth", "--files", "1000"), b"two sizes at least"),
    ],
)
def test_wrong_usage_is_told(pool_command: Run, tmp_path: Path, words: tuple[str, ...], told: bytes) -> None:
    """When this fails, a mistake on the command line costs an hour, or a traceback."""
    (tmp_path / ".demo" / "sources").mkdir(parents=True)
    (tmp_path / ".demo" / "sources" / "a.py").write_text("x = 1\n")
    done = pool_command("benchmark", *words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert done.returncode == 2
    assert told in done.stderr


def _of(dimension: str, values: dict[str, list[float]]) -> BenchmarkRun:
    figures = tuple(measured(name, dimension, name, of, unit="s", better="lower") for name, of in values.items())
    return BenchmarkRun("r", "full", environment(), 0.0, {dimension: 1.0}, figures, {})


def test_the_table_of_peers_holds_the_aims_against_the_worse_end() -> None:
    """When this fails, a peer that we do not beat looks beaten."""
    ratios = {"xargs: cold, over ours": [1.3, 1.6, 1.7], "xargs: all again, over warm, over ours": [21.0, 25.0, 30.0]}
    seconds = {"detector-pool: cold": [10.0, 11.0, 12.0], "xargs: cold": [13.0, 17.0, 20.0]}
    text = peers_table(_of("peers", {**seconds, **ratios}))

    assert "| xargs | 16.67 s, 1.53 (" in text
    assert "at most 0.7" in text
    assert text.count("missed") == 1
    assert text.count(": met.") == 1
    with pytest.raises(BenchmarkFailed):
        peers_table(_of("peers", {}))


def test_the_table_of_growth_says_what_bends() -> None:
    """When this fails, memory that grows with the tree passes for flat."""
    of = {
        f"{name}-{files}": [value * (files / 1_000) ** power]
        for name, value, power in (
            ("cold", 10.0, 1.0), ("warm-per-file", 1.0, 0.0), ("driver-per-file", 1.0, 0.0),
            ("driver-memory", 100.0, 0.8), ("store-per-file", 9.0, 0.0),
        )
        for files in (1_000, 100_000)
    }  # fmt: skip
    exponents = {f"{name}-exponent": [1.0] for name in ("cold", "warm", "driver", "memory", "store")}
    text = growth_table(_of("growth", {**of, **exponents}))

    assert "| 100,000 | 1,000 |" in text
    assert "Exponent of a cold scan (aim: at most 1.05): met." in text
    assert "Driver at 100,000 files (aim: under 300 MB): missed." in text


def test_a_tool_that_does_not_finish_is_no_peers_time(tmp_path: Path) -> None:
    """When this fails, a peer that crashes at once looks fast."""
    assert run_tool(["true"], tmp_path) == 0
    with pytest.raises(BenchmarkFailed, match="ended with 2"):
        run_tool(["sh", "-c", "exit 2"], tmp_path)
