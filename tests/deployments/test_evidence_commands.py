"""`scan --evidence`, `--ledger` and `evidence verify`, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[bytes]]
SCAN = ("--detectors", "power-of-ten-c,power-of-ten-python", "--fail-on", "never")


@pytest.fixture
def locked() -> dict[str, str]:
    """The environment of an operator who has a passphrase."""
    return {**os.environ, "DETECTOR_POOL_PASSPHRASE": "correct horse"}


def ledger_events(pool_command: Run, ledger: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    done = pool_command("audit", "export", "--ledger", ledger, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


def test_without_a_passphrase_evidence_says_that_no_ledger_stands_behind_it(
    pool_command: Run, small_tree: Path, tmp_path: Path
) -> None:
    """It is signed all the same, and nobody takes it for more."""
    evidence = tmp_path / "evidence"
    assert pool_command("scan", small_tree, *SCAN, "--evidence", evidence).returncode == 0
    done = pool_command("evidence", "verify", evidence, "--json")
    shown = json.loads(done.stdout)

    assert done.returncode == 0
    assert (shown["ok"], shown["anchored"], shown["anchors"], shown["ledger"]) == (True, False, [], None)
    assert "DETECTOR_POOL_PASSPHRASE" in shown["no_ledger"]
    assert b"no ledger record stands behind it" in pool_command("evidence", "verify", evidence).stdout
    assert not (Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "ledger").exists()


def test_with_one_the_run_is_recorded_and_every_anchor_holds(
    pool_command: Run, small_tree: Path, tmp_path: Path, locked: dict[str, str]
) -> None:
    """The ledger is made with the first run; the second goes into the same."""
    state, evidence = Path(os.environ["DETECTOR_POOL_HOME"]) / "state", tmp_path / "evidence"
    for name in (evidence, tmp_path / "second"):
        assert pool_command("scan", small_tree, *SCAN, "--evidence", name, env=locked).returncode == 0
    checkpoint = tmp_path / "kept"
    checkpoint.write_bytes(pool_command("audit", "checkpoint", "--ledger", state / "ledger").stdout)
    anchors = (
        "--public-key",
        state / "keys" / "public-key.pem",
        "--ledger",
        state / "ledger",
        "--checkpoint",
        checkpoint,
    )
    shown = json.loads(pool_command("evidence", "verify", evidence, *anchors, "--json").stdout)
    kinds = [event["type"] for event in ledger_events(pool_command, state / "ledger", locked)]

    assert (shown["ok"], shown["anchors"]) == (True, ["public-key", "ledger", "checkpoint"])
    assert kinds == 2 * ["scan.started", "scan.planned", "scan.settled", "evidence.attested", "scan.ended"]
    assert json.loads(pool_command("audit", "verify", "--ledger", state / "ledger", "--json").stdout)["ok"]
    (evidence / "run.json").write_text("{}")
    done = pool_command("evidence", "verify", evidence)
    assert (done.returncode, b"FAIL run.json: its content is not what was signed" in done.stdout) == (1, True)


def test_a_ledger_that_was_named_must_be_there_and_open(
    pool_command: Run, small_tree: Path, tmp_path: Path, locked: dict[str, str]
) -> None:
    """A mistyped name must not begin a ledger that nobody watches."""
    own = tmp_path / "own"
    missing = pool_command("scan", small_tree, *SCAN, "--ledger", own, env=locked)
    without = pool_command("scan", small_tree, *SCAN, "--ledger", own)
    made = pool_command("audit", "init", "--ledger", own, env=locked)
    done = pool_command("scan", small_tree, *SCAN, "--ledger", own, env=locked)

    assert (missing.returncode, without.returncode, made.returncode, done.returncode) == (2, 2, 0, 0), done.stderr
    assert b"--passphrase-file" in without.stderr
    assert ledger_events(pool_command, own, locked)[-1]["outcome"] == "finished"


def test_an_interrupted_and_a_failed_run_have_an_end(
    pool_command: Run, small_tree: Path, tmp_path: Path, locked: dict[str, str]
) -> None:
    """When this fails, the ledger cannot tell a run that was stopped from one that still runs."""
    ledger = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "ledger"
    for number in range(300):
        (small_tree / f"more{number}.py").write_text("def f(n):\n    return n\n" * 2000)
    command = [
        sys.executable,
        "-m",
        "deployments.cli",
        "scan",
        str(small_tree),
        *SCAN,
        "--evidence",
        str(tmp_path / "e"),
    ]
    process = subprocess.Popen(command, env=locked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while not list(ledger.glob("*.segment")) and process.poll() is None:
        pass  # the first record is there as soon as the file is
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    failed = pool_command("scan", tmp_path / "missing", *SCAN, "--evidence", tmp_path / "two", env=locked)
    ends = [event for event in ledger_events(pool_command, ledger, locked) if event["type"] == "scan.ended"]

    assert (process.returncode, failed.returncode) == (130, 2), told
    assert [end["outcome"] for end in ends] == ["interrupted", "failed"]
    assert "KeyboardInterrupt" in ends[0]["error"]
    assert not (tmp_path / "e").exists()
