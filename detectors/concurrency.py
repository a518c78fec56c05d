"""
How many at once: the FAST TCP window law, a pure state machine fed with slow-downs.

A piece of work that takes `s` times its prediction while `n` run waits for others: by Little's law `n * (1 - base / s)`
of the `n` are queued, where `base` is the slow-down without a queue. Each window of observations moves the limit to

    n' = (1 - gain) * n + gain * (n * base / s + queued)

whose only fixed point has exactly `queued` pieces waiting: enough to keep every worker busy, and no more. Unlike
additive increase and multiplicative decrease it does not saw around it; with one bottleneck it converges from anywhere
(Wang, Wei and Low, "Modelling and stability of FAST TCP", INFOCOM 2005). A tenth of the limit may wait where that is
more, so that the noise of a base measured some per cent too low does not talk the limit down.

The base is the median of the last drained windows, or the last one where that is much lower: each eighth window runs at
four fifths of the level at which no worker is idle, where nothing queues (the drain of BBR: Cardwell et al., "BBR:
congestion-based congestion control", ACM Queue 14(5), 2016). So work that became slower for good is not taken for a
queue for ever. A lowest value ever seen would do neither: noise draws it down without end.

Up to `calm` at once nothing is expected to queue, and a drain would only keep workers idle. There the base follows what
is measured, and the limit falls, and is drained, only after two windows in a row that are slower than the base by more
than noise is.

Source: Wei, Jin, Low and Hegde, "FAST TCP: motivation, architecture, algorithms, performance", IEEE/ACM Transactions
on Networking 14(6), 2006, equation 7.
"""

from __future__ import annotations

import collections
import statistics

from detectors.errors import UsageError

__all__ = ["ConcurrencyController"]

WINDOW = (16, 32)
"""Observations of a window: as many as run at once, within these. Its median counts: one straggler moves nothing."""
DRAIN_EVERY = 8
DRAINED = 0.8
DRAINED_DEEP = 0.5
"""While draining still uncovers a lower base, the queue is long, and is drained by halves."""
UNCOVERED = 0.9
BELIEVED = 0.75
"""Times the median of drained windows, below which the last one is the base: noise of 30 % strays less."""
REMEMBERED = 5
"""Drained windows whose median is the base."""
HEADROOM = 0.1
RISEN = 1.5
"""Times the base: medians of 16 observations do not stray so far by chance where their noise is 30 %."""
RISEN_WINDOWS = 2


class ConcurrencyController:
    """
    The limit for work at once. Not thread-safe: its owner locks.

    Args:
        floor: Least limit, at least 1.
        ceiling: Greatest limit.
        start: Limit before anything is known; the ceiling if not given.
        queued: Pieces that shall wait in equilibrium, at least.
        gain: Share of the way to the target that one window goes, above 0 and at most 1.
        calm: At once up to which nothing is expected to queue, at least 0.

    Raises:
        UsageError: Numbers that make no sense.
    """

    def __init__(  # p10: ignore[R10] the law's own constants, each with a default by the maintainers
        self,
        floor: int = 1,
        ceiling: int = 1_024,
        start: float | None = None,
        queued: float = 1.0,
        gain: float = 0.5,
        *,
        calm: int = 0,
    ) -> None:
        if not (1 <= floor <= ceiling and queued > 0 and 0 < gain <= 1 and calm >= 0):
            raise UsageError(
                f"a controller needs 1 <= floor <= ceiling, queued > 0, 0 < gain <= 1 and calm >= 0, not "
                f"{floor}, {ceiling}, {queued}, {gain}, {calm}"
            )
        self._floor, self._ceiling, self._queued, self._gain = floor, ceiling, queued, gain
        self._level = float(min(max(start if start is not None else ceiling, floor), ceiling))
        self._window: list[float] = []
        self._bases: collections.deque[float] = collections.deque(maxlen=REMEMBERED)
        self._calm, self._risen = calm, 0
        self._windows = 0
        self._drain: float | None = None
        self._depth = DRAINED_DEEP
        assert floor <= self._level <= ceiling, "a start outside of the limits is brought to the nearest"

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        level = self._level if self._drain is None else self._drain
        assert 0 < level <= self._ceiling, "a drain only lowers the level"
        return min(max(round(level), self._floor), self._ceiling)

    def observe(self, slow_down: float) -> None:
        """
        Learn from one finished piece of work.

        Args:
            slow_down: Seconds it took over seconds predicted, above 0.
        """
        assert slow_down > 0, "work takes time"
        assert len(self._window) < WINDOW[1], "a full window moves the limit and is emptied"
        self._window.append(slow_down)
        if len(self._window) >= min(max(WINDOW[0], self.limit), WINDOW[1]):
            median = statistics.median(self._window)
            self._window = []
            self._move(median)

    def _move(self, slow_down: float) -> None:
        assert slow_down > 0, "a median of what is above 0"
        self._windows += 1
        if self._drain is not None or not self._bases:
            before = self._base()
            self._bases.append(slow_down)
            self._depth = DRAINED_DEEP if slow_down < UNCOVERED * before else DRAINED
        if self._drain is not None:
            # The drained window told the base; the level is as it was.
            self._drain = None
            return
        base = self._base()
        risen = slow_down > RISEN * base
        self._risen = self._risen + 1 if risen else 0
        calm = self._level <= self._calm and self._risen < RISEN_WINDOWS
        if calm and not risen:
            self._bases.append(slow_down)
        flowing = self._level * min(base / slow_down, 1.0)
        target = flowing + max(self._queued, HEADROOM * self._level)
        # At most twice as many at once (as in equation 7): one lucky window must not flood the machine.
        moved = min((1 - self._gain) * self._level + self._gain * target, 2 * self._level)
        self._level = min(max(moved, self._level if calm else float(self._floor)), float(self._ceiling))
        assert self._floor <= self._level <= self._ceiling, "the limits hold whatever was seen"
        if self._windows % DRAIN_EVERY == 0 and not calm:
            self._drain = max(self._depth * flowing, float(self._floor), float(self._calm) if not risen else 0.0)

    def _base(self) -> float:
        # A much lower base is believed at once, since a queue only ever adds; any other when the median says so.
        if not self._bases:
            return float("inf")
        assert min(self._bases) > 0, "a base is a slow-down"
        usual = statistics.median(self._bases)
        return self._bases[-1] if self._bases[-1] < BELIEVED * usual else usual
