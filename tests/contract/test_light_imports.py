"""What a user waits for: commands that need no heavy library load none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAVY = frozenset(
    {"prefect", "distributed", "dask", "pandas", "sklearn", "great_expectations", "pyarrow", "matplotlib"}
)
SCAN = ("--detectors", "power-of-ten-c,power-of-ten-python", "--fail-on", "warning")


def _run(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command line in a fresh interpreter; return what it did and the top-level packages it loaded."""
    command = [sys.executable, "-X", "importtime", "-m", "deployments.cli", *arguments]
    environment = {**os.environ, "DETECTOR_POOL_HOME": str(folder / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """When this fails, `--help` takes seconds."""
    done, loaded = _run(tmp_path, "--help")

    assert done.returncode == 0, done.stderr[-2000:]
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_a_warm_scan_loads_nothing_heavy(tmp_path: Path) -> None:
    """When this fails, a scan in which nothing changed waits for libraries that it does not use."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text("int f(int n) { return f(n); }\n")
    (tree / "a.py").write_text("def f(n):\n    return n\n")
    arguments = ("scan", str(tree), "--cache", str(tmp_path / "cache"), *SCAN)
    cold, loaded_cold = _run(tmp_path, *arguments)
    warm, loaded_warm = _run(tmp_path, *arguments)

    assert (cold.returncode, warm.returncode) == (1, 1), warm.stderr[-2000:]
    assert warm.stdout.count("P10-R1-recursion") == cold.stdout.count("P10-R1-recursion") > 0
    assert "msgspec" in loaded_warm
    assert loaded_cold & HEAVY == set()
    assert loaded_warm & HEAVY == set()
