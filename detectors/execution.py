"""
One chunk of executions to results: cache, circuit breaker, retries, and the three places where a detector may run.

Whatever happens, every unit of a chunk gets exactly one result, and a failure of one hides no other. Equal cacheable
executions run once: the first leads, others take its answer. A chunk settles all that it leads before it waits for what
others lead, so that no two can wait for each other.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from detectors.bulkheads import Chunk
from detectors.circuit_breaker import Breaker
from detectors.content_key import Unkeyable, content_key
from detectors.detector_profiles import DetectorProfiles
from detectors.errors import CircuitOpen
from detectors.memoisation import Claim, Memo
from detectors.pool_metrics import MetricsBook, Tally
from detectors.process_isolation import Outcome, ProcessShelf, Unit
from detectors.registration import Registration

__all__ = ["Asked", "DetectorConfig", "DetectorResult", "Known", "Runner"]

DetectorConfig = tuple[str, tuple[Any, ...], dict[str, Any]]
"""(name, positional arguments, keyword arguments)."""

RunRemotely = Callable[[Registration, Sequence[Unit]], Iterable[tuple[Unit, Outcome]]]


class DetectorResult(msgspec.Struct, frozen=True):
    """What became of one execution: exactly one of `value` and `error` counts."""

    detector: str
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    """How often the function was begun; 0 when it was not run."""
    from_cache: bool = False
    """Kept from before, or computed by an equal execution at the same time."""
    seconds: float = 0.0
    """Wall time of the function itself, all attempts; 0 when it was not run."""
    worker: str = ""
    """The thread, process or Dask worker that ran it last."""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None


class Known(msgspec.Struct, frozen=True):
    """A registered detector with its breaker."""

    registration: Registration
    breaker: Breaker | None


class Asked(msgspec.Struct, frozen=True):
    """What a job's chunks need: the executions, and the detectors as they were registered when it was asked for."""

    configs: Sequence[DetectorConfig]
    detectors: Mapping[str, Known]


class _Failure(msgspec.Struct, frozen=True):
    index: int
    error: BaseException
    seconds: float
    worker: str


class _Pass:
    """One chunk under way: its results, what to try again, what to count."""

    __slots__ = ("asked", "attempt", "breaker", "failures", "known", "registration", "results", "spent_s", "tally")

    def __init__(self, asked: Asked, known: Known, results: list[Any]) -> None:
        self.asked, self.known, self.results = asked, known, results
        self.registration, self.breaker = known.registration, known.breaker
        self.tally = Tally()
        self.attempt = 1
        self.failures: list[_Failure] = []
        self.spent_s: dict[int, float] = {}
        """Seconds of earlier attempts, of units that are tried again."""

    def unit(self, index: int) -> Unit:
        _, args, kwargs = self.asked.configs[index]
        return Unit(index, args, {**self.registration.config, **kwargs} if self.registration.config else kwargs)

    def admitted(self, indexes: Iterable[int]) -> Iterator[int]:
        """Yield the units that the breaker lets through; the others get their results."""
        for index in indexes:
            wait_s = self.breaker.admit() if self.breaker is not None else None
            if wait_s is None:
                yield index
            else:
                name = self.registration.name
                self.tally.refused += 1
                spent_s = self.spent_s.get(index, 0.0)
                self.results[index] = DetectorResult(
                    name, error=CircuitOpen(name, wait_s), attempts=self.attempt - 1, seconds=spent_s
                )

    def units(self, indexes: Iterable[int]) -> Iterator[Unit]:
        """Yield the units that the breaker lets through."""
        breaker, configs, config = self.breaker, self.asked.configs, self.registration.config
        for index in indexes:
            if breaker is not None and not breaker.calm and not any(True for _ in self.admitted((index,))):
                continue
            _, args, kwargs = configs[index]
            yield Unit(index, args, {**config, **kwargs} if config else kwargs)

    def take(self, index: int, outcome: Outcome) -> None:
        """Account for a unit that ran elsewhere."""
        tally = self.tally
        tally.latencies_s.append(outcome.seconds)
        tally.cpu_s += outcome.cpu_seconds
        tally.peak_bytes = max(tally.peak_bytes, outcome.peak_bytes)
        tally.read_bytes += outcome.read_bytes
        tally.written_bytes += outcome.written_bytes
        if self.breaker is not None and not (self.breaker.calm and outcome.error is None):
            self.breaker.record(outcome.error is not None)
        if outcome.error is not None:
            self.failures.append(_Failure(index, outcome.error, outcome.seconds, outcome.worker))
            return
        seconds = outcome.seconds + self.spent_s.get(index, 0.0)
        self.results[index] = DetectorResult(
            self.registration.name, outcome.value, None, self.attempt, False, seconds, outcome.worker
        )


