"""
The pool for plain Python functions: register, run in parallel, survive, measure.

    with create_enterprise_pool(max_workers=4) as pool:
        pool.register_detector("length", len)
        results = pool.execute_parallel([("length", ("abc",), {})])
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from detectors.access import denied
from detectors.bulkheads import Bulkheads, Job
from detectors.cache import ResultCache
from detectors.circuit_breaker import Breaker
from detectors.detector_profiles import DetectorProfiles
from detectors.errors import AccessDenied, ConfigurationError, DetectorPoolError, UnknownDetector, UsageError
from detectors.execution import Asked, DetectorConfig, DetectorResult, Known, Runner
from detectors.execution_audit import AuditedResults
from detectors.memoisation import Memo
from detectors.memory_pressure import CGROUPS, read_memory
from detectors.pool_metrics import MetricsBook, instrument, prometheus_text
from detectors.ports import AccessPolicy, Action, AuditSink, installed_access_policy, installed_audit_sink
from detectors.process_isolation import ProcessShelf
from detectors.registration import MEMORY_BYTES, BreakerPolicy, Isolation, Registration, RetryPolicy, registration
from detectors.remote_execution import RemoteUnits
from detectors.workload_optimizer import WorkloadOptimizer

__all__ = [
    "BreakerPolicy",
    "DetectorConfig",
    "DetectorResult",
    "EnterpriseDetectorPool",
    "Isolation",
    "RetryPolicy",
    "create_enterprise_pool",
]

ONCE, GUARDED = RetryPolicy(), BreakerPolicy()
CALL_BYTES = 1_000_000
"""The optimizer learns seconds by size; a call of a plain function counts as one megabyte."""
STREAM_BLOCKS = 4
STREAM_BLOCK_UNITS = 1024
STREAM_BLOCK_S = 0.1
CLOSE_S = 10.0
"""How long closing waits for executions in threads, which cannot be ended."""
AHEAD = 2
"""Tasks for each Dask worker: one runs, one is there when it ends."""
LONGEST_CHUNK_S = 1.0
HAND_OVER_S = 3e-4
"""What a chunk is taken to cost beside its detector before it was measured."""
IDLE_PROCESSES = 64
"""Warm processes that may wait for their detectors: fewer than there are detectors would be started again and again."""


class EnterpriseDetectorPool:
    """
    Runs registered functions in parallel; a context manager, usable from several threads and from asyncio.

    A detector runs in a thread, in a warm process of its own, or on a Dask cluster (`isolation`). Equal executions of a
    cacheable detector run once. What fails may be tried again (`retry`); what keeps failing is left alone for a while
    (`breaker`). Results come in the order asked, each a value or an error; a failure of one hides no other.

    Args:
        max_workers: Executions at once; `None` for as many as processors. One thread more serves detectors of which
            nothing runs while all others are busy, so that a slow detector holds up only itself.
        cache_size: Results kept in memory, at most, of detectors registered as `cacheable`.
        cache_ttl: Seconds for which a kept result is given again.
        enable_profiling: Whether stacks and allocations are sampled for each detector, which slows it.
        audit_mode: Whether registrations, calls, digests of what went in and came out, retries, denials, breakers, lost
            processes and changes of configuration go to an audit sink.
        cache_bytes: Of kept results in memory together, at most; less while memory is short.
        cache_folder: Where results of detectors registered with a `version` outlive the process; `None` for nowhere.
        cluster: Where `isolation="dask"` runs: `local`, or a scheduler's address.
        access_policy: Who may register and execute; `None` for the installed one, and without one, whoever runs this.
        audit_sink: Where events go in `audit_mode`; `None` for the installed one.
        cgroup_root: Where control groups are mounted, whose memory limits count.

    Raises:
        UsageError: A number that makes no sense, or a sink without `audit_mode`.
        ConfigurationError: `audit_mode` without an audit sink, or several installed.
    """

    def __init__(  # p10: ignore[R10] the specification fixes this signature by the maintainers
        self,
        max_workers: int | None = None,
        cache_size: int = 10_000,
        cache_ttl: float = 3600.0,
        enable_profiling: bool = False,
        audit_mode: bool = False,
        *,
        cache_bytes: int = 256 << 20,
        cache_folder: Path | None = None,
        cluster: str = "local",
        access_policy: AccessPolicy | None = None,
        audit_sink: AuditSink | None = None,
        cgroup_root: Path = CGROUPS,
    ) -> None:
        import os

        if max_workers is not None and max_workers < 1:
            raise UsageError(f"max_workers must be at least 1, not {max_workers}")
        if cache_size < 0 or cache_ttl < 0 or cache_bytes < 0:
            raise UsageError("cache_size, cache_ttl and cache_bytes must not be negative")
        self._sink = _audit_sink(audit_mode, audit_sink)
        self._policy = access_policy or installed_access_policy()
        self._workers = max_workers or len(os.sched_getaffinity(0))
        self._configuration: dict[str, Any] = {
            "max_workers": self._workers, "cache_size": cache_size, "cache_ttl": cache_ttl,
            "enable_profiling": enable_profiling, "audit_mode": audit_mode, "cache_bytes": cache_bytes,
            "cache_folder": cache_folder, "cluster": cluster, "access_policy": self._policy, "audit_sink": self._sink,
            "cgroup_root": cgroup_root,
        }  # fmt: skip
        self._optimizer = WorkloadOptimizer(workers=self._workers)
        self._metrics = MetricsBook()
        self._stack = contextlib.ExitStack()
        if self._sink is not None and audit_sink is None and hasattr(self._sink, "close"):
            self._stack.callback(self._sink.close)
        store = self._stack.enter_context(ResultCache(cache_folder)) if cache_folder is not None else None
        self._memo = Memo(cache_size, cache_ttl, cache_bytes, store=store, memory=lambda: read_memory(cgroup_root))
        self._shelf = ProcessShelf(max(2 * self._workers, IDLE_PROCESSES), self._process_ended)
        self._remote = RemoteUnits(cluster, self._workers)
        self._profiles = DetectorProfiles() if enable_profiling else None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._runner = Runner(
            self._memo,
            self._metrics,
            shelf=self._shelf,
            remotely=self._remote.execute,
            observe=self._observe,
            stop=self._stop,
            profiles=self._profiles,
        )
        jobs = threading.Lock()
        self._here = Bulkheads(
            self._workers, self._runner.run, _failed, self._stealable, "detector", jobs, warm=self._warm
        )
        # A task costs some milliseconds of processor time on either side, and a worker must find its next one there.
        self._there = Bulkheads(
            AHEAD * self._workers, self._runner.run, _failed, lambda _: False, "dask", jobs, chunk_s=0.5,
            chunk_units=2_000, least_s=0.05, ahead=AHEAD,
        )  # fmt: skip
        self._own_load = _OwnLoad()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """
        End the pool: what has not begun gets errors, processes are killed, threads are waited for (at most 10 s).

        A second call does nothing.
        """
        with self._lock:
            if self._stop.is_set():
                return
            self._stop.set()
        self._here.close()
        self._there.close()
        self._shelf.end_all()
        self._here.join(CLOSE_S)
        self._remote.close()
        self._there.join(CLOSE_S)
        if self._profiles is not None:
            self._profiles.close()
        self._stack.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._stop.is_set()

    @property
    def configuration(self) -> dict[str, Any]:
        """What `create_enterprise_pool` needs to make a pool like this one: options as resolved, no detectors."""
        return dict(self._configuration)

    def register_detector(  # p10: ignore[R10] the specification fixes this signature by the maintainers
        self,
        name: str,
        detector_func: Callable[..., Any],
        config: Mapping[str, Any] | None = None,
        priority: int = 5,
        complexity_score: float = 1.0,
        *,
        config_schema: Mapping[str, Any] | type | None = None,
        roles: Iterable[str] = (),
        isolation: Isolation = "thread",
        timeout_s: float | None = None,
        memory_bytes: int = MEMORY_BYTES,
        retry: RetryPolicy = ONCE,
        breaker: BreakerPolicy | None = GUARDED,
        cacheable: bool = False,
        path_in_key: bool = True,
        version: str | None = None,
        max_concurrent: int | None = None,
        corpus: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]] = (),
    ) -> None:
        """
        Make a function known.

        Args:
            name: Under which it is executed; a second registration replaces the first, for calls that come later.
            detector_func: Called with the arguments of each execution.
            config: Keyword arguments that every execution gets unless it gives its own.
            priority: Above 0; a detector of priority 10 is served ten times as often as one of 1, and none starves.
            complexity_score: Expected seconds a call, until there is a history.
            config_schema: JSON Schema, msgspec struct or other type that `config` must fit; a type's defaults count.
            roles: That may execute it, for the access policy.
            isolation: `thread`: fast, and nothing is contained. `process`: a warm process of its own, with limits;
                crashes, hangs and memory are contained. `dask`: on a worker of a cluster.
            timeout_s: After which an execution is ended with all that it began; not for `thread`, which cannot be.
            memory_bytes: Address space of an isolated process.
            retry: How often, when and on which errors an execution is tried again.
            breaker: When it is left alone after failures; `None` for never.
            cacheable: Whether equal arguments always give an equal result; see `detectors.content_key` for what is
                equal. Kept values are handed out, not copied.
            path_in_key: Whether two paths with equal content are different arguments.
            version: Says that its code, and all that it calls, is the same as in other processes with this version:
                results may then be kept in `cache_folder`.
            max_concurrent: Of its chunks at once, at most.
            corpus: (args, kwargs) of real work, each, on which `ComprehensiveBenchmark` measures it.

        Raises:
            UsageError: An argument that makes no sense, or two that exclude each other.
            ConfigurationError: `config` does not fit `config_schema`.
            NotTransferable: The function cannot be sent to another process.
            AccessDenied: The access policy does not allow it.
        """
        made = registration(
            name, detector_func, config, config_schema, priority=priority, complexity_score=complexity_score,
            roles=frozenset(roles), isolation=isolation, timeout_s=timeout_s, memory_bytes=memory_bytes, retry=retry,
            breaker=breaker, cacheable=cacheable, path_in_key=path_in_key, max_concurrent=max_concurrent,
            version=version, corpus=corpus,
        )  # fmt: skip
        denial = self._denial("register", name, made.roles)
        if denial is not None:
            raise denial
        self._optimizer.register_detector(name, priority, complexity_score=complexity_score)
        self._metrics.open(name)
        guard = Breaker(breaker, lambda before, after: self._breaker_changed(name, before, after)) if breaker else None
        with self._lock:
            self._known[name] = Known(made, guard)
        self._record("detector-registered", detector=name, isolation=isolation, roles=sorted(made.roles))

    def registration_of(self, detector_name: str) -> Registration:
        """
        Return what is known of a detector.

        Raises:
            UnknownDetector: It is not registered.
        """
        with self._lock:
            known = self._known.get(detector_name)
        if known is None:
            raise UnknownDetector(detector_name, self._near(detector_name))
        return known.registration

    def execute_detector(self, detector_name: str, *args: Any, **kwargs: Any) -> DetectorResult:
        """
        Run one detector.

        Args:
            detector_name: A registered name.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result; an error of it, an unknown name or a denial is in there.

        Raises:
            DetectorPoolError: The pool is closed.
        """
        return self.execute_parallel([(detector_name, args, kwargs)])[0]

    def execute_parallel(
        self, detector_configs: Sequence[DetectorConfig], max_concurrent: int | None = None
    ) -> list[DetectorResult]:
        """
        Run many executions at once.

        Args:
            detector_configs: (name, args, kwargs) each.
            max_concurrent: Fewer at once than the pool has workers.

        Returns:
            Results in the order asked; a failure of one hides no other.

        Raises:
            DetectorPoolError: The pool is closed.
            UsageError: `max_concurrent` below 1, or an entry that is not (name, args, kwargs).
        """
        return self._begin(detector_configs, max_concurrent).done.result()

    def execute_adaptive(
        self, detector_configs: Sequence[DetectorConfig], target_overhead: float = 0.01
    ) -> list[DetectorResult]:
        """
        Run many executions, ordered and bounded by the optimizer, in chunks as long as the target asks for.

        Args:
            detector_configs: (name, args, kwargs) each.
            target_overhead: Share of time, above 0 and below 1, that the pool itself may take.

        Returns:
            Results in the order asked.

        Raises:
            UsageError: `target_overhead` out of range.
            DetectorPoolError: The pool is closed.
        """
        return self._begin_adaptive(detector_configs, target_overhead).done.result()

    def execute_stream(
        self, detector_configs: Iterable[DetectorConfig], max_concurrent: int | None = None
    ) -> Generator[DetectorResult, None, None]:
        """
        Run executions as they are taken from an iterable, which may be endless; memory stays flat.

        Reads ahead by a few blocks (at most 4 of 1,024 executions) and no further until results are taken.

        Args:
            detector_configs: (name, args, kwargs) each.
            max_concurrent: Fewer at once than the pool has workers.

        Yields:
            Results in the order asked.

        Raises:
            DetectorPoolError: The pool is closed.
        """
        source = iter(detector_configs)
        running: collections.deque[Job] = collections.deque()
        pace = _Pace(2 * self._workers)
        try:
            while True:
                for _ in range(STREAM_BLOCKS - len(running)):
                    block = list(itertools.islice(source, pace.units))
                    if block:
                        running.append(self._begin(block, max_concurrent))
                if not running:
                    return
                results = running[0].done.result()
                running.popleft()
                pace.seen(len(results))
                yield from results
        finally:
            for job in running:
                self._here.withdraw(job)
                self._there.withdraw(job)

    async def execute_detector_async(self, detector_name: str, *args: Any, **kwargs: Any) -> DetectorResult:
        """Run one detector without blocking the event loop; see `execute_detector`."""
        return (await self.execute_parallel_async([(detector_name, args, kwargs)]))[0]

    async def execute_parallel_async(
        self, detector_configs: Sequence[DetectorConfig], max_concurrent: int | None = None
    ) -> list[DetectorResult]:
        """Run many executions without blocking the event loop; see `execute_parallel`."""
        return await asyncio.wrap_future(self._begin(detector_configs, max_concurrent).done)

    async def execute_adaptive_async(
        self, detector_configs: Sequence[DetectorConfig], target_overhead: float = 0.01
    ) -> list[DetectorResult]:
        """Run many executions without blocking the event loop; see `execute_adaptive`."""
        return await asyncio.wrap_future(self._begin_adaptive(detector_configs, target_overhead).done)

    async def execute_stream_async(
        self, detector_configs: Iterable[DetectorConfig], max_concurrent: int | None = None
    ) -> AsyncIterator[DetectorResult]:
        """Yield results in the order asked without blocking the event loop; see `execute_stream`."""
        results = self.execute_stream(detector_configs, max_concurrent)
        done = object()
        with contextlib.closing(results):
            # Taken in a thread: both the results and the iterable may block.
            while (first := await asyncio.to_thread(next, results, done)) is not done:
                assert isinstance(first, DetectorResult)
                yield first

    def get_pool_metrics(self) -> dict[str, Any]:
        """
        Return what was measured in this pool, as plain data.

        Returns:
            `detectors`: by name, the fields of `pool_metrics.DetectorTotals`, `breaker` and, with profiling,
            `profile`. `total`: the same of all. `workers`, `running`, `queued`: threads and executions now. `chunks`,
            `busy_seconds`, `overhead_share`: of the threads' busy time, what no detector used; `None` before the
            first. `cache_*` and `cache`: of `memoisation.MemoState`. `memory_bytes`, `cpu_seconds`, `read_bytes`,
            `written_bytes`: of this process. `processes`: pids of the isolated ones, how many were started, lost.
        """
        import psutil

        by_name, total = self._metrics.totals()
        with self._lock:
            known = dict(self._known)
        profiles = self._profiles.read() if self._profiles is not None else {}
        detectors: dict[str, dict[str, Any]] = {}
        for name, totals in by_name.items():
            breaker = known[name].breaker if name in known else None
            profile = profiles.get(name)
            detectors[name] = msgspec.structs.asdict(totals) | {
                "breaker": msgspec.structs.asdict(breaker.state()) if breaker else None,
                "profile": msgspec.structs.asdict(profile) if profile else None,
            }
        busy_s = self._here.busy_s + self._there.busy_s
        memo = self._memo.state()
        process = psutil.Process()
        with process.oneshot():
            times, memory, disk = process.cpu_times(), process.memory_info(), process.io_counters()
        return {
            "detectors": detectors,
            "total": msgspec.structs.asdict(total),
            "workers": self._here.active_threads,
            "running": self._here.busy + self._there.busy,
            "queued": self._here.queue.waiting_units + self._there.queue.waiting_units,
            "chunks": self._here.chunks + self._there.chunks,
            "busy_seconds": busy_s,
            "overhead_share": max(0.0, 1 - self._runner.inside_s / busy_s) if busy_s else None,
            "cache_entries": memo.entries,
            "cache_bytes": memo.size_bytes,
            "cache_limit_bytes": memo.limit_bytes,
            "cache": msgspec.structs.asdict(memo),
            "memory_bytes": memory.rss,
            "cpu_seconds": times.user + times.system,
            "read_bytes": disk.read_bytes,
            "written_bytes": disk.write_bytes,
            "processes": {"pids": self._shelf.pids(), "started": self._shelf.started, "lost": self._shelf.lost},
        }  # fmt: skip

    def latency_samples(self) -> dict[str, tuple[float, ...]]:
        """Return a uniform sample (at most 500) of each detector's latencies, in seconds."""
        return self._metrics.samples()

    def prometheus_metrics(self) -> str:
        """Return `get_pool_metrics` in Prometheus' text format."""
        return prometheus_text(self.get_pool_metrics())

    def instrument(self, meter: Any) -> None:
        """
        Let an OpenTelemetry meter observe this pool (needs the extra `otel`).

        Args:
            meter: From `opentelemetry.metrics.get_meter`, or of a provider of your own.
        """
        instrument(self.get_pool_metrics, meter)

    def export_profiles(self, folder: Path) -> tuple[Path, ...]:
        """
        Write a flame graph of each detector that ran in threads.

        Args:
            folder: For the files; made when missing.

        Returns:
            Files in speedscope's format, one a detector.

        Raises:
            UsageError: The pool was made without `enable_profiling`.
        """
        if self._profiles is None:
            raise UsageError("there is nothing to export: make the pool with enable_profiling=True")
        return self._profiles.export(folder)

    def optimize_performance(self) -> dict[str, Any]:
        """
        Fit models, cache and concurrency to what was learnt and to the system as it is now.

        Returns:
            `changes`: what, before, after and why, each; empty when all is as it should be. `expired_results_dropped`:
            how many. `learnt`: what the optimizer knows.
        """
        changes: list[dict[str, Any]] = []
        expired = self._memo.expire()
        before, after, share = self._memo.adapt()
        if before != after:
            why = f"{share:.0%} of the memory that this process may use is free"
            changes.append({"what": "cache_bytes", "before": before, "after": after, "why": why})
        for name, refit in self._optimizer.refit().items():
            if refit.kept:
                why = f"mean error in seconds on {refit.observations} observations, fitted by {refit.estimator}"
                changed = {"before": refit.online_error_s, "after": refit.refit_error_s}
                changes.append({"what": f"model of {name}", **changed, "why": why})
        with self._lock:
            names = list(self._known)
        if names:
            others = self._own_load.others()
            # As many tasks as there are workers: the question is how many should run, not whether there is work.
            pending = [name for _ in range(self._workers) for name in names]
            wanted = min(self._optimizer.optimize_allocation(pending, others).concurrency, self._workers)
            current = self._here.active_threads
            if wanted != current:
                self._here.resize(wanted)
                why = f"others use {others:.0%} of the processors"
                changes.append({"what": "workers", "before": current, "after": wanted, "why": why})
        if changes:
            self._record("configuration-changed", changes=changes)
        return {
            "changes": changes,
            "expired_results_dropped": expired,
            "learnt": self._optimizer.get_optimization_stats(),
        }

    def _begin(
        self,
        configs: Sequence[DetectorConfig],
        limit: int | None,
        order: Sequence[int] | None = None,
        chunk_s: float = 0.0,
    ) -> Job:
        """Hand executions to the threads, in the order of these places; the job's `done` gives the results."""
        if self._stop.is_set():
            raise DetectorPoolError("the pool is closed; use it inside its `with` block")
        if limit is not None and limit < 1:
            raise UsageError(f"max_concurrent must be at least 1, not {limit}")
        places: dict[str, list[int]] = {}
        try:
            for index in range(len(configs)) if order is None else order:
                name, _args, _kwargs = configs[index]
                if name in places:
                    places[name].append(index)
                else:
                    places[name] = [index]
        except (TypeError, ValueError) as problem:
            raise _malformed(problem) from problem
        with self._lock:
            known = {name: self._known[name] for name in places if name in self._known}
        job = self._audited(Job(len(configs), limit, Asked(configs, known), chunk_s), configs)
        here: list[tuple[str, int, int | None, Sequence[int]]] = []
        there: list[tuple[str, int, int | None, Sequence[int]]] = []
        for name, indexes in places.items():
            refusal = self._refusal(name, known.get(name))
            if refusal is not None:
                job.left -= len(indexes)
                for index in indexes:
                    job.results[index] = DetectorResult(name, error=refusal, attempts=0)
                continue
            made = known[name].registration
            share = (name, made.priority, made.max_concurrent, indexes)
            (there if made.isolation == "dask" else here).append(share)
        self._record("executions-asked", executions=len(configs), detectors=sorted(known))
        if job.left == 0:
            job.done.set_result(job.results)
            return job
        for bulkheads, shares in ((self._here, here), (self._there, there)):
            if shares:
                bulkheads.begin(job, shares)
        return job

    def _begin_adaptive(self, configs: Sequence[DetectorConfig], target_overhead: float) -> Job:
        if not 0 < target_overhead < 1:
            raise UsageError(f"target_overhead is a share above 0 and below 1, not {target_overhead}")
        try:
            names = [str(name) for name, _args, _kwargs in configs]
        except (TypeError, ValueError) as problem:
            raise _malformed(problem) from problem
        # Others' load shows as slow-down, which the optimizer's controller is told. A reading of this moment would hold
        # our own work against us; over longer, `optimize_performance` takes it into account.
        allocation = self._optimizer.optimize_allocation(names, 0.0)
        busy_s, chunks = self._here.busy_s, self._here.chunks
        # What a chunk costs beside its detectors, as measured here; a guess until there are some.
        hand_over_s = max(0.0, busy_s - self._runner.inside_s) / chunks if chunks >= 10 else HAND_OVER_S
        chunk_s = min(hand_over_s / target_overhead, LONGEST_CHUNK_S)
        # All workers is what there is without a limit, too; on Dask more than that many are under way.
        limit = allocation.concurrency if allocation.concurrency < min(self._workers, len(names)) else None
        return self._begin(configs, limit, allocation.places, chunk_s)

    def _refusal(self, name: str, known: Known | None) -> DetectorPoolError | None:
        if known is None:
            return UnknownDetector(str(name), self._near(str(name)))
        return self._denial("run", name, known.registration.roles)

    def _denial(self, action: Action, name: str, roles: frozenset[str]) -> AccessDenied | None:
        if self._policy is None:
            return None
        return denied(self._policy, action, name, door="pool", roles=roles, sink=self._sink)

    def _near(self, name: str) -> str | None:
        import difflib

        near = difflib.get_close_matches(name, self._known, n=1, cutoff=0.4)
        return near[0] if near else None

    def _stealable(self, name: str) -> bool:
        known = self._known.get(name)
        return known is not None and not known.registration.cacheable

    def _warm(self, name: str) -> int | None:
        """Return how many processes of a detector are there; `None` where it needs none of its own."""
        known = self._known.get(name)
        if known is None or known.registration.isolation != "process":
            return None
        return self._shelf.count(known.registration)

    def _observe(self, name: str, executions: int, seconds: float) -> None:
        self._optimizer.observe(name, executions * CALL_BYTES, seconds)

    def _process_ended(self, name: str, words: str) -> None:
        if not self._stop.is_set():
            self._record("process-lost", detector=name, problem=words)

    def _breaker_changed(self, name: str, before: str, after: str) -> None:
        self._record("breaker-changed", detector=name, before=before, after=after)

    def _audited(self, job: Job, configs: Sequence[DetectorConfig]) -> Job:
        """Have a job's results recorded before anybody gets them."""
        if self._sink is not None:
            job.done = AuditedResults(configs, self._sink.record)
        return job

    def _record(self, event: str, **fields: Any) -> None:
        if self._sink is not None:
            self._sink.record({"event": event, "time": time.time(), **fields})


