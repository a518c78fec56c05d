"""Other tools' results: all of them arrive, where they belong, and nothing that they say does harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from compliance.coverage import gaps
from compliance.formats import csv as csv_format
from compliance.formats import github, gitlab, html, junit, sarif, scan_json, tables
from detectors.errors import ImportUnusable
from detectors.model import LocatedFinding, RunRecord
from detectors.scan import ScanOptions, scan
from tests.detectors.git_trees import made


def result(uri: str | None = "a.c", line: int = 1, rule: str = "r1", **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"ruleId": rule, "message": {"text": "m"}} | more
    if uri is not None:
        physical = {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}
        told.setdefault("locations", [{"physicalLocation": physical}])
    return told


def log(*results: dict[str, Any], name: str = "Other Tool", **more: Any) -> dict[str, Any]:
    run = {"tool": {"driver": {"name": name, "semanticVersion": "1.2.3"}}, "results": list(results)} | more
    return {"version": "2.1.0", "runs": [run]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "a.c").write_text("int 😀 = 1;\nint b;\n")
    (folder / "sub dir" / "b.c").write_text("int c;\n")
    return folder


def taken(tree: Path, *logs: Any, detectors: tuple[str, ...] = (), **options: Any) -> RunRecord:
    files = []
    for number, one in enumerate(logs):
        file = tree.parent / f"log{number}.sarif"
        file.write_bytes(one if isinstance(one, bytes) else json.dumps(one).encode())
        files.append(file)
    return scan(ScanOptions((tree,), detectors, "inline", imports=tuple(files), **options))


def only(record: RunRecord) -> LocatedFinding:
    (item,) = record.findings
    return item


def test_all_results_arrive_and_the_others_are_counted(tree: Path) -> None:
    """N results in: N findings, less those that say that nothing is wrong, and the sum is in the record."""
    record = taken(
        tree,
        log(result(), result(), result("sub%20dir/b.c"), result(kind="pass"), result(baselineState="absent")),
        log(result(name := "a.c", rule="r2"), name="Second"),
    )
    assert name
    assert [(one.detector, one.results, one.findings, one.passed) for one in record.imports] == [
        ("import:other tool", 5, 3, 2), ("import:second", 1, 1, 0),
    ]  # fmt: skip
    assert [(item.path, item.finding.rule) for item in record.findings] == [
        ("a.c", "other tool/r1"), ("a.c", "other tool/r1"), ("a.c", "second/r2"), ("sub dir/b.c", "other tool/r1"),
    ]  # fmt: skip
    assert len({item.fingerprint for item in record.findings}) == 4
    assert record.whole
    assert gaps(record) == ()
    assert [(one.name, one.version, one.languages) for one in record.detectors] == [
        ("import:other tool", "1.2.3", ()), ("import:second", "1.2.3", ()),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("./sub%20dir/../a.c", "a.c"),
        ("file://{tree}/a.c", "a.c"),
        ("{tree}/sub%20dir/b.c", "sub dir/b.c"),
        ("file:///etc/passwd", "(outside)/etc/passwd"),
        ("../../etc/passwd", "(outside)/../../etc/passwd"),
        ("https://example.org/a.c", "(outside)/a.c"),
        ("%00", "(outside)/?"),
        (None, "(no place)"),
    ],
)
def test_a_place_is_a_file_of_the_tree_or_a_name(uri: str | None, path: str, tree: Path) -> None:
    """What lies outside is reported under a name that nobody opens."""
    assert only(taken(tree, log(result(uri and uri.replace("{tree}", str(tree)))))).path == path


def test_bases_indexes_rules_and_messages_are_followed(tree: Path) -> None:
    """The indirections of the format: tools use all of them."""
    rules = [{"id": "x/y", "defaultConfiguration": {"level": "error"}, "messageStrings": {"k": {"text": "{0} of {1}"}}}]
    one = {
        "ruleIndex": 0, "message": {"id": "k", "arguments": ["one", "{0}"]},
        "locations": [{"physicalLocation": {"artifactLocation": {"index": 0}, "region": {"startLine": 1, "startColumn": 7}}}],
    }  # fmt: skip
    driver = {"driver": {"name": "t", "rules": rules}}
    bases = {"TOP": {"uri": tree.as_uri() + "/"}, "SUB": {"uri": "sub%20dir/", "uriBaseId": "TOP"}}
    artifacts = [{"location": {"uri": "../a.c", "uriBaseId": "SUB"}}]
    item = only(taken(tree, log(one, tool=driver, originalUriBaseIds=bases, artifacts=artifacts)))

    assert (item.path, item.finding.rule, item.finding.level, item.finding.message) == (
        "a.c",
        "t/x/y",
        "error",
        "one of {0}",
    )
    # The seventh half of a pair is the sixth character: the emoji takes two.
    assert item.finding.region.start_column == 6


def test_only_an_accepted_suppression_excuses(tree: Path) -> None:
    """A request under review is not leave."""
    record = taken(
        tree,
        log(
            result(line=1, suppressions=[{"kind": "external", "justification": "because"}]),
            result(line=2, suppressions=[{"kind": "external", "status": "underReview"}]),
        ),
    )
    assert [item.suppressed for item in record.findings] == [True, False]


def test_a_fingerprint_outlives_moved_lines_and_a_baseline_knows_it(tree: Path) -> None:
    """Imports join the baseline like findings of our own."""
    before = taken(tree, log(result(line=2)))
    baseline = tree.parent / "before.json"
    baseline.write_bytes(scan_json.dumps(before))
    (tree / "a.c").write_text("/* new */\n" + (tree / "a.c").read_text())
    after = taken(tree, log(result(line=3), result(line=1)), baseline=baseline)

    assert [(item.finding.region.start_line, item.baseline) for item in after.findings] == [
        (1, "new"),
        (3, "unchanged"),
    ]


def test_against_a_commit_only_what_is_in_touched_files_and_new_is_news(tmp_path: Path) -> None:
    """A merge request must not fail by what another tool says of files that it leaves alone."""
    tree = made(tmp_path / "tree", {"a.c": "int a;\n", "b.c": "int b;\n"})
    (tree / "b.c").write_text("int c;\n")
    record = taken(
        tree, log(result("a.c"), result("b.c"), result("b.c", rule="r2", baselineState="unchanged")), since="HEAD"
    )

    assert [(item.path, item.finding.rule[-2:], item.baseline) for item in record.findings] == [
        ("a.c", "r1", "unchanged"), ("b.c", "r1", "new"), ("b.c", "r2", "unchanged"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b'{"version":"2.0.0","runs":[]}', b'{"version":"2.1.0"}', b"[" * 100_000,
        b'{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"x"}},"results":[{}]}]}',
        b'{"version":"2.1.0","runs":[{"tool":{"driver":{"name":"x"}},"results":[{"message":{"text":"x"},"level":"fatal"}]}]}',
        json.dumps(log(result(line=0))).encode(),
        json.dumps(log(externalPropertyFileReferences={"results": [{"location": {"uri": "file:///etc/passwd"}}]})).encode(),
        json.dumps(log(result())).replace("Other Tool", "\\ud800").encode(),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_no_log_is_refused_whole(content: bytes, tree: Path) -> None:
    """Half an import would look like a clean tool."""
    with pytest.raises(ImportUnusable, match=r"log0\.sarif cannot be imported"):
        taken(tree, content)


def test_a_file_that_is_not_there_or_too_large_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name, and before it is read whole."""
    with pytest.raises(ImportUnusable, match="No such file"):
        scan(ScanOptions((tree,), (), "inline", imports=(tree / "none.sarif",)))
    monkeypatch.setattr("detectors.sarif_import.MAX_BYTES", 10)
    with pytest.raises(ImportUnusable, match="larger than"):
        taken(tree, log())


def test_hostile_text_stays_text_in_every_format(tree: Path, tmp_path: Path) -> None:
    """Escapes, markup, formulas, huge numbers: every report is still written, and none of it acts."""
    choose = random.Random(7)
    evil = "\x1b[31m<script>alert(1)</script>\n::error::x\r=1+1\0\u202e]]>" + "".join(
        chr(choose.randrange(0x20, 0xD000)) for _ in range(50)
    )
    record = taken(
        tree,
        log(
            result("a.c", 2**60, rule=evil, message={"text": evil * 2000}, level="error"),
            result(evil, suppressions=[{"kind": "external", "justification": evil}]),
            name=evil,
        ),
    )
    assert len(record.findings) == 2
    for format_ in (csv_format, github, gitlab, junit, sarif, scan_json):
        assert format_.dumps(record)  # type: ignore[attr-defined]
    tables.write(record, tmp_path / "t.parquet")
    html.write(record, tmp_path / "t.html")
    assert "<script>alert" not in (tmp_path / "t.html").read_text()
    assert all(item.detector.isprintable() and item.finding.rule.isprintable() for item in record.findings)
    assert taken(tree, sarif.dumps(record)).imports[0].findings == 2  # our own log, with all of it, comes back