@dataclasses.dataclass(eq=False)
class Runner:
    """Works through chunks, in whichever thread calls. Thread-safe."""

    memo: Memo
    """Kept results."""
    metrics: MetricsBook
    """Where what happened is counted."""
    _: dataclasses.KW_ONLY
    shelf: ProcessShelf
    """Warm processes for isolation."""
    remotely: RunRemotely
    """Runs units on Dask."""
    observe: Callable[[str, int, float], None]
    """Told (detector, executions, seconds) of each chunk, to learn from."""
    stop: threading.Event
    """When set, pauses between attempts end at once and nothing is tried again."""
    profiles: DetectorProfiles | None
    """Watches detectors; `None` without profiling."""
    inside_s: float = dataclasses.field(default=0.0, init=False)
    """Seconds inside of detectors, as the threads that waited for them saw it."""
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, init=False)

    def run(self, chunk: Chunk) -> None:
        """Give every unit of a chunk its result."""
        asked: Asked = chunk.job.context
        known = asked.detectors[chunk.compartment.name]
        current = _Pass(asked, known, chunk.job.results)
        registration = known.registration
        if registration.cacheable:
            self._run_remembered(chunk, current)
        else:
            self._run_to_the_end(current, _drained(chunk.units))
        tally = current.tally
        ran = len(tally.latencies_s) - tally.retried
        self.metrics.add(registration.name, tally, ran)
        seconds = sum(tally.latencies_s)
        chunk.inside_s = seconds if registration.isolation == "dask" else None
        with self._lock:
            self.inside_s += seconds
        if ran:
            self.observe(registration.name, ran, seconds)

    # -- cache -----------------------------------------------------------------------------------------------------

    def _run_remembered(self, chunk: Chunk, current: _Pass) -> None:
        keyed: list[tuple[int, bytes, bytes | None]] = []
        free: list[int] = []
        for index in _drained(chunk.units):
            keys = _keys(current.registration, current.unit(index))
            if keys is None:
                free.append(index)
            else:
                keyed.append((index, *keys))
        claims = self.memo.claim([key for _, key, _ in keyed], [stored for _, _, stored in keyed])
        leads: dict[int, tuple[bytes, bytes | None]] = {}
        follows: list[tuple[int, Future[Any]]] = []
        for (index, key, stored), claim in zip(keyed, claims, strict=True):
            match claim:
                case Claim(kind="hit"):
                    current.tally.from_cache += 1
                    current.results[index] = _kept(current, claim.value, None)
                case Claim(kind="lead"):
                    leads[index] = key, stored
                case Claim(flight=Future() as flight):
                    follows.append((index, flight))
        if chunk.nested:
            # The thread that leads may be this one, further up, or one that waits for this one.
            free += [index for index, _ in follows]
            follows = []
        try:
            self._run_to_the_end(current, iter([*leads, *free]))
        finally:
            for index, (key, stored) in leads.items():
                self._settle(key, stored, current.results[index])
        for index, flight in follows:
            value, error = flight.result()
            current.tally.from_cache += 1
            current.results[index] = _kept(current, value, error)

    def _settle(self, key: bytes, stored: bytes | None, result: DetectorResult | None) -> None:
        if result is None:
            self.memo.settle(key, error=RuntimeError("the execution that led was lost"))
        else:
            self.memo.settle(key, value=result.value, error=result.error, stored=stored)

    # -- attempts --------------------------------------------------------------------------------------------------

    def _run_to_the_end(self, current: _Pass, indexes: Iterator[int]) -> None:
        """Run units until each has a value, or an error that is final."""
        self._attempt(current, indexes)
        retry = current.registration.retry
        if current.failures and retry.attempts > 1:
            self._retry(current)
        self._give_up(current, current.failures)

    def _retry(self, current: _Pass) -> None:
        import tenacity

        retry = current.registration.retry
        with contextlib.suppress(tenacity.TryAgain):
            for attempt in retry.retrying(self.stop):
                with attempt:
                    if attempt.retry_state.attempt_number > 1:  # the first was made before there was anything to retry
                        current.attempt = attempt.retry_state.attempt_number
                        failures, current.failures = current.failures, []
                        again = [failure.index for failure in failures]
                        for failure in failures:
                            current.spent_s[failure.index] = current.spent_s.get(failure.index, 0.0) + failure.seconds
                        current.tally.retried += len(again)
                        before = len(current.tally.latencies_s)
                        self._attempt(current, iter(again))
                        # What the breaker refused did not run.
                        current.tally.retried -= len(again) - (len(current.tally.latencies_s) - before)
                    final = [failure for failure in current.failures if not isinstance(failure.error, retry.on)]
                    current.failures = [failure for failure in current.failures if isinstance(failure.error, retry.on)]
                    self._give_up(current, final)
                    if current.failures:
                        raise tenacity.TryAgain

    def _give_up(self, current: _Pass, failures: Sequence[_Failure]) -> None:
        name = current.registration.name
        current.tally.failed += len(failures)
        for failure in failures:
            seconds = failure.seconds + current.spent_s.get(failure.index, 0.0)
            current.results[failure.index] = DetectorResult(
                name, None, failure.error, current.attempt, False, seconds, failure.worker
            )

    def _attempt(self, current: _Pass, indexes: Iterator[int]) -> None:
        """Run units once, wherever their detector runs; failures go to `current.failures`."""
        match current.registration.isolation:
            case "thread":
                with self.profiles.watch(current.registration.name) if self.profiles else contextlib.nullcontext():
                    _run_here(current, indexes)
            case "process":
                for outcomes in self.shelf.execute(current.registration, current.units(indexes)):
                    for unit, outcome in outcomes:
                        current.take(unit.index, outcome)
            case "dask":
                sent = list(current.units(indexes))
                for unit, outcome in self.remotely(current.registration, sent):
                    current.take(unit.index, outcome)


