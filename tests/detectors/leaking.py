"""A detector that forgets to forget, for whoever must see it."""

from __future__ import annotations

FORGOTTEN: list[list[int]] = []


def remember(number: int) -> list[int]:
    """Keep a list a call for ever."""
    FORGOTTEN.append([number] * 100)
    return [number] * 3
