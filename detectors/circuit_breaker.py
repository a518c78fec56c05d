"""
One detector's circuit breaker: pybreaker's state machine, driven by events and a time.

pybreaker runs the guarded function under its own lock, so that two executions of one detector could never overlap.
Here the function runs outside, and pybreaker is told how it ended; half-open, one execution at a time is let through.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import msgspec
import pybreaker

from detectors.registration import BreakerPolicy

__all__ = ["Breaker", "BreakerState"]


class BreakerState(msgspec.Struct, frozen=True):
    """A breaker as the metrics show it."""

    state: str
    """`closed`, `open` or `half-open`."""
    consecutive_failures: int
    opened: int
    """How often it opened."""
    refused: int
    """Executions that were not run."""


class Breaker:
    """
    Thread-safe; `calm` may be read without a lock on the hot path.

    Args:
        policy: When it opens and closes.
        changed: Called with (old state, new state), outside of any lock of this object.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        changed: Callable[[str, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy, self._changed, self._clock = policy, changed, clock
        self._machine = pybreaker.CircuitBreaker(
            fail_max=policy.failures, reset_timeout=policy.reset_s, success_threshold=policy.successes
        )
        self._lock = threading.Lock()
        self._opened_at = 0.0
        self._opened = self._refused = 0
        self._trial = False
        self.calm = True
        """Closed, and without a failure since the last success: nothing to ask, nothing to tell."""

    def admit(self) -> float | None:
        """Return `None` when an execution may run (then `record` must follow), else seconds until the next trial."""
        if self.calm:
            return None
        with self._lock:
            state = self._machine.current_state
            if state == pybreaker.STATE_CLOSED:
                return None
            left_s = self._opened_at + self._policy.reset_s - self._clock()
            if self._trial or (state == pybreaker.STATE_OPEN and left_s > 0):
                self._refused += 1
                return max(left_s, 0.0)
            self._trial = True
            if state == pybreaker.STATE_OPEN:
                self._machine.half_open()
        if state == pybreaker.STATE_OPEN:
            self._tell(state, pybreaker.STATE_HALF_OPEN)
        return None

    def record(self, failed: bool) -> None:
        """Tell how an admitted execution ended."""
        if self.calm and not failed:
            return
        with self._lock:
            before = self._machine.current_state
            if before == pybreaker.STATE_OPEN:
                return  # an execution that began before it opened
            self._trial = False
            if failed:
                with contextlib.suppress(pybreaker.CircuitBreakerError, _Failure):
                    self._machine.call(_fail)
            else:
                self._machine.call(_succeed)
            after = self._machine.current_state
            if after == pybreaker.STATE_OPEN:
                self._opened_at = self._clock()
                self._opened += 1
            self.calm = after == pybreaker.STATE_CLOSED and self._machine.fail_counter == 0
        if before != after:
            self._tell(before, after)

    def abandon(self) -> None:
        """Take an admission back: the execution did not run after all."""
        with self._lock:
            self._trial = False

    def state(self) -> BreakerState:
        """Return what the metrics show."""
        with self._lock:
            machine = self._machine
            return BreakerState(machine.current_state, machine.fail_counter, self._opened, self._refused)

    def _tell(self, before: str, after: str) -> None:
        if self._changed is not None:
            self._changed(before, after)


class _Failure(Exception):
    pass


def _fail() -> None:
    raise _Failure


def _succeed() -> None:
    return None
