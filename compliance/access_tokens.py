"""
Tokens that say who somebody is and which roles he has, signed with Ed25519; and services that hold a key.

A token is a JWT whose header is exactly `alg` EdDSA, `typ` and `kid`: a token that names another algorithm, or none, is
refused before any key is looked at. It is a secret: whoever has it is its subject until it expires.

Source: RFC 7519 (JWT), RFC 8037 (EdDSA in JOSE), RFC 8725 (pinned algorithm, explicit type).
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import msgspec

from compliance.compact_signatures import ALGORITHM, key_id_of, sign_compact
from compliance.errors import IdentityUnproven, KeyUnusable
from compliance.identity import Identity, read_private
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import Policy
    from compliance.signing import SigningKey

__all__ = ["MAX_TOKEN_S", "MEDIA_TYPE", "issue_token", "service_identity", "token_identity"]

MEDIA_TYPE = "detector-pool-access+jwt"
MAX_TOKEN_S = 24 * 3600
SKEW_S = 30
"""How far ahead the issuer's clock may be."""
REQUIRED = ["aud", "exp", "iat", "jti", "nbf", "roles", "sub"]


class Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says."""

    aud: str
    exp: int
    iat: int
    jti: str
    nbf: int
    roles: tuple[str, ...]
    sub: str


def issue_token(key: SigningKey, policy: Policy, subject: str, roles: frozenset[str], lifetime_s: int) -> str:
    """
    Sign a token.

    Args:
        key: Of one of the policy's issuers.
        policy: Says what that issuer can give, and the audience.
        subject: Whom the token speaks for.
        roles: That it gives.
        lifetime_s: Seconds, at most a day.

    Raises:
        UsageError: The key is no issuer's, or the token would not be believed.
    """
    found = policy.issuer(key.public.id)
    if found is None:
        raise UsageError(f"the key {key.public.id[:16]} is no issuer's in {policy.origin}")
    if not 0 < lifetime_s <= MAX_TOKEN_S:
        raise UsageError(f"a token lives at most {MAX_TOKEN_S} s, not {lifetime_s}")
    if not subject or not subject.isprintable() or not roles or not roles <= found[0].roles:
        told = f"{found[0].name} can give {', '.join(sorted(found[0].roles))}"
        raise UsageError(f"a token needs a subject and roles that its issuer can give; {told}")
    now = int(time.time())
    claims = Claims(
        policy.file.audience, now + lifetime_s, now, secrets.token_hex(16), now, tuple(sorted(roles)), subject
    )
    token = sign_compact(key, MEDIA_TYPE, msgspec.json.encode(claims))
    assert identity_of(token, policy, "the new token").name == subject, "what is handed out is believed"
    return token


def token_identity(file: Path, policy: Policy | None) -> Identity:
    """
    Return whom the token in `file` speaks for.

    Args:
        file: The caller's own, mode 0600.
        policy: Says whose tokens are believed.

    Raises:
        IdentityUnproven: With what is wrong with it; the token itself is in no message.
    """
    told = f"the token in {file}"
    if policy is None:
        raise IdentityUnproven(told, "there is no policy file that says whose tokens are believed")
    token = read_private(file, "the token").strip()
    if not token or not token.isascii():
        raise IdentityUnproven(told, "it is no token")
    return identity_of(token.decode(), policy, told)


def identity_of(token: str, policy: Policy, told: str) -> Identity:
    """Return whom a token speaks for; see `token_identity`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key_id = key_id_of(token, MEDIA_TYPE, told)
    found = policy.issuer(key_id)
    if found is None:
        raise IdentityUnproven(told, f"its key {key_id[:16]} is no issuer's in {policy.origin}")
    issuer, key = found
    assert key.id == key_id, "the key that the header names"
    try:
        raw = jwt.decode(
            token, Ed25519PublicKey.from_public_bytes(key.raw), algorithms=[ALGORITHM], audience=policy.file.audience,
            leeway=SKEW_S, options={"require": REQUIRED, "strict_aud": True},
        )  # fmt: skip
        claims = msgspec.convert(raw, Claims)
    except (jwt.PyJWTError, msgspec.ValidationError) as problem:
        raise IdentityUnproven(told, str(problem)) from problem
    if not 0 < claims.exp - claims.iat <= MAX_TOKEN_S or claims.nbf > claims.exp:
        raise IdentityUnproven(told, f"it is valid for longer than {MAX_TOKEN_S} s")
    if claims.exp <= time.time():
        raise IdentityUnproven(told, "it has expired; get a new one")
    if not claims.sub or not claims.sub.isprintable() or not set(claims.roles) <= issuer.roles:
        raise IdentityUnproven(told, f"it gives roles that {issuer.name} cannot give, or names nobody")
    return Identity(claims.sub, "token", frozenset(claims.roles), f"key {key_id}, token {claims.jti}", claims.exp)


def service_identity(folder: Path, policy: Policy | None) -> Identity:
    """
    Return the service whose private key lies in `folder`.

    Args:
        folder: With `signing-key.pem`, mode 0600, unencrypted: nobody is there to type a passphrase.
        policy: Names the services and their keys.

    Raises:
        IdentityUnproven: It is no service's key.
    """
    from compliance.signing import SigningKey

    told = f"the service key in {folder}"
    if policy is None:
        raise IdentityUnproven(told, "there is no policy file that names services")
    if not policy.file.services:
        raise IdentityUnproven(told, f"{policy.origin} names no service")
    seen = ""
    for service, key_id in policy.service_keys():
        try:
            key = SigningKey.load(folder, None, key_id)
        except KeyUnusable as problem:
            seen = str(problem)
            continue
        assert key.public.id == key_id, "the key that was asked for"
        return Identity(service.name, "service", service.roles, f"key {key_id}")
    raise IdentityUnproven(told, seen)
