"""
Threads that share detectors' work so that none of it can take all of them: compartments, chunks, stealing.

Each detector has a compartment, a class of `fair_queue` with its priority as weight: a detector of priority 10 gets ten
times the seconds of one of priority 1, and none waits longer than that module proves. A chunk is as long as the
detector's executions are short, so that hand-over costs little, and a thread that finds nothing takes half of what
another has before it. When every thread is busy, one more serves detectors of which nothing runs: a slow detector holds
up itself, not the others.

A detector in processes of its own is not begun on one more of them than are warm for work that would be over before
another one had started.

Sources: Blumofe and Leiserson, "Scheduling Multithreaded Computations by Work Stealing", Journal of the ACM 46(5),
1999; bulkhead: Nygard, "Release It!", 2007.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from detectors.errors import DetectorPoolError
from detectors.fair_queue import FairQueue

__all__ = ["Bulkheads", "Chunk", "Compartment", "Job", "ReadyQueue"]

START_S = 0.2
"""What one more process costs: a start took 0.14 to 0.23 s where it was measured."""
STEAL_LOOK_S = 0.02
"""How often a thread without work looks at what others have before them."""
SMOOTHING = 0.3


class Job:
    """
    One call of the pool: units by number, their results by place.

    Args:
        units: Number of executions.
        limit: At most so many chunks at once; `None` for no limit of its own.
        context: What the one who runs the chunks wants to know.
        chunk_s: How long its chunks should run where that is longer than the queue's own length.
    """

    __slots__ = ("chunk_s", "context", "done", "left", "limit", "results", "running")

    def __init__(self, units: int, limit: int | None, context: Any, chunk_s: float = 0.0) -> None:
        self.results: list[Any] = [None] * units
        self.left, self.limit, self.context, self.chunk_s = units, limit, context, chunk_s
        self.running = 0
        self.done: Future[list[Any]] = Future()
        # Begun, so that nobody who waits for it can cancel it: threads will set its result.
        self.done.set_running_or_notify_cancel()


class Compartment:
    """One detector's waiting work, and what is known of its length."""

    __slots__ = ("held", "limit", "mean_s", "name", "running", "waiting")

    def __init__(self, name: str, limit: int | None) -> None:
        self.name, self.limit = name, limit
        self.running = 0
        self.held = False
        """Whether its work waited when last looked at, and could not go."""
        self.mean_s: float | None = None
        self.waiting: collections.deque[tuple[int, Job, collections.deque[int]]] = collections.deque()


class Chunk:
    """Units of one job and detector that a thread works through; others may take from the end of `units`."""

    __slots__ = ("assigned", "compartment", "inside_s", "job", "nested", "size", "stealable", "units")

    def __init__(
        self, job: Job, compartment: Compartment, units: Iterable[int], stealable: bool, nested: bool = False
    ) -> None:
        self.job, self.compartment, self.stealable, self.nested = job, compartment, stealable, nested
        self.assigned = tuple(units)
        self.units = collections.deque(self.assigned)
        self.size = len(self.assigned)
        self.inside_s: float | None = None
        """Set where the way there and back is long, so that it does not count as the detector's length."""


