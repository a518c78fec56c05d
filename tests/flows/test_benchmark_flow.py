"""The flow `benchmark`, against a server of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from deployments.prefect_server import run_server

def main():
    with run_server(Path(sys.argv[2])):
        from flows.benchmark import FiguresMissed, benchmark_flow, run_benchmark_flow
        from prefect.client.orchestration import get_client

        sources, kept = Path(sys.argv[1]), Path(sys.argv[3])
        run = run_benchmark_flow(sources, mode="quick", dimensions=["io"], remembered=kept, workers=2)
        try:
            benchmark_flow(paths=[str(sources)], mode="quick", dimensions=["nonsense"])
            refused = ""
        except Exception as problem:
            refused = f"{type(problem).__name__}: {problem}"
        with get_client(sync_client=True) as client:
            states = sorted(one.state_name for one in client.read_flow_runs())
            artifacts = {one.key: one.data for one in client.read_artifacts()}
    print(json.dumps({"run": run.run, "figures": [one.name for one in run.figures], "states": states,
                      "artifacts": artifacts, "refused": refused}))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
@pytest.mark.timeout(600)
def test_a_benchmark_publishes_table_plots_and_trend(tmp_path: Path) -> None:
    """When this fails, the weekly benchmark runs, and nobody sees in Prefect what it found."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in sorted((ROOT / "detectors").glob("*.py"))[:12]:
        (sources / path.name).write_bytes(path.read_bytes())
    script = tmp_path / "run_flow.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), str(sources), str(tmp_path / "server"), str(tmp_path / "kept")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])

    artifacts = seen["artifacts"]
    figures = json.loads(artifacts["benchmark-figures"])
    assert {row["figure"] for row in figures} == set(seen["figures"]) >= {"read-cold", "written-warm"}
    assert len(json.loads(artifacts["benchmark-aims"])) == 15
    assert artifacts["benchmark-distribution"].startswith("data:image/png;base64,")
    assert artifacts["benchmark-timeline"].startswith("data:image/png;base64,")
    assert "| read-cold (ratio) |" in artifacts["benchmark-summary"]
    assert seen["states"] == ["Completed", "Failed"]
    assert "there is no dimension nonsense" in seen["refused"]
    assert (tmp_path / "kept" / "history.jsonl").read_text().count(seen["run"]) == 1
