"""
Features of work to seconds, learnt while it runs: one model a detector, plain arithmetic, no numerical library.

A prediction is a line over what is known before: batches begun, files, megabytes by language, and how far the number
of lines is from the usual one. Its coefficients minimise the squared error over sums that decay (recursive least
squares in information form), drawn towards one rate for all bytes, or towards the coefficients of the last refit, as
far as the noise seen so far warrants: the posterior mean of a Bayesian linear regression with the noise plugged in. No
coefficient falls below zero, since no work gives time back.

What a line cannot know, a file may: files whose seconds were far off it are remembered by path, the largest misses
first, so that the next run knows them.

An interval comes from two quantiles of the error's logarithm, tracked online; whatever the sequence of errors, the
share of observations outside converges to the one asked for.

Sources: Ljung and Söderström, "Theory and Practice of Recursive Identification", MIT Press, 1983 (decaying sums);
Hoerl and Kennard, "Ridge regression", Technometrics 12(1), 1970; Gibbs and Candès, "Adaptive conformal inference under
distribution shift", NeurIPS 2021, and Angelopoulos, Candès and Tibshirani, "Conformal PID control for time series
prediction", NeurIPS 2023 (quantile tracking and its bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

__all__ = [
    "FEATURES",
    "DurationModel",
    "Features",
    "Known",
    "ModelState",
    "Prediction",
    "QuantileTracker",
    "Refit",
    "work_features",
]

Features = tuple[float, ...]
"""One value for each name of `FEATURES`; features of several files are their sums."""
FEATURES = ("batches", "files", "extra_kilolines", "mb_c", "mb_cpp", "mb_python", "mb_text")
SLOPES = {"c": 3, "cpp": 4, "python": 5}
TEXT = 6
KILOLINES_A_MB = 27.0
"""Lines are a feature as their distance from this, so that not knowing them means the usual number."""
MEGABYTE = 1e6
A_FILE_BYTES = 1_000
"""Counted on top of each file's size: an empty one is opened, too."""
DECAY = 0.99
"""Weight that an observation keeps with each later one of the same detector: about a hundred count."""
FLOOR_S = 1e-6
LEAST_RATE = 1e-9
"""Seconds a megabyte below which a history says nothing of a rate."""
NOISE_FLOOR_S = 0.05
"""Variance grows with the prediction; below this length the clock and the scheduler decide."""
FIRST_NOISE = 0.25
"""Squared relative error assumed as long as there are no more observations than coefficients."""
RATE_SPREAD = 100.0
"""How many times itself a declared rate may plausibly be off."""
MISS = 0.05
"""Asked for on each side of an interval: 5 % below, 5 % above."""
SURPRISES = 2_000
SURPRISE_S, SURPRISE_SHARE = 0.02, 0.25
"""A file is remembered when it missed the line by both."""
RECENT = 256
"""Observations kept for a refit."""


class Prediction(msgspec.Struct, frozen=True):
    """Seconds expected, and the bounds that 90 % of the observations so far would have kept."""

    seconds: float
    low_s: float
    high_s: float


class Known(msgspec.Struct, frozen=True, array_like=True):
    """One observation, as kept for a refit."""

    features: Features
    seconds: float
    predicted_s: float
    """What was said before it was known: a fair measure of the coefficients that said it."""


class ModelState(msgspec.Struct, frozen=True):
    """Everything that a model has learnt, as it is kept between runs."""

    prior: Features
    coefficients: Features
    products: tuple[float, ...]
    """Decayed, weighted sums of feature times feature, row by row, `len(FEATURES)` squared."""
    targets: Features
    """The same of feature times seconds."""
    squares: float
    """The same of seconds squared."""
    n: float
    low: float
    high: float
    surprises: dict[str, tuple[float, int]] = {}
    """Seconds off the line and bytes at that time, by path."""
    recent: tuple[Known, ...] = ()


class Refit(msgspec.Struct, frozen=True):
    """What a refit tried and found; errors are mean absolute ones in seconds, on observations held out in time."""

    observations: int
    online_error_s: float
    refit_error_s: float
    estimator: str
    kept: bool


def work_features(
    size_bytes: int, language: str | None = None, lines: int | None = None, files: int = 1, batches: int = 0
) -> Features:
    """
    Return the features of one piece of work.

    Args:
        size_bytes: In all.
        language: `c`, `cpp`, `python`; anything else counts as text.
        lines: In all, where known.
        files: How many; 0 where that is not known.
        batches: 1 where a batch begins with it.
    """
    megabytes = (size_bytes + A_FILE_BYTES * files) / MEGABYTE
    extra = 0.0 if lines is None else lines / 1_000 - KILOLINES_A_MB * megabytes
    values = [float(batches), float(files), extra, 0.0, 0.0, 0.0, 0.0]
    values[SLOPES.get(language or "", TEXT)] = megabytes
    return tuple(values)


