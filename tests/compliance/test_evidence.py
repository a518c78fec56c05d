"""An evidence folder: whole or not there, and no byte of it can be changed unnoticed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from compliance import evidence
from compliance.errors import EvidenceError, EvidenceExists, KeyUnusable
from compliance.evidence import collect, verify
from compliance.signing import SigningKey
from detectors.errors import UsageError
from detectors.model import RunRecord
from tests.compliance.conftest import make_run

FILES = {
    "findings.parquet",
    "findings.sarif",
    "manifest.json",
    "manifest.sig",
    "public-key.pem",
    "report.html",
    "run.json",
}


@pytest.fixture
def folder(tmp_path: Path, run: RunRecord, key: SigningKey) -> Path:
    """Evidence of the fixed run."""
    collect(run, tmp_path / "evidence", key)
    return tmp_path / "evidence"


def _bad(folder: Path, public_key: Path | None = None) -> set[str]:
    verdict = verify(folder, public_key)
    assert verdict.ok == all(check.ok for check in verdict.checked)
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
        "manifest.json",
        "manifest.sig",
    }


def test_swapped_parts_of_two_honest_folders_are_named(tmp_path: Path, run: RunRecord, key: SigningKey) -> None:
    """A signature holds for its own manifest only."""
    one, two = tmp_path / "one", tmp_path / "two"
    collect(run, one, key)
    collect(msgspec.structs.replace(run, run_id="f" * 32), two, key)
    shutil.copy(two / "manifest.sig", one / "manifest.sig")

    assert "manifest.json" in _bad(one)
    shutil.copy(two / "manifest.json", one / "manifest.json")
    assert _bad(one) == {"run.json", "report.html", "findings.sarif", "findings.parquet"}


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace('"findings.sarif"', '"../findings.sarif"'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"format": 1', '"format": 1, "more": 1'),
        lambda text: text.replace('"run.json"', '"report.html"'),
        lambda text: "[" * 100_000,
        lambda text: text + " " * (17 << 20),
    ],
)
def test_a_manifest_of_another_shape_is_refused(folder: Path, key: SigningKey, edit: Callable[[str], str]) -> None:
    """Also when its signature is good: names stay inside, formats are known, sizes are bounded."""
    import base64

    text = edit((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(text)
    signature = base64.b64encode(key.sign(evidence.CONTEXT + text.encode())) + b"\n"
    (folder / "manifest.sig").write_bytes(signature)

    assert "manifest.json" in _bad(folder)


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
    assert '"whole": false' in (folder / "manifest.json").read_text()
    assert "NOT WHOLE" in (folder / "report.html").read_text()
    assert '"executionSuccessful":false' in (folder / "findings.sarif").read_text()
    assert '"whole":false' in (folder / "run.json").read_text()


def test_wrong_use_is_told(tmp_path: Path, folder: Path) -> None:
    """A missing folder or key is the caller's error, not a verdict."""
    with pytest.raises(UsageError):
        verify(tmp_path / "missing")
    with pytest.raises(KeyUnusable):
        verify(folder, tmp_path / "missing.pem")
