"""A ledger whose old segments were released proves of the rest what it proved before, and says what is gone."""

from __future__ import annotations

import base64
import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from compliance.errors import CheckpointInvalid, CheckpointReleased, LedgerDamaged
from compliance.ledger import Ledger, Publication
from compliance.ledger_export import export, prove, read_record
from compliance.ledger_format import read_genesis
from compliance.ledger_retention import Keep, choose
from compliance.ledger_verify import verify
from compliance.ledger_watch import LedgerWatch
from compliance.merkle import leaf_hash, verify_inclusion
from compliance.signing import Checkpoint, SigningKey
from detectors.errors import UsageError

PASSPHRASE = b"correct horse"


@dataclass(frozen=True)
class Written:
    """A ledger of 23 records in segments of 5, its keys, a checkpoint of every size, and a record in clear."""

    folder: Path
    keys: Path
    checkpoints: dict[int, Path]
    published: Publication


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The ledger that no test may change; its keys are rotated on the way."""
    scratch = tmp_path_factory.mktemp("retention")
    folder, keys = scratch / "ledger", scratch / "keys"
    Ledger.create(folder, keys, PASSPHRASE, segment_records=5)
    notes: dict[int, bytes] = {}
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        for number in range(7):
            receipt = ledger.append({"n": number})
            notes[receipt.indices.stop] = receipt.checkpoint
        published = ledger.publish({"type": "in clear"})
        notes[8] = published.checkpoint
        notes[9] = ledger.rotate(keys, PASSPHRASE, reason="a test").checkpoint
        for number in range(9, 23):
            receipt = ledger.append({"n": number})
            notes[receipt.indices.stop] = receipt.checkpoint
    checkpoints = {size: scratch / f"checkpoint{size}" for size in notes}
    for size, file in checkpoints.items():
        file.write_bytes(notes[size])
    return Written(folder, keys, checkpoints, published)


@pytest.fixture
def written(kept: Written, tmp_path: Path) -> Written:
    """A copy whose first 13 records are released."""
    shutil.copytree(kept.folder, tmp_path / "ledger")
    with Ledger.open(tmp_path / "ledger", kept.keys, PASSPHRASE) as ledger:
        done = ledger.retain(Keep(records=8))
    assert done is not None
    assert (done.records, done.index) == (range(13), 23)
    assert done.checkpoint == kept.checkpoints[13].read_bytes()
    return Written(tmp_path / "ledger", kept.keys, kept.checkpoints, kept.published)


def test_what_is_kept_reads_as_before_and_says_what_is_gone(kept: Written, written: Written) -> None:
    """A retention must take away what it says, and nothing else."""
    before: list[bytes] = []
    after: list[bytes] = []
    export(kept.folder, PASSPHRASE, before.append)
    export(written.folder, PASSPHRASE, after.append)
    lines = b"".join(after).splitlines()
    told = json.loads(lines[-1])
    verdict = verify(written.folder, passphrase=PASSPHRASE)

    assert lines[:-1] == b"".join(before).splitlines()[13:]
    assert (told["index"], told["ledger"]) == (23, True)
    assert (told["event"]["type"], told["event"]["records"]) == ("ledger.retained", [0, 12])
    assert (verdict.verdict, verdict.records, verdict.first_index) == ("intact", 24, 13)
    assert verdict.released is not None
    assert (verdict.released.records, verdict.released.checkpoint) == (13, told["event"]["checkpoint"])
    assert json.loads(read_record(written.folder, 13, PASSPHRASE))["event"] == {"n": 13}
    with pytest.raises(IndexError):
        read_record(written.folder, 12, PASSPHRASE)


def test_proofs_of_kept_records_lead_to_the_present_checkpoint(written: Written) -> None:
    """When this fails, a retention takes the proof of what it kept."""
    for index in range(13, 24):
        proof = prove(written.folder, index)
        checkpoint = Checkpoint.from_text(proof.checkpoint.encode().rpartition(b"\n\n")[0] + b"\n", "here")
        verify_inclusion(proof.index, proof.size, leaf_hash(proof.leaf), proof.path, checkpoint.root)
        assert (checkpoint.size, proof.size) == (24, 24)
    lines: list[bytes] = []
    export(written.folder, PASSPHRASE, lines.append, proofs=True)
    *records, last = [json.loads(line) for line in b"".join(lines).splitlines()]
    signed = Checkpoint.from_text(last["checkpoint"].encode().rpartition(b"\n\n")[0] + b"\n", "here")
    for line in records:
        path = [base64.b64decode(node) for node in line["proof"]]
        verify_inclusion(line["index"], signed.size, leaf_hash(base64.b64decode(line["leaf"])), path, signed.root)
    with pytest.raises(IndexError):
        prove(written.folder, 12)


def test_proofs_of_released_records_hold_against_the_checkpoint_that_they_came_with(written: Written) -> None:
    """Evidence that was exported must stay verifiable when the ledger has let its record go."""
    proof = written.published
    checkpoint = Checkpoint.from_text(proof.checkpoint.rpartition(b"\n\n")[0] + b"\n", "here")

    verify_inclusion(proof.index, checkpoint.size, leaf_hash(proof.leaf), proof.path, checkpoint.root)
    assert proof.index < verify(written.folder).first_index


def test_older_checkpoints_are_held_where_the_peaks_show_them_and_refused_elsewhere(written: Written) -> None:
    """An auditor with a checkpoint of what is gone must not be told that it was held; 13 has the peaks 8, 12 and 13."""
    shown = {8, 12, *range(13, 24)}
    for size, file in written.checkpoints.items():
        if size in shown:
            assert verify(written.folder, checkpoint=file, processes=1).anchored
        else:
            with pytest.raises(CheckpointReleased, match="before the retained part, which begins with record 13"):
                verify(written.folder, checkpoint=file, processes=1)

    assert written.checkpoints.keys() == set(range(1, 24))


def test_a_forged_older_checkpoint_is_told_from_one_that_was_released(written: Written, tmp_path: Path) -> None:
    """When this fails, the message about a retention covers a forgery."""
    (tmp_path / "forged").write_bytes(written.checkpoints[5].read_bytes().replace(b"\n5\n", b"\n6\n"))

    with pytest.raises(CheckpointInvalid, match="no key of this ledger signed it"):
        verify(written.folder, checkpoint=tmp_path / "forged")


def test_a_second_retention_goes_on_from_the_first(written: Written) -> None:
    """When this fails, a ledger can be retained only once."""
    with Ledger.open(written.folder, written.keys, PASSPHRASE) as ledger:
        assert ledger.retain(Keep(records=11)) is None
        ledger.append_all([{"more": number} for number in range(12)])
        done = ledger.retain(Keep(records=4))
        ledger.append({"last": True})
    verdict = verify(written.folder, checkpoint=written.checkpoints[16], processes=1)

    assert done is not None
    assert (done.records.start, done.records.stop) == (13, verdict.first_index)
    assert (verdict.verdict, verdict.first_index) == ("intact", 29)
    assert verdict.anchored  # 29 has the peaks 16, 24, 28 and 29


def test_days_are_counted_by_what_stands_behind_them(kept: Written) -> None:
    """A segment may go when all of its records are old enough, which the next one's beginning shows."""
    opened = read_genesis(str(kept.folder))
    now = datetime.datetime.now(datetime.UTC)
    later = choose(opened, Keep(days=30), now + datetime.timedelta(days=31))

    assert choose(opened, Keep(days=30), now + datetime.timedelta(days=29)) is None
    assert later is not None
    assert later[2].stop == 18
    both = choose(opened, Keep(records=8, days=30), now + datetime.timedelta(days=31))
    assert both is not None
    assert both[2].stop == 13


