"""
History to predicted seconds, predicted seconds to batches, to an order, and to how many at once.

The parts are state machines of their own: `duration_model` learns seconds, `fair_queue` orders classes of priority with
a proven bound, `concurrency` moves the limit by feedback. Here they are fed from one history under one lock. A warm run
predicts by arithmetic on stored coefficients and imports no numerical library; `refit` alone uses scikit-learn.

Batches follow guided self-scheduling: each takes its share of what remains, the longest files first, so that batches
shrink towards the end and no worker waits long for the last one. Within a class of priority the longest go first.
Sources: Polychronopoulos and Kuck, "Guided self-scheduling", IEEE Transactions on Computers C-36(12), 1987; Graham,
"Bounds on multiprocessing timing anomalies", SIAM Journal on Applied Mathematics 17(2), 1969 (longest first).
"""

from __future__ import annotations

import collections
import functools
import math
import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from detectors.cache import Timing
from detectors.closures import Context
from detectors.concurrency import ConcurrencyController
from detectors.duration_learning import DetectorHistory, Score
from detectors.duration_model import FEATURES, Prediction, Refit, work_features
from detectors.errors import UsageError
from detectors.fair_queue import FairQueue
from detectors.model import Analysed, Outcome, SourceFile
from detectors.rule_settings import RuleSettings
from detectors.topology import read_topology

__all__ = ["Allocation", "Batch", "BatchLimits", "Risk", "WorkloadOptimizer"]

TARGET_S = (0.5, 30.0)
"""Shorter batches cost more in hand-over than they win in balance; longer ones leave too much to lose."""
SHARE_A_WORKER = 3
FILE_SHARES = 2
LOST = 1 / 6
"""Of a batch's length at the end of a run: less than half, since shorter batches, of other detectors too, come last."""
SHARES_OF_A_DEADLINE = 8
OUTLIERS_FROM = 5
OUTLYING, OUTLYING_S = 8.0, 0.5
"""Times the median rate of its batch, and seconds beyond, from which a file is one of its own."""
A_CALL_BYTES = 1_000_000
"""A plain call counts as one megabyte, so that a complexity score reads as seconds a call."""


class Batch(msgspec.Struct, frozen=True):
    """What one worker does in one go."""

    name: str
    """The stage, a dash, and a token: Dask groups by what stands before the dash."""
    stage: str
    detectors: tuple[str, ...]
    """They share one read and one parse of each file."""
    files: tuple[SourceFile, ...]
    predicted_s: float
    settings: RuleSettings = RuleSettings()
    """With which a worker makes the rules."""
    support: tuple[SourceFile, ...] = ()
    """Headers or modules that a tool reads beside its files, and does not report on."""
    contexts: dict[str, Context] = {}
    """By report path how a tool is to look at a file; treated as immutable."""
    one_process: bool = False
    """Whether the files' seconds are shares of one process, and not measured one by one."""
    canary: str = ""
    """Of which its canaries are made; empty for none."""
    low_s: float = 0.0
    high_s: float = 0.0
    """The interval of 90 % that is stated for its seconds; both 0 before one is."""


class BatchLimits(msgspec.Struct, frozen=True):
    """What a detector bears in one batch."""

    files: int = 1_000
    start_s: float = 0.0
    """Start-up of the detector, paid once a batch; believed until it is learnt."""


class Risk(msgspec.Struct, frozen=True):
    """What is to be done first in a run that may end before all is done."""

    within_s: float
    """How long it is."""
    order: dict[str, tuple[bool, float]]
    """By report path: whether nothing changed since it was last answered, and less the findings there were."""

    def parts(self, one: SourceFile, other: SourceFile) -> bool:
        """Tell whether two files may not share a batch: what is unchanged must not wait for nor hold up what is not."""
        assert {one.path, other.path} <= self.order.keys(), "each planned file has a risk"
        return self.order[one.path][0] != self.order[other.path][0]


class Allocation(msgspec.Struct, frozen=True):
    """How many workers to use, and which tasks to hand them in which order."""

    concurrency: int
    order: tuple[str, ...]
    """Names, in order."""
    predicted_s: float
    places: tuple[int, ...] = ()
    """The same order as places in the list that was asked for."""


class _Registered(msgspec.Struct, frozen=True):
    priority: int = 5
    weight: float = 1.0
    complexity_score: float = 1.0

    @property
    def share(self) -> float:
        """Weight among all."""
        return self.weight * max(self.priority, 1)


