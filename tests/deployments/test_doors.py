"""Every role at every door: pool, command line, flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from compliance.access_policy import InstalledAccessPolicy
from compliance.access_rules import ACTIONS
from compliance.access_tokens import issue_token
from compliance.errors import IdentityUnproven
from compliance.identity import AccessPlaces, Identity
from compliance.run_requests import sign_request
from deployments.cli import app
from deployments.doors import DOORS, OPEN, commands, guarded
from detectors import EnterpriseDetectorPool
from detectors.access import caller, require
from detectors.errors import AccessDenied, DetectorPoolError
from tests.compliance.access_fixtures import House, house

# By role: run, register, read, verify, administer, waive, approve; written out, and not taken from the rules that it is held against.
MAY = {
    "nobody": "-------",
    "viewer": "--+----",
    "auditor": "--++---",
    "developer": "+-++-+-",
    "maintainer": "++++-+-",
    "approver": "--++--+",
    "administrator": "+++++++",
}
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "scan": ("{none}", "--detectors", "ruff", "--fail-on", "nonsense"),
    "run scan": ("{none}", "--detectors", "ruff", "--fail-on", "nonsense"),
    "comply": ("{none}",),
    "run comply": ("{none}", "--config", "{none}"),
    "benchmark": ("--sources", "{none}"),
    "run benchmark": ("--sources", "{none}"),
    "benchmark peers": ("--sources", "{none}"),
    "benchmark growth": ("--sources", "{none}"),
    "benchmark soak": ("--minutes", "0"),
    "validate": ("--part", "nonsense"),
    "history runs": ("{none}",),
    "history trend": ("{none}",),
    "history findings": ("{none}",),
    "run audit": ("--evidence", "{none}", "--checkpoint", "{none}"),
    "audit init": ("--ledger", "{none}-new"),
    "evidence verify": ("{none}",),
    "evidence reperform": ("{none}", "--sources", "{none}", "--seed", "s", "--sample", "1", "--output", "{none}-new"),
    "evidence carry": ("{none}", "{none}", "--output", "{none}-new"),
    "access token": ("alice", "--role", "auditor", "--output", "{none}/token", "--keys", "{none}"),
    "access review": ("{none}",),
    "cluster join": ("tls://127.0.0.1:1",),
    "detectors qualify": ("ruff", "--sources", "{none}", "--output", "{none}.jsonl"),
    "detectors agreement": ("{none}",),
    "waiver create": (
        *("--fingerprint", "x", "--reason", "r", "--control", "AC-5", "--until", "2027-01-31"),
        *("--keys", "{none}", "--output", "{none}.json"),
    ),
    "waiver approve": ("{none}", "--keys", "{none}"),
    "waiver list": ("{none}",),
    "services init": ("--folder", "{none}-services", "--certs", "{none}", "--host", "nobody"),
}
PASSPHRASE_FREE = {"DETECTOR_POOL_PASSPHRASE": "secret"}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], House]:
    """Make the user of this process somebody with one role (`nobody`: none), in a home of its own."""

    def made(role: str) -> House:
        roles = () if role == "nobody" else (role,)
        return house(Path(os.environ["DETECTOR_POOL_HOME"]) / "state", roles)

    return made


def test_every_command_has_a_door() -> None:
    """When this fails, somebody added a command and nobody said who may use it; until then it asks for administration."""
    names = {name for name, _ in commands(get_command(app))}

    assert names - set(DOORS) - OPEN == set()
    assert (set(DOORS) | OPEN) - names == set()


@pytest.mark.parametrize("role", MAY)
def test_every_command_lets_in_who_may_and_nobody_else(
    home: Callable[[str], House], role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, a command does something for a role that may not, or refuses one that may."""
    home(role)
    seen: dict[str, str] = {}
    for name, door in DOORS.items():
        words = ARGUMENTS.get(name, ("--ledger", "{none}") if name.startswith("audit") else ())
        if name.startswith("certs"):
            words = ("--folder", "{none}/certs")
        for variable, value in PASSPHRASE_FREE.items():
            monkeypatch.setenv(variable, value)
        arguments = [*name.split(), *(word.format(none=tmp_path / "none") for word in words)]
        try:
            guarded(app)(args=arguments, standalone_mode=False)
        except AccessDenied as problem:
            seen[name] = "-" if problem.action == door.action else f"asked to {problem.action}"
        except DetectorPoolError:
            seen[name] = "+"  # it went past the door, and found nothing to work on
        else:
            seen[name] = "+"

    assert seen == {name: MAY[role][ACTIONS.index(door.action)] for name, door in DOORS.items()}


