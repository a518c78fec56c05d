"""Whatever is done to a ledger's bytes is caught, at the right record; `make prove` has the full counts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from compliance.errors import CheckpointInvalid, KeyUnusable, LedgerDamaged
from compliance.ledger import Ledger
from compliance.ledger_export import export
from compliance.ledger_verify import verify
from compliance.signing import SigningKey, signed_note
from tests.faults import tampering


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tampering.Sample:
    """The sample that no test may change."""
    return tampering.build(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def retained(tmp_path_factory: pytest.TempPathFactory) -> tampering.Sample:
    """The same after a retention."""
    return tampering.build_retained(tmp_path_factory.mktemp("retained"))


@pytest.fixture
def sample(kept: tampering.Sample, tmp_path: Path) -> tampering.Sample:
    """A copy of the ledger to be changed."""
    shutil.copytree(kept.folder, tmp_path / "ledger")
    return dataclasses.replace(kept, folder=tmp_path / "ledger")


def test_the_sample_is_intact_and_anchored_by_both_anchors(kept: tampering.Sample) -> None:
    """When this fails, the attacks below are caught for the wrong reason."""
    for anchors in ({}, {"checkpoint": kept.checkpoint}, {"public_key": kept.public_key}):
        verdict = verify(kept.folder, **anchors, passphrase=tampering.PASSPHRASE)

        assert (verdict.verdict, verdict.records, verdict.anchored) == ("intact", kept.records, bool(anchors))


@pytest.mark.parametrize("attack", tampering.ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_caught_by_its_anchor(attack: tampering.Attack, kept: tampering.Sample, tmp_path: Path) -> None:
    """What this misses, whoever holds the folder can do unseen."""
    assert tampering.missed(attack, kept, tmp_path) is None


@pytest.mark.parametrize("attack", tampering.ATTACKS_AFTER_RETENTION, ids=lambda attack: attack.name)
def test_an_attack_after_a_retention_is_caught(
    attack: tampering.Attack, retained: tampering.Sample, tmp_path: Path
) -> None:
    """When this fails, a retention of the owner's is cover for a removal of somebody else's."""
    assert tampering.missed(attack, retained, tmp_path) is None


def test_every_sampled_bit_flip_after_a_retention_is_caught_at_its_record(
    retained: tampering.Sample, tmp_path: Path
) -> None:
    """The bytes that tell of what was released must be covered like all others."""
    shutil.copytree(retained.folder, tmp_path / "ledger")
    sample = dataclasses.replace(retained, folder=tmp_path / "ledger")
    missed = [told for told in tampering.flips(sample, seed=8, count=120) if told is not None]
    missed += [told for told in tampering.truncations(sample, step=89) if told is not None]

    assert missed == []


def test_every_sampled_bit_flip_is_caught_at_its_record(sample: tampering.Sample) -> None:
    """A byte that nothing covers could be changed by anybody."""
    missed = [told for told in tampering.flips(sample, seed=7, count=210) if told is not None]

    assert missed == []


def test_a_cut_end_is_recovered_to_what_is_signed_and_seen_by_a_checkpoint(sample: tampering.Sample) -> None:
    """A cut that looks like a crash must never take a signed record, nor leave half of one."""
    missed = [told for told in tampering.truncations(sample, step=61) if told is not None]

    assert missed == []


def test_recovery_keeps_all_that_is_signed_and_records_the_cut(sample: tampering.Sample) -> None:
    """When this fails, recovery loses acknowledged records, or cuts in silence."""
    last = sample.segments()[-1]
    last.write_bytes(last.read_bytes()[:-1])
    before = verify(sample.folder)
    with Ledger.open(sample.folder, sample.keys, tampering.PASSPHRASE) as ledger:
        assert ledger.torn_bytes > 0
        receipt = ledger.recover()
    lines: list[bytes] = []
    export(sample.folder, tampering.PASSPHRASE, lines.append)

    assert receipt is not None
    assert (before.verdict, before.records) == ("recoverable", sample.records - 3)
    assert receipt.index == sample.records - 3
    assert b'"type":"ledger.recovered"' in lines[-1]
    assert verify(sample.folder).verdict == "intact"
    with Ledger.open(sample.folder, sample.keys, tampering.PASSPHRASE) as ledger:
        assert ledger.recover() is None


def test_a_damaged_end_is_neither_recovered_nor_written_to(sample: tampering.Sample) -> None:
    """Recovery of what was changed would make the change legal."""
    last = sample.segments()[-1]
    data = bytearray(last.read_bytes())
    data[-200] ^= 1
    last.write_bytes(data)

    with pytest.raises(LedgerDamaged, match="is damaged at record"):
        Ledger.open(sample.folder, sample.keys, tampering.PASSPHRASE)


def test_bad_anchors_are_errors_never_no_anchor(kept: tampering.Sample, tmp_path: Path) -> None:
    """An auditor whose anchor is empty or damaged must not be told that all is well."""
    note = kept.checkpoint.read_bytes()
    forged = signed_note(
        note.rpartition(b"\n\n")[0] + b"\n", note.split(b"\n")[0].decode(), SigningKey.from_raw(b"f" * 32)
    )
    resigned = note[:-20] + (b"A" if note[-20:-19] != b"A" else b"B") + note[-19:]
    for number, content in enumerate((b"", b"junk", note[:-10], note.replace(b"\n31\n", b"\n031\n"), forged, resigned)):
        file = tmp_path / f"anchor{number}"
        file.write_bytes(content)
        with pytest.raises(CheckpointInvalid):
            verify(kept.folder, checkpoint=file)
        with pytest.raises(KeyUnusable):
            verify(kept.folder, public_key=file)
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        verify(kept.folder, checkpoint=tmp_path / "missing")


def test_a_checkpoint_of_another_ledger_of_the_same_key_is_told(kept: tampering.Sample, tmp_path: Path) -> None:
    """The wrong file is the caller's mistake; the same under another key may be a rewritten ledger."""
    Ledger.create(tmp_path / "other", kept.keys, tampering.PASSPHRASE)
    with Ledger.open(tmp_path / "other", kept.keys, tampering.PASSPHRASE) as ledger:
        (tmp_path / "checkpoint").write_bytes(ledger.append({"n": 1}).checkpoint)

    with pytest.raises(CheckpointInvalid, match="it is of the ledger"):
        verify(kept.folder, checkpoint=tmp_path / "checkpoint")


def test_any_older_checkpoint_is_consistent(kept: tampering.Sample, tmp_path: Path) -> None:
    """Checkpoints of all times anchor the ledger as it is now."""
    file = tmp_path / "checkpoint"
    seen = 0
    for segment in kept.segments():
        for piece, frame in tampering.frames_of(segment):
            if piece.kind == "H":
                file.write_bytes(frame[5:])
                verdict = verify(kept.folder, checkpoint=file, processes=1)
                seen += 1

                assert (verdict.verdict, verdict.anchored) == ("intact", True)
    assert seen > 10
