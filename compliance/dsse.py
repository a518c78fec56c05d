"""
In-toto statements in DSSE envelopes: one signature with Ed25519, and one spelling for each content.

Who states something brings the shape of his statement; envelope, signature and spelling are checked here for all.

Source: DSSE protocol v1.0.2 (PAE); in-toto Attestation Framework, Statement v1.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, TypeVar

import msgspec

from compliance.errors import AttestationInvalid
from compliance.signing import SigningKey, VerifyingKey

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "STATEMENT_TYPE",
    "Envelope",
    "ResourceDescriptor",
    "Signature",
    "named_key",
    "opened",
    "pae",
    "sealed",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 16 << 20
SIGNATURE_BYTES = 64
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

S = TypeVar("S", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder(order="deterministic")


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signature of the envelope; `keyid` is the sha256 of the raw public key."""

    keyid: str
    sig: str


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """DSSE envelope."""

    payload: str
    payload_type: str
    signatures: tuple[Signature, ...]


class ResourceDescriptor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a statement is about (in-toto ResourceDescriptor v1)."""

    name: str
    digest: dict[str, str]
    """`sha256` to 64 lower-case hexadecimal digits."""


class _Typed(msgspec.Struct, frozen=True):
    """Enough of a statement to tell what it is."""

    type_: Any = msgspec.field(name="_type", default=None)
    predicate_type: Any = msgspec.field(name="predicateType", default=None)


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return what is signed: DSSE's pre-authentication encoding of type and payload."""
    assert payload_type.isascii(), "a media type is ASCII"
    assert payload, "an empty payload states nothing"
    return b"DSSEv1 %d %b %d %b" % (len(payload_type), payload_type.encode(), len(payload), payload)


def sealed(statement: msgspec.Struct, key: SigningKey) -> bytes:
    """Return a signed envelope as its file holds it: one line of JSON, so that bundles are files put together."""
    payload = _encoder.encode(statement)
    data = _line(payload, key.public.id, key.sign(pae(payload)))
    assert len(data) <= MAX_ENVELOPE_BYTES, "an envelope that no reader would take"
    assert data.count(b"\n") == 1, "a bundle is read line by line"
    return data


def opened(data: bytes, key: VerifyingKey, predicate_type: str, shape: type[S]) -> S:
    """
    Return what `key` signed.

    Args:
        data: The file.
        key: Whose signature is asked for.
        predicate_type: Of the statement, looked at once the signature holds.
        shape: Of the statement.

    Raises:
        AttestationInvalid: It is no envelope, is not signed by that key, holds no statement of this kind, or is not
            spelled as this project spells it.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise AttestationInvalid(f"it is larger than {MAX_ENVELOPE_BYTES} bytes")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = [base64.b64decode(item.sig, validate=True) for item in envelope.signatures]
    except (*UNREADABLE, binascii.Error, ValueError) as problem:
        raise AttestationInvalid(f"it is no DSSE envelope: {problem}") from problem
    if envelope.payload_type != PAYLOAD_TYPE or len(signatures) != 1:
        raise AttestationInvalid(f"it is not one signature over {PAYLOAD_TYPE}")
    if len(signatures[0]) != SIGNATURE_BYTES or not key.verifies(signatures[0], pae(payload)):
        raise AttestationInvalid("its signature is not valid")
    if envelope.signatures[0].keyid != key.id:
        raise AttestationInvalid("it names another key than the one that signed it")
    statement = _statement(payload, predicate_type, shape)
    if _line(payload, key.id, signatures[0]) != data or _encoder.encode(statement) != payload:
        raise AttestationInvalid("it is not spelled as this project spells it")
    return statement


def named_key(data: bytes) -> str | None:
    """Return the id of the key that an envelope says it is signed with; None where it names none."""
    if len(data) > MAX_ENVELOPE_BYTES:
        return None
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
    except UNREADABLE:
        return None
    return envelope.signatures[0].keyid if envelope.signatures else None


def _statement(payload: bytes, predicate_type: str, shape: type[S]) -> S:
    assert predicate_type.startswith("urn:"), "a kind of statement has a name in the world"
    try:
        told = msgspec.json.decode(payload, type=_Typed)
        if (told.type_, told.predicate_type) != (STATEMENT_TYPE, predicate_type):
            raise AttestationInvalid(f"its predicate is {told.predicate_type!r}, this release knows {predicate_type}")
        return msgspec.json.decode(payload, type=shape)
    except UNREADABLE as problem:
        raise AttestationInvalid(f"it holds no statement of this kind: {problem}") from problem


def _line(payload: bytes, key_id: str, signature: bytes) -> bytes:
    assert len(signature) == SIGNATURE_BYTES, "a signature of Ed25519"
    assert len(key_id) == 64, "a key's id is a sha256"
    signed = Signature(key_id, base64.b64encode(signature).decode())
    return _encoder.encode(Envelope(base64.b64encode(payload).decode(), PAYLOAD_TYPE, (signed,))) + b"\n"
