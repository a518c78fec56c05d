"""Health of the system and of detectors, regressions by a test with a known rate of false alarms, and alerts."""

from __future__ import annotations

import hmac
import http.server
import json
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors import EnterpriseDetectorPool
from detectors.alerts import CallbackSink, LogSink, WebhookSink, signature
from detectors.enterprise_detector_pool import BreakerPolicy
from detectors.errors import UsageError
from detectors.health import HealthMonitor, Observed, Thresholds, slower, system_now
from detectors.memory_pressure import MemoryState
from detectors.ports import Alert

ALERT = Alert("memory", "machine", "critical", 0.97, 0.95, "0.97 of the memory is used", 1.0)
SECRET = b"0123456789abcdef"


class MadeUpPool:
    """A pool whose measurements are set by hand."""

    def __init__(self) -> None:
        self.metrics: dict[str, Any] = {"busy_seconds": 0.0, "total": {"seconds": 0.0}, "detectors": {}}
        self.samples: dict[str, tuple[float, ...]] = {}

    def get_pool_metrics(self) -> dict[str, Any]:
        """Return them."""
        return json.loads(json.dumps(self.metrics))

    def latency_samples(self) -> dict[str, tuple[float, ...]]:
        """Return them."""
        return self.samples


def _system(used: float, disk: float = 0.1, load: float = 0.1) -> Observed:
    return Observed(MemoryState(1_000, round(1_000 * (1 - used)), "machine"), disk, load)


def test_a_threshold_is_told_when_it_is_crossed_and_when_all_is_well_again() -> None:
    """When this fails, an alert comes every minute, or flaps, or never ends."""
    seen: list[Alert] = []
    used = [0.5]
    with HealthMonitor(
        MadeUpPool(), sinks=[CallbackSink(seen.append)], observe=lambda: _system(used[0]), clock=lambda: 7.0
    ) as monitor:
        for used[0] in (0.5, 0.86, 0.87, 0.84, 0.96, 0.97, 0.90, 0.80, 0.70, 0.86):
            report = monitor.check()

    assert [(alert.level, round(alert.measured, 2)) for alert in seen] == [
        ("warning", 0.86),
        ("critical", 0.96),
        ("warning", 0.80),
        ("resolved", 0.70),
        ("warning", 0.86),
    ]
    assert (seen[0].check, seen[0].subject, seen[0].threshold, seen[0].time) == ("memory", "machine", 0.85, 7.0)
    assert (report.ok, report.level) == (False, "warning")


def test_detectors_that_fail_and_breakers_that_are_open_are_told() -> None:
    """When this fails, half of a night's executions fail and the morning's report is green."""
    seen: list[Alert] = []
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("good", abs)
        pool.register_detector("bad", int, breaker=BreakerPolicy(failures=3, reset_s=3600))
        with HealthMonitor(pool, sinks=[CallbackSink(seen.append)], observe=lambda: _system(0.1)) as monitor:
            assert monitor.check().ok
            pool.execute_parallel([("good", (1,), {}), ("bad", ("x",), {})] * 5)
            report = monitor.check()

    assert report.level == "critical"
    assert {(alert.check, alert.subject, alert.level) for alert in seen} == {
        ("failures", "bad", "critical"),
        ("breaker", "bad", "critical"),
    }


def test_the_pool_s_own_overhead_is_told() -> None:
    """When this fails, the pool eats the time of its detectors and says nothing."""
    pool = MadeUpPool()
    with HealthMonitor(pool, sinks=[], observe=lambda: _system(0.1)) as monitor:
        monitor.check()
        pool.metrics |= {"busy_seconds": 100.0, "total": {"seconds": 90.0}}
        first = monitor.check()
        pool.metrics |= {"busy_seconds": 200.0, "total": {"seconds": 189.9}}
        second = monitor.check()

    assert [finding.level for finding in first.findings if finding.check == "overhead"] == ["warning"]
    assert [finding.level for finding in second.findings if finding.check == "overhead"] == ["ok"]


def test_a_slower_detector_is_found_against_the_history_of_an_earlier_process(tmp_path: Path) -> None:
    """When this fails, a release that doubles the run time goes unseen."""
    chooser = random.Random(3)
    pool = MadeUpPool()
    for factor, expected in ((1.0, []), (1.0, ["ok", "ok"]), (1.5, ["warning", "ok"])):
        pool.samples = {
            "a": tuple(factor * chooser.lognormvariate(0, 0.5) for _ in range(200)),
            "b": tuple(chooser.lognormvariate(0, 0.5) for _ in range(200)),
            "few": (9.0,) * 3,
        }
        with HealthMonitor(pool, sinks=[], history_folder=tmp_path, observe=lambda: _system(0.1)) as monitor:
            report = monitor.check()
            if not expected:
                monitor.learn()
        assert [finding.level for finding in report.findings if finding.check == "regression"] == expected


