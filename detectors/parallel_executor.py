"""
Calls to results: in threads of this process, or on a Dask cluster whose scheduler steals work.

One engine for both doors: `detectors.scan` sends batches through it, `EnterpriseDetectorPool` plain functions. Results
come as they finish. A worker that dies costs a call no more than another attempt: Dask gives it to another worker, and
when that one dies too, the caller is told (`WorkerLost`) and decides; `run_batches` halves the batch until the file
at fault is alone.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from concurrent.futures import Future as ThreadFuture
from typing import TYPE_CHECKING, Any

import msgspec

from detectors import sandbox
from detectors.batch import BatchResult, analyse
from detectors.errors import ClusterError, DetectorPoolError
from detectors.model import NotAnalysed
from detectors.workload_optimizer import Batch

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Call", "CallResult", "DaskBackend", "InProcess", "ParallelExecutor", "WorkerLost"]

ATTEMPTS_ALONE = 2
"""A file alone in its batch whose workers died this often is at fault itself."""


class WorkerLost(DetectorPoolError):
    """Every worker that ran the call died; the call may be what killed them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the workers that ran {self.name} died"


class Call(msgspec.Struct, frozen=True):
    """One piece of work."""

    name: str
    """Prefix, dash, token: dashboards and Dask's duration guess group by the prefix."""
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    priority: int = 0
    """Higher runs earlier."""


class CallResult(msgspec.Struct, frozen=True):
    """What became of a call: `error` is `None`, or `value` is worthless."""

    call: Call
    value: Any
    error: BaseException | None
    seconds: float


class InProcess:
    """
    Threads of this process: for small work, and for tools, which are processes of their own.

    Args:
        workers: Threads, at least 1.
    """

    name = "inline"

    def __init__(self, workers: int) -> None:
        self.workers = max(workers, 1)
        # Several threads may run calls at once (the stages of a flow); together they use no more than `workers`.
        self._slots = threading.BoundedSemaphore(self.workers)

    def run(self, calls: Iterable[Call], stop: threading.Event) -> Iterator[CallResult]:
        """Yield results as they finish; keeps at most two calls a worker waiting."""
        source = iter(calls)
        running: set[ThreadFuture[CallResult]] = set()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="detector") as threads:
            try:
                for call in source:
                    running.add(threads.submit(_timed, call, stop, self._slots))
                    if len(running) >= 2 * self.workers:
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in done)
                for future in as_completed(tuple(running)):
                    running.discard(future)
                    yield future.result()
            finally:
                if running:
                    # Left early: the threads are waiting for tools, and we would wait for the threads.
                    stop.set()
                    sandbox.end_all()
                for future in running:
                    future.cancel()


class DaskBackend:
    """
    A Dask cluster through a connected client.

    Args:
        client: From a `ports.ClusterKind`.
        workers: Worker threads of the cluster, for planning.
        target: What `--cluster` named.
    """

    def __init__(self, client: Client, workers: int, target: str) -> None:
        self._client, self.workers, self.name = client, workers, target

    def run(self, calls: Iterable[Call], stop: threading.Event) -> Iterator[CallResult]:
        """Yield results as they finish; on an early end the scheduler forgets what has not begun."""
        from distributed import as_completed as dask_as_completed
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        by_key: dict[str, tuple[Call, float]] = {}
        futures = []
        for number, call in enumerate(calls):
            # The same batch may be asked for again after a lost worker; Dask must not answer with the old future.
            key = f"{call.name}-{time.monotonic_ns():x}{number:x}"
            by_key[key] = call, time.monotonic()
            futures.append(
                self._client.submit(
                    _timed_value, call.function, call.args, call.kwargs, key=key, pure=False, priority=call.priority
                )
            )
        completed = dask_as_completed(  # type: ignore[no-untyped-call]
            futures, loop=self._client.loop, with_results=True, raise_errors=False
        )
        try:
            for future, value in completed:
                call, submitted = by_key.pop(future.key)
                if stop.is_set():
                    raise KeyboardInterrupt
                match future.status:
                    case "finished":
                        yield CallResult(call, value[0], None, value[1])
                    case "error":
                        problem = value[1] if isinstance(value, tuple) else value
                        lost = isinstance(problem, KilledWorker)
                        yield CallResult(
                            call, None, WorkerLost(call.name) if lost else problem, time.monotonic() - submitted
                        )
                    case status:
                        yield CallResult(
                            call, None, ClusterError(f"{call.name} was {status}: the scheduler lost it"), 0.0
                        )
        except FutureCancelledError as problem:
            raise ClusterError(f"the Dask scheduler was lost: {problem}") from problem
        finally:
            left = [future for future in futures if future.status == "pending"]
            if left:
                self._client.cancel(left, force=True)  # type: ignore[no-untyped-call]


