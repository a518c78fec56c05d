"""Keys: made safely, refused when unsafe, and Ed25519 as RFC 8032 has it."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from compliance.errors import CheckpointInvalid, KeyUnusable
from compliance.merkle import leaf_hash, tree_hash
from compliance.signing import Checkpoint, SigningKey, VerifyingKey, note_text, signed_note
from tests.compliance.rfc_8032 import RFC_8032


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_known_answers(seed: str, public: str, message: str, signature: str) -> None:
    """An auditor's other software must accept our signatures."""
    key = SigningKey.from_raw(bytes.fromhex(seed))

    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message))
    assert not key.public.verifies(bytes.fromhex(signature), bytes.fromhex(message) + b"x")
    assert not key.public.verifies(b"short", bytes.fromhex(message))


def test_a_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    """Whoever can read the key can forge all evidence."""
    folder = tmp_path / "a" / "keys"
    first = SigningKey.load_or_create(folder)
    second = SigningKey.load_or_create(folder)

    assert first.public.id == second.public.id
    assert stat.S_IMODE((folder / "signing-key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert VerifyingKey.load(folder / "public-key.pem").id == first.public.id
    assert sorted(file.name for file in folder.iterdir()) == ["public-key.pem", "signing-key.pem"]


def test_a_passphrase_encrypts_and_is_asked_for(tmp_path: Path) -> None:
    """An encrypted key opens with its passphrase only."""
    made = SigningKey.load_or_create(tmp_path, b"correct")

    assert b"ENCRYPTED" in (tmp_path / "signing-key.pem").read_bytes()
    assert SigningKey.load_or_create(tmp_path, b"correct").public.id == made.public.id
    with pytest.raises(KeyUnusable, match="passphrase is wrong"):
        SigningKey.load_or_create(tmp_path, b"wrong")
    with pytest.raises(KeyUnusable, match="DETECTOR_POOL_PASSPHRASE"):
        SigningKey.load_or_create(tmp_path)


def test_unsafe_or_foreign_keys_are_refused(tmp_path: Path) -> None:
    """A key that others may read, a link, or another kind of key must not sign."""
    file = tmp_path / "signing-key.pem"
    SigningKey.load_or_create(tmp_path)
    file.chmod(0o640)
    with pytest.raises(KeyUnusable, match="0600"):
        SigningKey.load_or_create(tmp_path)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to("elsewhere")
    with pytest.raises(KeyUnusable, match="cannot be opened"):
        SigningKey.load_or_create(tmp_path)
    file.unlink()
    foreign = rsa.generate_private_key(65537, 2048)
    pem = foreign.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, told in ((b"junk", "no private key"), (pem, "no Ed25519")):
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(KeyUnusable, match=told):
            SigningKey.load_or_create(tmp_path)
    with pytest.raises(KeyUnusable, match="cannot be opened"):
        SigningKey.load_or_create(tmp_path / "elsewhere" / "below-a-file")


def test_public_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """The auditor must be told that his file is no key, not that the evidence is bad."""
    public = rsa.generate_private_key(65537, 2048).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyUnusable, match="no Ed25519"):
        VerifyingKey.from_pem(pem, "x")
    with pytest.raises(KeyUnusable, match="no public key"):
        VerifyingKey.from_pem(b"junk", "x")
    with pytest.raises(KeyUnusable, match="cannot be read"):
        VerifyingKey.load(tmp_path / "missing.pem")


# C2SP signed-note.md (data BSD-1-Clause), and golang/mod sumdb/note/note_test.go (BSD-3-Clause): verifier key, note.
NOTE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# C2SP tlog-checkpoint.md: the example's text; its key is not published.
CHECKPOINT_TEXT = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
RFC_8032_TLOG = (
    Path(os.environ.get("DETECTOR_POOL_RFC_8032", Path(__file__).parents[3] / "shared" / "vectors")) / "tlog"
)


@pytest.mark.parametrize(("vkey", "note"), [(NOTE_KEY, NOTE), (GO_KEY, GO_NOTE)])
def test_published_notes_verify_and_no_change_of_them_does(vkey: str, note: bytes) -> None:
    """Witnesses and auditors read our checkpoints with their own tools, which follow the same text."""
    name, key = VerifyingKey.from_vkey(vkey, "x")

    assert key.vkey(name) == vkey
    assert note_text(note, name, key, "x") == note.rpartition(b"\n\n")[0] + b"\n"
    own = note.index(f"\u2014 {name} ".encode())
    end = note.index(b"\n", own)
    for place in [*range(note.index(b"\n\n")), *range(own + 4, end + 1)]:
        changed = bytearray(note)
        changed[place] ^= 1
        with pytest.raises(CheckpointInvalid):
            note_text(bytes(changed), name, key, "x")


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "",
    ],
)
def test_bad_verifier_keys_are_refused(vkey: str) -> None:
    """A key of another kind, or one whose id is not its own, must not anchor anything."""
    with pytest.raises(KeyUnusable):
        VerifyingKey.from_vkey(vkey, "x")


