"""
What a pool measured of itself: counts, seconds, quantiles; as plain data, as Prometheus text, to OpenTelemetry.

Quantiles come from t-digests (T. Dunning and O. Ertl, "Computing Extremely Accurate Quantiles Using t-Digests", 2019;
the kept library fastdigest), so that memory does not grow with executions. Threads add once a chunk, not once an
execution.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from fastdigest import TDigest

__all__ = ["DetectorTotals", "MetricsBook", "Tally", "instrument", "prometheus_text", "registry_of"]

QUANTILES = (0.5, 0.9, 0.95, 0.99)
CENTROIDS = 100
SAMPLE = 500
"""Latencies kept of each detector for the test against history: a uniform sample of all (reservoir)."""


class Tally:
    """What happened in one chunk."""

    __slots__ = (
        "cpu_s", "failed", "from_cache", "latencies_s", "peak_bytes", "read_bytes", "refused", "retried",
        "written_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        """Seconds of each attempt that ran."""
        self.failed = self.retried = self.from_cache = self.refused = 0
        self.cpu_s = 0.0
        self.peak_bytes = self.read_bytes = self.written_bytes = 0


class DetectorTotals(msgspec.Struct, frozen=True):
    """One detector, or all of them, since the pool began."""

    executed: int
    """Executions that ran, with any number of attempts."""
    failed: int
    """Of `executed`, those without a value in the end."""
    retried: int
    """Attempts after the first."""
    refused: int
    """Not run: circuit open or access denied."""
    from_cache: int
    seconds: float
    """Wall time inside of the detector, all attempts."""
    cpu_seconds: float
    latency_s: dict[str, float]
    """Quantiles of one attempt: `p50`, `p90`, `p95`, `p99`, and `max`; empty before the first."""
    peak_bytes: int | None
    """Highest resident size of an isolated process; `None` for threads, which share one."""
    read_bytes: int
    written_bytes: int
    """Block input and output of isolated processes; those of threads are in the pool's own."""


class _Book:
    __slots__ = ("digest", "executed", "failed", "sample", "seen", "sums")

    def __init__(self) -> None:
        self.digest = TDigest(CENTROIDS)
        self.executed = self.failed = self.seen = 0
        self.sums = Tally()
        self.sample: list[float] = []


class MetricsBook:
    """Totals of every detector. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._books: dict[str, _Book] = {}
        self._all = _Book()
        # Reproducible, and no secret: which latencies are kept as a sample.
        self._chooser = random.Random(0)  # noqa: S311  # a reproducible sample, no secret

    def open(self, name: str) -> None:
        """Begin a detector's totals, unless they are begun."""
        with self._lock:
            self._books.setdefault(name, _Book())

    def add(self, name: str, tally: Tally, executed: int) -> None:
        """Account for a chunk in which `executed` executions ran."""
        with self._lock:
            for book in (self._books[name], self._all):
                book.executed += executed
                book.failed += tally.failed
                _sum(book.sums, tally)
                if tally.latencies_s:
                    book.digest.batch_update(tally.latencies_s)
            book = self._books[name]
            for latency_s in tally.latencies_s:
                book.seen += 1
                if len(book.sample) < SAMPLE:
                    book.sample.append(latency_s)
                elif (place := int(self._chooser.random() * book.seen)) < SAMPLE:
                    book.sample[place] = latency_s

    def totals(self) -> tuple[dict[str, DetectorTotals], DetectorTotals]:
        """Return totals by detector, and of all."""
        with self._lock:
            return {name: _totals(book) for name, book in sorted(self._books.items())}, _totals(self._all)

    def samples(self) -> dict[str, tuple[float, ...]]:
        """Return a uniform sample of each detector's latencies, in seconds."""
        with self._lock:
            return {name: tuple(book.sample) for name, book in self._books.items()}


def _sum(sums: Tally, tally: Tally) -> None:
    sums.retried += tally.retried
    sums.from_cache += tally.from_cache
    sums.refused += tally.refused
    sums.cpu_s += tally.cpu_s
    sums.read_bytes += tally.read_bytes
    sums.written_bytes += tally.written_bytes
    sums.peak_bytes = max(sums.peak_bytes, tally.peak_bytes)


