"""The flows `comply` and `audit`, against a server of their own: what does not hold fails the run and is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compliance.evidence import collect
from compliance.ledger import Ledger
from compliance.signing import SigningKey
from tests.compliance.conftest import make_run
from tests.compliance.test_run_trail import make_evidence, place_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect"), pytest.mark.timeout(600)]
SECRET = b"a passphrase of the test"

SCRIPT = """
import json, os, sys, warnings
from pathlib import Path
from deployments.prefect_server import run_server

def read():
    from prefect.client.orchestration import get_client
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
        artifacts = client.read_artifacts()
    newest = max(runs, key=lambda run: run.created)
    mine = {a.key: a.data for a in artifacts if a.key and a.flow_run_id == newest.id}
    return {"state": newest.state_name, "artifacts": mine}

def main():
    place = Path(sys.argv[1])
    seen = {}
    with run_server(Path(sys.argv[2])):
        from detectors.alerts import CallbackSink
        from detectors.errors import DetectorPoolError
        from detectors.scan import ScanOptions
        from flows.audit import audit_flow, run_audit_flow
        from flows.comply import comply_flow, run_comply_flow
        from flows.scan import run_scan_flow
        from compliance import expectations

        def audit(name, **changes):
            told = []
            asked = {"ledger": place / "ledger", "evidence": place / "evidence", "last": 2,
                     "checkpoint": place / "kept", **changes}
            try:
                report = run_audit_flow(**asked, sinks=(CallbackSink(told.append),))
                seen[name] = {"ok": report.ok, "verified": [[Path(v.what).name, v.ok, v.anchored] for v in report.verified]}
            except DetectorPoolError as problem:
                seen[name] = {"refused": type(problem).__name__}
            seen[name] |= {"alerts": [[a.check, Path(a.subject).name, a.level] for a in told], **read()}

        audit("holds")
        file = place / "evidence" / "third" / "findings.sarif"
        sound = file.read_bytes()
        file.write_bytes(sound + b" ")
        audit("edited")
        file.write_bytes(sound)
        started = place / "evidence" / "first" / "run.json"
        whole = started.read_bytes()
        started.write_bytes(b"{")
        audit("damaged", ledger=None, checkpoint=None)
        started.write_bytes(whole)
        audit("older", ledger=place / "older")
        audit("nothing", evidence=place / "empty")
        runs = {"ledger": place / "runs-ledger", "evidence": place / "runs", "checkpoint": None}
        audit("attested", **runs)
        (place / "runs" / "lost").rename(place / "taken")
        audit("removed", **runs)

        options = ScanOptions((place / "tree",), cache=place / "cache", cluster="inline", workers=1)
        report = run_comply_flow(options, ledger=place / "ledger")
        seen["comply"] = {"score": report.score.score, "controls": [c.id for c in report.controls], **read()}
        low = run_comply_flow(options, fail_under=100, try_controls=False)
        seen["low"] = {"score": low.score.score, **read()}

        scan = ScanOptions((place / "tree",), cache=place / "cache", detectors=("power-of-ten-python",), cluster="inline", workers=1)
        good = run_scan_flow(scan, evidence=place / "validated", keys=place / "keys", passphrase=b"a passphrase of the test", validate_tables=True)
        seen["validated"] = {"outcomes": [c.outcome for c in good.validated], **read()}
        original = expectations.completeness_table
        def forgetful(run):
            import msgspec
            cached = run.cached - 1 if run.cached else 0
            lost = {"planned": run.planned - 1, "cached": cached, "executed": run.planned - 1 - cached}
            return original(msgspec.structs.replace(run, units=run.units[1:], **lost))
        expectations.completeness_table = forgetful
        bad = run_scan_flow(scan, evidence=place / "invalid", keys=place / "keys", passphrase=b"a passphrase of the test", validate_tables=True)
        seen["invalid"] = {"outcomes": [c.outcome for c in bad.validated], **read()}
    print(json.dumps(seen, default=str))

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all flows showed, run one after another on one server."""
    place = tmp_path_factory.mktemp("audited")
    Ledger.create(place / "ledger", place / "keys", SECRET)
    with Ledger.open(place / "ledger", place / "keys", SECRET) as ledger:
        ledger.append({"type": "first"})
        shutil.copytree(place / "ledger", place / "older")
        (place / "kept").write_bytes(ledger.append({"type": "second"}).checkpoint)
    key = SigningKey.load_or_create(place / "keys", SECRET)
    (place / "evidence").mkdir()
    (place / "empty").mkdir()
    import msgspec

    for month, name in enumerate(("first", "second", "third"), 1):
        run = msgspec.structs.replace(make_run(), started=f"2026-0{month}-02T03:04:05.678Z")
        _ = collect(run, place / "evidence" / name, key)
    (place / "runs").mkdir()
    for name, run_id in (("lost", "a" * 32), ("left", "b" * 32)):
        run = msgspec.structs.replace(make_run(), run_id=run_id)
        _ = make_evidence(place / "runs" / name, place_of(place, "runs-ledger"), key, run)
    (place / "tree").mkdir()
    (place / "tree" / "a.py").write_text("def f(n: int) -> int:\n    return eval(str(n))\n")
    script = place / "audited.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(place), str(tmp_path_factory.mktemp("prefect"))]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=560, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_an_audit_misses_a_run_whose_evidence_was_removed(seen: dict[str, Any]) -> None:
    """Evidence that is gone cannot speak; when this fails, whoever deletes a run's folder deletes the run."""
    attested, removed = seen["attested"], seen["removed"]

    assert (attested["ok"], len(attested["verified"])) == (True, 3)
    assert (removed["ok"], removed["state"]) == (False, "Failed")
    assert removed["verified"][1:] == [[f"run {'a' * 32}", False, False], ["left", True, False]]
    assert removed["alerts"] == [["integrity", f"run {'a' * 32}", "critical"]]


