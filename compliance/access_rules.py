"""
Rules of access in the Cedar language: the schema they are checked by, the standard ones, and decisions with reasons.

Nothing is allowed unless a rule permits it; a rule that forbids wins. A rule whose evaluation fails denies, whatever
the others say.

Source: Cedar policy language, version 4 (https://docs.cedarpolicy.com).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from compliance.identity import Identity, Kind
from detectors.ports import Action

if TYPE_CHECKING:
    import cedarpy

__all__ = ["ACTIONS", "SCHEMA", "STANDARD_RULES", "STORES", "Decision", "Rules"]

ACTIONS: tuple[Action, ...] = ("run", "register", "read", "verify", "administer", "waive", "approve")
DETECTOR_ACTIONS = frozenset({"run", "register"})
STORES = ("evidence", "ledger", "policy", "certificates", "cluster", "waivers")
PRINCIPALS: dict[Kind, str] = {"user": "User", "token": "Bearer", "service": "Service", "request": "Requester"}
GUARD = "registered-roles"
MAX_RULES_BYTES = 1 << 20

SCHEMA = """
entity Role;
entity User, Bearer, Service, Requester in [Role];
entity Detector = { roles: Set<Role>, open: Bool };
entity Store;
action run, register appliesTo {
  principal: [User, Bearer, Service, Requester], resource: [Detector], context: { tree: String }
};
action read, verify, administer, waive, approve appliesTo {
  principal: [User, Bearer, Service, Requester], resource: [Store], context: { tree: String }
};
"""
"""`tree` is the real path of the sources or of the store's folder; empty where there is none."""

STANDARD_RULES = """
@id("viewers")
permit (principal in Role::"viewer", action == Action::"read", resource);

@id("auditors")
permit (principal in Role::"auditor", action in [Action::"read", Action::"verify"], resource);

@id("developers")
permit (
  principal in Role::"developer",
  action in [Action::"run", Action::"read", Action::"verify", Action::"waive"],
  resource
);

@id("maintainers")
permit (
  principal in Role::"maintainer",
  action in [Action::"run", Action::"register", Action::"read", Action::"verify", Action::"waive"],
  resource
);

@id("approvers")
permit (principal in Role::"approver", action in [Action::"read", Action::"verify", Action::"approve"], resource);

@id("services")
permit (principal is Service in Role::"service", action in [Action::"run", Action::"verify"], resource);

@id("administrators")
permit (principal in Role::"administrator", action, resource);
"""

GUARD_RULE = f"""
@id("{GUARD}")
forbid (principal, action in [Action::"run", Action::"register"], resource is Detector)
unless {{ resource.open || principal in resource.roles }};
"""
"""A registration that names roles asks for one of them, whatever the policy's own rules say."""


class Decision(msgspec.Struct, frozen=True):
    """Whether somebody may, and by which rules."""

    allowed: bool
    rules: tuple[str, ...]
    """Names of the rules that decided, sorted; empty where none permits."""
    reason: str


class Rules:
    """
    Checked rules, ready to decide.

    Args:
        text: In Cedar; the standard rules for `None`.

    Raises:
        ValueError: They do not parse, do not fit the schema, name a rule twice, or are too long.
    """

    def __init__(self, text: str | None = None) -> None:
        import cedarpy

        own = STANDARD_RULES if text is None else text
        if len(own) > MAX_RULES_BYTES:
            raise ValueError(f"the rules are longer than {MAX_RULES_BYTES} characters")
        self.text = own + GUARD_RULE
        verdict = cedarpy.validate_policies(self.text, SCHEMA)
        if not verdict.validation_passed:
            raise ValueError("; ".join(str(error) for error in verdict.errors[:3]))
        self._schema = cedarpy.Schema.from_str(SCHEMA)
        self._policies = cedarpy.PolicySet.from_str(self.text)
        nodes = self._policies.to_pst()
        names = [str(rule.annotations.get("id") or name) for name, rule in nodes.static_policies.items()]
        if len(set(names)) != len(names):
            raise ValueError(f"two rules have one @id (`{GUARD}` is taken by the rule that is always there)")
        assert GUARD in names, "the rule that is always there is there"
        if nodes.templates:
            raise ValueError("templates (?principal, ?resource) are links to nothing here; write rules")
        self.roles = frozenset(uid.id for uid in cedarpy.pst.entity_uids(nodes) if str(uid.type) == "Role")
        """Roles that the rules speak of."""

    def decide(
        self, identity: Identity, action: Action, target: str, roles: frozenset[str] = frozenset(), tree: str = ""
    ) -> Decision:
        """
        Decide on one action.

        Args:
            identity: Who.
            action: What is to be done.
            target: A detector (to run or register), else a store.
            roles: Of which one is needed beside.
            tree: See `SCHEMA`.

        Raises:
            ValueError: An action that does not exist, nobody who asks, or nothing that is asked for.
        """
        import cedarpy

        if action not in ACTIONS:
            raise ValueError(f"there is no action {action!r}; there are {', '.join(ACTIONS)}")
        if not identity.name or not target:
            raise ValueError("somebody asks for something; neither has an empty name")
        who = {"type": PRINCIPALS[identity.kind], "id": identity.name}
        on = {"type": "Detector" if action in DETECTOR_ACTIONS else "Store", "id": target}
        entities: list[dict[Any, Any]] = [
            {"uid": who, "attrs": {}, "parents": [_role(role) for role in sorted(identity.roles)]},
            {"uid": on, "attrs": _attributes(on["type"], roles), "parents": []},
        ]
        request = {
            "principal": who, "action": {"type": "Action", "id": action}, "resource": on, "context": {"tree": tree},
        }  # fmt: skip
        return _decision(cedarpy.is_authorized(request, self._policies, entities, self._schema))


def _decision(result: cedarpy.AuthzResult) -> Decision:
    told = result.diagnostics
    named = told.id_annotations_by_reason
    rules = tuple(sorted(named.get(reason) or reason for reason in told.reasons))
    assert GUARD not in rules or not result.allowed, "a rule that forbids wins"
    if told.errors:
        return Decision(False, rules, f"a rule cannot be evaluated: {told.errors[0]}")
    if result.allowed:
        assert rules, "something permitted it"
        return Decision(True, rules, f"permitted by {', '.join(rules)}")
    if rules == (GUARD,):
        return Decision(False, rules, "none of its roles is one that the registration names")
    return Decision(False, rules, f"forbidden by {', '.join(rules)}" if rules else "no rule permits it")


def _attributes(kind: str, roles: frozenset[str]) -> dict[str, Any]:
    if kind != "Detector":
        return {}
    assert "" not in roles, "a role has a name"
    return {"roles": [{"__entity": _role(role)} for role in sorted(roles)], "open": not roles}


def _role(name: str) -> dict[str, str]:
    assert name, "a role has a name"
    return {"type": "Role", "id": name}
