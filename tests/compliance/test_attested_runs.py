"""A run that a ledger attests is missed when its evidence is not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from compliance.attested_runs import attested_runs, missing_evidence
from compliance.ledger import Ledger
from compliance.signing import SigningKey
from detectors.errors import UsageError
from tests.compliance.conftest import make_run
from tests.compliance.test_run_trail import PASSPHRASE, make_evidence, place_of

RUNS = ("a" * 32, "b" * 32, "c" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger, and the evidence of three runs, each in a folder named by its run's first letter."""
    home = tmp_path_factory.mktemp("attested")
    key = SigningKey.load_or_create(home / "keys")
    (home / "evidence").mkdir()
    for run_id in RUNS:
        run = msgspec.structs.replace(make_run(), run_id=run_id)
        make_evidence(home / "evidence" / run_id[0], place_of(home), key, run)
    with Ledger.open(place_of(home).folder, place_of(home).keys, PASSPHRASE) as ledger:
        ledger.append({"type": "evidence.attested", "run_id": "d" * 32, "attestation": "0" * 64})
        ledger.publish({"type": "something else"})
    return home


def test_the_newest_runs_are_read_without_a_passphrase(made: Path) -> None:
    """Only what stands in clear counts; an encrypted event of that name is somebody's own."""
    assert [run.run_id for run in attested_runs(made / "ledger", 2)] == [RUNS[2], RUNS[1]]
    assert [run.run_id for run in attested_runs(made / "ledger", 10)] == list(reversed(RUNS))
    with pytest.raises(UsageError):
        attested_runs(made / "ledger", 0)


def test_removed_emptied_and_exchanged_folders_are_missed_and_renamed_ones_are_not(made: Path, tmp_path: Path) -> None:
    """What stands for a run is its attestation, under whatever name its folder has."""
    runs = attested_runs(made / "ledger", 10)
    evidence = tmp_path / "evidence"
    shutil.copytree(made / "evidence", evidence)
    whole = missing_evidence(runs, evidence)
    shutil.rmtree(evidence / "a")
    (evidence / "b").rename(evidence / "renamed")
    shutil.copy(evidence / "renamed" / "attestation.intoto.jsonl", evidence / "c")
    (evidence / "a file").write_text("of no run")
    missing = missing_evidence(runs, evidence)

    assert whole == {}
    assert set(missing) == {RUNS[0], RUNS[2]}
    assert "no folder has it" in missing[RUNS[0]]
    assert missing[RUNS[2]].endswith("c has another")
    assert set(missing_evidence(runs, tmp_path / "nowhere")) == set(RUNS)
