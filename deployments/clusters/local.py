"""`--cluster local`: worker processes on this machine, over mutual TLS with certificates made for this run only."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

from detectors.errors import ClusterError

__all__ = ["LocalProcesses"]

CONFIGURATION: dict[str, Any] = {
    # One lost worker is enough: `ParallelExecutor` halves the batch, so innocent neighbours do not share the blame.
    "distributed.scheduler.allowed-failures": 1,
    # The HTTP servers cannot be turned off and know no certificates; without routes they answer 404 to everything.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.comm.timeouts.connect": "30s",
    "distributed.admin.tick.limit": "30s",
    # Tools are processes of their own; a worker must be free to have children.
    "distributed.worker.daemon": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
}


class LocalProcesses:
    """A scheduler in this process and one single-threaded worker process each."""

    name: ClassVar[str] = "local"

    def accepts(self, target: str) -> bool:
        """Tell whether `target` is `local`."""
        return target == self.name

    @contextlib.contextmanager
    def open(self, target: str, workers: int) -> Iterator[Any]:
        """Yield a connected client; see `detectors.ports.ClusterKind`."""
        del target
        import dask
        from distributed import Client, LocalCluster, Security

        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with dask.config.set(CONFIGURATION), contextlib.ExitStack() as stack:
            try:
                security = Security.temporary()  # type: ignore[no-untyped-call]
                cluster = LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=workers,
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
                # Not as a context manager: it may be closed in another context than it was opened in (a flow's task).
                client = Client(cluster, security=security, set_as_default=False)  # type: ignore[no-untyped-call]
                stack.callback(client.close)
            except (OSError, TimeoutError, RuntimeError) as problem:
                raise ClusterError(
                    f"a local Dask cluster cannot be started: {problem}; try --cluster inline"
                ) from problem
            yield client
