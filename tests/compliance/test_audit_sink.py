"""A pool's events in a ledger: what comes, when it is durable, and what happens when it cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.audit_sink import LedgerAuditSink
from compliance.errors import LedgerUnwritable
from compliance.ledger_export import export
from compliance.ledger_verify import verify
from detectors.enterprise_detector_pool import BreakerPolicy, EnterpriseDetectorPool, RetryPolicy
from detectors.errors import ConfigurationError
from detectors.execution_audit import execution_events
from detectors.ports import Alert, AlertSink, AuditSink
from tests.compliance.test_run_trail import events, place_of


def kept(home: Path) -> list[dict[str, Any]]:
    """Return the events of the ledger of pools below a home, whose passphrase lies beside its key."""
    lines: list[bytes] = []
    passphrase = (home / "state" / "pool-ledger-keys" / "passphrase").read_bytes().strip()
    _ = export(home / "state" / "pool-ledger", passphrase, lines.append)
    return [json.loads(line)["event"] for chunk in lines for line in chunk.splitlines()]


def flaky(tried: list[int]) -> str:
    tried.append(1)
    if len(tried) < 3:
        raise OSError("not yet")
    return "done"


def broken() -> None:
    raise ValueError("secret in the message")


def test_a_pool_in_audit_mode_works_out_of_the_box() -> None:
    """Nothing was configured: the ledger is made, and has what the pool did, in order, with digests."""
    home = Path(os.environ["DETECTOR_POOL_HOME"])
    with EnterpriseDetectorPool(max_workers=2, audit_mode=True) as pool:
        pool.register_detector("length", len)
        pool.register_detector("flaky", flaky, retry=RetryPolicy(attempts=3, base_s=0.001, on=(OSError,)))
        pool.register_detector("broken", broken, breaker=BreakerPolicy(failures=1))
        results = pool.execute_parallel([("length", ("abc",), {}), ("broken", (), {}), ("nobody", (), {})])
        assert pool.execute_detector("flaky", []).value == "done"
    found = kept(home)
    kinds = [event["event"] for event in found]
    executed = next(event for event in found if event["event"] == "executed")["executions"]

    assert kinds.count("detector-registered") == 3
    assert {"executions-asked", "executed", "retried", "breaker-changed"} <= set(kinds)
    assert next(event for event in found if event["event"] == "retried")["attempts"] == {"flaky": 2}
    assert [item["error"] for item in executed] == [None, "ValueError", "UnknownDetector"]
    assert executed[0]["input"] == hashlib.sha256(msgspec.msgpack.encode((("abc",), {}))).hexdigest()
    assert executed[0]["output"] == hashlib.sha256(msgspec.msgpack.encode(3)).hexdigest()
    assert "secret in the message" not in json.dumps(found)
    assert [result.ok for result in results] == [True, False, False]
    assert verify(home / "state" / "pool-ledger").verdict == "intact"
    assert (home / "state" / "pool-ledger-keys" / "passphrase").stat().st_mode & 0o077 == 0


def test_two_pools_at_once_and_one_after_another_share_the_ledger() -> None:
    """When this fails, the second pool of a process waits for the first for ever, or is refused."""
    home = Path(os.environ["DETECTOR_POOL_HOME"])
    with EnterpriseDetectorPool(audit_mode=True) as one, EnterpriseDetectorPool(audit_mode=True) as two:
        for name, pool in (("one", one), ("two", two)):
            pool.register_detector(name, len)
            assert pool.execute_detector(name, "ab").value == 2
    with EnterpriseDetectorPool(audit_mode=True) as three:
        three.register_detector("three", len)
    registered = {event["detector"] for event in kept(home) if event["event"] == "detector-registered"}

    assert registered == {"one", "two", "three"}
    assert verify(home / "state" / "pool-ledger").verdict == "intact"


def test_a_passphrase_from_outside_is_used_and_then_asked_for() -> None:
    """A ledger made under a passphrase must not be opened under one that is made up."""
    script = (
        "from detectors import create_enterprise_pool\n"
        "with create_enterprise_pool(audit_mode=True) as a: a.register_detector('x', len)\n"
        "with create_enterprise_pool(audit_mode=True) as b: b.register_detector('y', len)\n"
    )
    command = [sys.executable, "-c", script]
    with_it = {**os.environ, "DETECTOR_POOL_PASSPHRASE": "hunter2"}
    first = subprocess.run(command, env=with_it, capture_output=True, text=True, check=False, timeout=120)
    second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert first.returncode == 0, first.stderr
    assert ConfigurationError.__name__ in second.stderr
    assert "set DETECTOR_POOL_PASSPHRASE" in second.stderr
    assert not list(Path(os.environ["DETECTOR_POOL_HOME"]).rglob("passphrase"))


def test_many_threads_lose_nothing_and_flush_means_durable(tmp_path: Path) -> None:
    """Group commit: far fewer commits than events, every event once, in each thread's order."""
    place = place_of(tmp_path)
    sink = LedgerAuditSink(place)

    def tell(who: int) -> None:
        for number in range(200):
            sink.record({"event": "e", "who": who, "number": number})

    threads = [threading.Thread(target=tell, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.flush()
    found = [line["event"] for line in events(place)]
    sink.send(Alert("memory", "pool", "critical", 2.0, 1.0, "much", 0.0))
    sink.close()
    sink.close()

    assert isinstance(sink, AuditSink)
    assert isinstance(sink, AlertSink)
    for who in range(4):
        assert [event["number"] for event in found if event["who"] == who] == list(range(200))
    assert events(place)[-1]["event"]["alert"]["check"] == "memory"
    heads = b"".join(file.read_bytes() for file in place.folder.glob("*.segment")).count(b"\xe2\x80\x94 ")
    assert heads < 100
    with pytest.raises(LedgerUnwritable, match="closed"):
        sink.record({"event": "late"})


def test_an_audit_that_cannot_go_on_is_told(tmp_path: Path) -> None:
    """A silent one would look like an audit: the next call of the pool raises, and no result is given unaudited."""
    place = place_of(tmp_path)
    sink = LedgerAuditSink(place)
    with EnterpriseDetectorPool(audit_mode=True, audit_sink=sink) as pool:
        pool.register_detector("length", len)
        sink.flush()
        for file in place.folder.iterdir():
            file.unlink()
        place.folder.rmdir()
        pool.execute_detector("length", "abc")
        with pytest.raises(LedgerUnwritable):
            sink.flush()
        with pytest.raises(LedgerUnwritable, match="the audit has ended"):
            pool.execute_detector("length", "abc")
        with pytest.raises(LedgerUnwritable):
            pool.register_detector("other", len)
    with pytest.raises(LedgerUnwritable):
        sink.close()


def test_what_has_no_plain_form_has_another_digest_or_none(tmp_path: Path) -> None:
    """A path stands for its bytes; a lock has no content, and is no reason to fail."""

    class Result:
        def __init__(self, value: object) -> None:
            self.detector, self.value, self.error, self.attempts, self.from_cache = "d", value, None, 1, False

    file = tmp_path / "a"
    file.write_text("one")
    values = [file, threading.Lock(), {"b": 1, "a": 2}, {"a": 2, "b": 1}, file]
    configs = [("d", (), {})] * len(values)
    before = [
        item["output"] for event in execution_events(configs, list(map(Result, values))) for item in event["executions"]
    ]
    file.write_text("two")
    after = [
        item["output"] for event in execution_events(configs, list(map(Result, values))) for item in event["executions"]
    ]

    assert before[0].startswith("content:")
    assert before[0] == before[4] != after[0]
    assert before[1] is None
    assert before[2] == before[3]
    many = list(execution_events([("d", (), {})] * 1001, [Result(n) for n in range(1001)]))
    assert [len(event["executions"]) for event in many] == [500, 500, 1]
