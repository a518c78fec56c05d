"""`detector-pool audit` as an operator and an auditor use it: output and exit codes."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Audit = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """Run `detector-pool audit`, in an environment with a passphrase, on the ledger of the test."""

    def run(
        command: str, *arguments: str | Path, given: bytes = b"", **changes: str | None
    ) -> subprocess.CompletedProcess[bytes]:
        environment: dict[str, str] = {
            **os.environ,
            "DETECTOR_POOL_PASSPHRASE": "secret",
            "DETECTOR_POOL_HOME": str(tmp_path / "home"),
        }
        for name, value in changes.items():
            environment.pop(name, None)
            if value is not None:
                environment[name] = value
        words = [sys.executable, "-m", "deployments.cli", "audit", command, "--ledger", str(tmp_path / "ledger")]
        return subprocess.run(
            [*words, *map(str, arguments)], input=given, env=environment, capture_output=True, timeout=120, check=False
        )

    return run


def _json(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_ledger_from_making_to_export(audit: Audit, tmp_path: Path) -> None:
    """The way that every user goes."""
    made = audit("init", "--segment-records", "4", "--json")
    appended = audit("append", given=b'{"n": 1}\n\n{"n": 2}')
    assert (made.returncode, appended.returncode) == (0, 0), made.stderr + appended.stderr
    assert appended.stdout == b'{"index":0}\n{"index":1}\n'
    noted = audit("checkpoint", DETECTOR_POOL_PASSPHRASE=None)
    (tmp_path / "kept").write_bytes(noted.stdout)
    audit("append", given=b'{"n": 3}\n')
    verified = audit("verify", "--json", "--checkpoint", tmp_path / "kept", DETECTOR_POOL_PASSPHRASE=None)
    exported = audit("export")
    shown = audit("show", "--index", "2")
    summary = audit("show", "--json")
    rotated = audit("rotate", "--reason", "test", "--json")
    by_key = audit("verify", "--public-key", _json(made)["public_key"])

    verdict = _json(verified)
    assert verified.returncode == 0
    assert {name: verdict[name] for name in ("ok", "verdict", "records", "first_bad_index", "problem", "anchored")} == {
        "ok": True, "verdict": "intact", "records": 3, "first_bad_index": None, "problem": None, "anchored": True,
    }  # fmt: skip
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert [(line["index"], line["event"]) for line in lines] == [(0, {"n": 1}), (1, {"n": 2}), (2, {"n": 3})]
    assert json.loads(shown.stdout) == lines[2]
    assert (_json(summary)["records"], _json(summary)["origin"]) == (3, _json(made)["origin"])
    assert (rotated.returncode, _json(rotated)["index"]) == (0, 3)
    assert (by_key.returncode, by_key.stdout) == (0, b"intact: 4 records, held against what you kept elsewhere\n")


def test_each_kind_of_trouble_has_its_exit_code(audit: Audit, tmp_path: Path) -> None:
    """Scripts that watch a ledger tell tampering from a wrong passphrase by these numbers."""
    assert audit("verify").returncode == 2
    assert audit("init", DETECTOR_POOL_PASSPHRASE=None).returncode == 2
    assert audit("init").returncode == 0
    assert audit("init").returncode == 2
    assert audit("append", given=b'{"n": 1}\n{"n": 2}\n').returncode == 0
    assert audit("append", given=b'{"n": 3}\n', DETECTOR_POOL_PASSPHRASE="wrong").returncode == 6
    assert audit("append", given=b'{"n": 3}\n', DETECTOR_POOL_PASSPHRASE=None).returncode == 6
    assert audit("append", "--keys", tmp_path / "none", given=b'{"n": 3}\n').returncode == 6
    assert audit("verify", DETECTOR_POOL_PASSPHRASE="wrong").returncode == 6
    (tmp_path / "empty").touch()
    assert audit("verify", "--checkpoint", tmp_path / "empty").returncode == 2
    assert audit("verify", "--public-key", tmp_path / "empty").returncode == 2
    assert audit("show", "--index", "9").returncode == 2
    descriptor = os.open(tmp_path / "ledger", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    busy = audit("append", given=b'{"n": 3}\n')
    os.close(descriptor)
    assert (busy.returncode, b"another writer" in busy.stderr) == (5, True)
    segment = tmp_path / "ledger" / "0000000000.segment"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1])
    torn = audit("verify", "--json")
    assert (torn.returncode, _json(torn)["verdict"], _json(torn)["ok"]) == (4, "recoverable", False)
    segment.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    bad = audit("verify", "--json", DETECTOR_POOL_PASSPHRASE=None)
    assert (bad.returncode, _json(bad)["verdict"], _json(bad)["first_bad_index"]) == (1, "tampered", 0)
    assert audit("append", given=b'{"n": 3}\n').returncode == 1
    assert audit("export").returncode == 1
    assert audit("recover").returncode == 1
    segment.write_bytes(whole[:-1])
    recovered = audit("recover", "--json")
    assert (recovered.returncode, _json(recovered)["index"]) == (0, 0)
    assert audit("verify").returncode == 0


@pytest.mark.parametrize(
    ("given", "told", "index"),
    [
        (b'{"n": 1}\nnonsense\n{"n": 2}\n', b"line 2", 1),
        (b"[1]\n", b"line 1", 0),
        (b"[" * 5000, b"line 1", 0),
        (b"x" * 3_000_000, b"longer", 0),
    ],
)
def test_a_bad_line_is_named_and_those_before_it_are_kept(audit: Audit, given: bytes, told: bytes, index: int) -> None:
    """An operator must know where to go on from."""
    audit("init")
    done = audit("append", given=given)

    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert done.stdout.count(b"index") == index


def test_appending_starts_and_answers_line_by_line(audit: Audit, tmp_path: Path) -> None:
    """A program that waits for each acknowledgement must not wait for the end of its own input."""
    audit("init")
    environment = {**os.environ, "DETECTOR_POOL_PASSPHRASE": "secret", "DETECTOR_POOL_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-m", "deployments.cli", "audit", "append", "--ledger", str(tmp_path / "ledger")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(b'{"n": %d}\n' % number)
            process.stdin.flush()

            assert json.loads(process.stdout.readline()) == {"index": number}
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_retention_is_told_before_and_after(audit: Audit, tmp_path: Path) -> None:
    """An operator must see what went, and an auditor that it went by the owner's word; other keys of the answer stay."""
    audit("init", "--segment-records", "2")
    for number in range(4):
        audit("append", given=b'{"n": %d}\n{"n": %d}' % (2 * number, 2 * number + 1))
    early = audit("checkpoint")
    (tmp_path / "early").write_bytes(early.stdout.replace(b"\n8\n", b"\n3\n"))
    nothing = audit("retain", "--keep-days", "1", "--json")
    done = audit("retain", "--keep-records", "3", "--json")
    asked = audit("retain")
    verified = audit("verify")
    answer = _json(audit("verify", "--json"))
    forged = audit("verify", "--checkpoint", tmp_path / "early")
    gone = audit("show", "--index", "0")
    min((tmp_path / "ledger").glob("*.segment")).unlink()
    removed = audit("verify")

    assert (_json(nothing)["released_records"], _json(nothing)["index"]) == (0, None)
    assert (_json(done)["released_records"], _json(done)["first_index"], _json(done)["index"]) == (4, 4, 8)
    assert (asked.returncode, b"needs to know what to keep" in asked.stderr) == (2, True)
    assert verified.stdout.startswith(b"intact from record 4 on: 5 records verified, self-consistent only")
    assert b"the 4 records before record 4, in 2 segments" in verified.stdout
    assert (answer["verdict"], answer["records"], answer["first_index"]) == ("intact", 9, 4)
    assert answer["released"]["checkpoint"] == _json(done)["checkpoint"]
    assert (forged.returncode, b"no key of this ledger signed it" in forged.stderr) == (2, True)
    assert (gone.returncode, b"has no record 0" in gone.stderr) == (2, True)
    assert (removed.returncode, b"segment 2 is missing, and was not released" in removed.stdout) == (1, True)
