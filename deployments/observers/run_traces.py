"""
`DETECTOR_POOL_TRACES=otlp`: a run as a trace of OpenTelemetry: run, stage, batch, detector.

Spans are made from what workers report, once the run has ended: workers need no telemetry of their own, and a run pays
nothing while it works. Where they go is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from detectors.errors import ConfigurationError
from detectors.ports import Observe

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["RunTraces"]

VARIABLE = "DETECTOR_POOL_TRACES"
NS = 1_000_000_000


class RunTraces:
    """Sends the spans of a run when it has ended."""

    def observe_run(self) -> AbstractContextManager[Observe] | None:
        """Return where events go; `None` where nobody asked for traces. See `detectors.ports.RunObserver`."""
        wanted = os.environ.get(VARIABLE)
        if not wanted:
            return None
        if wanted != "otlp":
            raise ConfigurationError(f"{VARIABLE} takes otlp, not {wanted!r}")
        return _tracing()


@contextlib.contextmanager
def _tracing() -> Iterator[Observe]:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as problem:
        raise ConfigurationError(f"{VARIABLE} needs the extra `otel` of this package") from problem
    events: list[tuple[str, Mapping[str, Any]]] = []
    try:
        yield lambda event, fields: events.append((event, fields))
    finally:
        provider = TracerProvider(resource=Resource.create({"service.name": "detector-pool"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if events:
            _spans(provider.get_tracer("detector-pool"), events)
        provider.shutdown()


def _spans(tracer: Tracer, events: list[tuple[str, Mapping[str, Any]]]) -> None:
    """Make the spans of a run of its events; a run that ended early has those that there were."""
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    by_name = dict(events)
    assert "run-begun" in by_name, "a run begins before anything else of it is told"
    begun, ended = by_name["run-begun"], by_name.get("run-ended", {})
    batches = [fields for event, fields in events if event == "batch-done"]
    last = max((batch["started"] + batch["seconds"] for batch in batches), default=begun["at"])
    run = tracer.start_span("run", start_time=_ns(begun["at"]), attributes={"run_id": begun["run_id"]})
    if ended.get("error"):
        run.set_status(Status(StatusCode.ERROR, str(ended["error"])))
    for name, value in by_name.get("run-settled", {}).items():
        if isinstance(value, (str, int, float, bool)):
            run.set_attribute(name, value)
    for stage in sorted({batch["stage"] for batch in batches}):
        own = [batch for batch in batches if batch["stage"] == stage]
        first = min(batch["started"] for batch in own)
        span = tracer.start_span(f"stage {stage}", set_span_in_context(run), start_time=_ns(first))
        for batch in own:
            _batch(tracer, set_span_in_context(span), batch)
        span.end(_ns(max(batch["started"] + batch["seconds"] for batch in own)))
    run.end(_ns(max(last, ended.get("at", last))))


def _batch(tracer: Tracer, parent: Any, batch: Mapping[str, Any]) -> None:
    """Make the spans of a batch and of its detectors, which work one after another."""
    from opentelemetry.trace import set_span_in_context

    names = ("batch", "worker", "files", "predicted_s", "findings", "not_analysed")
    assert batch["seconds"] >= 0, "a batch takes time"
    span = tracer.start_span(
        "batch", parent, start_time=_ns(batch["started"]), attributes={name: batch[name] for name in names}
    )
    clock = batch["started"]
    for detector, seconds in batch["detectors"].items():
        part = tracer.start_span(
            f"detector {detector}", set_span_in_context(span), start_time=_ns(clock), attributes={"detector": detector}
        )
        clock += seconds
        part.end(_ns(clock))
    span.end(_ns(batch["started"] + batch["seconds"]))


def _ns(seconds: float) -> int:
    assert seconds > 0, "seconds since the epoch"
    return int(seconds * NS)
