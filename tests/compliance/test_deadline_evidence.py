"""Evidence of a run that a deadline cut: it says what was not reached, and nobody can make it look whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance import coverage
from compliance.coverage import Cell
from compliance.evidence import collect, verify
from compliance.formats import scan_json
from compliance.signing import SigningKey
from compliance.verify_alone import verify as verify_alone
from detectors.model import BatchRecord, DeadlineRecord, NotAnalysed, RunRecord
from tests.compliance.conftest import make_run
from tests.compliance.test_coverage import _resealed

LEFT = "clean.c"


def cut_run() -> RunRecord:
    """Return the fixed run as it is when time ends before one file, with batches of which half lie."""
    run = make_run()
    units = tuple(unit for unit in run.units if unit.path != LEFT)
    batches = tuple(
        BatchRecord(f"power-of-ten-c-{number}", "host:1", 0.0, seconds, 1.0, 1, 0.5, 2.0, ended=number == 7)
        for number, seconds in enumerate((1.0, 1.5, 0.5, 2.0, 9.0, 7.5, 0.1, 30.0))
    )
    return msgspec.structs.replace(
        run,
        units=units,
        batches=batches,
        executed=len(units),
        not_analysed=(*run.not_analysed, NotAnalysed(LEFT, "power-of-ten-c", "not-reached", "the time was up")),
        whole=False,
        problems=("1 of 4 units were not reached within 1 s",),
        deadline=DeadlineRecord(1.0, 0.2),
    )


def _both(folder: Path) -> tuple[bool, set[str]]:
    """Return the verdict of both verifiers, which must agree in what is wrong, too."""
    theirs = verify(folder)
    alone = verify_alone(folder)
    bad = {check.file for check in theirs.checked if not check.ok}
    assert bad == {check.file for check in alone.checks if check.problem}
    assert theirs.ok == alone.ok
    return theirs.ok, bad


def test_says_what_was_not_reached_and_what_predictions_were_worth(tmp_path: Path, key: SigningKey) -> None:
    """A state of its own, the share reached, and the share of durations inside their interval; both verifiers agree."""
    run, folder = cut_run(), tmp_path / "evidence"
    collect(run, folder, key)
    statement = coverage.stated(run)
    row = next(row for row in statement.files if row.path == LEFT)

    assert _both(folder) == (True, set())
    assert statement.cells[row.cells[0]] == Cell("not-reached")
    assert (statement.whole, statement.planned, statement.accounted) == (False, 4, 3)
    assert statement.detectors[0].counts["not-reached"] == 1
    told = json.loads((folder / "coverage.json").read_bytes())["deadline"]
    assert told == {
        "limit_ms": 1000, "ended_ms": 1500, "reached": 3, "durations": 8, "inside": 4, "undecided": 0,
        "stated": "0.900", "share": "0.500", "interval": ["0.215", "0.785"],
    }  # fmt: skip
    assert json.loads(scan_json.dumps(run))["deadline"] == told
    assert "not-reached" in (folder / "report.html").read_text()
    assert "deadline" not in json.loads(coverage.dumps(make_run())), "only a run that had one speaks of it"


def test_what_was_not_reached_is_never_whole() -> None:
    """Neither the engine nor a reader takes such a record for a whole run, or for one without a deadline."""
    run = cut_run()
    for change in ({"whole": True, "planned": len(run.units)}, {"deadline": None}):
        with pytest.raises(ValueError, match="not reached"):
            msgspec.structs.replace(run, **change)


def _edited(data: bytes, change: Any) -> bytes:
    told = json.loads(data)
    change(told)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("coverage.json", lambda told: told["deadline"].update(reached=4)),
        ("coverage.json", lambda told: told["deadline"].update(share="0.900", inside=7)),
        ("coverage.json", lambda told: told["deadline"].update(ended_ms=900)),
        ("coverage.json", lambda told: told.pop("deadline")),
        ("coverage.json", lambda told: told.update(accounted=4)),
        ("coverage.json", lambda told: told["cells"][-1].update(state="analysed")),
        ("run.json", lambda told: told.update(whole=True, planned=3)),
        ("run.json", lambda told: told.update(deadline=None)),
        ("run.json", lambda told: told["batches"][4].update(seconds=1.0)),
        (
            "run.json",
            lambda told: (told["units"].append({**told["units"][0], "path": LEFT}), told.update(executed=4)),
        ),
    ],
)
def test_a_signer_cannot_make_it_look_better(tmp_path: Path, key: SigningKey, name: str, change: Any) -> None:
    """Each edit is found by both, though the owner of the key signed it again."""
    run, folder = cut_run(), tmp_path / "evidence"
    collect(run, folder, key)
    _resealed(folder, key, run, name, _edited((folder / name).read_bytes(), change))

    ok, bad = _both(folder)
    assert not ok
    assert bad <= {"coverage.json", "run.json"}
