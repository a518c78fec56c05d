"""Qualification: how good detectors are on real code and mutants of it, and who is told when one is not."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.main import get_command

from compliance.agreement import agreements
from compliance.errors import AttestationInvalid
from compliance.formats import html, scan_json
from compliance.mutants import OPERATORS, drawn
from compliance.qualification import opened, sealed, with_qualifications
from compliance.qualification_trial import Corpus, Figures, Trial, share
from compliance.signing import SigningKey
from deployments.cli import app
from detectors.errors import UsageError
from detectors.model import Finding, Region, RunRecord
from detectors.power_of_ten.c_goto import CGoto
from tests.compliance.conftest import make_run

FLIGHT = Path(__file__).parents[2] / "examples" / "flight"
CORPUS = Corpus(None, {}, 1, 0, "0" * 64)


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path]:
    """Sources with one package, and cases that were judged in it."""
    package = tmp_path / "sources" / "jumps-1.0"
    package.mkdir(parents=True)
    (package / "a.c").write_text("int f(int n)\n{\n    if (n)\n        goto out;\n    n++;\nout:\n    return n;\n}\n")
    cases = [
        {
            "package": "jumps",
            "version": "1.0",
            "file": "a.c",
            "line": line,
            "rule": "P10-R1",
            "verdict": verdict,
            "why": "",
        }
        for line, verdict in ((4, "violation"), (5, "clean"))
    ]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "c.json").write_text(json.dumps(cases))
    return tmp_path / "sources", corpus


def _run(capfdbinary: pytest.CaptureFixture[bytes], *words: str | Path) -> tuple[int, Any]:
    code = get_command(app)(args=[*map(str, words), "--json"], standalone_mode=False)
    return int(code or 0), json.loads(capfdbinary.readouterr().out)


def test_intervals_are_wilsons() -> None:
    """When this fails, a statement claims more certainty than its cases give (figures: Newcombe 1998, table I, method 3)."""
    found = share(81, 263)

    assert (round(found.low or 0, 4), round(found.high or 0, 4)) == (0.2553, 0.3662)
    assert share(0, 0).value is None
    with pytest.raises(ValueError, match="no share"):
        share(3, 2)


def test_mutants_of_one_seed_are_the_same_and_differ_from_the_code() -> None:
    """When this fails, nobody can repeat a qualification, or a mutant breaks no rule."""
    first, again, other = (drawn(FLIGHT, seed, 2) for seed in (1, 1, 2))

    assert first == again != other
    assert {one.operator.name for one in first} == {one.name for one in OPERATORS}
    assert all(one.original not in (one.planted, one.twin) for one in first)
    with pytest.raises(UsageError, match="no folder"):
        drawn(FLIGHT / "none", 1, 1)


def test_a_blind_rule_gets_a_lower_recall_and_is_not_signed(
    judged: tuple[Path, Path],
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When this fails, a worse version of a detector is qualified as its predecessor was."""
    sources, corpus = judged
    words = ("detectors", "qualify", "power-of-ten-c", "--sources", sources, "--corpus", corpus, "--mutants", "1")
    least = ("--fail-under-recall", "0.9")
    code, good = _run(capfdbinary, *words, *least, "--output", tmp_path / "good.jsonl")
    monkeypatch.setattr(CGoto, "check", lambda *_: iter(()))
    blind_code, blind = _run(capfdbinary, *words, *least, "--output", tmp_path / "blind.jsonl")
    recalls = [told["detectors"][0]["figures"]["recall"] for told in (good, blind)]

    assert (code, good["signed"], blind_code, blind["signed"]) == (0, True, 1, False)
    assert recalls[0]["value"] > recalls[1]["value"]
    assert good["detectors"][0]["parts"]["found P10-R1"]["recall"]["good"] == 1
    assert blind["detectors"][0]["parts"]["found P10-R1"]["recall"]["good"] == 0
    assert (tmp_path / "good.jsonl").exists()
    assert not (tmp_path / "blind.jsonl").exists()


def _trial(run: RunRecord, **changed: str) -> Trial:
    one = run.detectors[0]
    figures = Figures(share(9, 10), share(9, 9), 0)
    trial = Trial(one.name, one.version, one.code_digest, one.config_digest, figures, {"found P10-R1": figures})
    return msgspec.structs.replace(trial, **changed)


def _states(run: RunRecord, folder: Path, key: SigningKey) -> list[str]:
    return [one.state for one in with_qualifications(run, folder, key.public).qualifications]


