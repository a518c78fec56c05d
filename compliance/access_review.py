"""The policy of today beside what the ledger says: who may do what, who did, who was refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.identity import Identity, Kind
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import Policy

__all__ = ["MAX_LINE_BYTES", "Person", "Review", "review_of"]

MAX_LINE_BYTES = 4 << 20
MAX_PEOPLE = 100_000
KINDS: dict[str, Kind] = {"user": "user", "token": "token", "service": "service", "request": "request"}


class Person(msgspec.Struct, frozen=True):
    """Somebody whom the policy or the ledger names."""

    name: str
    kind: Kind
    roles: tuple[str, ...]
    """That the policy gives now; of a token, those that it gave when it was last seen."""
    may: tuple[str, ...]
    """Actions that are allowed on everything; rules for single detectors or folders are not shown."""
    did: Mapping[str, int]
    """Recorded events by kind."""
    refused: Mapping[str, int]
    """Denials by action."""
    stale: bool
    """Did something, and has no role under the policy of today."""


class Review(msgspec.Struct, frozen=True):
    """What came of it."""

    policy: str | None
    """Digest of the policy that the ledger was held against."""
    records: int
    people: tuple[Person, ...]


def review_of(policy: Policy | None, lines: Iterable[bytes]) -> Review:
    """
    Hold a policy against a ledger's export.

    Args:
        policy: Of today; `None` where there is none.
        lines: As `audit export` prints them.

    Raises:
        UsageError: A line that is no record.
    """
    seen: dict[tuple[Kind, str], tuple[Counter[str], Counter[str]]] = {}
    roles = {} if policy is None else _given(policy)
    records = 0
    for number, line in enumerate(lines, 1):
        event = _event(line, number)
        if event is None:
            continue
        records += 1
        who = _who(event)
        if who is None:
            continue
        did, refused = seen.setdefault(who[:2], (Counter(), Counter()))
        if len(seen) > MAX_PEOPLE:
            raise UsageError(f"the export names more than {MAX_PEOPLE} people")
        kind = str(event.get("event") or event.get("type") or "unnamed")
        if kind == "access-denied":
            refused[str(event.get("action"))] += 1
        else:
            did[kind] += 1
        if who[0] == "token":
            roles[who[:2]] = who[2]
    people = tuple(
        _person(policy, key, roles.get(key, ()), *seen.get(key, (Counter(), Counter())))
        for key in sorted({*roles, *seen})
    )
    return Review(None if policy is None else policy.digest, records, people)


def _person(
    policy: Policy | None, key: tuple[Kind, str], roles: tuple[str, ...], did: Counter[str], refused: Counter[str]
) -> Person:
    from compliance.access_rules import ACTIONS

    kind, name = key
    identity = Identity(name, kind, frozenset(roles), "reviewed")
    # A target that nothing is called: what is allowed there is allowed everywhere, but for what is forbidden.
    may = () if policy is None else tuple(a for a in ACTIONS if policy.rules.decide(identity, a, "*").allowed)
    assert set(may) <= set(ACTIONS), "what may be done can be asked for"
    stale = policy is not None and bool(did) and not roles
    return Person(name, kind, tuple(sorted(roles)), may, dict(did), dict(refused), stale)


def _given(policy: Policy) -> dict[tuple[Kind, str], tuple[str, ...]]:
    file = policy.file
    given: dict[tuple[Kind, str], tuple[str, ...]] = {("user", name): roles for name, roles in file.users.items()}
    given |= {("service", one.name): tuple(one.roles) for one in file.services}
    given |= {("request", one.name): tuple(one.roles) for one in file.requesters}
    return given


def _event(line: bytes, number: int) -> Mapping[str, Any] | None:
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"line {number} of the export is longer than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        return None
    try:
        record = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"line {number} of the export is no record: {problem}") from problem
    event = record.get("event")
    # The last line of an export with proofs is the checkpoint.
    return event if isinstance(event, dict) else None


def _who(event: Mapping[str, Any]) -> tuple[Kind, str, tuple[str, ...]] | None:
    """Return kind, name and roles of whom an event names, in either of the two spellings that records have."""
    who = event.get("who")
    if not isinstance(who, dict):
        return None
    name = who.get("name") or who.get("user")
    if not isinstance(name, str) or not name:
        return None
    told = who.get("roles")
    roles = tuple(role for role in told if isinstance(role, str)) if isinstance(told, list) else ()
    return KINDS.get(str(who.get("kind")), "user"), name, roles
