"""
Who runs this process: the holder of a token, the holder of a service's key, or the operating system's user.

What a process says of itself in `USER` or `LOGNAME` is not believed. Files that prove somebody are read only where
nobody else could have put or read them.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from compliance.errors import IdentityUnproven

__all__ = ["AccessPlaces", "Identity", "Kind", "open_regular", "os_user", "read_private", "state_folder"]

Kind = Literal["user", "token", "service", "request"]
"""How it is known who somebody is."""

SYSTEM_POLICY = Path("/etc/detector-pool/access.toml")
POLICY_NAME = "access.toml"
MAX_PROOF_BYTES = 16 << 10


class Identity(msgspec.Struct, frozen=True):
    """Somebody, and how that is known."""

    name: str
    kind: Kind
    roles: frozenset[str]
    proof: str
    """Uid, or id of the key that proves it."""
    expires: float | None = None
    """Seconds since the epoch after which it is no longer proven."""

    def shown(self) -> dict[str, Any]:
        """Return plain data for records."""
        return {"name": self.name, "kind": self.kind, "roles": sorted(self.roles), "proof": self.proof}


@dataclass(frozen=True)
class AccessPlaces:
    """Where policy and proofs lie."""

    state: Path
    """Folder whose owner may do all while there is no policy."""
    policy: Path | None
    """The policy that counts; `None`: there is none."""
    token: Path | None = None
    service_keys: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ, system: Path = SYSTEM_POLICY) -> AccessPlaces:
        """
        Find them; a policy of the system comes before what the environment names.

        Args:
            environment: `DETECTOR_POOL_ACCESS_POLICY`, `DETECTOR_POOL_TOKEN_FILE`, `DETECTOR_POOL_SERVICE_KEYS`,
                `DETECTOR_POOL_HOME` are looked at.
            system: The system's policy.

        Raises:
            IdentityUnproven: A token and a service's key are named; who would act is not clear.
        """
        named = {name: _named(environment, f"DETECTOR_POOL_{name}") for name in ("TOKEN_FILE", "SERVICE_KEYS")}
        if all(named.values()):
            both = "DETECTOR_POOL_TOKEN_FILE beside DETECTOR_POOL_SERVICE_KEYS"
            raise IdentityUnproven(both, "one process acts as one; unset one of them")
        state = state_folder(environment)
        policy = _named(environment, "DETECTOR_POOL_ACCESS_POLICY")
        own = state / POLICY_NAME
        if os.path.lexists(system):
            policy = system
        elif policy is None and os.path.lexists(own):
            policy = own
        return cls(state, policy, named["TOKEN_FILE"], named["SERVICE_KEYS"])


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of keys, policy and other state: below `DETECTOR_POOL_HOME`, else the user's state folder."""
    home = environment.get("DETECTOR_POOL_HOME")
    if home:
        return (Path(home) / "state").absolute()
    import platformdirs

    return platformdirs.user_state_path("detector-pool").absolute()


def os_user(roles: Mapping[str, tuple[str, ...]]) -> Identity:
    """
    Return the operating system's user of this process, with the roles that he is given.

    Args:
        roles: By user name; who has no name is told by uid.

    Raises:
        IdentityUnproven: The process runs under another user than it was started by.
    """
    uid = os.getuid()
    if uid != os.geteuid():
        raise IdentityUnproven(f"the user {uid}", f"this process acts as user {os.geteuid()} (set-user-id)")
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    assert name, "a user has a name or a number"
    return Identity(name, "user", frozenset(roles.get(name, ())), f"uid {uid}")


def read_private(file: Path, what: str) -> bytes:
    """
    Read a secret that proves somebody.

    Args:
        file: Must be the caller's own regular file, closed to all others, of at most 16 KiB.
        what: For messages, such as `the token`.

    Raises:
        IdentityUnproven: It is not.
    """
    told = f"{what} in {file}"
    try:
        descriptor, seen = open_regular(file)
    except OSError as problem:
        raise IdentityUnproven(told, f"it cannot be opened ({problem.strerror})") from problem
    with os.fdopen(descriptor, "rb") as opened:
        if seen.st_uid != os.geteuid() or stat.S_IMODE(seen.st_mode) & 0o077:
            raise IdentityUnproven(told, "it must be your own regular file with mode 0600 (chmod 600)")
        data = opened.read(MAX_PROOF_BYTES + 1)
    if not data or len(data) > MAX_PROOF_BYTES:
        raise IdentityUnproven(told, f"it is empty, or longer than {MAX_PROOF_BYTES} bytes")
    return data


def open_regular(file: Path) -> tuple[int, os.stat_result]:
    """
    Open a regular file for reading; follows no link, waits for no pipe.

    Returns:
        The descriptor, and what was seen of it.

    Raises:
        OSError: It is none, or cannot be opened.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no regular file")
    assert descriptor >= 0, "it is open"
    return descriptor, seen


def _named(environment: Mapping[str, str], variable: str) -> Path | None:
    text = environment.get(variable, "")
    return Path(text).absolute() if text else None
