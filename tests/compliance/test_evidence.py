"""An evidence folder: whole or not there, and no byte of it can be changed unnoticed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from compliance import dsse
from compliance.errors import EvidenceError, EvidenceExists, KeyUnusable
from compliance.evidence import collect, verify
from compliance.signing import SigningKey
from detectors.errors import UsageError
from detectors.model import RunRecord
from tests.compliance.conftest import make_run
from tests.faults.evidence_tampering import disagreement

FILES = {
    "attestation.intoto.jsonl",
    "coverage.json",
    "findings.parquet",
    "findings.sarif",
    "immunity.json",
    "oscal.json",
    "public-key.pem",
    "report.html",
    "run.json",
    "verify.py",
}


@pytest.fixture
def folder(tmp_path: Path, run: RunRecord, key: SigningKey) -> Path:
    """Evidence of the fixed run."""
    collect(run, tmp_path / "evidence", key)
    return tmp_path / "evidence"


def _statement(folder: Path) -> str:
    import base64
    import json

    envelope = json.loads((folder / "attestation.intoto.jsonl").read_text())
    return base64.b64decode(envelope["payload"]).decode()


def _bad(folder: Path, public_key: Path | None = None) -> set[str]:
    verdict = verify(folder, public_key)
    assert verdict.ok == all(check.ok for check in verdict.checked)
    assert disagreement(folder, public_key) is None
    return {check.file for check in verdict.checked if not check.ok}


def test_verifies_with_and_without_a_key(folder: Path, tmp_path: Path) -> None:
    """The verdict tells self-consistency from a signature that was checked against a trusted key."""
    alone, anchored = verify(folder), verify(folder, tmp_path / "keys" / "public-key.pem")

    assert (alone.ok, alone.anchored) == (True, False)
    assert (anchored.ok, anchored.anchored) == (True, True)
    assert {check.file for check in alone.checked} == FILES == {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("name", sorted(FILES))
def test_any_flipped_bit_is_named(folder: Path, name: str) -> None:
    """A seeded sample of bits of every file; all of them in `make prove`."""
    file = folder / name
    original = file.read_bytes()
    chooser = random.Random(name)
    places = {0, len(original) - 1, *(chooser.randrange(len(original)) for _ in range(40))}
    for place in places:
        damaged = bytearray(original)
        damaged[place] ^= 1 << chooser.randrange(8)
        file.write_bytes(bytes(damaged))

        assert name in _bad(folder), (name, place)
    file.write_bytes(original)
    assert _bad(folder) == set()


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("how", ["removed", "emptied", "cut", "longer", "link", "folder", "fifo"])
def test_files_that_are_not_what_was_signed(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    """Whatever becomes of a file, it is named, and nothing but it is read."""
    import os

    file = folder / name
    data = file.read_bytes()
    (tmp_path / "copy").write_bytes(data)
    file.unlink()
    acts: dict[str, Callable[[], object]] = {
        "removed": lambda: None,
        "emptied": lambda: file.write_bytes(b""),
        "cut": lambda: file.write_bytes(data[:-1]),
        "longer": lambda: file.write_bytes(data + b"\n"),
        "link": lambda: file.symlink_to(tmp_path / "copy"),
        "folder": file.mkdir,
        "fifo": lambda: os.mkfifo(file),
    }
    acts[how]()

    assert name in _bad(folder)


def test_added_files_are_named(folder: Path) -> None:
    """A file that was slipped in must not pass for evidence."""
    (folder / "extra.txt").write_text("hello")
    (folder / "more").mkdir()

    assert _bad(folder) == {"extra.txt", "more"}


def test_a_forged_folder_is_consistent_but_not_anchored(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """A forger signs with a key of his own; only the auditor's copy of the key shows it."""
    other = SigningKey.load_or_create(tmp_path / "forger")
    collect(run, tmp_path / "forged", other)

    assert verify(tmp_path / "forged").ok
    assert _bad(tmp_path / "forged", tmp_path / "keys" / "public-key.pem") == {
        "public-key.pem",
        "attestation.intoto.jsonl",
    }


