"""`--cluster local`, `local-adaptive`: worker processes on this machine, over mutual TLS made for this run only."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

from detectors.errors import ClusterError
from detectors.topology import read_topology

__all__ = ["LocalProcesses"]

CONFIGURATION: dict[str, Any] = {
    # One lost worker is enough: `ParallelExecutor` halves the batch, so innocent neighbours do not share the blame.
    "distributed.scheduler.allowed-failures": 1,
    # A nanny starts its dead worker again. If that takes longer, or the next one dies as soon, Dask would end the
    # nanny, too, and with the last of them the run would wait for ever.
    "distributed.deploy.lost-worker-timeout": "1 hour",
    # Work that no worker is left for ends the run, and does not wait for ever.
    "distributed.scheduler.no-workers-timeout": "5 minutes",
    # The HTTP servers cannot be turned off and know no certificates; without routes they answer 404 to everything.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.comm.timeouts.connect": "30s",
    "distributed.admin.tick.limit": "30s",
    # What a worker does beside the work, fifty to a hundred times a second, takes time from the work.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.disk": False,
    # Tools are processes of their own; a worker must be free to have children.
    "distributed.worker.daemon": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


class LocalProcesses:
    """A scheduler in this process and single-threaded worker processes; on several NUMA nodes they are pinned."""

    name: ClassVar[str] = "local"

    def accepts(self, target: str) -> bool:
        """Tell whether `target` is this kind's name."""
        assert target, "a cluster has a name"
        return target == self.name

    @contextlib.contextmanager
    def open(self, target: str, workers: int) -> Iterator[Any]:
        """Yield a connected client; see `detectors.ports.ClusterKind`."""
        assert self.accepts(target), "who opens it saw that it is meant"
        with _connected(workers, workers) as (client, _):
            yield client


class AdaptiveProcesses(LocalProcesses):
    """The same, with one worker at first and more as Dask's own `Adaptive` sees work waiting, up to `workers`."""

    name: ClassVar[str] = "local-adaptive"

    @contextlib.contextmanager
    def open(self, target: str, workers: int) -> Iterator[Any]:
        """Yield a connected client; see `detectors.ports.ClusterKind`."""
        assert self.accepts(target), "who opens it saw that it is meant"
        with _connected(1, workers) as (client, cluster):
            # Never none: starting the first worker anew for each batch costs more than keeping it.
            cluster.adapt(minimum=1, maximum=workers, interval="500ms")
            yield client


@contextlib.contextmanager
def _connected(at_first: int, workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield a client and its cluster."""
    import dask
    from distributed import Client, LocalCluster

    from deployments.mutual_tls import temporary

    assert 1 <= at_first <= workers, "somebody does the work, and no more than were asked for"
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(CONFIGURATION), contextlib.ExitStack() as stack:
        try:
            security = temporary()
            assert security.require_encryption, "whoever reaches a scheduler without certificates runs code"
            cluster = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=at_first,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls://",
                security=security,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address=None,
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
            )
            stack.callback(cluster.close)
            assert cluster.scheduler_address.startswith("tls://127.0.0.1:"), "nobody beyond this machine reaches it"
            # Not as a context manager: it may be closed in another context than it was opened in (a flow's task).
            client = Client(cluster, security=security, set_as_default=False)  # type: ignore[no-untyped-call]
            stack.callback(client.close)
            if len(read_topology().nodes) > 1:
                from detectors.worker_pinning import PinWorkers

                client.register_plugin(PinWorkers(workers))
        except (OSError, TimeoutError, RuntimeError) as problem:
            raise ClusterError(f"a local Dask cluster cannot be started: {problem}; try --cluster inline") from problem
        assert client.status == "running", "work can be given to it"
        assert not client.asynchronous, "who asks waits for the answer"
        yield client, cluster
