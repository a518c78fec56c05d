"""The Dask worker plugin that keeps each worker to one NUMA node. Imports Dask: only who has a cluster imports this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin

from detectors.topology import SYSTEM, Placement, place, read_topology

__all__ = ["PinWorkers", "placements"]


class PinWorkers(WorkerPlugin):
    """
    Keeps a worker's threads, and so the tools that they start, to the processors of one NUMA node.

    Args:
        workers: How many share a machine.
        system: The folder that describes it.
    """

    name = "pin-workers"

    def __init__(self, workers: int, system: Path = SYSTEM) -> None:
        self._workers, self._system = workers, system
        self.placement: Placement | None = None
        self._before: set[int] = set()

    def setup(self, worker: Any) -> None:
        """Pin every thread of the process; threads to come inherit it. Called by Dask on the worker."""
        self._before = os.sched_getaffinity(0)
        number = int(worker.name) if str(worker.name).isdecimal() else os.getpid()
        self.placement = place(read_topology(self._system), number, self._workers)
        if self.placement.pinned:
            _keep_to(set(self.placement.cpus))

    def teardown(self, worker: Any) -> None:
        """Give the processors back. Called by Dask on the worker."""
        del worker
        if self.placement is not None and self.placement.pinned:
            _keep_to(self._before)


def placements(client: Client) -> dict[str, Placement]:
    """Return where each worker runs, by its address, for the metrics; without the plugin nothing is pinned."""
    found: dict[str, Placement] = client.run(_placement)
    return found


def _placement(dask_worker: Any) -> Placement:
    plugin = dask_worker.plugins.get(PinWorkers.name)
    if isinstance(plugin, PinWorkers) and plugin.placement is not None:
        return plugin.placement
    return Placement(False, tuple(sorted(os.sched_getaffinity(0))), None, "the cluster pins no workers")


def _keep_to(cpus: set[int]) -> None:
    # Affinity belongs to a thread; the worker has several before any plugin is set up.
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:
            continue
