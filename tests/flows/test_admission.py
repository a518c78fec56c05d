"""Who may begin a flow run, against a server of its own: nobody without a role, by hand only with a signature, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compliance.run_requests import sign_request
from tests.compliance.access_fixtures import house

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]

SCRIPT = """
import json, sys
from pathlib import Path
from deployments.prefect_server import run_server

def main():
    home, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    outcomes = {}
    with run_server(home / "prefect"):
        from detectors.scan import ScanOptions
        from flows.scan import run_scan_flow, scan_flow
        from prefect.client.orchestration import get_client
        from prefect.flow_engine import run_flow

        def told(name, run):
            try:
                outcomes[name] = "ran " + str(len(run().files))
            except Exception as problem:
                outcomes[name] = f"{type(problem).__name__}: {problem}"

        options = ScanOptions(tuple(map(Path, given["paths"])), detectors=("ruff",), cluster="inline", workers=1)
        told("no deployment", lambda: run_scan_flow(options, evidence=None, keys=home / "keys"))
        with get_client(sync_client=True) as client:
            deployment = client.create_deployment(client.create_flow(scan_flow), "nightly")
            fixed = {"paths": given["paths"], "detectors": ["ruff"], "cluster": "inline", "workers": 1}
            for name, more in (
                ("by hand", {}),
                ("signed", {"request": given["request"]}),
                ("replayed", {"request": given["request"]}),
                ("other parameters", {"request": given["other"], "workers": 2}),
                ("nobody's request", {"request": given["nobody"]}),
            ):
                made = client.create_flow_run_from_deployment(deployment, parameters={**fixed, **more})
                told(name, lambda: run_flow(scan_flow, flow_run=made, parameters=made.parameters))
            outcomes["states"] = sorted({run.state_name for run in client.read_flow_runs()})
    print(json.dumps(outcomes))

if __name__ == "__main__":
    main()
"""


def test_a_flow_run_begins_for_who_may(tmp_path: Path) -> None:
    """When this fails, Prefect's server decides who runs code here, and it knows nobody."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("import os\n")
    place = house(Path(os.environ["DETECTOR_POOL_HOME"]) / "state", mine=("viewer",))
    parameters = {"paths": [str(tree)], "detectors": ["ruff"], "cluster": "inline", "workers": 1}
    signed = [sign_request(place.requester, place.policy, "scan/nightly", parameters, 3600) for _ in range(2)]
    given = {"paths": [str(tree)], "request": signed[0], "other": signed[1], "nobody": signed[0][:-8] + "AAAAAAAA"}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), json.dumps(given)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["no deployment"].startswith("AccessDenied: you may not run 'ruff'")
    assert found["by hand"].startswith("AccessDenied: you may not run 'scan/nightly': who asks for a run by hand signs")
    assert found["signed"] == "ran 1"
    assert "used before" in found["replayed"]
    assert "other parameters than were signed: workers" in found["other parameters"]
    assert "IdentityUnproven" in found["nobody's request"]
    assert found["states"] == ["Completed", "Failed"]
