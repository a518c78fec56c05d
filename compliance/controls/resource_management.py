"""Time, memory and kept results are bounded: what overruns is ended with all that it began, and nothing stays."""

from __future__ import annotations

import operator
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from compliance.control import Control, Observation, Trial
from detectors.errors import ExecutionTimedOut

__all__ = ["ResourceManagement"]

TIMEOUT_S, OVERRUN_S, GRACE_S = 0.5, 8.0, 4.0
"""What overruns would go on for `OVERRUN_S`; it must have ended within `TIMEOUT_S + GRACE_S`."""
LIMIT_BYTES, WANTED_BYTES = 768 << 20, 4 << 30
KEPT, DISTINCT = 50, 200


def overrun(seconds: float, folder: str) -> int:
    """Note who runs, start a child, and go on for `seconds`; 0 only warms the process up."""
    if seconds <= 0:
        return os.getpid()
    assert Path(folder).is_dir(), "who runs is noted in it"
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"])
    Path(folder, "pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(seconds)  # the trial's work: it overruns
    return child.wait()


def hoard(size_bytes: int) -> int:
    """Take memory, and say how much came."""
    if size_bytes <= 0:
        return 0
    assert size_bytes > LIMIT_BYTES, "what would be granted shows nothing"
    return len(bytearray(size_bytes))


class ResourceManagement(Control):
    """Lets a task overrun, lets one take too much memory, fills the cache, and looks for what is left after closing."""

    id = "resource-management"
    title = "Resource management with timeouts"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Measure how long the overrun lasted and what is left of it."""
        kept = min(int(trial.configuration.get("cache_size", KEPT)), KEPT)
        assert 0 <= kept < DISTINCT, "the cache is asked for more than it may keep"
        assert LIMIT_BYTES < WANTED_BYTES, "more is asked for than is granted"
        with trial.pool(cache_size=kept) as pool:
            pool.register_detector("trial-overrun", overrun, isolation="process", timeout_s=TIMEOUT_S, breaker=None)
            pool.register_detector("trial-hoard", hoard, isolation="process", memory_bytes=LIMIT_BYTES, breaker=None)
            pool.register_detector("trial-kept", operator.neg, cacheable=True)
            _ = pool.execute_detector("trial-overrun", 0.0, str(trial.folder))
            yield from self._overrun(trial, pool.execute_detector("trial-overrun", OVERRUN_S, str(trial.folder)).error)
            answer = pool.execute_detector("trial-hoard", WANTED_BYTES)
            yield Observation(
                answer.error is not None,
                f"{WANTED_BYTES >> 20} MiB asked for under a limit of {LIMIT_BYTES >> 20} MiB: "
                f"{type(answer.error).__name__ if answer.error is not None else 'granted'}",
            )
            results = pool.execute_parallel([("trial-kept", (number,), {}) for number in range(DISTINCT)])
            entries = pool.get_pool_metrics()["cache_entries"]
            assert len(results) == DISTINCT, "each execution has one result"
            answered = sum(result.value == -number for number, result in enumerate(results))
            yield Observation(
                entries <= kept and answered == DISTINCT,
                f"{entries} of {DISTINCT} results kept, {kept} allowed, {answered} answered",
            )
            pids = pool.get_pool_metrics()["processes"]["pids"]
        left = _alive_after(pids, GRACE_S)
        yield Observation(not left, f"{len(left)} of {len(pids)} processes left after closing")

    def _overrun(self, trial: Trial, error: BaseException | None) -> Iterator[Observation]:
        noted = trial.folder / "pids"
        if not noted.exists():
            yield Observation(False, f"the overrunning task did not begin ({error!r})")
            return
        began_s = noted.stat().st_mtime
        pids = tuple(int(word) for word in noted.read_text().split())
        assert len(pids) == 2, "the task and its child"
        assert os.getpid() not in pids, "what overruns is no thread of this process, which would not be ended"
        left = _alive_after(pids, max(0.0, began_s + TIMEOUT_S + GRACE_S - time.time()))
        lasted_s = time.time() - began_s
        in_time = isinstance(error, ExecutionTimedOut) and not left and lasted_s <= TIMEOUT_S + GRACE_S
        yield Observation(
            in_time,
            f"a task of {OVERRUN_S:g} s with a timeout of {TIMEOUT_S:g} s gave {type(error).__name__} and was gone "
            f"after {lasted_s:.2f} s ({TIMEOUT_S + GRACE_S:g} s allowed), {len(left)} of {len(pids)} processes left",
        )


def _alive_after(pids: Sequence[int], patience_s: float) -> list[int]:
    """Return which processes are still there once they had `patience_s` to go."""
    assert patience_s >= 0, "seconds"
    deadline = time.monotonic() + patience_s
    for _ in range(10_000):
        left = [pid for pid in pids if _is_alive(pid)]
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(0.005)
    assert os.getpid() not in left, "this process is not waited for"
    return left


def _is_alive(pid: int) -> bool:
    assert pid > 0, "0 and below name groups of processes"
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
