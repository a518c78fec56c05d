"""A policy with one of everything, and its keys, for tests of access."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from compliance.access_policy import InstalledAccessPolicy, Policy
from compliance.identity import AccessPlaces, Identity, Kind
from compliance.signing import SigningKey

ROLES = ("viewer", "auditor", "developer", "maintainer", "approver", "administrator", "service")
ME = pwd.getpwuid(os.getuid()).pw_name


@dataclass(frozen=True)
class House:
    """A state folder with a policy."""

    state: Path
    file: Path
    issuer: SigningKey
    service: SigningKey
    requester: SigningKey
    stranger: SigningKey

    @property
    def policy(self) -> Policy:
        """The policy as it is read now."""
        return Policy.read(self.file)

    def acting(self, *roles: str, kind: Kind = "user") -> InstalledAccessPolicy:
        """Return the policy for somebody with these roles."""
        return InstalledAccessPolicy(
            AccessPlaces(self.state, self.file), Identity("somebody", kind, frozenset(roles), "test")
        )


def house(state: Path, mine: tuple[str, ...] = ("administrator",), rules: str | None = None, more: str = "") -> House:
    """Write a policy in which the user of this process has the roles `mine`."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = {name: SigningKey.load_or_create(state / name) for name in ("issuer", "service", "requester", "stranger")}
    lines = ["format = 1", 'audience = "here"', 'roles = ["crypto"]', more]
    if rules is not None:
        lines.append(f"rules = '''{rules}'''")
    lines += ["[users]", f"{json.dumps(ME)} = {json.dumps(mine)}", 'bob = ["auditor"]']
    for name, roles in (
        ("issuer", ["auditor", "developer"]), ("service", ["service"]), ("requester", ["developer"])
    ):  # fmt: skip
        pem = keys[name].public.pem().decode()
        lines += [f"[[{name}s]]", f'name = "the {name}"', f"roles = {json.dumps(roles)}", f'public-key = """\n{pem}"""']
    file = state / "access.toml"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return House(state, file, **keys)