Backend = InProcess | DaskBackend


class ParallelExecutor:
    """
    Runs calls, and batches of a scan, on one backend. Usable from several threads at once.

    Args:
        backend: Where the work is done.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let no further call begin, and end the tools that run in this process."""
        self._stop.set()
        sandbox.end_all()

    def run(self, calls: Iterable[Call]) -> Iterator[CallResult]:
        """Yield one result for each call, as they finish; an error of one hides no other."""
        return self.backend.run(calls, self._stop)

    def run_batches(
        self, batches: Sequence[Batch], roots: tuple[str, ...]
    ) -> Iterator[tuple[Batch, BatchResult | DetectorPoolError]]:
        """
        Run batches of a scan, longest first.

        A batch whose workers died is halved and run again; a file that is at fault alone becomes *not analysed*.

        Yields:
            A batch and its result; or and the error that makes the whole run worthless (`DetectorBroken`).

        Raises:
            ClusterError: The scheduler was lost.
        """
        queue = collections.deque(batches)
        suspects: list[Batch] = []
        # Each round halves every batch that failed, so the rounds are bounded by the longest batch's bits.
        rounds = max((len(batch.files) for batch in batches), default=0).bit_length() + 1
        for _ in range(rounds):
            if not queue:
                break
            calls = [
                Call(batch.name, analyse, (batch, roots), {}, len(queue) - place) for place, batch in enumerate(queue)
            ]
            by_call = {id(call): batch for call, batch in zip(calls, queue, strict=True)}
            queue.clear()
            for result in self.run(calls):
                batch = by_call[id(result.call)]
                match result.error:
                    case None:
                        yield batch, result.value
                    case WorkerLost() if len(batch.files) == 1:
                        suspects.append(batch)
                    case WorkerLost():
                        queue.extend(_halves(batch))
                    case DetectorPoolError() as problem:
                        yield batch, problem
                    case problem:
                        raise problem
        assert not queue, "a batch was neither finished nor given up"
        for batch in suspects:
            yield batch, self._alone(batch, roots)

    def _alone(self, batch: Batch, roots: tuple[str, ...]) -> BatchResult | DetectorPoolError:
        """
        Run one file with nothing beside it: Dask blames whatever waited on a worker that died, guilty or not.

        Returns:
            The result; *not analysed* where the workers died each time.
        """
        for _ in range(ATTEMPTS_ALONE):
            for result in self.run([Call(batch.name, analyse, (batch, roots))]):
                match result.error:
                    case None:
                        answer: BatchResult = result.value
                        return answer
                    case WorkerLost():
                        pass
                    case DetectorPoolError() as problem:
                        return problem
                    case problem:
                        raise problem
        return _at_fault(batch)


def _timed(call: Call, stop: threading.Event, slots: threading.BoundedSemaphore) -> CallResult:
    with slots:
        clock = time.perf_counter()
        if stop.is_set():
            return CallResult(call, None, ClusterError("the run was stopped"), 0.0)
        try:
            value = call.function(*call.args, **call.kwargs)
        except Exception as problem:  # the caller sees every error as a value; only what ends the process flies
            return CallResult(call, None, problem, time.perf_counter() - clock)
        return CallResult(call, value, None, time.perf_counter() - clock)


def _timed_value(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, float]:
    clock = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - clock


def _halves(batch: Batch) -> tuple[Batch, ...]:
    middle = (len(batch.files) + 1) // 2
    parts = [part for part in (batch.files[:middle], batch.files[middle:]) if part]
    return tuple(
        msgspec.structs.replace(
            batch,
            name=f"{batch.name}.{number}",
            files=part,
            predicted_s=batch.predicted_s * len(part) / len(batch.files),
        )
        for number, part in enumerate(parts)
    )


def _at_fault(batch: Batch) -> BatchResult:
    detail = f"every worker that analysed it died ({ATTEMPTS_ALONE} attempts alone)"
    outcomes = tuple(NotAnalysed(batch.files[0].path, name, "crashed", detail) for name in batch.detectors)
    return BatchResult(outcomes, "", time.time(), 0.0)
