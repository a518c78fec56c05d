"""
Calls to results: in threads of this process, or on a Dask cluster whose scheduler steals work.

One engine for both doors: `detectors.scan` sends batches through it, `EnterpriseDetectorPool` plain functions. Results
come as they finish. In threads, calls go through the pool's `bulkheads`. A worker that dies costs a call no more than
another attempt: Dask gives it to another worker, and when that one dies too, the call is divided (`run_divided`) until
what is at fault is alone; that is tried by itself before it is given up as `WorkerLost`.
"""

from __future__ import annotations

import collections
import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from detectors import sandbox
from detectors.batch import BatchResult, analyse, blobs_of
from detectors.bulkheads import Bulkheads, Chunk, Job
from detectors.errors import ClusterLost, DetectorPoolError, SourceChanged
from detectors.model import CanaryCount, NotAnalysed, SourceFile
from detectors.snapshot import read_verified
from detectors.workload_optimizer import Batch

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Call", "CallResult", "DaskBackend", "InProcess", "ParallelExecutor", "WorkerLost"]

ATTEMPTS_ALONE = 2
"""Dask blames whatever waited on a worker that died; what loses its worker this often alone is at fault itself."""
MAX_ROUNDS = 80
"""Of divisions; halving reaches one after as many as the length has bits."""
CLOSE_S = 10.0
"""How long an early end waits for calls in threads, which cannot be ended."""
LOADED_A_WORKER = 3
"""Calls with a load that are under way for each worker: one runs, the others have travelled when it ends."""


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
    about: Any = None
    """What the caller wants to find in the result; stays in this process."""
    avoid: str = ""
    """Address of a Dask worker that shall not run it, if there is another."""
    load: Callable[[Any], Mapping[str, Any]] | None = None
    """Makes further arguments of `about`, too large to be held for all calls at once: few have theirs at a time."""


class CallResult(msgspec.Struct, frozen=True):
    """What became of a call: `error` is `None`, or `value` is worthless."""

    call: Call
    value: Any
    error: BaseException | None
    seconds: float
    worker: str = ""
    """Address of the Dask worker that ran it."""


class InProcess:
    """
    Threads of this process: for small work, and for tools, which are processes of their own.

    They start with the first call and end with `close`. Several threads may run calls at once (the stages of a flow);
    together they use no more than `workers`.

    Args:
        workers: Threads, at least 1.
    """

    name = "inline"

    def __init__(self, workers: int) -> None:
        self.workers = max(workers, 1)
        self._threads = Bulkheads(
            self.workers, _work_through, _stopped, lambda _: False, "detector", threading.Lock(), chunk_units=1
        )

    def run(self, calls: Iterable[Call], stop: threading.Event) -> Iterator[CallResult]:
        """Yield results as they finish; calls begin in their order."""
        asked = _Asked(tuple(calls), stop)
        if not asked.calls:
            return
        job = Job(len(asked.calls), None, asked)
        # One compartment: what is longest goes first, whichever detector's it is.
        self._threads.begin(job, [(self.name, 1, None, range(len(asked.calls)))])
        left = len(asked.calls)
        try:
            for _ in range(len(asked.calls)):
                result = asked.results.get()
                left -= 1
                yield result
        finally:
            if left:
                # Left early: the threads are waiting for tools, and we would wait for the threads.
                stop.set()
                sandbox.end_all()
                self.close()

    def close(self) -> None:
        """Let nothing further begin, and wait for what runs (at most 10 s)."""
        self._threads.close()
        self._threads.join(CLOSE_S)


