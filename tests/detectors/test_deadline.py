"""Runs that must end in time: what goes first, what does not begin, what is ended, and a predictor that lies."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.cache import ResultCache
from detectors.deadline import DeadlineGate, calibration, risk_of, seconds_of, warnings_of, wilson
from detectors.duration_model import Prediction
from detectors.errors import UsageError
from detectors.model import BatchRecord, Digest, SourceFile
from detectors.parallel_executor import Call, DaskBackend, NotAdmitted, ParallelExecutor
from detectors.scan import Scan, ScanOptions
from detectors.workload_optimizer import Batch, BatchLimits, Risk, WorkloadOptimizer
from tests.detectors import third_party

RunCommand = Callable[..., Any]
ScanJson = Callable[..., dict[str, Any]]


def _file(name: str, size: int = 100, content: str = "a") -> SourceFile:
    return SourceFile(name, name.encode(), 0, size, 0, 0, Digest(f"sha256:{content}"), "c")


def _batch(count: int) -> Batch:
    return Batch("s-1", "s", ("d",), tuple(_file(f"f{number:03}") for number in range(count)), 1.0)


HANGING = threading.Event()


def _work(batch: Batch) -> str:
    """Stand for a task of a worker in this process; one never ends by itself."""
    if batch.name == "s-3":
        HANGING.wait()
    return batch.name


def _a_second_a_file(batch: Batch) -> Prediction:
    seconds = float(len(batch.files))
    return Prediction(seconds, seconds / 2, seconds * 2)


def _record(seconds: float, *, ended: bool = False) -> BatchRecord:
    return BatchRecord("s-1", "w", 0.0, seconds, 1.0, 1, 0.5, 2.0, ended=ended)


@given(st.integers(1, 40), st.floats(0, 100))
def test_nothing_begins_that_is_not_expected_to_end(count: int, left_s: float) -> None:
    """What begins has its stated interval before the end; and it is as much of the batch as that allows."""
    gate = DeadlineGate(1_000.0, _a_second_a_file)
    whole = _batch(count)
    begun = gate.admit(whole, 1_000.0 - left_s)

    fits = min(count, int((1_000.0 - (1_000.0 - left_s)) / 2))
    assert (len(begun.files) if begun else 0) == fits
    if begun is not None:
        assert begun.files == whole.files[:fits]
        assert (begun.predicted_s, begun.low_s, begun.high_s) == (fits, fits / 2, fits * 2)
        assert [batch for batch, _ in gate.running(1_000.0)] == [begun]
        gate.left(begun.name)
    assert gate.running(1_000.0) == ()


def test_a_predictor_that_lies_is_counted() -> None:
    """Of durations far beyond their interval, those that were ended count; what was undecided is in no figure."""
    honest = [_record(1.0)] * 19
    lies = [_record(3.0)] * 4 + [_record(9.0, ended=True)]
    undecided = [_record(1.0, ended=True)]
    silent = [BatchRecord("s-1", "w", 0.0, 5.0, 1.0, 1)]

    good, bad = calibration(honest), calibration(honest + lies + undecided + silent)
    assert (good.batches, good.inside, good.undecided, good.holds) == (19, 19, 0, True)
    assert (bad.batches, bad.inside, bad.undecided) == (24, 19, 1)
    assert calibration(lies).share == 0
    assert not calibration(lies).holds
    assert (calibration([]).share, calibration([]).holds) == (None, True)
    assert warnings_of(10.0, 9.0, honest) == []
    told = "; ".join(warnings_of(10.0, 12.5, lies))
    assert "ended 2.5 s after its deadline of 10 s" in told
    assert "1 batches were expected to end in time, and were ended" in told
    assert "0 of 5 durations were inside, where 90% were to be" in told


def test_the_interval_of_a_share_is_wilsons() -> None:
    """Held against figures of the literature: 81 of 263 (Newcombe, Statistics in Medicine 17, 1998, table I)."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        wilson(2, 1)


def test_durations_are_written_in_one_way() -> None:
    """A deadline that is misread ends a night after a minute."""
    assert [seconds_of(text) for text in ("90s", "20m", "1.5h")] == [90, 1200, 5400]
    for text in ("20", "", "m", "-5m", "0s", "1d", "5 m", "nan"):
        with pytest.raises(UsageError):
            seconds_of(text)