def test_a_run_says_of_each_detector_whether_it_is_qualified(run: RunRecord, key: SigningKey, tmp_path: Path) -> None:
    """When this fails, results of a detector that nobody tried, or long ago, look like those of a qualified one."""
    folder = tmp_path / "qualifications"
    folder.mkdir()
    started = datetime.date(2026, 1, 2)
    (folder / "a.jsonl").write_bytes(sealed([_trial(run)], CORPUS, key, started - datetime.timedelta(days=11), 10))
    expired = with_qualifications(run, folder, key.public)
    (folder / "b.jsonl").write_bytes(sealed([_trial(run)], CORPUS, key, started, 10))
    found = with_qualifications(run, folder, key.public)
    html.write(found, tmp_path / "report.html")
    shown = json.loads(scan_json.dumps(found))

    assert [one.state for one in expired.qualifications] == ["expired", "unqualified"]
    assert "power-of-ten-c 0.1.0 is expired: the statement was good until 2026-01-01" in expired.problems
    assert [one.state for one in found.qualifications] == ["qualified", "unqualified"]
    assert found.qualifications[0].recall[0] == 0.9
    assert [one["state"] for one in shown["qualifications"]] == ["qualified", "unqualified"]
    assert "unqualified: no statement speaks of it" in (tmp_path / "report.html").read_text()
    assert found.findings_digest == run.findings_digest


@pytest.mark.parametrize(
    "changed",
    [{"version": "0.0.9"}, {"code_digest": "sha256:" + "1" * 64}, {"config_digest": "sha256:" + "2" * 64}],
    ids=lambda changed: next(iter(changed)),
)
def test_a_statement_is_of_one_version_code_and_configuration(
    run: RunRecord, key: SigningKey, tmp_path: Path, changed: dict[str, str]
) -> None:
    """When this fails, a changed detector lives on the figures of the one that was tried."""
    (tmp_path / "a.jsonl").write_bytes(sealed([_trial(run, **changed)], CORPUS, key, datetime.date(2026, 1, 2), 10))

    assert _states(run, tmp_path, key) == ["unqualified", "unqualified"]


def test_a_statement_that_was_changed_or_signed_by_another_is_refused(
    run: RunRecord, key: SigningKey, tmp_path: Path
) -> None:
    """When this fails, whoever can write a file makes a detector look good."""
    stranger = SigningKey.load_or_create(tmp_path / "stranger")
    data = sealed([_trial(run)], CORPUS, key, datetime.date(2026, 1, 2), 10)
    (tmp_path / "a.jsonl").write_bytes(sealed([_trial(run)], CORPUS, stranger, datetime.date(2026, 1, 2), 10))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    found = with_qualifications(run, tmp_path, key.public)

    assert [one.state for one in found.qualifications] == ["unqualified", "unqualified"]
    assert sum("is refused" in problem for problem in found.problems) == 2
    for damaged in (data.replace(b"payload", b"pay1oad"), data[:-40] + b"AAAA" + data[-36:], b"{}"):
        with pytest.raises(AttestationInvalid):
            opened(damaged, key.public)
    assert opened(data, key.public).detectors[0].figures.recall.good == 9


def test_agreement_is_cohens_kappa_with_what_they_differ_on() -> None:
    """When this fails, two detectors of one question contradict each other and nobody is told where."""
    goto = "P10-R1-recursion"
    found = [(path, "power-of-ten-c", Finding(goto, "error", "m", Region(2))) for path in ("a.c", "b.c")]
    found += [("a.c", "clang-tidy", Finding("clang-tidy/misc-no-recursion", "warning", "m", Region(3)))]
    run = make_run(found=tuple(found))
    tidy = msgspec.structs.replace(run.detectors[0], name="clang-tidy")
    units = tuple(msgspec.structs.replace(unit, detector="clang-tidy") for unit in run.units)
    both = msgspec.structs.replace(
        run,
        detectors=(run.detectors[0], tidy),
        units=run.units + units,
        planned=2 * run.planned,
        executed=2 * run.planned,
    )
    told = {one.question: one for one in agreements(both)}["recursion"]

    # Of three files they agree on two; by chance on (2/3)(1/3) + (1/3)(2/3) = 4/9: kappa (2/3 - 4/9) / (5/9) = 0.4.
    assert (told.files, told.both, told.neither, round(told.kappa or 0, 6)) == (3, 1, 1, 0.4)
    assert [(one.path, one.by, one.lines) for one in told.disagreements] == [("b.c", "power-of-ten-c", (2,))]
    assert agreements(run) == ()
