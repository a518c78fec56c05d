"""
A run that must end in time: which unit goes first, which batch may still begin, and whether its prediction held.

Order, by what is known before the run: sources that changed since they were last answered, then files in which most was
found, then what is cheapest. A batch begins only where the upper end of the interval that is predicted for it lies
before the end; of one that is too long, its riskiest files. What still runs at the end is ended.

The intervals are stated before, so a predictor that lies is seen: `calibration` counts how many held.

Sources: Ostrand, Weyuker and Bell, "Predicting the location and number of faults in large software systems", IEEE TSE
31(4), 2005 (changes and earlier faults tell most); Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 22, 1927.
"""

from __future__ import annotations

import bisect
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from detectors.duration_model import MISS, Prediction
from detectors.errors import UsageError
from detectors.model import BatchRecord, Digest, SourceFile
from detectors.workload_optimizer import Batch

__all__ = ["STATED", "Calibration", "DeadlineGate", "calibration", "risk_of", "seconds_of", "warnings_of", "wilson"]

STATED = 1 - 2 * MISS
"""Share of the batches that a stated interval is to hold."""
Z = 1.959963984540054
"""Of 95 %: 0.975 quantile of the standard normal distribution."""
DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smh])")
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Calibration(msgspec.Struct, frozen=True):
    """How many durations lay inside the interval that was stated for them."""

    batches: int
    inside: int
    undecided: int
    """Ended by the deadline before their interval was over; in no other figure."""
    low: float
    high: float
    """The share's 95 % interval."""

    @property
    def share(self) -> float | None:
        """Return the share inside; None of nothing."""
        return self.inside / self.batches if self.batches else None

    @property
    def holds(self) -> bool:
        """Whether the share may be what was stated; a wider interval than promised is no lie."""
        assert self.low <= self.high, "an interval begins before it ends"
        return self.high >= STATED


class DeadlineGate:
    """
    Lets batches begin that are predicted to end in time. Thread-safe; time is an argument, in seconds of one clock.

    Args:
        ends_s: When nothing may run any more.
        predict: What is known of a batch now.
    """

    def __init__(self, ends_s: float, predict: Callable[[Batch], Prediction]) -> None:
        if not math.isfinite(ends_s):
            raise UsageError(f"a run ends at some time, not at {ends_s}")
        self.ends_s, self._predict = ends_s, predict
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Batch, float]] = {}

    def admit(self, batch: Batch, now_s: float) -> Batch | None:
        """Return what of a batch may begin now, its riskiest files, with its stated interval; None for nothing."""
        left_s = self.ends_s - now_s
        if left_s <= 0:
            return None
        said = self._predict(batch)
        if said.high_s > left_s:
            sizes = range(1, len(batch.files))
            count = bisect.bisect_right(sizes, left_s, key=lambda size: self._predict(_first(batch, size)).high_s)
            if not count:
                return None
            batch = _first(batch, count)
            said = self._predict(batch)
        begun = msgspec.structs.replace(batch, predicted_s=said.seconds, low_s=said.low_s, high_s=said.high_s)
        assert begun.files, "a batch has files"
        with self._lock:
            self._running[begun.name] = begun, now_s
        return begun

    def left(self, name: str) -> None:
        """Tell that a batch ended, whatever it came to."""
        with self._lock:
            self._running.pop(name, None)

    def running(self, now_s: float) -> tuple[tuple[Batch, float], ...]:
        """Return the batches that have begun and not ended, each with its seconds so far."""
        with self._lock:
            found = tuple((batch, now_s - begun_s) for batch, begun_s in self._running.values())
        assert all(seconds >= 0 for _, seconds in found), "a clock does not go back"
        return found


def risk_of(
    files: Sequence[SourceFile],
    detectors: Sequence[str],
    answered: Sequence[Mapping[tuple[bytes, str], tuple[Digest, float]]],
) -> dict[tuple[str, str], tuple[bool, float]]:
    """
    Return the place of each (report path, detector) in the order of risk; the lowest goes first.

    Args:
        files: Of the snapshot.
        detectors: Names.
        answered: By root what `ResultCache.answered` says of it.

    Returns:
        Whether the content is the one that was last answered for; and less the findings there were in the file.
    """
    assert all(0 <= file.root < len(answered) for file in files), "each root has its history"
    risk = {}
    for file in files:
        known = {name: answered[file.root].get((file.raw, name)) for name in detectors}
        found = sum(last[1] for last in known.values() if last is not None)
        for name, last in known.items():
            risk[file.path, name] = (last is not None and last[0] == file.digest, -found)
    assert len(risk) == len(files) * len(detectors), "each pair has one place"
    return risk


def warnings_of(limit_s: float, seconds: float, batches: Sequence[BatchRecord]) -> list[str]:
    """Return what a run with a deadline must say of its end and its predictions; none of it makes it less whole."""
    if not seconds >= 0:
        raise UsageError(f"a run takes no {seconds} s")
    told = []
    if seconds > limit_s:
        told.append(f"the run ended {seconds - limit_s:.1f} s after its deadline of {limit_s:g} s")
    if ended := sum(batch.ended for batch in batches):
        told.append(f"{ended} batches were expected to end in time, and were ended by the deadline")
    found = calibration(batches)
    if not found.holds:
        told.append(
            f"the predicted intervals did not hold: {found.inside} of {found.batches} durations were inside, where "
            f"{STATED:.0%} were to be (95 % interval {found.low:.0%} to {found.high:.0%})"
        )
    return told


def calibration(batches: Iterable[BatchRecord]) -> Calibration:
    """Hold the stated intervals of a run against what its batches took."""
    known = [batch for batch in batches if batch.high_s > 0]
    decided = [batch for batch in known if not batch.ended or batch.seconds > batch.high_s]
    inside = sum(batch.low_s <= batch.seconds <= batch.high_s for batch in decided)
    low, high = wilson(inside, len(decided))
    assert inside <= len(decided) <= len(known), "what held was decided"
    return Calibration(len(decided), inside, len(known) - len(decided), low, high)


def wilson(good: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share after Wilson; 0 to 1 of nothing."""
    if not 0 <= good <= count:
        raise ValueError(f"{good} of {count} is no share")
    if not count:
        return 0.0, 1.0
    share, square = good / count, Z * Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = Z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    return max(middle - spread, 0.0), min(middle + spread, 1.0)


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `20m` or `1.5h`; raises UsageError."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"a deadline is a number with s, m or h, such as 90s, 20m or 2h, not {text!r}")
    seconds = float(match["number"]) * UNITS_S[match["unit"]]
    if not 0 < seconds < math.inf:
        raise UsageError(f"a deadline of {text} leaves no time at all")
    return seconds


def _first(batch: Batch, count: int) -> Batch:
    assert 0 < count <= len(batch.files), "a part of it"
    return msgspec.structs.replace(batch, files=batch.files[:count])
