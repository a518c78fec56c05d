"""Tables held against Great Expectations: bad, empty and short data fail, a broken suite is told from bad data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from compliance import expectations
from compliance.errors import DataInvalid, EvidenceError, ExpectationsMissing, SuiteBroken
from compliance.expectations import Table, check_tables, require_valid
from compliance.formats import tables
from compliance.ledger import Ledger
from compliance.ledger_export import export
from detectors import EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.model import RunRecord, TableCheck
from detectors.scan import ScanOptions, scan

pytestmark = pytest.mark.xdist_group("expectations")  # the library is imported once


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """The record of a real scan: findings, a file that no detector reads, one that cannot be read."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "a.c").write_text("int f(int n)\n{\n    if (n) goto out;\n    n++;\nout:\n    return n;\n}\n")
    (tree / "b.py").write_text("def down(n):\n    return down(n - 1) if n else eval(n)\n")
    (tree / "broken.py").write_text("def (:\n")
    (tree / "data.bin").write_bytes(bytes(range(256)))
    os.mkfifo(tree / "pipe.c")
    names = ("power-of-ten-c", "power-of-ten-python", "ruff")
    cache = tmp_path_factory.mktemp("cache")
    return scan(ScanOptions((tree,), detectors=names, cache=cache, cluster="inline", workers=1))


def _problems(table: Table) -> tuple[str, tuple[str, ...]]:
    (check,) = check_tables([table])
    return check.outcome, check.problems


def _with_frame(table: Table, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Table:
    return msgspec.structs.replace(table, frame=change(table.frame.copy()))


def test_the_tables_of_a_real_run_pass(real: RunRecord) -> None:
    """When this fails, sound runs are called bad, and nobody will look at the next alarm."""
    checked = expectations.validated(real)

    assert [(one.table, one.outcome, one.problems) for one in checked.validated] == [
        ("findings", "passed", ()), ("completeness", "passed", ()), ("batches", "passed", ())
    ]  # fmt: skip
    assert [one.rows for one in checked.validated] == [len(real.findings), 7, len(real.batches)]
    assert all(one.checks > 5 for one in checked.validated)
    require_valid(checked.validated)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f.iloc[0:0], "expect_table_row_count_to_be_between: 0, not"),
        (lambda f: f.iloc[:-1], "expect_table_row_count_to_be_between"),
        (lambda f: f.assign(fingerprint=f.fingerprint.iloc[0]), "to_be_unique on fingerprint"),
        (lambda f: f.assign(fingerprint="x" * 32), "to_match_regex on fingerprint"),
        (lambda f: f.assign(line=0), "to_be_between on line"),
        (lambda f: f.assign(level="fatal"), "to_be_in_set on level"),
        (lambda f: f.assign(rule=None), "to_not_be_null on rule"),
        (lambda f: f.assign(path="never/seen.c"), "to_be_in_set on path"),
        (lambda f: f.drop(columns="level"), "expect_table_columns_to_match_set: there are"),
        (lambda f: f.assign(more=1), "expect_table_columns_to_match_set: there are"),
    ],
)
def test_bad_findings_fail(real: RunRecord, change: Callable[[Any], Any], told: str) -> None:
    """When this fails, findings that were lost, doubled or damaged on the way pass for whole."""
    outcome, problems = _problems(_with_frame(expectations.findings_table(real), change))

    assert outcome == "failed"
    assert any(told in problem for problem in problems), problems


def test_a_short_parquet_file_fails(real: RunRecord, tmp_path: Path) -> None:
    """When this fails, the evidence's own file may hold less than the run found."""
    short = msgspec.structs.replace(real, findings=real.findings[1:])
    tables.write(short, tmp_path / "findings.parquet")

    outcome, _ = _problems(expectations.findings_table(real, tmp_path / "findings.parquet"))
    assert outcome == "failed"
    (tmp_path / "findings.parquet").write_bytes(b"no parquet")
    with pytest.raises(EvidenceError, match="cannot be read"):
        expectations.findings_table(real, tmp_path / "findings.parquet")


