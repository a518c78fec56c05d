"""What is stated of runs that did not finish: written before the work, by a key, and gone once the evidence is there."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from compliance.errors import AttestationInvalid, EvidenceError
from compliance.signing import SigningKey
from compliance.unfinished_runs import SUFFIX, Mark, read, rewrite, unfinished_runs

ROOTS = (Path("/somewhere"),)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """The key of the machine that scans."""
    return SigningKey.load_or_create(tmp_path / "keys")


def _ended_by(problem: BaseException, folder: Path, key: SigningKey) -> None:
    with Mark(folder, key) as mark:
        mark.began(ROOTS)
        raise problem


def test_a_run_that_finishes_leaves_no_statement(tmp_path: Path, key: SigningKey) -> None:
    """When this fails, each good night has a statement beside it that says that it goes on."""
    with Mark(tmp_path / "evidence" / "one", key) as mark:
        mark.began(ROOTS, "flow-run", "scan/nightly")
        mark.named("abc")
        (file,) = unfinished_runs(tmp_path / "evidence")
        said = read(file, key.public)
        mark.finished()

    assert (said.outcome, said.run_id, said.flow_run, said.deployment) == ("running", "abc", "flow-run", "scan/nightly")
    assert said.alive is True
    assert unfinished_runs(tmp_path / "evidence") == ()


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [(ValueError("x"), "failed"), (TimeoutError("x"), "timed-out"), (KeyboardInterrupt("x"), "interrupted")],
)
def test_what_ended_a_run_is_stated(tmp_path: Path, key: SigningKey, problem: BaseException, outcome: str) -> None:
    """When this fails, a run that failed cannot be told from one that never was."""
    with pytest.raises(type(problem)):
        _ended_by(problem, tmp_path / "one", key)
    said = read(tmp_path / f"one{SUFFIX}", key.public)

    assert (said.outcome, said.reason) == (outcome, f"{type(problem).__name__}: x")


def test_a_run_that_was_killed_has_said_that_it_began(tmp_path: Path, key: SigningKey) -> None:
    """When this fails, pulling the plug leaves no trace."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom compliance.signing import SigningKey\n"
        "from compliance.unfinished_runs import Mark\nplace = Path(sys.argv[1])\n"
        "with Mark(place / 'one', SigningKey.load_or_create(place / 'keys')) as mark:\n"
        "    mark.began((place,))\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    file = tmp_path / f"one{SUFFIX}"
    said = read(file, key.public)

    assert done.returncode == -9
    assert (said.outcome, said.alive) == ("running", False)
    assert "died without an end" in said.told
    rewrite(file, said, "crashed", "it was killed", key)
    assert read(file, key.public).outcome == "crashed"


def test_a_statement_is_its_keys_alone(tmp_path: Path, key: SigningKey) -> None:
    """When this fails, whoever can write into the folder says of a run what he likes."""
    other = SigningKey.load_or_create(tmp_path / "other")
    with pytest.raises(ValueError, match="x"):
        _ended_by(ValueError("x"), tmp_path / "one", key)
    file = tmp_path / f"one{SUFFIX}"
    said, data = read(file), file.read_bytes()

    with pytest.raises(EvidenceError, match="another key"):
        rewrite(file, said, "cancelled", "by me", other)
    with pytest.raises(AttestationInvalid):
        read(file, other.public)
    envelope = json.loads(data)
    payload = base64.b64decode(envelope["payload"]).replace(b'"failed"', b'"cancelled"')
    file.write_bytes(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}).encode())
    with pytest.raises(AttestationInvalid, match="signature"):
        read(file)
    for broken in (b"", b"{", data[:-9], data + b" ", msgspec.json.encode({**envelope, "payload": "!"})):
        file.write_bytes(broken)
        with pytest.raises(AttestationInvalid):
            read(file)


def test_a_run_is_not_begun_where_nothing_can_be_stated(tmp_path: Path, key: SigningKey) -> None:
    """When this fails, a night's work is done and then cannot be kept."""
    (tmp_path / "file").touch()
    with Mark(tmp_path / "file" / "one", key) as mark, pytest.raises(EvidenceError, match="cannot be written"):
        mark.began(ROOTS)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "keys"]
