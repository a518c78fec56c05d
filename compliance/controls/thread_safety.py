"""Threads that race for one pool get their own answers, none is lost or counted twice, and equal work runs once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from compliance.control import Control, Observation, Trial
from detectors.enterprise_detector_pool import EnterpriseDetectorPool

__all__ = ["ThreadSafety"]

THREADS, ROUNDS, CALLS = 8, 12, 25
DISTINCT = 400
SHARED_KEYS, SHARED_S = 6, 0.03


def _scrambled(number: int) -> int:
    return (number * 7919 + 13) % 104_729


class _Counted:
    """Takes a moment, and counts how often it ran for each argument."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.runs: Counter[int] = Counter()

    def __call__(self, key: int) -> int:
        assert key >= 0, "keys are made here"
        with self._lock:
            self.runs[key] += 1
        time.sleep(SHARED_S)
        return key


class ThreadSafety(Control):
    """Races threads for cached, uncached and equal work."""

    id = "thread-safety"
    title = "Thread safety and concurrency"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Compare every answer with what its argument gives, and the totals with what was asked."""
        asked = THREADS * ROUNDS * CALLS
        with trial.pool() as pool:
            pool.register_detector("trial-plain", _scrambled)
            pool.register_detector("trial-cached", _scrambled, cacheable=True)
            for name in ("trial-plain", "trial-cached"):
                wrong, problems = _raced(pool, name)
                totals = pool.get_pool_metrics()["detectors"][name]
                counted = totals["executed"] + totals["from_cache"]
                yield Observation(
                    wrong == problems == 0 and counted == asked,
                    f"{name.removeprefix('trial-')}: {THREADS} threads asked {asked} times, {wrong} answers were wrong "
                    f"and {problems} threads failed, {counted} were counted",
                )
            yield self._shared(pool)

    def _shared(self, pool: EnterpriseDetectorPool) -> Observation:
        """Let all threads ask for the same at once; each key must run once."""
        counted = _Counted()
        pool.register_detector("trial-shared", counted, cacheable=True)
        answers: Counter[bool] = Counter()
        lock = threading.Lock()

        def ask(_thread: int) -> None:
            for key in range(SHARED_KEYS):
                right = pool.execute_detector("trial-shared", key).value == key
                with lock:
                    answers[right] += 1

        problems = _at_once(ask)
        runs = counted.runs.total()
        assert runs >= 0, "a count"
        return Observation(
            problems == 0 and runs == SHARED_KEYS and answers[True] == THREADS * SHARED_KEYS,
            f"equal work asked {THREADS * SHARED_KEYS} times at once ran {runs} times for {SHARED_KEYS} keys, "
            f"{answers[False]} answers were wrong",
        )


def _raced(pool: EnterpriseDetectorPool, name: str) -> tuple[int, int]:
    """Return (wrong answers, threads that failed)."""
    wrong: Counter[int] = Counter()

    def ask(thread: int) -> None:
        for turn in range(ROUNDS):
            numbers = [(thread * 31 + turn * CALLS + call) % DISTINCT for call in range(CALLS)]
            results = pool.execute_parallel([(name, (number,), {}) for number in numbers])
            wrong[thread] += sum(
                result.value != _scrambled(number) for number, result in zip(numbers, results, strict=True)
            )

    problems = _at_once(ask)
    assert all(0 <= thread < THREADS for thread in wrong), "each thread counts for itself"
    return wrong.total(), problems


def _at_once(work: Callable[[int], None]) -> int:
    """Run `work` in all threads from one moment on; return how many raised."""
    start = threading.Barrier(THREADS)
    failed: list[int] = []

    def run(thread: int) -> None:
        _ = start.wait()
        try:
            work(thread)
        except Exception:  # whatever a race breaks is what is looked for
            failed.append(thread)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) <= THREADS, "a thread fails once"
    return len(failed)