class _Asked:
    """The calls of one job, and where their results go as they come."""

    def __init__(self, calls: tuple[Call, ...], stop: threading.Event) -> None:
        self.calls, self.stop = calls, stop
        self.results: queue.SimpleQueue[CallResult] = queue.SimpleQueue()


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
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        waiting = iter(tuple(calls))
        under_way: dict[str, tuple[Call, float, Any]] = {}
        at_once = LOADED_A_WORKER * max(self.workers, 1)
        completed = dask_as_completed(  # type: ignore[no-untyped-call]
            (), loop=self._client.loop, with_results=True, raise_errors=False
        )
        try:
            for call in waiting:
                completed.add(self._sent(call, under_way))  # type: ignore[no-untyped-call]
                if call.load is not None and len(under_way) >= at_once:
                    break
            for future, value in completed:
                call, submitted, _ = under_way.pop(future.key)
                if stop.is_set():
                    raise KeyboardInterrupt
                for following in itertools.islice(waiting, 1):
                    completed.add(self._sent(following, under_way))  # type: ignore[no-untyped-call]
                match future.status:
                    case "finished":
                        yield CallResult(call, value[0], None, value[1], value[2])
                    case "error":
                        problem = value[1] if isinstance(value, tuple) else value
                        if isinstance(problem, (NoWorkerError, NoValidWorkerError)):
                            raise ClusterLost(f"no worker of {self.name} is left: {problem}") from problem
                        lost = isinstance(problem, KilledWorker)
                        yield CallResult(
                            call, None, WorkerLost(call.name) if lost else problem, time.monotonic() - submitted
                        )
                    case status:
                        yield CallResult(
                            call, None, ClusterLost(f"{call.name} was {status}: the scheduler lost it"), 0.0
                        )
        except FutureCancelledError as problem:
            raise ClusterLost(f"the Dask scheduler was lost: {problem}") from problem
        finally:
            left = [future for _, _, future in under_way.values() if future.status == "pending"]
            if left:
                self._client.cancel(left, force=True)  # type: ignore[no-untyped-call]

    def shares_files(self, roots: tuple[str, ...], files: Sequence[SourceFile]) -> bool:
        """Tell whether every worker that there is now reads these files as this machine does."""
        assert files, "somebody asks about something"
        answers: Mapping[str, bool] = self._client.run(_reads, roots, tuple(files))
        return bool(answers) and all(answers.values())

    def _sent(self, call: Call, under_way: dict[str, tuple[Call, float, Any]]) -> Any:
        """Submit a call, and note its future under its key."""
        # The same batch may be asked for again after a lost worker; Dask must not answer with the old future.
        key = f"{call.name}-{time.monotonic_ns():x}{len(under_way):x}"
        assert key not in under_way, "the clock ticks between two calls, or one more is under way"
        elsewhere = self._others(call.avoid)
        more = call.load(call.about) if call.load is not None else {}
        future = self._client.submit(
            _timed_value, call.function, call.args, {**call.kwargs, **more}, key=key, pure=False,
            priority=call.priority, workers=elsewhere, allow_other_workers=elsewhere is not None,
        )  # fmt: skip
        under_way[key] = call, time.monotonic(), future
        return future

    def _others(self, avoid: str) -> list[str] | None:
        """Return all workers but one; `None`, for any, where there is no other."""
        if not avoid:
            return None
        known: Mapping[str, object] = self._client.scheduler_info(n_workers=-1)["workers"]
        return [address for address in known if address != avoid] or None


Backend = InProcess | DaskBackend
Divide = Callable[[Call], Sequence[Call]]
"""A call whose workers died to what is run in its place; to nothing, where it cannot be divided further."""


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

    def close(self) -> None:
        """End the threads of this process, if there are any; a cluster is closed by whoever opened it."""
        if isinstance(self.backend, InProcess):
            self.backend.close()

    def run(self, calls: Iterable[Call]) -> Iterator[CallResult]:
        """Yield one result for each call, as they finish; an error of one hides no other."""
        return self.backend.run(calls, self._stop)

    def run_divided(self, calls: Iterable[Call], divide: Divide) -> Iterator[CallResult]:
        """
        Run calls; one whose workers died is divided, and its parts are run in its place.

        Args:
            calls: In the order in which they shall begin.
            divide: See `Divide`.

        Yields:
            One result for each call or part that was not divided further; `WorkerLost` for what killed its workers
            with nothing beside it, too.

        Raises:
            ClusterLost: The scheduler was lost.
        """
        waiting = collections.deque(calls)
        suspects: list[Call] = []
        for _ in range(MAX_ROUNDS):
            if not waiting:
                break
            this_round = tuple(waiting)
            waiting.clear()
            for result in self.run(this_round):
                if not isinstance(result.error, WorkerLost):
                    yield result
                elif parts := divide(result.call):
                    waiting.extend(parts)
                else:
                    suspects.append(result.call)
        assert not waiting, "a call was neither finished nor given up: its division does not end"
        for call in suspects:
            yield self._alone(call)

    def run_batches(
        self, batches: Sequence[Batch], roots: tuple[str, ...], run_id: str = "", *, shipped: bool = False
    ) -> Iterator[tuple[Batch, BatchResult | DetectorPoolError]]:
        """
        Run batches of a scan, longest first.

        A batch whose workers died is halved and run again; a file that is at fault alone becomes *not analysed*. One
        in which a detector missed a canary is run once more, on another worker where there is one; what it says then
        counts, and if a canary is missed again, that is that the detector's files are *not analysed*.

        Args:
            batches: In the order in which they shall begin.
            roots: Absolute paths of the snapshot's roots.
            run_id: Of the scan, whose batches share their tools' breakers.
            shipped: Whether the files travel with their batches, to workers that do not see the roots.

        Yields:
            A batch and its result; or and the error that makes the whole run worthless (`DetectorBroken`).

        Raises:
            ClusterLost: The scheduler was lost.
        """
        assert len({batch.name for batch in batches}) == len(batches), "each batch is planned once"
        load = functools.partial(_blobs, roots) if shipped else None
        calls = [
            Call(batch.name, analyse, (batch, roots, run_id), {}, len(batches) - place, batch, load=load)
            for place, batch in enumerate(batches)
        ]
        again: list[Call] = []
        counted: dict[str, tuple[CanaryCount, ...]] = {}
        for result in self.run_divided(calls, _halved):
            batch: Batch = result.call.about
            if isinstance(result.value, BatchResult) and result.value.distrusted:
                again.append(msgspec.structs.replace(result.call, avoid=result.worker))
                counted[batch.name] = result.value.canaries
            else:
                yield batch, _settled(result)
        for result in self.run_divided(again, _halved) if again else ():
            value = _settled(result)
            # The first attempt's canaries count, too; not those of a batch that was divided since.
            before = counted.pop(result.call.about.name, ())
            if isinstance(value, BatchResult):
                value = msgspec.structs.replace(value, canaries=(*before, *value.canaries))
            yield result.call.about, value

    def _alone(self, call: Call) -> CallResult:
        """Run one call with nothing beside it, a few times while its workers die."""
        result = CallResult(call, None, WorkerLost(call.name), 0.0)
        for _ in range(ATTEMPTS_ALONE):
            (result,) = self.run([call])
            if not isinstance(result.error, WorkerLost):
                break
        assert result.call is call, "one call, one result"
        return result


