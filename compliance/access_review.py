"""
The policy of today beside what the ledger says: who may do what and on which trees, who did, who was refused, when.

Trees are those that the policy's rules name and those that the ledger has; of a rule's pattern, one path that fits it
is tried.
"""

from __future__ import annotations

import re
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
MAX_TREES = 200
"""Each is asked about for each person and action."""
TREE_IN_RULE = re.compile(r'"(\*?/[^"\\\n]*)"')
KINDS: dict[str, Kind] = {"user": "user", "token": "token", "service": "service", "request": "request"}


class Person(msgspec.Struct, frozen=True):
    """Somebody whom the policy or the ledger names."""

    name: str
    kind: Kind
    roles: tuple[str, ...]
    """That the policy gives now; of a token, those that it gave when it was last seen."""
    may: tuple[str, ...]
    """Actions that are allowed on everything."""
    may_on: Mapping[str, tuple[str, ...]]
    """By tree: actions that are allowed there and not everywhere."""
    not_on: Mapping[str, tuple[str, ...]]
    """By tree: actions that are allowed elsewhere and not there."""
    did: Mapping[str, int]
    """Recorded events by kind."""
    refused: Mapping[str, int]
    """Denials by action."""
    did_on: tuple[str, ...]
    """Trees that the records of what was done name, sorted; at most two hundred."""
    refused_on: tuple[str, ...]
    did_first: str
    """Time of the first such record; empty for none."""
    did_last: str
    refused_first: str
    refused_last: str
    stale: bool
    """Did something, and has no role under the policy of today."""


class Seen:
    """What the ledger says of somebody."""

    def __init__(self) -> None:
        self.counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        """By whether it was refused."""
        self.trees: dict[bool, set[str]] = {False: set(), True: set()}
        self.times: dict[bool, list[str]] = {False: [], True: []}
        """First and last."""

    def take(self, event: Mapping[str, Any], time: str) -> None:
        """Count an event."""
        kind = str(event.get("event") or event.get("type") or "unnamed")
        refused = kind == "access-denied"
        self.counts[refused][str(event.get("action")) if refused else kind] += 1
        if len(self.trees[refused]) < MAX_TREES:
            self.trees[refused].update(_trees(event))
        if time:
            known = self.times[refused] or [time]
            self.times[refused] = [min(known[0], time), max(known[-1], time)]
        assert self.counts[refused].total() > 0, "it was counted"


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
    seen: dict[tuple[Kind, str], Seen] = {}
    roles = {} if policy is None else _given(policy)
    records = 0
    for number, line in enumerate(lines, 1):
        record = _record(line, number)
        if record is None:
            continue
        event, time = record
        records += 1
        who = _who(event)
        if who is None:
            continue
        one = seen.setdefault(who[:2], Seen())
        if len(seen) > MAX_PEOPLE:
            raise UsageError(f"the export names more than {MAX_PEOPLE} people")
        one.take(event, time)
        if who[0] == "token":
            roles[who[:2]] = who[2]
    trees = _asked_about(policy, seen.values())
    people = tuple(
        _person(policy, key, roles.get(key, ()), seen.get(key, Seen()), trees) for key in sorted({*roles, *seen})
    )
    return Review(None if policy is None else policy.digest, records, people)


def _person(
    policy: Policy | None, key: tuple[Kind, str], roles: tuple[str, ...], seen: Seen, trees: tuple[str, ...]
) -> Person:
    from compliance.access_rules import ACTIONS

    kind, name = key
    identity = Identity(name, kind, frozenset(roles), "reviewed")

    def allowed(tree: str) -> tuple[str, ...]:
        # A target that nothing is called: what is allowed there is allowed everywhere, but for what is forbidden.
        if policy is None:
            return ()
        return tuple(a for a in ACTIONS if policy.rules.decide(identity, a, "*", tree=tree).allowed)

    may = allowed("")
    there = {tree: allowed(tree.replace("*", "x")) for tree in trees}
    assert set(may) <= set(ACTIONS), "what may be done can be asked for"
    did, refused = seen.counts[False], seen.counts[True]
    first, last = (*seen.times[False], "", "")[:2]
    refused_first, refused_last = (*seen.times[True], "", "")[:2]
    return Person(
        name, kind, tuple(sorted(roles)), may,
        {tree: tuple(a for a in found if a not in may) for tree, found in there.items() if set(found) - set(may)},
        {tree: tuple(a for a in may if a not in found) for tree, found in there.items() if set(may) - set(found)},
        dict(did), dict(refused), tuple(sorted(seen.trees[False]))[:MAX_TREES],
        tuple(sorted(seen.trees[True]))[:MAX_TREES], first, last, refused_first, refused_last,
        policy is not None and bool(did) and not roles,
    )  # fmt: skip


def _asked_about(policy: Policy | None, seen: Iterable[Seen]) -> tuple[str, ...]:
    """Return the trees that rules name, then those that the ledger has, as many as are worth asking about."""
    if policy is None:
        return ()
    named = sorted(set(TREE_IN_RULE.findall(policy.rules.text)))
    had = sorted({tree for one in seen for trees in one.trees.values() for tree in trees} - set(named))
    found = tuple([*named, *had][:MAX_TREES])
    assert all(found), "a tree has a path"
    return found


def _trees(event: Mapping[str, Any]) -> list[str]:
    """Return the trees that an event names: the roots of a run, or the tree of a denial."""
    roots = event.get("roots")
    told = [*(roots if isinstance(roots, list) else ()), event.get("tree")]
    return [tree for tree in told if isinstance(tree, str) and tree][:MAX_TREES]


def _given(policy: Policy) -> dict[tuple[Kind, str], tuple[str, ...]]:
    file = policy.file
    given: dict[tuple[Kind, str], tuple[str, ...]] = {("user", name): roles for name, roles in file.users.items()}
    given |= {("service", one.name): tuple(one.roles) for one in file.services}
    given |= {("request", one.name): tuple(one.roles) for one in file.requesters}
    return given


def _record(line: bytes, number: int) -> tuple[Mapping[str, Any], str] | None:
    """Return an event and its time; None for a line that has no event."""
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
    return (event, str(record.get("time") or "")) if isinstance(event, dict) else None


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
