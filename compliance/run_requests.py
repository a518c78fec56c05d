"""
Signed requests: who asks for a run of a deployment by hand says which, with which parameters, once, and for how long.

A request is no secret and may be shown: it is bound to its deployment and parameters, and is taken once. That is kept
by a file a nonce in the state folder of the worker; workers that share a deployment share that folder.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.compact_signatures import sign_compact, verified
from compliance.errors import IdentityUnproven
from compliance.identity import Identity
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import Holder, Policy
    from compliance.signing import SigningKey

__all__ = ["MAX_REQUEST_S", "RunRequest", "admitted", "sign_request"]

REQUEST_TYPE = "detector-pool-run-request+jws"
MAX_REQUEST_S = 3600
SKEW_S = 30
"""How far ahead the requester's clock may be."""
NONCE_BYTES = 16


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody asks for."""

    audience: str
    deployment: str
    """`flow/deployment`."""
    parameters: dict[str, Any]
    """All that differ from the flow's own defaults."""
    nonce: str
    issued: float
    expires: float
    """Seconds since the epoch."""


def sign_request(
    key: SigningKey, policy: Policy, deployment: str, parameters: Mapping[str, Any], lifetime_s: int = 600
) -> str:
    """
    Sign a request.

    Args:
        key: Of one of the policy's requesters.
        policy: Names them, and the audience.
        deployment: `flow/deployment`.
        parameters: All that differ from the flow's own defaults.
        lifetime_s: Seconds within which the run must begin, at most an hour.

    Raises:
        UsageError: The request would not be believed.
    """
    if policy.requester(key.public.id) is None:
        raise UsageError(f"the key {key.public.id[:16]} is no requester's in {policy.origin}")
    if not 0 < lifetime_s <= MAX_REQUEST_S:
        raise UsageError(f"a request lives at most {MAX_REQUEST_S} s, not {lifetime_s}")
    if deployment.count("/") != 1 or not all(deployment.split("/")):
        raise UsageError(f"a deployment is named FLOW/DEPLOYMENT, not {deployment!r}")
    if "request" in parameters:
        raise UsageError("a request signs all parameters but itself; leave `request` out")
    now = time.time()
    nonce = secrets.token_hex(NONCE_BYTES)
    assert len(nonce) == 2 * NONCE_BYTES, "two digits a byte"
    request = RunRequest(policy.file.audience, deployment, dict(parameters), nonce, now, now + lifetime_s)
    return sign_compact(key, REQUEST_TYPE, msgspec.json.encode(request))


def admitted(  # p10: ignore[R10] a request is bound to each of these by the maintainers
    text: str,
    policy: Policy,
    *,
    deployment: str,
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    used: Path,
) -> Identity:
    """
    Check a request against the run that is about to begin, and use its nonce up.

    Args:
        text: What `sign_request` returned.
        policy: Names the requesters, and the audience.
        deployment: That this run is of.
        parameters: Of this run, all of them.
        defaults: The flow's own.
        used: Folder of the nonces that were taken.

    Returns:
        Who asked.

    Raises:
        IdentityUnproven: It is not signed by a requester, of another run, expired, or was used before.
    """
    told = f"the request for {deployment}"
    if not text or not deployment:
        raise IdentityUnproven(told, "it is empty")
    payload, holder = verified(text, REQUEST_TYPE, policy.requester, told)
    try:
        request = msgspec.json.decode(payload, type=RunRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise IdentityUnproven(told, str(problem)) from problem
    if request.audience != policy.file.audience or request.deployment != deployment:
        raise IdentityUnproven(told, f"it asks for {request.deployment} of {request.audience}")
    now = time.time()
    if not 0 < request.expires - request.issued <= MAX_REQUEST_S or request.issued > now + SKEW_S:
        raise IdentityUnproven(told, "its times make no sense, or lie ahead")
    if now >= request.expires:
        raise IdentityUnproven(told, "it has expired; sign it anew")
    differing = _differing(parameters, request.parameters, defaults)
    if differing:
        raise IdentityUnproven(told, f"the run has other parameters than were signed: {', '.join(differing)}")
    _use_up(request, holder, used, told)
    return Identity(holder.name, "request", holder.roles, f"nonce {request.nonce}")


def _differing(actual: Mapping[str, Any], signed: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the parameters that are neither as signed, nor unsigned and as the flow has them by default."""
    if not signed.keys() <= actual.keys():
        return sorted(signed.keys() - actual.keys())
    missing = object()
    assert "request" not in actual, "a request cannot sign itself"
    expected = {name: signed.get(name, defaults.get(name, missing)) for name in actual}
    return sorted(name for name, value in expected.items() if _plain(actual.get(name, missing)) != _plain(value))


def _plain(value: Any) -> Any:
    """Return a value as it is after a way through JSON, so that a tuple is as good as a list."""
    try:
        return msgspec.json.encode(value, order="deterministic")
    except (TypeError, ValueError):
        return value


def _use_up(request: RunRequest, holder: Holder, used: Path, told: str) -> None:
    """Take the nonce, which nobody can take twice: the file system makes a name once."""
    if len(request.nonce) != 2 * NONCE_BYTES:
        raise IdentityUnproven(told, "its nonce is too short or too long")
    name = hashlib.sha256(f"{holder.name}\0{request.nonce}".encode()).hexdigest()
    try:
        used.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget_expired(used)
        assert used.is_dir(), "it was made, or was there"
        descriptor = os.open(used / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        folder = os.open(used, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as problem:
        raise IdentityUnproven(told, "it was used before; sign a new one") from problem
    except OSError as problem:
        raise IdentityUnproven(told, f"its nonce cannot be kept in {used} ({problem.strerror})") from problem


def _forget_expired(used: Path) -> None:
    """Remove what no request that is still valid can have used: older than the longest life, twice over."""
    oldest = time.time() - 2 * (MAX_REQUEST_S + SKEW_S)
    assert oldest < time.time() - MAX_REQUEST_S, "what can still be valid is kept"
    for entry in os.scandir(used):
        if entry.stat(follow_symlinks=False).st_mtime < oldest:
            Path(entry.path).unlink(missing_ok=True)
