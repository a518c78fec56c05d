"""`detector-pool access`: who may do what, and who did. A token goes into a file of mode 0600 and is never printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.options import Json, OwnKeys, PassphraseFile
from deployments.output import print_answer, write_new
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import InstalledAccessPolicy, Policy
    from compliance.access_review import Person

__all__ = ["access_app"]

SHORTEST_PERIOD_S = 60
PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
HEADER = '''# Who may do what; docs/access.md of this project has the meaning of each line.
format = 1
audience = "detector-pool"

[users]
{user} = ["administrator"]

[[issuers]]
name = "local"
roles = ["viewer", "auditor", "developer", "maintainer", "administrator"]
public-key = """
{key}"""
'''

access_app = typer.Typer(help="Who may do what, and who did.", no_args_is_help=True)


@access_app.command("init", epilog="Example: detector-pool access init")
def init(json: Json = False) -> None:
    """Make a policy in which you administer, with an issuer of tokens, where there is none; then edit the file."""
    from compliance.access_policy import Policy
    from compliance.identity import POLICY_NAME, os_user, state_folder
    from compliance.signing import SigningKey

    state = state_folder()
    file, keys = state / POLICY_NAME, state / "access-keys"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = SigningKey.load_or_create(keys, _passphrase(None))
    text = HEADER.format(user=_toml_key(os_user({}).name), key=key.public.pem().decode())
    write_new(file, text.encode(), mode=0o600)
    shown = {"policy": str(file), "digest": Policy.read(file).digest, "issuer_keys": str(keys)}
    print_answer(shown, [str(file), f"the issuer's key lies in {keys}"], json=json)


@access_app.command("policy", epilog="Example: detector-pool access policy --json")
def policy_command(json: Json = False) -> None:
    """Show the policy that counts: where it lies, its digest, who has which roles, the rules; checks it first."""
    import msgspec

    installed = _installed()
    policy = installed.policy
    if policy is None:
        told = installed.decide("administer", "policy").reason
        print_answer({"policy": None, "digest": None, "default": told}, [f"no policy file: {told}"], json=json)
        return
    file = policy.file
    shown: dict[str, Any] = {
        "policy": policy.origin, "digest": policy.digest, "audience": file.audience,
        "users": msgspec.to_builtins(file.users), "rules": policy.rules.text,
    }  # fmt: skip
    lines = [f"{policy.origin} {policy.digest}"]
    lines += [f"user {name}: {', '.join(roles)}" for name, roles in sorted(file.users.items())]
    for kind, holders in (("issuer", file.issuers), ("service", file.services), ("requester", file.requesters)):
        found = [{"name": one.name, "roles": sorted(one.roles), "key": one.key("").id} for one in holders]
        shown[f"{kind}s"] = found
        lines += [f"{kind} {one['name']}: {', '.join(one['roles'])} (key {one['key'][:16]})" for one in found]
    print_answer(shown, [*lines, "", *policy.rules.text.strip().splitlines()], json=json)


@access_app.command("check", epilog="Example: detector-pool access check --action run --target ruff --tree src")
def check(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    action: Annotated[str, typer.Option(help="run, register, read, verify or administer.")],
    target: Annotated[str, typer.Option(help="A detector, to run or register it; else a store.")],
    tree: Annotated[Path | None, typer.Option(help="Folder of the sources or of the store.")] = None,
    needs: Annotated[list[str] | None, typer.Option(help="Role that the registration names; repeated.")] = None,
    user: Annotated[str | None, typer.Option(help="Ask for this user of the system in your place.")] = None,
    json: Json = False,
) -> None:
    """Decide on one action and say by which rule; exits 0 when it is allowed, 1 when not. Nothing is recorded."""
    from compliance.access_policy import InstalledAccessPolicy
    from compliance.access_rules import ACTIONS
    from compliance.identity import Identity
    from detectors.access import real_path

    known = next((name for name in ACTIONS if name == action), None)
    if known is None:
        raise UsageError(f"--action takes one of {', '.join(ACTIONS)}, not {action!r}")
    asked = _installed()
    if user is not None:
        if asked.policy is None:
            raise UsageError("--user needs a policy file; without one the owner of the state folder may do all")
        roles = frozenset(asked.policy.file.users.get(user, ()))
        asked = InstalledAccessPolicy(asked.places, Identity(user, "user", roles, "asked for"))
    place = "" if tree is None else real_path(tree)
    found = asked.decide(known, target, frozenset(needs or ()), place)
    shown = {
        "allowed": found.allowed, "reason": found.reason, "rules": list(found.rules), "who": dict(asked.caller()),
    }  # fmt: skip
    who = f"{asked.identity.kind} {asked.identity.name} ({', '.join(sorted(asked.identity.roles)) or 'no roles'})"
    print_answer(shown, [f"{'allowed' if found.allowed else 'DENIED'}: {who}: {found.reason}"], json=json)
    raise typer.Exit(0 if found.allowed else 1)


@access_app.command("token", epilog="Example: detector-pool access token alice --role auditor --output alice.token")
def token(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    subject: Annotated[str, typer.Argument(metavar="NAME", help="Whom the token speaks for.", show_default=False)],
    role: Annotated[list[str], typer.Option(help="Role that it gives; repeated.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="New file, mode 0600.", show_default=False)],
    lifetime: Annotated[str, typer.Option("--for", help="How long: 30m, 8h; a day at most.")] = "8h",
    keys: Annotated[Path | None, typer.Option("--keys", metavar="DIR", help="Folder of the issuer's key.")] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Sign a token into a new file; hand it on, and name it by DETECTOR_POOL_TOKEN_FILE. Whoever has it is NAME."""
    from compliance.access_tokens import issue_token
    from compliance.identity import state_folder
    from compliance.signing import SigningKey

    policy = _policy()
    place = keys or state_folder() / "access-keys"
    key = SigningKey.load_or_create(place, _passphrase(passphrase_file)) if place.is_dir() else None
    if key is None:
        raise UsageError(f"there is no issuer's key in {place}; give --keys, or begin with `access init`")
    text = issue_token(key, policy, subject, frozenset(role), _seconds(lifetime))
    write_new(output, text.encode() + b"\n", mode=0o600)
    shown = {"token_file": str(output), "subject": subject, "roles": sorted(role), "key": key.public.id}
    print_answer(shown, [f"{output}: {subject} as {', '.join(sorted(role))} for {lifetime}"], json=json)