def test_the_rate_of_false_alarms_is_the_stated_one() -> None:
    """When this fails, the level of the test says nothing: too many alarms, or a test that never fires."""
    chooser = random.Random(20_260_000)
    rounds, level = 2_000, 0.05
    alarms = sum(
        slower(
            [chooser.lognormvariate(0, 1) for _ in range(50)], [chooser.lognormvariate(0, 1) for _ in range(50)]
        )[0] < level
        for _ in range(rounds)
    )  # fmt: skip

    # 100 expected, standard deviation 9.7: four of them to each side.
    assert 60 <= alarms <= 140


def test_the_watch_checks_until_it_is_closed() -> None:
    """When this fails, a monitor is started and nothing is ever looked at."""
    checked = threading.Event()

    def observe() -> Observed:
        checked.set()
        return _system(0.1)

    with HealthMonitor(MadeUpPool(), sinks=[], observe=observe) as monitor:
        monitor.watch(0.001)
        assert checked.wait(30)
        with pytest.raises(UsageError):
            monitor.watch(1)
    assert "health" not in {thread.name for thread in threading.enumerate()}


def test_the_real_system_is_read() -> None:
    """When this fails, every check of the system is of made-up numbers."""
    seen = system_now()

    assert 0 < seen.memory.free_share <= 1
    assert 0 <= seen.disk_used_share <= 1
    assert seen.load_a_processor >= 0


def test_thresholds_that_make_no_sense_are_told() -> None:
    """When this fails, a threshold that can never be crossed looks like health."""
    for wrong in ({"memory_used_share": (0.9, 0.8)}, {"false_alarm_rate": 0}, {"regression_ratio": 0.5}):
        with pytest.raises(UsageError):
            Thresholds(**wrong)  # type: ignore[arg-type]


def test_a_callback_that_fails_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """When this fails, one broken sink silences the others."""
    with caplog.at_level(logging.INFO, "detectors.alerts"):
        CallbackSink(lambda alert: 1 / 0).send(ALERT)
        LogSink().send(ALERT)

    assert "callback failed on memory" in caplog.text
    assert "0.97 of the memory is used" in caplog.text


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]], list[int]]]:
    """A webhook's receiver on loopback: its address, what it got, and the status that it answers with."""
    got: list[tuple[str, bytes]] = []
    status = [204]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["X-Detector-Pool-Signature"], body))
            self.send_response(status[0])
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?x=1", got, status
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_signed(receiver: Any) -> None:
    """When this fails, a receiver cannot tell our alerts from anybody's."""
    url, got, _ = receiver
    WebhookSink(url, SECRET).send(ALERT)
    ((header, body),) = got
    parts = dict(part.split("=") for part in header.split(","))

    assert msgspec.json.decode(body, type=Alert) == ALERT
    assert hmac.compare_digest(parts["v1"], signature(SECRET, int(parts["t"]), body))
    assert parts["v1"] != signature(b"another secret..", int(parts["t"]), body)
    assert parts["v1"] != signature(SECRET, int(parts["t"]), body + b" ")
    assert parts["v1"] != signature(SECRET, int(parts["t"]) + 1, body)


def test_a_webhook_that_fails_is_logged_without_the_secret(receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    """When this fails, a receiver that is down stops the watch, is followed elsewhere, or the secret is in the log."""
    url, got, status = receiver
    for status[0] in (500, 302):
        WebhookSink(url, SECRET).send(ALERT)
    WebhookSink("http://127.0.0.1:1/", SECRET).send(ALERT)

    assert len(got) == 2
    assert "status 500" in caplog.text
    assert "status 302" in caplog.text
    assert "did not reach" in caplog.text
    assert SECRET.decode() not in caplog.text


def test_a_webhook_leaves_the_machine_encrypted_only() -> None:
    """When this fails, alerts and their signatures go over the network in the clear."""
    for url in ("http://example.org/", "http://localhost/", "ftp://127.0.0.1/", "http://10.0.0.1/", "nonsense"):
        with pytest.raises(UsageError, match="https"):
            WebhookSink(url, SECRET)
    with pytest.raises(UsageError, match="16 bytes"):
        WebhookSink("https://example.org/", b"short")
    WebhookSink("https://example.org/hook", SECRET)
