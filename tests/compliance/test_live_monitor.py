"""A pool watched at work: score, violations, alerts told once, the ledger's new records, drift, reports."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance import RealTimeComplianceMonitor, defense_compliance_monitor
from compliance.alert_desk import AlertDesk
from compliance.ledger import Ledger
from compliance.live_record import ComplianceThresholds, LiveRecord
from detectors import EnterpriseDetectorPool
from detectors.alerts import CallbackSink
from detectors.errors import UsageError
from detectors.health import Finding
from detectors.ports import Alert

SECRET = b"a passphrase of the test"
NEVER_S = 3600.0
"""Looks are made by the test, one at a time."""


@pytest.fixture
def pool() -> Iterator[EnterpriseDetectorPool]:
    """A pool with a detector that fails on demand."""

    def fails(bad: bool) -> int:
        if bad:
            raise ValueError("asked to fail")
        return 1

    with EnterpriseDetectorPool(2) as made:
        made.register_detector("sometimes", fails, breaker=None)
        yield made


@pytest.fixture
def told() -> list[Alert]:
    """What the sinks were told."""
    return []


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger open for writing, with short segments."""
    Ledger.create(tmp_path / "ledger", tmp_path / "keys", SECRET, segment_records=20)
    with Ledger.open(tmp_path / "ledger", tmp_path / "keys", SECRET) as opened:
        yield opened


Watch = Callable[..., RealTimeComplianceMonitor]


@pytest.fixture
def watch(pool: EnterpriseDetectorPool, told: list[Alert]) -> Iterator[Watch]:
    """Start a monitor whose looks are made by hand."""
    started: list[RealTimeComplianceMonitor] = []

    def start(**options: Any) -> RealTimeComplianceMonitor:
        monitor = RealTimeComplianceMonitor(sinks=(CallbackSink(told.append),), every_s=NEVER_S, **options)
        monitor.start_monitoring(pool)
        started.append(monitor)
        return monitor

    yield start
    for monitor in started:
        monitor.stop_monitoring()


def _of(told: list[Alert], check: str) -> list[tuple[str, str]]:
    return [(alert.subject, alert.level) for alert in told if alert.check == check]


def test_failures_are_told_once_and_their_end_once(
    watch: Watch, pool: EnterpriseDetectorPool, told: list[Alert]
) -> None:
    """When this fails, an operator drowns in repeats of one alert, or never hears that it is over."""
    monitor = watch()
    monitor.check()
    for _ in range(3):
        pool.execute_parallel([("sometimes", (number < 4,), {}) for number in range(10)])
        low = monitor.check()
    lasting = monitor.violations
    for _ in range(5):
        pool.execute_parallel([("sometimes", (False,), {})] * 10)
        high = monitor.check()

    assert _of(told, "failures") == [("sometimes", "warning"), ("sometimes", "resolved")]
    assert ("failures", "sometimes") in {(one.check, one.subject) for one in lasting}
    assert low.checks_held < 100
    assert high.checks_held > low.checks_held
    (violation,) = [one for one in monitor.record().violations if one.check == "failures"]
    assert violation.findings == 3
    assert violation.until is not None
    assert (high.executed, high.failed) == (80, 12)


def test_a_calm_look_between_is_no_end() -> None:
    """When this fails, a value near its threshold makes an alert at every other look."""
    sent: list[Alert] = []
    desk = AlertDesk((CallbackSink(sent.append),), lambda: 1.0, calm_looks=3)

    def look(level: Any) -> None:
        desk.take([Finding("memory", "host", level, 1.0, 1.0, level)])

    for level in ("warning", "ok", "warning", "ok", "ok", "critical", "warning", "critical", "ok", "ok"):
        look(level)
    assert [alert.level for alert in sent] == ["warning", "critical"]
    look("ok")
    assert [alert.level for alert in sent] == ["warning", "critical", "resolved"]
    assert desk.open == ()
    (violation,) = desk.all
    assert (violation.level, violation.findings, violation.until) == ("critical", 5, 1.0)


