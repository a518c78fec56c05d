"""`detector-pool history` as an operations engineer meets it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.detectors.git_trees import committed, made

Pool = Callable[..., subprocess.CompletedProcess[bytes]]


def test_history_of_two_nights(pool_command: Pool, tmp_path: Path) -> None:
    """Real runs on a real repository: what is open, whose it is, what was fixed, and which folder is no evidence."""
    bad = "def f(n):\n    return eval(n)\n"
    tree = made(tmp_path / "tree", {"a.py": bad, "b.py": bad, "CODEOWNERS": "/b.py @team\n"})
    evidence = tmp_path / "evidence"

    def night(name: str) -> None:
        done = pool_command(
            "scan", tree, "--detectors", "power-of-ten-python,bandit", "--evidence", evidence / name, "--cluster",
            "inline", "--fail-on", "never",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    night("1")
    committed(tree, {"a.py": "def f(n):\n    return n\n"})
    night("2")
    (evidence / "broken").mkdir()

    runs = json.loads(pool_command("history", "runs", evidence, "--json").stdout)
    assert [(run["folder"], run["new"] > 0, run["fixed"] > 0) for run in runs["runs"]] == [
        ("1", True, False), ("2", False, True),
    ]  # fmt: skip
    assert [one["folder"] for one in runs["left_out"]] == ["broken"]

    told = pool_command(
        "history", "findings", evidence, "--sources", tree, "--public-key", evidence / "1/public-key.pem"
    )
    text = told.stdout.decode()
    assert told.returncode == 0, told.stderr
    lines = [line for line in text.splitlines() if "P10-R8-python-dynamic-code" in line]
    assert len(lines) == 1
    assert lines[0].startswith("open b.py:2: ")
    assert lines[0].endswith("days, @team; also reported by bandit/B307")
    assert "LEFT OUT broken: it is not signed" in text
    assert "2 runs, 1 folders left out; evidence signed by the key that you gave" in text

    fixed = json.loads(pool_command("history", "findings", evidence, "--state", "fixed", "--json").stdout)["findings"]
    assert {"P10-R8-python-dynamic-code", "bandit/B307"} <= {one["rule"] for one in fixed}
    assert {one["path"] for one in fixed} == {"a.py"}
    trend = json.loads(pool_command("history", "trend", evidence, "--json").stdout)["rules"]
    assert trend["bandit/B307"] == {"new": 0, "reopened": 0, "open": 1, "fixed": 1}
    assert pool_command("history", "findings", evidence, "--state", "old").returncode == 2
    assert pool_command("history", "runs", tmp_path / "none").returncode == 2