class _Pace:
    """Block length of a stream: as many executions as end in a tenth of a second."""

    def __init__(self, least: int) -> None:
        self.units = self._least = least
        self._last = time.monotonic()

    def seen(self, units: int) -> None:
        now = time.monotonic()
        fitting = int(units * STREAM_BLOCK_S / max(now - self._last, 1e-6))
        # At most twice as long as the last, since one quick block says little of the next.
        self.units = max(self._least, min(fitting, 2 * self.units, STREAM_BLOCK_UNITS))
        self._last = now


class _OwnLoad:
    """Share of the processors that others use: all of it, less what this process and its children use."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._last = (time.monotonic(), self._used_s())
        psutil.cpu_percent(interval=None)

    def others(self) -> float:
        """Return 0 to 1, since the last call."""
        import psutil

        now, used_s = time.monotonic(), self._used_s()
        elapsed_s = max(now - self._last[0], 1e-3) * (psutil.cpu_count() or 1)
        own = max(0.0, used_s - self._last[1]) / elapsed_s
        self._last = now, used_s
        return min(max(psutil.cpu_percent(interval=None) / 100 - own, 0.0), 1.0)

    def _used_s(self) -> float:
        import psutil

        used_s = sum(self._process.cpu_times()[:2])
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                used_s += sum(child.cpu_times()[:2])
        return float(used_s)


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


def _malformed(problem: Exception) -> UsageError:
    return UsageError(f"an execution is (name, args, kwargs): {problem}")


def _failed(job: Job, unit: int, error: BaseException) -> DetectorResult:
    asked: Asked = job.context
    return DetectorResult(asked.configs[unit][0], error=error, attempts=0)


def _audit_sink(audit_mode: bool, given: AuditSink | None) -> AuditSink | None:
    if not audit_mode:
        if given is not None:
            raise UsageError("audit_sink counts with audit_mode=True only")
        return None
    sink = given or installed_audit_sink()
    if sink is None:
        raise ConfigurationError(
            "audit_mode=True needs an audit sink, and none is installed; a silent one would look like an audit"
        )
    return sink
