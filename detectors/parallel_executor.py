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
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from detectors import sandbox
from detectors.batch import BatchResult, analyse, blobs_of
from detectors.bulkheads import Bulkheads, Chunk, Job
from detectors.deadline import DeadlineGate
from detectors.errors import ClusterLost, DetectorPoolError, SourceChanged
from detectors.model import NotAnalysed, SourceFile
from detectors.snapshot import read_verified
from detectors.workload_optimizer import Batch

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Call", "CallResult", "DaskBackend", "InProcess", "NotAdmitted", "ParallelExecutor", "WorkerLost"]

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


class NotAdmitted(DetectorPoolError):
    """The call did not begin: it is not expected to end in time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} would not have ended in time"


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


class CallGate:
    """
    A deadline's gate, in front of calls that analyse a batch.

    Args:
        gate: Of which the clock is `time.monotonic`.
    """

    def __init__(self, gate: DeadlineGate) -> None:
        self._gate = gate

    def admitted(self, call: Call) -> Call | None:
        """Return what begins now in a call's place; None for nothing."""
        assert isinstance(call.about, Batch), "what has no prediction has no deadline"
        batch = self._gate.admit(call.about, time.monotonic())
        return None if batch is None else msgspec.structs.replace(call, args=(batch, *call.args[1:]), about=batch)

    def left(self, call: Call) -> None:
        """Tell that a call ended."""
        assert call.name, "each call has a name"
        self._gate.left(call.name)

    def left_s(self) -> float:
        """Return the seconds to the end, not below 0."""
        return max(self._gate.ends_s - time.monotonic(), 0.0)


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
        self._patience_s = CLOSE_S
        self._threads = Bulkheads(
            self.workers, _work_through, _stopped, lambda _: False, "detector", threading.Lock(), chunk_units=1
        )

    def run(self, calls: Iterable[Call], stop: threading.Event, gate: CallGate | None = None) -> Iterator[CallResult]:
        """Yield results as they finish; calls begin in their order. At a gate's end what runs is ended, unanswered."""
        asked = _Asked(tuple(calls), stop, gate)
        if not asked.calls:
            return
        job = Job(len(asked.calls), None, asked)
        # One compartment: what is longest goes first, whichever detector's it is.
        self._threads.begin(job, [(self.name, 1, None, range(len(asked.calls)))])
        left = len(asked.calls)
        try:
            for _ in range(len(asked.calls)):
                result = asked.results.get(timeout=None if gate is None else gate.left_s())
                left -= 1
                yield result
        except queue.Empty:
            left, self._patience_s = 0, 0.0  # a call in a thread cannot be ended, and nobody waits for it
            stop.set()
            sandbox.end_all()
            self._threads.close()
        finally:
            if left:
                # Left early: the threads are waiting for tools, and we would wait for the threads.
                stop.set()
                sandbox.end_all()
                self.close()

    def close(self) -> None:
        """Let nothing further begin, and wait for what runs (at most 10 s; not at all where time was up)."""
        self._threads.close()
        self._threads.join(self._patience_s)