def test_a_file_without_an_answer_fails(real: RunRecord) -> None:
    """When this fails, a file that no detector answered for is taken for clean."""
    fewer = {"planned": real.planned - 1, "executed": real.executed - 1}
    lost = msgspec.structs.replace(real, units=real.units[1:], **fewer)
    silent = msgspec.structs.replace(real, not_analysed=())
    uncalled = msgspec.structs.replace(
        real,
        units=(*real.units, msgspec.structs.replace(real.units[0], path="nobody.c")),
        planned=real.planned + 1,
        executed=real.executed + 1,
    )

    assert "to_not_be_null on state" in str(_problems(expectations.completeness_table(lost)))
    assert "to_not_be_null on reason" in str(_problems(expectations.completeness_table(silent)))
    assert "row_count" in str(_problems(expectations.completeness_table(uncalled)))


def test_metrics_of_a_pool() -> None:
    """When this fails, a detector may drop out of the metrics, or fail more often than it ran."""
    with EnterpriseDetectorPool(1) as pool:
        pool.register_detector("length", len)
        pool.register_detector("idle", len)
        pool.execute_parallel([("length", ("abc",), {}), ("length", (3,), {})])
        metrics = pool.get_pool_metrics()
    good = expectations.metrics_table(metrics, ["length", "idle"])
    lacking = expectations.metrics_table({"detectors": {"length": metrics["detectors"]["length"]}}, ["length", "idle"])
    wrong = {"detectors": {"length": {**metrics["detectors"]["length"], "failed": 99}}}

    assert _problems(good) == ("passed", ())
    assert "equal_set on detector" in str(_problems(lacking))
    assert "greater_than_b" in str(_problems(expectations.metrics_table(wrong, ["length"])))
    with pytest.raises(UsageError):
        expectations.metrics_table({}, [])


def test_the_export_of_a_ledger(tmp_path: Path) -> None:
    """When this fails, a ledger's export with a gap, a double or a bad time passes."""
    Ledger.create(tmp_path / "ledger", tmp_path / "keys", b"a passphrase")
    with Ledger.open(tmp_path / "ledger", tmp_path / "keys", b"a passphrase") as ledger:
        ledger.append_all([{"type": "run.started"}, {"event": "executions-asked"}, {"n": 3}])
    lines: list[bytes] = []
    verdict = export(tmp_path / "ledger", b"a passphrase", lines.append, proofs=True)
    exported = b"".join(lines).splitlines()
    good = expectations.ledger_table(exported, verdict.records)

    assert _problems(good) == ("passed", ())
    assert list(good.frame["kind"]) == ["run.started", "executions-asked", "event"]
    for bad in (exported[1:], [exported[0], *exported], [exported[1], exported[0], *exported[2:]]):
        assert _problems(expectations.ledger_table(bad, verdict.records))[0] == "failed"
    with pytest.raises(EvidenceError, match="cannot be read"):
        expectations.ledger_table([b"{"], 1)


def test_a_broken_suite_is_told_from_bad_data() -> None:
    """When this fails, a mistake in an expectation blames the tree, or passes."""
    frame = pd.DataFrame({"a": [1, 2, 3]})

    def typing_mistake(gxe: Any, _rows: int) -> list[Any]:
        return [gxe.ExpectColumnValuesToBeBetween(column="aa", min_value=1)]

    def no_such_expectation(gxe: Any, _rows: int) -> list[Any]:
        return [gxe.ExpectColumnValuesToBePretty(column="a")]

    def bad_data(gxe: Any, _rows: int) -> list[Any]:
        return [gxe.ExpectColumnValuesToBeBetween(column="a", min_value=3)]

    suites = {"typo": typing_mistake, "unknown": no_such_expectation, "data": bad_data}
    checks = check_tables([Table(name, frame, ("a",), 3, suite) for name, suite in suites.items()])

    assert [check.outcome for check in checks] == ["broken", "broken", "failed"]
    assert checks[0].problems == ("expect_column_values_to_be_between on aa could not be evaluated",)
    assert checks[2].problems == ("expect_column_values_to_be_between on a: 2 of 3 rows",)
    with pytest.raises(SuiteBroken, match="typo: expect_column"):
        require_valid(checks)
    with pytest.raises(DataInvalid, match="data: expect_column"):
        require_valid(checks[2:])


def test_a_checkpoint_needs_tables() -> None:
    """When this fails, nothing is checked and it looks like success."""
    with pytest.raises(UsageError):
        check_tables([])


