"""A seed of canaries that was chosen after the run: the folder agrees with itself, and the ledger knows better."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance import verify_alone
from compliance.errors import LedgerLocked
from compliance.evidence import collect, verify
from compliance.run_trail import LedgerPlace, RunTrail
from compliance.signing import SigningKey
from detectors.canaries import commitment
from detectors.model import CanaryCount, CanaryRecord, RunRecord
from detectors.scan import ScanOptions
from tests.compliance.conftest import make_run
from tests.compliance.test_run_trail import PASSPHRASE, place_of

EARLIER, LATER = b"\1" * 32, b"\2" * 32


def _with_seed(seed: bytes) -> RunRecord:
    record = CanaryRecord(seed.hex(), commitment(seed), (CanaryCount("ruff", 1),))
    return msgspec.structs.replace(make_run(), canaries=record)


def _evidence(folder: Path, place: LedgerPlace, key: SigningKey, *, told: str, run: RunRecord) -> Path:
    with RunTrail(place) as trail:
        trail.started(run.run_id, ScanOptions((Path("/src"),)), told)
        trail.settled(run)
        _ = collect(run, folder, key, trail)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> LedgerPlace:
    """A ledger of its own."""
    return place_of(tmp_path)


def test_a_seed_that_was_committed_to_before_the_run_holds(tmp_path: Path, place: LedgerPlace, key: SigningKey) -> None:
    """With ledger and passphrase it is shown; without, it is said what is missing, and nothing is claimed."""
    folder = _evidence(tmp_path / "good", place, key, told=commitment(EARLIER), run=_with_seed(EARLIER))

    shown = verify(folder, ledger=place.folder, passphrase=PASSPHRASE)
    assert (shown.ok, shown.canaries) == (True, "the ledger had the commitment to their seed before the run")
    for anchors in ({}, {"ledger": place.folder}):
        verdict = verify(folder, **anchors)
        assert verdict.ok
        assert "not compared" in verdict.canaries
        assert "--passphrase-file" in verdict.canaries
    with pytest.raises(LedgerLocked):
        verify(folder, ledger=place.folder, passphrase=b"wrong")
    assert verify(folder).anchored is False
    assert "not compared" in verify(_evidence_without_ledger(tmp_path, key)).canaries
    assert any("cannot read" in line for line in verify_alone.in_words(verify_alone.verify(folder)))


def _evidence_without_ledger(tmp_path: Path, key: SigningKey) -> Path:
    _ = collect(_with_seed(EARLIER), tmp_path / "bare", key)
    return tmp_path / "bare"


@pytest.mark.parametrize("told", [commitment(EARLIER), ""])
def test_a_seed_that_was_chosen_after_the_run_is_told(
    tmp_path: Path, place: LedgerPlace, key: SigningKey, told: str
) -> None:
    """Seed and commitment of the folder belong together, and the ledger recorded another one, or none."""
    folder = _evidence(tmp_path / "forged", place, key, told=told, run=_with_seed(LATER))

    assert verify(folder, ledger=place.folder).ok, "without the passphrase nobody can see it"
    verdict = verify(folder, ledger=place.folder, passphrase=PASSPHRASE)
    (bad,) = (check for check in verdict.checked if not check.ok)
    assert not verdict.ok
    assert bad.problem == "before the run another seed of the canaries was committed to, or none"
    assert bad.file.startswith(str(place.folder))


def test_a_beginning_of_another_run_is_none(tmp_path: Path, place: LedgerPlace, key: SigningKey) -> None:
    """An attestation that names the beginning of another run, which committed to its seed, does not hold."""
    first = _with_seed(EARLIER)
    _ = _evidence(tmp_path / "first", place, key, told=commitment(EARLIER), run=first)
    second = msgspec.structs.replace(first, run_id="f" * 32)
    with RunTrail(place) as trail:
        trail.started(second.run_id, ScanOptions((Path("/src"),)), commitment(EARLIER))
        trail._start_index = 1  # as a forger's program would: the record after the ledger's own first
        trail.settled(second)
        _ = collect(second, tmp_path / "second", key, trail)

    assert verify(tmp_path / "second", ledger=place.folder).ok
    verdict = verify(tmp_path / "second", ledger=place.folder, passphrase=PASSPHRASE)
    assert [check.problem for check in verdict.checked if not check.ok] == ["it is not the beginning of this run"]


def test_the_command_takes_the_passphrase_from_a_file_only_with_a_ledger(
    pool_command: Callable[..., Any], tmp_path: Path, place: LedgerPlace, key: SigningKey
) -> None:
    """An auditor who has the passphrase sees it in words and in the exit code."""
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE + b"\n")
    good = _evidence(tmp_path / "good", place, key, told=commitment(EARLIER), run=_with_seed(EARLIER))
    done = pool_command("evidence", "verify", good, "--ledger", place.folder, "--passphrase-file", file)
    assert (done.returncode, b"canaries: the ledger had the commitment" in done.stdout) == (0, True), done.stderr
    assert pool_command("evidence", "verify", good, "--passphrase-file", file).returncode == 2
    shutil.rmtree(good)
    forged = _evidence(tmp_path / "forged", place, key, told=commitment(EARLIER), run=_with_seed(LATER))
    done = pool_command("evidence", "verify", forged, "--ledger", place.folder, "--passphrase-file", file)
    assert (done.returncode, b"another seed of the canaries" in done.stdout) == (1, True)
