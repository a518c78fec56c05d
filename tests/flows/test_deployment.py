"""`prefect.yaml` and the flow's parameters, as an operator meets them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def test_every_deployment_names_a_flow_that_takes_its_parameters() -> None:
    """A typing mistake here would be seen at two in the morning; a version that is not ours tells of another release."""
    import importlib.metadata
    import inspect

    from deployments.schedules import declaration_file, declared

    assert declaration_file() == ROOT / "prefect.yaml"
    deployments = declared(declaration_file())
    assert {one.name for one in deployments} >= {"nightly", "compliance", "integrity"}
    for one in deployments:
        module, _, name = one.entrypoint.rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert set(one.parameters) <= set(inspect.signature(flow.fn).parameters)
        flow.validate_parameters(one.parameters)
        assert one.version == importlib.metadata.version("enterprise-detector-pool")
        assert "detector-pool" in one.tags
        assert [(schedule.timezone, schedule.active) for schedule in one.schedules] == [("UTC", False)]
        assert (one.concurrency_limit.limit, one.concurrency_limit.collision_strategy) == (1, "CANCEL_NEW")
    pinned = yaml.safe_load((ROOT / "prefect.yaml").read_text())["prefect-version"]
    assert pinned == importlib.metadata.version("prefect")


@pytest.mark.parametrize("entrypoint", ["flows.scan.scan_flow", "flows.comply.comply_flow", "flows.audit.audit_flow"])
def test_every_parameter_has_a_type_and_a_description(entrypoint: str) -> None:
    """The form in Prefect's UI is made from them; a parameter without takes anything, and says nothing."""
    module, _, name = entrypoint.rpartition(".")
    properties = getattr(importlib.import_module(module), name).parameters.properties

    for parameter, shown in properties.items():
        assert shown.get("description"), parameter
        assert "type" in shown or "anyOf" in shown, parameter
