"""The eight operational controls: held by the product as it is, and each failed by a product that is broken on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance import DefenseComplianceMonitor, ledger_verify
from compliance.control import Control, Observation, Trial, find_controls, tried
from detectors import EnterpriseDetectorPool
from detectors.circuit_breaker import Breaker
from detectors.errors import UsageError
from detectors.execution import Runner
from detectors.pool_metrics import MetricsBook
from detectors.process_isolation import _Process

IDS = {
    "access-control", "error-handling", "fault-tolerance", "input-validation", "performance-monitoring",
    "resource-management", "tamper-evident-audit", "thread-safety",
}  # fmt: skip


class RolePolicy:
    """Lets only what names no role be executed."""

    def denial(self, action: str, target: str, roles: frozenset[str], tree: str = "") -> str | None:
        return f"needs one of {sorted(roles)}" if action == "run" and roles else None


class AllowAll:
    """A policy that is none."""

    def denial(self, action: str, target: str, roles: frozenset[str], tree: str = "") -> str | None:
        return None


class Kept:
    """An audit sink; the trials must leave nothing in it."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []

    def record(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)


@pytest.fixture
def sink() -> Kept:
    """The live pool's audit sink."""
    return Kept()


@pytest.fixture
def monitor(sink: Kept, tmp_path: Path) -> Any:
    """A monitor of a live pool in audit mode with a policy."""
    with EnterpriseDetectorPool(
        3, 500, audit_mode=True, audit_sink=sink, access_policy=RolePolicy(), cache_folder=tmp_path / "live-cache"
    ) as pool:
        yield DefenseComplianceMonitor(pool)


def test_every_control_holds_and_names_its_numbers(monitor: DefenseComplianceMonitor, sink: Kept) -> None:
    """When this fails, a sound product is called not compliant, or a trial touches the live pool's sink."""
    results = monitor.validate_controls()

    assert [result.evidence for result in results if not result.ok] == []
    assert {result.id for result in results} == IDS
    assert all(any(character.isdigit() for character in result.evidence) for result in results)
    assert all(result.seconds > 0 for result in results)
    assert sink.events == []


