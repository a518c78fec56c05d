"""What people and machines see of runs: log, metrics, traces; and that the alerts speak of what there is."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import ssl
import stat
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments import certificates
from deployments.metrics_endpoint import served, served_pool
from detectors import create_enterprise_pool
from detectors.errors import ConfigurationError, UsageError
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan

OBSERVABILITY = Path(__file__).parents[2] / "deployments" / "observability"
RULES = ("power-of-ten-c", "power-of-ten-python")


def _scan(tree: Path, **more: Any) -> RunRecord:
    return scan(ScanOptions((tree,), RULES, cluster="inline", **more))


def test_the_log_names_run_and_batch_in_every_line(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, lines of two runs, or of two batches, cannot be told apart."""
    file = tmp_path / "runs.jsonl"
    monkeypatch.setenv("DETECTOR_POOL_LOG", str(file))
    runs = [_scan(small_tree), _scan(small_tree)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    batches = [line for line in lines if line["event"] == "batch-done" and line["run_id"] == runs[0].run_id]

    assert {line["run_id"] for line in lines} == {run.run_id for run in runs}
    assert [line["event"] for line in lines if line["event"] != "batch-done"] == [
        "run-begun", "run-planned", "run-settled", "run-ended",
    ] * 2  # fmt: skip
    assert {line["batch"] for line in batches} == {batch.name for batch in runs[0].batches}
    assert sum(line["units"] for line in batches) == runs[0].planned
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_run_that_fails_says_so(small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, the metrics of a night that ended by an error look like those of a good one."""
    log, metrics = tmp_path / "runs.jsonl", tmp_path / "run.prom"
    monkeypatch.setenv("DETECTOR_POOL_LOG", str(log))
    monkeypatch.setenv("DETECTOR_POOL_METRICS_FILE", str(metrics))
    with pytest.raises(UsageError):
        _scan(small_tree / "missing")
    last = json.loads(log.read_text().splitlines()[-1])

    assert (last["event"], last["error"], last["level"]) == ("run-ended", "UsageError", "warning")
    assert _values(metrics.read_text())["detector_pool_run_failed"] == 1


def test_the_metrics_of_a_run_are_those_of_its_record(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, dashboards and alerts speak of another run than the evidence."""
    file = tmp_path / "run.prom"
    monkeypatch.setenv("DETECTOR_POOL_METRICS_FILE", str(file))
    record = _scan(small_tree)
    seen = _values(file.read_text())

    assert seen["detector_pool_run_units{state=executed}"] == record.executed == record.planned
    assert seen["detector_pool_run_whole"] == 1
    assert seen["detector_pool_run_failed"] == 0
    assert seen["detector_pool_run_canaries_missed"] == 0
    assert sum(value for name, value in seen.items() if name.startswith("detector_pool_run_findings")) == len(
        record.findings
    )
    assert 0 <= seen["detector_pool_run_idle_share"] < 1


def _values(text: str) -> dict[str, float]:
    return {
        sample.name
        + (f"{{{','.join(f'{k}={v}' for k, v in sample.labels.items())}}}" if sample.labels else ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_cannot_be_had_is_told_before_the_run(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, somebody waits for a log that nobody writes."""
    for variable, value in {
        "DETECTOR_POOL_LOG": str(tmp_path / "no" / "log"),
        "DETECTOR_POOL_METRICS_FILE": str(tmp_path / "no" / "run.prom"),
        "DETECTOR_POOL_TRACES": "everywhere",
    }.items():
        monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match=variable):
            _scan(small_tree)
        monkeypatch.delenv(variable)


def test_a_pool_is_served_on_loopback_fresh_each_time() -> None:
    """When this fails, a scrape shows what was, or nothing."""
    with create_enterprise_pool(max_workers=1) as pool, served_pool(pool, "127.0.0.1:0") as address:
        pool.register_detector("length", len)
        for times in (1, 2):
            pool.execute_detector("length", "abc")
            with urllib.request.urlopen(address, timeout=10) as answer:
                seen = _values(answer.read().decode())
            assert seen["detector_pool_executed_total{detector=length}"] == times
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=10)


def test_beyond_loopback_only_who_shows_a_certificate_may_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, the network reads what is analysed; or Prometheus holds a right to run code on the cluster."""
    registry = prometheus_client.CollectorRegistry()
    folder = tmp_path / "metrics-certs"
    certificates.init(folder, ("0.0.0.0", "127.0.0.1"))
    for bad in ("nonsense", "0.0.0.0:0"):
        with pytest.raises(UsageError), served(registry, bad):
            pass
    monkeypatch.setenv("DETECTOR_POOL_METRICS_CERTS", str(folder))
    stranger = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    known = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    known.load_cert_chain(folder / "client.pem")
    with served(registry, "0.0.0.0:0") as address:
        place = address.replace("0.0.0.0", "127.0.0.1")
        assert urllib.request.urlopen(place, timeout=10, context=known).status == 200
        with pytest.raises((ssl.SSLError, ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(place, timeout=10, context=stranger).read()
    monkeypatch.setenv("DETECTOR_POOL_HOME", str(tmp_path / "home"))
    own = tmp_path / "home" / "state" / "certs"
    own.parent.mkdir(parents=True, mode=0o700)
    certificates.init(own, ("0.0.0.0",))
    monkeypatch.setenv("DETECTOR_POOL_METRICS_CERTS", str(own))
    with pytest.raises(UsageError, match="run code"), served(registry, "0.0.0.0:0"):
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A receiver of OTLP over HTTP: its address, and what came."""
    came: list[bytes] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_trace_leads_from_the_run_to_each_detector(
    small_tree: Path, monkeypatch: pytest.MonkeyPatch, collector: tuple[str, list[bytes]]
) -> None:
    """When this fails, nobody can see where a run's time went, by stage, batch and detector."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    address, came = collector
    monkeypatch.setenv("DETECTOR_POOL_TRACES", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    record = _scan(small_tree)
    spans = [
        span
        for data in came
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    named = {span.span_id: span for span in spans}
    parents = {
        (span.name.split()[0], named[span.parent_span_id].name.split()[0]) for span in spans if span.parent_span_id
    }

    assert len({span.trace_id for span in spans}) == 1
    assert parents == {("stage", "run"), ("batch", "stage"), ("detector", "batch")}
    assert sum(span.name == "batch" for span in spans) == len(record.batches)
    assert {span.name for span in spans if span.name.startswith("detector")} == {f"detector {name}" for name in RULES}
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in spans)


def test_alerts_and_dashboard_name_only_metrics_that_there_are(
    small_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, an alert can never fire, or a panel stays empty."""
    file = tmp_path / "run.prom"
    monkeypatch.setenv("DETECTOR_POOL_METRICS_FILE", str(file))
    _scan(small_tree)
    with create_enterprise_pool(max_workers=1) as pool:
        pool.register_detector("length", len)
        pool.execute_detector("length", "abc")
        text = file.read_text() + pool.prometheus_metrics()
    emitted = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = (OBSERVABILITY / "alerts.yaml").read_text()
    named = set(re.findall(r"\bdetector_pool_\w+", " ".join(expressions) + alerts))

    assert len(expressions) >= 12
    assert named - emitted == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.system
def test_alerts_fire_where_they_should_and_nowhere_else() -> None:
    """When this fails, Prometheus refuses the rules, or an alert fires on a good run, or not on a bad one."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing; tests/system_packages.sh installs it")
    for words in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run(
            ["promtool", *words], cwd=OBSERVABILITY, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