@pytest.mark.parametrize("role", MAY)
def test_a_pool_lets_in_who_may_and_nobody_else(home: Callable[[str], House], role: str) -> None:
    """When this fails, the pool of a library's user asks nobody."""
    home("administrator")
    run, register = MAY[role][:2]
    with EnterpriseDetectorPool() as pool:
        pool.register_detector("length", len)
        found = pool.execute_detector("length", "abc")
        assert found.value == 3
    home(role)
    with EnterpriseDetectorPool() as pool:
        if register == "+":
            pool.register_detector("length", len)
        else:
            with pytest.raises(AccessDenied, match="'length'"):
                pool.register_detector("length", len)
    with EnterpriseDetectorPool(access_policy=_Registers()) as pool:
        pool.register_detector("length", len)
        found = pool.execute_detector("length", "abc")

    assert found.ok == (run == "+")
    assert found.ok or isinstance(found.error, AccessDenied)


class _Registers:
    """The installed policy, but for registering, which all may: so that running is asked for alone."""

    def __init__(self) -> None:
        self._policy = InstalledAccessPolicy()

    def denial(self, action: str, target: str, roles: frozenset[str], tree: str = "") -> str | None:
        """Ask the installed one, but for registering."""
        return None if action == "register" else self._policy.denial(action, target, roles, tree)  # type: ignore[arg-type]


def _flow(paths: list[str], detectors: list[str] | None = None, request: str | None = None) -> None:
    """Stand for a flow's signature."""


@pytest.mark.parametrize("role", MAY)
def test_a_flow_lets_in_who_may_and_nobody_else(home: Callable[[str], House], role: str, tmp_path: Path) -> None:
    """When this fails, a flow run that no command began is open to all."""
    from flows.admission import admit_run

    home(role)
    given = {"paths": [str(tmp_path)], "detectors": ["ruff"], "request": None}
    if MAY[role][0] == "+":
        admit_run(_flow, given)
    else:
        with pytest.raises(AccessDenied, match="'ruff'"):
            admit_run(_flow, given)