class _Asked:
    """The calls of one job, and where their results go as they come."""

    def __init__(self, calls: tuple[Call, ...], stop: threading.Event, gate: CallGate | None) -> None:
        self.calls, self.stop, self.gate = calls, stop, gate
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

    def run(self, calls: Iterable[Call], stop: threading.Event, gate: CallGate | None = None) -> Iterator[CallResult]:
        """Yield results as they finish; on an early end, or at a gate's, the scheduler forgets what has not begun."""
        from distributed.client import ClosedClientError, FutureCancelledError
        from distributed.comm.core import CommClosedError

        try:
            yield from self._finished(calls, stop, gate)
        except (ClosedClientError, FutureCancelledError, CommClosedError) as problem:
            raise ClusterLost(f"the Dask scheduler was lost: {problem}") from problem

    def _finished(self, calls: Iterable[Call], stop: threading.Event, gate: CallGate | None) -> Iterator[CallResult]:
        from distributed import as_completed as dask_as_completed

        waiting = collections.deque(calls)
        flight = _Flight(self, gate)
        # What waits on a worker cannot be asked whether it may still begin.
        refused = flight.fill(waiting, self.workers if gate is not None else self._at_once(waiting))
        # Without results: their gathering fails in Dask's own thread when the scheduler dies at that moment, and then
        # whoever waits for the next one waits for ever.
        completed = dask_as_completed(  # type: ignore[no-untyped-call]
            flight.futures, loop=self._client.loop, timeout=None if gate is None else gate.left_s()
        )
        try:
            yield from refused
            for future in completed:
                result = flight.landed(future)
                if stop.is_set():
                    raise KeyboardInterrupt
                yield result
                known = len(flight.futures)
                yield from flight.fill(waiting, 1)
                for begun in flight.futures[known:]:
                    completed.add(begun)  # type: ignore[no-untyped-call]  # of Dask's
        except TimeoutError:
            stop.set()
        finally:
            left = [future for future in flight.futures if future.status == "pending"]
            if left:
                self._client.cancel(left, force=True)  # type: ignore[no-untyped-call]

    def submit(self, call: Call, number: int) -> Any:
        """Hand the call of this number to the scheduler, and return its future."""
        # The same batch may be asked for again after a lost worker; Dask must not answer with the old future.
        key = f"{call.name}-{time.monotonic_ns():x}{number:x}"
        elsewhere = self._others(call.avoid)
        more = call.load(call.about) if call.load is not None else {}
        return self._client.submit(
            _timed_value, call.function, call.args, {**call.kwargs, **more}, key=key, pure=False,
            priority=call.priority, workers=elsewhere, allow_other_workers=elsewhere is not None,
        )  # fmt: skip

    def shares_files(self, roots: tuple[str, ...], files: Sequence[SourceFile]) -> bool:
        """Tell whether every worker that there is now reads these files as this machine does."""
        assert files, "somebody asks about something"
        answers: Mapping[str, bool] = self._client.run(_reads, roots, tuple(files))
        return bool(answers) and all(answers.values())

    def _at_once(self, waiting: Collection[Call]) -> int:
        """Return how many calls are handed over before the first has ended: few, where each brings its sources."""
        if any(call.load is not None for call in waiting):
            return LOADED_A_WORKER * max(self.workers, 1)
        return len(waiting)

    def _others(self, avoid: str) -> list[str] | None:
        """Return all workers but one; `None`, for any, where there is no other."""
        if not avoid:
            return None
        known: Mapping[str, object] = self._client.scheduler_info(n_workers=-1)["workers"]
        return [address for address in known if address != avoid] or None


class _Flight:
    """The calls that a Dask cluster has been given."""

    def __init__(self, backend: DaskBackend, gate: CallGate | None) -> None:
        self._backend, self._gate = backend, gate
        self._calls: dict[str, tuple[Call, float]] = {}
        self.futures: list[Any] = []

    def fill(self, waiting: collections.deque[Call], most: int) -> list[CallResult]:
        """Submit some of the calls that wait; return the results of those that may not begin any more."""
        refused: list[CallResult] = []
        for _ in range(len(waiting)):
            if most <= 0:
                break
            asked = waiting.popleft()
            call = asked if self._gate is None else self._gate.admitted(asked)
            if call is None:
                refused.append(CallResult(asked, None, NotAdmitted(asked.name), 0.0))
                continue
            future = self._backend.submit(call, len(self.futures))
            self._calls[future.key] = call, time.monotonic()
            self.futures.append(future)
            most -= 1
        return refused

    def landed(self, future: Any) -> CallResult:
        """Return what a call came to; raises TimeoutError where a gate's end comes before the result."""
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        call, submitted = self._calls.pop(future.key)
        match future.status:
            case "finished":
                value = future.result(None if self._gate is None else self._gate.left_s())
                return CallResult(call, value[0], None, value[1], value[2])
            case "error":
                problem = future.exception()
                if isinstance(problem, (NoWorkerError, NoValidWorkerError)):
                    raise ClusterLost(f"no worker of {self._backend.name} is left: {problem}") from problem
                lost = isinstance(problem, KilledWorker)
                return CallResult(call, None, WorkerLost(call.name) if lost else problem, time.monotonic() - submitted)
            case status:
                return CallResult(call, None, ClusterLost(f"{call.name} was {status}: the scheduler lost it"), 0.0)


