"""
`DETECTOR_POOL_METRICS_FILE=FILE.prom` and `DETECTOR_POOL_METRICS=HOST:PORT`: a run in Prometheus' format.

The file is for node_exporter's textfile collector: a nightly run is over before anybody scrapes it. The endpoint lives
as long as the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from detectors.errors import ConfigurationError
from detectors.ports import Observe

__all__ = ["RunMetrics"]

_LOG = logging.getLogger(__name__)
FILE, ADDRESS = "DETECTOR_POOL_METRICS_FILE", "DETECTOR_POOL_METRICS"
GAUGES = {
    "run_started_timestamp_seconds": "When the run began.",
    "run_finished_timestamp_seconds": "When the run ended, however it ended.",
    "run_failed": "1 where the run ended by an error.",
    "run_whole": "1 where each planned unit has exactly one answer.",
    "run_seconds": "Wall time of the run.",
    "run_workers": "How many batches ran at once.",
    "run_idle_share": "Share of the workers' time from the first batch's begin to the last one's end without a batch.",
    "run_problems": "Warnings and problems in the record.",
    "run_canaries_missed": "Planted violations that a detector did not report.",
    "run_entries_rejected": "1 where entries of a shared store or the cache were damaged or forged.",
}
BY_LABEL = {
    "run_units": ("state", "Units (file and detector): planned, executed, cached, not-analysed."),
    "run_findings": ("level", "Findings by level, those suppressed not counted."),
    "run_batches": ("stage", "Batches that were finished."),
    "run_batch_seconds": ("stage", "Seconds of batches, one after another."),
    "run_not_analysed": ("reason", "Entries not analysed."),
}


class RunMetrics:
    """Numbers of one run."""

    def observe_run(self) -> AbstractContextManager[Observe] | None:
        """Return where events go; `None` where nobody asked for metrics. See `detectors.ports.RunObserver`."""
        file, address = os.environ.get(FILE, ""), os.environ.get(ADDRESS, "")
        return _measuring(file, address) if file or address else None


@contextlib.contextmanager
def _measuring(file: str, address: str) -> Iterator[Observe]:
    import prometheus_client

    from deployments.metrics_endpoint import served

    assert file or address, "somebody asked for it"
    if file and not os.access(os.path.dirname(file) or ".", os.W_OK):  # noqa: PTH120  # an empty name is no path
        raise ConfigurationError(f"{FILE} names {file}, in a folder that cannot be written")
    registry = prometheus_client.CollectorRegistry()
    book = _Book(registry)
    with contextlib.ExitStack() as stack:
        if address:
            stack.enter_context(served(registry, address))
        try:
            yield book.tell
        finally:
            if file:
                try:
                    prometheus_client.write_to_textfile(file, registry)
                except OSError as problem:
                    # The run itself is done, and worth more; who watches notices that the file is old.
                    _LOG.warning("the metrics of the run cannot be written to %s: %s", file, problem)


class _Book:
    """What the events of a run come to."""

    def __init__(self, registry: Any) -> None:
        from prometheus_client import Gauge

        self._gauges = {name: Gauge(f"detector_pool_{name}", told, registry=registry) for name, told in GAUGES.items()}
        self._labelled = {
            name: Gauge(f"detector_pool_{name}", told, [label], registry=registry)
            for name, (label, told) in BY_LABEL.items()
        }
        self._span: list[float] = []
        self._busy_s = 0.0

    def tell(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take one event."""
        assert event, "each event has a name"
        match event:
            case "run-begun":
                self._gauges["run_started_timestamp_seconds"].set(fields["at"])
            case "run-planned":
                self._count("run_units", {"planned": fields["units"], "cached": fields["cached"]})
            case "batch-done":
                self._batch(fields)
            case "run-settled":
                self._settled(fields)
            case "run-ended":
                self._gauges["run_finished_timestamp_seconds"].set(fields["at"])
                self._gauges["run_failed"].set(float(fields["error"] is not None))
            case _:
                pass  # of no number here

    def _batch(self, fields: Mapping[str, Any]) -> None:
        stage = fields["stage"]
        self._labelled["run_batches"].labels(stage).inc()
        self._labelled["run_batch_seconds"].labels(stage).inc(fields["seconds"])
        self._labelled["run_units"].labels("executed").inc(fields["units"])
        self._busy_s += fields["seconds"]
        self._span += [fields["started"], fields["started"] + fields["seconds"]]
        self._span = [min(self._span), max(self._span)]
        assert self._busy_s >= 0, "time is spent, never gained"

    def _settled(self, fields: Mapping[str, Any]) -> None:
        workers = fields["workers"]
        assert workers >= 1, "somebody worked"
        for name in ("whole", "seconds", "workers", "problems", "canaries_missed", "entries_rejected"):
            self._gauges[f"run_{name}"].set(float(fields[name]))
        units = {name: fields[name] for name in ("planned", "executed", "cached")}
        self._count("run_units", {**units, "not-analysed": sum(fields["not_analysed"].values())})
        self._count("run_findings", fields["findings"])
        self._count("run_not_analysed", fields["not_analysed"])
        if self._span and (length_s := self._span[1] - self._span[0]) > 0:
            self._gauges["run_idle_share"].set(max(0.0, 1 - self._busy_s / (length_s * workers)))

    def _count(self, name: str, counts: Mapping[str, int]) -> None:
        for label, count in counts.items():
            self._labelled[name].labels(label).set(count)
