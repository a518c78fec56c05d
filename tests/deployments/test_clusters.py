"""Dask clusters: only with a certificate, nothing beyond loopback, nothing left running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from detectors.errors import ClusterError, ClusterLost, UsageError
from detectors.parallel_executor import Call, DaskBackend, ParallelExecutor
from detectors.ports import open_cluster

PROBE = """
import sys, urllib.request, urllib.error
import psutil
from detectors.ports import open_cluster

if __name__ == "__main__":
    with open_cluster("local", 2) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        me = psutil.Process()
        family = [me, *me.children(recursive=True)]
        listening = [c.laddr for p in family for c in p.net_connections(kind="inet") if c.status == "LISTEN"]
        assert listening and {address.ip for address in listening} == {"127.0.0.1"}, listening
        from distributed import Client
        plain = client.scheduler.address.replace("tls://", "tcp://")
        for address, security in ((plain, None), (client.scheduler.address, None)):
            try:
                Client(address, security=security, timeout=5)
            except Exception as problem:
                print("refused", type(problem).__name__)
            else:
                print("LET IN", address)
        for address in listening:
            for path in ("/", "/info", "/metrics", "/json/counts.json", "/status", "/api/v1/retire_workers"):
                try:
                    code = urllib.request.urlopen(f"http://127.0.0.1:{address.port}{path}", timeout=5).status
                except urllib.error.HTTPError as problem:
                    code = problem.code
                except OSError:
                    code = 0
                if code not in (0, 404):
                    print("SERVED", path, code)
        print("children", *[p.pid for p in family[1:]])
"""


@pytest.mark.slow
def test_the_local_cluster_refuses_strangers_and_leaves_nothing(tmp_path: Path) -> None:
    """Any user of the machine who reached it could run code as us."""
    script = tmp_path / "probe.py"
    script.write_text(PROBE)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**__import__("os").environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert done.returncode == 0, done.stderr
    assert "LET IN" not in done.stdout
    assert "SERVED" not in done.stdout
    assert done.stdout.count("refused") == 2
    children = next(line for line in done.stdout.splitlines() if line.startswith("children")).split()[1:]
    assert len(children) >= 2
    _, alive = psutil.wait_procs([psutil.Process(int(p)) for p in children if psutil.pid_exists(int(p))], timeout=10)
    assert not alive


def test_addresses_are_tls_only_and_need_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain address would let anyone run code on the workers."""
    with pytest.raises(UsageError, match="only tls"), open_cluster("tcp://127.0.0.1:8786", 1):
        pass
    with pytest.raises(UsageError, match="DETECTOR_POOL_TLS_CA"), open_cluster("tls://127.0.0.1:8786", 1):
        pass
    with pytest.raises(UsageError, match="neither"), open_cluster("cloud", 1):
        pass


@pytest.mark.slow
def test_a_running_scheduler_is_reached_with_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scan runs on a cluster that was there before; one that is not there is an error that names it."""
    from distributed import LocalCluster, Security

    security = Security.temporary()
    for name, text in (
        ("CA", security.tls_ca_file),
        ("CERT", security.tls_client_cert),
        ("KEY", security.tls_client_key),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"DETECTOR_POOL_TLS_{name}", str(tmp_path / name))
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(protocol="tls://", security=security, host="127.0.0.1", **options) as cluster:
        address = cluster.scheduler_address
        with open_cluster(address, 1) as client:
            assert client.submit(sum, [1, 2]).result() == 3
    with pytest.raises(ClusterError, match="cannot be reached"), open_cluster("tls://127.0.0.1:1", 1):
        pass


@pytest.mark.slow
def test_work_that_no_worker_is_left_for_ends_the_run() -> None:
    """When this fails, a run whose last worker went waits for ever."""
    import dask
    from distributed import Client, LocalCluster

    options = {
        "n_workers": 0,
        "processes": False,
        "protocol": "tcp://",
        "dashboard_address": "127.0.0.1:0",
        "host": "127.0.0.1",
    }
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "200ms"}),
        LocalCluster(**options) as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterLost, match="no worker of tls://gone is left"),
    ):
        list(ParallelExecutor(DaskBackend(client, 1, "tls://gone")).run([Call("sum-1", sum, ([1, 2],))]))


@pytest.mark.slow
def test_an_adaptive_cluster_keeps_one_worker_and_grows_with_the_work() -> None:
    """Without a worker kept, every batch would wait for a process to start; without growth, it would be one worker."""
    with open_cluster("local-adaptive", 2) as client:
        assert len(client.scheduler_info()["workers"]) == 1
        # The work ends only when a second worker came: a worker says who it is until two have been seen.
        futures = [client.submit(_who_when_two, number, pure=False) for number in range(40)]
        seen = set(client.gather(futures))

        assert len(seen) == 2


def _who_when_two(number: int) -> str:
    import time

    from distributed import get_worker

    time.sleep(0.5)  # work long enough that Dask takes it for worth another worker
    return str(get_worker().address)


@pytest.mark.slow
def test_workers_are_pinned_to_the_nodes_of_the_topology(tmp_path: Path) -> None:
    """Pinned workers that share a node by mistake leave the other idle; unpinned ones must say so."""
    from distributed import Client, LocalCluster

    from detectors.worker_pinning import PinWorkers, placements

    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one processor cannot be two nodes")
    for number, cpus in enumerate((usable[:1], usable[1:])):
        (tmp_path / "node" / f"node{number}").mkdir(parents=True)
        (tmp_path / "node" / f"node{number}" / "cpulist").write_text(",".join(map(str, cpus)))
    options = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster, set_as_default=False) as client:
        assert {placement.pinned for placement in placements(client).values()} == {False}
        client.register_plugin(PinWorkers(2, tmp_path))
        found = placements(client)
        threads = client.run(_affinities)

        assert sorted(placement.node for placement in found.values()) == [0, 1]
        assert {worker: {placement.cpus} for worker, placement in found.items()} == threads


def _affinities() -> set[tuple[int, ...]]:
    return {tuple(sorted(os.sched_getaffinity(int(task.name)))) for task in Path("/proc/self/task").iterdir()}
