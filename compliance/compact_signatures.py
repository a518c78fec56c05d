"""
JSON Web Signatures in compact form, with Ed25519 and nothing else.

The header is exactly `alg` EdDSA, `typ` and `kid`: whatever names another algorithm, or none, is refused before any key
is looked at.

Source: RFC 7515 (JWS), RFC 8037 (EdDSA in JOSE), RFC 8725 (pinned algorithm, explicit type).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jwt
from jwt.algorithms import Algorithm
from jwt.api_jws import PyJWS

from compliance.errors import IdentityUnproven
from compliance.signing import SigningKey, VerifyingKey
from detectors.errors import UsageError

__all__ = ["ALGORITHM", "key_id_of", "sign_compact", "verified"]

ALGORITHM = "EdDSA"
MAX_CHARACTERS = 64 << 10

Holder = TypeVar("Holder")


class Ed25519(Algorithm):
    """EdDSA over Ed25519, by this project's keys (RFC 8037 §3.1)."""

    def prepare_key(self, key: Any) -> Any:
        """Return the key as it is."""
        if not isinstance(key, (SigningKey, VerifyingKey)):
            raise TypeError(f"an Ed25519 key of ours is needed, not {type(key).__name__}")
        return key

    def sign(self, msg: bytes, key: SigningKey) -> bytes:
        """Return the 64-byte signature."""
        return key.sign(msg)

    def verify(self, msg: bytes, key: VerifyingKey, sig: bytes) -> bool:
        """Tell whether it is the key's over the message."""
        return key.verifies(sig, msg)

    @staticmethod
    def to_jwk(key_obj: Any, as_dict: bool = False) -> Any:
        """Refuse: the library asks every algorithm for it; ours are kept in PEM, see `VerifyingKey.pem`."""
        raise UsageError(f"{type(key_obj).__name__} is kept in PEM, not as a JSON Web Key (as_dict={as_dict})")

    @staticmethod
    def from_jwk(jwk: Any) -> Any:
        """Refuse: the library asks every algorithm for it; ours are kept in PEM, see `VerifyingKey.from_pem`."""
        raise UsageError(f"keys of {ALGORITHM} are read from PEM, not from {type(jwk).__name__}")


def sign_compact(key: SigningKey, kind: str, payload: bytes) -> str:
    """
    Return a JWS in compact serialisation.

    Args:
        key: Signs.
        kind: The header's `typ`, which keeps one kind from being taken for another.
        payload: What is signed.
    """
    assert kind, "what is signed has a kind"
    headers = {"kid": key.public.id, "typ": kind}
    # The library's type names the keys of its own algorithms; `Ed25519.prepare_key` above checks ours.
    text: str = _jws().encode(payload, cast(Any, key), algorithm=ALGORITHM, headers=headers)
    assert text.count(".") == 2, "header, payload, signature"
    return text


def verified(
    text: str, kind: str, key_of: Callable[[str], tuple[Holder, VerifyingKey] | None], told: str
) -> tuple[bytes, Holder]:
    """
    Check a JWS in compact serialisation.

    Args:
        text: As `sign_compact` made it.
        kind: The `typ` that its header must have.
        key_of: Called with the key id; returns who holds that key, with it, or None.
        told: What it is, for messages.

    Returns:
        The payload, and the holder.

    Raises:
        IdentityUnproven: With what is wrong.
    """
    key_id = key_id_of(text, kind, told)
    found = key_of(key_id)
    if found is None:
        raise IdentityUnproven(told, f"its key {key_id[:16]} is not one that the policy names for this")
    holder, key = found
    try:
        payload: bytes = _jws().decode(text, cast(Any, key), algorithms=[ALGORITHM])
    except jwt.PyJWTError as problem:
        raise IdentityUnproven(told, str(problem)) from problem
    return payload, holder


def key_id_of(text: str, kind: str, told: str) -> str:
    """
    Return the key id of a header, which must be exactly ours whatever the signature says.

    Raises:
        IdentityUnproven: It is not.
    """
    if len(text) > MAX_CHARACTERS or not text.isascii():
        raise IdentityUnproven(told, f"it is longer than {MAX_CHARACTERS} characters, or not ASCII")
    try:
        header = jwt.get_unverified_header(text)
    except jwt.PyJWTError as problem:
        raise IdentityUnproven(told, str(problem)) from problem
    key_id = header.get("kid")
    if not isinstance(key_id, str) or header != {"alg": ALGORITHM, "typ": kind, "kid": key_id}:
        raise IdentityUnproven(told, f"its header is not that of {kind} under {ALGORITHM}")
    return key_id


def _jws() -> PyJWS:
    jws = PyJWS(algorithms=[ALGORITHM])
    jws.unregister_algorithm(ALGORITHM)
    jws.register_algorithm(ALGORITHM, Ed25519())
    return jws
