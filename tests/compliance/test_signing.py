"""Keys: made safely, refused when unsafe, and Ed25519 as RFC 8032 has it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from compliance.errors import KeyUnusable
from compliance.signing import SigningKey, VerifyingKey

# RFC 8032 §7.1, TEST 1 to 3: seed, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
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
