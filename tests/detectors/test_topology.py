"""What the machine is, from a made-up folder, and who runs where on it."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.topology import Node, Topology, cpu_list, place, read_topology


def _machine(folder: Path, nodes: dict[int, str]) -> Path:
    for number, cpus in nodes.items():
        (folder / "node" / f"node{number}").mkdir(parents=True)
        (folder / "node" / f"node{number}" / "cpulist").write_text(f"{cpus}\n")
    return folder


def test_nodes_are_read_and_narrowed_to_what_may_be_used(tmp_path: Path) -> None:
    """A worker pinned to a processor that it may not use fails to start."""
    system = _machine(tmp_path, {0: "0-3,8", 1: "4-7", 10: "12"})
    found = read_topology(system, allowed=range(2, 9), cgroup=tmp_path)

    assert found == Topology((Node(0, (2, 3, 8)), Node(1, (4, 5, 6, 7))))
    assert found.cpus == 7


def test_a_quota_of_the_control_group_counts(tmp_path: Path) -> None:
    """A container with two processors' worth of time on a large machine must not start sixty-four workers."""
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    system = _machine(tmp_path / "system", {0: "0-63"})

    assert read_topology(system, range(64), tmp_path).cpus == 2


@pytest.mark.parametrize("text", ["5-2", "x", "0-999999999"])
def test_a_damaged_list_counts_as_one_node(tmp_path: Path, text: str) -> None:
    """Whatever the folder says, the processors that may be used are used."""
    system = _machine(tmp_path, {0: text, 1: "4-7"})
    found = read_topology(system, range(8), tmp_path)

    assert found.nodes == (Node(0, tuple(range(8))),)
    with pytest.raises(ValueError, match=r"\d|x"):
        cpu_list(text)


def test_some_processor_must_be_allowed(tmp_path: Path) -> None:
    """A machine without a processor would be divided by nothing when workers are spread."""
    with pytest.raises(ValueError, match="one processor at least"):
        read_topology(tmp_path, (), tmp_path)


def test_a_machine_that_says_nothing_is_one_node(tmp_path: Path) -> None:
    """Kernels without NUMA have no such folder."""
    assert read_topology(tmp_path, (3, 1), tmp_path).nodes == (Node(0, (1, 3)),)


def test_on_one_node_nothing_is_pinned_and_it_is_said(tmp_path: Path) -> None:
    """A metric that says pinned where nothing was would mislead."""
    placement = place(Topology((Node(0, (0, 1)),)), 0, 2)

    assert (placement.pinned, placement.cpus, placement.node) == (False, (0, 1), None)
    assert "one NUMA node" in placement.reason


@given(st.lists(st.integers(1, 16), min_size=2, max_size=6), st.integers(1, 64))
def test_workers_are_spread_in_proportion(sizes: list[int], workers: int) -> None:
    """A node with more workers than its share is slow while another idles."""
    first = 0
    nodes = []
    for number, size in enumerate(sizes):
        nodes.append(Node(number, tuple(range(first, first + size))))
        first += size
    topology = Topology(tuple(nodes))
    counts = collections.Counter(place(topology, worker, workers).node for worker in range(workers))

    for node in nodes:
        assert abs(counts[node.number] - workers * len(node.cpus) / first) <= 1 + 1e-9
    assert place(topology, workers, workers) == place(topology, 0, workers)
