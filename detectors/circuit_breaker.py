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
from typing import TYPE_CHECKING

import msgspec

from detectors.errors import UsageError

if TYPE_CHECKING:
    import pybreaker

__all__ = ["Breaker", "BreakerPolicy", "BreakerState"]


CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"
"""pybreaker's own names of its states."""


class BreakerPolicy(msgspec.Struct, frozen=True):
    """
    When a detector that keeps failing is left alone.

    Raises:
        UsageError: A count below 1, or a negative time.
    """

    failures: int = 5
    """Consecutive failures that open the circuit."""
    reset_s: float = 30.0
    """After which one execution is let through."""
    successes: int = 1
    """Consecutive successes of such executions that close it again."""

    def __post_init__(self) -> None:
        if self.failures < 1 or self.successes < 1:
            raise UsageError(f"a BreakerPolicy counts from 1, not {min(self.failures, self.successes)}")
        if not self.reset_s >= 0:  # what is no number is no time either
            raise UsageError(f"the reset_s of a BreakerPolicy is not negative, as {self.reset_s} is")


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
        # Made with the first failure: pybreaker loads a client of Redis, which takes longer than many a run.
        self._machine: pybreaker.CircuitBreaker | None = None
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
            machine = self._machine
            state = CLOSED if machine is None else machine.current_state
            if machine is None or state == CLOSED:
                return None
            left_s = self._opened_at + self._policy.reset_s - self._clock()
            if self._trial or (state == OPEN and left_s > 0):
                self._refused += 1
                assert state != CLOSED, "who is closed refuses nobody"
                return max(left_s, 0.0)
            assert state in (OPEN, HALF_OPEN), "a trial is what leads back to closed"
            self._trial = True
            if state == OPEN:
                machine.half_open()
        if state == OPEN:
            self._tell(state, HALF_OPEN)
        return None

    def would_open(self) -> bool:
        """Tell whether one more failure opens it."""
        with self._lock:
            machine = self._machine
            failures = 0 if machine is None else machine.fail_counter
            assert failures >= 0, "they are counted from none"
            return failures + 1 >= self._policy.failures

    def record(self, failed: bool) -> None:
        """Tell how an admitted execution ended."""
        if self.calm and not failed:
            return
        with self._lock:
            machine = self._machine
            if machine is None:
                import pybreaker

                policy = self._policy
                machine = self._machine = pybreaker.CircuitBreaker(
                    fail_max=policy.failures, reset_timeout=policy.reset_s, success_threshold=policy.successes
                )
            before = machine.current_state
            if before == OPEN:
                return  # an execution that began before it opened
            self._trial = False
            if failed:
                # It raises what it was given, or, as it opens, an error of its own that hides it.
                with contextlib.suppress(Exception):
                    machine.call(_fail)
            else:
                machine.call(lambda: None)
            after = machine.current_state
            assert after in (CLOSED, OPEN, HALF_OPEN), "these are all states that there are"
            assert failed or after != OPEN, "a success opens nothing"
            if after == OPEN:
                self._opened_at = self._clock()
                self._opened += 1
            self.calm = after == CLOSED and machine.fail_counter == 0
            assert not (failed and self.calm), "a failure is remembered"
        if before != after:
            self._tell(before, after)

    def state(self) -> BreakerState:
        """Return what the metrics show."""
        with self._lock:
            machine = self._machine
            if machine is None:
                assert self._opened == self._refused == 0, "without a failure nothing opens"
                return BreakerState(CLOSED, 0, 0, 0)
            calm = machine.current_state == CLOSED and machine.fail_counter == 0
            assert self.calm == calm, "what is read without a lock is what the machine says"
            assert self._opened > 0 or self._refused == 0, "only one that opened refuses"
            return BreakerState(machine.current_state, machine.fail_counter, self._opened, self._refused)

    def _tell(self, before: str, after: str) -> None:
        assert before != after, "only a change is told"
        assert (before, after) != (CLOSED, HALF_OPEN), "trials follow an open circuit"
        if self._changed is not None:
            self._changed(before, after)


class _Failure(Exception):
    pass


def _fail() -> None:
    raise _Failure
