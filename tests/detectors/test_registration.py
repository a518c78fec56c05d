"""What may be registered, by whom, and what is recorded of it."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors import EnterpriseDetectorPool, create_enterprise_pool
from detectors.enterprise_detector_pool import BreakerPolicy, RetryPolicy
from detectors.errors import AccessDenied, ConfigurationError, UsageError

SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "minimum": 1}},
    "required": ["limit"],
    "additionalProperties": False,
}


class Limits(msgspec.Struct):
    """A configuration with a default."""

    limit: int
    words: list[str] = msgspec.field(default_factory=lambda: ["init"])


@dataclasses.dataclass
class Plain:
    """The same as a dataclass."""

    limit: int
    words: tuple[str, ...] = ()


class Kept:
    """An audit sink in memory."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def record(self, event: Mapping[str, Any]) -> None:
        """Keep it."""
        self.events.append(event)


class ByRole:
    """A policy: this person has the role `auditor`."""

    def denial(self, action: str, target: str, roles: frozenset[str], tree: str = "") -> str | None:
        """Allow what names no role, or the one that we have."""
        return None if not roles or "auditor" in roles else f"it needs one of {sorted(roles)}"


@pytest.mark.parametrize(
    ("schema", "config", "expected"),
    [
        (SCHEMA, {"limit": 60}, {"limit": 60}),
        (Limits, {"limit": 60}, {"limit": 60, "words": ["init"]}),
        (Plain, {"limit": 60}, {"limit": 60, "words": ()}),
        (dict[str, int], {"limit": 60}, {"limit": 60}),
        (None, {"any": "thing"}, {"any": "thing"}),
    ],
)
def test_a_configuration_that_fits_reaches_the_detector(schema: Any, config: Any, expected: Any) -> None:
    """When this fails, a detector runs with another configuration than the one that was checked."""
    with EnterpriseDetectorPool() as pool:
        pool.register_detector("show", lambda **config: config, config, config_schema=schema)

        assert pool.execute_detector("show").value == expected


@pytest.mark.parametrize(
    ("schema", "config", "words"),
    [
        (SCHEMA, {"limit": 0}, r"\$\.limit.*minimum"),
        (SCHEMA, {}, "'limit' is a required property"),
        (SCHEMA, {"limit": 1, "limti": 2}, "limti"),
        (Limits, {"limit": "many"}, r"Expected `int`.*\$\.limit"),
        (Limits, {}, "limit"),
        (int, {"limit": 1}, "int"),
        ({"type": "nonsense"}, {}, "no JSON Schema"),
        ({"$ref": "https://example.org/schema.json"}, {}, "refers to what it does not hold"),
    ],
)
def test_a_bad_configuration_is_told_at_the_door(schema: Any, config: Any, words: str) -> None:
    """When this fails, a typing error in a configuration is found by the ten-thousandth execution, or never."""
    with EnterpriseDetectorPool() as pool, pytest.raises(ConfigurationError, match=words):
        pool.register_detector("x", lambda **_: None, config, config_schema=schema)


@pytest.mark.parametrize("score", [0, -1.0, float("nan"), float("inf")])
def test_a_score_that_is_no_number_of_seconds_is_told(score: float) -> None:
    """When this fails, a detector is planned as work that takes no time or never ends."""
    with EnterpriseDetectorPool() as pool, pytest.raises(UsageError, match="complexity_score of 'x'"):
        pool.register_detector("x", lambda: None, complexity_score=score)


def test_policies_that_make_no_sense_are_told() -> None:
    """When this fails, a wrong number is found when something fails at night."""
    for wrong in ({"attempts": 0}, {"base_s": -1}, {"on": (1,)}):
        with pytest.raises(UsageError):
            RetryPolicy(**wrong)
    for wrong in ({"failures": 0}, {"reset_s": -1}, {"successes": 0}):
        with pytest.raises(UsageError):
            BreakerPolicy(**wrong)
    with EnterpriseDetectorPool() as pool:
        for options in (
            {"isolation": "moon"},
            {"isolation": "process", "timeout_s": 0},
            {"max_concurrent": 0},
            {"memory_bytes": 10},
            {"complexity_score": 0},
        ):
            with pytest.raises(UsageError):
                pool.register_detector("x", len, **options)
    with pytest.raises(UsageError, match="audit_mode"):
        EnterpriseDetectorPool(audit_sink=Kept())


def test_roles_are_asked_for_and_denials_stand_in_their_place() -> None:
    """When this fails, a detector runs for somebody who may not run it, or a denial ends the whole call."""
    sink, ran = Kept(), []
    with EnterpriseDetectorPool(access_policy=ByRole(), audit_mode=True, audit_sink=sink) as pool:
        pool.register_detector("free", ran.append)
        pool.register_detector("mine", ran.append, roles=["auditor", "admin"])
        with pytest.raises(AccessDenied, match=r"register.*'theirs'.*admin"):
            pool.register_detector("theirs", ran.append, roles=["admin"])
        results = pool.execute_parallel([("free", (1,), {}), ("mine", (2,), {}), ("theirs", (3,), {})])

    assert [item.ok for item in results] == [True, True, False]
    assert sorted(ran) == [1, 2]
    kinds = [event["event"] for event in sink.events]
    assert kinds.count("access-denied") == 1
    assert kinds.count("detector-registered") == 2
    assert kinds.count("executions-asked") == 1


def test_breakers_and_lost_processes_are_recorded() -> None:
    """When this fails, an auditor does not see what went wrong in the night."""
    sink = Kept()
    with EnterpriseDetectorPool(audit_mode=True, audit_sink=sink) as pool:
        pool.register_detector("die", _die, isolation="process", breaker=BreakerPolicy(failures=1))
        pool.execute_detector("die")

    events = {event["event"]: event for event in sink.events}
    assert events["process-lost"]["detector"] == "die"
    assert (events["breaker-changed"]["before"], events["breaker-changed"]["after"]) == ("closed", "open")


def _die() -> None:
    import os

    os._exit(1)


def test_an_installed_policy_and_sink_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a policy that somebody installed is silently not asked."""
    (tmp_path / "house_rules.py").write_text(
        textwrap.dedent(
            """
            class Nobody:
                def denial(self, action, target, roles, tree=""):
                    return "nobody may"

            class Sink:
                def record(self, event):
                    EVENTS.append(event)

            EVENTS = []
            """
        )
    )
    installed = tmp_path / "house_rules-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: house-rules\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        "[detector_pool.access]\nrules = house_rules\n[detector_pool.audit]\nrules = house_rules\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    with create_enterprise_pool(audit_mode=True) as pool, pytest.raises(AccessDenied, match="nobody may"):
        pool.register_detector("x", len)
    assert [event["event"] for event in sys.modules["house_rules"].EVENTS] == ["access-denied"]
