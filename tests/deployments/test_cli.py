"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.detectors.git_trees import git, made

Pool = Callable[..., subprocess.CompletedProcess[bytes]]
COMMANDS = [
    (),
    ("scan",),
    ("run",),
    ("run", "scan"),
    ("detectors",),
    ("detectors", "list"),
    ("detectors", "show"),
    ("evidence",),
    ("evidence", "verify"),
    ("doctor",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(pool_command: Pool, command: tuple[str, ...]) -> None:
    """Help is how a stranger begins; commands that do something show an example."""
    done = pool_command(*command, "--help")

    assert done.returncode == 0
    if command not in {("run",), ("detectors",), ("evidence",)}:
        assert b"Example: detector-pool" in done.stdout


def test_version(pool_command: Pool) -> None:
    """Bug reports need it."""
    assert pool_command("--version").stdout.startswith(b"detector-pool 0.")


def test_wrong_commands_are_usage_errors(pool_command: Pool, tmp_path: Path) -> None:
    """Exit code 2, a message, no traceback; with --json the message is an object, too."""
    for arguments in (
        ("scann",),
        ("scan", tmp_path / "missing"),
        ("evidence", "verify", tmp_path / "missing"),
        ("scan",),
    ):
        done = pool_command(*arguments)
        assert done.returncode == 2, arguments
        assert b"Traceback" not in done.stderr
        assert done.stdout == b""
    done = pool_command("scan", "--json", tmp_path / "missing")
    assert json.loads(done.stdout)["exit_code"] == 2


def test_detectors_are_listed_and_shown(pool_command: Pool) -> None:
    """A user must see what is there, and what a rule means."""
    listed = json.loads(pool_command("detectors", "list", "--json").stdout)["detectors"]
    names = {entry["name"] for entry in listed}
    rules = json.loads(pool_command("detectors", "show", "P10-R1", "--json").stdout)["rules"]
    text = pool_command("detectors", "show", "P10-R4-function-length").stdout
    tool = pool_command("detectors", "show", "bandit")
    wrong = pool_command("detectors", "show", "bandti")

    expected = {"power-of-ten-c", "power-of-ten-python", "ruff", "bandit", "flawfinder", "lizard", "detect-secrets"}
    assert expected <= names
    assert {"P10-R1-goto", "P10-R1-recursion"} <= {rule["id"] for rule in rules}
    assert not [rule for rule in rules if rule["id"].startswith("P10-R10")]
    assert b"Holzmann" in text
    assert b"languages: python" in tool.stdout
    assert json.loads(pool_command("detectors", "show", "ruff", "--json").stdout)["name"] == "ruff"
    assert (wrong.returncode, b"'bandit'" in wrong.stderr) == (2, True)
    assert b"detect-secrets" in pool_command("detectors", "list").stdout


def test_doctor_finds_everything_in_order_here(pool_command: Pool) -> None:
    """The test environment is complete; what a system forbids is the system's affair."""
    done = pool_command("doctor", "--json")
    checks = {check["what"]: check for check in json.loads(done.stdout)["checks"]}

    assert checks["detector ruff"]["ok"]
    assert checks["cache folder"]["ok"]
    assert "none yet" in checks["signing key"]["seen"]
    assert done.returncode == (0 if all(check["ok"] for check in checks.values()) else 1)
    assert b"signing key" in pool_command("doctor").stdout


def test_doctor_tells_what_is_wrong_and_what_to_do(pool_command: Pool, tmp_path: Path) -> None:
    """A key that others can read is found."""
    keys = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "keys"
    keys.mkdir(parents=True)
    (keys / "signing-key.pem").write_text("")
    (keys / "signing-key.pem").chmod(0o644)

    done = pool_command("doctor", "--json")
    key = next(check for check in json.loads(done.stdout)["checks"] if check["what"] == "signing key")

    assert done.returncode == 1
    assert key["mend"].startswith("chmod 600")


@pytest.mark.parametrize("shape", ["text", "json", "sarif", "github", "gitlab"])
def test_every_format_goes_to_standard_output_and_to_a_file(
    pool_command: Pool, small_tree: Path, tmp_path: Path, shape: str
) -> None:
    """Both hold the same findings, and nothing else."""
    arguments = ("scan", small_tree, "--detectors", "power-of-ten-c,power-of-ten-python", "--format", shape)
    shown = pool_command(*arguments)
    kept = pool_command(*arguments, "--output", tmp_path / "out")
    data = (tmp_path / "out").read_bytes()

    assert (shown.returncode, kept.returncode, kept.stdout) == (0, 0, b"")
    assert b"P10-R1-goto" in shown.stdout
    assert b"P10-R1-goto" in data
    if shape in {"json", "sarif", "gitlab"}:
        json.loads(shown.stdout)
    if shape in {"github", "sarif", "gitlab"}:
        assert data == shown.stdout or shape == "sarif"


def test_output_that_cannot_be_written_is_told(pool_command: Pool, small_tree: Path) -> None:
    """Not a traceback."""
    done = pool_command("scan", small_tree, "--detectors", "ruff", "--output", "/nowhere/out")

    assert (done.returncode, b"/nowhere/out" in done.stderr, b"Traceback" in done.stderr) == (2, True, False)


def test_the_threshold_decides_the_exit_code(pool_command: Pool, small_tree: Path) -> None:
    """0 under the threshold, 1 at or over it."""
    arguments = ("scan", small_tree, "--detectors", "power-of-ten-c")

    codes = {
        level: pool_command(*arguments, "--fail-on", level).returncode
        for level in ("error", "warning", "note", "never")
    }

    assert codes == {"error": 0, "warning": 1, "note": 1, "never": 0}


def test_suppressed_findings_do_not_fail(pool_command: Pool, tmp_path: Path) -> None:
    """They are shown, and do not count."""
    (tmp_path / "a.py").write_text("import os  # noqa\n")

    done = pool_command("scan", tmp_path, "--detectors", "ruff", "--fail-on", "note")

    assert done.returncode == 0
    assert b"(suppressed)" in done.stdout


def test_scan_writes_evidence_that_verifies(pool_command: Pool, small_tree: Path, tmp_path: Path) -> None:
    """The main job, end to end, without an orchestrator; a changed byte is found by the command, too."""
    folder = tmp_path / "evidence"
    done = pool_command("scan", small_tree, "--evidence", folder, "--fail-on", "never")
    key = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "keys" / "public-key.pem"
    good = pool_command("evidence", "verify", folder, "--public-key", key)
    again = pool_command("scan", small_tree, "--evidence", folder, "--fail-on", "never")
    report = folder / "report.html"
    report.write_bytes(report.read_bytes().replace(b"Analysis", b"analysis", 1))
    bad = pool_command("evidence", "verify", folder, "--json")

    assert done.returncode == 0, done.stderr.decode()
    assert (good.returncode, b"signed by the key that you gave" in good.stdout) == (0, True)
    assert (again.returncode, b"name a new one" in again.stderr) == (2, True)
    assert bad.returncode == 1
    checked: list[dict[str, Any]] = json.loads(bad.stdout)["checked"]
    assert [check["file"] for check in checked if not check["ok"]] == ["report.html"]


def test_a_passphrase_comes_from_file_or_environment(pool_command: Pool, small_tree: Path, tmp_path: Path) -> None:
    """Never from an argument; and a key made with one does not open without."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    arguments = ("scan", small_tree, "--detectors", "ruff", "--fail-on", "never")

    def code(name: str, *more: str | Path, **environment: str) -> int:
        return pool_command(
            *arguments, "--evidence", tmp_path / name, *more, env={**os.environ, **environment}
        ).returncode

    assert code("a", "--passphrase-file", tmp_path / "passphrase") == 0
    assert code("b", DETECTOR_POOL_PASSPHRASE="correct horse") == 0
    assert code("c") == 2
    assert code("d", DETECTOR_POOL_PASSPHRASE="wrong") == 2
    assert code("e", "--passphrase-file", tmp_path / "missing") == 2
    (tmp_path / "long").write_text("x" * 5_000)
    assert code("f", "--passphrase-file", tmp_path / "long") == 2


def test_a_reader_that_goes_away_is_no_error(small_tree: Path) -> None:
    """`detector-pool … | head` must not end in a traceback."""
    import sys

    command = [sys.executable, "-m", "deployments.cli", "scan", str(small_tree), "--detectors", "ruff,bandit"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)

    assert b"Traceback" not in err
    assert b"Exception" not in err


def test_a_merge_request_fails_by_what_it_adds_alone(pool_command: Pool, tmp_path: Path) -> None:
    """Old findings must not stop a change, new ones must; what was not looked at stands in verified evidence."""
    tree = made(tmp_path / "tree", {"old.py": "def f(n):\n    return eval(n)\n", "new.py": "N = 1\n"})
    options = ("scan", tree, "--since", "main", "--detectors", "power-of-ten-python,ruff", "--cluster", "inline")
    (tree / "new.py").write_text("N = 2\n")
    clean = pool_command(*options, "--fail-on", "note", "--evidence", tmp_path / "evidence")
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert b"old.py:2" not in clean.stdout
    assert b"1 files touched; 0 findings are new" in clean.stdout

    (tree / "new.py").write_text("N = eval('2')\n")
    worse = pool_command(*options, "--fail-on", "warning")
    assert worse.returncode == 1
    assert b"new.py:1" in worse.stdout

    coverage = json.loads((tmp_path / "evidence" / "coverage.json").read_text())
    commit = git(tree, "rev-parse", "main").strip()
    assert {"state": "excluded", "reason": f"since {commit}"} in coverage["cells"]
    assert pool_command("evidence", "verify", tmp_path / "evidence").returncode == 0
    alone = subprocess.run([sys.executable, "-I", "verify.py"], cwd=tmp_path / "evidence", check=False)
    assert alone.returncode == 0

    unknown = pool_command("scan", tree, "--since", "nothing")
    assert unknown.returncode == 2
    assert b"fetch it first" in unknown.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("detector-pool sc", "scan"),
        ("detector-pool history ", "findings"),
        ("detector-pool scan --imp", "--import-sarif"),
    ],
)
def test_the_shell_completes_commands_and_options(words: str, told: str) -> None:
    """What `--install-completion` installs asks the program like this."""
    asked = {"_DETECTOR_POOL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = [sys.executable, "-m", "deployments.cli"]
    done = subprocess.run(program, env=os.environ | asked, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert told in done.stdout.split()
