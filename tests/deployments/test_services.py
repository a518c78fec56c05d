"""
docs/how-to-deploy.md from nothing to a nightly run, with real PostgreSQL, Prefect server, TLS front and worker; then
each of them killed in the middle of a run.

The page's blocks are run as they stand. What docs/operations.md says of each death is held here.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from compliance.evidence import verify
from compliance.signing import VerifyingKey
from compliance.unfinished_runs import SUFFIX, UnfinishedRun, read
from tests.deployments.service_stack import (
    PROGRAMS,
    Postgres,
    Service,
    free_ports,
    left_over,
    postgres_programs,
    scratch,
    settings,
    unit_service,
    until,
)
from tests.detectors import third_party
from tests.faults.test_killed import Gate

pytestmark = [
    pytest.mark.system,
    pytest.mark.xdist_group("services"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(postgres_programs() is None, reason="needs postgresql: tests/system_packages.sh"),
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx: tests/system_packages.sh"),
]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to-deploy.md").read_text()
VALUES, MAKE, DATABASE, WAIT, DEPLOY, RUN, VERIFY = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
NAMES = re.findall(r"^([A-Z_]+)=", VALUES, re.MULTILINE)
BY_HAND = """\
  - name: by-hand
    version: 0.1.0
    description: Scans that a test begins, beside the nightly one.
    entrypoint: flows.scan.scan_flow
    parameters: {paths: [/nowhere], workers: 1, cluster: inline}
    concurrency_limit: {limit: 2, collision_strategy: ENQUEUE}
    work_pool: {name: detector-pool, job_variables: {stream_output: false}}
