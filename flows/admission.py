"""
The door of a flow: who asks for this run, and whether he may.

A run that its deployment's schedule made acts as the worker's service. Who asks for one by hand gives a signed request
as the parameter `request`; Prefect knows no people, and what its server says of who asked is not believed.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compliance.access_policy import InstalledAccessPolicy
from compliance.identity import AccessPlaces
from detectors.access import denied, require, require_detectors, required_policy
from detectors.ports import AccessPolicy

__all__ = ["admit", "admit_run", "admit_verification"]

USED = "used-requests"


def admit_run(flow: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """
    Let a flow over source trees begin, or refuse it.

    Args:
        flow: Its function; the defaults of its parameters are what a request need not sign.
        given: All of the run's parameters: `paths` are the trees, `detectors` the detectors, `request` what
            `detector-pool access request` printed, or None for a scheduled run and for one without deployment.

    Raises:
        AccessDenied: With the reason; recorded.
        IdentityUnproven: The request proves nothing.
    """
    assert "paths" in given, "a flow over source trees is told which"
    policy = _admitted(flow, given)
    require_detectors(map(Path, given["paths"]), given["detectors"], door="flow", policy=policy)


def admit_verification(flow: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """
    Let a flow that verifies stores begin, or refuse it.

    Args:
        flow: See `admit_run`.
        given: All of the run's parameters: `ledger` and `evidence` are folders or None, `request` as in `admit_run`.

    Raises:
        AccessDenied: With the reason; recorded.
        IdentityUnproven: The request proves nothing.
    """
    assert {"ledger", "evidence"} <= given.keys(), "a flow that verifies is told what"
    policy = _admitted(flow, given)
    for store in ("ledger", "evidence"):
        if given[store] is not None:
            require("verify", store, door="flow", folder=Path(given[store]), policy=policy)


def _admitted(flow: Callable[..., Any], given: Mapping[str, Any]) -> AccessPolicy:
    defaults = {name: known.default for name, known in inspect.signature(flow).parameters.items()}
    assert "request" in defaults, "who asks by hand has where to sign"
    assert defaults.keys() <= given.keys(), "each parameter of the run is under the signature"
    parameters = {name: given[name] for name in defaults if name != "request"}
    return admit(parameters, defaults, given.get("request"), *_deployment())


def admit(
    parameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    request: str | None,
    deployment: str | None,
    scheduled: bool,
) -> AccessPolicy:
    """
    Return the policy that decides for whoever asks for a run.

    Args:
        parameters: See `admit_run`.
        defaults: See `admit_run`.
        request: See `admit_run`.
        deployment: `flow/deployment`; `None` for a run without one, which acts for whoever runs this process.
        scheduled: Whether the deployment's schedule made the run.

    Raises:
        AccessDenied: A run of a deployment was asked for by hand without a request, where a policy says who may.
        IdentityUnproven: The request proves nothing.
    """
    assert "request" not in parameters, "a signature is not under itself"
    assert deployment is not None or not scheduled, "only a deployment has a schedule"
    installed = required_policy()
    if not isinstance(installed, InstalledAccessPolicy) or installed.policy is None:
        return installed
    if request is not None:
        from compliance.run_requests import admitted

        places: AccessPlaces = installed.places
        assert places.state.is_absolute(), "what was used is remembered in one place, wherever the worker runs"
        who = admitted(
            request,
            installed.policy,
            deployment=deployment or "none/none",
            parameters=parameters,
            defaults=defaults,
            used=places.state / USED,
        )
        return InstalledAccessPolicy(places, who)
    if deployment is not None and not scheduled:
        denial = denied(_NobodyAsked(installed), "run", deployment, door="flow")
        assert denial is not None, "nobody may not"
        raise denial
    return installed


@dataclasses.dataclass(frozen=True)
class _NobodyAsked:
    """Denies a run that was asked for by hand without saying by whom."""

    installed: InstalledAccessPolicy

    def denial(self, action: str, target: str, roles: frozenset[str], tree: str = "") -> str:
        """Return why not; see `detectors.ports.AccessPolicy`."""
        del action, roles, tree
        assert target, "a deployment has a name"
        return (
            f"who asks for a run by hand signs: give what `detector-pool access request {target}` prints as `request`"
        )

    def caller(self) -> Mapping[str, Any]:
        """Return who would have run it; see `detectors.ports.KnowsCaller`."""
        return self.installed.caller()


def _deployment() -> tuple[str | None, bool]:
    """Return the deployment of the running flow run, and whether its schedule made it."""
    from prefect.context import FlowRunContext
    from prefect.runtime import deployment

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or run.deployment_id is None or context is None or context.flow is None:
        return None, False
    assert deployment.name, "a request is bound to a deployment's name"
    return f"{context.flow.name}/{deployment.name}", bool(run.auto_scheduled)