def _run_here(current: _Pass, indexes: Iterator[int]) -> None:
    """Run units in this thread. The hot path: what is not needed for a calm detector costs nothing."""
    registration, breaker, configs, results = (
        current.registration, current.breaker, current.asked.configs, current.results
    )  # fmt: skip
    name, function, config, attempt = registration.name, registration.function, registration.config, current.attempt
    worker = threading.current_thread().name
    latencies_s, spent_s, clock = current.tally.latencies_s, current.spent_s, time.perf_counter
    cpu_s = time.thread_time()
    for index in indexes:
        if breaker is not None and not breaker.calm and not any(True for _ in current.admitted((index,))):
            continue
        _, args, kwargs = configs[index]
        started = clock()
        try:
            value = function(*args, **{**config, **kwargs}) if config else function(*args, **kwargs)
        except BaseException as problem:  # no main thread: whatever is raised here is the detector's, SystemExit too
            seconds = clock() - started
            if problem.__traceback__ is not None:
                # Our own frame holds the results of the whole chunk.
                problem.with_traceback(problem.__traceback__.tb_next)
            current.failures.append(_Failure(index, problem, seconds, worker))
            if breaker is not None:
                breaker.record(True)
        else:
            seconds = clock() - started
            total_s = seconds + spent_s.get(index, 0.0) if spent_s else seconds
            results[index] = DetectorResult(name, value, None, attempt, False, total_s, worker)
            if breaker is not None and not breaker.calm:
                breaker.record(False)
        latencies_s.append(seconds)
    current.tally.cpu_s += time.thread_time() - cpu_s


def _drained(units: collections.deque[int]) -> Iterator[int]:
    """Yield units one by one, so that another thread may take from the end of what is left."""
    for _ in range(len(units)):
        try:
            unit = units.popleft()
        except IndexError:
            return
        yield unit


def _kept(current: _Pass, value: Any, error: BaseException | None) -> DetectorResult:
    return DetectorResult(current.registration.name, value, error, 0, True, 0.0, "")


def _keys(registration: Registration, unit: Unit) -> tuple[bytes, bytes | None] | None:
    """Return the keys of an execution in memory and in the store; `None` where its arguments cannot be keyed."""
    try:
        digest = content_key((unit.args, unit.kwargs), registration.path_in_key)
    except Unkeyable:
        return None
    stored = registration.stored_identity
    return registration.identity + digest, None if stored is None else content_key((stored, digest))