"""


CLIENT = 'set -a; . "$PLACE/client.env"; set +a'


class Api:
    """The Prefect server through its front, as a client that trusts the authority and has the password."""

    def __init__(self, client_env: dict[str, str]) -> None:
        user, password = client_env["PREFECT_API_AUTH_STRING"].split(":")
        trusted = ssl.create_default_context(cafile=client_env["PREFECT_API_SSL_CERT_FILE"])
        self._name = str(uuid.uuid4())
        self.http = httpx.Client(
            base_url=client_env["PREFECT_API_URL"] + "/", verify=trusted, auth=(user, password), timeout=20
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer; what changes something shows a CSRF token."""
        token = self.http.get("csrf-token", params={"client": self._name}).raise_for_status().json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": self._name}
        answer = self.http.request(method, path, json=body, headers=headers).raise_for_status()
        return answer.json() if answer.content else None

    def run(self, name: str, **parameters: Any) -> str:
        """Begin a run of a deployment; return its id."""
        deployment = self.ask("GET", f"deployments/name/{name}")["id"]
        made = self.ask("POST", f"deployments/{deployment}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def state(self, run: str) -> str:
        """Return the state's name; empty while the server is away."""
        with contextlib.suppress(httpx.HTTPError):
            return str(self.ask("GET", f"flow_runs/{run}")["state"]["name"])
        return ""

    def wait(self, run: str, name: str) -> None:
        """Wait until a run is in a state."""
        seen: list[str] = []

        def there() -> bool:
            seen.append(self.state(run))
            return seen[-1] == name

        try:
            until(there, f"the run is {name}")
        except AssertionError as problem:
            raise AssertionError(f"{problem}; it was {list(dict.fromkeys(seen))}") from None


class Stack:
    """All services, as the page makes them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place, self.evidence = folder, folder / "place", folder / "evidence"
        port, api_port, database_port = free_ports(3)
        (folder / "src").mkdir()
        (folder / "src" / "a.py").write_text("def f(n):\n    return eval(n)\n")
        (folder / "site").mkdir()
        self.site = third_party.install(folder / "site")
        self.postgres = Postgres(folder / "postgres", database_port)
        self.values = {
            "HOST": "127.0.0.1", "PORT": port, "API_PORT": api_port, "DATABASE_PORT": database_port,
            "PLACE": self.place, "SOURCES": folder / "src", "EVIDENCE": self.evidence,
        }  # fmt: skip
        self.told: dict[str, str] = {}
        self.services: dict[str, Service] = {}
        self.again = ""

    def page(self, block: str, before: str = "") -> str:
        """Run a block of the page; return what it printed."""
        shell = "\n".join([*(f"{name}='{value}'" for name, value in self.values.items()), before, block])
        environment = {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": str(self.folder), "DETECTOR_POOL_HOME": str(self.folder / "me"),
            "NO_COLOR": "1", **self.postgres.administrator,
        }  # fmt: skip
        done = subprocess.run(
            ["/bin/sh", "-eu", "-c", shell],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        self.told[block] = done.stdout
        return done.stdout

    def up(self) -> None:
        """Go through the page until a worker waits for runs."""
        self.postgres.start()
        self.page(MAKE)
        self.page(DATABASE)
        configuration = self.place / "nginx.conf"  # nobody beyond this machine is to reach a test
        configuration.write_text(configuration.read_text().replace("listen 0.0.0.0:", "listen 127.0.0.1:"))
        for name in ("prefect-server", "prefect-front", "prefect-worker"):
            self.services[name] = unit_service(self.place / f"{name}.service", self.folder / f"{name}.log")
        self.services["prefect-worker"].environment = {
            **self.services["prefect-worker"].environment, "PYTHONPATH": str(self.site),
        }  # fmt: skip
        self.services["prefect-server"].start()
        self.services["prefect-front"].start()
        self.page(WAIT)
        self.page(DEPLOY)
        self.again = self._deployed_again()
        self.services["prefect-worker"].start()

    def _deployed_again(self) -> str:
        """Deploy a second time, with a schedule that comes soon and one deployment more; return what was done."""
        minute = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=75)
        file = self.place / "prefect.yaml"
        text = file.read_text().replace('"0 2 * * *"', f'"{minute.minute} {minute.hour} * * *"', 1)
        file.write_text(text + BY_HAND)
        return self.page("detector-pool deploy --json --file $PLACE/prefect.yaml", CLIENT)

    def down(self) -> None:
        """End everything, the worker first."""
        if "api" in vars(self):
            self.api.http.close()
        for name in ("prefect-worker", "prefect-front", "prefect-server"):
            if name in self.services:
                self.services[name].end()
        self.postgres.service.end(signal.SIGINT)

    @functools.cached_property
    def api(self) -> Api:
        """The server's client."""
        return Api(settings(self.place / "client.env"))

    def tree(self, name: str, word: str, gate: Gate) -> Path:
        """Make a tree whose scan stops at a gate."""
        tree = self.folder / name
        tree.mkdir()
        (tree / "gate.txt").write_text(f"{word} {gate.file}\nbad\n")
        return tree

    def statement(self, name: str) -> UnfinishedRun | None:
        """Return what is stated of a run whose evidence is not there, held against the worker's key."""
        file = self.evidence / f"{name}{SUFFIX}"
        if not file.exists():
            return None
        return read(file, VerifyingKey.load(self.place / "home" / "state" / "keys" / "public-key.pem"))

    def recorded(self) -> list[dict[str, Any]]:
        """Return the events of the worker's ledger."""
        own = settings(self.place / "worker.env")
        environment = {**os.environ, **own}
        done = subprocess.run(
            [PROGRAMS / "detector-pool", "audit", "export", "--ledger", self.place / "home" / "state" / "ledger"],
            env=environment, capture_output=True, check=True,
        )  # fmt: skip
        return [json.loads(line)["event"] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Everything that the page makes, once; nothing of it is left running."""
    with scratch("services") as folder:
        made = Stack(folder)
        try:
            made.up()
            yield made
        finally:
            made.down()
        until(lambda: not left_over(str(folder)), f"everything has ended: {left_over(str(folder))}", 30)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A closed gate, opened at the end so that nothing waits for ever."""
    made = Gate(tmp_path)
    yield made
    made.file.unlink(missing_ok=True)


def _arrived(gate: Gate) -> int:
    """Return the process that waits at the gate; a run begins some time after it was asked for."""
    until(gate.begun.exists, "a run comes to the gate")
    return gate.wait()


def _descendants(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def _flow_process(run: str) -> psutil.Process:
    """Return the process of a flow run: that whose environment names it and whose parent's does not."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run and (
                (parent := process.parent()) is None or parent.environ().get("PREFECT__FLOW_RUN_ID") != run
            ):
                return process
    raise AssertionError(f"no process runs {run}")


def test_the_page_leads_from_nothing_to_a_verified_run(stack: Stack) -> None:
    """When this fails, somebody who has only the page does not get there."""
    assert list(stack.values) == NAMES
    assert "created deployment scan/nightly" in stack.told[DEPLOY]
    by_hand = stack.page(RUN, CLIENT)
    verified = stack.page(VERIFY)
    applied = {one["name"]: (one["did"], one["changed"]) for one in json.loads(stack.again)["applied"]}
    assert applied.pop("scan/nightly") == ("updated", ["schedules"])
    assert applied.pop("scan/by-hand") == ("created", [])
    assert {did for did, _ in applied.values()} == {"unchanged"}
    assert "'Completed'" in by_hand
    assert "evidence verified: recorded in the ledger" in verified


def test_strangers_are_kept_out(stack: Stack) -> None:
    """When this fails, whoever reaches the port reads the runs, or a page in an operator's browser starts one."""
    client = settings(stack.place / "client.env")
    url = client["PREFECT_API_URL"]
    trusted = ssl.create_default_context(cafile=client["PREFECT_API_SSL_CERT_FILE"])
    origin = url.removesuffix("/api")
    with httpx.Client(verify=trusted) as stranger:
        refused = stranger.get(f"{url}/admin/settings")
        wrong = stranger.get(f"{url}/admin/settings", auth=("detector-pool", "guessed"))
        health = stranger.get(f"{url}/health")
        asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
        foreign = stranger.options(f"{url}/flows/filter", headers=asked)
        own = stranger.options(f"{url}/flows/filter", headers={**asked, "Origin": origin})
    no_token = stack.api.http.post("flows/filter", json={})
    old = ssl.create_default_context(cafile=client["PREFECT_API_SSL_CERT_FILE"])
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (ssl.create_default_context(), old):  # who does not trust the authority; who speaks what is older
        with httpx.Client(verify=context) as other, pytest.raises(httpx.ConnectError):
            other.get(f"{url}/health")

    assert (refused.status_code, wrong.status_code, health.status_code, no_token.status_code) == (401, 401, 200, 403)
    assert health.headers["strict-transport-security"]
    assert "access-control-allow-origin" not in foreign.headers
    assert own.headers["access-control-allow-origin"] == origin
    server = stack.services["prefect-server"].process
    assert server is not None
    listening = {
        connection.laddr.ip
        for process in _descendants(server.pid)
        for connection in process.net_connections(kind="inet")
        if connection.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}
    secrets = [
        settings(stack.place / file)[name].split(":")[-1]
        for file, name in (("client.env", "PREFECT_API_AUTH_STRING"), ("worker.env", "DETECTOR_POOL_PASSPHRASE"))
    ]
    arguments = " ".join(word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ())
    assert not [secret for secret in secrets if secret in arguments]
    assert all((stack.place / file).stat().st_mode & 0o077 == 0 for file in ("client.env", "server.env", "worker.env"))


def test_a_scan_outlives_the_database(stack: Stack, gate: Gate) -> None:
    """When this fails, a database that is started again costs a night's results."""
    _outlives(stack, gate, "database", lambda: stack.postgres.service.end(signal.SIGKILL), stack.postgres.start)


def test_a_scan_outlives_the_prefect_server(stack: Stack, gate: Gate) -> None:
    """When this fails, a Prefect server that is started again costs a night's results."""
    server = stack.services["prefect-server"]
    _outlives(stack, gate, "server", lambda: server.end(signal.SIGKILL), server.start)


def test_a_scan_outlives_its_worker(stack: Stack, gate: Gate) -> None:
    """When this fails, a worker that is started again costs a night's results."""
    worker = stack.services["prefect-worker"]
    _outlives(stack, gate, "worker", lambda: worker.end(signal.SIGKILL), worker.start)


def _outlives(stack: Stack, gate: Gate, name: str, kill: Any, start: Any) -> None:
    """Kill a service in the middle of a scan: evidence is written without it, and the run completes once it is back."""
    tree = stack.tree(f"tree-{name}", "tool-waits", gate)
    api = stack.api
    run = api.run(
        "scan/by-hand", paths=[str(tree)], evidence=str(stack.evidence / name),
        detectors=["shell-tool"],
    )  # fmt: skip
    _arrived(gate)
    kill()
    gate.open()
    until((stack.evidence / name / "attestation.intoto.jsonl").exists, f"evidence is there without {name}")
    start()
    until(lambda: api.state(run), "the API answers again")
    details = api.ask("GET", f"flow_runs/{run}")["state"]["state_details"]
    if lease := details.get("deployment_concurrency_lease_id"):  # a run that cannot renew it is ended
        api.ask("POST", f"v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    api.wait(run, "Completed")

    assert verify(stack.evidence / name, ledger=stack.place / "home" / "state" / "ledger").ok
    assert stack.statement(name) is None


def test_a_cancelled_run_ends_its_workers_and_tools_and_says_so(stack: Stack, tmp_path: Path, gate: Gate) -> None:
    """When this fails, whoever cancels a run frees no processor, and nobody learns later that it was cancelled."""
    (tmp_path / "other").mkdir()
    other = Gate(tmp_path / "other")
    tree = stack.tree("tree-cancelled", "sleep-once", gate)
    (tree / "tool.txt").write_text(f"tool-waits {other.file}\n")
    api = stack.api
    run = api.run(
        "scan/by-hand", paths=[str(tree)], evidence=str(stack.evidence / "cancelled"), cluster="local", workers=2,
        detectors=["third-party", "shell-tool"],
    )  # fmt: skip
    _arrived(gate)
    _arrived(other)
    family = _descendants(_flow_process(run).pid)
    began = stack.statement("cancelled")
    alive_then = began is not None and began.alive
    api.ask("POST", f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    api.wait(run, "Cancelled")
    _, alive = psutil.wait_procs(family, timeout=30)

    assert len(family) >= 4  # the flow, two workers of Dask, a tool
    assert alive == []
    assert began is not None
    assert (began.outcome, began.flow_run, alive_then) == ("running", run, True)
    ended = stack.statement("cancelled")
    assert ended is not None
    assert (ended.outcome, ended.run_id) == ("cancelled", began.run_id)
    assert not (stack.evidence / "cancelled").exists()
    mine = [event for event in stack.recorded() if event.get("run_id") == ended.run_id]
    assert mine[0]["flow_run"] == run
    assert [(event["type"], event["outcome"]) for event in mine[-2:]] == [
        ("scan.ended", "interrupted"), ("flow.ended", "cancelled"),
    ]  # fmt: skip


def test_a_run_whose_process_dies_says_so(stack: Stack, gate: Gate) -> None:
    """When this fails, a run that was killed has never been."""
    tree = stack.tree("tree-crashed", "tool-waits", gate)
    api = stack.api
    run = api.run(
        "scan/by-hand", paths=[str(tree)], evidence=str(stack.evidence / "crashed"),
        detectors=["shell-tool"],
    )  # fmt: skip
    tool = _arrived(gate)
    flow = _flow_process(run)
    flow.kill()
    api.wait(run, "Crashed")
    ended = until(lambda: (said := stack.statement("crashed")) and said.outcome == "crashed" and said, "it is stated")

    assert not psutil.pid_exists(tool) or psutil.Process(tool).status() == psutil.STATUS_ZOMBIE
    assert ended.flow_run == run
    mine = [event for event in stack.recorded() if event.get("run_id") == ended.run_id]
    assert [event["type"] for event in mine] == ["scan.started", "scan.planned", "flow.ended"]
    assert mine[-1]["outcome"] == "crashed"


def test_a_run_over_its_time_says_so(stack: Stack, gate: Gate) -> None:
    """When this fails, a run that hangs goes on into the next night, or ends without a trace."""
    tree = stack.tree("tree-timed-out", "tool-waits", gate)
    api = stack.api
    run = api.run(
        "scan/by-hand", paths=[str(tree)], evidence=str(stack.evidence / "late"),
        detectors=["shell-tool"], time_limit_s=6,
    )  # fmt: skip
    tool = _arrived(gate)
    api.wait(run, "TimedOut")
    ended = stack.statement("late")

    assert not psutil.pid_exists(tool)
    assert ended is not None
    assert (ended.outcome, ended.flow_run) == ("timed-out", run)
    assert "time_limit_s" in ended.reason


def test_the_schedule_runs_it_too(stack: Stack) -> None:
    """When this fails, it runs by hand and never at night."""
    api = stack.api

    def scheduled() -> list[dict[str, Any]]:
        # Runs of the days to come are there, too, and more of them than an answer holds.
        begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
        found = api.ask("POST", "flow_runs/filter", {"flow_runs": begun, "limit": 200})
        return [run for run in found if run["auto_scheduled"]]

    def completed() -> list[dict[str, Any]]:
        return [run for run in scheduled() if run["state"]["name"] == "Completed"]

    try:
        runs = until(completed, "a scheduled run completed")
    except AssertionError as problem:
        states = [(run["name"], run["expected_start_time"], run["state"]) for run in scheduled()]
        told = (stack.folder / "prefect-server.log").read_text()[-3000:]
        raise AssertionError(f"{problem}; there are {states}; the server said: {told}") from None
    started = [folder for folder in stack.evidence.iterdir() if re.fullmatch(r"\d{8}T\d{6}Z", folder.name)]

    assert {run["deployment_id"] for run in runs} == {api.ask("GET", "deployments/name/scan/nightly")["id"]}
    assert len(started) == len(runs)
    assert verify(started[0], ledger=stack.place / "home" / "state" / "ledger").ok
