"""Half of the planted cycle over modules: `unpack` here, `expand` in `tree.py`."""

from . import tree


def unpack(frame: dict, depth: int) -> list:
    """Planted: P10-R1, with `tree.expand`."""
    if depth == 0:
        return [frame]
    return tree.expand(frame, depth)


def checksum(data: bytes) -> int:
    """Clean: a loop with a bound."""
    total = 0
    for byte in data:
        total = (total * 31 + byte) % 65521
    return total
