"""
How often what failed is tried again, and after which pauses: one policy for the pool's executions and a scan's cluster.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from detectors.errors import UsageError

if TYPE_CHECKING:
    import tenacity

__all__ = ["RetryPolicy"]


class RetryPolicy(msgspec.Struct, frozen=True):
    """
    How often a failed execution is tried, and after which pauses.

    The pause before attempt n is drawn evenly from 0 to min(cap_s, base_s * 2 ** (n - 1)) ("full jitter").
    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Raises:
        UsageError: Fewer than one attempt, or a pause below 0.
    """

    attempts: int = 1
    """In all, the first included."""
    base_s: float = 0.1
    cap_s: float = 30.0
    on: tuple[type[BaseException], ...] = (OSError, TimeoutError)
    """What may be retried; every other error is final at once."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"a RetryPolicy needs at least one attempt, not {self.attempts}")
        if not (self.base_s >= 0 and self.cap_s >= 0):  # what is no number is no pause either
            raise UsageError("a RetryPolicy needs pauses that are not negative")
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in self.on):
            raise UsageError("`on` of a RetryPolicy holds classes of exceptions")

    def retrying(self, stop: threading.Event) -> tenacity.Retrying:
        """
        Return the attempts; who gives up gets the last error itself.

        Args:
            stop: When set, a pause ends at once and nothing is tried again.
        """
        import tenacity

        assert self.attempts >= 1, "checked when it was made"
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.attempts) | tenacity.stop_when_event_set(stop),
            wait=tenacity.wait_random_exponential(multiplier=self.base_s, max=self.cap_s),
            sleep=tenacity.sleep_using_event(stop),
            retry=tenacity.retry_if_exception_type(self.on),
            reraise=True,
        )
