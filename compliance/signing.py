"""
Ed25519 keys: made once, kept at 0600 outside of any evidence, encrypted when there is a passphrase.

Source: RFC 8032 (Ed25519); PKCS #8 in PEM, RFC 5958 and 7468.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from compliance.errors import KeyUnusable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["SigningKey", "VerifyingKey"]

PRIVATE, PUBLIC = "signing-key.pem", "public-key.pem"
MAX_KEY_BYTES = 16 << 10


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

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = VerifyingKey(key.public_key())

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
        return cls(key)

    @classmethod
    def _create(cls, folder: Path, passphrase: bytes | None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        key = Ed25519PrivateKey.generate()
        protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
        # Written whole beside its place, then linked into it: a second process never reads half a key, and the first
        # of two that make one at once wins.
        draft = folder / f".{PRIVATE}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(pem)
                opened.flush()
                os.fsync(opened.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, folder / PRIVATE)
                (folder / PUBLIC).write_bytes(VerifyingKey(key.public_key()).pem())
        finally:
            draft.unlink()
