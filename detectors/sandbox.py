"""Placeholder replaced by its owner."""
from __future__ import annotations

import msgspec


class Completed(msgspec.Struct, frozen=True):
    """What a foreign process left behind."""

    exit_code: int
    """Negative: ended by that signal."""
    stdout: bytes
    stderr: bytes
    seconds: float