def test_no_cell_is_kept_and_the_docs_load_nothing(real: RunRecord, tmp_path: Path) -> None:
    """When this fails, a secret of the scanned tree stands in results or pages, or a page fetches from elsewhere."""
    secret = "S3CRET-IN-A-CELL"
    table = _with_frame(expectations.findings_table(real), lambda f: f.assign(level=secret, fingerprint=secret))
    (check,) = check_tables([table], docs=tmp_path / "docs")
    pages = list((tmp_path / "docs").rglob("*.html"))

    assert check.outcome == "failed"
    assert secret not in str(check)
    assert len(pages) >= 3
    for page in pages:
        text = page.read_text()
        assert secret not in text
        assert '<head><meta http-equiv="Content-Security-Policy" content="default-src \'self\'' in text
    with pytest.raises(EvidenceError, match="not an empty folder"):
        check_tables([table], docs=tmp_path / "docs")


def test_results_are_in_the_evidence(run: RunRecord, key: Any, tmp_path: Path) -> None:
    """When this fails, an auditor cannot tell that the tables were checked, or somebody may change what it showed."""
    from compliance.evidence import collect, verify

    check = TableCheck("findings", 3, 20, "failed", ("expect_column_values_to_be_unique on fingerprint: 2 of 3 rows",))
    _ = collect(msgspec.structs.replace(run, validated=(check,)), tmp_path / "evidence", key)
    told = json.loads((tmp_path / "evidence" / "run.json").read_bytes())["validated"]

    assert msgspec.convert(told, tuple[TableCheck, ...]) == (check,)
    file = tmp_path / "evidence" / "run.json"
    file.write_bytes(file.read_bytes().replace(b'"failed"', b'"passed"'))
    assert not verify(tmp_path / "evidence").ok


def test_without_the_extra_it_says_what_to_install(real: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, `--validate` without the extra ends in an import error."""
    find = expectations.importlib.util.find_spec
    monkeypatch.setattr(
        expectations.importlib.util, "find_spec",
        lambda name, *rest: None if name == "great_expectations" else find(name, *rest),
    )  # fmt: skip
    with pytest.raises(ExpectationsMissing, match=r"\[validation\]"):
        expectations.validated(real)


SOCKETS = """
import json, sys
opened = []
def hook(event, arguments):
    if event.startswith("socket."):
        opened.append([event, str(arguments[-1])])
sys.addaudithook(hook)
import socket
socket.socketpair()[0].close()
seen, opened[:] = len(opened), []
import pandas as pd
from compliance.expectations import Table, check_tables
from pathlib import Path
table = Table("t", pd.DataFrame({"a": [1]}), ("a",), 1, lambda gxe, rows: [gxe.ExpectColumnValuesToNotBeNull(column="a")])
(check,) = check_tables([table], docs=Path(sys.argv[1]))
print(json.dumps([seen, check.outcome, opened]), file=sys.__stdout__)
"""


def test_no_socket_is_opened(tmp_path: Path) -> None:
    """When this fails, something of a scan leaves the machine: every use of a socket is seen by an audit hook."""
    command = [sys.executable, "-c", SOCKETS, str(tmp_path / "docs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr

    seen, outcome, opened = json.loads(done.stdout)
    # urllib3, which the library imports, asks by a bind to loopback whether there is IPv6; nothing is ever connected.
    beyond = [use for use in opened if use[0] != "socket.__new__" and use != ["socket.bind", "('::1', 0)"]]
    assert seen > 0
    assert outcome == "passed"
    assert beyond == []
    assert len(opened) <= 2


def test_scan_validates_on_request(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path, small_tree: Path
) -> None:
    """When this fails, `--validate` says nothing, or its result does not reach the evidence."""
    done = pool_command(
        "scan", small_tree, "--detectors", "power-of-ten-c", "--validate", "--fail-on", "never",
        "--data-docs", tmp_path / "docs", "--evidence", tmp_path / "evidence",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert b"validated findings: passed" in done.stdout
    assert b"validated completeness: passed" in done.stdout
    validated = json.loads((tmp_path / "evidence" / "run.json").read_bytes())["validated"]
    assert [one["table"] for one in validated] == ["findings", "completeness", "batches"]
    assert (tmp_path / "docs" / "index.html").is_file()