def test_only_new_records_of_the_ledger_are_read(
    watch: Watch, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, watching costs the whole ledger at every look, or new records go unverified."""
    for number in range(7):
        ledger.append({"type": "before", "n": number})
    monitor = watch(ledger=tmp_path / "ledger")
    first = monitor.check()

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a segment was read whole")

    with monkeypatch.context() as patch:
        patch.setattr("compliance.ledger_watch.read_segment", refuse)
        patch.setattr("compliance.ledger_watch.verify", refuse)
        ledger.append_all([{"type": "new", "n": number} for number in range(3)])
        second = monitor.check()
        third = monitor.check()
    for number in range(45):  # two segments further
        ledger.append({"type": "later", "n": number})
    last = monitor.check()

    assert [look.ledger_records for look in (first, second, third, last)] == [7, 10, 10, 55]
    assert monitor.record().checkpoint == ledger.checkpoint.decode()
    assert [one for one in monitor.violations if one.check == "ledger"] == []


def _flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def _flip_new(folder: Path, ledger: Ledger) -> None:
    """A new record is damaged before the watch has seen it."""
    (segment,) = sorted(folder.glob("*.segment"))
    size = segment.stat().st_size
    ledger.append({"type": "new"})
    _flip(segment, size + 60)


def _flip_old_segment(folder: Path, ledger: Ledger) -> None:
    """A record of a closed segment is damaged."""
    for number in range(30):
        ledger.append({"type": "more", "n": number})
    _flip(sorted(folder.glob("*.segment"))[0], 900)


def _flip_in_place(folder: Path, ledger: Ledger) -> None:
    """An old record of the active segment is damaged, and nothing appended."""
    _flip(sorted(folder.glob("*.segment"))[-1], 900)


def _cut(folder: Path, ledger: Ledger) -> None:
    """The end is cut at a signed head: a consistent older ledger."""
    shutil.copytree(folder, folder.with_name("older"))
    for number in range(5):
        ledger.append({"type": "gone", "n": number})


def _remove_segment(folder: Path, ledger: Ledger) -> None:
    sorted(folder.glob("*.segment"))[-1].unlink()


@pytest.mark.parametrize("attack", [_flip_new, _flip_old_segment, _flip_in_place, _cut, _remove_segment])
def test_a_change_of_the_ledger_is_an_alert(
    watch: Watch, ledger: Ledger, told: list[Alert], tmp_path: Path, attack: Callable[[Path, Ledger], None]
) -> None:
    """When this fails, a ledger may be changed or rolled back under a running pool, and nobody hears of it."""
    folder = tmp_path / "ledger"
    for number in range(6):
        ledger.append({"type": "before", "n": number})
    monitor = watch(ledger=folder)
    monitor.check()
    attack(folder, ledger)
    if attack is _cut:
        monitor.check()
        shutil.rmtree(folder)
        shutil.copytree(folder.with_name("older"), folder)
    monitor.check()
    again = monitor.check()

    assert _of(told, "ledger") == [("integrity", "critical")]
    assert again.checks_held < 100
    assert monitor.record().ledger.startswith("tampered")


def test_an_edit_of_old_bytes_among_appends_is_seen_when_the_segment_closes(
    watch: Watch, ledger: Ledger, told: list[Alert], tmp_path: Path
) -> None:
    """When this fails, whoever edits while others append is never seen before the end."""
    for number in range(6):
        ledger.append({"type": "before", "n": number})
    monitor = watch(ledger=tmp_path / "ledger")
    monitor.check()
    _flip(tmp_path / "ledger" / "0000000000.segment", 900)
    for number in range(20):
        ledger.append({"type": "after", "n": number})
    monitor.check()

    assert _of(told, "ledger") == [("integrity", "critical")]


def test_a_commit_under_way_is_no_alarm(watch: Watch, ledger: Ledger, told: list[Alert], tmp_path: Path) -> None:
    """When this fails, every writer at work raises an alert."""
    ledger.append({"type": "before"})
    monitor = watch(ledger=tmp_path / "ledger")
    monitor.check()
    segment = tmp_path / "ledger" / "0000000000.segment"
    whole = segment.stat().st_size
    ledger.append({"type": "under way"})
    commit = segment.read_bytes()[whole:]
    with segment.open("r+b") as file:
        file.truncate(whole + len(commit) // 2)
    half = [monitor.check().ledger_records for _ in range(3)]
    with segment.open("r+b") as file:
        file.seek(whole)
        file.write(commit)
    done = monitor.check()

    assert half == [1, 1, 1]
    assert done.ledger_records == 2
    assert _of(told, "ledger") == []


def test_writers_at_work_are_followed_to_the_last_record(
    watch: Watch, ledger: Ledger, told: list[Alert], tmp_path: Path
) -> None:
    """When this fails, a race between a writer and the watch is taken for tampering, or records are skipped."""
    monitor = watch(ledger=tmp_path / "ledger")

    def write(writer: int) -> None:
        for number in range(60):
            ledger.append({"type": "busy", "writer": writer, "n": number})

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    seen = [monitor.check().ledger_records for _ in range(60)]
    for writer in writers:
        writer.join()
    last = monitor.check()

    assert last.ledger_records == 180
    assert seen == sorted(seen)
    assert _of(told, "ledger") == []


def test_a_tool_of_another_version_is_told(watch: Watch, told: list[Alert], monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a tool may be exchanged under a running pool without a word."""
    from compliance.tool_versions import installed_versions

    now = installed_versions()
    monitor = watch(reference_versions={**now, "ruff": "0.0.1"}, versions_every_s=1e-9)
    monitor.check()
    monkeypatch.setattr(defense_compliance_monitor, "installed_versions", lambda: {**now, "ruff": "0.0.1"})
    for _ in range(4):
        monitor.check()

    assert {"ruff", "python", "power-of-ten-c", "enterprise-detector-pool"} <= now.keys()
    assert _of(told, "version") == [("ruff", "warning"), ("ruff", "resolved")]
    assert monitor.record().drift == ()


def test_the_scores_of_tree_and_controls_count(
    watch: Watch, told: list[Alert], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, the score over time says nothing of the tree or the controls."""
    from compliance.control import ControlResult
    from detectors.scan import ScanOptions

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("def f(n):\n    return eval(n)\n")
    monkeypatch.setattr(
        defense_compliance_monitor, "tried",
        lambda control, *_: ControlResult(control.id, control.id != "access-control", "1 of 1", 0.1),
    )  # fmt: skip
    options = ScanOptions((tmp_path / "tree",), cache=tmp_path / "cache", cluster="inline", workers=1)
    monitor = watch(tree=options, compliance_thresholds=ComplianceThresholds(score=(99.0, 10.0)))
    monitor.validate()
    look = monitor.check()

    assert look.power_of_ten is not None
    assert 0 < look.power_of_ten < 95
    assert look.controls_held == 87.5
    assert look.score == pytest.approx((look.power_of_ten + 87.5 + look.checks_held) / 3)
    assert _of(told, "control") == [("access-control", "critical")]
    assert ("live", "warning") in _of(told, "score")
    assert {subject for subject, _ in _of(told, "score")} == {"live", "power-of-ten"}


def test_reports_are_written_on_stop(
    watch: Watch, ledger: Ledger, pool: EnterpriseDetectorPool, tmp_path: Path
) -> None:
    """When this fails, what was watched is lost with the process, or cannot be read by anybody else."""
    import pyarrow.parquet as pq

    pool.register_detector("<script>alert(1)</script>", len, breaker=None)
    pool.execute_detector("<script>alert(1)</script>", 3)
    ledger.append({"type": "event"})
    monitor = watch(ledger=tmp_path / "ledger", report_folder=tmp_path / "report")
    monitor.check()
    record = monitor.stop_monitoring()
    report = tmp_path / "report"

    names = {"compliance.html", "compliance.json", "compliance-samples.parquet", "compliance-violations.parquet"}
    assert {file.name for file in report.iterdir()} == names
    again = msgspec.json.decode((report / "compliance.json").read_bytes(), type=LiveRecord)
    assert msgspec.structs.replace(again, until=record.until) == record
    assert record.stopped
    samples = pq.read_table(report / "compliance-samples.parquet")
    assert samples.column("executed").to_pylist() == [sample.executed for sample in record.samples]
    assert pq.read_table(report / "compliance-violations.parquet").num_rows == len(record.violations) > 0
    page = (report / "compliance.html").read_text()
    assert "intact: 1 records verified" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page


def test_it_looks_by_itself_and_ends_with_the_pool(told: list[Alert]) -> None:
    """When this fails, a closed pool is watched for ever, or nobody looks."""
    looked = threading.Event()
    with EnterpriseDetectorPool(1) as pool:
        pool.register_detector("any", len)
        monitor = RealTimeComplianceMonitor(sinks=(), every_s=0.01, clock=lambda: (looked.set(), 1.0)[1])
        monitor.start_monitoring(pool)
        thread = next(thread for thread in threading.enumerate() if thread.name == "compliance-monitor")
        assert looked.wait(30)
    thread.join(30)

    assert not thread.is_alive()
    assert monitor.record().stopped
    assert monitor.record().looks >= 1


def test_a_look_that_fails_is_an_alert(watch: Watch, told: list[Alert], tmp_path: Path) -> None:
    """When this fails, a monitor that cannot see anything looks like one with nothing to tell."""
    (tmp_path / "ledger").mkdir()
    (tmp_path / "checkpoint").write_text("no checkpoint\n")
    monitor = watch(ledger=tmp_path / "ledger", checkpoint=tmp_path / "checkpoint")
    monitor.stop_monitoring()

    assert ("look", "critical") in _of(told, "monitor")


@pytest.mark.parametrize(
    "options",
    [{"every_s": 0}, {"report_every_s": -1}, {"validate_every_s": -1}, {"public_key": Path("key")}],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    """When this fails, a monitor that can never look is made without a word."""
    with pytest.raises(UsageError):
        RealTimeComplianceMonitor(**options)


def test_one_monitor_watches_one_pool(watch: Watch, pool: EnterpriseDetectorPool) -> None:
    """When this fails, two threads write into one record."""
    monitor = watch()

    with pytest.raises(UsageError, match="one pool once"):
        monitor.start_monitoring(pool)
    monitor.stop_monitoring()
    with pytest.raises(UsageError, match="nothing is watched"):
        monitor.check()
    with pytest.raises(UsageError, match="nothing is watched"):
        RealTimeComplianceMonitor().check()
