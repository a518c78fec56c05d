"""The ledger as its users see it: what goes in comes back, in order, durable, and readable without this project."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance import merkle
from compliance.errors import LedgerBusy, LedgerDamaged, LedgerLocked, LedgerMissing, LedgerUnwritable
from compliance.ledger import Ledger
from compliance.ledger_export import export, prove, read_record
from compliance.ledger_format import Epoch, sign_genesis
from compliance.ledger_keys import SegmentCipher, derived_key
from compliance.ledger_verify import verify
from compliance.signing import SigningKey
from detectors.errors import FormatTooNew, UsageError

PASSPHRASE = b"correct horse"
WYCHEPROOF = (
    Path(os.environ.get("DETECTOR_POOL_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")) / "wycheproof"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that the module's ledgers share; making one takes a while, as it must."""
    folder = tmp_path_factory.mktemp("keys")
    SigningKey.load_or_create(folder, PASSPHRASE)
    return folder


@pytest.fixture
def folder(tmp_path: Path, keys: Path) -> Path:
    """A new ledger."""
    Ledger.create(tmp_path / "ledger", keys, PASSPHRASE, segment_records=5)
    return tmp_path / "ledger"


def lines_of(folder: Path, passphrase: bytes = PASSPHRASE, *, proofs: bool = False) -> list[dict[str, object]]:
    parts: list[bytes] = []
    export(folder, passphrase, parts.append, proofs=proofs)
    return [json.loads(line) for line in b"".join(parts).splitlines()]


def test_events_come_back_in_order(folder: Path, keys: Path) -> None:
    """What an auditor reads must be what was appended."""
    events = [{"type": "a", "ü": "\x00\u2028"}, {}, {"nested": {"list": [1, 2.5, None, True, 2**70]}}]
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        assert ledger.append(events[0]).index == 0
        assert ledger.append_all(events[1:]).indices == range(1, 3)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        assert (ledger.size, ledger.append({"last": True}).index) == (3, 3)
    lines = lines_of(folder)

    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert [line["event"] for line in lines] == [*events, {"last": True}]
    assert json.loads(read_record(folder, 2, PASSPHRASE)) == lines[2]
    with pytest.raises(IndexError):
        read_record(folder, 4, PASSPHRASE)