Backend = InProcess | DaskBackend
Divide = Callable[[Call], Sequence[Call]]
"""A call whose workers died to what is run in its place; to nothing, where it cannot be divided further."""


class ParallelExecutor:
    """
    Runs calls, and batches of a scan, on one backend. Usable from several threads at once.

    Args:
        backend: Where the work is done.
        gate: Of a run of batches that must end in time.
    """

    def __init__(self, backend: Backend, gate: DeadlineGate | None = None) -> None:
        self.backend = backend
        self._gate = None if gate is None else CallGate(gate)
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
        """
        Yield one result for each call, as they finish; an error of one hides no other.

        With a gate, what may not begin has the error `NotAdmitted`, and what still runs at the end has no result.
        """
        if self._gate is None:
            yield from self.backend.run(calls, self._stop)
            return
        if self._stop.is_set():
            return
        for result in self.backend.run(calls, self._stop, self._gate):
            if not isinstance(result.error, NotAdmitted):
                self._gate.left(result.call)
            yield result

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
            if self._gate is None or self._gate.left_s():
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
            A batch and its result; or and the error that makes the whole run worthless (`DetectorBroken`). Nothing of
            a batch that a gate did not let begin or end.

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
        distrusted: dict[str, BatchResult] = {}
        for result in self.run_divided(calls, _halved):
            batch: Batch = result.call.about
            if isinstance(result.value, BatchResult) and result.value.distrusted:
                again.append(msgspec.structs.replace(result.call, avoid=result.worker))
                distrusted[batch.name] = result.value
            elif not isinstance(result.error, NotAdmitted):
                yield batch, _settled(result)
        seen: list[str] = []
        for result in self.run_divided(again, _halved) if again else ():
            if isinstance(result.error, NotAdmitted):
                continue
            value = _settled(result)
            seen.append(result.call.about.name)
            # The first attempt's canaries count, too; not those of a batch that was divided since.
            before = distrusted.pop(result.call.about.name, None)
            if isinstance(value, BatchResult) and before is not None:
                value = msgspec.structs.replace(value, canaries=(*before.canaries, *value.canaries))
            yield result.call.about, value
        if self._gate is not None:
            # There was no time for a second attempt: the first one's answers say themselves that they do not count.
            for call in again:
                if not any(name == call.name or name.startswith(f"{call.name}.") for name in seen):
                    yield call.about, distrusted[call.name]

    def _alone(self, call: Call) -> CallResult:
        """Run one call with nothing beside it, a few times while its workers die."""
        result = CallResult(call, None, WorkerLost(call.name), 0.0)
        for _ in range(ATTEMPTS_ALONE):
            result = next(self.run([call]), CallResult(call, None, NotAdmitted(call.name), 0.0))
            if not isinstance(result.error, WorkerLost):
                break
        assert result.call.name == call.name, "one call, one result"
        return result


def _work_through(chunk: Chunk) -> None:
    """Run the calls of a chunk in this thread."""
    asked: _Asked = chunk.job.context
    assert isinstance(asked, _Asked), "jobs of these threads are made in one place"
    for number in chunk.units:
        asked.results.put(_timed(asked.calls[number], asked.stop, asked.gate))
        chunk.job.results[number] = True


def _timed(call: Call, stop: threading.Event, gate: CallGate | None) -> CallResult:
    if stop.is_set():
        return CallResult(call, None, DetectorPoolError("the run was stopped"), 0.0)
    begun = call if gate is None else gate.admitted(call)
    if begun is None:
        return CallResult(call, None, NotAdmitted(call.name), 0.0)
    call, clock = begun, time.perf_counter()
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
