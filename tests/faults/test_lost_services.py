"""A worker, the scheduler, the shared store: each killed in the middle of a run, as docs/how-to-cluster.md says."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deployments.certificates import Authority
from detectors.errors import UsageError
from detectors.model import RunRecord
from detectors.ports import open_store
from detectors.scan import ScanOptions, scan
from tests.deployments.cluster_fixtures import House, command

PASSWORD = "of-the-redis-server"
WAIT_S = 120.0
RULES = ("power-of-ten-c", "power-of-ten-python")
FUNCTION = (
    "int f{0}(int n) {{ int i; for (i = 0; i < n; i++) {{ if (n > {0}) goto out; n = g{0}(n); }} out: return n; }}\n"
)


@pytest.fixture
def large_tree(tmp_path: Path) -> Path:
    """Files enough that a run by the rules takes seconds."""
    tree = tmp_path / "large"
    tree.mkdir()
    for number in range(60):
        (tree / f"f{number}.c").write_text("".join(FUNCTION.format(number * 1000 + k) for k in range(150)))
    return tree


def _until(condition: Callable[[], bool]) -> None:
    """Wait for something that the run under test does; its absence is a failure of the run."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.01)


def _kept(cache: Path) -> int:
    """Return how many answers a run has finished so far."""
    try:
        with sqlite3.connect(f"file:{cache}/cache.sqlite3?mode=ro", uri=True) as database:
            count: int = database.execute("SELECT count(*) FROM result").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        if "database" in locals():
            database.close()
    return count


