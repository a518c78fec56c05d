"""OSCAL assessment results: valid, the same for equal runs, and never satisfied by silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.evidence import left_out
from compliance.formats import oscal
from detectors.detector import discover
from detectors.model import DetectorRecord, Finding, Region, RuleRecord, RunRecord, Suppression
from tests.compliance.conftest import ZERO, make_run


def result(run: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(oscal.dumps(run))["assessment-results"]["results"][0]
    return found


def states(run: RunRecord) -> dict[str, str]:
    return {item["title"].split()[0]: item["target"]["status"]["state"] for item in result(run).get("findings", ())}


def calm(*found: tuple[str, str, Finding], **changes: Any) -> RunRecord:
    """Return a run that left nothing out."""
    return msgspec.structs.replace(make_run(found=found), not_analysed=(), **changes)


def test_it_is_read_back_by_the_schemas_own_models(run: RunRecord, tmp_path: Path) -> None:
    """When this fails, no OSCAL tool takes it."""
    from trestle.oscal.assessment_results import AssessmentResults

    file = tmp_path / "oscal.json"
    oscal.write(run, file)
    read: Any = AssessmentResults.oscal_read(file)

    assert read.results[0].title == "Static analysis"
    assert read.metadata.version == run.version
    assert read.oscal_serialize_json_bytes() + b"\n" == file.read_bytes()


def test_equal_runs_give_equal_bytes_but_for_times(run: RunRecord) -> None:
    """Ids are made from what they name, so that a difference between two nights is a difference."""
    again = msgspec.structs.replace(run, run_id="f" * 32, workers=7, batches=())
    later = msgspec.structs.replace(again, started="2027-01-01T00:00:00.000Z", seconds=9.0)
    times = ('"last-modified":"', '"start":"', '"end":"', '"collected":"')

    def without_times(data: bytes) -> str:
        text = data.decode()
        for mark in times:
            head, *parts = text.split(mark)
            text = head + "".join(part.split('"', 1)[1] for part in parts)
        return text

    assert oscal.dumps(again) == oscal.dumps(run)
    assert oscal.dumps(later) != oscal.dumps(run)
    assert without_times(oscal.dumps(later)) == without_times(oscal.dumps(run))
    other = msgspec.structs.replace(run, command=("detectors=ruff",))
    assert result(other)["uuid"] != result(run)["uuid"]


def test_findings_and_gaps_and_broken_runs_are_never_satisfied() -> None:
    """A control is satisfied by an analysis that found nothing, not by one that did not look."""
    goto = Finding("P10-R1-goto", "warning", "goto", Region(1))
    muted = msgspec.structs.replace(goto, suppression=Suppression("/* p10 */", "reason", "owner"))
    note = msgspec.structs.replace(goto, level="note")

    assert set(states(calm()).values()) == {"satisfied"}
    assert states(calm(("a.c", "power-of-ten-c", goto)))["sa-8.7"] == "not-satisfied"
    assert states(calm(("a.c", "power-of-ten-c", goto)))["sa-11.1"] == "satisfied"
    assert set(states(calm(("a.c", "power-of-ten-c", muted), ("b.c", "power-of-ten-c", note))).values()) == {
        "satisfied"
    }
    assert set(states(make_run(found=())).values()) == {"not-satisfied"}
    assert set(states(calm(whole=False, problems=("a unit has no answer",))).values()) == {"not-satisfied"}


def test_a_control_that_nothing_speaks_for_is_not_in_the_results() -> None:
    """Leaving a detector out must not look like passing its controls."""
    only = calm(detectors=(DetectorRecord("detect-secrets", "1", ZERO, ZERO, ("c",)),))
    foreign = calm(detectors=(DetectorRecord("somebody-elses", "1", ZERO, ZERO, ("c",)),))

    assert set(states(only)) == {"ia-5.7", "sa-11.1", "PO.3.3", "PW.7.2"}
    assert states(foreign) == {}
    assert result(foreign)["reviewed-controls"]["control-selections"] == [{"include-all": {}}]


def test_rules_are_matched_by_whole_parts_of_their_ids() -> None:
    """`P10-R1` speaks for P10-R1-goto and not for P10-R10."""
    rule = RuleRecord("P10-R10-x", "warning", "", "")
    run = calm(detectors=(DetectorRecord("power-of-ten-c", "1", ZERO, ZERO, ("c",), (rule,)),))

    assert states(run) == {}


def test_the_mapping_knows_every_detector_and_rule() -> None:
    """A rule that is added and speaks for no control would be missing from every assessment without a word."""
    known = oscal.mapping()
    ids = [rule.id for detector in discover() for rule in detector.rules() if rule.id.startswith("P10-")]
    tools = [f"{detector.name}/" for detector in discover() if not detector.rules()]
    unknown = [
        name
        for name in [*ids, *tools]
        if not any(name == rule or name.startswith((f"{rule}-", f"{rule}/")) for rule in known.rules)
    ]

    assert ids
    # Suppressions are no rule of the paper.
    assert [name for name in unknown if "suppression" not in name] == []


@pytest.mark.parametrize("missing", [True, False])
def test_an_installation_without_the_extra_says_so(monkeypatch: pytest.MonkeyPatch, missing: bool) -> None:
    """Evidence without this file is no fault, but must not be a surprise."""
    import importlib.util

    if missing:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert [word for told in left_out() for word in told.split() if "oscal" in word] == (
        ["oscal.json", "'enterprise-detector-pool[oscal]'"] if missing else []
    )
