"""`prefect.yaml` and the flow's parameters, as an operator meets them."""

from __future__ import annotations

import importlib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_deployment_names_a_flow_that_takes_its_parameters() -> None:
    """A typing mistake here would be seen at two in the morning."""
    import inspect

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployments
    for deployment in deployments:
        file, _, name = deployment["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert set(deployment["parameters"]) <= set(inspect.signature(flow.fn).parameters)
        assert all(schedule["timezone"] == "UTC" and schedule["slug"] for schedule in deployment["schedules"])


def test_every_parameter_has_a_type_and_a_description() -> None:
    """The form in Prefect's UI is made from them."""
    from flows.scan import scan_flow

    properties = scan_flow.parameters.properties
    assert all(prop.get("description") for prop in properties.values()), properties
