"""
How much memory is left to this process: the machine's, or less where a control group says so (v2 and v1).

Page cache that the kernel can take back counts as free, as Kubernetes counts a "working set".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from detectors.errors import UsageError

__all__ = ["MemoryState", "next_limit", "read_memory"]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
TIGHT, EASY = 0.10, 0.20
"""Shares of free memory below which a cache shrinks, and above which it grows back; between them it stays."""
SHRINK, GROW = 0.5, 1.25
NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number near 2 ** 63."""


class MemoryState(msgspec.Struct, frozen=True):
    """Memory that may be used, and what of it is still free."""

    limit_bytes: int
    free_bytes: int
    source: str
    """`machine`, or the folder of the control group that limits most."""

    @property
    def free_share(self) -> float:
        """Return 0 to 1."""
        assert self.free_bytes <= self.limit_bytes, "what is free is a part"
        if self.limit_bytes <= 0:
            return 0.0
        return self.free_bytes / self.limit_bytes


def read_memory(cgroup_root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> MemoryState:
    """
    Return the tightest of the machine and the control groups of this process.

    Args:
        cgroup_root: Where control groups are mounted.
        membership: The kernel's list of this process's groups.

    Raises:
        UsageError: `cgroup_root` is relative: it would follow the working directory.
    """
    if not cgroup_root.is_absolute():
        raise UsageError(f"control groups are mounted at an absolute path, not at {cgroup_root}")
    machine = psutil.virtual_memory()
    whole = tightest = MemoryState(machine.total, min(machine.available, machine.total), "machine")
    for folder, names in _groups(cgroup_root, membership):
        limit = _number(folder / names[0])
        used = _number(folder / names[1])
        if limit is None or used is None or limit >= NO_LIMIT:
            continue
        reclaimable = _number(folder / "memory.stat", names[2]) or 0
        free = min(limit, max(0, limit - max(0, used - reclaimable)))
        state = MemoryState(limit, min(free, machine.available), str(folder))
        if state.free_share < tightest.free_share:
            tightest = state
    assert tightest.free_share <= whole.free_share, "a group never has more than the machine"
    return tightest


def next_limit(current_bytes: int, configured_bytes: int, free_share: float) -> int:
    """
    Return how large a cache may be now: half under pressure, a quarter more when there is room again.

    Args:
        current_bytes: Its limit until now.
        configured_bytes: What it never exceeds.
        free_share: Of `read_memory`.
    """
    assert 0 <= free_share <= 1, "it is a share"
    assert current_bytes >= 0, "a limit is no debt"
    assert current_bytes <= configured_bytes, "what was configured is never exceeded"
    if free_share < TIGHT:
        return int(current_bytes * SHRINK)
    if free_share > EASY:
        # One part in a hundred as a first step, since nothing grows from 0.
        return min(configured_bytes, max(int(current_bytes * GROW), configured_bytes // 100))
    return current_bytes


def _groups(root: Path, membership: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield each group from this process's own upwards, with the names of its limit, use and reclaimable part."""
    assert root.is_absolute(), "groups are told apart by their whole path"
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        if hierarchy == "0":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = base / path.lstrip("/")
        # In a container the path is the host's, while the mount begins at the container's own group.
        for folder in (inside, *inside.parents):
            if folder == base or base in folder.parents:
                yield folder, names


def _number(file: Path, field: str = "") -> int | None:
    """Return the number that a file holds, in all or behind a field's name; `None` where there is none."""
    try:
        text = file.read_text()
        if field:
            text = dict(line.split(" ", 1) for line in text.splitlines()).get(field, "")
        return int(text)
    except (OSError, ValueError):  # no such group, or the word `max`
        return None
