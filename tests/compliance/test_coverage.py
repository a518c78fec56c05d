"""The coverage statement: each file with each detector has one state, and a state that is left out or untrue is told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance import attestation, coverage
from compliance.attestation import NoLedger, Predicate, Subject, predicate_of
from compliance.coverage import Cell, Coverage
from compliance.errors import CoverageIncomplete
from compliance.evidence import collect, verify
from compliance.formats import html, oscal
from compliance.signing import SigningKey
from detectors.canaries import commitment
from detectors.model import CanaryCount, CanaryRecord, NotAnalysed, RunRecord, SourceFile, UnitRecord
from detectors.scan import ScanOptions, scan
from tests.compliance.conftest import HOSTILE, ZERO, make_run


def _predicate(run: RunRecord) -> Predicate:
    return predicate_of(run, NoLedger("a test"))


def _told(statement: Coverage, run: RunRecord) -> str:
    data = msgspec.json.encode(statement, order="deterministic") + b"\n"
    return "; ".join(coverage.problems_of(data, run, _predicate(run)))


def _resealed(folder: Path, key: SigningKey, run: RunRecord, name: str, data: bytes) -> None:
    """Put other bytes into an evidence folder, and sign it again as its owner could."""
    (folder / name).write_bytes(data)
    apart = {"attestation.intoto.jsonl", "public-key.pem"}
    subjects = [
        Subject(file.name, {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}, "text/plain")
        for file in folder.iterdir()
        if file.name not in apart
    ]
    (folder / "attestation.intoto.jsonl").write_bytes(attestation.seal(subjects, _predicate(run), key))


def test_says_the_state_of_each_file_with_each_detector(tmp_path: Path) -> None:
    """Analysed, from the cache of which run, not applicable, failed and excluded by which line are told apart."""
    tree = tmp_path / "tree"
    (tree / "made").mkdir(parents=True)
    (tree / ".gitignore").write_text("# what is made\nmade/\n*.log\n")
    (tree / "made" / "x.c").write_text("int x;\n")
    (tree / "made" / "y.c").write_text("int y;\n")
    (tree / "skipped.c").write_text("int z;\n")
    (tree / "a.c").write_text("int f(void) { return 1; }\n")
    (tree / "b.py").write_text("value = 1\n")
    (tree / "broken.py").write_text("def (\n")
    (tree / "dangling").symlink_to("nothing")
    names = ("power-of-ten-c", "power-of-ten-python")
    options = ScanOptions((tree,), names, "inline", 1, cache=tmp_path / "cache", exclude=("skip*",))
    first = scan(options)
    (tree / "c.py").write_text("value = 2\n")
    second = scan(options)

    statement = coverage.stated(second)
    states = {row.path: tuple(statement.cells[cell] for cell in row.cells) for row in statement.files}
    assert states["a.c"] == (Cell("from-cache", run=first.run_id), Cell("not-applicable", "c"))
    assert states["b.py"] == (Cell("not-applicable", "python"), Cell("from-cache", run=first.run_id))
    assert states["c.py"] == (Cell("not-applicable", "python"), Cell("analysed"))
    assert states["broken.py"][1] == Cell("failed", "parse-error", first.run_id)
    assert states[".gitignore"] == (Cell("not-applicable", "text"),) * 2
    assert [(entry.path, entry.by, entry.files) for entry in statement.excluded] == [
        ("made/", ".gitignore:2: made/", 2), ("skipped.c", "--exclude skip*", 1),
    ]  # fmt: skip
    assert [(entry.path, entry.reason) for entry in statement.unreadable] == [("dangling", "symlink")]
    assert statement.planned == statement.accounted == second.planned == 4
    assert statement.detectors[1].counts == {"analysed": 1, "failed": 1, "from-cache": 1, "not-applicable": 2}
    assert coverage.dumps(second) == coverage.dumps(second)


def test_counts_suppressions_by_rule(run: RunRecord) -> None:
    """A file in which a rule was silenced is not told as simply analysed."""
    assert [tuple(msgspec.structs.astuple(one)) for one in coverage.stated(run).suppressed] == [
        ("x.py", "ruff", "ruff/F401", 1)
    ]


def test_a_tools_own_reasons_are_states(run: RunRecord) -> None:
    """What timed out or was left alone is told as that, and not only as a failure."""
    for reason, state in (("timed-out", "timed-out"), ("breaker-open", "breaker-open"), ("crashed", "failed")):
        unit = UnitRecord("clean.c", "power-of-ten-c", "not-analysed", run.run_id)
        units = tuple(unit if one.path == "clean.c" else one for one in run.units)
        entry = NotAnalysed("clean.c", "power-of-ten-c", reason)  # type: ignore[arg-type]  # each is a reason
        odd = msgspec.structs.replace(run, units=units, not_analysed=(*run.not_analysed, entry))
        assert Cell(state, reason) in coverage.stated(odd).cells  # type: ignore[arg-type]  # each is a state


def test_a_rule_of_fewer_languages_is_named(run: RunRecord) -> None:
    """A rule that reads less than its detector does not pass for one that looked at every file."""
    (first, *others) = run.detectors
    rule = msgspec.structs.replace(first.rules[0], languages=("c",))
    wide = msgspec.structs.replace(first, languages=("c", "cpp"), rules=(rule,))
    column = coverage.stated(msgspec.structs.replace(run, detectors=(wide, *others))).detectors[0]

    assert column.narrower == {"P10-R1-goto": ("c",)}


def _without_unit(run: RunRecord) -> RunRecord:
    return msgspec.structs.replace(run, units=run.units[1:], planned=run.planned - 1, executed=run.executed - 1)


def _without_file(run: RunRecord) -> RunRecord:
    return msgspec.structs.replace(run, files=run.files[1:])


def _with_file(run: RunRecord) -> RunRecord:
    return msgspec.structs.replace(run, files=(*run.files, SourceFile("z.c", b"z.c", 0, 1, 1, 9, ZERO, "c")))


@pytest.mark.parametrize(
    ("skip", "words"),
    [
        (_without_unit, "by power-of-ten-c: the detector knows its language, and there is no unit"),
        (_without_file, "by power-of-ten-c: there is a unit, and the snapshot has no such file"),
        (_with_file, "z.c by power-of-ten-c: the detector knows its language, and there is no unit"),
    ],
)
def test_a_run_that_is_not_whole_is_not_sealed_as_whole(
    tmp_path: Path, key: SigningKey, skip: Callable[[RunRecord], RunRecord], words: str
) -> None:
    """A file that was skipped and reckoned away stops the sealing; nothing is left behind."""
    run = skip(make_run())
    with pytest.raises(CoverageIncomplete) as problem:
        collect(run, tmp_path / "evidence", key)

    assert words in str(problem.value)
    assert not (tmp_path / "evidence").exists()
    honest = msgspec.structs.replace(run, whole=False, problems=("a unit is missing",))
    collect(honest, tmp_path / "evidence", key)
    assert verify(tmp_path / "evidence").ok


def _cell(statement: Coverage) -> Coverage:
    (first, *rows) = statement.files
    other = (first.cells[0] + 1) % len(statement.cells)
    return msgspec.structs.replace(
        statement, files=(msgspec.structs.replace(first, cells=(other, *first.cells[1:])), *rows)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: msgspec.structs.replace(s, files=s.files[1:]), "is in the snapshot and has no row"),
        (lambda s: msgspec.structs.replace(s, files=(*s.files, s.files[0])), "a file has two rows"),
        (_cell, "by power-of-ten-c: it says not-applicable (c), run.json says analysed"),
        (lambda s: msgspec.structs.replace(s, excluded=()), "of excluded it says otherwise"),
        (lambda s: msgspec.structs.replace(s, suppressed=()), "of suppressed it says otherwise"),
        (lambda s: msgspec.structs.replace(s, unreadable=()), "of unreadable it says otherwise"),
        (lambda s: msgspec.structs.replace(s, planned=9), "planned units are unaccounted for"),
        (lambda s: msgspec.structs.replace(s, detectors=s.detectors[1:]), "its detectors are not those of run.json"),
        (
            lambda s: msgspec.structs.replace(s, snapshot=msgspec.structs.replace(s.snapshot, merkle_root="0" * 64)),
            "its snapshot root is not that of the attestation",
        ),
    ],
)
def test_an_untrue_statement_is_told_in_words(
    tmp_path: Path, run: RunRecord, key: SigningKey, change: Callable[[Coverage], Coverage], words: str
) -> None:
    """Also where its owner signs it again, the record in the same folder contradicts it."""
    assert _told(coverage.stated(run), run) == ""
    untrue = change(coverage.stated(run))
    assert words in _told(untrue, run)

    folder = tmp_path / "evidence"
    collect(run, folder, key)
    _resealed(folder, key, run, "coverage.json", msgspec.json.encode(untrue, order="deterministic") + b"\n")
    bad = {check.file: check.problem or "" for check in verify(folder).checked if not check.ok}
    assert bad.keys() == {"coverage.json"}
    assert words in bad["coverage.json"]


def test_evidence_without_a_statement_does_not_verify(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """Leaving the statement out, and signing again, must not look like coverage."""
    folder = tmp_path / "evidence"
    collect(run, folder, key)
    data = (folder / "run.json").read_bytes()
    (folder / "coverage.json").unlink()
    _resealed(folder, key, run, "run.json", data)

    bad = {check.file: check.problem for check in verify(folder).checked if not check.ok}
    assert bad == {"coverage.json": "it is missing: the evidence does not say which files were looked at"}


def test_a_record_that_skips_a_file_does_not_verify(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """A whole run whose record lacks a unit is told, though every file of the folder agrees with it."""
    folder = tmp_path / "evidence"
    short = _without_unit(run)
    collect(msgspec.structs.replace(short, whole=False, problems=("x",)), folder, key)
    _resealed(folder, key, short, "run.json", msgspec.json.encode(short) + b"\n")
    _resealed(folder, key, short, "coverage.json", coverage.dumps(short))

    bad = {check.file: check.problem or "" for check in verify(folder).checked if not check.ok}
    assert "the detector knows its language, and there is no unit" in bad["coverage.json"]


def test_the_report_shows_a_matrix_that_is_opened_by_folder(tmp_path: Path, run: RunRecord) -> None:
    """Whoever reads the page sees each file's state; a hostile name stays text."""
    html.write(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()

    assert f"{run.planned} units were planned, {run.planned} are accounted for" in page
    folders = {file.path.rpartition("/")[0] for file in run.files}
    assert page.count("<details>") == len(folders) + 1
    assert "<td>not-applicable (c)</td>" in page
    assert "<td>analysed</td>" in page
    assert HOSTILE not in page
    assert page.count("<script") == 2, "the page's own, and its data"


def test_oscal_counts_the_states(run: RunRecord) -> None:
    """An assessor's tool reads how much was looked at."""
    results: Any = msgspec.json.decode(oscal.dumps(run))
    observation = results["assessment-results"]["results"][0]["observations"][0]
    counted = {prop["name"]: prop["value"] for prop in observation["props"]}

    assert counted["planned"] == counted["accounted"] == str(run.planned)
    assert (counted["suppressed"], counted["excluded-files"], counted["unreadable-entries"]) == ("1", "3", "1")


def test_a_seed_that_was_not_committed_to_is_told(run: RunRecord) -> None:
    """Canaries whose seed was chosen after the run prove nothing."""
    seed = b"\1" * 32
    record = CanaryRecord(seed.hex(), commitment(seed), (CanaryCount("ruff", 1),))
    good = msgspec.structs.replace(run, canaries=record)
    assert _told(coverage.stated(good), good) == ""

    for bad in (msgspec.structs.replace(record, seed="02" * 32), msgspec.structs.replace(record, seed="no")):
        odd = msgspec.structs.replace(run, canaries=bad)
        assert _told(coverage.stated(odd), odd) == "the seed of its canaries is not the one that was committed to"
    assert _told(msgspec.structs.replace(coverage.stated(good), canaries=None), good).startswith("of canaries it says")
