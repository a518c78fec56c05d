"""`detector-pool access` as an administrator and an auditor use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from compliance.access_policy import Policy
from compliance.access_review import review_of
from compliance.identity import AccessPlaces
from compliance.run_requests import admitted
from deployments.cli import app
from detectors.errors import UsageError
from tests.compliance.access_fixtures import ME, House, house

LINES = [
    {"event": "access-denied", "action": "run", "who": {"name": "alice", "kind": "token", "roles": ["auditor"]}},
    {"event": "access-denied", "action": "run", "who": {"name": "alice", "kind": "token", "roles": ["auditor"]}},
    {"type": "scan.started", "who": {"user": "bob", "uid": 7}},
    {"type": "scan.started", "who": {"user": "gone", "uid": 8}},
    {"type": "scan.ended"},
]


@pytest.fixture
def home() -> House:
    """A policy in the state folder of the test."""
    return house(Path(os.environ["DETECTOR_POOL_HOME"]) / "state")


def _run(capfdbinary: pytest.CaptureFixture[bytes], *words: str | Path) -> tuple[int, Any]:
    """Run a command in this process with `--json`; return its exit code and what it printed."""
    code = get_command(app)(args=[*map(str, words), "--json"], standalone_mode=False)
    return int(code or 0), json.loads(capfdbinary.readouterr().out)


def test_a_policy_is_begun_and_never_replaced(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, `access init` makes a policy that is none, or overwrites one that somebody wrote."""
    code, made = _run(capfdbinary, "access", "init")
    file = Path(made["policy"])

    policy = Policy.read(file)
    assert code == 0
    assert policy.file.users == {ME: ("administrator",)}
    assert made["digest"] == policy.digest
    assert (file.stat().st_mode & 0o777, AccessPlaces.read().policy) == (0o600, file)
    with pytest.raises(UsageError, match="exists"):
        _run(capfdbinary, "access", "init")


