"""Crashes cost no result, a unit that always crashes costs its own only, what keeps failing is left alone a while."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from compliance.control import Control, Observation, Trial
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import CircuitOpen, IsolatedCrash
from detectors.registration import BreakerPolicy, RetryPolicy

__all__ = ["FaultTolerance"]

UNITS, CRASHING, FATAL = 12, (3, 7, 11), 5
FAILURES, ASKED, RESET_S, PATIENCE_S = 3, 12, 0.2, 10.0
AGAIN = RetryPolicy(attempts=2, base_s=0.001, cap_s=0.005, on=(IsolatedCrash,))


def cubed(number: int, folder: str, fatal: int = -1) -> int:
    """Answer, but be killed at the first try of some numbers, and at every try of `fatal`."""
    if number < 0:
        raise ValueError(f"units count from 0, not {number}")
    assert not folder or Path(folder).is_dir(), "who crashes once leaves a mark behind"
    marker = Path(folder, f"crashed-{number}")
    first = folder != "" and number in CRASHING and not marker.exists()
    if first:
        marker.touch()
    if first or number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**3


@dataclasses.dataclass(eq=False)
class _Mendable:
    """Fails until it is mended, and counts its calls."""

    calls: int = 0
    mended: bool = False
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def __call__(self) -> int:
        with self._lock:
            self.calls += 1
            if not self.mended:
                raise ConnectionError("injected outage")
            return self.calls


class FaultTolerance(Control):
    """Kills processes under work, and breaks a detector until its circuit opens."""

    id = "fault-tolerance"
    title = "Fault tolerance and automatic recovery"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Compare with a run without faults; count calls while the circuit is open."""
        assert FATAL not in CRASHING, "what crashes at every try would not be told from what crashes once"
        assert max(FATAL, *CRASHING) < UNITS, "who crashes is among the units"
        with trial.pool() as pool:
            pool.register_detector("trial-killed", cubed, isolation="process", retry=AGAIN, breaker=None)
            pool.register_detector("trial-fatal", cubed, isolation="process", breaker=None)
            calm = [number**3 for number in range(UNITS)]
            started = time.perf_counter()
            killed = pool.execute_parallel([("trial-killed", (n, str(trial.folder)), {}) for n in range(UNITS)])
            same = sum(result.value == value for result, value in zip(killed, calm, strict=True))
            lost = pool.get_pool_metrics()["processes"]["lost"]
            yield Observation(
                same == UNITS and lost >= len(CRASHING),
                f"{len(CRASHING)} of {UNITS} units killed their process ({lost} lost); {same} of {UNITS} results are "
                f"those of a run without faults, after {time.perf_counter() - started:.2f} s",
            )
            results = pool.execute_parallel([("trial-fatal", (n, "", FATAL), {}) for n in range(UNITS)])
            kept = sum(result.value == value for result, value in zip(results, calm, strict=True))
            crashed = isinstance(results[FATAL].error, IsolatedCrash)
            yield Observation(
                kept == UNITS - 1 and crashed,
                f"a unit that always crashes got {type(results[FATAL].error).__name__}, "
                f"{kept} of {UNITS - 1} others their values",
            )
            yield from self._circuit(pool)

    def _circuit(self, pool: EnterpriseDetectorPool) -> Iterator[Observation]:
        assert FAILURES < ASKED, "some are left for the open circuit to refuse"
        mendable = _Mendable()
        policy = BreakerPolicy(failures=FAILURES, reset_s=RESET_S)
        pool.register_detector("trial-outage", mendable, breaker=policy)
        began = time.monotonic()
        results = [pool.execute_detector("trial-outage") for _ in range(ASKED)]
        assert not any(result.ok for result in results), "it is not mended yet"
        refused = sum(isinstance(result.error, CircuitOpen) for result in results)
        # A slow machine may take longer than the pause, and then a trial is rightly let through.
        trials = int((time.monotonic() - began) / RESET_S)
        yield Observation(
            refused == ASKED - mendable.calls and FAILURES <= mendable.calls <= FAILURES + trials,
            f"of {ASKED} calls of a broken detector {mendable.calls} ran, {refused} were refused by the open circuit",
        )
        mendable.mended = True
        mended_s = time.monotonic()
        for _ in range(1_000):
            healed = pool.execute_detector("trial-outage").ok
            if healed or time.monotonic() - mended_s > PATIENCE_S:
                break
            time.sleep(RESET_S / 10)  # the breaker's pause passes by the clock alone
        state = pool.get_pool_metrics()["detectors"]["trial-outage"]["breaker"]["state"]
        assert isinstance(state, str), "a state has a name"
        yield Observation(
            healed and state == "closed",
            f"{time.monotonic() - mended_s:.2f} s after it was mended it ran again and the circuit is {state}",
        )
