"""A run's records in a ledger, and evidence that a ledger stands behind."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.errors import LedgerBusy, LedgerLocked, LedgerMissing
from compliance.evidence import collect, verify
from compliance.ledger import Ledger
from compliance.ledger_export import export
from compliance.ledger_format import read_genesis
from compliance.ledger_verify import last_chain
from compliance.ledger_verify import verify as verify_ledger
from compliance.run_trail import LedgerPlace, RunTrail, recorded_scan
from compliance.signing import SigningKey
from detectors.errors import UsageError
from detectors.model import RunRecord
from detectors.scan import ScanOptions
from tests.compliance.conftest import make_run
from tests.faults.evidence_tampering import disagreement

PASSPHRASE = b"correct horse"
FILES = (
    "attestation.intoto.jsonl", "coverage.json", "findings.parquet", "findings.sarif", "immunity.json",
    "ledger-checkpoint", "ledger-proof.json",
    "oscal.json", "public-key.pem", "report.html", "run.json",
    "verify.py",
)  # fmt: skip


def place_of(folder: Path, name: str = "ledger") -> LedgerPlace:
    return LedgerPlace(folder / name, folder / f"{name}-keys", PASSPHRASE, create=True)


def events(place: LedgerPlace) -> list[dict[str, Any]]:
    lines: list[bytes] = []
    _ = export(place.folder, PASSPHRASE, lines.append)
    return [json.loads(line) for chunk in lines for line in chunk.splitlines()]


def make_evidence(folder: Path, place: LedgerPlace, key: SigningKey, run: RunRecord | None = None) -> Path:
    """Record the fixed run from its beginning to its end."""
    record = run or make_run()
    with RunTrail(place) as trail:
        trail.started(record.run_id, ScanOptions((Path("/src"),)))
        trail.settled(record)
        _ = collect(record, folder, key, trail)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger, a second one of a stranger, evidence of two runs; `kept` was taken between them."""
    home = tmp_path_factory.mktemp("recorded")
    place, key = place_of(home), SigningKey.load_or_create(home / "keys")
    make_evidence(home / "one", place, key)
    (home / "kept").write_bytes(last_chain(read_genesis(str(place.folder))).head)
    make_evidence(home / "two", place, key, msgspec.structs.replace(make_run(), run_id="f" * 32))
    make_evidence(home / "foreign", place_of(home, "other"), SigningKey.load_or_create(home / "stranger"))
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def problems(folder: Path, **anchors: Path) -> dict[str, str]:
    verdict = verify(folder, **anchors)
    found = {check.file: check.problem or "" for check in verdict.checked if not check.ok}
    assert verdict.ok == (not found)
    if not anchors.keys() - {"public_key"}:
        assert disagreement(folder, anchors.get("public_key")) is None
    return found


def test_a_run_leaves_its_beginning_result_attestation_and_end(made: Path) -> None:
    """When this fails, the ledger does not say who ran what, or how it ended."""
    found = events(place_of(made))
    kinds = [line["event"]["type"] for line in found]

    assert kinds == 2 * ["scan.started", "scan.settled", "evidence.attested", "scan.ended"]
    assert found[0]["event"]["roots"] == ["/src"]
    assert found[0]["event"]["who"]["uid"] >= 0
    assert found[1]["event"]["findings"]["digest"] == make_run().findings_digest
    assert [line["event"].get("outcome") for line in found if line["event"]["type"] == "scan.ended"] == ["finished"] * 2
    assert [line.get("public") for line in found] == 2 * [None, None, True, None]


