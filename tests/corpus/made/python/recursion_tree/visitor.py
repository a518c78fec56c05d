"""A cycle through an instance of another module's class."""

from .nodes import Node


def visit(node: Node) -> int:  # case: P10-R1 violation
    return node.accept(visit)


def total(nodes: list[Node]) -> int:  # case: P10-R1 clean
    return sum(map(visit, nodes))
