"""SARIF that GitHub takes: within each of its limits, the worst first, and nothing cut in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from compliance.formats import sarif_github
from detectors import findings
from detectors.model import DetectorRecord, Finding, Level, Region, Related, RunRecord, Suppression
from tests.compliance.conftest import ZERO, make_run

SCHEMA = json.loads((Path(__file__).parents[2] / "detectors" / "sarif-schema-2.1.0.json").read_text())
LEVELS: tuple[Level, ...] = ("note", "warning", "error")


def run_of(*found: tuple[str, str, Finding]) -> RunRecord:
    names = sorted({detector for _, detector, _ in found})
    records = tuple(DetectorRecord(name, "1", ZERO, ZERO, ("c",)) for name in names)
    located, _ = findings.settle(found)
    return msgspec.structs.replace(make_run(found=()), detectors=records, findings=located)


def finding(number: int, level: Level = "warning", **more: Any) -> Finding:
    return Finding(f"r{number % 3}", level, f"message {number}", Region(number + 1), context=str(number), **more)


def levels(log: dict[str, Any]) -> list[str]:
    return [result["level"] for run in log["runs"] for result in run["results"]]


def read(profile: sarif_github.Profile) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(profile.data)
    jsonschema_rs.validator_for(SCHEMA).validate(log)
    for run in log["runs"]:
        assert run["properties"]["leftOut"] == list(profile.cut)
        told = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
        assert set(profile.cut) <= set(told)
    return log


def test_a_run_within_the_limits_is_left_as_it_is() -> None:
    """Nothing is cut without need, and then nothing is said."""
    profile = sarif_github.profile(run_of(("a.c", "d", finding(1))))
    assert profile.cut == ()
    assert levels(read(profile)) == ["warning"]


def test_of_too_many_results_the_worst_stay() -> None:
    """GitHub shows 5,000 of a run; which, is not left to it."""
    found = [("a.c", "d", finding(number, LEVELS[number % 3])) for number in range(7_500)]
    profile = sarif_github.profile(run_of(*found))
    log = read(profile)

    assert sorted(levels(log)) == ["error"] * 2500 + ["warning"] * 2500
    assert profile.cut == ("2500 findings of d at level note are left out to keep within GitHub's limits",)


def test_of_too_many_tools_those_with_the_worst_results_stay() -> None:
    """A file with 21 runs is refused whole."""
    found = [("a.c", f"d{number:02}", finding(number, "note" if number < 3 else "warning")) for number in range(22)]
    profile = sarif_github.profile(run_of(*found))
    log = read(profile)

    names = {run["tool"]["driver"]["name"] for run in log["runs"]}
    assert len(names) == 20
    assert {f"d{number:02}" for number in range(3, 22)} <= names
    assert "of 22 detectors, 2 have no run in the file: d01, d02" in profile.cut
    assert sum("at level note" in told for told in profile.cut) == 2


def test_what_is_too_large_loses_its_least_severe(monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub answers 413 to a compressed file over its limit, and nothing is shown at all."""
    monkeypatch.setattr(sarif_github, "MAX_GZIP_BYTES", 20_000)
    found = [("a.c", "d", finding(number, LEVELS[number % 3])) for number in range(3_000)]
    profile = sarif_github.profile(run_of(*found))
    kept = levels(read(profile))

    assert len(gzip.compress(profile.data)) <= 20_000
    assert 0 < kept.count("error") <= 1000
    assert kept.count("note") == 0
    assert any("at level note" in told for told in profile.cut)


def test_suppressed_ones_open_no_alert_and_long_trails_are_short() -> None:
    """GitHub opens an alert for each result, whatever it says of suppression, and refuses a thousand places."""
    related = tuple(Related("a.c", line, "here") for line in range(1, 1200))
    profile = sarif_github.profile(
        run_of(("a.c", "d", finding(1, suppression=Suppression("# noqa"))), ("a.c", "d", finding(2, related=related)))
    )
    (result,) = read(profile)["runs"][0]["results"]

    assert len(result["relatedLocations"]) == 100
    assert profile.cut == (
        "1 suppressed or waived findings are left out", "1 findings have their first 100 related places alone",
    )  # fmt: skip