class WorkloadOptimizer:
    """
    Learns how long detectors take, makes batches of about equal length, and orders and bounds work. Thread-safe.

    Args:
        timings: The history, by detector, as `ResultCache.timings` returns it.
        processors: That may be busy at once; if not given, what affinity and control group grant.
        workers: That share the work, with which the controller's limit starts; if not given, as many as processors.

    Raises:
        UsageError: Fewer than one processor or worker.
    """

    def __init__(
        self,
        timings: Mapping[str, Timing] | None = None,
        *,
        processors: int | None = None,
        workers: int | None = None,
    ) -> None:
        if (processors is not None and processors < 1) or (workers is not None and workers < 1):
            raise UsageError(f"processors and workers must be at least 1, not {processors} and {workers}")
        self._lock = threading.RLock()
        self._processors = processors or read_topology().cpus
        # What was asked for is what runs, until measured slow-down says otherwise: no probe idles a worker.
        at_once = workers or self._processors
        self._controller = ConcurrencyController(ceiling=at_once, calm=at_once)
        self._registered: dict[str, _Registered] = {}
        self._histories: dict[str, DetectorHistory] = {}
        for name, timing in (timings or {}).items():
            self._histories[name] = DetectorHistory(1.0, timing, self._controller.observe)

    def register_detector(
        self, detector_name: str, priority: int = 5, weight: float = 1.0, complexity_score: float = 1.0
    ) -> None:
        """
        Make a detector known.

        Args:
            detector_name: Its name.
            priority: From 1; one of priority 10 is handed out ten times the seconds of one of priority 1, and none
                is starved (see `fair_queue`).
            weight: Share among detectors of equal priority, above 0.
            complexity_score: Expected seconds a megabyte (or a call), above 0, until there is a history.

        Raises:
            UsageError: A weight or score that is not above 0.
        """
        if not (weight > 0 and complexity_score > 0):
            raise UsageError(f"weight and complexity_score of {detector_name!r} must be above 0")
        with self._lock:
            self._registered[detector_name] = _Registered(priority, weight, complexity_score)
            self._history(detector_name).believe(complexity_score)

    def predict(
        self, detector_name: str, size_bytes: int, *, language: str | None = None, lines: int | None = None
    ) -> float:
        """Return the expected seconds for a file of `size_bytes` in a running batch; never below a microsecond."""
        return self.predict_interval(detector_name, size_bytes, language=language, lines=lines).seconds

    def predict_interval(
        self,
        detector_name: str,
        size_bytes: int,
        *,
        language: str | None = None,
        lines: int | None = None,
        path: str = "",
    ) -> Prediction:
        """
        Return the expected seconds for one file in a running batch, and bounds that 90 % have kept.

        Args:
            detector_name: Known or not.
            size_bytes: Of the file.
            language: What it is taken for.
            lines: Where known.
            path: Where files are remembered one by one.
        """
        with self._lock:
            history = self._history(detector_name)
            history.learn()
            features = work_features(size_bytes, language, lines)
            return history.model.predict(features, history.model.surprise_s(path, size_bytes))

    def observe(
        self,
        detector_name: str,
        size_bytes: int,
        seconds: float,
        *,
        language: str | None = None,
        files: int = 0,
    ) -> None:
        """
        Learn from one finished batch or call.

        Args:
            detector_name: Known or not.
            size_bytes: In all; what is always the same for a plain call.
            seconds: That it took.
            language: Of its files, where they have one.
            files: How many; 0 where that is not known.
        """
        with self._lock:
            self._history(detector_name).observe(work_features(size_bytes, language, None, files, 1), seconds)

    def observe_batch(self, batch: Batch, seconds: float, outcomes: Iterable[Outcome]) -> None:
        """
        Learn from one finished batch of a plan, and remember files that were far off.

        Args:
            batch: As planned.
            seconds: That it took on the worker.
            outcomes: Its answers, with the seconds of each file.
        """
        files = {file.path: file for file in batch.files}
        measured: dict[str, list[Analysed]] = {name: [] for name in batch.detectors}
        for outcome in outcomes:
            if isinstance(outcome, Analysed) and outcome.detector in measured and outcome.path in files:
                measured[outcome.detector].append(outcome)
        spent = {name: sum(one.seconds for one in answers) for name, answers in measured.items()}
        # What is not told apart (reading, files without an answer) is shared out.
        rest_s = max(seconds - sum(spent.values()), 0.0) / len(batch.detectors)
        with self._lock:
            for name, answers in measured.items():
                history = self._history(name)
                history.learn()
                found = {} if batch.one_process else _outliers(answers, files)
                missed_s = sum(
                    history.model.surprise_s(file.path, file.size_bytes) or found.get(file.path, 0.0)
                    for file in batch.files
                )
                history.observe(_features_of(batch.files), spent[name] + rest_s, missed_s)
                history.learn()
                self._remember_files(history, batch, answers, spent[name] + rest_s)

    def predict_batch(self, batch: Batch) -> Prediction:
        """Return the seconds expected of a batch as planned, with the sums of its detectors' bounds."""
        with self._lock:
            said = []
            for name in batch.detectors:
                history = self._history(name)
                history.learn()
                known = (history.model.surprise_s(file.path, file.size_bytes) for file in batch.files)
                said.append(history.model.predict(_features_of(batch.files), sum(known)))
        assert said, "somebody looks at the files"
        return Prediction(*(sum(column) for column in zip(*map(msgspec.structs.astuple, said), strict=True)))

    def predict_call(self, detector_name: str, files: Sequence[SourceFile], start_s: float) -> Prediction:
        """
        Return the seconds expected of something else that is learnt by `observe` from files of no language.

        Args:
            detector_name: Known or not.
            files: That it is about.
            start_s: Believed of its beginning until it is learnt.
        """
        size_bytes = sum(file.size_bytes for file in files)
        with self._lock:
            history = self._history(detector_name)
            history.model.expect_start(start_s)
            history.learn()
            return history.model.predict(work_features(size_bytes, None, None, len(files), 1))

    def plan(
        self,
        stage: str,
        detectors: Sequence[str],
        files: Iterable[SourceFile],
        workers: int,
        limits: BatchLimits,
        *,
        risk: Risk | None = None,
    ) -> tuple[Batch, ...]:
        """
        Make the batches of one stage.

        Args:
            stage: Name of the batches.
            detectors: What runs on each file.
            files: The misses, in any order; the same set gives the same batches.
            workers: How many run at once.
            limits: What the detector bears.
            risk: Of a run that may end before all is done; without one, all is done, and order is a matter of balance.

        Returns:
            Batches, longest first, or riskiest first; together they hold each file once.
        """
        weighed, start_s = self._weighed(detectors, files, limits)
        if risk is None:
            weighed.sort(key=lambda pair: (-pair[0], pair[1].path))
        else:
            weighed.sort(key=lambda pair: (risk.order[pair[1].path], pair[0], pair[1].path))
        remaining_s = sum(seconds for seconds, _ in weighed)
        one_process = limits.start_s > 0
        batches: list[Batch] = []
        current: list[SourceFile] = []
        current_s = 0.0
        # Batches of c seconds cost start * T / (workers * c) of start-ups, and leave LOST * c to lose at the end. A
        # noisy history draws a start towards nothing; what the tool declares is then nearer to the truth.
        least_s = math.sqrt(max(start_s, limits.start_s) * remaining_s / (LOST * max(workers, 1)))
        least_s = min(least_s, remaining_s / max(workers, 1))
        # Small files are predicted worst: no worker gets more than its share of them, whatever they are said to take.
        most = min(limits.files, max(1, math.ceil(len(weighed) / (FILE_SHARES * max(workers, 1)))))
        longest_s = math.inf if risk is None else self._longest_s(detectors, risk, start_s)
        goal_s = min(_goal(remaining_s, workers, least_s), longest_s)
        for seconds, file in weighed:
            full = current_s + seconds > goal_s or len(current) >= most
            if current and (full or (risk is not None and risk.parts(current[0], file))):
                batches.append(_batch(stage, detectors, current, current_s + start_s, one_process))
                remaining_s -= current_s
                goal_s = min(_goal(remaining_s, workers, least_s), longest_s)
                current, current_s = [], 0.0
            current.append(file)
            current_s += seconds
        if current:
            batches.append(_batch(stage, detectors, current, current_s + start_s, one_process))
        if risk is not None:
            return tuple(batches)
        return tuple(sorted(batches, key=lambda batch: (-batch.predicted_s, batch.name)))

    def optimize_allocation(
        self, pending_tasks: Sequence[Any], current_system_load: float | Mapping[str, float]
    ) -> Allocation:
        """
        Choose how many tasks run at once, and in which order.

        Detectors of one priority and weight are a class; classes share by start-time fair queueing, so that none waits
        longer than the bound that `fair_queue` proves; within a class the longest go first.

        Args:
            pending_tasks: Names of detectors, or tuples that begin with one.
            current_system_load: Share of the processors that others use, 0 to 1, or a mapping with `cpu` in per cent.

        Returns:
            The allocation. Its concurrency is what the controller allows, no more than the load leaves free.
        """
        load = current_system_load
        busy = float(load.get("cpu", 0.0)) / 100 if isinstance(load, Mapping) else float(load)
        names = [task if isinstance(task, str) else str(task[0]) for task in pending_tasks]
        with self._lock:
            seconds = {name: self._call_s(name) for name in set(names)}
            limit = self._controller.limit
            free = max(1, math.ceil(limit * (1 - min(max(busy, 0.0), 1.0))))
            at_once = min(free, max(len(names), 1))
            shares = {name: self._registered.get(name, _Registered()).share for name in seconds}
        by_name: dict[str, list[int]] = {name: [] for name in sorted(seconds, key=lambda name: (-seconds[name], name))}
        for place, name in enumerate(names):
            by_name[name].append(place)
        classes: dict[float, list[tuple[int, float]]] = {share: [] for share in sorted(set(shares.values()))}
        for name, mine in by_name.items():
            classes[shares[name]] += [(place, seconds[name]) for place in mine]
        members = collections.Counter(shares.values())
        places = _shared({share: (share * members[share], work) for share, work in classes.items()})
        total_s = sum(seconds[name] * len(mine) for name, mine in by_name.items())
        return Allocation(at_once, tuple(names[place] for place in places), total_s / at_once, places)

    def refit(self) -> dict[str, Refit]:
        """
        Fit every detector's recent history with scikit-learn (seconds of import: never on a hot path).

        Returns:
            By detector what was tried, its error on observations held out in time, and whether it was taken.
        """
        with self._lock:
            found = {name: history.refit() for name, history in sorted(self._histories.items())}
        return {name: refit for name, refit in found.items() if refit is not None}

    def get_optimization_stats(self) -> dict[str, Any]:
        """
        Return what was learnt, and how well it predicts.

        Errors are mean absolute ones in seconds, of predictions made before each observation, all over the same ones:
        the model's, and those of two rivals that only know the mean so far (a file's, a megabyte's).
        """
        with self._lock:
            scores = {name: history.score() for name, history in sorted(self._histories.items())}
            lines = {name: self._history(name).model.line(None) for name in scores}
            observed = {name: self._history(name).observed for name in scores}
            weights = {name: self._history(name).model.coefficients for name in scores}
            limit = self._controller.limit
        return {
            "observed_batches": sum(observed.values()),
            **_errors(functools.reduce(operator.add, scores.values(), Score())),
            "concurrency_limit": limit,
            "detectors": {
                name: {
                    "start_s": lines[name][0],
                    "seconds_a_file": lines[name][1],
                    "seconds_per_mb": max(weights[name][3:]) if observed[name] else lines[name][2],
                    "coefficients": dict(zip(FEATURES, weights[name], strict=True)),
                    "observations": observed[name],
                    **_errors(score),
                }
                for name, score in scores.items()
            },
        }

    def timings(self) -> dict[str, Timing]:
        """Return the history, to be kept by `ResultCache.remember_timings`."""
        with self._lock:
            return {name: kept for name, history in self._histories.items() if (kept := history.timing()).n}

    def _history(self, detector_name: str) -> DetectorHistory:
        history = self._histories.get(detector_name)
        if history is None:
            score = self._registered.get(detector_name, _Registered()).complexity_score
            history = self._histories[detector_name] = DetectorHistory(score, None, self._controller.observe)
        return history

    def _longest_s(self, detectors: Sequence[str], risk: Risk, start_s: float) -> float:
        """Return how long a batch may be that must fit into a run that ends; a start takes at most half of it."""
        assert risk.within_s > 0, "a run takes time"
        with self._lock:
            known = all(self._history(name).known for name in detectors)
        # A guess may be wrong by orders: what is not known is tried in small.
        return max(risk.within_s / SHARES_OF_A_DEADLINE if known else TARGET_S[0], start_s)

    def _call_s(self, detector_name: str) -> float:
        history = self._history(detector_name)
        history.learn()
        return history.model.seconds(work_features(A_CALL_BYTES, files=0, batches=1))

    def _weighed(
        self, detectors: Sequence[str], files: Iterable[SourceFile], limits: BatchLimits
    ) -> tuple[list[tuple[float, SourceFile]], float]:
        """Return the files with their seconds over all detectors, and the start-up of a batch."""
        with self._lock:
            histories = [self._history(name) for name in detectors]
            for history in histories:
                history.model.expect_start(limits.start_s / len(histories))
                history.learn()
            start_s = sum(history.model.line(None)[0] for history in histories)
            if not all(history.known for history in histories):
                start_s = max(limits.start_s, start_s)
            models = [history.model for history in histories]
            lines: dict[str, tuple[float, float]] = {}
            weighed = []
            for file in files:
                if file.language not in lines:
                    parts = [model.line(file.language) for model in models]
                    lines[file.language] = sum(part[1] for part in parts), sum(part[2] for part in parts) / 1e6
                a_file_s, a_byte_s = lines[file.language]
                seconds = a_file_s + a_byte_s * file.size_bytes
                for model in models:
                    if model.remembers(file.path):
                        seconds += model.surprise_s(file.path, file.size_bytes)
                weighed.append((max(seconds, 1e-6), file))
        return weighed, start_s

    def _remember_files(
        self, history: DetectorHistory, batch: Batch, answers: Sequence[Analysed], seconds: float
    ) -> None:
        model = history.model
        if not batch.one_process:
            files = {file.path: file for file in batch.files}
            for one in answers:
                file = files[one.path]
                line_s = model.seconds(work_features(file.size_bytes, file.language))
                model.observe_file(one.path, file.size_bytes, line_s, one.seconds)
            return
        # The seconds of one process are its largest file's, where that file is most of it.
        largest = max(batch.files, key=lambda file: file.size_bytes)
        if 2 * largest.size_bytes > sum(file.size_bytes for file in batch.files):
            others = [file for file in batch.files if file is not largest]
            rest_s = model.line(None)[0] + sum(
                model.seconds(work_features(file.size_bytes, file.language))
                + model.surprise_s(file.path, file.size_bytes)
                for file in others
            )
            line_s = model.seconds(work_features(largest.size_bytes, largest.language))
            model.observe_file(largest.path, largest.size_bytes, line_s, max(seconds - rest_s, 0.0))