def _no_retry(patch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again."""
    patch.setattr(Runner, "_retry", lambda self, current: None)


def _schema_ignored(patch: pytest.MonkeyPatch) -> None:
    """A configuration is taken as it comes."""
    patch.setattr("detectors.registration._configured", lambda name, config, schema: dict(config))


def _endless_timeout(patch: pytest.MonkeyPatch) -> None:
    """Who waits for an isolated process waits for as long as it takes."""
    told = _Process._told

    def patient(self: _Process, message: Any) -> Any:
        registration, self.registration = self.registration, msgspec.structs.replace(self.registration, timeout_s=None)
        try:
            return told(self, message)
        finally:
            self.registration = registration

    patch.setattr(_Process, "_told", patient)


def _mixed_up_cache(patch: pytest.MonkeyPatch) -> None:
    """One key for what shares a last digit: the cache returns another's value."""
    from detectors import execution

    right = execution._keys

    def wrong(registration: Any, unit: Any) -> Any:
        alike = msgspec.structs.replace(unit, args=tuple(item % 10 for item in unit.args if isinstance(item, int)))
        return right(registration, alike)

    patch.setattr(execution, "_keys", wrong)


def _uncounted_failures(patch: pytest.MonkeyPatch) -> None:
    """Metrics forget what failed."""
    add = MetricsBook.add

    def forgetful(self: MetricsBook, name: str, tally: Any, executed: int) -> None:
        tally.failed = 0
        add(self, name, tally, executed)

    patch.setattr(MetricsBook, "add", forgetful)


def _trusting_verifier(patch: pytest.MonkeyPatch) -> None:
    """A ledger with a flipped byte is called intact."""
    verify = ledger_verify.verify

    def trusting(*arguments: Any, **options: Any) -> Any:
        verdict = verify(*arguments, **options)
        if verdict.verdict == "tampered" and options.get("checkpoint") is None:
            return msgspec.structs.replace(verdict, ok=True, verdict="intact")
        return verdict

    patch.setattr(ledger_verify, "verify", trusting)


def _silent_pool(patch: pytest.MonkeyPatch) -> None:
    """Denials do not reach the sink."""
    from detectors import enterprise_detector_pool as pool

    denied = pool.denied
    patch.setattr(pool, "denied", lambda *arguments, **options: denied(*arguments, **{**options, "sink": None}))


def _no_breaker(patch: pytest.MonkeyPatch) -> None:
    """A broken detector is called for ever."""
    patch.setattr(Breaker, "admit", lambda self: None)


def _open_doors(patch: pytest.MonkeyPatch) -> None:
    """The pool asks nobody before it executes."""
    denial = EnterpriseDetectorPool._denial

    def careless(self: EnterpriseDetectorPool, action: Any, name: str, roles: frozenset[str]) -> Any:
        return denial(self, action, name, roles) if action == "register" else None

    patch.setattr(EnterpriseDetectorPool, "_denial", careless)


MUTANTS: tuple[tuple[str, Callable[[pytest.MonkeyPatch], None], str], ...] = (
    ("error-handling", _no_retry, "NOT: 0 of 8 executions recovered"),
    ("input-validation", _schema_ignored, "NOT: 0 of 6 bad configurations"),
    ("resource-management", _endless_timeout, "NOT: a task of 8 s"),
    ("thread-safety", _mixed_up_cache, "NOT: cached: 8 threads asked 2400 times"),
    ("performance-monitoring", _uncounted_failures, "NOT: metrics count 40 executed, 0 failed"),
    ("tamper-evident-audit", _trusting_verifier, "NOT: 0 of 40 flipped bits"),
    ("tamper-evident-audit", _silent_pool, "NOT: 7 of 8 events"),
    ("fault-tolerance", _no_breaker, "NOT: of 12 calls of a broken detector 12 ran"),
    ("access-control", _open_doors, "NOT: 0 of 6 doors denied"),
)


@pytest.mark.parametrize(("name", "broken", "words"), MUTANTS, ids=lambda part: getattr(part, "__name__", None))
def test_a_broken_product_fails_its_control(
    monitor: DefenseComplianceMonitor,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    broken: Callable[[pytest.MonkeyPatch], None],
    words: str,
) -> None:
    """When this fails, the control would call a product compliant that does not do what the control is about."""
    with monkeypatch.context() as patch:
        broken(patch)
        (result,) = monitor.validate_controls([name])

    assert not result.ok
    assert words in result.evidence


def test_there_is_a_mutant_for_each_control() -> None:
    """When this fails, nothing shows that a new control can fail."""
    assert {name for name, _, _ in MUTANTS} == {control.id for control in find_controls()} == IDS


@pytest.mark.parametrize(
    ("options", "control", "words"),
    [
        ({"access_policy": AllowAll()}, "access-control", "policy (AllowAll) a call for a role that nobody holds RAN"),
        ({}, "access-control", "policy (InstalledAccessPolicy) a call for a role that nobody holds RAN"),
        ({}, "tamper-evident-audit", "NOT: 0 of 8 events of a pool are in it"),
    ],
)
def test_a_careless_configuration_fails(options: dict[str, Any], control: str, words: str) -> None:
    """When this fails, a pool without a policy or without audit is called controlled: the trial ignored its options."""
    with EnterpriseDetectorPool(2, **options) as pool:
        (result,) = DefenseComplianceMonitor(pool).validate_controls([control])

    assert not result.ok
    assert words in result.evidence


def test_a_disposable_pool_has_the_live_ones_configuration(tmp_path: Path) -> None:
    """When this fails, the controls judge another pool than the one that runs."""
    with EnterpriseDetectorPool(5, 77, 12.5, cache_bytes=1 << 20, cache_folder=tmp_path / "live") as live:
        (tmp_path / "trial").mkdir()
        with Trial(live.configuration, tmp_path / "trial").pool() as pool:
            alike, folder = pool.configuration, pool.configuration["cache_folder"]

    same = ("max_workers", "cache_size", "cache_ttl", "cache_bytes", "audit_mode", "enable_profiling", "cluster")
    assert {name: alike[name] for name in same} == {name: live.configuration[name] for name in same}
    assert folder.parent == tmp_path / "trial"
    assert live.closed
    assert pool.closed


class _Broken(Control):
    id = "broken"
    title = "A trial that raises"

    def observe(self, trial: Trial) -> Any:
        yield Observation(True, "one thing was seen")
        raise RuntimeError("the product is in pieces")


class _Blind(Control):
    id = "blind"
    title = "A trial that sees nothing"

    def observe(self, trial: Trial) -> Any:
        return iter(())


def test_a_trial_that_raises_or_sees_nothing_has_failed() -> None:
    """When this fails, a product too broken to be tried passes."""
    raised, blind = tried(_Broken(), {}), tried(_Blind(), {})

    assert (raised.ok, blind.ok) == (False, False)
    assert raised.evidence == "one thing was seen; NOT: the trial ended with RuntimeError: the product is in pieces"
    assert blind.evidence == "NOT: nothing was observed"


def test_a_trial_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a product that deadlocks hangs whoever validates it."""
    import threading

    released = threading.Event()

    class Hanging(Control):
        id = "hanging"
        title = "A trial that waits"

        def observe(self, trial: Trial) -> Any:
            released.wait(60)
            yield Observation(True, "released")

    monkeypatch.setattr("compliance.control.TRIAL_LIMIT_S", 0.05)
    try:
        result = tried(Hanging(), {})
    finally:
        released.set()

    assert not result.ok
    assert "did not end within" in result.evidence


def test_an_unknown_control_is_a_usage_error() -> None:
    """When this fails, a typing mistake validates nothing and looks like success."""
    with pytest.raises(UsageError, match="there is no control fault-tolerence"):
        DefenseComplianceMonitor().validate_controls(["fault-tolerence"])


def test_comply_shows_the_controls_and_fails_where_they_are_required(
    pool_command: Callable[..., Any], tmp_path: Path
) -> None:
    """When this fails, the command line leaves the controls out, or a gate on them is always open."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("def f(n: int) -> int:\n    return n\n")
    done = pool_command("comply", tmp_path / "tree", "--cache", tmp_path / "cache", "--json", "--require-controls")
    told = json.loads(done.stdout)["controls"]

    assert {control["id"] for control in told} == IDS
    assert all(control["evidence"] for control in told)
    assert done.returncode == (0 if all(control["ok"] for control in told) else 1)
    both = pool_command("comply", tmp_path / "tree", "--no-controls", "--require-controls")
    assert both.returncode == 2