def test_evidence_holds_alone_and_against_every_anchor(made: Path) -> None:
    """Each anchor is told by name, so that nobody takes self-consistency for trust."""
    alone = verify(made / "one")
    held = verify(made / "one", made / "keys" / "public-key.pem", ledger=made / "ledger", checkpoint=made / "kept")

    assert (alone.ok, alone.anchored, alone.anchors) == (True, False, ())
    assert alone.ledger == read_genesis(str(made / "ledger")).origin
    assert (held.ok, held.anchored, held.anchors) == (True, True, ("public-key", "ledger", "checkpoint"))
    assert {check.file for check in alone.checked} == set(FILES)
    assert problems(made / "two", ledger=made / "ledger", checkpoint=made / "kept") == {}
    assert problems(made / "one", checkpoint=made / "one" / "ledger-checkpoint") == {}


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_named(home: Path, name: str) -> None:
    """A seeded sample of bits of every file; the full count is `make prove`'s."""
    file = home / "one" / name
    original = file.read_bytes()
    chooser = random.Random(name)
    for place in {0, len(original) - 1, *(chooser.randrange(len(original)) for _ in range(25))}:
        damaged = bytearray(original)
        damaged[place] ^= 1 << chooser.randrange(8)
        file.write_bytes(bytes(damaged))

        assert name in problems(home / "one"), place
    file.write_bytes(original)
    assert problems(home / "one") == {}


@pytest.mark.parametrize("name", FILES)
def test_a_removed_a_renamed_and_a_swapped_file_is_named(home: Path, name: str) -> None:
    """Also where the file that takes its place is honest, from another run of the same ledger."""
    one, two = home / "one", home / "two"
    original = (one / name).read_bytes()
    (one / name).rename(one / "renamed")
    renamed = problems(one)
    (one / "renamed").unlink()
    removed = problems(one)
    (one / name).write_bytes((two / name).read_bytes())
    swapped = problems(one)
    (one / name).write_bytes(original)

    assert removed[name] == "it is missing" or name == "attestation.intoto.jsonl"
    assert "missing" in removed[name]
    # Without an attestation nothing says what else belongs there.
    assert name in renamed
    unknown = {"attestation.intoto.jsonl", "public-key.pem"}
    assert name in unknown or renamed["renamed"] == "it is not in the attestation"
    # One signer, and files that say nothing of their run, are the same in both.
    same = (two / name).read_bytes() == original
    assert bool(swapped) == (not same)
    assert problems(one) == {}


def test_a_proof_and_a_checkpoint_of_another_run_are_told(home: Path) -> None:
    """An attestation cannot borrow the record of another."""
    one, two = home / "one", home / "two"
    shutil.copy(two / "ledger-proof.json", one / "ledger-proof.json")
    assert problems(one) == {"ledger-proof.json": "its record is of another run"}
    shutil.copy(two / "ledger-checkpoint", one / "ledger-checkpoint")
    assert problems(one) == {"ledger-proof.json": "its record is of another run"}
    shutil.copy(two / "attestation.intoto.jsonl", one / "attestation.intoto.jsonl")
    assert set(problems(one)) == {
        "coverage.json",
        "findings.parquet",
        "findings.sarif",
        "immunity.json",
        "report.html",
        "run.json",
    }


def test_parts_of_a_strangers_ledger_are_told(home: Path) -> None:
    """A checkpoint is believed only from the ledger that the attestation names."""
    shutil.copy(home / "foreign" / "ledger-checkpoint", home / "one" / "ledger-checkpoint")
    shutil.copy(home / "foreign" / "ledger-proof.json", home / "one" / "ledger-proof.json")
    found = problems(home / "one")

    assert "it is of the ledger" in found["ledger-checkpoint"]
    assert "it is of the ledger" in found["ledger-proof.json"]


def test_what_is_added_is_told(home: Path) -> None:
    """Neither a file, nor a folder, nor the ledger's files where no ledger was."""
    (home / "one" / "more").mkdir()
    (home / "one" / ".hidden").write_text("x")

    assert problems(home / "one") == dict.fromkeys(("more", ".hidden"), "it is not in the attestation")
    plain = home / "plain"
    _ = collect(make_run(), plain, SigningKey.load_or_create(home / "keys"))
    shutil.copy(home / "one" / "ledger-proof.json", plain)
    assert problems(plain) == {"ledger-proof.json": "it is not in the attestation"}
    assert "no ledger was given" in (verify(plain).no_ledger or "")


