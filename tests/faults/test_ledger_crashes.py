"""Every acknowledged record is there, none twice, however the writer ended; `make prove` has the full counts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from compliance.errors import LedgerUnwritable
from compliance.ledger import Ledger
from compliance.ledger_verify import verify
from tests.faults import ledger_crashes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A ledger, its keys, and the number of calls of a run on it."""
    scratch = tmp_path_factory.mktemp("crashes")
    ledger_crashes.start(scratch / "base", scratch / "keys")
    (scratch / "counted").mkdir()
    shutil.copytree(scratch / "base", scratch / "counted" / "ledger")
    return (
        scratch / "base",
        scratch / "keys",
        ledger_crashes.calls_of_a_run(scratch / "counted" / "ledger", scratch / "keys"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", range(5))
def test_a_writer_stopped_at_a_call_loses_nothing(base: tuple[Path, Path, int], tmp_path: Path, place: int) -> None:
    """When this fails, a crash, a full disk or a loss of power between two system calls loses what was acknowledged."""
    folder, keys, calls = base
    assert calls >= 15
    stops = range(1 + place, calls + 1, 10)
    missed = [
        ledger_crashes.missed_after_a_stop(folder, keys, tmp_path, stop, ledger_crashes.HOWS[(place + 2 * number) % 5])
        for number, stop in enumerate(stops)
    ]

    assert [told for told in missed if told is not None] == []


@pytest.mark.slow
def test_a_retention_stopped_at_a_call_is_begun_or_not(tmp_path: Path) -> None:
    """When this fails, a crash between a retention's steps leaves a ledger that does not verify, or loses what is kept."""
    base, keys = tmp_path / "base", tmp_path / "keys"
    events = ledger_crashes.start_retention(base, keys)
    shutil.copytree(base, tmp_path / "counted")
    disk = ledger_crashes.FailingDisk(0, "crash")
    ledger_crashes.retain(tmp_path / "counted", keys, disk)
    verdict = verify(tmp_path / "counted")
    missed = [
        ledger_crashes.missed_after_a_stopped_retention(
            base, keys, events, (tmp_path, stop, ledger_crashes.HOWS[stop % len(ledger_crashes.HOWS)])
        )
        for stop in range(1, disk.calls + 1, 2)
    ]

    assert (verdict.verdict, verdict.first_index) == ("intact", 12)
    assert len(missed) > 7
    assert [told for told in missed if told is not None] == []


@pytest.mark.slow
def test_a_killed_writer_loses_nothing(tmp_path: Path) -> None:
    """When this fails, kill -9 loses what was acknowledged, or leaves a ledger that nobody can open."""
    missed = [told for told in ledger_crashes.kills(tmp_path, seed=11, count=4) if told is not None]

    assert missed == []


def test_a_full_disk_is_told_and_harms_nothing(base: tuple[Path, Path, int], tmp_path: Path) -> None:
    """The writer must say so, keep what was acknowledged, and write no more."""
    folder, keys, _ = base
    shutil.copytree(folder, tmp_path / "ledger")
    disk = ledger_crashes.FailingDisk(7, "full")
    with Ledger.open(tmp_path / "ledger", keys, ledger_crashes.PASSPHRASE, disk=disk) as ledger:
        first = ledger.append({"event": "kept"})
        with pytest.raises(LedgerUnwritable, match="No space left on device"):
            ledger.append({"event": "refused"})
        with pytest.raises(LedgerUnwritable, match="open the ledger again"):
            ledger.append({"event": "refused, too"})
    verdict = verify(tmp_path / "ledger")

    assert (verdict.verdict, verdict.records) == ("intact", first.index + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_read_only_folder_is_told_and_verifies(base: tuple[Path, Path, int]) -> None:
    """A ledger on a read-only medium is verified, and an append to it ends with a clear error."""
    folder, keys, _ = base
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own folders are closed to others
        for place in (folder, keys):
            shutil.copytree(place, Path(scratch) / place.name)
        for entry in [Path(scratch), *Path(scratch).rglob("*")]:
            os.chown(entry, 65534, 65534)
        own = Path(scratch) / "base"
        own.chmod(0o555)
        os.seteuid(65534)
        try:
            assert verify(own).ok
            with (
                Ledger.open(own, Path(scratch) / "keys", ledger_crashes.PASSPHRASE) as ledger,
                pytest.raises(LedgerUnwritable, match="Permission denied"),
            ):
                ledger.append({"n": 1})
            assert verify(own).verdict == "intact"
        finally:
            os.seteuid(0)
            own.chmod(0o755)
