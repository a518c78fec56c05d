"""Whether a detector is served as often as its priority says, and none starves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

from detectors.benchmark_record import Figure, measured
from detectors.benchmark_work import Work, findings_in
from detectors.dimension import Dimension, checked
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool
from detectors.model import Language

__all__ = ["Fairness"]

PRIORITIES = {"urgent": 4, "patient": 1}
FILES = 12
UNITS = 120
"""Of each detector."""
LEAST_RUNS, MOST_RUNS = 3, 20


class Fairness(Dimension):
    """Two detectors with equal real work in threads, priorities 4 and 1, as long as both have something waiting."""

    name = "fairness"
    share = 1.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the share that the urgent one got over the share that is its due, and the other's longest wait."""
        began = time.perf_counter()
        runs = [_served(work) for _ in range(LEAST_RUNS)]
        run_s = (time.perf_counter() - began) / LEAST_RUNS
        runs += [_served(work) for _ in range(min(MOST_RUNS, int(work.budget_s / run_s) - LEAST_RUNS))]
        assert len(runs) >= LEAST_RUNS, "a single order says little"
        due = PRIORITIES["urgent"] / sum(PRIORITIES.values())
        shares: list[float] = []
        waits: list[float] = []
        for order in runs:
            # Once one is through, the other has everything.
            last = {name: len(order) - 1 - order[::-1].index(name) for name in PRIORITIES}
            both = order[: min(last.values()) + 1]
            shares.append(both.count("urgent") / len(both) / due)
            places = [-1, *(place for place, name in enumerate(both) if name == "patient"), len(both)]
            waits.append(float(max(later - sooner - 1 for sooner, later in itertools.pairwise(places))))
        assert len(shares) == len(waits) == len(runs), "one of each a run"
        yield measured(
            "fair-share", self.name, "share of executions of a detector of priority 4 beside one of 1, over its due",
            shares, unit="ratio",
        )  # fmt: skip
        yield measured(
            "longest-wait", self.name, "executions of the other between two of priority 1, at most", waits,
            unit="executions", better="lower",
        )  # fmt: skip


def _served(work: Work) -> list[str]:
    """Return whose executions were begun, in order."""
    order: list[str] = []
    lock = threading.Lock()

    def logged(name: str, path: str, language: Language) -> int:
        assert name in PRIORITIES, "there are no others"
        with lock:
            order.append(name)
        return findings_in(path, language)

    calls = work.calls("rules", FILES)
    assert calls, "there is work"
    with EnterpriseDetectorPool(max_workers=work.workers) as pool:
        for name, priority in PRIORITIES.items():
            pool.register_detector(name, logged, priority=priority)
        configs: list[DetectorConfig] = [
            (name, (name, *calls[number % len(calls)][1]), {}) for number in range(UNITS) for name in PRIORITIES
        ]
        results = checked(pool.execute_parallel(configs))
    assert set(order) == set(PRIORITIES), "none starved"
    assert len(results) == len(order) == UNITS * len(PRIORITIES), "each ran once"
    return order