def test_a_forgery_with_its_own_ledger_is_caught_by_each_anchor(home: Path) -> None:
    """It is consistent in itself; only what the auditor kept shows it."""
    foreign = home / "foreign"

    assert problems(foreign) == {}
    assert set(problems(foreign, public_key=home / "keys" / "public-key.pem")) == {
        "public-key.pem", "attestation.intoto.jsonl",
    }  # fmt: skip
    assert "names" in problems(foreign, ledger=home / "ledger")[str(home / "ledger")]
    assert "names" in problems(foreign, checkpoint=home / "kept")[str(home / "kept")]


def test_a_ledger_that_was_rolled_back_or_damaged_is_told(home: Path) -> None:
    """The folder's own checkpoint is an anchor for the ledger."""
    ledger = home / "ledger"
    segments = sorted(ledger.glob("*.segment"))
    last = segments[-1].read_bytes()
    segments[-1].unlink()
    assert "removed" in problems(home / "two", ledger=ledger)[str(ledger)]
    assert problems(home / "one", ledger=ledger) == {}
    segments[0].write_bytes(last)
    assert "tampered" in problems(home / "one", ledger=ledger)[str(ledger)]


def test_a_kept_checkpoint_of_another_size_needs_the_ledger(made: Path) -> None:
    """Two sizes cannot be compared without the records between them, and saying nothing would look like an anchor."""
    with pytest.raises(UsageError, match="give --ledger"):
        verify(made / "two", checkpoint=made / "kept")


def test_a_signer_cannot_point_at_an_older_attestation_of_the_run(home: Path) -> None:
    """The record holds the digest of one attestation; another of the same run is not in the ledger."""
    key = SigningKey.load_or_create(home / "keys")
    place = place_of(home)
    record = make_run()
    with RunTrail(place) as trail:
        trail.started(record.run_id, ScanOptions((Path("/src"),)))
        _ = collect(record, home / "first", key, trail)
        _ = collect(msgspec.structs.replace(record, problems=("a word",)), home / "second", key, trail)
    for name in ("ledger-proof.json", "ledger-checkpoint"):
        shutil.copy(home / "first" / name, home / "second" / name)

    assert problems(home / "second") == {"ledger-proof.json": "its record is of another attestation of this run"}


@pytest.mark.parametrize(
    ("problem", "outcome"),
    [(KeyboardInterrupt(), "interrupted"), (SystemExit(3), "interrupted"), (ValueError("broken"), "failed")],
)
def test_every_end_is_recorded(tmp_path: Path, problem: BaseException, outcome: str) -> None:
    """When this fails, a run that was interrupted looks like one that still runs."""
    place = place_of(tmp_path)

    def run() -> None:
        with RunTrail(place) as trail:
            trail.started("a" * 32, ScanOptions((tmp_path,)))
            raise problem

    with pytest.raises(type(problem)):
        run()
    last = events(place)[-1]["event"]

    assert (last["type"], last["outcome"]) == ("scan.ended", outcome)
    assert type(problem).__name__ in last["error"]


def test_a_recorded_scan_leaves_all_its_steps(tmp_path: Path, small_tree: Path) -> None:
    """The whole walk on real files: who, plan, result, end; and a scan that fails says so."""
    place = place_of(tmp_path)
    sealed: list[RunRecord] = []
    options = ScanOptions((small_tree,), detectors=("power-of-ten-c",))
    run = recorded_scan(options, RunTrail(place), sealed.append)
    missing = ScanOptions((tmp_path / "missing",), detectors=("power-of-ten-c",))
    with pytest.raises(UsageError):
        recorded_scan(missing, RunTrail(place), sealed.append)
    found = [line["event"] for line in events(place)]

    assert sealed == [run]
    assert [event["type"] for event in found] == [
        "scan.started", "scan.planned", "scan.settled", "scan.ended", "scan.started", "scan.ended",
    ]  # fmt: skip
    assert found[1]["stages"][0]["planned"] == run.planned
    assert [found[3]["outcome"], found[5]["outcome"]] == ["finished", "failed"]
    assert {event["run_id"] for event in found[:4]} == {run.run_id}