def test_nothing_stands_in_clear(folder: Path, keys: Path) -> None:
    """The folder may be copied to people who may verify and not read."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append({"secret": "hunter2"})
    content = b"".join(file.read_bytes() for file in folder.iterdir())

    assert b"hunter2" not in content
    assert b"secret" not in content
    assert PASSPHRASE not in content


def test_threads_share_commits_and_lose_nothing(folder: Path, keys: Path) -> None:
    """Many writers' appends share an fsync; each must get its own index back."""
    got: dict[int, str] = {}
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:

        def write(name: str) -> None:
            for number in range(15):
                event = f"{name}.{number}"
                got[ledger.append({"event": event}).index] = event

        threads = [threading.Thread(target=write, args=(str(name),)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [line["event"] for line in lines_of(folder)] == [{"event": got[index]} for index in range(90)]


def test_one_writer_at_a_time(folder: Path, keys: Path) -> None:
    """Two writers would fork the ledger."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        with pytest.raises(LedgerBusy):
            Ledger.open(folder, keys, PASSPHRASE)
        ledger.append({"n": 1})
        assert verify(folder).verdict == "intact"
        with next(folder.glob("*.segment")).open("ab") as file:
            file.write(b"R")
        assert verify(folder).verdict == "busy"
    assert verify(folder).verdict == "recoverable"
    with pytest.raises(LedgerUnwritable, match="closed"):
        ledger.append({"n": 2})


def test_a_verifier_beside_a_writer_sees_no_damage(folder: Path, keys: Path) -> None:
    """Monitors verify while runs write; a false alarm would teach people to ignore the true one."""
    seen = []
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        writer = threading.Thread(target=lambda: [ledger.append({"n": number}) for number in range(120)])
        writer.start()
        while writer.is_alive() or not seen:
            seen.append(verify(folder, processes=1))
        writer.join()

    assert {verdict.verdict for verdict in seen} <= {"intact", "busy"}
    assert verify(folder).records == 120


def test_wrong_passphrases_and_missing_keys_are_told(folder: Path, keys: Path, tmp_path: Path) -> None:
    """An operator must learn which of the two is wrong; nothing may be made in place of what is missing."""
    with pytest.raises(LedgerLocked, match="passphrase is wrong"):
        Ledger.open(folder, keys, b"wrong")
    with pytest.raises(LedgerLocked, match="does not hold the key"):
        Ledger.open(folder, tmp_path / "no-keys", PASSPHRASE)
    assert not (tmp_path / "no-keys").exists()
    assert verify(folder, passphrase=b"wrong").verdict == "auth"
    open_keys = tmp_path / "open-keys"
    SigningKey.load_or_create(open_keys)
    with pytest.raises(LedgerLocked, match="unencrypted"):
        Ledger.create(tmp_path / "other", open_keys, PASSPHRASE)


def test_places_are_checked(folder: Path, keys: Path, tmp_path: Path) -> None:
    """Keys in the ledger's folder would go wherever it is copied; a folder in use is never taken over."""
    with pytest.raises(UsageError, match="would lie in the ledger"):
        Ledger.create(tmp_path / "new", tmp_path / "new" / "keys", PASSPHRASE)
    with pytest.raises(LedgerMissing, match="not empty"):
        Ledger.create(folder, keys, PASSPHRASE)
    with pytest.raises(LedgerMissing, match="audit init"):
        verify(tmp_path / "nothing")
    with pytest.raises(LedgerMissing, match="audit init"):
        verify(tmp_path)
    with pytest.raises(UsageError, match="a segment takes"):
        Ledger.create(tmp_path / "new", keys, PASSPHRASE, segment_records=0)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ([1], "JSON object"),
        ({"a": object()}, "cannot be written"),
        ({"a": "x" * (1 << 20)}, "are the most"),
        ({1.5j: 1}, "cannot"),
    ],
)
def test_what_is_no_event_is_refused(folder: Path, keys: Path, event: object, told: str) -> None:
    """A bad event must not take the good ones beside it along."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        with pytest.raises(UsageError, match=told):
            ledger.append_all([{"good": 1}, event])  # type: ignore[list-item]
        assert ledger.append({"good": 2}).index == 0


def test_rotated_keys_open_everything_and_are_certified(folder: Path, tmp_path: Path) -> None:
    """After a rotation the old passphrase writes nothing more, the new one reads all, and both public keys anchor."""
    own = tmp_path / "own-keys"
    Ledger.create(tmp_path / "own", own, PASSPHRASE)
    old_key = tmp_path / "old.pem"
    old_key.write_bytes((own / "public-key.pem").read_bytes())
    with Ledger.open(tmp_path / "own", own, PASSPHRASE) as ledger:
        ledger.append({"n": 1})
        assert ledger.rotate(own, b"another", reason="yearly").index == 1
        ledger.append({"n": 2})
    with pytest.raises(LedgerLocked):
        Ledger.open(tmp_path / "own", own, PASSPHRASE)
    with Ledger.open(tmp_path / "own", own, b"another") as ledger:
        ledger.append({"n": 3})
    lines = lines_of(tmp_path / "own", b"another")

    assert [line["event"].get("n") for line in lines] == [1, None, 2, 3]  # type: ignore[attr-defined]
    assert lines[1]["ledger"] is True
    for anchor in (old_key, own / "public-key.pem"):
        assert verify(tmp_path / "own", public_key=anchor, passphrase=b"another").anchored
    with Ledger.open(tmp_path / "own", own, b"another") as ledger:
        old_key.write_bytes((own / "public-key.pem").read_bytes())
        ledger.rotate(own, b"another", revoke=True)
    assert verify(tmp_path / "own", public_key=own / "public-key.pem").verdict == "intact"
    assert "was revoked" in str(verify(tmp_path / "own", public_key=old_key).problem)


def test_proofs_lead_to_the_signed_root(folder: Path, keys: Path) -> None:
    """A single record can be shown to somebody who gets nothing else."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        for number in range(13):
            ledger.append({"n": number})
    *lines, last = lines_of(folder, proofs=True)
    root = base64.b64decode(str(last["checkpoint"]).split("\n")[2])
    for line in lines:
        leaf = merkle.leaf_hash(base64.b64decode(str(line["leaf"])))
        path = [base64.b64decode(node) for node in line["proof"]]  # type: ignore[attr-defined]
        merkle.verify_inclusion(int(str(line["index"])), 13, leaf, path, root)
    proof = prove(folder, 7)

    assert len(lines) == 13
    assert (proof.size, base64.b64encode(proof.leaf).decode()) == (13, lines[7]["leaf"])
    merkle.verify_inclusion(7, 13, merkle.leaf_hash(proof.leaf), proof.path, root)