def _shared(classes: Mapping[float, tuple[float, Sequence[tuple[int, float]]]]) -> tuple[int, ...]:
    """Merge classes, each a weight and (place, seconds) in order, into one order of places that is fair to each."""
    if len(classes) == 1:
        return tuple(place for _, work in classes.values() for place, _ in work)
    queue: FairQueue[float] = FairQueue()
    left: dict[float, collections.deque[tuple[int, float]]] = {}
    for name, (weight, work) in classes.items():
        queue.weigh(name, weight)
        left[name] = collections.deque(work)
    places = []
    for _ in range(sum(len(work) for work in left.values())):
        name = queue.next(name for name, work in left.items() if work)
        place, length_s = left[name].popleft()
        queue.hand_out(name, length_s)
        places.append(place)
    return tuple(places)


def _features_of(files: Sequence[SourceFile]) -> tuple[float, ...]:
    by_language: dict[str, list[int]] = {}
    for file in files:
        by_language.setdefault(file.language, []).append(file.size_bytes)
    parts = [work_features(sum(sizes), language, files=len(sizes)) for language, sizes in by_language.items()]
    return (1.0, *(sum(part[place] for part in parts) for place in range(1, len(FEATURES))))


def _outliers(answers: Sequence[Analysed], files: Mapping[str, SourceFile]) -> dict[str, float]:
    """Return the seconds that files took beyond several times the batch's median rate: not what a line should learn."""
    if len(answers) < OUTLIERS_FROM:
        return {}
    usual_s = {one.path: files[one.path].size_bytes + 1_000.0 for one in answers}
    rates = sorted(one.seconds / usual_s[one.path] for one in answers)
    rate = rates[len(rates) // 2]
    return {
        one.path: one.seconds - rate * usual_s[one.path]
        for one in answers
        if one.seconds > OUTLYING * rate * usual_s[one.path] + OUTLYING_S
    }


def _errors(score: Score) -> dict[str, float | int | None]:
    count = score.observations
    return {
        "scored": count,
        "mean_absolute_error_s": score.model_error_s / count if count else None,
        "mean_only_error_s": score.mean_error_s / count if count else None,
        "size_only_error_s": score.size_error_s / count if count else None,
        "mean_seconds": score.seconds / count if count else None,
        "interval_coverage": score.inside / count if count else None,
    }


def _goal(remaining_s: float, workers: int, least_s: float) -> float:
    low, high = TARGET_S
    return min(max(remaining_s / (SHARE_A_WORKER * max(workers, 1)), low, least_s), high)


def _batch(stage: str, detectors: Sequence[str], files: list[SourceFile], seconds: float, one_process: bool) -> Batch:
    import hashlib

    token = hashlib.sha256(msgspec.msgpack.encode([(file.path, file.digest) for file in files])).hexdigest()[:12]
    return Batch(f"{stage}-{token}", stage, tuple(detectors), tuple(files), seconds, one_process=one_process)
