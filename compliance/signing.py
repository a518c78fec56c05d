"""
Ed25519 keys: made once, kept at 0600 outside of any evidence, encrypted when there is a passphrase; and signed notes.

Source: RFC 8032 (Ed25519); PKCS #8 in PEM, RFC 5958 and 7468, encrypted as PBES2 of RFC 8018; C2SP signed-note and
tlog-checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from compliance.errors import CheckpointInvalid, KeyUnusable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Checkpoint", "SigningKey", "VerifyingKey", "note_text", "signed_note"]

PRIVATE, PUBLIC = "signing-key.pem", "public-key.pem"
MAX_KEY_BYTES = 16 << 10
KEY_FILE_ROUNDS = 600_000
"""PBKDF2-HMAC-SHA256 as OWASP asks. cryptography itself writes 2,048: the key file would be the place to guess at."""
ED25519_NOTE = b"\x01"
MAX_SIZE = 1 << 63
SIGNATURE_MARK = "\u2014 ".encode()


class VerifyingKey:
    """A public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def from_pem(cls, pem: bytes, origin: str) -> VerifyingKey:
        """
        Read a public key.

        Args:
            pem: SubjectPublicKeyInfo in PEM.
            origin: For messages.

        Raises:
            KeyUnusable: It is no Ed25519 public key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as problem:
            raise KeyUnusable(origin, "it is no public key in PEM") from problem
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(origin, "it is no Ed25519 key")
        return cls(key)

    @classmethod
    def load(cls, file: Path) -> VerifyingKey:
        """Read a public key file; raises KeyUnusable."""
        try:
            with file.open("rb") as opened:
                return cls.from_pem(opened.read(MAX_KEY_BYTES), str(file))
        except OSError as problem:
            raise KeyUnusable(str(file), f"it cannot be read ({problem.strerror})") from problem

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return self._key.public_bytes_raw()

    @property
    def id(self) -> str:
        """Sha256 of the raw key, hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()

    def pem(self) -> bytes:
        """Return the key as SubjectPublicKeyInfo in PEM: one spelling for each key."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def from_raw(cls, raw: bytes) -> VerifyingKey:
        """Return the key of 32 bytes (RFC 8032 §5.1.5); raises ValueError for another length."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return cls(Ed25519PublicKey.from_public_bytes(raw))

    @classmethod
    def from_vkey(cls, text: str, origin: str) -> tuple[str, VerifyingKey]:
        """
        Read a verifier key of C2SP signed-note, `<name>+<key id>+<base64 of type and key>`.

        Returns:
            The name, and the key.

        Raises:
            KeyUnusable: It is none, is not of Ed25519, or its key id is not that of name and key.
        """
        name, _, rest = text.partition("+")
        told, _, encoded = rest.partition("+")
        data = _decoded(encoded.encode("utf-8", "replace"))
        if data is None or len(data) != 33 or data[:1] != ED25519_NOTE or not _is_name(name):
            raise KeyUnusable(origin, "it is neither a PEM nor a verifier key of Ed25519")
        key = cls.from_raw(data[1:])
        if key.note_id(name).hex() != told:
            raise KeyUnusable(origin, "its key id is not that of its name and key")
        return name, key

    def vkey(self, name: str) -> str:
        """Return the verifier key of C2SP signed-note for this key under `name`."""
        return f"{name}+{self.note_id(name).hex()}+{base64.b64encode(ED25519_NOTE + self.raw).decode()}"

    def note_id(self, name: str) -> bytes:
        """Return the four bytes that tell this key under `name` in a signature line (C2SP signed-note)."""
        return hashlib.sha256(name.encode() + b"\n" + ED25519_NOTE + self.raw).digest()[:4]

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` (64 bytes) is this key's over `message`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey, *, encrypted: bool = False) -> None:
        self._key = key
        self.public = VerifyingKey(key.public_key())
        self.encrypted = encrypted
        """Whether it lies encrypted where it was read from."""

    @classmethod
    def load_or_create(cls, folder: Path, passphrase: bytes | None = None) -> SigningKey:
        """
        Read the key of `folder`, or make one when there is none.

        Args:
            folder: Made with mode 0700.
            passphrase: Encrypts a new key, and opens an encrypted one.

        Raises:
            KeyUnusable: The file is a link, open to others, of another kind, or the passphrase is wrong or missing.
        """
        file = folder / PRIVATE
        with contextlib.suppress(FileNotFoundError):
            return cls._load(file, passphrase)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            cls._create(folder, passphrase)
        except OSError as problem:
            raise KeyUnusable(str(file), f"it cannot be made ({problem.strerror})") from problem
        return cls._load(file, passphrase)

    @classmethod
    def load(cls, folder: Path, passphrase: bytes | None, key_id: str) -> SigningKey:
        """
        Read the key whose public key has `key_id`: the folder's present one, or one that it kept.

        Raises:
            KeyUnusable: It is not there, or see `load_or_create`.
        """
        kept = folder / _named(key_id)
        for file in (kept, folder / PRIVATE):
            with contextlib.suppress(FileNotFoundError):
                key = cls._load(file, passphrase)
                if key.public.id == key_id:
                    return key
        raise KeyUnusable(str(folder), f"it does not hold the key {key_id[:16]}; give the folder that does (--keys)")

    @classmethod
    def create_successor(cls, folder: Path, passphrase: bytes | None) -> SigningKey:
        """Make another key beside the present one, found by its id; raises KeyUnusable."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = cls(Ed25519PrivateKey.generate())
        try:
            _ = key._write(folder, _named(key.public.id), passphrase)
        except OSError as problem:
            raise KeyUnusable(str(folder), f"it cannot take a new key ({problem.strerror})") from problem
        return key

    @classmethod
    def promote(cls, folder: Path, old_id: str, new_id: str) -> None:
        """Make a kept key the folder's present one, and keep the old one by its id; raises KeyUnusable."""
        draft = folder / f".{PRIVATE}.{os.getpid()}"
        try:
            with contextlib.suppress(FileExistsError):
                os.link(folder / PRIVATE, folder / _named(old_id))
            draft.unlink(missing_ok=True)
            os.link(folder / _named(new_id), draft)
            draft.replace(folder / PRIVATE)
        except OSError as problem:
            raise KeyUnusable(str(folder), f"the new key cannot take its place ({problem.strerror})") from problem

    def publish(self, folder: Path) -> None:
        """Write the public key beside the private one."""
        draft = folder / f".{PUBLIC}.{os.getpid()}"
        draft.write_bytes(self.public.pem())
        draft.replace(folder / PUBLIC)

    @classmethod
    def from_raw(cls, raw: bytes) -> SigningKey:
        """Return the key of a 32-byte seed (RFC 8032 §5.1.5)."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.from_private_bytes(raw))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return self._key.sign(message)

    @classmethod
    def _load(cls, file: Path, passphrase: bytes | None) -> SigningKey:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as problem:
            raise KeyUnusable(str(file), f"it cannot be opened ({problem.strerror})") from problem
        with os.fdopen(descriptor, "rb") as opened:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or stat.S_IMODE(seen.st_mode) & 0o077:
                raise KeyUnusable(str(file), "it must be your own regular file with mode 0600 (chmod 600)")
            pem = opened.read(MAX_KEY_BYTES)
        encrypted = b"ENCRYPTED" in pem
        if encrypted and passphrase is None:
            raise KeyUnusable(str(file), "it is encrypted; set DETECTOR_POOL_PASSPHRASE or --passphrase-file")
        try:
            key = load_pem_private_key(pem, passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
            told = "the passphrase is wrong, or the file is damaged" if encrypted else "it is no private key in PEM"
            raise KeyUnusable(str(file), told) from problem
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(str(file), "it is no Ed25519 key")
        return cls(key, encrypted=encrypted)

    @classmethod
    def _create(cls, folder: Path, passphrase: bytes | None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = cls(Ed25519PrivateKey.generate())
        if key._write(folder, PRIVATE, passphrase):
            key.publish(folder)

    def _write(self, folder: Path, name: str, passphrase: bytes | None) -> bool:
        """Put the key into `folder`; tell whether the name was free."""
        pem = self._pem(passphrase)
        # Written whole beside its place, then linked into it: a second process never reads half a key, and the first
        # of two that make one at once wins.
        draft = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(pem)
                opened.flush()
                os.fsync(opened.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, folder / name)
                return True
            return False
        finally:
            draft.unlink()

    def _pem(self, passphrase: bytes | None) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if not passphrase:
            return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        der = self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        body = base64.encodebytes(_encrypted(der, passphrase)).replace(b"\n", b"")
        lines = [body[start : start + 64] for start in range(0, len(body), 64)]
        label = b"ENCRYPTED PRIVATE KEY"
        return b"\n".join([b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""])


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A tree head of a log (C2SP tlog-checkpoint), without extension lines."""

    origin: str
    """Name of the log, and of the key that signs for it."""
    size: int
    """Leaves of the tree."""
    root: bytes
    """32 bytes."""

    def text(self) -> bytes:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    @classmethod
    def from_text(cls, text: bytes, origin: str) -> Checkpoint:
        """
        Read the text of a note.

        Args:
            text: What was signed.
            origin: Where it came from, for messages.

        Raises:
            CheckpointInvalid: It is no checkpoint, has extension lines, or is not spelled as checkpoints are.
        """
        lines = text.split(b"\n")
        told = "it is no checkpoint of three lines"
        if len(lines) != 4:
            raise CheckpointInvalid(origin, told)
        root = _decoded(lines[2])
        if not lines[1].isdigit() or len(lines[1]) > 19 or root is None or len(root) != 32:
            raise CheckpointInvalid(origin, told)
        try:
            found = cls(lines[0].decode(), int(lines[1]), root)
        except UnicodeDecodeError as problem:
            raise CheckpointInvalid(origin, told) from problem
        if found.text() != text or not found.origin or found.size >= MAX_SIZE:
            raise CheckpointInvalid(origin, told)
        return found


def signed_note(text: bytes, name: str, key: SigningKey) -> bytes:
    """
    Return a signed note: the text, a blank line, one signature line (C2SP signed-note).

    Args:
        text: UTF-8 that ends with a newline.
        name: Of the key; neither spaces nor plus.
        key: Signs.
    """
    assert text.endswith(b"\n"), "a note's text ends with a newline"
    assert _is_name(name), "a key's name holds neither spaces nor plus"
    line = base64.b64encode(key.public.note_id(name) + key.sign(text))
    return text + b"\n" + SIGNATURE_MARK + name.encode() + b" " + line + b"\n"


def note_text(note: bytes, name: str, key: VerifyingKey, origin: str) -> bytes:
    """
    Return the text of a note that `key` signed under `name`; lines of other keys (witnesses) are passed over.

    Args:
        note: Text, blank line, signature lines.
        name: The key's name.
        key: Whose signature is asked for.
        origin: Where the note came from, for messages.

    Raises:
        CheckpointInvalid: It is no note, or holds no valid signature of that key.

    Source: C2SP signed-note.
    """
    text, blank, signatures = note.rpartition(b"\n\n")
    if not blank or not signatures.endswith(b"\n") or not text:
        raise CheckpointInvalid(origin, "it is no signed note")
    text += b"\n"
    try:
        if any(ord(character) < 32 and character != "\n" for character in note.decode()):
            raise CheckpointInvalid(origin, "it holds control characters")
    except UnicodeDecodeError as problem:
        raise CheckpointInvalid(origin, "it is not UTF-8") from problem
    signed = False
    for line in signatures.removesuffix(b"\n").split(b"\n"):
        signer, _, encoded = line.removeprefix(SIGNATURE_MARK).partition(b" ")
        data = _decoded(encoded)
        if not line.startswith(SIGNATURE_MARK) or data is None or len(data) < 5 or not _is_name(signer.decode()):
            raise CheckpointInvalid(origin, "it has a signature line that cannot be read")
        if signer.decode() == name and data[:4] == key.note_id(name):
            if not key.verifies(data[4:], text):
                raise CheckpointInvalid(origin, "its signature is not valid")
            signed = True
    if not signed:
        raise CheckpointInvalid(origin, "it is not signed by the key of this log")
    return text


def _named(key_id: str) -> str:
    return f"signing-key-{key_id[:16]}.pem"


def _is_name(name: str) -> bool:
    return "+" not in name and name.split() == [name]


def _decoded(encoded: bytes) -> bytes | None:
    """Return what base64 stands for, when it is spelled as we spell it."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data) == encoded else None


def _encrypted(der: bytes, passphrase: bytes) -> bytes:
    """Return `EncryptedPrivateKeyInfo` (RFC 5958 §3) under PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 8018)."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.ciphers.modes import CBC
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    salt, start = os.urandom(16), os.urandom(16)
    key = PBKDF2HMAC(SHA256(), 32, salt, KEY_FILE_ROUNDS).derive(passphrase)
    padding = 16 - len(der) % 16
    encryptor = Cipher(AES256(key), CBC(start)).encryptor()
    hidden = encryptor.update(der + bytes([padding]) * padding) + encryptor.finalize()
    rounds = KEY_FILE_ROUNDS.to_bytes(KEY_FILE_ROUNDS.bit_length() // 8 + 1, "big")
    hmac_sha256 = _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d0209")), _der(0x05))
    parameters = _der(0x30, _der(0x04, salt), _der(0x02, rounds), hmac_sha256)
    derivation = _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d01050c")), parameters)
    cipher = _der(0x30, _der(0x06, bytes.fromhex("60864801650304012a")), _der(0x04, start))
    scheme = _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d01050d")), _der(0x30, derivation, cipher))
    return _der(0x30, scheme, _der(0x04, hidden))


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    assert len(content) < 256, "a key of Ed25519 is short"
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
