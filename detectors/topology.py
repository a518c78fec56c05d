"""
Processors and NUMA nodes, as Linux shows them below `/sys`, and which of them a worker should keep to.

A worker whose memory lies on another node than its processor waits longer for every cache line. With several nodes each
worker is kept to one of them, in proportion to their processors; with one there is nothing to gain, and no worker is
pinned. Only what this process may use counts: containers and `taskset` narrow it.

Source: Linux, Documentation/admin-guide/mm/numaperf.rst and ABI/stable/sysfs-devices-node; cgroup-v2.rst `cpu.max`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = ["Node", "Placement", "Topology", "cpu_list", "place", "read_topology"]

SYSTEM = Path("/sys/devices/system")
CGROUP = Path("/sys/fs/cgroup")
LIST = re.compile(r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\s*\Z")
MAX_CPUS = 1 << 16
"""Kernels know fewer; a list that names more is damaged."""


class Node(msgspec.Struct, frozen=True):
    """A NUMA node and those of its processors that this process may use."""

    number: int
    cpus: tuple[int, ...]


class Topology(msgspec.Struct, frozen=True):
    """What this process may use."""

    nodes: tuple[Node, ...]
    """Without those that have no usable processor."""
    quota_cpus: float | None = None
    """Processors' worth of time that the control group grants a second; `None` for no limit."""

    @property
    def cpus(self) -> int:
        """Processors that can be busy at once, at least 1: the usable ones, or what the quota grants."""
        usable = sum(len(node.cpus) for node in self.nodes)
        assert usable >= 1, "this runs on one of them"
        if self.quota_cpus is None:
            return usable
        return max(1, min(usable, int(self.quota_cpus)))


class Placement(msgspec.Struct, frozen=True):
    """Where one worker runs; goes into the metrics."""

    pinned: bool
    cpus: tuple[int, ...]
    node: int | None
    reason: str


def cpu_list(text: str) -> frozenset[int]:
    """
    Return the numbers of a kernel list such as `0-3,8`.

    Raises:
        ValueError: Not such a list.
    """
    if not text.strip():
        return frozenset()  # a node of memory only
    if LIST.match(text) is None:
        raise ValueError(f"{text!r} is no list of processors")
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < MAX_CPUS:
            raise ValueError(f"{part!r} is no range of processors")
        found.update(range(low, high + 1))
    return frozenset(found)


def read_topology(system: Path = SYSTEM, allowed: Iterable[int] | None = None, cgroup: Path = CGROUP) -> Topology:
    """
    Read the machine's shape.

    Args:
        system: The folder with `cpu` and `node`; a machine without it counts as one node.
        allowed: Processors that may be used; the affinity of this process if not given (cpusets are in it).
        cgroup: The folder with `cpu.max`.

    Raises:
        ValueError: `allowed` names no processor.
    """
    if allowed is not None and not (allowed := frozenset(allowed)):
        raise ValueError("a process runs on one processor at least")
    usable = allowed if allowed is not None else frozenset(os.sched_getaffinity(0))
    nodes = []
    for folder in sorted((system / "node").glob("node[0-9]*"), key=lambda path: int(path.name[4:] or 0)):
        try:
            cpus = cpu_list((folder / "cpulist").read_text()) & usable
        except (OSError, ValueError):
            continue  # unreadable is unknown: its processors fall to the rest below
        if cpus:
            nodes.append(Node(int(folder.name[4:]), tuple(sorted(cpus))))
    rest = usable - {cpu for node in nodes for cpu in node.cpus}
    if rest:
        # Processors of no node are usable all the same; a machine whose nodes cannot be told apart is one.
        nodes = [Node(0, tuple(sorted(usable)))]
    assert {cpu for node in nodes for cpu in node.cpus} == usable, "each processor is of some node"
    return Topology(tuple(nodes), _quota(cgroup))


def place(topology: Topology, worker: int, workers: int) -> Placement:
    """
    Choose the processors of one worker.

    Args:
        topology: Of the machine that it runs on.
        worker: Its number, from 0; numbers over `workers` go round.
        workers: How many share the machine, at least one.

    Returns:
        All processors of one node, such that each node gets workers in proportion to its processors.
    """
    assert worker >= 0, "workers are numbered from 0"
    assert workers >= 1, "somebody runs"
    everything = tuple(sorted(cpu for node in topology.nodes for cpu in node.cpus))
    if len(topology.nodes) < 2:
        return Placement(False, everything, None, "one NUMA node: pinning would bring nothing")
    # Worker k of n stands at the processor (k + 1/2) / n of all of them, counted node by node.
    spot = (worker % workers + 0.5) / workers * len(everything)
    assert spot < len(everything), "it lies on the last node at most"
    passed = 0
    for node in topology.nodes:
        passed += len(node.cpus)
        if spot < passed:
            return Placement(True, node.cpus, node.number, f"kept to NUMA node {node.number}")
    raise AssertionError("the spot lies on the last node at most")


def _quota(cgroup: Path) -> float | None:
    try:
        granted, period = (cgroup / "cpu.max").read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
