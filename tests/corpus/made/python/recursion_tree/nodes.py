"""Nodes that call back what they are given, for their children."""


class Node:
    def __init__(self, children: list["Node"]) -> None:
        self.children = children

    def accept(self, visitor) -> int:
        return 1 + sum(visitor(child) for child in self.children)