def test_a_run_that_is_not_whole_ends_as_such(tmp_path: Path) -> None:
    """The ledger must not call it finished."""
    place = place_of(tmp_path)
    make_evidence(tmp_path / "evidence", place, SigningKey.load_or_create(tmp_path / "keys"), make_run(whole=False))

    assert events(place)[-1]["event"]["outcome"] == "not-whole"


def test_a_ledger_that_cannot_be_used_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, the results of a night end without a record."""
    from compliance import run_trail

    place = place_of(tmp_path)
    strict = LedgerPlace(tmp_path / "typo", tmp_path / "keys", PASSPHRASE)
    with pytest.raises(LedgerMissing):
        RunTrail(strict).started("a" * 32, ScanOptions((tmp_path,)))
    RunTrail(place).started("a" * 32, ScanOptions((tmp_path,)))
    with pytest.raises(LedgerLocked):
        RunTrail(LedgerPlace(place.folder, place.keys, b"wrong")).started("b" * 32, ScanOptions((tmp_path,)))
    with pytest.raises(UsageError):
        RunTrail(LedgerPlace(place.folder, place.keys, b""))
    monkeypatch.setattr(run_trail, "BUSY_PATIENCE_S", 0.0)
    with Ledger.open(place.folder, place.keys, PASSPHRASE), pytest.raises(LedgerBusy):
        RunTrail(place).started("c" * 32, ScanOptions((tmp_path,)))


def test_a_public_record_is_verified_exported_and_proven(tmp_path: Path) -> None:
    """A record in clear keeps all that the others keep, at every size of the tree, after a torn tail too."""
    from compliance.ledger_proof import proof_of, read_checkpoint, read_proof

    place = place_of(tmp_path)
    proofs = []
    with place.open() as ledger:
        origin, verifier_key = ledger.origin, ledger.verifier_key
        for number in range(9):
            if number % 3 == 2:
                _ = ledger.append_all([{"n": n} for n in range(number)])
            proofs.append(ledger.publish({"number": number}))
    torn = sorted(place.folder.glob("*.segment"))[-1]
    with torn.open("ab") as file:
        file.write(b"R\0")
    with place.open() as ledger:
        proofs.append(ledger.publish({"number": 9}))
    for number, publication in enumerate(proofs):
        proof = read_proof(proof_of(publication, origin))
        proof.hold(read_checkpoint(publication.checkpoint, verifier_key, origin))

        assert proof.event() == {"number": number}
    assert verify_ledger(place.folder, passphrase=PASSPHRASE).verdict == "intact"
    found = events(place)
    assert [line["event"] for line in found if line.get("public")] == [{"number": number} for number in range(10)]
    assert b'"number":9' in torn.with_name("0000000001.segment").read_bytes()


@pytest.mark.parametrize(
    "edit",
    [
        lambda proof: msgspec.structs.replace(proof, index=proof.index + 1),
        lambda proof: msgspec.structs.replace(proof, path=proof.path[:-1]),
        lambda proof: msgspec.structs.replace(proof, path=(*proof.path, b"\0" * 32)),
        lambda proof: msgspec.structs.replace(proof, leaf=proof.leaf.replace(b"attested", b"detested")),
        lambda proof: msgspec.structs.replace(proof, leaf=b"R" + proof.leaf[1:]),
        lambda proof: msgspec.structs.replace(proof, format=2),
        lambda proof: msgspec.structs.replace(proof, origin="detector-pool/ledger/0"),
    ],
)
def test_an_edited_proof_is_refused(home: Path, edit: Callable[[Any], Any]) -> None:
    """Each part of a proof counts, also in the right spelling."""
    from compliance.ledger_format import encode
    from compliance.ledger_proof import read_proof

    file = home / "two" / "ledger-proof.json"
    file.write_bytes(encode(edit(read_proof(file.read_bytes()))) + b"\n")

    assert set(problems(home / "two")) == {"ledger-proof.json"}


def test_writers_that_release_share_a_ledger(tmp_path: Path) -> None:
    """Two that take turns lose nothing and fork nothing; one alone goes on in its segment."""
    place = place_of(tmp_path)
    with place.open() as first:
        first.release()
        with place.open() as second:
            second.release()
            for number in range(3):
                _ = first.append({"first": number})
                _ = first.append({"first": number})
                first.release()
                _ = second.append({"second": number})
                second.release()
            before = len(list(place.folder.glob("*.segment")))
            for _ in range(4):
                _ = second.append({"alone": True})
                second.release()
            assert len(list(place.folder.glob("*.segment"))) == before
            proof = first.publish({"last": True})
            first.release()
    found = [line["event"] for line in events(place)]

    assert len(found) == 14
    assert found[proof.index] == {"last": True}
    assert [event["second"] for event in found if "second" in event] == [0, 1, 2]
    assert verify_ledger(place.folder, passphrase=PASSPHRASE).verdict == "intact"


def test_a_released_writer_accounts_for_what_another_left_torn(tmp_path: Path) -> None:
    """When this fails, a record is put behind a torn commit, and the ledger looks tampered with."""
    place = place_of(tmp_path)
    with place.open() as first:
        _ = first.append({"n": 1})
        first.release()
        with place.open() as second:
            _ = second.append({"n": 2})
        newest = sorted(place.folder.glob("*.segment"))[-1]
        with newest.open("ab") as file:
            file.write(b"R\0\0")
        _ = first.append({"n": 3})
    found = [line["event"] for line in events(place)]

    assert [event.get("n", event.get("type")) for event in found] == [1, 2, "ledger.recovered", 3]
    assert verify_ledger(place.folder).verdict == "intact"


def test_a_released_writer_waits_and_refuses_rotated_keys(tmp_path: Path) -> None:
    """It must neither write beside another, nor sign with a key that was followed by another."""
    place = place_of(tmp_path)
    with Ledger.open(make_ledger(place), place.keys, PASSPHRASE) as first:
        _ = first.append({"n": 1})
        first.release()
        with place.open() as second:
            with pytest.raises(LedgerBusy):
                first.append({"n": 2})
            _ = second.rotate(place.keys, PASSPHRASE)
        with pytest.raises(LedgerLocked, match="rotated"):
            first.append({"n": 3})
    assert verify_ledger(place.folder).verdict == "intact"


def make_ledger(place: LedgerPlace) -> Path:
    place.open().close()
    return place.folder


def test_a_write_that_fails_in_the_middle_ends_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk full while the attestation is recorded: the first error is told, and the end is recorded when there is room."""
    from compliance.errors import LedgerUnwritable
    from compliance.ledger import Disk

    place = place_of(tmp_path)
    record = make_run()
    key = SigningKey.load_or_create(tmp_path / "keys")

    def run() -> None:
        with RunTrail(place) as trail:
            trail.started(record.run_id, ScanOptions((tmp_path,)))
            with monkeypatch.context() as patched:
                patched.setattr(Disk, "write", full)
                _ = collect(record, tmp_path / "evidence", key, trail)

    def full(_self: Disk, _descriptor: int, _data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(LedgerUnwritable, match="No space"):
        run()
    found = [line["event"] for line in events(place)]
    assert [event["type"] for event in found] == ["scan.started", "scan.ended"]
    assert found[1]["outcome"] == "failed"
    assert not (tmp_path / "evidence").exists()