class QuantileTracker:
    """
    A quantile of a stream, by steps of the pinball loss's gradient; values are clipped to `±clip`.

    After T values the share above the tracked value differs from `1 - level` by at most
    `(2 * clip + step) / (step * T)`, whatever the values are (Angelopoulos et al. 2023, proposition 1).
    """

    def __init__(self, level: float, value: float, step: float = 0.05, clip: float = 5.0) -> None:
        assert 0 < level < 1, "a level is a share"
        assert step > 0, "a tracker moves"
        self.level, self.value, self.step, self.clip = level, value, step, clip

    def update(self, observed: float) -> bool:
        """Learn one value; return whether it was above what was tracked before."""
        above = min(max(observed, -self.clip), self.clip) > self.value
        self.value += self.step * (self.level if above else self.level - 1.0)
        return above


class DurationModel:
    """
    Seconds of one detector's work. Not thread-safe: its owner locks.

    Args:
        seconds_a_mb: Believed until something is known, above 0.
        state: What an earlier run learnt.
    """

    def __init__(self, seconds_a_mb: float = 1.0, state: ModelState | None = None) -> None:
        assert seconds_a_mb > 0, "work takes time"
        size = len(FEATURES)
        self._prior: Features = (0.0, 0.0, 0.0, *(seconds_a_mb,) * 4)
        self._centre: Features = self._prior
        self._declared_start_s = 0.0
        if state is not None and len(state.prior) == len(state.coefficients) == len(state.targets) == size:
            self._restore(state)
            return
        self.coefficients: Features = self._prior
        self._products = [0.0] * (size * size)
        self._targets = [0.0] * size
        self._squares = self.n = 0.0
        self._unsolved = 0
        self._low = QuantileTracker(MISS, math.log(0.5))
        self._high = QuantileTracker(1 - MISS, math.log(2.0))
        self._surprises: dict[str, tuple[float, int]] = {}
        self._recent: list[Known] = []

    def _restore(self, state: ModelState) -> None:
        self._prior = self._centre = state.prior
        self.coefficients = state.coefficients
        self._products, self._targets = list(state.products), list(state.targets)
        self._squares, self.n = state.squares, state.n
        self._unsolved = 0
        self._low, self._high = QuantileTracker(MISS, state.low), QuantileTracker(1 - MISS, state.high)
        self._surprises = dict(state.surprises)
        self._recent = list(state.recent)

    def expect_start(self, seconds: float) -> None:
        """
        Believe that a batch takes `seconds` to begin, as far as what was seen does not tell otherwise.

        Without this a few small batches of a slow starter teach a rate for bytes that is wrong by orders.

        Args:
            seconds: As the tool declares, not below 0.
        """
        assert seconds >= 0, "a start gives no time back"
        self._declared_start_s = seconds
        if not self.n and self.coefficients == self._prior:
            self.coefficients = (max(seconds, self._prior[0]), *self._prior[1:])

    def state(self) -> ModelState:
        """Return what to keep."""
        if self._unsolved:
            self._solve()
        return ModelState(
            self._prior, self.coefficients, tuple(self._products), tuple(self._targets), self._squares, self.n,
            self._low.value, self._high.value, dict(self._surprises), tuple(self._recent[-RECENT:]),
        )  # fmt: skip

    def line(self, language: str | None) -> tuple[float, float, float]:
        """Return (seconds a batch, seconds a file, seconds a megabyte) of one language."""
        weights = self.coefficients
        slope = weights[SLOPES.get(language or "", TEXT)]
        return weights[0], weights[1] + slope * A_FILE_BYTES / MEGABYTE, slope

    def seconds(self, features: Features) -> float:
        """Return the expected seconds, never below a microsecond."""
        return max(sum(map(float.__mul__, self.coefficients, features)), FLOOR_S)

    def surprise_s(self, path: str, size_bytes: int) -> float:
        """Return the seconds that `path` is known to be off the line, scaled to its size now; 0 for most files."""
        known = self._surprises.get(path)
        if known is None:
            return 0.0
        missed_s, then = known
        ratio = (size_bytes + 1) / (then + 1)
        # Another file of the same name, or one written anew: what was learnt of the old one says nothing.
        return missed_s * ratio if 0.5 <= ratio <= 2.0 else 0.0

    def remembers(self, path: str) -> bool:
        """Tell whether `path` is known to be off the line."""
        return path in self._surprises

    def predict(self, features: Features, missed_s: float = 0.0) -> Prediction:
        """Return the prediction for `features`, of which `missed_s` are surprises of its files."""
        seconds = max(self.seconds(features) + missed_s, FLOOR_S)
        low, high = sorted((math.exp(self._low.value), math.exp(self._high.value)))
        return Prediction(seconds, seconds * min(low, 1.0), seconds * max(high, 1.0))

    def judge(self, predicted_s: float, seconds: float) -> bool:
        """Hold one prediction against what happened; move the interval, and return whether it had held."""
        off = math.log((seconds + 1e-4) / (predicted_s + 1e-4))
        above = self._high.update(off)
        return self._low.update(off) and not above

    def learn(self, features: Features, seconds: Sequence[float], predicted_s: float) -> None:
        """
        Learn the line from finished work.

        Args:
            features: Of each piece.
            seconds: That each took, without what its files' surprises had foretold; at least one.
            predicted_s: What the line said of each before.
        """
        assert seconds, "there is something to learn"
        mean_s = max(_mean(seconds), 0.0)
        self._add(features, seconds, 1.0 / (NOISE_FLOOR_S + (mean_s + predicted_s) / 2))
        self._recent.append(Known(features, mean_s, predicted_s))
        if len(self._recent) > 2 * RECENT:
            del self._recent[:RECENT]
        # Solving costs fifty times what adding does: after each of the first ones, then after every eighth part more.
        self._unsolved += len(seconds)
        if self._unsolved * 8 >= self.n:
            self._solve()

    def observe_file(self, path: str, size_bytes: int, line_s: float, seconds: float) -> None:
        """Remember a file that was far off the line's `line_s`, or forget one that no longer is."""
        missed_s = seconds - line_s
        if abs(missed_s) > max(SURPRISE_S, SURPRISE_SHARE * line_s):
            known = self._surprises.get(path)
            mean_s = missed_s if known is None else (missed_s + known[0]) / 2
            self._surprises[path] = (mean_s, size_bytes)
            if len(self._surprises) > 2 * SURPRISES:
                largest = sorted(self._surprises.items(), key=lambda item: -abs(item[1][0]))
                self._surprises = dict(largest[:SURPRISES])
        elif path in self._surprises:
            del self._surprises[path]

    def refit(self) -> Refit | None:
        """
        Fit the observations kept with scikit-learn; take the result where it would have predicted the last ones better.

        Candidates are least squares and Huber's regression, both without negative coefficients in what is kept. Each
        learns from the older three quarters and is measured on the rest, against what the online coefficients said at
        the time. The result is what the online estimator is drawn to from then on.

        Returns:
            What was found; `None` with fewer than sixteen observations.
        """
        recent = self._recent[-RECENT:]
        if len(recent) < 16:
            return None
        split = len(recent) * 3 // 4
        older, newer = recent[:split], recent[split:]
        online_s = _mean([abs(known.predicted_s - known.seconds) for known in newer])
        tried = [(_error(_fitted(name, older, self._prior), newer), name) for name in ("least squares", "huber")]
        refit_s, name = min(tried)
        kept = refit_s < online_s
        if kept:
            self.coefficients = self._prior = _fitted(name, recent, self._prior)
            # The sums hold the same observations: a tenth of their weight is left, so that they do not count twice.
            self._products = [value / 10 for value in self._products]
            self._targets = [value / 10 for value in self._targets]
            self._squares, self.n = self._squares / 10, self.n / 10
        return Refit(len(recent), online_s, refit_s, name, kept)

    def _add(self, features: Features, seconds: Sequence[float], weight: float) -> None:
        size, times = len(FEATURES), len(seconds)
        decay = DECAY if times == 1 else DECAY**times
        self._products = products = [value * decay for value in self._products]
        self._targets = targets = [value * decay for value in self._targets]
        total_s = sum(seconds)
        used = [(place, value) for place, value in enumerate(features) if value]
        for row, left in used:
            weighted = left * weight
            targets[row] += weighted * total_s
            for column, right in used:
                products[row * size + column] += times * weighted * right
        self._squares = self._squares * decay + weight * sum(value * value for value in seconds)
        self.n = self.n * decay + times

    def _solve(self) -> None:
        self._unsolved = 0
        size = len(FEATURES)
        active = [place for place in range(size) if self._products[place * (size + 1)] > 0]
        self._centre = self._believed(0.0)
        noise = self._noise(active)
        self._centre = self._believed(noise)
        beliefs = list(self._centre)
        # At most one coefficient leaves in each round, so the rounds are bounded by their number.
        for _ in range(size):
            solved = self._solved(active, noise)
            lowest = min(active, key=lambda place: solved[place], default=None)
            if lowest is None or solved[lowest] >= 0:
                break
            active = [place for place in active if place != lowest]
            beliefs[lowest] = 0.0
        for place in active:
            beliefs[place] = solved[place]
        self.coefficients = tuple(beliefs)

    def _noise(self, active: Sequence[int]) -> float:
        """Return the weighted squared error an observation that no line explains."""
        free = self.n - len(active)
        if free < 1:
            return FIRST_NOISE * self._squares / max(self.n, 1.0)
        size = len(FEATURES)
        solved = self._solved(active, 0.0)
        explained = sum(solved[place] * self._targets[place] for place in active)
        again = sum(
            solved[row] * solved[column] * self._products[row * size + column] for row in active for column in active
        )
        return max(self._squares - 2 * explained + again, 0.0) / free

    def _solved(self, active: Sequence[int], noise: float) -> dict[int, float]:
        size = len(FEATURES)
        # Never quite nothing: what no observation tells apart is shared out as it was believed to be.
        noise = max(noise, 1e-12 * self._squares / max(self.n, 1.0))
        rows: list[list[float]] = []
        for row in active:
            believed = max(self._centre[row] / 2, self._scale(row))
            pull = noise / (believed * believed)
            line = [self._products[row * size + column] for column in active]
            line[len(rows)] += pull
            rows.append([*line, self._targets[row] + pull * self._centre[row]])
        return dict(zip(active, _eliminated(rows), strict=True))

    def _scale(self, place: int) -> float:
        """Return how far a coefficient may plausibly be from nothing."""
        slope = max(self._centre[3:])
        return (max(0.18, self._declared_start_s), slope / 300, slope / 300, *(slope / 2,) * 4)[place]

    def _believed(self, noise: float) -> Features:
        """Return what the coefficients are drawn to: a refit's, or the one rate for all bytes that fits best so far."""
        if len(set(self._prior[3:])) > 1 or any(self._prior[:3]):
            return self._prior
        size, slopes, start_s = len(FEATURES), range(3, len(FEATURES)), self._declared_start_s
        spread = sum(self._products[row * size + column] for row in slopes for column in slopes)
        beyond = sum(self._targets[row] - start_s * self._products[row * size] for row in slopes)
        # A few small files say nothing of a rate: until bytes outweigh the noise, the one that was declared counts.
        pull = noise / (RATE_SPREAD * self._prior[3]) ** 2
        rate = (beyond + pull * self._prior[3]) / (spread + pull) if spread > 0 else 0.0
        return (start_s, 0.0, 0.0, *(rate if rate > LEAST_RATE else self._prior[3],) * 4)


