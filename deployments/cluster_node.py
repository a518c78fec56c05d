"""
What `cluster up` and `cluster join` run: a scheduler with workers on this machine, or workers for one elsewhere.

Every socket speaks mutual TLS in which each side looks at the other's role and address. Dask's HTTP servers cannot be
turned off: they are bound to loopback and have no routes, but for the scheduler's metrics where those are asked for.
Imports Dask: only who runs a node imports this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import msgspec
from distributed import Client, LocalCluster, Nanny

from deployments.certificates import require_usable
from deployments.clusters.local import CONFIGURATION
from deployments.mutual_tls import from_folder, of_a_worker
from deployments.version_skew import VersionSkew, differences, installed
from detectors.errors import ClusterError, ClusterLost, UsageError
from detectors.worker_pinning import PinWorkers

__all__ = ["NodeSpec", "PreparedWorker", "join", "serve"]

METRICS_ROUTES = ["distributed.http.scheduler.prometheus", "distributed.http.health"]
CONNECT_S = 20.0
ADAPT_INTERVAL = "1s"


class NodeSpec(msgspec.Struct, frozen=True):
    """What a machine gives to a cluster."""

    certificates: Path
    """Folder that `certs init` made, or one with `ca.pem` and the files of the roles."""
    host: str
    """Address where it serves; must stand in its certificates."""
    workers: int
    """Single-threaded processes; of an adaptive cluster, those at first."""
    port: int = 0
    """Of the scheduler; 0 for any."""
    adapt: tuple[int, int] | None = None
    """Fewest and most workers, where Dask decides how many."""
    metrics_port: int | None = None
    """Where loopback is told the scheduler's metrics, in Prometheus' format; `None` for nowhere."""

    def __post_init__(self) -> None:
        """Raise UsageError for numbers that make no sense."""
        if self.workers < 0 or not 0 <= self.port < 1 << 16:
            raise UsageError(f"a node has 0 workers or more and a port below 65536, not {self.workers} and {self.port}")
        if self.adapt is not None and not 1 <= self.adapt[0] <= self.adapt[1]:
            raise UsageError(f"--adapt takes MIN:MAX with 1 <= MIN <= MAX, not {self.adapt[0]}:{self.adapt[1]}")


class PreparedWorker(PinWorkers):
    """Before a worker takes work: keeps it to its processors, and loads what every batch needs."""

    name = "prepared-worker"

    def setup(self, worker: Any) -> None:
        """Pin and warm. Called by Dask on the worker, before the scheduler knows it."""
        super().setup(worker)
        from detectors.batch import warm

        warm()
        assert self.placement is not None, "it is known where this worker runs"


def serve(spec: NodeSpec, ready: Callable[[str], None], stop: threading.Event) -> None:
    """
    Run a scheduler and its workers until `stop` is set.

    Args:
        spec: What this machine gives.
        ready: Called with the scheduler's address once workers may be given work.
        stop: Ends it.

    Raises:
        CertificateProblem: There are no certificates, or they cannot be used here.
        ClusterError: It cannot be started.
    """
    require_usable(spec.certificates, ("scheduler", "worker", "client"), spec.host)
    logging.getLogger("distributed").setLevel(logging.WARNING)
    routes = METRICS_ROUTES if spec.metrics_port is not None else []
    most = spec.adapt[1] if spec.adapt else max(spec.workers, 1)
    with dask.config.set({**CONFIGURATION, "distributed.scheduler.http.routes": routes}), contextlib.ExitStack() as own:
        try:
            cluster = own.enter_context(_cluster(spec, most))
            if spec.adapt is not None:
                cluster.adapt(minimum=spec.adapt[0], maximum=spec.adapt[1], interval=ADAPT_INTERVAL)
        except (OSError, TimeoutError, RuntimeError) as problem:
            raise ClusterError(f"the cluster cannot be started on {spec.host}:{spec.port}: {problem}") from problem
        assert cluster.scheduler_address.startswith("tls://"), "nobody reads what is sent"
        ready(cluster.scheduler_address)
        stop.wait()


@contextlib.contextmanager
def _cluster(spec: NodeSpec, share: int) -> Iterator[LocalCluster]:
    """Yield a scheduler with its workers; `share` is how many the machine is divided between."""
    security = from_folder(spec.certificates, "scheduler", "worker", "client")
    assert security.require_encryption, "whoever reaches a scheduler without certificates runs code"
    assert share >= 1, "somebody has the machine"
    cluster = LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=spec.adapt[0] if spec.adapt else spec.workers,
        threads_per_worker=1,
        processes=True,
        host=spec.host,
        scheduler_port=spec.port,
        protocol="tls://",
        security=security,
        dashboard_address=f"127.0.0.1:{spec.metrics_port or 0}",
        worker_dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.ERROR,
        plugins=(PreparedWorker(share),),
    )
    with contextlib.closing(cluster):
        yield cluster


def join(address: str, spec: NodeSpec, ready: Callable[[str], None]) -> None:
    """
    Give this machine's workers to a scheduler, until it ends or this process is asked to.

    Args:
        address: Of the scheduler.
        spec: What this machine gives.
        ready: Called with the address once all workers are known to the scheduler.

    Raises:
        UsageError: An address without TLS.
        CertificateProblem: There are no certificates, or they cannot be used here.
        VersionSkew: The scheduler runs other versions.
        ClusterError: The scheduler cannot be reached.
        ClusterLost: It ended; whoever starts this again waits for the next one.
    """
    if not address.startswith("tls://"):
        raise UsageError(f"cluster join {address}: only tls:// is taken; anyone may run code through a plain address")
    if spec.workers < 1:
        raise UsageError(f"cluster join gives 1 worker or more, not {spec.workers}")
    require_usable(spec.certificates, ("worker",), spec.host)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(CONFIGURATION):
        _require_same(address, spec.certificates)
        try:
            asyncio.run(_joined(address, spec, ready))
        except (OSError, TimeoutError) as problem:
            raise ClusterError(f"the scheduler {address} cannot be joined: {problem}") from problem


def _require_same(address: str, certificates: Path) -> None:
    """Hold the scheduler's versions against this machine's before it gets our workers."""
    security = of_a_worker(certificates)
    try:
        client = Client(address, security=security, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as problem:
        raise ClusterError(f"the scheduler {address} cannot be reached: {problem}") from problem
    with contextlib.closing(client):
        try:
            theirs = client.run_on_scheduler(installed)  # type: ignore[no-untyped-call]
        except Exception as problem:  # whatever another release makes of a function that it does not have
            raise VersionSkew(f"{address} does not understand this release: {problem}") from problem
        assert isinstance(theirs, dict), "versions by name"
        if found := list(differences(installed(), theirs)):
            raise VersionSkew(
                f"the scheduler {address} differs: {'; '.join(found)}. Install the same release and lock on both"
            )


async def _joined(address: str, spec: NodeSpec, ready: Callable[[str], None]) -> None:
    """Run the workers; returns when asked to end, raises ClusterLost when the scheduler has ended."""
    security = from_folder(spec.certificates, "worker")
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    who = f"{os.uname().nodename}-{os.getpid()}"
    nannies = [
        Nanny(
            address, nthreads=1, name=f"{who}-{number}", host=spec.host, protocol="tls://", security=security,
            dashboard_address="127.0.0.1:0", dashboard=False, silence_logs=logging.CRITICAL,
            plugins=(PreparedWorker(spec.workers),),
        )
        for number in range(spec.workers)
    ]  # fmt: skip
    assert nannies, "somebody joins"
    try:
        await asyncio.gather(*nannies)
        ready(address)
        ended = [asyncio.ensure_future(nanny.finished()) for nanny in nannies]  # type: ignore[no-untyped-call]
        waiting = asyncio.ensure_future(asked.wait())
        await asyncio.wait([*ended, waiting], return_when=asyncio.FIRST_COMPLETED)
        lost = not asked.is_set()
        waiting.cancel()
    finally:
        await asyncio.gather(*(nanny.close() for nanny in nannies), return_exceptions=True)
    if lost:
        raise ClusterLost(f"the scheduler {address} has ended, and this machine's workers with it")
