"""What the pool says of itself is what happened, and a threshold that is crossed is told once, and told to be over."""

from __future__ import annotations

import time
from collections.abc import Iterator

from compliance.control import Control, Observation, Trial
from detectors.alerts import CallbackSink
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.execution import DetectorConfig
from detectors.health import HealthMonitor
from detectors.ports import Alert

__all__ = ["PerformanceMonitoring"]

NAP_S = 0.004
GOOD, BAD, REPEATED = 30, 10, 15
CURE = 120
"""Good executions after which the share of failures is low again."""


def _naps(number: int) -> int:
    assert -BAD <= number < CURE, "the trial asks for no other"
    time.sleep(NAP_S)  # the trial's work: seconds that are known beforehand
    if number < 0:
        raise ValueError("a negative number")
    return number


class PerformanceMonitoring(Control):
    """Runs work of which every count is known, and holds metrics, their export and the alerts against it."""

    id = "performance-monitoring"
    title = "Performance monitoring with live metrics"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Compare counts and seconds with what was done."""
        with trial.pool() as pool:
            pool.register_detector("trial-naps", _naps, breaker=None)
            pool.register_detector("trial-quick", abs, cacheable=trial.configuration.get("cache_size", 1) > 0)
            started = time.perf_counter()
            work: list[DetectorConfig] = [("trial-naps", (number,), {}) for number in (*range(GOOD), *range(-BAD, 0))]
            assert len(work) == GOOD + BAD, "each nap is one execution"
            _ = pool.execute_parallel(work)
            wall_s = time.perf_counter() - started
            _ = [pool.execute_detector("trial-quick", 1) for _ in range(REPEATED)]
            yield from self._metrics(pool, wall_s)
            yield self._alerts(pool)

    def _metrics(self, pool: EnterpriseDetectorPool, wall_s: float) -> Iterator[Observation]:
        assert wall_s > 0, "seconds that were measured"
        metrics = pool.get_pool_metrics()
        naps, quick = metrics["detectors"]["trial-naps"], metrics["detectors"]["trial-quick"]
        counts = naps["executed"], naps["failed"], quick["executed"] + quick["from_cache"]
        yield Observation(
            counts == (GOOD + BAD, BAD, REPEATED),
            f"metrics count {counts[0]} executed, {counts[1]} failed, {counts[2]} quick; "
            f"{GOOD + BAD}, {BAD} and {REPEATED} were done",
        )
        p50_s, seconds = naps["latency_s"].get("p50", 0.0), naps["seconds"]
        most_s = wall_s * max(metrics["workers"] + 1, 1)
        yield Observation(
            NAP_S <= p50_s <= wall_s and (GOOD + BAD) * NAP_S <= seconds <= most_s,
            f"median latency {p50_s * 1e3:.2f} ms of naps of {NAP_S * 1e3:g} ms, {seconds:.3f} s inside of detectors "
            f"({(GOOD + BAD) * NAP_S:.3f} to {most_s:.3f} s possible)",
        )
        line = f'detector_pool_executed_total{{detector="trial-naps"}} {float(GOOD + BAD)}'
        yield Observation(line in pool.prometheus_metrics(), f"Prometheus' text has {line!r}")

    def _alerts(self, pool: EnterpriseDetectorPool) -> Observation:
        """Check twice while failures are many and twice when they are few: two alerts, not four."""
        assert not pool.closed, "a closed pool has nothing to tell"
        told: list[Alert] = []
        with HealthMonitor(pool, sinks=(CallbackSink(told.append),)) as monitor:
            for _ in range(2):
                _ = monitor.check()
                _ = pool.execute_parallel([("trial-naps", (-1,), {}), ("trial-naps", (1,), {})])
            _ = pool.execute_parallel([("trial-naps", (number,), {}) for number in range(CURE)])
            for _ in range(2):
                _ = monitor.check()
                _ = pool.execute_detector("trial-naps", 1)
        levels = [alert.level for alert in told if alert.check == "failures" and alert.subject == "trial-naps"]
        assert len(levels) <= len(told), "some of what was told"
        rose = levels[:1] in (["warning"], ["critical"]) and levels[-1:] == ["resolved"]
        return Observation(
            rose and levels.count("resolved") == 1 and len(levels) <= 3,
            f"failures of {BAD} in {GOOD + BAD} were told as {levels}",
        )