def test_several_processes_find_what_one_finds(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a verdict depends on the number of processors."""
    from compliance import ledger_verify

    folder = tmp_path / "large"
    Ledger.create(folder, keys, PASSPHRASE, segment_records=50)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": number, "text": "x" * 2000} for number in range(400)])
    monkeypatch.setattr(ledger_verify, "ALONE_BYTES", 1 << 16)
    found = [verify(folder, processes=count, passphrase=PASSPHRASE) for count in (1, 2, 3)]
    victim = sorted(folder.glob("*.segment"))[5]
    data = bytearray(victim.read_bytes())
    data[-5000] ^= 1
    victim.write_bytes(data)
    damaged = [verify(folder, processes=count) for count in (1, 2, 3)]

    assert found[0].ok
    assert found == [found[0]] * 3
    assert damaged[0].verdict == "tampered"
    assert damaged == [damaged[0]] * 3


def test_a_record_is_opened_by_its_description_alone(folder: Path, keys: Path) -> None:
    """docs/ledger.md must be enough to read a ledger without this project: here with hashlib and AES-GCM only."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append({"n": 1})

    def packed(*values: object) -> bytes:
        return json.dumps(values, separators=(",", ":")).encode()

    genesis = json.loads((folder / "genesis").read_bytes().partition(b"\n")[0])
    data = (folder / "0000000000.segment").read_bytes()
    header_bytes = int.from_bytes(data[1:5], "big")
    header = json.loads(data[5 : 5 + header_bytes])
    epoch = header["epoch"]
    key = hashlib.pbkdf2_hmac("sha256", PASSPHRASE, base64.b64decode(epoch["salt"]), epoch["rounds"])
    bound = packed(genesis["ledger_id"], epoch["number"], epoch["kdf"], epoch["rounds"], epoch["salt"])
    sealed = base64.b64decode(epoch["wrapped_root"])
    root = AESGCM(key).decrypt(sealed[:12], sealed[12:], b"detector-pool ledger root key v1\0" + bound)
    place = packed(header["origin"], header["number"], header["first"], epoch["number"])
    sealed = base64.b64decode(header["wrapped_key"])
    segment_key = AESGCM(root).decrypt(sealed[:12], sealed[12:], b"detector-pool ledger segment key v1\0" + place)
    frame = data[5 + header_bytes :]
    length = int.from_bytes(frame[1:5], "big")
    text = AESGCM(segment_key).decrypt((0).to_bytes(12, "big"), frame[45 : 45 + length], frame[:45])

    assert json.loads(text)["event"] == {"n": 1}


def test_a_newer_format_is_refused_by_name(folder: Path, keys: Path) -> None:
    """A ledger of a later release is not damaged, and must not be called so."""
    import msgspec

    from compliance.ledger_format import Genesis

    genesis = msgspec.json.decode((folder / "genesis").read_bytes().partition(b"\n")[0], type=Genesis)
    newer = msgspec.structs.replace(genesis, format=2)
    (folder / "genesis").write_bytes(sign_genesis(newer, SigningKey.load_or_create(keys, PASSPHRASE)))

    with pytest.raises(FormatTooNew, match="version 2"):
        verify(folder)


def test_opening_reads_the_end_only(folder: Path, keys: Path) -> None:
    """Opening must not grow with the ledger; what lies before is the verifier's."""
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        for number in range(12):
            ledger.append({"n": number})
    first = folder / "0000000000.segment"
    first.write_bytes(b"")
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        assert ledger.size == 12
    assert verify(folder).first_bad_index == 0
    with pytest.raises(LedgerDamaged):
        lines_of(folder)


def test_killed_helpers_do_not_change_the_answer(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was ended from outside must not make a ledger look damaged."""
    from compliance import ledger_verify

    folder = tmp_path / "ledger"
    Ledger.create(folder, keys, PASSPHRASE, segment_records=5)
    with Ledger.open(folder, keys, PASSPHRASE) as ledger:
        ledger.append_all([{"n": number} for number in range(30)])
    monkeypatch.setattr(ledger_verify, "ALONE_BYTES", 1)
    monkeypatch.setattr(ledger_verify.sys, "executable", "/bin/false")

    assert verify(folder, processes=2).ok


# RFC 7914 §11: PBKDF2-HMAC-SHA256, passphrase, salt, rounds, first 32 bytes.
PBKDF2 = [
    (b"passwd", b"salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"),
    (b"Password", b"NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"),
]


@pytest.mark.parametrize(("passphrase", "salt", "rounds", "key"), PBKDF2)
def test_known_answers_of_the_derivation(passphrase: bytes, salt: bytes, rounds: int, key: str) -> None:
    """An auditor with the passphrase must derive the same key with any other software."""
    assert derived_key(passphrase, Epoch(0, "PBKDF2-HMAC-SHA256", rounds, salt, b"", b"")).hex() == key


def test_known_answer_of_the_cipher() -> None:
    """Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", which NIST refers to."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    bound = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = SegmentCipher(key).encrypt(bytes.fromhex("cafebabefacedbaddecaf888"), plain, bound)

    assert sealed.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


@pytest.mark.skipif(not WYCHEPROOF.is_dir(), reason="the published Wycheproof vectors are not on this machine")
def test_published_answers_of_cipher_and_derivation() -> None:
    """The library beneath is held to Wycheproof for the one size of key, nonce and tag that the ledger uses."""
    cases = json.loads((WYCHEPROOF / "aes_gcm_test.json").read_text())
    ours = [g for g in cases["testGroups"] if (g["keySize"], g["ivSize"], g["tagSize"]) == (256, 96, 128)]
    checked = 0
    for case in (case for group in ours for case in group["tests"]):
        sealed = SegmentCipher(bytes.fromhex(case["key"])).encrypt(
            bytes.fromhex(case["iv"]), bytes.fromhex(case["msg"]), bytes.fromhex(case["aad"])
        )
        checked += 1

        assert (sealed.hex() == case["ct"] + case["tag"]) == (case["result"] == "valid"), case["tcId"]
    assert checked > 50
    for group in json.loads((WYCHEPROOF / "pbkdf2_hmacsha256_test.json").read_text())["testGroups"]:
        for case in group["tests"]:
            if case["dkLen"] < 32 or case["iterationCount"] > 100_000:
                continue
            epoch = Epoch(0, "", case["iterationCount"], bytes.fromhex(case["salt"]), b"", b"")
            derived = derived_key(bytes.fromhex(case["password"]), epoch)

            assert derived.hex() == case["dk"][:64], case["tcId"]


STEPS = st.lists(st.sampled_from(["append", "many", "reopen", "rotate", "tear"]), min_size=2, max_size=7)


@given(STEPS)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_keeps_what_was_acknowledged(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """Against a list in memory: appended, opened again, rotated, torn and recovered in any order."""
    scratch = tmp_path_factory.mktemp("model")
    folder, own = scratch / "ledger", scratch / "keys"
    Ledger.create(folder, own, PASSPHRASE, segment_records=3)
    model: list[tuple[int, dict[str, object]]] = []
    ledger = Ledger.open(folder, own, PASSPHRASE)
    for step in steps:
        if step in {"append", "many"}:
            events: list[dict[str, object]] = [{"n": len(model) + more} for more in range(1 if step == "append" else 5)]
            model += zip(ledger.append_all(events).indices, events, strict=True)
        elif step == "rotate":
            ledger.rotate(own, PASSPHRASE)
        else:
            ledger.close()
            segments = sorted(folder.glob("*.segment"))
            if step == "tear" and segments:
                # What a writer leaves that was killed in the middle of its next header.
                (folder / f"{int(segments[-1].stem) + 1:010}.segment").write_bytes(b"B\0\0")
            ledger = Ledger.open(folder, own, PASSPHRASE)
    ledger.append({"last": True})
    size = ledger.size
    ledger.close()
    verdict = verify(folder, passphrase=PASSPHRASE)
    lines = {line["index"]: line["event"] for line in lines_of(folder)}

    assert (verdict.verdict, verdict.records, len(lines)) == ("intact", size, size)
    assert all(lines[index] == event for index, event in model)


def test_the_commands_start_light(folder: Path) -> None:
    """When this fails, each audit command waits for libraries that it does not use."""
    code = "import compliance.ledger, compliance.ledger_export, deployments.cli, sys; print(*sys.modules)"
    # The measurement of coverage loads libraries of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert "msgspec" in loaded
    assert loaded & {"prefect", "distributed", "dask", "pandas", "multiprocessing", "asyncio", "rich"} == set()