def test_our_notes_are_signed_notes_and_checkpoints(key: SigningKey) -> None:
    """What is written here is read here, by the published rules."""
    head = Checkpoint("detector-pool/ledger/0", 7, b"r" * 32)
    note = signed_note(head.text(), head.origin, key)
    name, public = VerifyingKey.from_vkey(key.public.vkey(head.origin), "x")

    assert name == head.origin
    assert Checkpoint.from_text(note_text(note, name, public, "x"), "x") == head
    with pytest.raises(CheckpointInvalid, match="not signed by"):
        note_text(note, name, SigningKey.from_raw(b"o" * 32).public, "x")


def test_checkpoints_have_one_spelling() -> None:
    """Two spellings of one checkpoint would let a change through."""
    assert Checkpoint.from_text(CHECKPOINT_TEXT, "x").text() == CHECKPOINT_TEXT
    for changed in (
        b"", CHECKPOINT_TEXT[:-1], CHECKPOINT_TEXT + b"extension\n", CHECKPOINT_TEXT.replace(b"208", b"0208"),
        CHECKPOINT_TEXT.replace(b"2I=", b"2J="), CHECKPOINT_TEXT.replace(b"208", b"+208"),
        CHECKPOINT_TEXT.replace(b"20852163", b"9" * 19), CHECKPOINT_TEXT.replace(b"20852163", b"9" * 30),
        b"\n0\n" + CHECKPOINT_TEXT.split(b"\n")[2] + b"\n", b"\xff" + CHECKPOINT_TEXT,
    ):  # fmt: skip
        with pytest.raises(CheckpointInvalid):
            Checkpoint.from_text(changed, "x")
    for broken in (
        b"",
        b"a\n",
        b"a\n\nb\n",
        b"a\n\n\xe2\x80\x94 x !\n",
        b"\x01\n\n\xe2\x80\x94 x AAAAAAAA\n",
        b"\xff\n\nx\n",
    ):
        with pytest.raises(CheckpointInvalid):
            note_text(broken, "x", SigningKey.from_raw(b"o" * 32).public, "x")


@pytest.mark.skipif(not RFC_8032_TLOG.is_dir(), reason="the published log of tessera is not on this machine")
def test_a_published_log_verifies() -> None:
    """Sixteen checkpoints of another implementation, with the entries they stand for."""
    meta = json.loads((RFC_8032_TLOG / "tessera-testdata" / "meta.json").read_text())
    name, public = VerifyingKey.from_vkey(meta["vkey"], "x")
    leaves = [leaf_hash(entry.encode()) for entry in meta["entries"]]
    for size in range(16):
        note = (RFC_8032_TLOG / "tessera-testdata" / f"checkpoint.{size}").read_bytes()
        head = Checkpoint.from_text(note_text(note, name, public, "x"), "x")

        assert (head.size, head.root) == (size, tree_hash(leaves[:size]))


def test_a_key_file_is_costly_to_guess_at_and_standard(tmp_path: Path) -> None:
    """The key file must not be a cheaper place to try passphrases at than the ledger."""
    SigningKey.load_or_create(tmp_path, b"correct")
    der = base64.b64decode(b"".join((tmp_path / "signing-key.pem").read_bytes().splitlines()[1:-1]))

    assert bytes.fromhex("02030927c0") in der  # INTEGER 600000, in PBKDF2-params of RFC 8018
    opened = serialization.load_pem_private_key((tmp_path / "signing-key.pem").read_bytes(), b"correct")
    assert isinstance(opened, ed25519.Ed25519PrivateKey)


def test_successors_are_found_by_their_id(tmp_path: Path) -> None:
    """A ledger whose keys were rotated needs the key that its last head names, wherever a crash left the files."""
    old = SigningKey.load_or_create(tmp_path, b"p")
    new = SigningKey.create_successor(tmp_path, b"p")
    assert SigningKey.load(tmp_path, b"p", old.public.id).public.id == old.public.id
    assert SigningKey.load(tmp_path, b"p", new.public.id).public.id == new.public.id
    SigningKey.promote(tmp_path, old.public.id, new.public.id)

    assert SigningKey.load_or_create(tmp_path, b"p").public.id == new.public.id
    assert SigningKey.load(tmp_path, b"p", old.public.id).public.id == old.public.id
    with pytest.raises(KeyUnusable, match="does not hold the key"):
        SigningKey.load(tmp_path, b"p", "0" * 64)
