"""
Where a detector's time goes: samples of its stack by pyinstrument, allocations by tracemalloc.

Both slow executions. The peak of allocations is the whole process's while the detector ran, so an upper bound where
several run at once.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["DetectorProfile", "DetectorProfiles"]

INTERVAL_S = 0.001
SAMPLES = 100_000
"""Kept of each detector; it is no longer sampled after that."""


class DetectorProfile(msgspec.Struct, frozen=True):
    """What profiling saw of one detector."""

    wall_s: float
    cpu_s: float
    peak_allocated_bytes: int
    """Highest of Python's allocations above what was there when a chunk began."""
    samples: int


class _Profile(msgspec.Struct, eq=False):
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    session: Any = None


class DetectorProfiles:
    """Profiles of the detectors that run in threads of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._profiles: dict[str, _Profile] = {}
        self._ours = not tracemalloc.is_tracing()
        if self._ours:
            tracemalloc.start()
        assert tracemalloc.is_tracing(), "allocations are seen from now on"

    @contextlib.contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Sample what this thread does in the block, for a detector."""
        import pyinstrument

        assert name, "a detector has a name"
        profiler: Any = None
        with self._lock:
            profile = self._profiles.setdefault(name, _Profile())
            full = profile.session is not None and profile.session.sample_count >= SAMPLES
        # A detector that runs others through the pool is sampled already; two samplers on one thread are refused.
        if not full and not getattr(_INSIDE, "yes", False):
            profiler = pyinstrument.Profiler(interval=INTERVAL_S, async_mode="disabled")
            _INSIDE.yes = True
            profiler.start()
        assert profiler is None or profiler.is_running, "what is not sampled is not kept"
        wall_s, cpu_s, before = time.perf_counter(), time.thread_time(), tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        try:
            yield
        finally:
            peak_bytes = tracemalloc.get_traced_memory()[1] - before
            wall_s, cpu_s = time.perf_counter() - wall_s, time.thread_time() - cpu_s
            assert min(wall_s, cpu_s) >= 0, "both clocks are monotonic"
            session = None
            if profiler is not None:
                assert _INSIDE.yes, "who samples is the outermost"
                session = profiler.stop()
                _INSIDE.yes = False
            with self._lock:
                profile.wall_s += wall_s
                profile.cpu_s += cpu_s
                profile.peak_bytes = max(profile.peak_bytes, peak_bytes)
                if session is not None and session.frame_records:
                    both = profile.session
                    profile.session = session if both is None else type(session).combine(both, session)
                assert profile.wall_s >= wall_s, "a profile only grows"

    def read(self) -> dict[str, DetectorProfile]:
        """Return what was seen until now."""
        with self._lock:
            assert all(profile.peak_bytes >= 0 for profile in self._profiles.values()), "a peak is above what was there"
            assert all(self._profiles), "a detector has a name"
            return {
                name: DetectorProfile(
                    profile.wall_s, profile.cpu_s, profile.peak_bytes,
                    0 if profile.session is None else profile.session.sample_count,
                )
                for name, profile in sorted(self._profiles.items())
            }  # fmt: skip

    def export(self, folder: Path) -> tuple[Path, ...]:
        """
        Write one flame graph a detector, as speedscope JSON, which speedscope and others show.

        Args:
            folder: Made when missing.

        Returns:
            The files, named after their detectors.
        """
        from pyinstrument.renderers import SpeedscopeRenderer

        folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            sessions = {name: profile.session for name, profile in sorted(self._profiles.items())}
        assert all(sessions), "a file is called after its detector"
        written: list[Path] = []
        for name, session in sessions.items():
            if session is None or not session.frame_records:
                continue
            file = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.speedscope.json"
            file.write_text(SpeedscopeRenderer().render(session))
            written.append(file)
        assert len(written) <= len(sessions), "a detector has one graph at most"
        return tuple(written)

    def close(self) -> None:
        """Stop tracing allocations, if that was begun here."""
        if self._ours:
            tracemalloc.stop()


_INSIDE = threading.local()