def test_what_changed_goes_first_then_what_had_findings() -> None:
    """The order of risk, file by file: changed or new, most found before, cheapest."""
    files = [_file(name, size) for name, size in (("big", 900), ("clean", 5), ("found", 500), ("new", 800))]
    files.append(_file("changed", 700, "b"))
    known = {
        (file.raw, "d"): (Digest("sha256:a"), 3.0 if file.path == "found" else 0.0)
        for file in files
        if file.path != "new"
    }
    risk = {path: place for (path, _), place in risk_of(files, ["d"], [known]).items()}
    batches = WorkloadOptimizer().plan("s", ("d",), files, 1, BatchLimits(files=2), risk=Risk(60.0, risk))

    assert [[file.path for file in batch.files] for batch in batches] == [
        ["changed", "new"], ["found", "clean"], ["big"],
    ]  # fmt: skip


def test_an_edited_file_is_planned_first(small_tree: Path, tmp_path: Path) -> None:
    """The engine remembers what it answered for, so that an edit is looked at even if time ends soon."""
    for number in range(6):
        (small_tree / f"more{number}.c").write_text(f"int more{number};\n")
    (small_tree / "more0.c").write_text("int f(int n) { if (n) goto out; out: return n; }\n" * 3)
    options = ScanOptions((small_tree,), ("power-of-ten-c",), "inline", 1, cache=tmp_path / "cache", use_cache=False)
    with Scan(options) as first:
        first.run()
    (small_tree / "more4.c").write_text("int other;\n")
    with Scan(dataclasses.replace(options, deadline_s=3_600.0)) as second:
        second.snapshot()
        (stage,) = second.plan()

    order = [file.path for batch in stage.batches for file in batch.files]
    assert order[:2] == ["more4.c", "more0.c"]
    assert sorted(order) == sorted(file.name for file in small_tree.glob("*.c"))


def test_with_time_enough_nothing_is_left_and_the_findings_are_the_same(scan_json: ScanJson, small_tree: Path) -> None:
    """A deadline that is not met by anything must change nothing but the order."""
    names = ("--detectors", "power-of-ten-c,power-of-ten-python,ruff,flawfinder", "--no-cache")
    plain = scan_json(small_tree, *names)
    timed = scan_json(small_tree, *names, "--deadline", "2h")

    assert timed["summary"]["findings_digest"] == plain["summary"]["findings_digest"]
    assert timed["summary"]["whole"]
    assert timed["deadline"]["reached"] == timed["summary"]["executed"] == plain["summary"]["executed"]
    assert timed["deadline"]["durations"] > 0
    assert "deadline" not in plain


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment in which the third party's detectors are found."""
    folder = tmp_path / "site"
    folder.mkdir()
    return {**os.environ, "PYTHONPATH": str(third_party.install(folder))}


def _lie(cache: Path, detector: str) -> None:
    """Plant a history in which a detector's batches take no time."""
    optimizer = WorkloadOptimizer()
    for _ in range(40):
        optimizer.observe(detector, 100, 0.001, language="text", files=1)
    with ResultCache(cache) as store:
        store.remember_timings(optimizer.timings())


