"""Cycles of a call graph."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cycles"]


def cycles(edges: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """
    Return the strongly connected components that hold a cycle, each sorted, in order of their least member.

    Args:
        edges: For each node its successors; `edges[n]` holds n for a node that calls itself.

    Source: Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Computing 1(2), 1972; with a stack of
    its own, since call chains are longer than Python's.
    """
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    on_path: set[int] = set()
    path: list[int] = []
    place_of: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for root in range(len(edges)):
        if root in order:
            continue
        work = [(root, iter(edges[root]))]
        order[root] = low[root] = len(order)
        place_of[root] = len(path)
        path.append(root)
        on_path.add(root)
        # Every node is entered once and left once.
        for _ in range(2 * len(edges)):
            if not work:
                break
            node, successors = work[-1]
            entered = None
            for successor in successors:
                if successor not in order:
                    entered = successor
                    break
                if successor in on_path:
                    low[node] = min(low[node], order[successor])
            if entered is not None:
                order[entered] = low[entered] = len(order)
                place_of[entered] = len(path)
                path.append(entered)
                on_path.add(entered)
                work.append((entered, iter(edges[entered])))
                continue
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[node])
            if low[node] == order[node]:
                component = tuple(sorted(path[place_of[node] :]))
                on_path.difference_update(component)
                del path[place_of[node] :]
                if len(component) > 1 or node in edges[node]:
                    found.append(component)
        assert not path, "what a root reaches is in some component"
    assert len(order) == len(edges), "every node is entered"
    return sorted(found)