def test_an_attestation_of_another_run_is_named(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """An honest attestation speaks for its own files only."""
    one, two = tmp_path / "one", tmp_path / "two"
    collect(run, one, key)
    collect(msgspec.structs.replace(run, run_id="f" * 32), two, key)
    shutil.copy(two / "attestation.intoto.jsonl", one / "attestation.intoto.jsonl")

    assert _bad(one) == {
        "coverage.json",
        "findings.parquet",
        "findings.sarif",
        "immunity.json",
        "report.html",
        "run.json",
    }


def _resealed(folder: Path, key: SigningKey, edit: Callable[[bytes], bytes]) -> None:
    """Sign another payload with the honest key, as a later release or a careless signer might."""
    import base64
    import json

    file = folder / "attestation.intoto.jsonl"
    envelope = json.loads(file.read_text())
    payload = edit(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(key.sign(dsse.pae(payload))).decode()
    file.write_bytes(msgspec.json.encode(envelope) + b"\n")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda text: text.replace(b'"findings.sarif"', b'"../findings.sarif"'), "not in order|outside of the folder"),
        (lambda text: text.replace(b'"run.json"', b'"run.jso/"'), "outside of the folder"),
        (lambda text: text.replace(b"run:v1", b"run:v2"), "this release knows"),
        (lambda text: text.replace(b'"predicate":{', b'"predicate":{"more":1,'), "more"),
        (lambda text: text.replace(b'"run.json"', b'"report.html"'), "twice"),
        (lambda text: text.replace(b'"sha256":"', b'"sha512":"', 1), "sha256"),
        (lambda text: text.replace(b'"runId":', b'"runId": '), "spelled"),
        (lambda text: b"[" * 100_000, "statement"),
    ],
)
def test_a_statement_of_another_shape_is_refused(
    folder: Path, key: SigningKey, edit: Callable[[bytes], bytes], told: str
) -> None:
    """Also when its signature is good: names stay inside, kinds are known, spelling is one."""
    import re

    _resealed(folder, key, edit)
    checks = {check.file: check.problem for check in verify(folder).checked}

    assert re.search(told, checks["attestation.intoto.jsonl"] or ""), checks


@pytest.mark.parametrize(
    ("said", "instead", "told"),
    [
        (b'"files":4', b'"files":5', "snapshot"),
        (b'"executed":4', b'"executed":3', "units"),
        (b'"whole":true', b'"whole":false', "whole"),
        (b'"version":"0.17.6"', b'"version":"0.17.7"', "detectors"),
    ],
)
def test_an_attestation_that_contradicts_the_record_is_named(
    folder: Path, key: SigningKey, said: bytes, instead: bytes, told: str
) -> None:
    """A signer cannot claim more than the record in the same folder says."""
    _resealed(folder, key, lambda text: text.replace(said, instead, 1))
    problems = {check.file: check.problem for check in verify(folder).checked if not check.ok}

    assert set(problems) == {"run.json"}
    assert told in (problems["run.json"] or "")


def test_an_envelope_larger_than_any_of_ours_is_not_read(folder: Path) -> None:
    """A file of any size must not take memory of that size."""
    with (folder / "attestation.intoto.jsonl").open("r+b") as file:
        file.truncate(17 << 20)

    assert "attestation.intoto.jsonl" in _bad(folder)


def test_a_folder_of_an_early_release_is_told_apart(folder: Path) -> None:
    """Whoever kept one must learn why it does not verify."""
    (folder / "attestation.intoto.jsonl").unlink()
    (folder / "manifest.json").write_text("{}")

    assert any("early release" in (check.problem or "") for check in verify(folder).checked)


def test_evidence_is_never_overwritten(folder: Path, run: RunRecord, key: SigningKey, tmp_path: Path) -> None:
    """Old evidence must survive a second run that names its folder."""
    with pytest.raises(EvidenceExists, match="never overwritten"):
        collect(run, folder, key)
    assert verify(folder).ok
    (tmp_path / "empty").mkdir()
    collect(run, tmp_path / "empty", key)
    assert verify(tmp_path / "empty").ok


def test_a_failure_leaves_nothing_that_looks_like_evidence(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """A full disk in the middle: no folder, no draft, an error that names the place."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(EvidenceError, match="cannot be written"):
            collect(run, tmp_path / "full", key)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [file.name for file in tmp_path.iterdir()] == ["keys"]


def test_a_run_that_is_not_whole_says_so_everywhere(tmp_path: Path, key: SigningKey) -> None:
    """It verifies, since it is what was recorded, but no part of it looks complete."""
    folder = tmp_path / "evidence"
    collect(make_run(whole=False), folder, key)

    assert verify(folder).ok
    assert '"whole":false' in _statement(folder)
    assert "NOT WHOLE" in (folder / "report.html").read_text()
    assert '"executionSuccessful":false' in (folder / "findings.sarif").read_text()
    assert '"whole":false' in (folder / "run.json").read_text()


def test_wrong_use_is_told(tmp_path: Path, folder: Path) -> None:
    """A missing folder or key is the caller's error, not a verdict."""
    with pytest.raises(UsageError):
        verify(tmp_path / "missing")
    with pytest.raises(KeyUnusable):
        verify(folder, tmp_path / "missing.pem")