def test_the_policy_is_shown_whole(home: House, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, an auditor cannot see what counted."""
    code, shown = _run(capfdbinary, "access", "policy")

    assert (code, shown["digest"], shown["policy"]) == (0, home.policy.digest, str(home.file))
    assert shown["users"] == {ME: ["administrator"], "bob": ["auditor"]}
    assert [one["key"] for one in shown["issuers"]] == [home.issuer.public.id]
    assert "registered-roles" in shown["rules"]
    home.file.unlink()
    assert _run(capfdbinary, "access", "policy")[1]["policy"] is None


def test_a_check_decides_and_explains(home: House, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, nobody can find out why he was refused."""
    assert home.file.is_file()
    asked = ("access", "check", "--target", "ruff", "--action")
    allowed = _run(capfdbinary, *asked, "run")
    other = _run(capfdbinary, *asked, "run", "--user", "bob")
    needs = _run(capfdbinary, *asked, "run", "--needs", "crypto")

    assert (allowed[0], allowed[1]["rules"], allowed[1]["who"]["name"]) == (0, ["administrators"], ME)
    assert (other[0], other[1]["reason"], other[1]["who"]["roles"]) == (1, "no rule permits it", ["auditor"])
    assert (needs[0], needs[1]["rules"]) == (1, ["registered-roles"])
    with pytest.raises(UsageError, match="--action takes one of"):
        _run(capfdbinary, *asked, "destroy")


def test_a_token_goes_into_a_private_file_and_nowhere_else(
    home: House, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """When this fails, tokens stand in logs and terminals."""
    file = tmp_path / "alice.token"
    words = ("access", "token", "alice", "--role", "auditor", "--output", file, "--keys", home.state / "issuer")
    code, shown = _run(capfdbinary, *words)

    assert (code, file.stat().st_mode & 0o777) == (0, 0o600)
    assert file.read_text().strip() not in json.dumps(shown)
    for changed, told in (
        ((*words[:-1], home.state / "stranger"), "no issuer"),
        ((*words[:-1], home.state / "none"), "no issuer's key"),
        ((*words, "--for", "2d"), "lives at most"),
        ((*words, "--for", "soon"), "a time is a number"),
        ((*words, "--for", "5s"), "shorter than a minute"),
        (words, "exists"),
    ):
        with pytest.raises(UsageError, match=told):
            _run(capfdbinary, *changed)


def test_a_key_and_a_request_are_what_the_flow_takes(home: House, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, what the command prints for a deployment is refused by it."""
    _, key = _run(capfdbinary, "access", "key", home.state / "requester")
    words = ("access", "request", "scan/nightly", "--keys", home.state / "requester", "-p")
    _, signed = _run(capfdbinary, *words, 'paths=["src"]')

    who = admitted(
        signed["request"], home.policy, deployment="scan/nightly", parameters={"paths": ["src"]}, defaults={},
        used=home.state / "used",
    )  # fmt: skip
    assert (key["key"], who.name) == (home.requester.public.id, "the requester")
    for bad, told in (("paths=src", "no JSON"), ("paths", "no JSON|NAME=JSON"), ("=1", "NAME=JSON")):
        with pytest.raises(UsageError, match=told):
            _run(capfdbinary, *words, bad)
    with pytest.raises(UsageError, match="each name once"):
        _run(capfdbinary, *words, "a=1", "-p", "a=2")


def test_a_review_says_who_may_who_did_and_who_was_refused(
    home: House, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """When this fails, somebody who has left and still works is not seen."""
    export = tmp_path / "events.jsonl"
    lines = [json.dumps({"index": n, "time": "", "event": event}) for n, event in enumerate(LINES)]
    export.write_text("\n".join([*lines, "", json.dumps({"checkpoint": "x"})]) + "\n")

    code, found = _run(capfdbinary, "access", "review", export)
    people = {(one["kind"], one["name"]): one for one in found["people"]}

    assert (code, found["records"], found["policy"]) == (1, 5, home.policy.digest)
    assert people["token", "alice"]["refused"] == {"run": 2}
    assert people["token", "alice"]["may"] == ["read", "verify"]
    assert people["user", "bob"]["did"] == {"scan.started": 1}
    assert [key for key, one in people.items() if one["stale"]] == [("user", "gone")]
    assert people["user", ME]["may"] == ["run", "register", "read", "verify", "administer", "waive", "approve"]
    assert people["service", "the service"]["may"] == ["run", "verify"]


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b"\xff\n", b"[" * 9000, b"x" * ((4 << 20) + 1)])
def test_a_line_that_is_no_record_is_named(line: bytes) -> None:
    """When this fails, a damaged export is half read, and the review looks whole."""
    with pytest.raises(UsageError, match="line 2"):
        review_of(None, [b'{"event": {}}\n', line])


def test_a_review_reads_a_real_export(tmp_path: Path) -> None:
    """When this fails, the ledger and the review have grown apart."""
    environment = {**os.environ, "DETECTOR_POOL_PASSPHRASE": "secret"}

    def run(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "deployments.cli", *words]
        return subprocess.run(command, env=environment, input=given, capture_output=True, check=False)

    ledger = ("--ledger", str(tmp_path / "ledger"))
    run("audit", "init", *ledger)
    run("audit", "append", *ledger, given="\n".join(map(json.dumps, LINES)).encode())
    exported = run("audit", "export", *ledger).stdout
    reviewed = run("access", "review", "-", given=exported)

    assert reviewed.returncode == 0, reviewed.stderr
    assert b"token alice: roles auditor; may nothing everywhere; did nothing; refused run 2" in reviewed.stdout
    assert b"5 records, 3 people" in reviewed.stdout


def test_a_review_of_real_runs_says_who_did_and_was_refused_where_and_since_when(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """When this fails, rules for single trees are not seen in a review, or a real run or denial is not counted."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for tree in (ours, theirs):
        tree.mkdir()
        (tree / "a.py").write_text("x = 1\n")
    rules = f"""
    @id("ours") permit (principal in Role::"developer", action == Action::"run", resource)
    when {{ context.tree like "{ours}*" }};
    @id("look") permit (principal in Role::"developer", action in [Action::"read", Action::"verify"], resource);
    @id("a") permit (principal in Role::"auditor", action == Action::"read", resource);
    @id("s") permit (principal in Role::"service", action == Action::"run", resource);
    """
    state = Path(os.environ["DETECTOR_POOL_HOME"]) / "state"
    house(state, ("developer",), rules)
    environment = {**os.environ, "DETECTOR_POOL_PASSPHRASE": "secret"}

    def run(*words: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "deployments.cli", *map(str, words)]
        return subprocess.run(command, env=environment, input=given, capture_output=True, check=False)

    detector = ("--detectors", "power-of-ten-python", "--fail-on", "never")
    allowed = run("scan", ours, *detector, "--evidence", tmp_path / "evidence")
    denied = run("scan", theirs, *detector)
    exported = b"".join(run("audit", "export", "--ledger", state / name).stdout for name in ("ledger", "pool-ledger"))
    text = run("access", "review", "-", given=exported)
    export = tmp_path / "events.jsonl"
    export.write_bytes(exported)
    _, found = _run(capfdbinary, "access", "review", export)
    (me,) = (one for one in found["people"] if (one["kind"], one["name"]) == ("user", ME))

    assert (allowed.returncode, denied.returncode) == (0, 6), (allowed.stderr, denied.stderr)
    assert (me["roles"], me["may"], me["may_on"][f"{ours}*"]) == (["developer"], ["read", "verify"], ["run"])
    assert (me["did"], me["did_on"]) == ({"scan.started": 1}, [str(ours)])
    assert (me["refused"], me["refused_on"]) == ({"run": 1}, [str(theirs)])
    assert me["did_first"] == me["did_last"] != ""
    assert me["refused_first"] >= me["did_first"]
    assert f"on {ours}*: may run, too".encode() in text.stdout
    assert f"was refused on {theirs}".encode() in text.stdout
