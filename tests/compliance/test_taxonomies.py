"""CWE, MISRA and CERT: only for rules that there are, only entries that can be, each with its source."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema_rs
import msgspec

from compliance.formats import sarif
from compliance.taxonomies import mappings, taxa_of, taxonomies
from detectors import findings
from detectors.detector import discover
from detectors.model import Finding, Region
from tests.compliance.conftest import make_run

SCHEMA = json.loads((Path(__file__).parents[2] / "detectors" / "sarif-schema-2.1.0.json").read_text())
FORMS = {
    "CWE": re.compile(r"[1-9]\d{0,3}"),
    "MISRA C:2012": re.compile(r"(?:Rule ([1-9]|1\d|2[0-2])\.\d{1,2}|Dir [1-4]\.\d{1,2})"),
    "SEI CERT C": re.compile(r"[A-Z]{3}\d\d-C"),
    "SEI CERT C++": re.compile(r"[A-Z]{3}\d\d-CPP"),
}


def test_each_mapping_is_of_a_rule_that_there_is_and_has_a_source() -> None:
    """A mapping of a rule that was renamed says nothing any more, and nobody sees it."""
    ours = {rule.id for detector in discover() for rule in detector.rules()}
    tools = {detector.name for detector in discover()}
    for one in mappings():
        assert len(one.source) > 10
        for rule, ids in one.rules.items():
            assert rule in ours or rule.partition("/")[0] in tools, rule
            assert ids, rule
            assert all(FORMS[one.taxonomy].fullmatch(id_) for id_ in ids), (rule, ids)
            assert not rule.startswith("P10-") or rule in ours, rule


def test_sarif_relates_rules_to_entries_that_are_in_the_run() -> None:
    """A viewer follows the index: a wrong one shows another weakness."""
    goto = ("a.c", "power-of-ten-c", Finding("P10-R1-goto", "warning", "m", Region(1)))
    bandit = ("a.c", "ruff", Finding("ruff/S602", "warning", "m", Region(1)))
    log = json.loads(sarif.dumps(make_run(found=(goto, bandit))))
    jsonschema_rs.validator_for(SCHEMA).validate(log)

    told = set()
    for run in log["runs"]:
        for rule in run["tool"]["driver"]["rules"]:
            for relationship in rule.get("relationships", ()):
                target = relationship["target"]
                component = run["taxonomies"][target["toolComponent"]["index"]]
                assert component["name"] == target["toolComponent"]["name"]
                assert component["taxa"][target["index"]]["id"] == target["id"]
                told.add((rule["id"], component["name"], target["id"]))
    assert told == {
        ("P10-R1-goto", "MISRA C:2012", "Rule 15.1"), ("P10-R1-goto", "MISRA C:2012", "Rule 21.4"),
        ("ruff/S602", "CWE", "78"),
    }  # fmt: skip
    tags = [rule.get("properties") for run in log["runs"] for rule in run["tool"]["driver"]["rules"]]
    assert {"tags": ["external/cwe/cwe-78"]} in tags


def test_a_rule_without_a_mapping_has_none() -> None:
    """Silence is the honest answer where nothing supports one."""
    assert taxa_of("P10-R4-function-length") == ()
    assert {one.name for one in taxonomies()} == set(FORMS)
    located, _ = findings.settle([("a.c", "power-of-ten-c", Finding("P10-R4-function-length", "note", "m", Region(1)))])
    log = json.loads(sarif.dumps(msgspec.structs.replace(make_run(found=()), findings=located)))
    assert "relationships" not in next(r for r in log["runs"][0]["tool"]["driver"]["rules"] if "R4" in r["id"])
