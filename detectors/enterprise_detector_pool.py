"""
The pool for plain Python functions: register, run in parallel, measure. Stands on the executor and optimizer of `scan`.

    with create_enterprise_pool(max_workers=4) as pool:
        pool.register_detector("length", len)
        results = pool.execute_parallel([("length", ("abc",), {})])
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import msgspec

from detectors.errors import ConfigurationError, DetectorPoolError, UnknownDetector, UsageError
from detectors.parallel_executor import Call, CallResult, InProcess, ParallelExecutor
from detectors.workload_optimizer import WorkloadOptimizer

__all__ = ["DetectorConfig", "DetectorResult", "EnterpriseDetectorPool", "create_enterprise_pool"]

DetectorConfig = tuple[str, tuple[Any, ...], dict[str, Any]]
"""(name, positional arguments, keyword arguments)."""


class DetectorResult(msgspec.Struct, frozen=True):
    """What became of one execution: exactly one of `value` and `error` counts."""

    detector: str
    value: Any = None
    error: BaseException | None = None
    attempts: int = 1
    from_cache: bool = False
    seconds: float = 0.0
    """Wall time of the function itself, all attempts; 0 from the cache."""
    worker: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None


class _Registered(msgspec.Struct, frozen=True):
    function: Callable[..., Any]
    config: Mapping[str, Any]
    attempts: int
    cacheable: bool


class _Counts(msgspec.Struct):
    executed: int = 0
    failed: int = 0
    retried: int = 0
    from_cache: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class EnterpriseDetectorPool:
    """
    Runs registered functions in parallel; a context manager, usable from several threads.

    Args:
        max_workers: Threads; `None` for as many as processors.
        cache_size: Results kept in memory, at most, of detectors registered as `cacheable`.
        cache_ttl: Seconds for which a kept result is given again.
        enable_profiling: Whether processor seconds are measured for each detector, too.
        audit_mode: Whether every event goes to an audit sink; an error as long as none is installed.

    Raises:
        UsageError: A number that makes no sense.
        ConfigurationError: `audit_mode` without an audit sink.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        cache_size: int = 10_000,
        cache_ttl: float = 3600.0,
        enable_profiling: bool = False,
        audit_mode: bool = False,
    ) -> None:
        import os

        if max_workers is not None and max_workers < 1:
            raise UsageError(f"max_workers must be at least 1, not {max_workers}")
        if cache_size < 0 or cache_ttl < 0:
            raise UsageError("cache_size and cache_ttl must not be negative")
        if audit_mode:
            raise ConfigurationError(
                "audit_mode=True needs an audit sink, and none is installed; a silent one would look like an audit"
            )
        self._executor = ParallelExecutor(InProcess(max_workers or len(os.sched_getaffinity(0))))
        self._optimizer = WorkloadOptimizer()
        self._profiling = enable_profiling
        self._cache_size, self._cache_ttl = cache_size, cache_ttl
        self._cache: collections.OrderedDict[bytes, tuple[float, Any]] = collections.OrderedDict()
        self._detectors: dict[str, _Registered] = {}
        self._counts: dict[str, _Counts] = {}
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let no further execution begin."""
        self._closed = True

    def register_detector(
        self,
        name: str,
        detector_func: Callable[..., Any],
        config: Mapping[str, Any] | None = None,
        priority: int = 5,
        complexity_score: float = 1.0,
        *,
        attempts: int = 1,
        cacheable: bool = False,
    ) -> None:
        """
        Make a function known.

        Args:
            name: Under which it is executed; a second registration replaces the first.
            detector_func: Called with the arguments of each execution.
            config: Keyword arguments that every execution gets unless it gives its own.
            priority: Higher runs earlier in `execute_adaptive`.
            complexity_score: Expected seconds a call, until there is a history.
            attempts: How often it is tried, with backoff and jitter between, before its error is the result.
            cacheable: Whether equal arguments (plain data) always give an equal result.

        Raises:
            UsageError: No name, no callable, or fewer than one attempt.
        """
        if not name or not callable(detector_func) or attempts < 1:
            raise UsageError("register_detector needs a name, a callable, and at least one attempt")
        self._optimizer.register_detector(name, priority, complexity_score=complexity_score)
        with self._lock:
            self._detectors[name] = _Registered(detector_func, dict(config or {}), attempts, cacheable)
            self._counts.setdefault(name, _Counts())

    def execute_detector(self, detector_name: str, *args: Any, **kwargs: Any) -> DetectorResult:
        """Run one detector; an error of it, or an unknown name, is in the result."""
        return self.execute_parallel([(detector_name, args, kwargs)])[0]

    def execute_parallel(
        self, detector_configs: Sequence[DetectorConfig], max_concurrent: int | None = None
    ) -> list[DetectorResult]:
        """
        Run many executions at once.

        Args:
            detector_configs: (name, args, kwargs) each.
            max_concurrent: Fewer threads than the pool has.

        Returns:
            Results in the order asked; a failure of one hides no other.

        Raises:
            DetectorPoolError: The pool is closed.
        """
        return self._execute(detector_configs, range(len(detector_configs)), max_concurrent)

    def execute_adaptive(
        self, detector_configs: Sequence[DetectorConfig], target_overhead: float = 0.01
    ) -> list[DetectorResult]:
        """
        Run many executions, ordered and bounded by the optimizer.

        Args:
            detector_configs: (name, args, kwargs) each.
            target_overhead: Share of time, above 0 and below 1, that the pool itself may take.

        Returns:
            Results in the order asked.

        Raises:
            UsageError: `target_overhead` out of range.
        """
        import psutil

        if not 0 < target_overhead < 1:
            raise UsageError(f"target_overhead is a share above 0 and below 1, not {target_overhead}")
        names = [f"{name}" for name, _, _ in detector_configs]
        allocation = self._optimizer.optimize_allocation(names, psutil.cpu_percent(interval=None) / 100)
        rank = {name: place for place, name in reversed(list(enumerate(allocation.order)))}
        order = sorted(range(len(names)), key=lambda index: rank[names[index]])
        return self._execute(detector_configs, order, allocation.concurrency)

    def get_pool_metrics(self) -> dict[str, Any]:
        """Return counts and seconds measured in this pool, in all and by detector."""
        with self._lock:
            by_detector = {name: msgspec.structs.asdict(counts) for name, counts in sorted(self._counts.items())}
            cached = len(self._cache)
        total: dict[str, float] = collections.defaultdict(float)
        for counts in by_detector.values():
            for key, value in counts.items():
                total[key] += value
        return {
            "detectors": by_detector,
            "total": dict(total),
            "workers": self._executor.backend.workers,
            "cache_entries": cached,
        }

    def optimize_performance(self) -> dict[str, Any]:
        """Drop kept results that are out of date; return what was changed, and what the optimizer has learnt."""
        now = time.monotonic()
        with self._lock:
            old = [key for key, (kept, _) in self._cache.items() if now - kept > self._cache_ttl]
            for key in old:
                del self._cache[key]
        return {"expired_results_dropped": len(old), "learnt": self._optimizer.get_optimization_stats()}

    def _execute(
        self, configs: Sequence[DetectorConfig], order: Sequence[int], max_concurrent: int | None
    ) -> list[DetectorResult]:
        if self._closed:
            raise DetectorPoolError("the pool is closed; use it inside its `with` block")
        results: dict[int, DetectorResult] = {}
        calls: list[Call] = []
        places: dict[int, tuple[int, bytes | None]] = {}
        for index in order:
            name, args, kwargs = configs[index]
            registered = self._detectors.get(name)
            if registered is None:
                results[index] = DetectorResult(name, error=UnknownDetector(name, self._near(name)))
                continue
            key = _key(name, args, kwargs) if registered.cacheable else None
            kept = self._kept(key)
            if kept is not None:
                with self._lock:
                    self._counts[name].from_cache += 1
                results[index] = DetectorResult(name, kept[0], from_cache=True)
                continue
            call = Call(name, self._attempt, (registered, args, {**registered.config, **kwargs}))
            calls.append(call)
            places[id(call)] = index, key
        executor = self._executor
        if max_concurrent is not None:
            executor = ParallelExecutor(InProcess(min(max_concurrent, executor.backend.workers)))
        for finished in executor.run(calls):
            index, key = places[id(finished.call)]
            results[index] = self._result(finished, key)
        return [results[index] for index in range(len(configs))]

    def _attempt(
        self, registered: _Registered, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, int, float, str]:
        """Return (value or error, attempts, processor seconds, thread); runs in a worker thread."""
        clock = time.thread_time() if self._profiling else 0.0
        attempts = 0
        try:
            if registered.attempts == 1:
                attempts = 1
                value: Any = registered.function(*args, **kwargs)
            else:
                import stamina

                for attempt in stamina.retry_context(on=Exception, attempts=registered.attempts, timeout=None):
                    with attempt:
                        attempts = attempt.num
                        value = registered.function(*args, **kwargs)
        except Exception as problem:  # an execution's error is its result
            value = _Failed(problem)
        spent = time.thread_time() - clock if self._profiling else 0.0
        return value, attempts, spent, threading.current_thread().name

    def _result(self, finished: CallResult, key: bytes | None) -> DetectorResult:
        name = finished.call.name
        if finished.error is not None:
            return DetectorResult(name, error=finished.error)
        value, attempts, cpu_seconds, worker = finished.value
        failed = isinstance(value, _Failed)
        with self._lock:
            counts = self._counts[name]
            counts.executed += 1
            counts.failed += failed
            counts.retried += attempts - 1
            counts.seconds += finished.seconds
            counts.cpu_seconds += cpu_seconds
            if key is not None and not failed and self._cache_size:
                self._cache[key] = time.monotonic(), value
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        self._optimizer.observe(name, 1_000_000, finished.seconds)
        if failed:
            return DetectorResult(name, error=value.error, attempts=attempts, seconds=finished.seconds, worker=worker)
        return DetectorResult(name, value, attempts=attempts, seconds=finished.seconds, worker=worker)

    def _kept(self, key: bytes | None) -> tuple[Any] | None:
        if key is None:
            return None
        with self._lock:
            entry = self._cache.get(key)
            if entry is None or time.monotonic() - entry[0] > self._cache_ttl:
                return None
            self._cache.move_to_end(key)
            return (entry[1],)

    def _near(self, name: str) -> str | None:
        import difflib

        near = difflib.get_close_matches(str(name), self._detectors, n=1, cutoff=0.4)
        return near[0] if near else None


class _Failed(msgspec.Struct, frozen=True):
    error: BaseException


def create_enterprise_pool(**config: Any) -> EnterpriseDetectorPool:
    """
    Make a pool; see `EnterpriseDetectorPool` for the options.

    Raises:
        UsageError: An option that does not exist.
    """
    try:
        return EnterpriseDetectorPool(**config)
    except TypeError as problem:
        raise UsageError(f"create_enterprise_pool: {problem}") from problem


def _key(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """Return a key over plain data; `None` for arguments that cannot be keyed, which are run and never kept."""
    try:
        return msgspec.msgpack.encode(
            (name, [_typed(value) for value in args], sorted((k, _typed(v)) for k, v in kwargs.items()))
        )
    except (TypeError, msgspec.MsgspecError):
        return None


def _typed(value: Any) -> tuple[str, Any]:
    # 1, 1.0 and True are equal to msgpack's reader in part; a detector may tell them apart.
    return type(value).__qualname__, value
