"""How long one execution takes from the call to its result, in a pool that has nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Iterator

from detectors.benchmark_record import Figure, compared, measured
from detectors.benchmark_work import Work, findings_in, nothing
from detectors.dimension import Dimension, checked, timed
from detectors.enterprise_detector_pool import EnterpriseDetectorPool, Isolation
from detectors.measurement import compare, quantile_interval, steady_from

__all__ = ["Latency"]

EXECUTIONS = {"thread": 2_000, "process": 500}
PILOT = 100
QUANTILES = (("median", 0.5), ("p99", 0.99))


class Latency(Dimension):
    """Executions that do nothing, one after another, and the rules on one real file through the pool and without it."""

    name = "latency"
    share = 1.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield quantiles by isolation, and the pool over the bare call."""
        with EnterpriseDetectorPool(max_workers=work.workers) as pool:
            for isolation in EXECUTIONS:
                yield from self._quantiles(pool, "thread" if isolation == "thread" else "process")
            assert not pool.closed, "it is measured while it is open"
            yield self._rules(pool, work)

    def _quantiles(self, pool: EnterpriseDetectorPool, isolation: Isolation) -> Iterator[Figure]:
        assert isolation in EXECUTIONS, "it is known how many of these are enough"
        pool.register_detector(f"nothing-{isolation}", nothing, isolation=isolation)
        seen: list[float] = []
        for number in range(PILOT + EXECUTIONS[isolation]):
            began = time.perf_counter()
            result = pool.execute_detector(f"nothing-{isolation}", number)
            seen.append((time.perf_counter() - began) * 1e6)
            assert result.value == number, "it answers what it was asked"
        start = steady_from(seen[:PILOT])
        values = seen[PILOT if start is None else start :]
        assert min(values) > 0, "an execution takes time"
        assert len(values) >= EXECUTIONS[isolation], "the pilot is no part of the figure beyond its steady end"
        for word, quantile in QUANTILES:
            yield measured(
                f"latency-{isolation}-{word}", self.name, f"one no-op execution, isolation {isolation}, {word}", values,
                unit="us", better="lower", interval=quantile_interval(values, quantile),
            )  # fmt: skip

    def _rules(self, pool: EnterpriseDetectorPool, work: Work) -> Figure:
        pool.register_detector("rules", findings_in)
        calls = work.calls("rules", 10)
        assert calls, "there are files"
        assert work.budget_s > 0, "and time"

        def direct() -> float:
            assert calls[0][0] == "rules", "both sides do the same"
            return timed(lambda: [findings_in(*args) for _, args, _ in calls])

        def pooled() -> float:
            assert not pool.closed, "it is measured while it is open"
            return timed(lambda: [checked([pool.execute_detector(name, *args)]) for name, args, _ in calls])

        assert len({str(args) for _, args, _ in calls}) == len(calls), "each file once"
        found = compare(pooled, direct, half_width=0.01, budget_s=work.budget_s / 2)
        return compared(
            "latency-rules", self.name, f"rules on {len(calls)} files one by one: pool over the bare call", found
        )  # fmt: skip
