"""
The access policy of this machine: who has which roles, whose keys are believed, and rules for what roles may do.

Without a policy file the owner of the state folder may do all, and others nothing. docs/access.md describes the file.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.errors import KeyUnusable, PolicyInvalid
from compliance.identity import AccessPlaces, Identity, open_regular, os_user
from detectors.ports import Action

if TYPE_CHECKING:
    from compliance.access_rules import Decision, Rules
    from compliance.signing import VerifyingKey

__all__ = ["Holder", "InstalledAccessPolicy", "Policy", "PolicyFile"]

FORMAT = 1
MAX_POLICY_BYTES = 4 << 20
REMEMBERED = 4096
"""Decisions kept for one process; a thousand rules take some 1.5 milliseconds a decision."""


class Holder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A key that is believed, and what it can stand for."""

    name: str
    public_key: str
    """Ed25519, SubjectPublicKeyInfo in PEM."""
    roles: frozenset[str]
    """Its holder's; of an issuer, the most that its tokens can give."""

    def key(self, origin: str) -> VerifyingKey:
        """Return the key; raises PolicyInvalid."""
        from compliance.signing import VerifyingKey

        try:
            return VerifyingKey.from_pem(self.public_key.encode(), self.name)
        except KeyUnusable as problem:
            raise PolicyInvalid(origin, str(problem)) from problem


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What a policy file says."""

    format: int
    audience: str = "detector-pool"
    """What tokens must be made for."""
    users: Mapping[str, tuple[str, ...]] = {}
    """Users of the operating system, and their roles."""
    issuers: tuple[Holder, ...] = ()
    """Who may sign tokens."""
    services: tuple[Holder, ...] = ()
    """Who acts without a person, such as the worker of scheduled runs."""
    requesters: tuple[Holder, ...] = ()
    """Who may ask for a run of a deployment by hand."""
    roles: frozenset[str] = frozenset()
    """Further roles, which registrations of detectors name and rules do not."""
    rules: str | None = None
    """In Cedar; the standard rules when absent."""


class Policy:
    """
    A policy file that was read and found sound.

    Args:
        data: The file's bytes.
        origin: For messages.

    Raises:
        PolicyInvalid: It cannot be decoded, names a role that no rule knows, or a key or name twice.
    """

    def __init__(self, data: bytes, origin: str) -> None:
        from compliance.access_rules import Rules

        self.origin = origin
        self.digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.file = _decoded(data, origin)
        try:
            self.rules: Rules = Rules(self.file.rules)
        except ValueError as problem:
            raise PolicyInvalid(origin, f"its rules are wrong: {problem}") from problem
        given = list(self.file.users.values())
        holders = (*self.file.issuers, *self.file.services, *self.file.requesters)
        given += [tuple(holder.roles) for holder in holders]
        unknown = {role for roles in given for role in roles} - self.rules.roles - self.file.roles
        if unknown:
            told = (
                f"no rule knows the role {', '.join(sorted(unknown))}; there are {', '.join(sorted(self.rules.roles))}"
            )
            raise PolicyInvalid(origin, f"{told} (`roles` declares others)")
        names = [*self.file.users, *(holder.name for holder in holders), *self.file.roles]
        if not all(name and name.isprintable() for name in names):
            raise PolicyInvalid(origin, "a name is empty or not printable")
        self._keys = self._by_id(holders)

    @classmethod
    def read(cls, file: Path) -> Policy:
        """
        Read a policy file; a policy that others may write is none.

        Raises:
            PolicyInvalid: With what is wrong.
        """
        return cls(_read_guarded(file), str(file))

    def issuer(self, key_id: str) -> tuple[Holder, VerifyingKey] | None:
        """Return who signs tokens with the key of this id."""
        return self._held(self.file.issuers, key_id)

    def service(self, key_id: str) -> tuple[Holder, VerifyingKey] | None:
        """Return the service that holds the key of this id."""
        return self._held(self.file.services, key_id)

    def requester(self, key_id: str) -> tuple[Holder, VerifyingKey] | None:
        """Return who asks for runs with the key of this id."""
        return self._held(self.file.requesters, key_id)

    def service_keys(self) -> Iterable[tuple[Holder, str]]:
        """Yield each service with its key's id."""
        for key_id, (holder, _) in self._keys.items():
            if any(holder is service for service in self.file.services):
                yield holder, key_id

    def _held(self, among: tuple[Holder, ...], key_id: str) -> tuple[Holder, VerifyingKey] | None:
        found = self._keys.get(key_id)
        # By identity: two holders may look alike but for the list they stand in.
        return found if found is not None and any(found[0] is holder for holder in among) else None

    def _by_id(self, holders: Iterable[Holder]) -> dict[str, tuple[Holder, VerifyingKey]]:
        keys: dict[str, tuple[Holder, VerifyingKey]] = {}
        for holder in holders:
            key = holder.key(self.origin)
            if key.id in keys:
                told = f"{holder.name} and {keys[key.id][0].name} have one key; each needs its own"
                raise PolicyInvalid(self.origin, told)
            keys[key.id] = (holder, key)
        return keys


