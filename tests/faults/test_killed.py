"""Real processes killed for real: what was finished is kept, and the findings are those of a run without faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.detectors import third_party

pytestmark = pytest.mark.slow
PATIENCE_S = 60


class Gate:
    """A file that holds a detector up while it exists; `begun` tells that somebody waits, and who."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "gate"
        self.file.touch()
        self.begun = self.file.with_suffix(".begun")

    def wait(self) -> int:
        """Return the process that waits at the gate."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.begun.exists() and (text := self.begun.read_text()):
                return int(text)
            time.sleep(0.01)
        raise AssertionError("nobody came to the gate")

    def open(self) -> None:
        """Let everybody through."""
        self.file.unlink()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A closed gate, opened at the end so that nothing waits for ever."""
    made = Gate(tmp_path)
    yield made
    made.file.unlink(missing_ok=True)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment with the third party's detectors."""
    folder = tmp_path / "site"
    folder.mkdir()
    return {**os.environ, "PYTHONPATH": str(third_party.install(folder))}


def _tree(folder: Path, gate: Gate, word: str, files: int = 30) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    for number in range(files):
        (tree / f"f{number:02}.txt").write_text(f"line {number}\nbad {number}\n")
    # The largest comes first in the plan, so the others of its batch are still to come.
    (tree / "gate.txt").write_text(f"{word} {gate.file}\nbad\n" + "x" * 10_000)
    return tree


def _start(tree: Path, environment: dict[str, str], cache: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deployments.cli", "scan", str(tree), "--json", "--fail-on", "never"]
    return subprocess.Popen(
        [*command, "--cache", str(cache), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=PATIENCE_S * 2)
    assert process.returncode == 0, err.decode()
    result: dict[str, Any] = json.loads(out)
    return result


def _digest(result: dict[str, Any]) -> str:
    digest: str = result["summary"]["findings_digest"]
    return digest


def _gone(pids: list[int]) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
    return not alive


def test_a_killed_dask_worker_costs_no_finding(tmp_path: Path, gate: Gate, environment: dict[str, str]) -> None:
    """A worker that dies in the middle of a batch must not take findings with it."""
    tree = _tree(tmp_path, gate, "sleep-once")
    arguments = ("--detectors", "third-party", "--cluster", "local", "--workers", "2")
    process = _start(tree, environment, tmp_path / "cache", *arguments)
    victim = gate.wait()
    assert victim != process.pid
    gate.begun.unlink()
    os.kill(victim, signal.SIGKILL)
    gate.wait()  # the batch runs again elsewhere
    gate.open()
    faulty = _result(process)
    calm = _result(_start(tree, environment, tmp_path / "other", "--detectors", "third-party", "--cluster", "inline"))

    assert faulty["not_analysed"] == []
    assert faulty["summary"]["whole"]
    assert _digest(faulty) == _digest(calm)


def test_a_file_that_kills_every_worker_is_found_and_listed(
    tmp_path: Path, gate: Gate, environment: dict[str, str]
) -> None:
    """The batch is halved down to the file at fault; all others keep their findings."""
    tree = _tree(tmp_path, gate, "calm", files=5)
    (tree / "poison.txt").write_text("kill-me victim\n")
    arguments = ("--detectors", "third-party", "--cluster", "local", "--workers", "1")

    result = _result(_start(tree, environment, tmp_path / "cache", *arguments))

    assert [(entry["path"], entry["reason"]) for entry in result["not_analysed"]] == [("poison.txt", "crashed")]
    assert len([item for item in result["findings"] if item["rule"] == "TP-bad"]) == 6


def test_a_killed_tool_costs_no_finding(tmp_path: Path, gate: Gate, environment: dict[str, str]) -> None:
    """A tool ended from outside is run again on the halves of its batch."""
    tree = _tree(tmp_path, gate, "tool-waits")
    process = _start(tree, environment, tmp_path / "cache", "--detectors", "shell-tool", "--cluster", "inline")
    victim = gate.wait()
    gate.open()
    os.kill(victim, signal.SIGKILL)
    faulty = _result(process)
    calm = _result(_start(tree, environment, tmp_path / "other", "--detectors", "shell-tool", "--cluster", "inline"))

    assert faulty["not_analysed"] == []
    assert _digest(faulty) == _digest(calm)


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_killed_driver_keeps_what_was_done_and_leaves_nothing_running(
    tmp_path: Path, gate: Gate, environment: dict[str, str], cluster: str
) -> None:
    """kill -9 of the scan itself: the next run goes on from there, and ends with the same digest."""
    tree = _tree(tmp_path, gate, "tool-waits")
    arguments = ("--detectors", "third-party,shell-tool", "--cluster", cluster, "--workers", "2")
    process = _start(tree, environment, tmp_path / "cache", *arguments)
    gate.wait()
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    _until_cached(tmp_path / "cache", 31)
    process.kill()
    process.communicate()
    assert _gone(children)
    gate.open()
    rerun = _result(_start(tree, environment, tmp_path / "cache", *arguments))
    calm = _result(_start(tree, environment, tmp_path / "other", *arguments[:2], "--cluster", "inline"))

    assert rerun["summary"]["cached"] >= 31
    assert _digest(rerun) == _digest(calm)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_tools_keeps_results_and_exits_130(
    tmp_path: Path, gate: Gate, environment: dict[str, str], number: int
) -> None:
    """Ctrl-C must end at once what the run started, and lose nothing that was finished."""
    tree = _tree(tmp_path, gate, "tool-waits")
    arguments = ("--detectors", "third-party,shell-tool", "--cluster", "inline", "--workers", "2")
    process = _start(tree, environment, tmp_path / "cache", *arguments)
    tool = gate.wait()
    _until_cached(tmp_path / "cache", 31)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert b"goes on from there" in err
    assert _gone([tool])
    gate.open()
    rerun = _result(_start(tree, environment, tmp_path / "cache", *arguments))
    assert rerun["summary"]["cached"] >= 31


def test_an_interrupted_flow_ends_tools_and_server(tmp_path: Path, gate: Gate, environment: dict[str, str]) -> None:
    """Ctrl-C of `run scan`: no tool and no server is left, and what was finished is kept."""
    tree = _tree(tmp_path, gate, "tool-waits")
    command = [sys.executable, "-m", "deployments.cli", "run", "scan", str(tree), "--cache", str(tmp_path / "cache")]
    options = ["--detectors", "third-party,shell-tool", "--cluster", "inline", "--workers", "2"]
    process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tool = gate.wait()
    _until_cached(tmp_path / "cache", 31)
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130, err.decode()
    assert out == b""
    assert tool in family
    assert _gone(family)
    gate.open()
    rerun = _result(_start(tree, environment, tmp_path / "cache", *options))
    assert rerun["summary"]["cached"] >= 31


def _until_cached(cache: Path, results: int) -> None:
    """Wait until the other process has stored that many results."""
    import sqlite3

    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        connection = sqlite3.connect(f"file:{cache / 'cache.sqlite3'}?mode=ro", uri=True)
        try:
            found = connection.execute("SELECT count(*) FROM result").fetchone()[0]
        except sqlite3.OperationalError:
            found = 0
        finally:
            connection.close()
        if found >= results:
            return
        time.sleep(0.02)
    raise AssertionError("the results did not come")