def _work_through(chunk: Chunk) -> None:
    """Run the calls of a chunk in this thread."""
    asked: _Asked = chunk.job.context
    assert isinstance(asked, _Asked), "jobs of these threads are made in one place"
    for number in chunk.units:
        asked.results.put(_timed(asked.calls[number], asked.stop))
        chunk.job.results[number] = True


def _timed(call: Call, stop: threading.Event) -> CallResult:
    clock = time.perf_counter()
    if stop.is_set():
        return CallResult(call, None, DetectorPoolError("the run was stopped"), 0.0)
    try:
        value = call.function(*call.args, **call.kwargs)
    except BaseException as problem:  # no main thread: the caller sees whatever the call raises, SystemExit too
        return CallResult(call, None, problem, time.perf_counter() - clock)
    return CallResult(call, value, None, time.perf_counter() - clock)


def _stopped(job: Job, number: int, error: BaseException) -> bool:
    """Give the result of a call that did not begin."""
    asked: _Asked = job.context
    assert isinstance(asked, _Asked), "jobs of these threads are made in one place"
    asked.results.put(CallResult(asked.calls[number], None, error, 0.0))
    return False


def _timed_value(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, float, str]:
    from distributed import get_worker

    clock = time.perf_counter()
    return function(*args, **kwargs), time.perf_counter() - clock, get_worker().address


def _reads(roots: tuple[str, ...], files: tuple[SourceFile, ...]) -> bool:
    try:
        return all(read_verified(roots[file.root], file) is not None for file in files)
    except SourceChanged:
        return False


def _blobs(roots: tuple[str, ...], batch: Batch) -> Mapping[str, Any]:
    return {"blobs": blobs_of(batch, roots)}


def _halved(call: Call) -> tuple[Call, ...]:
    """Return the two halves of a batch's call; nothing, for a batch of one file."""
    batch: Batch = call.about
    assert batch.files, "a batch has files"
    if len(batch.files) == 1:
        return ()
    middle = (len(batch.files) + 1) // 2
    halves = []
    for number, files in enumerate((batch.files[:middle], batch.files[middle:])):
        share_s = batch.predicted_s * len(files) / len(batch.files)
        half = msgspec.structs.replace(batch, name=f"{batch.name}.{number}", files=files, predicted_s=share_s)
        halves.append(msgspec.structs.replace(call, name=half.name, args=(half, *call.args[1:]), about=half, avoid=""))
    return tuple(halves)


def _settled(result: CallResult) -> BatchResult | DetectorPoolError:
    """Return what a batch's call came to; raises what is no error of this project."""
    match result.error:
        case None:
            assert isinstance(result.value, BatchResult), "a batch's call makes a batch's result"
            return result.value
        case WorkerLost():
            return _at_fault(result.call.about)
        case DetectorPoolError() as problem:
            return problem
        case problem:
            raise problem


def _at_fault(batch: Batch) -> BatchResult:
    detail = f"every worker that analysed it died ({ATTEMPTS_ALONE} attempts alone)"
    outcomes = tuple(NotAnalysed(batch.files[0].path, name, "crashed", detail) for name in batch.detectors)
    return BatchResult(outcomes, "", time.time(), 0.0)
