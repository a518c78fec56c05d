"""`detector-pool deploy`: what a file declares is on the server, once, and what is the same is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.schedules import declaration_file, declared
from detectors.errors import UsageError

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[bytes]]
SCRIPT = """
import json, subprocess, sys
from pathlib import Path
from deployments.prefect_server import run_server

def main():
    home, outside, changed = (Path(argument) for argument in sys.argv[1:])
    seen = {}
    with run_server(home):
        def deploy(name, *arguments):
            command = [sys.executable, "-m", "deployments.cli", "deploy", "--json", *arguments]
            done = subprocess.run(command, cwd=outside, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr + done.stdout
            told = json.loads(done.stdout)["applied"]
            seen[name] = [[one["name"], one["did"], one["changed"]] for one in told]

        from prefect.client.orchestration import get_client
        deploy("one", "nightly")
        deploy("all")
        with get_client(sync_client=True) as client:
            before = client.read_deployment_by_name("scan/nightly")
            deploy("again")
            after = client.read_deployment_by_name("scan/nightly")
            seen["untouched"] = before == after
            seen["limit"] = client.read_work_pool("detector-pool").concurrency_limit
            (schedule,) = after.schedules
            client.update_deployment_schedule(after.id, schedule.id, active=True)
        deploy("drifted", "--pool-limit", "3")
        deploy("file", "--file", str(changed))
        with get_client(sync_client=True) as client:
            seen["slugs"] = [s.slug for s in client.read_deployment_by_name("scan/nightly").schedules]
        done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], cwd=sys.path[0],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        deploy("after prefect")
    print(json.dumps(seen))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
def test_a_server_has_what_the_file_declares(tmp_path: Path) -> None:
    """Registering what is the same throws its scheduled runs away; leaving what differs runs another night than asked."""
    changed = tmp_path / "prefect.yaml"
    text = (ROOT / "prefect.yaml").read_text()
    changed.write_text(
        text.replace("slug: nightly", "slug: evening").replace('cron: "0 2 * * *"', 'cron: "0 22 * * *"')
    )
    script = tmp_path / "deployed.py"
    script.write_text(SCRIPT.replace("sys.path[0]", repr(str(ROOT))))
    (tmp_path / "outside").mkdir()
    command = [sys.executable, str(script), str(tmp_path / "prefect"), str(tmp_path / "outside"), str(changed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    names = ["detector-pool", "scan/nightly", "comply/compliance", "audit/integrity"]
    known = [name for name, _, _ in seen["all"]]
    same = [[name, "unchanged", []] for name in known]

    assert known[: len(names)] == names
    assert seen["one"] == [[names[0], "created", []], [names[1], "created", []]]
    assert [did for _, did, _ in seen["all"]] == ["unchanged", "unchanged", *["created"] * (len(known) - 2)]
    assert seen["again"] == same
    assert seen["untouched"]
    assert seen["limit"] == 2
    assert seen["drifted"][:2] == [[names[0], "updated", ["concurrency_limit"]], [names[1], "updated", ["schedules"]]]
    assert seen["drifted"][2:] == same[2:]
    assert seen["file"][1] == [names[1], "updated", ["schedules"]]
    assert seen["slugs"] == ["evening"]
    # Prefect's own command keeps the schedule that was renamed; ours takes it away, and finds nothing else to do.
    assert [row for row in seen["after prefect"] if row[1] != "unchanged"] == [[names[1], "updated", ["schedules"]]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("cron:", "corn:"), "corn"),
        (("CANCEL_NEW", "CANCEL"), "CANCEL"),
        (("name: compliance", "name: nightly"), "two deployments of one name"),
        (("deployments:", "deployments: ["), "declares no deployments"),
    ],
)
def test_a_file_that_says_what_is_not_known_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    """A mistyped key that is passed over is a schedule that never runs."""
    file = tmp_path / "prefect.yaml"
    file.write_text(declaration_file().read_text().replace(*change))

    with pytest.raises(UsageError, match=told):
        declared(file)


def test_what_cannot_be_deployed_is_told_before_any_server(pool_command: Run, tmp_path: Path) -> None:
    """When this fails, a server is brought up, or half of a file registered, before a mistake is told."""
    for arguments, told in (
        ((), b"PREFECT_API_URL"),
        (("nobody",), b"has no deployment nobody; it has nightly"),
        (("--file", tmp_path / "none"), b"cannot be read"),
    ):
        done = pool_command("deploy", *arguments)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr

    printed = pool_command("deploy", "--print")
    assert printed.stdout == (ROOT / "prefect.yaml").read_bytes()


def test_a_server_that_does_not_answer_is_named(pool_command: Run) -> None:
    """When this fails, an operator reads a traceback instead of what to look at."""
    done = pool_command("deploy", env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"})

    assert done.returncode == 3
    assert b"the Prefect server http://127.0.0.1:9/api did not do it" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_installed_package_has_its_deployments(tmp_path: Path) -> None:
    """Without the file in the wheel, only who has the repository can deploy."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        assert opened.read("deployments/prefect.yaml") == (ROOT / "prefect.yaml").read_bytes()

    assert "deployments/templates/nginx.conf.j2" in names