def test_an_audit_holds_the_ledger_and_the_newest_runs_against_anchors(seen: dict[str, Any]) -> None:
    """When this fails, an audit verifies something else than it says, or a good audit fails."""
    holds = seen["holds"]

    assert holds["ok"]
    assert holds["verified"] == [["ledger", True, True], ["third", True, False], ["second", True, False]]
    assert holds["alerts"] == []
    assert holds["state"] == "Completed"
    assert {"audit-integrity", "audit-summary"} <= holds["artifacts"].keys()


@pytest.mark.parametrize(("case", "bad"), [("edited", "third"), ("damaged", "first"), ("older", "older")])
def test_what_was_changed_fails_the_run_and_raises_an_alert(seen: dict[str, Any], case: str, bad: str) -> None:
    """When this fails, tampering is a line in a log that nobody reads; a damaged run drops out of the newest."""
    assert not seen[case]["ok"]
    assert seen[case]["state"] == "Failed"
    assert seen[case]["alerts"] == [["integrity", bad, "critical"]]
    assert [name for name, ok, _ in seen[case]["verified"] if not ok] == [bad]
    assert "INTEGRITY FAILED" in seen[case]["artifacts"]["audit-summary"]


def test_an_audit_of_nothing_is_refused(seen: dict[str, Any]) -> None:
    """When this fails, an empty folder audits well."""
    assert seen["nothing"]["refused"] == "UsageError"
    assert seen["nothing"]["state"] == "Failed"


def test_comply_publishes_score_and_controls(seen: dict[str, Any]) -> None:
    """When this fails, the flow and the command disagree, or an operator sees nothing in Prefect's UI."""
    comply = seen["comply"]

    assert comply["state"] == "Completed"
    assert len(comply["controls"]) == 8
    assert 0 < comply["score"] < 100
    assert {"power-of-ten", "operational-controls", "compliance-summary"} <= comply["artifacts"].keys()
    assert f"{comply['score']:.1f} %" in comply["artifacts"]["compliance-summary"]


def test_a_low_score_fails_the_run(seen: dict[str, Any]) -> None:
    """When this fails, a night's run under the threshold is green."""
    assert seen["low"]["score"] == seen["comply"]["score"]
    assert seen["low"]["state"] == "Failed"
    assert "NOT COMPLIANT" in seen["low"]["artifacts"]["compliance-summary"]


def test_validation_is_a_stage_of_the_scan(seen: dict[str, Any]) -> None:
    """When this fails, tables that lost a row are sealed by a green run."""
    assert seen["validated"]["outcomes"] == ["passed"] * 3
    assert seen["validated"]["state"] == "Completed"
    assert "data-quality" in seen["validated"]["artifacts"]
    assert seen["invalid"]["outcomes"] == ["passed", "failed", "passed"]
    assert seen["invalid"]["state"] == "Failed"


def test_the_command_says_what_an_audit_needs(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """When this fails, a server is brought up to be told of a typing mistake."""
    for arguments in ((), ("--checkpoint", tmp_path / "kept", "--evidence", tmp_path)):
        done = pool_command("run", "audit", *arguments)
        assert done.returncode == 2, done.stderr
        assert b"--ledger" in done.stderr