@access_app.command("key", epilog="Example: detector-pool access key /etc/detector-pool/nightly")
def key_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the key.", show_default=False)],
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Make a key for a service, a requester or an issuer where there is none; print what to put into the policy."""
    from compliance.signing import SigningKey

    public = SigningKey.load_or_create(folder, _passphrase(passphrase_file)).public
    pem = public.pem().decode()
    lines = [f"# key {public.id}", 'public-key = """', *pem.splitlines(), '"""']
    print_answer({"key": public.id, "public_key": pem}, lines, json=json)


@access_app.command(
    "request", epilog="Example: detector-pool access request scan/nightly --keys me -p paths='[\"src\"]'"
)
def request(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    deployment: Annotated[str, typer.Argument(metavar="FLOW/DEPLOYMENT", show_default=False)],
    keys: OwnKeys,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=JSON", help="Of the run; repeated.")
    ] = None,
    lifetime: Annotated[str, typer.Option("--for", help="Within which the run must begin; an hour at most.")] = "10m",
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Sign a request for one run by hand; give it to the run as its parameter `request`."""
    from compliance.run_requests import sign_request
    from compliance.signing import SigningKey

    if not keys.is_dir():
        raise UsageError(f"there is no key in {keys}; make one with `access key`, and put it under [[requesters]]")
    key = SigningKey.load_or_create(keys, _passphrase(passphrase_file))
    signed = sign_request(key, _policy(), deployment, _parameters(parameter or []), _seconds(lifetime))
    print_answer({"request": signed}, [signed], json=json)