@pytest.mark.parametrize(
    ("detector", "content"),
    [("shell-tool", "tool-waits {gate}\n"), ("third-party", "sleep-once {gate}\n")],
)
def test_a_predictor_that_lies_makes_no_run_late_and_is_told(  # fixtures and parameters
    pool_command: RunCommand, environment: dict[str, str], tmp_path: Path, detector: str, content: str
) -> None:
    """A tool and a rule that never end are left at the deadline; the run says what was not reached, and who lied."""
    tree, cache, gate = tmp_path / "tree", tmp_path / "cache", tmp_path / "gate"
    tree.mkdir()
    gate.write_text("")
    (tree / "waits.txt").write_text(content.format(gate=gate))
    _lie(cache, detector)
    arguments = (tree, "--detectors", detector, "--cache", cache, "--cluster", "inline", "--fail-on", "never")
    done = pool_command("scan", *arguments, "--deadline", "8s", "--json", env=environment)
    result = msgspec.json.decode(done.stdout)

    assert done.returncode == 4, done.stderr.decode()
    assert gate.with_suffix(".begun").exists(), "it began, since it was predicted to end"
    (entry,) = result["not_analysed"]
    assert (entry["path"], entry["detector"], entry["reason"]) == ("waits.txt", detector, "not-reached")
    assert entry["detail"] == "it was being analysed when the time was up"
    told, problems = result["deadline"], "; ".join(result["summary"]["problems"])
    assert (told["reached"], told["durations"], told["inside"], told["share"]) == (0, 1, 0, "0.000")
    assert "1 of 1 units were not reached within 8 s" in problems
    assert "0 of 1 durations were inside" in problems
    assert told["ended_ms"] <= told["limit_ms"] or "after its deadline" in problems
    assert not result["summary"]["whole"]

    # What was learnt of it, the next run does not begin again.
    gate.with_suffix(".begun").unlink()
    again = pool_command("scan", *arguments, "--deadline", "2s", env=environment)
    assert again.returncode == 4
    assert not gate.with_suffix(".begun").exists()
    assert b"deadline 2 s: 0 of 1 units reached (0.0%)" in again.stdout
    assert b"THIS RUN IS NOT WHOLE" in again.stdout


def test_a_cluster_is_left_at_the_end_and_begins_nothing_that_would_not_end() -> None:
    """On Dask, too: no more is handed over than runs at once, and what hangs is not waited for."""
    from distributed import Client

    batches = [msgspec.structs.replace(_batch(1), name=f"s-{number}") for number in range(5)]
    gate = DeadlineGate(time.monotonic() + 3.0, lambda batch: Prediction(0.1, 0.1, 9.0 if batch.name == "s-1" else 0.2))

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
        executor = ParallelExecutor(DaskBackend(client, 1, "here"), gate)
        results = list(executor.run(Call(batch.name, _work, (batch,), about=batch) for batch in batches))
        HANGING.set()

    found = {result.call.about.name: result.value or type(result.error) for result in results}
    assert found == {"s-0": "s-0", "s-1": NotAdmitted, "s-2": "s-2"}
    assert [batch.name for batch, _ in gate.running(gate.ends_s)] == ["s-3"]
    assert list(executor.run([Call("s-9", _work, (batches[0],), about=batches[0])])) == [], "the end is the end"


def test_what_was_not_reached_takes_no_part_in_what_is_said_of_the_whole_tree(
    scan_json: ScanJson, environment: dict[str, str], tmp_path: Path
) -> None:
    """A rule over the tree that saw half of it would say what is not so; a baseline's finding is not gone either."""
    tree, gate, base = tmp_path / "tree", tmp_path / "gate", tmp_path / "base.json"
    tree.mkdir()
    gate.write_text("")
    (tree / "a.txt").write_text("twin\n")
    (tree / "b.txt").write_text("twin\n")
    (tree / "c.txt").write_text("bad\n")
    arguments = ("--detectors", "third-party", "--cluster", "inline", "--workers", "1", "--no-cache")
    before = scan_json(tree, *arguments, env=environment)
    base.write_bytes(msgspec.json.encode(before))
    (tree / "c.txt").write_text(f"sleep-once {gate}\n")
    cut = scan_json(tree, *arguments, "--deadline", "6s", "--baseline", base, env=environment)

    assert {"TP-twin", "TP-bad"} <= {item["rule"] for item in before["findings"]}
    assert "c.txt" in {entry["path"] for entry in cut["not_analysed"]}
    assert "TP-twin" not in {item["rule"] for item in cut["findings"]}
    assert "c.txt" not in {item["path"] for item in cut.get("absent", ())}
    assert "over the whole tree were not run" in "; ".join(cut["summary"]["problems"])


@pytest.mark.parametrize("given_", ["soon", "0s", "12"])
def test_a_deadline_that_is_none_is_refused(pool_command: RunCommand, small_tree: Path, given_: str) -> None:
    """A run without end, where one was asked for, would be found in the morning."""
    done = pool_command("scan", small_tree, "--deadline", given_)

    assert done.returncode == 2
    assert b"deadline" in done.stderr
