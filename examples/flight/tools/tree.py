"""The other half of the cycle, direct recursion, and what only looks like it."""

from __future__ import annotations

from .frames import unpack


def expand(frame: dict, depth: int) -> list:
    """Planted: P10-R1, with `frames.unpack`."""
    return [part for child in frame.get("children", []) for part in unpack(child, depth - 1)]


def depth_of(node: dict) -> int:
    """Planted: P10-R1, direct."""
    return 1 + max((depth_of(child) for child in node.get("children", [])), default=0)


class Reader:
    """Clean: every call has the caller's own name, and none is recursion."""

    def __init__(self, source: Reader | None = None) -> None:
        self.source = source

    def read(self) -> bytes:
        return b"" if self.source is None else self.source.read()


class Buffered(Reader):
    """Clean."""

    def read(self) -> bytes:
        return super().read()


def read(reader: Reader) -> bytes:
    """Clean."""
    return reader.read()


def walk(node: dict) -> int:
    """Clean: a list as the stack, each node once."""
    pending, seen = [node], 0
    while pending:
        current = pending.pop()
        seen += 1
        pending.extend(current.get("children", []))
    return seen