def test_a_run_of_a_deployment_by_hand_needs_a_signature(home: Callable[[str], House], tmp_path: Path) -> None:
    """When this fails, whoever reaches Prefect's server runs what the worker's service may, with parameters of his own."""
    from flows.admission import admit

    place = home("administrator")
    parameters, defaults = {"paths": ["src"], "detectors": None}, {"paths": None, "detectors": None}
    text = sign_request(place.requester, place.policy, "scan/nightly", {"paths": ["src"]})

    with pytest.raises(AccessDenied, match="signs"):
        admit(parameters, defaults, None, "scan/nightly", False)
    with pytest.raises(IdentityUnproven, match="other parameters"):
        admit({**parameters, "paths": ["/"]}, defaults, text, "scan/nightly", False)
    asked = admit(parameters, defaults, text, "scan/nightly", False)
    scheduled = admit(parameters, defaults, None, "scan/nightly", True)
    with pytest.raises(IdentityUnproven, match="used before"):
        admit(parameters, defaults, text, "scan/nightly", False)

    assert isinstance(asked, InstalledAccessPolicy)
    assert (asked.identity.name, asked.identity.kind) == ("the requester", "request")
    assert isinstance(scheduled, InstalledAccessPolicy)
    assert scheduled.identity.kind == "user"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Install an audit sink that keeps events in a list, which is returned."""
    (tmp_path / "kept_events.py").write_text(
        textwrap.dedent(
            """
            EVENTS = []

            class Sink:
                def __init__(self):
                    self.open = []

                def record(self, event):
                    self.open.append(event)

                def close(self):
                    EVENTS.extend(self.open)
            """
        )
    )
    installed = tmp_path / "kept_events-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: kept-events\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[detector_pool.audit]\nsink = kept_events\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kept_events", raising=False)
    import kept_events

    return kept_events.EVENTS  # type: ignore[no-any-return]


def test_a_denial_is_recorded_at_every_door(
    home: Callable[[str], House], recorded: list[Mapping[str, Any]], tmp_path: Path
) -> None:
    """When this fails, somebody tries doors and the ledger does not know."""
    from flows.admission import admit_run

    home("viewer")
    with pytest.raises(AccessDenied):
        guarded(app)(args=["scan", str(tmp_path), "--detectors", "ruff"], standalone_mode=False)
    with pytest.raises(AccessDenied):
        guarded(app)(args=["audit", "verify", "--ledger", str(tmp_path)], standalone_mode=False)
    with EnterpriseDetectorPool() as pool, pytest.raises(AccessDenied):
        pool.register_detector("length", len)
    with pytest.raises(AccessDenied):
        admit_run(_flow, {"paths": [str(tmp_path)], "detectors": ["ruff"], "request": None})

    who = caller()
    found = [(e["event"], e["door"], e["action"], e.get("detector") or e.get("store"), e["tree"]) for e in recorded]
    assert found == [
        ("access-denied", "command", "run", "ruff", str(tmp_path)),
        ("access-denied", "command", "verify", "ledger", str(tmp_path)),
        ("access-denied", "pool", "register", "length", ""),
        ("access-denied", "flow", "run", "ruff", str(tmp_path)),
    ]
    assert [event["who"] for event in recorded] == [who] * 4
    assert (who["roles"], str(who["policy"])[:7]) == (["viewer"], "sha256:")


def test_a_denial_that_cannot_be_recorded_stays_one(tmp_path: Path) -> None:
    """When this fails, filling the disk of the ledger opens the doors."""

    class Full:
        def record(self, event: Mapping[str, Any]) -> None:
            raise DetectorPoolError("disk full")

    from detectors.access import denied

    policy = InstalledAccessPolicy(AccessPlaces(Path("/"), None), Identity("x", "user", frozenset(), ""))
    place = house(tmp_path / "state").acting()
    denial = denied(place, "run", "ruff", door="pool", sink=Full())

    assert denial is not None
    assert "disk full" in denial.__notes__[0]
    assert policy.identity.name == "x"


def test_a_link_leads_around_no_rule(home: Callable[[str], House], tmp_path: Path) -> None:
    """When this fails, a link in an allowed folder opens the sources that it points to."""
    rules = """
    permit (principal in Role::"administrator", action, resource) when { context.tree like "*/ours*" };
    permit (principal in Role::"auditor", action, resource); permit (principal in Role::"developer", action, resource);
    permit (principal in Role::"service", action, resource);
    """
    house(Path(os.environ["DETECTOR_POOL_HOME"]) / "state", rules=rules)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")

    with pytest.raises(AccessDenied):
        require("verify", "evidence", door="command", folder=tmp_path / "ours")
    (tmp_path / "ours").unlink()
    (tmp_path / "ours").mkdir()
    require("verify", "evidence", door="command", folder=tmp_path / "ours")


def test_the_command_line_ends_with_six_and_says_why(home: Callable[[str], House], tmp_path: Path) -> None:
    """When this fails, a script cannot tell a refusal from a fault; also for one who comes with a token."""
    place = home("administrator")
    file = tmp_path / "token"
    file.write_text(issue_token(place.issuer, place.policy, "alice", frozenset({"auditor"}), 600))
    file.chmod(0o600)

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deployments.cli", *words]
        return subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=False)

    refused = run("scan", str(tmp_path), "--detectors", "ruff", "--json", DETECTOR_POOL_TOKEN_FILE=str(file))
    allowed = run("access", "check", "--action", "verify", "--target", "ledger", DETECTOR_POOL_TOKEN_FILE=str(file))
    file.write_text("nonsense")
    unproven = run("scan", str(tmp_path), "--detectors", "ruff", DETECTOR_POOL_TOKEN_FILE=str(file))

    assert (refused.returncode, json.loads(refused.stdout)["exit_code"]) == (6, 6)
    assert "you may not run 'ruff': no rule permits it (token alice, roles auditor)" in refused.stderr
    assert (allowed.returncode, "token alice (auditor)" in allowed.stdout) == (0, True)
    assert (unproven.returncode, "proves nothing" in unproven.stderr, "nonsense" in unproven.stderr) == (6, True, False)