class InstalledAccessPolicy:
    """
    The policy of this machine, for whoever runs this process; fulfils `detectors.ports.AccessPolicy`.

    It is read when a pool, a command or a flow begins, and holds until that ends; a token's expiry counts at once.

    Args:
        places: Where policy and proofs lie; found through the environment when absent.
        identity: Who acts, when that was proven in another way.

    Raises:
        PolicyInvalid: There is a policy that cannot be used.
        IdentityUnproven: A token or a key is named that proves nothing.
    """

    def __init__(self, places: AccessPlaces | None = None, identity: Identity | None = None) -> None:
        self.places = places or AccessPlaces.read()
        self.policy = None if self.places.policy is None else Policy.read(self.places.policy)
        self.identity = identity or identify(self.places, self.policy)
        self._remembered: dict[tuple[str, str, frozenset[str], str], str | None] = {}
        self._not_owner = _not_owner(self.places.state) if self.policy is None else None

    def denial(self, action: Action, target: str, roles: frozenset[str], tree: str = "", /) -> str | None:
        """Return why the caller may not do this; see `detectors.ports.AccessPolicy`."""
        expires = self.identity.expires
        if expires is not None and time.time() >= expires:
            return f"the proof of {self.identity.name} has expired; get a new token"
        if self.policy is None:
            return self._not_owner
        key = (action, target, roles, tree)
        if key not in self._remembered:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = self._told(self.decide(action, target, roles, tree), action, target, tree)
        return self._remembered[key]

    def decide(self, action: Action, target: str, roles: frozenset[str] = frozenset(), tree: str = "") -> Decision:
        """Return the decision with its rules; see `compliance.access_rules.Rules.decide`."""
        from compliance.access_rules import Decision

        if self.policy is None:
            why = self._not_owner or "there is no policy file, and the caller owns the state folder"
            return Decision(self._not_owner is None, (), why)
        return self.policy.rules.decide(self.identity, action, target, roles, tree)

    def caller(self) -> Mapping[str, Any]:
        """Return who runs this process, how that is known, which policy decides; see `detectors.ports.KnowsCaller`."""
        digest = None if self.policy is None else self.policy.digest
        return {**self.identity.shown(), "uid": os.getuid(), "policy": digest}

    def _told(self, decision: Decision, action: str, target: str, tree: str) -> str | None:
        if decision.allowed:
            return None
        roles = ", ".join(sorted(self.identity.roles)) or "none"
        who = f"{self.identity.kind} {self.identity.name}, roles {roles}"
        what = f"--action {action} --target {target}" + (f" --tree {tree}" if tree else "")
        return f"{decision.reason} ({who}); `detector-pool access check {what}` explains"


def identify(places: AccessPlaces, policy: Policy | None) -> Identity:
    """
    Return who acts: the holder of the token or of the service's key that is named, else the system's user.

    Raises:
        IdentityUnproven: What is named proves nothing, or there is no policy that says whose keys are believed.
        KeyUnusable: The service's key cannot be read.
    """
    if places.token is None and places.service_keys is None:
        return os_user({} if policy is None else policy.file.users)
    from compliance.access_tokens import service_identity, token_identity

    if places.token is not None:
        return token_identity(places.token, policy)
    assert places.service_keys is not None, "one of both is named"
    return service_identity(places.service_keys, policy)


def _not_owner(state: Path) -> str | None:
    """Return why the caller may not use this state folder; `None` for its owner, and where it is still to be made."""
    try:
        owner = state.stat().st_uid
    except FileNotFoundError:
        return None
    except OSError as problem:
        return f"the state folder {state} cannot be looked at ({problem.strerror})"
    if owner == os.getuid():
        return None
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return (
        f"there is no policy file, and the state folder {state} belongs to {name}; only its owner may. "
        "Set DETECTOR_POOL_HOME to a folder of yours, or ask for a policy"
    )


def _decoded(data: bytes, origin: str) -> PolicyFile:
    import tomllib

    try:
        found = msgspec.convert(tomllib.loads(data.decode()), PolicyFile)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as problem:
        raise PolicyInvalid(origin, str(problem)) from problem
    if found.format != FORMAT:
        raise PolicyInvalid(origin, f"it has format {found.format}, this release knows {FORMAT}")
    if not found.audience:
        raise PolicyInvalid(origin, "its audience is empty")
    return found


def _read_guarded(file: Path) -> bytes:
    """Read a file that only root or the caller may write, in a folder of which the same holds."""
    try:
        folder = file.parent.stat()
        descriptor, seen = open_regular(file)
    except OSError as problem:
        raise PolicyInvalid(str(file), f"it cannot be opened ({problem.strerror})") from problem
    with os.fdopen(descriptor, "rb") as opened:
        for what, status in (("it", seen), ("its folder", folder)):
            writable = status.st_mode & 0o022 and not (what != "it" and status.st_mode & stat.S_ISVTX)
            if status.st_uid not in {0, os.geteuid()} or writable:
                told = f"{what} must belong to root or to you, and be writable by nobody else (chmod go-w)"
                raise PolicyInvalid(str(file), told)
        data = opened.read(MAX_POLICY_BYTES + 1)
    if len(data) > MAX_POLICY_BYTES:
        raise PolicyInvalid(str(file), f"it is longer than {MAX_POLICY_BYTES} bytes")
    return data