@pytest.mark.parametrize("keep", [{}, {"records": 0}, {"days": 0}, {"days": 10**6}])
def test_what_nobody_can_mean_is_refused(keep: dict[str, int]) -> None:
    """A retention of everything by a slip must not happen."""
    with pytest.raises(UsageError, match="a retention"):
        Keep(**keep)


def test_nothing_is_released_from_a_damaged_ledger(kept: Written, tmp_path: Path) -> None:
    """A retention would take the traces of a tampering with it."""
    shutil.copytree(kept.folder, tmp_path / "ledger")
    first = tmp_path / "ledger" / "0000000000.segment"
    data = bytearray(first.read_bytes())
    data[-300] ^= 1
    first.write_bytes(data)
    with Ledger.open(tmp_path / "ledger", kept.keys, PASSPHRASE) as ledger, pytest.raises(LedgerDamaged):
        ledger.retain(Keep(records=8))

    assert first.exists()
    assert verify(tmp_path / "ledger").records < 23


def test_a_writer_beside_a_retention_goes_on_behind_it(kept: Written, tmp_path: Path) -> None:
    """A pool that has let others in must not write into what was released, nor forget that it was."""
    folder = tmp_path / "ledger"
    shutil.copytree(kept.folder, folder)
    with Ledger.open(folder, kept.keys, PASSPHRASE) as pool:
        pool.append({"pool": 1})
        pool.release()
        with Ledger.open(folder, kept.keys, PASSPHRASE) as other:
            assert other.retain(Keep(records=2)) is not None
        index = pool.append({"pool": 2}).index
    verdict = verify(folder)

    assert (index, verdict.verdict, verdict.records) == (25, "intact", 26)
    assert verdict.first_index > 0


