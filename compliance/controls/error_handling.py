"""Errors are handled, and work goes on: what fails for a while gets a value, what fails for good hurts nobody else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from compliance.control import Control, Observation, Trial
from detectors.registration import RetryPolicy

__all__ = ["ErrorHandling"]

ATTEMPTS, TRANSIENT, MIXED = 3, 8, 20
QUICK = RetryPolicy(attempts=ATTEMPTS, base_s=0.001, cap_s=0.005)


class _FailsAtFirst:
    """Fails on the first attempts for each argument, then answers."""

    def __init__(self, failures: int) -> None:
        assert failures > 0, "one that never fails shows nothing"
        self._failures, self._lock = failures, threading.Lock()
        self.begun: Counter[int] = Counter()
        """How often it was called, by argument."""

    def __call__(self, number: int) -> int:
        assert 0 <= number < TRANSIENT, "the trial asks for no other"
        with self._lock:
            self.begun[number] += 1
            attempt = self.begun[number]
        if attempt <= self._failures:
            raise OSError(f"injected fault {attempt} of {number}")
        return number * number


def _fails_for_odd(number: int) -> int:
    assert 0 <= number < MIXED, "the trial asks for no other"
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number + 1


def _ends_the_interpreter(kind: str) -> None:
    assert kind in ("exit", "interrupt"), "there is no other way"
    if kind == "exit":
        raise SystemExit(3)
    raise KeyboardInterrupt


class ErrorHandling(Control):
    """Injects transient faults, permanent faults and attempts to end the interpreter."""

    id = "error-handling"
    title = "Error handling with recovery"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Count values, attempts and errors against what was injected."""
        assert MIXED % 2 == 0, "as many fail for good as do not"
        transient = _FailsAtFirst(ATTEMPTS - 1)
        with trial.pool() as pool:
            pool.register_detector("trial-transient", transient, retry=QUICK, breaker=None)
            pool.register_detector("trial-permanent", _fails_for_odd, retry=QUICK, breaker=None)
            pool.register_detector("trial-exit", _ends_the_interpreter, breaker=None)
            started = time.perf_counter()
            results = pool.execute_parallel([("trial-transient", (number,), {}) for number in range(TRANSIENT)])
            assert set(transient.begun) <= set(range(TRANSIENT)), "only what was asked for was begun"
            recovered = sum(
                result.value == number * number and result.attempts == ATTEMPTS for number, result in enumerate(results)
            )
            yield Observation(
                recovered == TRANSIENT and transient.begun.total() == ATTEMPTS * TRANSIENT,
                f"{recovered} of {TRANSIENT} executions recovered on attempt {ATTEMPTS} after {ATTEMPTS - 1} injected "
                f"faults each ({transient.begun.total()} calls in {time.perf_counter() - started:.3f} s)",
            )
            mixed = pool.execute_parallel([("trial-permanent", (number,), {}) for number in range(MIXED)])
            values = sum(result.value == number + 1 for number, result in enumerate(mixed) if number % 2 == 0)
            errors = sum(isinstance(result.error, ValueError) and result.attempts == 1 for result in mixed[1::2])
            assert values + errors <= len(mixed), "an execution gives a value or an error"
            yield Observation(
                values == errors == MIXED // 2,
                f"beside {errors} of {MIXED // 2} permanent failures, {values} of {MIXED // 2} neighbours kept theirs",
            )
            ended = [pool.execute_detector("trial-exit", kind) for kind in ("exit", "interrupt")]
            after = pool.execute_detector("trial-permanent", 2)
            contained = sum(isinstance(result.error, SystemExit | KeyboardInterrupt) for result in ended)
            yield Observation(
                contained == len(ended) and after.value == 3,
                f"{contained} of {len(ended)} attempts to end the interpreter became errors, and the pool went on",
            )
