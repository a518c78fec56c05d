"""What other software reads: SARIF by its official schema, Parquet, HTML without a network, CI annotations."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import jsonschema
import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.errors import EvidenceExists
from compliance.formats import csv as csv_format
from compliance.formats import github, gitlab, html, junit, run_json, sarif, scan_json, tables
from detectors.findings import as_json
from detectors.model import Finding, Region, RunRecord
from tests.compliance.conftest import HOSTILE, make_run

SCHEMA = json.loads((Path(__file__).parents[2] / "detectors" / "sarif-schema-2.1.0.json").read_text())
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@pytest.mark.parametrize("whole", [True, False])
def test_sarif_is_valid_by_its_schema(whole: bool) -> None:
    """A log that a viewer refuses is no evidence."""
    log = json.loads(sarif.dumps(make_run(whole=whole)))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)

    results = [result for run in log["runs"] for result in run["results"]]
    assert len(results) == 3
    assert {tuple(result["partialFingerprints"]) for result in results} == {("edp/v1",)}
    assert [result["suppressions"] for result in results if "suppressions" in result] == [
        [{"kind": "inSource", "justification": "# noqa"}]
    ]
    assert all(run["invocations"][0]["executionSuccessful"] is whole for run in log["runs"])
    notes = [note for run in log["runs"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert sum("descriptor" in note for note in notes) == 3  # the unreadable one counts for both detectors
    assert "/src" not in json.dumps(log)


def test_sarif_of_an_empty_run_is_valid() -> None:
    """No findings is an answer, too."""
    jsonschema.Draft4Validator(SCHEMA).validate(json.loads(sarif.dumps(make_run(found=()))))


@settings(max_examples=40, deadline=None)
@given(NAMES.filter(lambda name: not name.startswith("/")))
def test_sarif_uris_give_the_path_back(path: str) -> None:
    """Whatever a file is called, its URI is valid and means that file."""
    finding = Finding("P10-R1-goto", "note", "m", Region(1))
    log = json.loads(sarif.dumps(make_run(found=((path, "power-of-ten-c", finding),))))
    uri = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]

    assert uri.isascii()
    assert unquote(uri) == path
    assert ":" not in uri.partition("/")[0]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(run: RunRecord, folder: Path) -> _Page:
    html.write(run, folder / "report.html")
    page = _Page()
    page.feed((folder / "report.html").read_text("utf-8"))
    return page


def test_the_report_shows_hostile_text_as_text(run: RunRecord, tmp_path: Path) -> None:
    """A file name must not become a script in the auditor's browser."""
    page = _page(run, tmp_path)

    assert page.tags.count("script") == 2, "the page's own, and its data"
    assert HOSTILE in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    (policy,) = [value for name, value in page.attributes if name == "content" and value and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_the_report_loads_nothing(run: RunRecord, tmp_path: Path) -> None:
    """It must open without a network, and tell nobody that it was opened."""
    page = _page(run, tmp_path)
    links = [value for name, value in page.attributes if name in {"src", "href", "xlink:href"} and value]

    assert all(link.startswith("#") for link in links)
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name == "src"]
    assert page.tags.count("svg") == 1


def test_the_report_is_the_same_for_the_same_run(run: RunRecord, tmp_path: Path) -> None:
    """Bytes that change by themselves cannot be compared."""
    html.write(run, tmp_path / "a")
    html.write(run, tmp_path / "b")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parquet_has_every_finding_and_its_schema_also_when_empty(run: RunRecord, tmp_path: Path) -> None:
    """Tables of two runs must be appendable, also when one is empty."""
    tables.write(run, tmp_path / "a.parquet")
    tables.write(make_run(found=()), tmp_path / "b.parquet")
    full, empty = pq.read_table(tmp_path / "a.parquet"), pq.read_table(tmp_path / "b.parquet")

    shown = ({"waived": ""} | as_json(finding) for finding in run.findings)
    assert full.to_pylist() == [{k: v for k, v in row.items() if k != "related"} for row in shown]
    assert (full.schema, empty.num_rows) == (empty.schema, 0)