def test_a_watch_follows_a_retention_and_sees_a_removal(kept: Written, tmp_path: Path) -> None:
    """When this fails, a monitor raises an alarm at each retention, or is silent at a removal after one."""
    folder = tmp_path / "ledger"
    shutil.copytree(kept.folder, folder)
    watch = LedgerWatch(folder, checkpoint=kept.checkpoints[10])
    assert (watch.look().records, watch.look().new_records) == (23, 0)
    with Ledger.open(folder, kept.keys, PASSPHRASE) as ledger:
        ledger.retain(Keep(records=8))
        assert (watch.look().ok, watch.look().verdict) == (True, "intact")
        ledger.append_all([{"n": number} for number in range(12)])
        ledger.retain(Keep(records=1))  # further than the watch has seen
    state = watch.look()

    assert (state.ok, state.records) == (True, 37)
    assert LedgerWatch(folder).look().new_records == 37 - verify(folder).first_index
    min(folder.glob("*.segment")).unlink()
    assert watch.look().verdict == "tampered"


def test_records_in_clear_are_new_records_like_others_to_a_watch(
    kept: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, each run's attestation makes the monitor verify the whole ledger again."""
    folder = tmp_path / "ledger"
    shutil.copytree(kept.folder, folder)
    with Ledger.open(folder, kept.keys, PASSPHRASE) as ledger:
        ledger.append({"n": 1})
        watch = LedgerWatch(folder)
        assert watch.look().records == 24
        monkeypatch.setattr("compliance.ledger_watch.verify", _never)
        ledger.publish({"type": "in clear"})
        ledger.append_all([{"n": 2}, {"n": 3}])
        state = watch.look()

    assert (state.verdict, state.records, state.new_records) == ("intact", 27, 3)


def _never(*_arguments: object, **_options: object) -> None:
    raise AssertionError("the whole ledger is verified for a record that could be read on")


def test_a_ledger_without_a_retention_is_spelled_as_before(kept: Written, written: Written) -> None:
    """Format 2 must be met only where something was released, so that older releases read the rest."""
    formats = {
        folder: [json.loads(_header(file))["format"] for file in sorted(folder.glob("*.segment"))]
        for folder in (kept.folder, written.folder)
    }

    assert set(formats[kept.folder]) == {1}
    assert formats[written.folder][-1] == 2
    assert set(formats[written.folder][:-1]) == {1}


def _header(file: Path) -> bytes:
    data = file.read_bytes()
    return data[5 : 5 + int.from_bytes(data[1:5], "big")]


def test_a_retention_needs_the_key_of_the_ledger(written: Written, tmp_path: Path) -> None:
    """A checkpoint of the cut under another key must not make a removal legal."""
    last = max(written.folder.glob("*.segment"))
    data = last.read_bytes()
    note = written.checkpoints[13].read_bytes()
    other = SigningKey.from_raw(b"f" * 32).sign(note)
    changed = base64.b64encode(base64.b64encode(other))
    place = data.index(b'"checkpoint":"') + len(b'"checkpoint":"') + 200
    last.write_bytes(data[:place] + changed[:20] + data[place + 20 :])
    verdict = verify(written.folder)

    assert (verdict.verdict, verdict.first_bad_index) == ("tampered", 23)