@access_app.command("review", epilog="Example: detector-pool audit export --ledger DIR | detector-pool access review -")
def review(
    export: Annotated[Path, typer.Argument(metavar="FILE", help="What `audit export` printed; - for standard input.")],
    json: Json = False,
) -> None:
    """Hold the policy against the ledger: who may, did, was refused; exits 1 if somebody did who has no role."""
    import msgspec

    from compliance.access_review import MAX_LINE_BYTES, review_of

    installed = _installed()
    opened = sys.stdin.buffer if str(export) == "-" else export.open("rb") if export.is_file() else None
    if opened is None:
        raise UsageError(f"there is no file {export}; `detector-pool audit export` prints it")
    with opened as lines:
        found = review_of(installed.policy, iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""))
    rows = [line for one in found.people for line in _reviewed(one)]
    rows.append(f"{found.records} records, {len(found.people)} people")
    print_answer(msgspec.to_builtins(found), rows, json=json)
    raise typer.Exit(1 if any(one.stale for one in found.people) else 0)


def _reviewed(one: Person) -> list[str]:
    """Return the lines of one person: may, did, was refused, since when; then what differs by tree."""
    assert one.name, "somebody has a name"
    did, refused = _counted(one.did), _counted(one.refused)
    since = f" from {one.did_first} to {one.did_last}" if one.did_first else ""
    refused_since = f" from {one.refused_first} to {one.refused_last}" if one.refused_first else ""
    lines = [
        f"{one.kind} {one.name}: roles {', '.join(one.roles) or 'none'}; "
        f"may {', '.join(one.may) or 'nothing everywhere'}; did {did}{since}; refused {refused}{refused_since}"
        + ("; HAS NO ROLE NOW" if one.stale else "")
    ]
    lines += [f"  on {tree}: may {', '.join(actions)}, too" for tree, actions in one.may_on.items()]
    lines += [f"  on {tree}: may not {', '.join(actions)}" for tree, actions in one.not_on.items()]
    lines += [f"  did on {tree}" for tree in one.did_on] + [f"  was refused on {tree}" for tree in one.refused_on]
    return lines


def _installed() -> InstalledAccessPolicy:
    from compliance.access_policy import InstalledAccessPolicy

    return InstalledAccessPolicy()


def _policy() -> Policy:
    """Return the policy file's, without asking who we are: whoever signs shows that by his key."""
    from compliance.access_policy import Policy
    from compliance.identity import AccessPlaces

    file = AccessPlaces.read().policy
    if file is None:
        raise UsageError("there is no policy file; `detector-pool access init` makes one")
    return Policy.read(file)


def _passphrase(file: Path | None) -> bytes | None:
    from deployments.settings import Settings

    return Settings.read(passphrase_file=file).passphrase


def _seconds(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if unit not in PERIODS_S or not number.isdigit() or len(number) > 6:
        raise UsageError(f"a time is a number and one of s, m, h, d, such as 8h, not {text!r}")
    seconds = int(number) * PERIODS_S[unit]
    if seconds < SHORTEST_PERIOD_S:
        raise UsageError(f"{text} is shorter than a minute")
    return seconds


def _parameters(given: list[str]) -> dict[str, Any]:
    import msgspec

    parameters: dict[str, Any] = {}
    for item in given:
        name, sign, text = item.partition("=")
        try:
            value = msgspec.json.decode(text.encode())
        except (msgspec.DecodeError, RecursionError) as problem:
            raise UsageError(
                f"--parameter {name}: its value is no JSON ({problem}); text stands in quotes"
            ) from problem
        if not sign or not name or name in parameters:
            raise UsageError(f"--parameter takes NAME=JSON, each name once, not {item!r}")
        parameters[name] = value
    return parameters


def _toml_key(name: str) -> str:
    import msgspec

    return msgspec.json.encode(name).decode()


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing"
