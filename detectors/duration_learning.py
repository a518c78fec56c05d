"""
What is known of one detector's durations: the model, and the two guesses that it must beat, scored side by side.

Scores are prequential: each observation is predicted by what was known before it, and learnt after (Dawid, "Present
position and potential developments: the prequential approach", JRSS A 147(2), 1984). So they hold for data not seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import msgspec

from detectors.cache import Timing
from detectors.duration_model import FEATURES, DurationModel, Features, Refit
from detectors.errors import UsageError

__all__ = ["MIN_HISTORY", "DetectorHistory", "Score"]

FILES = FEATURES.index("files")
FIRST_SLOPE = FEATURES.index("mb_c")

DECAY = 0.98
MIN_HISTORY = 2.0
"""Observations from which a history counts for more than a complexity score."""
WORTH_A_SLOW_DOWN = 8.0
"""Observations from which a prediction is good enough to call an execution slowed down."""
SHORTEST_S = 1e-3
"""Shorter work says more of the clock than of the machine."""
SHORTEST_PREDICTED_S = 1e-6
HELD_BACK = 32
"""Observations that are learnt together at the latest."""


class Score(msgspec.Struct, frozen=True):
    """Sums over the observations that model and rivals all predicted before they happened."""

    observations: int = 0
    seconds: float = 0.0
    inside: int = 0
    """How many fell into the interval of 90 %."""
    model_error_s: float = 0.0
    mean_error_s: float = 0.0
    """Of the mean of what was seen before, a file."""
    size_error_s: float = 0.0
    """Of the mean of what was seen before, a megabyte."""

    def plus(self, seconds: float, model_s: float, mean_s: float, size_s: float, inside: bool) -> Score:
        """Return the sums with one more observation."""
        assert seconds >= 0, "no work gives time back"
        assert min(model_s, mean_s, size_s) >= 0, "nor does anybody predict it"
        return Score(
            self.observations + 1,
            self.seconds + seconds,
            self.inside + inside,
            self.model_error_s + abs(model_s - seconds),
            self.mean_error_s + abs(mean_s - seconds),
            self.size_error_s + abs(size_s - seconds),
        )

    def __add__(self, other: Score) -> Score:
        """Return the sums over both."""
        both = Score(*map(sum, zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)))
        assert both.observations >= self.observations, "scores count up"
        assert both.inside <= both.observations, "what was inside was observed"
        return both


class DetectorHistory:
    """
    One detector's model with its score. Not thread-safe: its owner locks.

    Args:
        complexity_score: Seconds a megabyte (or a call) believed until there is a history.
        timing: What earlier runs left.
        slowed: Told the slow-down (seconds over predicted seconds) of each observation that allows one.
    """

    def __init__(self, complexity_score: float, timing: Timing | None, slowed: Callable[[float], None]) -> None:
        assert complexity_score > 0, "work takes time"
        assert timing is None or timing.n >= 0, "what earlier runs left is counted from 0"
        self._timing = timing or Timing()
        self._slowed = slowed
        old = self._timing
        if old.model is None and old.n >= MIN_HISTORY and old.x > 0 and old.y > 0:
            # Written before there was a model: its mean rate is what is believed.
            complexity_score = old.y / old.x
        self.model = DurationModel(complexity_score, old.model)
        self._held: list[tuple[Features, float, float]] = []
        self.observed = 0
        self._so_far = Score()

    def believe(self, complexity_score: float) -> None:
        """Take another score, which counts as long as there is no history."""
        assert complexity_score > 0, "work takes time"
        if self._timing.n > 0 or self._held:
            return
        self.model = DurationModel(complexity_score)

    @property
    def known(self) -> bool:
        """Whether the history counts for more than the complexity score."""
        return self._timing.n >= MIN_HISTORY

    def observe(self, features: Features, seconds: float, missed_s: float = 0.0) -> None:
        """
        Learn from finished work; see `DurationModel.learn`. Learnt at the latest when something is asked.

        Raises:
            UsageError: Seconds below 0, or endless ones.
        """
        if not 0 <= seconds < math.inf:
            raise UsageError(f"work takes a number of seconds from 0 on, not {seconds}")
        assert len(features) == len(FEATURES), "features come in their order"
        assert math.isfinite(missed_s), "a file is off the line by so many seconds"
        self._held.append((features, seconds, missed_s))
        if len(self._held) >= HELD_BACK:
            self.learn()

    def learn(self) -> None:
        """Learn what is held back. Equal calls that follow each other are one step."""
        if not self._held:
            return
        held, self._held = self._held, []
        for (features, missed_s), alike in itertools.groupby(held, key=lambda one: (one[0], one[2])):
            seconds = [taken_s for _, taken_s, _ in alike]
            line_s = self.model.seconds(features)
            assert line_s > 0, "a prediction is never nothing"
            for taken_s in seconds:
                self._score(features, taken_s, max(line_s + missed_s, SHORTEST_PREDICTED_S))
            self.model.learn(features, [taken_s - missed_s for taken_s in seconds], line_s)
        assert self.observed >= len(held), "each observation is scored"

    def refit(self) -> Refit | None:
        """Fit with scikit-learn; see `DurationModel.refit`."""
        self.learn()
        found = self.model.refit()
        assert found is None or found.observations >= 2, "some are learnt from, and some held out"
        return found

    def timing(self) -> Timing:
        """Return what to keep."""
        self.learn()
        if not self.observed:
            return self._timing
        assert self._timing.n > 0, "what was observed is counted"
        return msgspec.structs.replace(self._timing, model=self.model.state())

    def score(self) -> Score:
        """Return the errors so far."""
        self.learn()
        assert self._so_far.observations <= self.observed, "what is scored was observed"
        assert self._so_far.inside <= self._so_far.observations, "what was inside was scored"
        return self._so_far

    def _score(self, features: Features, seconds: float, predicted_s: float) -> None:
        assert predicted_s > 0, "a prediction is never nothing"
        old = self._timing
        files, megabytes = max(features[FILES], 1.0), sum(features[FIRST_SLOPE:])
        inside = self.model.judge(predicted_s, seconds)
        self.observed += 1
        if old.n >= MIN_HISTORY and old.files > 0:
            # The rivals know as much as the model does: all that this detector did before, none of what it does now.
            self._so_far = self._so_far.plus(
                seconds, predicted_s, old.y / old.files * files, old.y / old.x * megabytes if old.x else 0.0, inside
            )
        if old.n >= WORTH_A_SLOW_DOWN and predicted_s >= SHORTEST_S:
            self._slowed(max(seconds / predicted_s, 1e-6))
        x = megabytes
        self._timing = Timing(
            old.n * DECAY + 1, old.x * DECAY + x, old.y * DECAY + seconds, old.xx * DECAY + x * x,
            old.xy * DECAY + x * seconds, old.files * DECAY + files, old.version, old.model,
        )  # fmt: skip
        assert self._timing.n >= 1, "this one counts in full"
        assert self._timing.y >= 0, "no work gives time back"
