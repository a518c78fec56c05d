"""The Dask worker plugin that keeps each worker to one NUMA node. Imports Dask: only who has a cluster imports this."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distributed import Client, WorkerPlugin

from detectors.errors import UsageError
from detectors.topology import SYSTEM, Placement, place, read_topology

__all__ = ["PinWorkers", "placements"]


class PinWorkers(WorkerPlugin):
    """
    Keeps a worker's threads, and so the tools that they start, to the processors of one NUMA node.

    Args:
        workers: How many share a machine.
        system: The folder that describes it.

    Raises:
        UsageError: Nobody shares it.
    """

    name = "pin-workers"

    def __init__(self, workers: int, system: Path = SYSTEM) -> None:
        if workers < 1:
            raise UsageError(f"a machine is shared by one worker or more, not by {workers}")
        assert system.is_absolute(), "each worker has a working directory of its own"
        self._workers, self._system = workers, system
        self.placement: Placement | None = None
        self._before: set[int] = set()

    def setup(self, worker: Any) -> None:
        """Pin every thread of the process; threads to come inherit it. Called by Dask on the worker."""
        self._before = os.sched_getaffinity(0)
        number = int(worker.name) if str(worker.name).isdecimal() else os.getpid()
        assert number >= 0, "workers are numbered from 0"
        self.placement = place(read_topology(self._system), number, self._workers)
        assert self._before.issuperset(self.placement.cpus), "a worker is given no processor that it may not use"
        if self.placement.pinned:
            _keep_to(set(self.placement.cpus))

    def teardown(self, worker: Any) -> None:
        """Give the processors back. Called by Dask on the worker."""
        del worker
        if self.placement is None or not self.placement.pinned:
            return
        assert self._before, "what is given back was taken"
        _keep_to(self._before)


def placements(client: Client) -> dict[str, Placement]:
    """Return where each worker runs, by its address, for the metrics; without the plugin nothing is pinned."""
    found: dict[str, Placement] = client.run(_placement)
    assert all(placement.cpus for placement in found.values()), "each worker runs somewhere"
    return found


def _placement(dask_worker: Any) -> Placement:
    if not isinstance(plugin := dask_worker.plugins.get(PinWorkers.name), PinWorkers) or plugin.placement is None:
        return Placement(False, tuple(sorted(os.sched_getaffinity(0))), None, "the cluster pins no workers")
    assert plugin.placement.pinned == (plugin.placement.node is not None), "whoever is pinned is pinned to a node"
    return plugin.placement


def _keep_to(cpus: set[int]) -> None:
    assert cpus, "a thread without a processor would never run again"
    assert min(cpus) >= 0, "processors are numbered from 0"
    # Affinity belongs to a thread; the worker has several before any plugin is set up.
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:
            continue
    assert os.sched_getaffinity(0) <= cpus, "this thread, too, runs nowhere else"