def _begun(house: House, tree: Path, cache: Path, address: str) -> subprocess.Popen[str]:
    words = ("scan", tree, "--detectors", ",".join(RULES), "--cluster", address, "--workers", "2", "--fail-on", "never")
    return subprocess.Popen(
        [*command(*words), "--json", "--cache", str(cache)], env=house.environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _inline(tree: Path) -> RunRecord:
    return scan(ScanOptions((tree,), RULES, cluster="inline"))


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
def test_a_worker_and_then_the_scheduler_are_killed(tmp_path: Path, large_tree: Path) -> None:
    """When this fails, a run loses findings with a worker, or all of its work with the scheduler."""
    house = House(tmp_path / "home")
    up = house.json("cluster", "up", "--port", "0", "--workers", "2")
    address, leader = str(up["address"]), psutil.Process(up["pid"])
    port = address.rpartition(":")[2]
    cache = tmp_path / "cache"
    run = _begun(house, large_tree, cache, address)
    try:
        _until(lambda: _kept(cache) > 0)
        os.kill(_workers(leader)[0].pid, signal.SIGKILL)
        already = _kept(cache)
        _until(lambda: _kept(cache) > already)
        os.kill(leader.pid, signal.SIGKILL)
        in_time = _kept(cache)
        leader.wait(WAIT_S)
        down = house.json("cluster", "down")
        # A service manager would start it again, where it was.
        house.json("cluster", "up", "--port", port, "--workers", "2")
        said, told = run.communicate(timeout=200)
    finally:
        run.kill()
        run.communicate()
        house.run("cluster", "down")

    assert 0 < in_time < 60, "the tree is too small to be killed in the middle of"
    assert down["ended"] == "gone"
    assert run.returncode == 0, told
    assert f'"findings_digest":"{_inline(large_tree).findings_digest}"' in said.replace('": "', '":"')


def _workers(leader: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes of a cluster; its other children are of multiprocessing's own."""
    found = [one for one in leader.children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]
    assert found
    return found


class RedisProcess:
    """A real server, with a password, and TLS where there is a certificate; on loopback and a socket."""

    def __init__(self, folder: Path, *more: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.socket = folder / "redis.sock"
        lines = (
            "bind 127.0.0.1",
            f"requirepass {PASSWORD}",
            'save ""',
            f"dir {folder}",
            f"unixsocket {self.socket}",
            *more,
        )
        # The configuration by standard input: arguments are seen by everybody.
        self.process = subprocess.Popen(
            ["redis-server", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        assert self.process.stdin is not None
        plain = () if any(line.startswith("tls-port") for line in more) else (f"port {self.port}",)
        self.process.stdin.write("\n".join((*plain, *lines)).format(port=self.port).encode() + b"\n")
        self.process.stdin.close()
        _until(self.socket.exists)

    def client(self) -> Any:
        import redis

        return redis.Redis(unix_socket_path=str(self.socket), password=PASSWORD)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisProcess]:
    """A server on loopback, whose password is in a file that the drivers know."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    monkeypatch.setenv("DETECTOR_POOL_STORE_PASSWORD_FILE", str(secret))
    server = RedisProcess(tmp_path)
    yield server
    server.kill()


@pytest.mark.system
@pytest.mark.slow
def test_drivers_share_a_redis_server_and_believe_only_their_own(
    redis_server: RedisProcess, small_tree: Path, tmp_path: Path
) -> None:
    """When this fails, results are not shared, or anybody who may write to Redis can plant them."""

    def run(name: str, store: str) -> RunRecord:
        return scan(ScanOptions((small_tree,), RULES, cluster="inline", cache=tmp_path / name, store=store))

    first = run("one", f"redis://127.0.0.1:{redis_server.port}/0")
    second = run("other", f"unix://{redis_server.socket}")
    with redis_server.client() as client:
        names = client.keys("detector-pool:*")
        for name in names:
            client.set(name, client.get(name)[:-1] + b"!")
    third = run("third", f"redis://127.0.0.1:{redis_server.port}/0")

    assert len(names) >= first.planned == first.executed > 0
    assert second.cached == second.planned
    assert third.executed == third.planned
    assert any("forged" in problem for problem in third.problems)
    assert first.findings_digest == second.findings_digest == third.findings_digest


@pytest.mark.system
@pytest.mark.slow
def test_redis_is_killed_in_the_middle_of_a_run(
    redis_server: RedisProcess, large_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, a run ends, waits for ever, or loses findings with the store."""
    seen: list[int] = []

    def told(stage: str, done: int, total: int) -> None:
        if not seen and done and stage not in {"snapshot", "plan"}:
            with redis_server.client() as client:
                seen.append(client.dbsize())
            redis_server.kill()

    address = f"redis://127.0.0.1:{redis_server.port}/0"
    lost = scan(ScanOptions((large_tree,), RULES, cluster="inline", cache=tmp_path / "one", store=address), told)
    monkeypatch.setenv("DETECTOR_POOL_STORE_PASSWORD", "wrong")
    never = scan(ScanOptions((large_tree,), RULES, cluster="inline", cache=tmp_path / "other", store=address))

    assert 0 < seen[0] < lost.planned
    for record in (lost, never):
        assert record.executed == record.planned
        assert record.whole
        (problem,) = record.problems
        assert "cannot be used" in problem
        assert PASSWORD not in problem
    assert lost.findings_digest == never.findings_digest == _inline(large_tree).findings_digest


@pytest.mark.system
@pytest.mark.slow
def test_redis_over_tls_is_believed_only_with_its_certificate(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, whoever stands in between reads the password and all results."""
    ours, theirs = Authority.make(), Authority.make()
    issued = ours.issue("worker", ("127.0.0.1",))
    for name, text in {
        "ca.pem": ours.certificate, "other.pem": theirs.certificate, "redis.pem": issued.certificate, "key.pem": issued.key,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    tls = ("port 0", "tls-port {port}", "tls-auth-clients no", f"tls-ca-cert-file {tmp_path}/ca.pem")
    server = RedisProcess(tmp_path, *tls, f"tls-cert-file {tmp_path}/redis.pem", f"tls-key-file {tmp_path}/key.pem")
    monkeypatch.setenv("DETECTOR_POOL_STORE_PASSWORD", PASSWORD)

    def run(name: str, authority: str) -> RunRecord:
        store = f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={tmp_path}/{authority}"
        return scan(ScanOptions((small_tree,), RULES, cluster="inline", cache=tmp_path / name, store=store))

    try:
        refused = run("one", "other.pem")
        with server.client() as client:
            nothing = client.dbsize()
        first, second = run("two", "ca.pem"), run("three", "ca.pem")
    finally:
        server.kill()

    assert nothing == 0
    assert any("certificate" in problem.lower() for problem in refused.problems)
    assert first.executed == first.planned
    assert second.cached == second.planned
    with pytest.raises(UsageError, match="ssl_check_hostname"):
        open_store(f"rediss://127.0.0.1:{server.port}/0?ssl_check_hostname=false")
