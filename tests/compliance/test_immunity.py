"""What a tree plants against tools is told, file by file, and each claim of immunity is one that a test plants."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.errors import EvidenceExists
from compliance.formats import immunity
from detectors.detector import discover
from detectors.model import Excluded
from tests.compliance.conftest import make_run

THREATS: list[dict[str, Any]] = json.loads(immunity.THREATS.read_bytes())
PLANTED = "".join(
    file.read_text() for file in sorted((Path(__file__).parents[1]).glob("*/test_*.py")) if file != Path(__file__)
)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat["names"][0])
def test_each_claim_is_planted_by_a_test_and_names_known_tools(threat: dict[str, Any]) -> None:
    """A claim of immunity that nobody tried is worth nothing."""
    for pattern in threat["names"]:
        assert f'"{pattern.replace("*", "a")}"' in PLANTED, f"no test plants {pattern}"
    assert set(threat["tools"]) <= {detector.name for detector in discover()}


def test_every_planted_file_is_told_with_the_tools_of_the_run() -> None:
    """When this fails, an auditor does not see what the tree under audit tried."""
    run = make_run()
    paths = [f"deep/{name.replace('*', 'any')}" for threat in THREATS for name in threat["names"]]
    files = tuple(msgspec.structs.replace(run.files[0], path=path, raw=path.encode()) for path in paths)
    told = immunity.immunity_of(msgspec.structs.replace(run, files=files))

    assert {one.path for one in told.neutralised} == set(paths)
    ran = {detector.name for detector in run.detectors}
    for one in told.neutralised:
        name = one.path.rpartition("/")[2]
        of_it = [threat for threat in THREATS if any(fnmatchcase(name, pattern) for pattern in threat["names"])]
        assert one.tools in [tuple(tool for tool in threat["tools"] if tool in ran) for threat in of_it]


def test_markers_and_scope_are_told(tmp_path: Path) -> None:
    """A finding that a comment silenced, and a file that a rule hid, must be found by who reads this file alone."""
    run = msgspec.structs.replace(make_run(), excluded=(Excluded("build", ".gitignore:1: build", 3),))
    file = tmp_path / immunity.NAME
    immunity.write(run, file)
    told = msgspec.json.decode(file.read_bytes(), type=immunity.Immunity)

    (silenced,) = told.silenced
    (suppressed,) = (item for item in run.findings if item.suppressed)
    assert (silenced.path, silenced.marker, silenced.rules) == (suppressed.path, "# noqa", (suppressed.finding.rule,))
    assert told.kept_out == run.excluded
    with pytest.raises(EvidenceExists):
        immunity.write(run, file)