def test_run_json_holds_sources_plan_and_origin(run: RunRecord, tmp_path: Path) -> None:
    """An auditor asks on what, with what, and what was taken from the cache."""
    run_json.write(run, tmp_path / "run.json")
    record = json.loads((tmp_path / "run.json").read_text())

    assert record["files"][0]["digest"].startswith("sha256:")
    assert {"detectors", "units", "batches", "not_analysed", "excluded"} <= set(record)


@pytest.mark.parametrize("form", [html, run_json, sarif, tables], ids=lambda form: form.NAME)
def test_a_file_of_the_evidence_is_written_once(form: Any, run: RunRecord, tmp_path: Path) -> None:
    """Two formats of one name, or two runs in one folder, would leave the evidence of one of them."""
    form.write(run, tmp_path / form.NAME)
    first = (tmp_path / form.NAME).read_bytes()

    with pytest.raises(EvidenceExists):
        form.write(run, tmp_path / form.NAME)
    assert (tmp_path / form.NAME).read_bytes() == first


@pytest.mark.parametrize(
    "change",
    [{"executed": 0}, {"planned": 99}, {"whole": False}, {"seconds": -1.0}, {"workers": 0}],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, Any], run: RunRecord) -> None:
    """Numbers that do not add up in `run.json` would be an auditor's first doubt, and nobody would have noticed."""
    record = msgspec.to_builtins(run) | change

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(record, RunRecord)


def test_scan_json_has_the_fixed_keys(run: RunRecord) -> None:
    """INTERFACE fixes them; others read them."""
    shown = json.loads(scan_json.dumps(run))

    assert set(shown) == {"findings", "not_analysed", "summary"}
    assert set(shown["findings"][0]) >= {
        "rule", "path", "line", "column", "level", "message", "detector", "fingerprint", "baseline", "suppressed",
    }  # fmt: skip
    assert set(shown["summary"]) >= {"files", "executed", "cached", "seconds", "workers", "findings_digest"}


def test_ci_formats_escape_and_leave_out_what_is_suppressed(run: RunRecord) -> None:
    """A newline in a message must not start a new workflow command."""
    finding = Finding("R", "error", "one\n::error::two", Region(1))
    lines = github.dumps(make_run(found=(("a,b:c.c", "d", finding),))).decode().splitlines()
    issues = json.loads(gitlab.dumps(run))

    assert lines == ["::error file=a%2Cb%3Ac.c,line=1,col=1,title=R::one%0A::error::two"]
    assert [issue["severity"] for issue in issues] == ["major", "minor"]
    assert len(github.dumps(run).splitlines()) == 2


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=20), NAMES)
def test_junit_counts_each_finding_once_and_is_xml_whatever_the_tree_says(message: str, path: str) -> None:
    """A CI server that cannot read the report shows a green build."""
    finding = Finding("P10-R1-goto", "error", message, Region(1))
    root = ElementTree.fromstring(junit.dumps(make_run(found=((path, "power-of-ten-c", finding),))))

    suites = {suite.get("name"): suite for suite in root}
    suite = suites["power-of-ten-c"]
    assert suite.get("failures") == "1" == str(len(suite.findall("testcase/failure")))
    assert int(suite.get("errors", "")) == len(suite.findall("testcase/error"))
    assert all(int(suite.get("tests", "")) == len(suite) for suite in root)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'fine, "quoted"\nnext'])
def test_csv_gives_every_text_back_and_no_spreadsheet_runs_it(text: str) -> None:
    """A message of the scanned tree that is a formula would run on whoever opens the table."""
    finding = Finding("P10-R1-goto", "error", text, Region(1))
    table = csv_format.dumps(make_run(found=(("a.c", "power-of-ten-c", finding),))).decode()
    (row,) = csv.DictReader(io.StringIO(table, newline=""))

    assert row["message"].removeprefix("'") == text
    assert row["message"][0] not in "=+-@\t\r\n"
    assert (row["path"], row["line"], row["suppressed"]) == ("a.c", "1", "False")