def _eliminated(rows: list[list[float]]) -> list[float]:
    """Solve a small symmetric positive system, each row with its right side last, by Gaussian elimination."""
    size = len(rows)
    for pivot in range(size):
        best = max(range(pivot, size), key=lambda row: abs(rows[row][pivot]))
        rows[pivot], rows[best] = rows[best], rows[pivot]
        scale = rows[pivot][pivot]
        if abs(scale) < 1e-300:
            continue
        for row in range(pivot + 1, size):
            factor = rows[row][pivot] / scale
            if factor:
                rows[row] = [left - factor * right for left, right in zip(rows[row], rows[pivot], strict=True)]
    solved = [0.0] * size
    for row in reversed(range(size)):
        rest = rows[row][size] - sum(rows[row][column] * solved[column] for column in range(row + 1, size))
        solved[row] = rest / rows[row][row] if abs(rows[row][row]) >= 1e-300 else 0.0
    return solved


def _fitted(name: str, known: Sequence[Known], prior: Features) -> Features:
    import numpy as np
    from sklearn.linear_model import HuberRegressor, LinearRegression

    matrix = np.array([one.features for one in known])
    seconds = np.array([one.seconds for one in known])
    weights = 1.0 / (NOISE_FLOOR_S + seconds)
    seen = [bool(column.any()) for column in matrix.T]
    if name == "huber":
        # Rows are scaled by hand: Huber's threshold is on residuals, which must be comparable.
        root = np.sqrt(weights)
        model = HuberRegressor(fit_intercept=False, alpha=1e-6, max_iter=500)
        model.fit(matrix[:, seen] * root[:, None], seconds * root)
    else:
        model = LinearRegression(fit_intercept=False, positive=True)
        model.fit(matrix[:, seen], seconds, sample_weight=weights)
    fitted = iter(model.coef_)
    return tuple(
        max(float(next(fitted)), 0.0) if used else believed for used, believed in zip(seen, prior, strict=True)
    )


def _error(coefficients: Features, known: Sequence[Known]) -> float:
    return _mean(
        [abs(max(sum(map(float.__mul__, coefficients, one.features)), FLOOR_S) - one.seconds) for one in known]
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