def _totals(book: _Book) -> DetectorTotals:
    latency_s: dict[str, float] = {}
    if not book.digest.is_empty():
        values = book.digest.quantile_vec(list(QUANTILES))
        latency_s = {f"p{round(q * 100)}": value for q, value in zip(QUANTILES, values, strict=True)}
        latency_s["max"] = book.digest.max()
    sums = book.sums
    seconds = 0.0 if book.digest.is_empty() else book.digest.sum()
    return DetectorTotals(
        book.executed, book.failed, sums.retried, sums.refused, sums.from_cache, seconds, sums.cpu_s, latency_s,
        sums.peak_bytes or None, sums.read_bytes, sums.written_bytes,
    )  # fmt: skip


_COUNTERS = {
    "executed": "Executions that ran.",
    "failed": "Executions without a value in the end.",
    "retried": "Attempts after the first.",
    "refused": "Executions that were not run.",
    "from_cache": "Executions answered from the cache.",
    "seconds": "Seconds inside of the detector.",
    "cpu_seconds": "Processor seconds of the detector.",
}
_GAUGES = {
    "workers": "Threads that may work.",
    "queued": "Executions that wait.",
    "running": "Threads that work.",
    "overhead_share": "Share of the threads' busy time that no detector used.",
    "memory_bytes": "Resident memory of the pool's process.",
    "cache_entries": "Results kept in memory.",
    "cache_bytes": "Bytes of results kept in memory.",
    "cache_limit_bytes": "Bytes that results may take now.",
}
_STATES = ("closed", "half-open", "open")


def prometheus_text(metrics: Mapping[str, Any]) -> str:
    """
    Return the metrics of `EnterpriseDetectorPool.get_pool_metrics` in Prometheus' text format.

    A registry of its own is made for each call: nothing of the process's default registry is shown.
    """
    import prometheus_client

    return prometheus_client.generate_latest(registry_of(lambda: metrics)).decode()


def registry_of(read: Callable[[], Mapping[str, Any]]) -> Any:
    """
    Return a registry of prometheus_client that asks anew at each scrape.

    Args:
        read: Returns the metrics of the pool.
    """
    import prometheus_client
    from prometheus_client.registry import Collector

    class Snapshot(Collector):
        def collect(self) -> Iterator[Any]:
            yield from _families(read())

    registry = prometheus_client.CollectorRegistry()
    registry.register(Snapshot())
    return registry


def _families(metrics: Mapping[str, Any]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    detectors: Mapping[str, Mapping[str, Any]] = metrics["detectors"]
    for key, told in _COUNTERS.items():
        counter = CounterMetricFamily(f"detector_pool_{key}", told, labels=["detector"])
        for name, values in detectors.items():
            counter.add_metric([name], values[key])
        yield counter
    latency = GaugeMetricFamily(
        "detector_pool_latency_seconds", "Quantiles of one attempt.", labels=["detector", "quantile"]
    )
    breaker = GaugeMetricFamily(
        "detector_pool_breaker", "1 for the state that the circuit breaker is in.", labels=["detector", "state"]
    )
    for name, values in detectors.items():
        for quantile, seconds in values["latency_s"].items():
            latency.add_metric([name, quantile], seconds)
        for state in _STATES if values["breaker"] else ():
            breaker.add_metric([name, state], float(values["breaker"]["state"] == state))
    yield latency
    yield breaker
    for key, told in _GAUGES.items():
        if metrics[key] is not None:
            yield GaugeMetricFamily(f"detector_pool_{key}", told, value=metrics[key])


def instrument(read: Callable[[], Mapping[str, Any]], meter: Any) -> None:
    """
    Register observable instruments with an OpenTelemetry meter.

    Args:
        read: Returns the metrics of the pool.
        meter: An `opentelemetry.metrics.Meter`.
    """
    from opentelemetry.metrics import Observation

    def by_detector(key: str) -> Callable[[Any], Iterable[Observation]]:
        return lambda _options: [
            Observation(values[key], {"detector": name}) for name, values in read()["detectors"].items()
        ]

    def single(key: str) -> Callable[[Any], Iterable[Observation]]:
        return lambda _options: [Observation(read()[key] or 0)]

    for key, told in _COUNTERS.items():
        meter.create_observable_counter(f"detector_pool.{key}", [by_detector(key)], description=told)
    for key, told in _GAUGES.items():
        meter.create_observable_gauge(f"detector_pool.{key}", [single(key)], description=told)
