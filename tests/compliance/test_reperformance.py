"""Re-performance: a sample of the auditor's is run again, and what is not true is named."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.assurance_statement import opened_statement, read_evidence
from compliance.errors import AttestationInvalid, NotReperformable
from compliance.evidence import collect
from compliance.reperformance import PREDICATE_TYPE, Asked, Reperformance, reperform, sampled, statement_of
from compliance.signing import SigningKey, VerifyingKey
from detectors.cache import ResultCache
from detectors.model import Finding, Suppression
from detectors.scan import ScanOptions, scan

DETECTORS = ("flawfinder", "lizard", "power-of-ten-c", "power-of-ten-python")
Edit = Callable[[Any], Any]


@pytest.fixture
def tree(small_tree: Path) -> Path:
    """The small tree, with a suppression and recursion."""
    (small_tree / "quiet.c").write_text(
        "int g(int n)\n{\n    if (n) goto out; /* p10: ignore[R1] leaves early by A. Reviewer */\n    n++;\nout:\n"
        "    return n ? g(n - 1) : 0;\n}\n"
    )
    return small_tree


def evidence_of(tree: Path, folder: Path, cache: Path | None = None) -> Path:
    record = scan(ScanOptions((tree,), detectors=DETECTORS, cache=cache, cluster="inline", include=("*.c", "*.py")))
    collect(record, folder, SigningKey.load_or_create(folder.parent / "keys"))
    return folder


def again(folder: Path, tree: Path, sample: int = 1000, seed: str = "s") -> Reperformance:
    return reperform(read_evidence(folder, None), Asked((tree,), seed, sample, "inline"))


def poison(cache: Path, edit: Edit) -> int:
    """Change stored answers as somebody does who knows how: key and checksum are right."""
    changed = 0
    with ResultCache(cache) as store:
        for key, report, facts in store._connection.execute("SELECT key, report, facts FROM result").fetchall():
            other = msgspec.msgpack.encode(edit(msgspec.msgpack.decode(report)))
            if other != report:
                checksum = _checksum(key, other, facts)
                store._connection.execute(
                    "UPDATE result SET report = ?, checksum = ? WHERE key = ?", (other, checksum, key)
                )
                changed += 1
    return changed


def _checksum(key: bytes, report: bytes, facts: bytes) -> bytes:
    from detectors.cache import _checksum as checksum

    return checksum(key, report, facts)


def test_an_honest_run_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    """When this fails, an honest run is accused: suppressions, tools and rules over the tree among its findings."""
    folder = evidence_of(tree, tmp_path / "evidence")
    told = again(folder, tree)
    record = read_evidence(folder, None).record

    assert (told.different, told.same) == (0, len(record.units))
    assert told.beyond > 0
    assert any(item.suppressed for item in record.findings)
    assert {answer.detector for answer in told.answers} == set(DETECTORS)
    assert len({answer.recorded for answer in told.answers}) > 3


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda report: [[], *report[1:]], id="silent"),
        pytest.param(lambda report: [report[0] * 2, *report[1:]], id="twice"),
        pytest.param(
            lambda report: [[{**item, "level": "note"} for item in report[0]], *report[1:]], id="another level"
        ),
        pytest.param(
            lambda report: [
                [{**item, "suppression": msgspec.to_builtins(Suppression("# fine"))} for item in report[0]], *report[1:]
            ],
            id="excused",
        ),
        pytest.param(
            lambda report: [
                [{**item, "region": {**item["region"], "start_line": 1}} for item in report[0]], *report[1:]
            ],
            id="elsewhere",
        ),
        pytest.param(lambda report: [[], 0.0, "parse-error", "", []], id="not analysed"),
        pytest.param(
            lambda report: [
                [*report[0], msgspec.to_builtins(Finding("P10-R1-goto", "error", "made up", _region()))], *report[1:]
            ],
            id="made up",
        ),
    ],
)  # fmt: skip
def test_a_poisoned_cache_is_caught(tree: Path, tmp_path: Path, edit: Edit) -> None:
    """Its evidence verifies, since it is what was recorded; only running again shows that it is not true."""
    _ = evidence_of(tree, tmp_path / "before", tmp_path / "cache")
    poisoned = poison(tmp_path / "cache", edit)
    folder = evidence_of(tree, tmp_path / "evidence", tmp_path / "cache")
    told = again(folder, tree)

    assert poisoned > 0
    assert told.different >= 1
    assert told.same + told.different == told.sample == len(told.answers)
    bad = [answer for answer in told.answers if not answer.same]
    assert all(answer.missing or answer.unrecorded or answer.recorded != answer.reperformed for answer in bad)
    assert {answer.state for answer in bad} <= {"cached", "not-analysed"}
    assert again(tmp_path / "before", tree).different == 0


def _region() -> Any:
    from detectors.model import Region

    return Region(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "jump.c").write_text("int f(void);\n"),
        lambda tree: (tree / "more.c").write_text("int f(void);\n"),
        lambda tree: (tree / "run.py").unlink(),
        lambda tree: (tree / "jump.c").rename(tree / "jumps.c"),
    ],
    ids=["edited", "added", "removed", "renamed"],
)
def test_other_sources_are_refused(tree: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    """What other sources show proves nothing of the run, in either direction."""
    folder = evidence_of(tree, tmp_path / "evidence")
    change(tree)

    with pytest.raises(NotReperformable, match="sources are not those of the run"):
        again(folder, tree, sample=1)


def test_another_detector_another_number_of_trees_and_no_seed_are_refused(tree: Path, tmp_path: Path) -> None:
    """A newer rule that finds more would look like evidence that hid something."""
    record = scan(ScanOptions((tree,), detectors=("power-of-ten-c",)))
    older = msgspec.structs.replace(record.detectors[0], version="0.0.9")
    collect(msgspec.structs.replace(record, detectors=(older,)), tmp_path / "older", SigningKey.from_raw(b"\1" * 32))

    with pytest.raises(NotReperformable, match=r"power-of-ten-c \(run: 0\.0\.9"):
        again(tmp_path / "older", tree)
    folder = evidence_of(tree, tmp_path / "evidence")
    with pytest.raises(NotReperformable, match="over 1 trees"):
        reperform(read_evidence(folder, None), Asked((tree, tree), "s", 1))
    for seed, sample in (("", 1), ("s", 0)):
        with pytest.raises(NotReperformable, match="--seed"):
            again(folder, tree, sample, seed)
    (folder / "run.json").write_text("{}")
    with pytest.raises(AttestationInvalid, match="does not verify"):
        again(folder, tree)


def test_the_sample_is_the_auditors_and_anybody_can_draw_it_again(tree: Path, tmp_path: Path) -> None:
    """Computed here from the documentation: the lowest HMAC-SHA256(seed, path, zero byte, detector)."""
    record = read_evidence(evidence_of(tree, tmp_path / "evidence"), None).record
    ranks = {
        (unit.path, unit.detector): hmac.new(
            b"2027", f"{unit.path}\0{unit.detector}".encode(), hashlib.sha256
        ).hexdigest()
        for unit in record.units
    }

    assert sampled(record, "2027", 4) == sorted(ranks, key=ranks.__getitem__)[:4]
    assert sampled(record, "2027", 4) == sampled(record, "2027", 9)[:4]
    assert len({tuple(sampled(record, str(seed), 4)) for seed in range(20)}) > 10
    assert [(a.path, a.detector) for a in again(tmp_path / "evidence", tree, 4, "2027").answers] == sampled(
        record, "2027", 4
    )


def test_the_command_runs_in_other_processes_signs_and_says_by_exit_code(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tree: Path, tmp_path: Path
) -> None:
    """As an auditor runs it: same, then poisoned; the statement is his, and its subject is the attestation."""
    arguments = ("--sources", tree, "--seed", "2027", "--sample", "100", "--json")
    folder, output = evidence_of(tree, tmp_path / "evidence", tmp_path / "cache"), tmp_path / "statement.jsonl"
    done = pool_command("evidence", "reperform", folder, *arguments, "--output", output)
    shown = json.loads(done.stdout)
    mine = VerifyingKey.load(Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "keys" / "public-key.pem")
    subjects, told = opened_statement(output.read_bytes(), mine, PREDICATE_TYPE, Reperformance)

    assert done.returncode == 0, done.stderr
    assert (shown["ok"], shown["same"], shown["different"]) == (True, told.sample, [])
    assert (
        subjects[0].digest["sha256"] == hashlib.sha256((folder / "attestation.intoto.jsonl").read_bytes()).hexdigest()
    )
    assert told.seed == "2027"
    assert pool_command("evidence", "reperform", folder, *arguments, "--output", output).returncode == 2
    assert pool_command("evidence", "reperform", folder, *arguments, "--output", folder / "x").returncode == 3
    assert poison(tmp_path / "cache", lambda report: [[], *report[1:]])
    bad = evidence_of(tree, tmp_path / "bad", tmp_path / "cache")
    caught = pool_command(
        "evidence", "reperform", bad, *arguments[:-1], "--output", tmp_path / "2.jsonl", "--cluster", "inline"
    )
    assert caught.returncode == 1
    assert b"DIFFERS jump.c by power-of-ten-c" in caught.stdout
    assert b"in the sources only" in caught.stdout
    (tree / "jump.c").write_text("\n")
    refused = pool_command("evidence", "reperform", folder, *arguments, "--output", tmp_path / "3.jsonl")
    assert (refused.returncode, b"jump.c" in refused.stderr) == (2, True)
    assert not (tmp_path / "3.jsonl").exists()


def test_a_statement_of_another_key_kind_or_content_is_refused(tree: Path, tmp_path: Path) -> None:
    """When this fails, anybody can say that he ran it again."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    folder = evidence_of(tree, tmp_path / "evidence")
    evidence, key = read_evidence(folder, None), SigningKey.from_raw(b"\2" * 32)
    data = statement_of(evidence, again(folder, tree, 3), key)
    other = SigningKey.from_raw(b"\3" * 32).public

    theirs = SSlibKey(key.public.id, "ed25519", "ed25519", {"public": key.public.raw.hex()})
    assert list(Envelope.from_dict(json.loads(data)).verify([theirs], 1)) == [key.public.id]
    for spoilt, whose, kind in (
        (data, other, PREDICATE_TYPE), (data, key.public, "urn:x"), (b"{}", key.public, PREDICATE_TYPE),
        (data.replace(b'"payload":"ey', b'"payload":"ez'), key.public, PREDICATE_TYPE),
    ):  # fmt: skip
        with pytest.raises(AttestationInvalid):
            opened_statement(spoilt, whose, kind, Reperformance)
