"""
The ledger's secrets: passphrase to root key to segment key, each wrapped under the one before it.

The parameters of the derivation, the ledger and the place of a key are associated data of what wraps it, so that none
can be exchanged or weakened. Verification never comes here.

Source: NIST SP 800-38D (AES-GCM), SP 800-132 and RFC 8018 (PBKDF2).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from compliance.errors import LedgerDamaged, LedgerLocked
from compliance.ledger_format import (
    KDF,
    MAX_ROUNDS,
    MIN_ROUNDS,
    PREFIX,
    PUBLIC,
    SALT_BYTES,
    Epoch,
    Opened,
    Payload,
    SegmentHeader,
    encode,
    public_payload,
    sound_epoch,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SegmentCipher", "derived_key", "make_epoch", "unlock", "unwrap_segment_key", "wrap_segment_key"]

ROOT_KEY, PREVIOUS_ROOT, SEGMENT_KEY = (
    b"detector-pool ledger root key v1\0",
    b"detector-pool ledger previous root key v1\0",
    b"detector-pool ledger segment key v1\0",
)
KEY_BYTES, NONCE_BYTES = 32, 12
ROUNDS = MIN_ROUNDS


def make_epoch(
    ledger_id: str, number: int, passphrase: bytes, previous_root: bytes = b"", rounds: int = ROUNDS
) -> tuple[Epoch, bytes]:
    """
    Make a root key and wrap it under a passphrase.

    Args:
        ledger_id: Of the genesis.
        number: 0 for the first epoch.
        passphrase: As typed.
        previous_root: Root key of the epoch before, which this one must be able to open.
        rounds: Of PBKDF2-HMAC-SHA256.

    Returns:
        The epoch, and its root key (32 bytes).
    """
    assert MIN_ROUNDS <= rounds <= MAX_ROUNDS, "rounds that no reader would derive with"
    root = os.urandom(KEY_BYTES)
    salt = os.urandom(SALT_BYTES)
    draft = Epoch(number, KDF, rounds, salt, b"", b"")
    wrapped = _wrapped(derived_key(passphrase, draft), root, ROOT_KEY + _bound(ledger_id, draft))
    kept = _wrapped(root, previous_root, PREVIOUS_ROOT + _bound(ledger_id, draft)) if previous_root else b""
    return Epoch(number, KDF, rounds, salt, wrapped, kept), root


def unlock(opened: Opened, passphrase: bytes, epochs: Mapping[int, Epoch]) -> dict[int, bytes]:
    """
    Derive the root keys of all epochs from the newest one's passphrase.

    Args:
        opened: The ledger.
        passphrase: Of the newest epoch.
        epochs: Number to epoch, without a gap below the newest that is asked for.

    Returns:
        Number to root key.

    Raises:
        LedgerLocked: The passphrase is not the newest epoch's.
        LedgerDamaged: An epoch's parameters are out of bounds, or an older root key does not open.
    """
    newest = max(epochs)
    roots: dict[int, bytes] = {}
    for number in range(newest, min(epochs) - 1, -1):
        epoch = epochs.get(number)
        if epoch is None or not sound_epoch(epoch) or epoch.number != number:
            raise LedgerDamaged(opened.folder, 0, f"key epoch {number} is missing or out of bounds")
        if number == newest:
            key, sealed, bound = derived_key(passphrase, epoch), epoch.wrapped_root, ROOT_KEY
        else:
            above = epochs[number + 1]
            key, sealed, bound, epoch = roots[number + 1], above.previous_root, PREVIOUS_ROOT, above
        root = _unwrapped(key, sealed, bound + _bound(opened.genesis.ledger_id, epoch))
        if root is None and number == newest:
            raise LedgerLocked(opened.folder, "the passphrase is wrong")
        if root is None:
            raise LedgerDamaged(opened.folder, 0, f"the root key of key epoch {number} does not open")
        roots[number] = root
    return roots


def wrap_segment_key(root: bytes, key: bytes, opened: Opened, place: tuple[int, int, int]) -> bytes:
    """Return a segment's key wrapped under the root key, bound to its place: (segment, first record, key epoch)."""
    return _wrapped(root, key, _bound_place(opened, place))


def unwrap_segment_key(root: bytes, opened: Opened, header: SegmentHeader) -> bytes | None:
    """Return a segment's key, or None when it does not open."""
    return _unwrapped(
        root, header.wrapped_key, _bound_place(opened, (header.number, header.first, header.epoch.number))
    )


class SegmentCipher:
    """Encrypts and decrypts one segment's records; the nonce is a record's index, and no other segment has the key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = _aesgcm(key)

    @property
    def encrypt(self) -> Callable[[bytes, bytes, bytes | None], bytes]:
        """(nonce of 12 bytes, payload, prefix of the record) to ciphertext and tag."""
        return self._cipher.encrypt

    def decrypt(self, frame: bytes) -> Payload | None:
        """Return what a record (with its checksum) says, or None when it does not open or is not canonical."""
        import msgspec
        from cryptography.exceptions import InvalidTag

        if frame[:1] == PUBLIC:
            return public_payload(frame)
        _, length, index, _ = PREFIX.unpack_from(frame)
        body = frame[PREFIX.size : PREFIX.size + length]
        try:
            text = self._cipher.decrypt(index.to_bytes(NONCE_BYTES, "big"), body, frame[: PREFIX.size])
            payload = msgspec.json.decode(text, type=Payload)
        except (InvalidTag, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return payload if encode(payload) == text else None


def _bound(ledger_id: str, epoch: Epoch) -> bytes:
    return encode([ledger_id, epoch.number, epoch.kdf, epoch.rounds, epoch.salt])


def _bound_place(opened: Opened, place: tuple[int, int, int]) -> bytes:
    return SEGMENT_KEY + encode([opened.origin, *place])


def derived_key(passphrase: bytes, epoch: Epoch) -> bytes:
    """Return what PBKDF2-HMAC-SHA256 makes of a passphrase (32 bytes); the caller has checked the epoch's bounds."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    return PBKDF2HMAC(SHA256(), KEY_BYTES, epoch.salt, epoch.rounds).derive(passphrase)


def _wrapped(key: bytes, secret: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _aesgcm(key).encrypt(nonce, secret, bound)


def _unwrapped(key: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return _aesgcm(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except InvalidTag:
        return None


def _aesgcm(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