class ReadyQueue:
    """
    Which chunk is next: pure, without threads and without a clock.

    Args:
        chunk_s: How long a chunk should run.
        chunk_units: Units in a chunk, at most.
        least_s: Shorter chunks are not cut while there is more to do: handing them over costs more than balance wins.
        warm: How many chunks of a detector can run without a start of `START_S`; `None` where it makes no difference.
    """

    def __init__(
        self,
        chunk_s: float,
        chunk_units: int,
        least_s: float = 0.0,
        warm: Callable[[str], int | None] | None = None,
    ) -> None:
        self._chunk_s, self._chunk_units, self._least_s, self._warm = chunk_s, chunk_units, least_s, warm
        self.compartments: dict[str, Compartment] = {}
        self.active: dict[Chunk, None] = {}
        self.shares: FairQueue[str] = FairQueue()
        self._added = 0
        self.waiting_units = 0

    def compartment(self, name: str, priority: int, limit: int | None) -> Compartment:
        """Return a detector's compartment, made or changed to these numbers."""
        found = self.compartments.get(name)
        if found is None:
            found = self.compartments[name] = Compartment(name, limit)
        found.limit = limit
        self.shares.weigh(name, max(priority, 1))
        return found

    def add(self, job: Job, compartment: Compartment, units: Iterable[int]) -> None:
        """Append units of a job."""
        waiting = collections.deque(units)
        self.waiting_units += len(waiting)
        if not compartment.waiting:
            self.shares.arrive(compartment.name)
        self._added += 1
        compartment.waiting.append((self._added, job, waiting))

    def take(self, threads: int, stealable: Callable[[str], bool], idle_only: bool = False) -> Chunk | None:
        """
        Return the next chunk, or `None`.

        Args:
            threads: Among which the waiting units are to be shared.
            stealable: Whether chunks of a detector may be divided once they run.
            idle_only: Only of a detector of which nothing runs.
        """
        best: tuple[tuple[float, int], Compartment, int] | None = None
        for compartment in self.compartments.values():
            if not compartment.waiting or (idle_only and compartment.running):
                continue
            place = _first_open(compartment) if self._may_begin(compartment, _units(compartment)) else None
            if place is None:
                compartment.held = True
                continue
            if compartment.held:
                compartment.held = False
                self.shares.arrive(compartment.name)
            # Equally far behind: in the order in which they were asked for.
            rank = (self.shares.tag(compartment.name), compartment.waiting[place][0])
            if best is None or rank < best[0]:
                best = rank, compartment, place
        if best is None:
            return None
        chunk = self._cut(best[1], best[2], threads, stealable(best[1].name))
        length_s = chunk.size * best[1].mean_s if best[1].mean_s else self._length_s(chunk.job)
        self.shares.hand_out(best[1].name, length_s, in_turn=not idle_only)
        return chunk

    def steal(self) -> Chunk | None:
        """Return half of the longest running chunk's remainder, or `None` where nothing is worth it."""
        victim = max((chunk for chunk in self.active if chunk.stealable), key=lambda c: len(c.units), default=None)
        if victim is None or not victim.units or not _open(victim.job):
            return None
        if not self._may_begin(victim.compartment, len(victim.units)):
            return None
        stolen: collections.deque[int] = collections.deque()
        for _ in range((len(victim.units) + 1) // 2):
            try:
                stolen.appendleft(victim.units.pop())
            except IndexError:  # its owner was quicker
                break
        if not stolen:
            return None
        victim.size -= len(stolen)
        return self._begun(Chunk(victim.job, victim.compartment, stolen, True))

    def withdraw(self, job: Job) -> list[int]:
        """Remove what has not begun of a job; return its units."""
        left: list[int] = []
        for compartment in self.compartments.values():
            left += [unit for _, owner, units in compartment.waiting if owner is job for unit in units]
            kept = [entry for entry in compartment.waiting if entry[1] is not job]
            compartment.waiting = collections.deque(kept)
        self.waiting_units -= len(left)
        job.left -= len(left)
        return left

    def finished(self, chunk: Chunk, seconds: float) -> bool:
        """Account for a chunk; return whether its job is complete."""
        self.active.pop(chunk, None)
        chunk.job.running -= 1
        chunk.compartment.running -= 1
        chunk.job.left -= chunk.size
        if chunk.size:
            mean_s = (seconds if chunk.inside_s is None else chunk.inside_s) / chunk.size
            old = chunk.compartment.mean_s
            chunk.compartment.mean_s = mean_s if old is None else old + SMOOTHING * (mean_s - old)
        # A chunk of which others took all ends, too, perhaps after the job is complete.
        return chunk.size > 0 and chunk.job.left == 0

    def _cut(self, compartment: Compartment, place: int, threads: int, stealable: bool) -> Chunk:
        _, job, waiting = compartment.waiting[place]
        mean_s = compartment.mean_s
        shared = -(-len(waiting) // (2 * threads))
        size = 1
        if mean_s is not None:
            shared = max(shared, int(self._least_s / max(mean_s, 1e-9)))
            size = int(self._length_s(job) / max(mean_s, 1e-9))
        size = max(1, min(size, self._chunk_units, shared, len(waiting)))
        units = [waiting.popleft() for _ in range(size)]
        if not waiting:
            del compartment.waiting[place]
        self.waiting_units -= size
        return self._begun(Chunk(job, compartment, units, stealable))

    def _length_s(self, job: Job) -> float:
        return max(self._chunk_s, job.chunk_s)

    def _may_begin(self, compartment: Compartment, units: int) -> bool:
        """Tell whether one more chunk of a detector may run, of `units` that are left to share."""
        if compartment.limit is not None and compartment.running >= compartment.limit:
            return False
        warm = self._warm(compartment.name) if self._warm is not None and compartment.running else None
        if warm is None or compartment.mean_s is None or compartment.running < warm:
            return True
        # Those that run need so long for what is left; with one more they would need START_S and their share.
        running = compartment.running
        return units * compartment.mean_s / (running * (running + 1)) > START_S

    def _begun(self, chunk: Chunk) -> Chunk:
        chunk.job.running += 1
        chunk.compartment.running += 1
        self.active[chunk] = None
        return chunk


@dataclasses.dataclass(eq=False)
class Bulkheads:
    """The threads around a `ReadyQueue`; they start with the first job and end with `close`."""

    threads: int
    """That share all work; one more is started for detectors of which nothing runs, when there are several."""
    run: Callable[[Chunk], None]
    """Works through a chunk and writes `job.results`; errors that it raises become the chunk's results."""
    failed: Callable[[Job, int, BaseException], Any]
    """Makes a result of (job, unit, error)."""
    stealable: Callable[[str], bool]
    """Whether a detector's chunks may be divided once they run."""
    name: str
    """Of the threads."""
    lock: threading.Lock
    """Shared with others through which the same jobs go."""
    _: dataclasses.KW_ONLY
    chunk_s: dataclasses.InitVar[float] = 0.05
    """How long a chunk should run."""
    chunk_units: dataclasses.InitVar[int] = 1024
    """Units in a chunk, at most."""
    least_s: dataclasses.InitVar[float] = 0.001
    """See `ReadyQueue`."""
    ahead: int = 1
    """Threads for each place where work is done: those beyond the first keep its next chunks ready."""
    warm: dataclasses.InitVar[Callable[[str], int | None] | None] = None
    """See `ReadyQueue`; called under the lock."""

    def __post_init__(
        self, chunk_s: float, chunk_units: int, least_s: float, warm: Callable[[str], int | None] | None
    ) -> None:
        self.active_threads = self.threads
        self.queue = ReadyQueue(chunk_s, chunk_units, least_s, warm)
        # Three, so that a word for a thread that can work never wakes one that cannot.
        self._work, self._all_busy = threading.Condition(self.lock), threading.Condition(self.lock)
        self._parked = threading.Condition(self.lock)
        self._members: list[threading.Thread] = []
        self._inside = threading.local()
        self._busy = 0
        self._closed = False
        self.busy_s = 0.0
        """Seconds that threads spent on chunks, hand-over included."""
        self.chunks = 0

    def begin(self, job: Job, shares: Sequence[tuple[str, int, int | None, Sequence[int]]]) -> None:
        """
        Begin a job; inside of a thread of ours it is worked through at once, since waiting could be for ever.

        Args:
            job: Whose `done` is set when all of its units have results.
            shares: (detector, priority, most chunks at once, units) each, in the order wanted.

        Raises:
            DetectorPoolError: Closed.
        """
        if getattr(self._inside, "yes", False):
            self._work_through(job, shares)
            return
        with self.lock:
            if self._closed:
                raise DetectorPoolError("the pool is closed; use it inside its `with` block")
            added = 0
            for name, priority, limit, units in shares:
                self.queue.add(job, self.queue.compartment(name, priority, limit), units)
                added += len(units)
            self._start()
            self._work.notify(min(added, self.threads))
            if self._busy >= self.active_threads:
                self._all_busy.notify()

    def resize(self, threads: int) -> None:
        """Let so many threads work at once, 1 to as many as there are; the others wait."""
        with self.lock:
            self.active_threads = min(max(threads, 1), self.threads)
            self._wake()

    def withdraw(self, job: Job) -> None:
        """Let nothing of a job begin that has not; nobody waits for its results."""
        with self.lock:
            self.queue.withdraw(job)

    def close(self) -> None:
        """Let nothing further begin; jobs that are not complete get errors for what has not begun."""
        complete: list[Job] = []
        error = DetectorPoolError("the pool was closed before this execution began")
        with self.lock:
            self._closed = True
            self._wake()
            for compartment in self.queue.compartments.values():
                for _, job, units in compartment.waiting:
                    for unit in units:
                        job.results[unit] = self.failed(job, unit, error)
                    job.left -= len(units)
                    complete += [job] if job.left == 0 else []
                compartment.waiting.clear()
            self.queue.waiting_units = 0
        for job in complete:
            job.done.set_result(job.results)

    def join(self, limit_s: float) -> bool:
        """Wait for what runs, so many seconds in all; return whether everything ended."""
        deadline = time.monotonic() + limit_s
        for member in self._members:
            member.join(max(0.0, deadline - time.monotonic()))
        return not any(member.is_alive() for member in self._members)

    @property
    def closed(self) -> bool:
        """Whether nothing further may begin."""
        return self._closed

    @property
    def busy(self) -> int:
        """Threads that work, without the spare one."""
        return self._busy

    def _wake(self) -> None:
        for condition in (self._work, self._all_busy, self._parked):
            condition.notify_all()

    def _start(self) -> None:
        if self._members:
            return
        for number in range(self.threads + (self.threads > 1)):
            spare = number >= self.threads
            name = f"{self.name}-{'spare' if spare else number}"
            self._members.append(threading.Thread(target=self._serve, args=(number, spare), name=name, daemon=True))
        for member in self._members:
            member.start()

    def _serve(self, number: int, spare: bool) -> None:
        """Be one thread: take chunks and run them until the pool closes."""
        self._inside.yes = True
        chunk: Chunk | None = None
        complete: Job | None = None
        started = time.perf_counter()
        while not self._closed or chunk is not None:
            with self.lock:
                if chunk is not None:
                    complete = self._account(chunk, time.perf_counter() - started, spare)
                chunk = self._wait(number, spare) if complete is None else None
                started = time.perf_counter()
                self._busy += chunk is not None and not spare
            if complete is not None:
                complete.done.set_result(complete.results)
                complete = None
            elif chunk is not None:
                self._guarded(chunk)

    def _account(self, chunk: Chunk, seconds: float, spare: bool) -> Job | None:
        self.busy_s += seconds
        self.chunks += 1
        self._busy -= not spare
        return chunk.job if self.queue.finished(chunk, seconds) else None

    def _wait(self, number: int, spare: bool) -> Chunk | None:
        """Return a chunk, waiting for one; `None` when the pool is closed."""
        while not self._closed:
            chunk = None
            wake, limit_s = self._work, None
            if spare:
                wake = self._all_busy
                if self._busy >= self.active_threads:
                    chunk = self.queue.take(self.threads // self.ahead, self.stealable, idle_only=True)
            elif number >= self.active_threads:
                wake = self._parked
            else:
                sharers = max(self.active_threads // self.ahead, 1)
                chunk = self.queue.take(sharers, self.stealable) or self.queue.steal()
                limit_s = STEAL_LOOK_S if self.queue.active else None
            if chunk is not None:
                self._hand_on(spare)
                return chunk
            wake.wait(limit_s)
        return None

    def _hand_on(self, spare: bool) -> None:
        """More may be waiting than were woken."""
        if self.queue.waiting_units:
            self._work.notify()
            if not spare and self._busy + 1 >= self.active_threads:
                self._all_busy.notify()

    def _guarded(self, chunk: Chunk) -> None:
        try:
            self.run(chunk)
        except BaseException as problem:  # a thread that ended would leave its job waiting for ever
            job = chunk.job
            for unit in chunk.assigned:
                if job.results[unit] is None:
                    job.results[unit] = self.failed(job, unit, problem)

    def _work_through(self, job: Job, shares: Sequence[tuple[str, int, int | None, Sequence[int]]]) -> None:
        for name, priority, limit, units in shares:
            with self.lock:
                compartment = self.queue.compartment(name, priority, limit)
            self._guarded(Chunk(job, compartment, units, stealable=False, nested=True))
            with self.lock:
                job.left -= len(units)
                complete = job.left == 0
            if complete:
                job.done.set_result(job.results)


def _open(job: Job) -> bool:
    return job.limit is None or job.running < job.limit


def _first_open(compartment: Compartment) -> int | None:
    return next((place for place, (_, job, _units) in enumerate(compartment.waiting) if _open(job)), None)


def _units(compartment: Compartment) -> int:
    return sum(len(units) for _, _, units in compartment.waiting)
