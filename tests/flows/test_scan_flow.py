"""The flow, against a server of its own: the same bytes as a plain scan, artifacts, and nothing left open."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]

SCRIPT = """
import http.client, json, os, sys, urllib.parse
from pathlib import Path
from deployments.prefect_server import run_server
from detectors.scan import ScanOptions

def main():
    tree, home, evidence = (Path(argument) for argument in sys.argv[1:4])
    mode = sys.argv[4]
    before = dict(os.environ)
    with run_server(home / "prefect") as url:
        port = urllib.parse.urlsplit(url).port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/api/flows/filter", body="{}", headers={"content-type": "application/json"})
        without_password = connection.getresponse().status
        assert os.environ["PREFECT_API_AUTH_STRING"] not in " ".join(sys.argv)
        import psutil
        family = psutil.Process().children(recursive=True)
        secret = os.environ["PREFECT_API_AUTH_STRING"].split(":")[1]
        assert not [p for p in family if secret in " ".join(p.cmdline())]
        from flows.scan import run_scan_flow
        from prefect.client.orchestration import get_client
        told = []
        options = ScanOptions((tree,), detectors=("power-of-ten-c", "power-of-ten-python", "ruff"), cluster="inline",
                              workers=1, cache=home / "cache")
        if mode == "lost":
            from detectors import scan
            original = scan.Scan._take
            def forgetful(self, batch, result):
                original(self, batch, result)
                for outcome in result.outcomes:
                    self._outcomes.pop((outcome.path, outcome.detector))
            scan.Scan._take = forgetful
        if mode == "worker":
            from flows.scan import scan_flow
            os.environ |= {"DETECTOR_POOL_HOME": str(home), "DETECTOR_POOL_PASSPHRASE": "of the worker"}
            record = scan_flow([str(tree)], evidence=str(evidence / "{started}"), cluster="inline", workers=1,
                               detectors=["power-of-ten-c"], cache=str(home / "cache"))
        else:
            record = run_scan_flow(options, evidence=evidence, keys=home / "keys", progress=lambda *a: told.append(a))
        with get_client(sync_client=True) as client:
            runs = client.read_flow_runs()
            artifacts = client.read_artifacts()
        listening = [c.laddr.ip for p in [psutil.Process(), *psutil.Process().children(recursive=True)]
                     for c in p.net_connections(kind="inet") if c.status == "LISTEN"]
    print(json.dumps({
        "without_password": without_password,
        "digest": record.findings_digest,
        "whole": record.whole,
        "states": [r.state_name for r in runs],
        "names": [r.name for r in runs],
        "artifacts": sorted(a.key for a in artifacts if a.key),
        "listening": sorted(set(listening)),
        "told": len(told),
        "restored": dict(os.environ) == before,
    }))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests here: its migrations take longest."""
    return tmp_path_factory.mktemp("prefect-home")


@pytest.fixture
def flow(tmp_path: Path, home: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the flow in a process of its own and return what it saw."""
    script = tmp_path / "flow.py"
    script.write_text(SCRIPT)

    def run(tree: Path, evidence: Path, mode: str = "plain", *prefix: str) -> dict[str, Any]:
        command = [*prefix, sys.executable, str(script), str(tree), str(home), str(evidence), mode]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)  # and nothing else is on standard output
        return result

    yield run
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]


def test_the_flow_gives_the_same_bytes_behind_a_password(
    flow: Callable[..., dict[str, Any]], scan_json: Callable[..., dict[str, Any]], small_tree: Path, tmp_path: Path
) -> None:
    """Both doors lead to one engine; a stranger on the machine is refused; the environment is as before."""
    seen = flow(small_tree, tmp_path / "evidence")
    plain = scan_json(small_tree, "--detectors", "power-of-ten-c,power-of-ten-python,ruff")

    from compliance.evidence import verify

    assert seen["digest"] == plain["summary"]["findings_digest"]
    assert seen["without_password"] == 401
    assert seen["listening"] == ["127.0.0.1"]
    assert seen["restored"]
    assert seen["told"] > 0
    assert seen["states"][0] == "Completed"
    assert seen["names"][0].startswith("scan-")
    assert {"findings-by-rule", "scan-summary", "scan-progress"} <= set(seen["artifacts"])
    assert verify(tmp_path / "evidence").ok


def test_a_run_that_a_worker_begins_names_its_evidence_and_is_recorded(
    flow: Callable[..., dict[str, Any]], small_tree: Path, tmp_path: Path, home: Path
) -> None:
    """A schedule gives every run the same parameters: the second night must not find its folder taken."""
    flow(small_tree, tmp_path / "nights", "worker")

    from compliance.evidence import verify

    (night,) = (tmp_path / "nights").iterdir()
    verdict = verify(night, ledger=home / "state" / "ledger")
    assert verdict.ok
    assert verdict.ledger is not None
    assert not [file for file in night.iterdir() if b"of the worker" in file.read_bytes()]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_the_flow_needs_no_network(flow: Callable[..., dict[str, Any]], small_tree: Path, tmp_path: Path) -> None:
    """Nothing leaves the machine: with only a loopback device everything still works."""
    shell = (
        "unshare",
        "-rn",
        "--",
        "sh",
        "-c",
        'ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null; exec "$@"',
        "sh",
    )
    probe = subprocess.run([*shell, "sh", "-c", "ip link show lo | grep -q UP"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this system has no way to bring a loopback device up in a namespace")

    seen = flow(small_tree, tmp_path / "evidence", "plain", *shell)

    assert seen["whole"]


def test_a_run_that_is_not_whole_fails_and_says_so(
    flow: Callable[..., dict[str, Any]], small_tree: Path, tmp_path: Path
) -> None:
    """A unit that was planned and never answered: the flow run fails, the evidence says that it is not whole."""
    (small_tree / "new.c").write_text("int only_here;\n")
    seen = flow(small_tree, tmp_path / "evidence", "lost")

    assert not seen["whole"]
    assert "Failed" in seen["states"]
    envelope = json.loads((tmp_path / "evidence" / "attestation.intoto.jsonl").read_text())
    assert b'"whole":false' in base64.b64decode(envelope["payload"])


def test_run_scan_is_a_command(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], small_tree: Path, tmp_path: Path, home: Path
) -> None:
    """With JSON on standard output, exit codes as `scan` has them, evidence that verifies, and a ledger that has it."""
    state = Path(os.environ["DETECTOR_POOL_HOME"]) / "state"
    state.mkdir(parents=True)
    if (
        home / "prefect"
    ).is_dir():  # another test's database saves the migrations; whether one ran before does not matter
        shutil.copytree(home / "prefect", state / "prefect")
    arguments = ("run", "scan", small_tree, "--detectors", "power-of-ten-c", "--fail-on", "warning", "--json")
    locked = {**os.environ, "DETECTOR_POOL_PASSPHRASE": "correct horse"}
    done = pool_command(*arguments, "--evidence", tmp_path / "evidence", env=locked)

    assert done.returncode == 1, done.stderr.decode()
    assert json.loads(done.stdout)["summary"]["whole"]
    anchor = ("--ledger", state / "ledger")
    assert pool_command("evidence", "verify", tmp_path / "evidence", *anchor).returncode == 0
    lines = pool_command("audit", "export", *anchor, env=locked).stdout.splitlines()
    recorded = [json.loads(line)["event"] for line in lines]
    kinds = ["scan.started", "scan.planned", "scan.settled", "evidence.attested", "scan.ended"]
    assert [event["type"] for event in recorded] == kinds
    assert recorded[-1]["outcome"] == "finished"
