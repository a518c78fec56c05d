"""Who may do what: decisions, the policy file, whose word is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.access_policy import InstalledAccessPolicy, Policy
from compliance.access_rules import ACTIONS, STORES, Rules
from compliance.errors import IdentityUnproven, PolicyInvalid
from compliance.identity import AccessPlaces, Identity
from detectors.ports import installed_access_policy
from tests.compliance.access_fixtures import ME, ROLES, House, house

# By role: run, register, read, verify, administer, waive, approve.
STANDARD = {
    (): "-------",
    ("viewer",): "--+----",
    ("auditor",): "--++---",
    ("developer",): "+-++-+-",
    ("maintainer",): "++++-+-",
    ("approver",): "--++--+",
    ("administrator",): "+++++++",
    ("service",): "-------",
    ("viewer", "maintainer"): "++++-+-",
}


@pytest.fixture
def home(tmp_path: Path) -> House:
    """A state folder with a policy."""
    return house(tmp_path / "state")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> House:
    """One for many examples."""
    return house(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("roles", STANDARD, ids=lambda roles: "+".join(roles) or "none")
def test_each_role_may_what_the_standard_rules_say(home: House, roles: tuple[str, ...]) -> None:
    """When this fails, a role may more or less than the documentation says."""
    policy = home.acting(*roles)

    seen = "".join(
        "-" if policy.denial(action, "ruff" if action in {"run", "register"} else "ledger", frozenset()) else "+"
        for action in ACTIONS
    )

    assert seen == STANDARD[roles]


def test_the_service_role_counts_for_services_only(home: House) -> None:
    """When this fails, a person who is given the role by mistake can act as the night's worker."""
    assert home.acting("service", kind="service").denial("run", "ruff", frozenset()) is None
    for kind in ("user", "token", "request"):
        assert home.acting("service", kind=kind).denial("run", "ruff", frozenset()) is not None


def test_rules_may_ask_for_detector_and_tree(tmp_path: Path) -> None:
    """When this fails, somebody runs another detector, or on other sources, than he may."""
    rules = """
    @id("ours") permit (principal in Role::"developer", action == Action::"run", resource == Detector::"ruff")
    when { context.tree like "/srv/ours/*" };
    @id("not-the-keys") forbid (principal, action, resource) when { context.tree like "*/keys/*" };
    permit (principal in Role::"administrator", action, resource);
    permit (principal in Role::"auditor", action, resource);
    permit (principal in Role::"service", action, resource);
    """
    policy = house(tmp_path / "state", rules=rules).acting("developer")

    assert policy.denial("run", "ruff", frozenset(), "/srv/ours/a") is None
    for detector, tree in (
        ("mypy", "/srv/ours/a"),
        ("ruff", "/srv/theirs"),
        ("ruff", ""),
        ("ruff", "/srv/ours/keys/a"),
    ):
        assert policy.denial("run", detector, frozenset(), tree) is not None
    assert "not-the-keys" in str(policy.denial("run", "ruff", frozenset(), "/srv/ours/keys/a"))
    assert policy.decide("run", "ruff", tree="/srv/ours/a").rules == ("ours",)


def test_a_registration_that_names_roles_is_kept_whatever_the_rules_say(home: House) -> None:
    """When this fails, `roles=` of register_detector is decoration."""
    assert home.acting("administrator").denial("run", "secret", frozenset({"crypto"})) is not None
    assert home.acting("administrator", "crypto").denial("run", "secret", frozenset({"crypto", "x"})) is None
    assert home.acting("crypto").denial("run", "secret", frozenset({"crypto"})) is not None


NAMES = st.sampled_from((*ROLES, "crypto", "nobody-has-it", 'a"b\\'))
SCOPES = st.tuples(
    st.sampled_from(("viewer", "auditor", "crypto", "x")),
    st.sampled_from(ACTIONS),
    st.sampled_from(("", "a*", "*b")),
)
ASKED = st.tuples(
    st.sampled_from(ACTIONS),
    st.text(min_size=1, max_size=8),
    st.frozensets(NAMES, max_size=2),
    st.sampled_from(("", "ab", "ac", "b")),
)
COUNTED = settings(max_examples=60, deadline=None)


@given(asked=ASKED, roles=st.frozensets(NAMES, max_size=4))
@COUNTED
def test_without_a_rule_nothing_is_allowed(asked: tuple[object, ...], roles: frozenset[str]) -> None:
    """When this fails, an empty policy lets somebody in."""
    rules = Rules('permit (principal in Role::"someone-else", action, resource);')

    assert not rules.decide(Identity("n", "user", roles, ""), *asked).allowed  # type: ignore[arg-type]


@given(scopes=st.lists(SCOPES, max_size=4), asked=ASKED, roles=st.frozensets(NAMES, max_size=3), more=NAMES)
@COUNTED
def test_another_role_never_takes_leave_away(
    scopes: list[tuple[str, str, str]], asked: tuple[object, ...], roles: frozenset[str], more: str
) -> None:
    """When this fails, giving somebody a role locks him out, and rules that only permit are not what they seem."""
    text = "".join(
        f'permit (principal in Role::"{role}", action == Action::"{action}", resource)'
        + (f' when {{ context.tree like "{tree}" }};' if tree else ";")
        for role, action, tree in scopes
    )
    rules = Rules(text)
    few = rules.decide(Identity("n", "user", roles, ""), *asked).allowed  # type: ignore[arg-type]
    many = rules.decide(Identity("n", "user", roles | {more}, ""), *asked).allowed  # type: ignore[arg-type]

    assert many >= few


@given(asked=ASKED, roles=st.frozensets(NAMES, max_size=3))
@COUNTED
def test_what_is_remembered_is_what_is_decided(shared: House, asked: tuple[str, ...], roles: frozenset[str]) -> None:
    """When this fails, the second asking is answered otherwise than the first."""
    policy = shared.acting(*roles)
    first = policy.denial(*asked)  # type: ignore[arg-type]
    again = policy.denial(*asked)  # type: ignore[arg-type]

    assert first == again
    assert (first is None) == policy.decide(*asked).allowed  # type: ignore[arg-type]


def test_a_rule_that_cannot_be_evaluated_denies() -> None:
    """When this fails, a forbidding rule with a fault is skipped, and what it forbade is allowed."""
    rules = Rules(
        "permit (principal, action, resource); forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };"
    )

    found = rules.decide(Identity("n", "user", frozenset(), ""), "administer", "ledger")

    assert (found.allowed, "cannot be evaluated" in found.reason) == (False, True)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ('permit (principal, action == Action::"ruin", resource);', "ruin"),
        ('permit (principal, action == Action::"run", resource) when { context.tre like "x" };', "tre"),
        ("permit (principal, action, resource)", "parse error"),
        ("permit (principal == ?principal, action, resource);", "template"),
        ('@id("registered-roles") permit (principal, action, resource);', "one @id"),
        ('@id("a") permit (principal, action, resource); @id("a") permit (principal, action, resource);', "one @id"),
        ("// nobody speaks of the roles that users have", "no rule knows the role"),
    ],
)
def test_rules_that_make_no_sense_are_told(tmp_path: Path, rules: str, told: str) -> None:
    """When this fails, a typing error in a rule is found when somebody is let in, or locked out."""
    home = house(tmp_path / "state", rules=rules)

    with pytest.raises(PolicyInvalid, match=told):
        Policy.read(home.file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("format = 1", "format = 2"), "format 2"),
        (lambda text: text.replace("[users]", "[user]"), "user"),
        (lambda text: text.replace('["auditor"]', '["auditer"]'), "auditer"),
        (lambda text: text.replace("-----BEGIN", "----BEGIN", 1), "PEM"),
        (lambda text: text.replace('audience = "here"', 'audience = ""'), "audience"),
        (lambda text: text + '"', "Unterminated"),
        (lambda text: text[: text.index("[[services]]")] + 2 * text[text.index("[[requesters]]") :], "one key"),
        (lambda text: text.replace("[users]", '[users]\n"\\u001b" = []'), "printable"),
    ],
)
def test_a_policy_file_that_is_wrong_is_told(home: House, change, told: str) -> None:
    """When this fails, a damaged policy is half believed."""
    home.file.write_text(change(home.file.read_text()))

    with pytest.raises(PolicyInvalid, match=told):
        InstalledAccessPolicy(AccessPlaces(home.state, home.file))


def test_a_policy_that_others_can_write_is_none(home: House, tmp_path: Path) -> None:
    """When this fails, whoever shares a group with us makes himself administrator."""
    places = AccessPlaces(home.state, home.file)
    assert InstalledAccessPolicy(places).policy is not None
    for target, mode in ((home.file, 0o620), (home.state, 0o777)):
        before = target.stat().st_mode
        target.chmod(mode)
        with pytest.raises(PolicyInvalid, match="writable by nobody else"):
            InstalledAccessPolicy(places)
        target.chmod(before)
    link = home.state / "link.toml"
    link.symlink_to(home.file)
    for file in (link, home.state, home.state / "none"):
        with pytest.raises(PolicyInvalid):
            InstalledAccessPolicy(AccessPlaces(home.state, file))


def test_without_a_policy_the_owner_may_all_and_others_nothing(tmp_path: Path) -> None:
    """When this fails, a first scan needs set-up, or a stranger's state can be used by anybody."""
    mine = InstalledAccessPolicy(AccessPlaces(tmp_path, None))
    none_yet = InstalledAccessPolicy(AccessPlaces(tmp_path / "later", None))
    theirs = Path("/proc/1") if os.getuid() else _foreign(tmp_path)
    others = InstalledAccessPolicy(AccessPlaces(theirs, None))

    for action in ACTIONS:
        assert mine.denial(action, "ruff", frozenset({"any"})) is None
        assert none_yet.denial(action, "ruff", frozenset()) is None
        assert "belongs to" in str(others.denial(action, "ruff", frozenset()))


def _foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    return folder


def test_the_user_is_the_systems_and_not_what_the_environment_says(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, `LOGNAME=root` makes an administrator."""
    monkeypatch.setenv("LOGNAME", "bob")
    monkeypatch.setenv("USER", "bob")

    assert InstalledAccessPolicy(AccessPlaces(home.state, home.file)).identity == Identity(
        ME, "user", frozenset({"administrator"}), f"uid {os.getuid()}"
    )


def test_the_systems_policy_comes_first_and_a_named_one_must_be_there(home: House, tmp_path: Path) -> None:
    """When this fails, a variable leads around the machine's policy, or a typing error in it around every policy."""
    system = tmp_path / "system.toml"
    environment = {"DETECTOR_POOL_HOME": str(home.state.parent), "DETECTOR_POOL_ACCESS_POLICY": "/nowhere.toml"}

    named = AccessPlaces.read(environment, system)
    own = AccessPlaces.read({"DETECTOR_POOL_HOME": str(home.state.parent)}, system)
    none = AccessPlaces.read({"DETECTOR_POOL_HOME": str(tmp_path / "elsewhere")}, system)
    system.write_text("")
    first = AccessPlaces.read(environment, system)

    assert (str(named.policy), own.policy, none.policy, first.policy) == ("/nowhere.toml", home.file, None, system)
    with pytest.raises(PolicyInvalid, match="cannot be opened"):
        InstalledAccessPolicy(named)
    with pytest.raises(IdentityUnproven, match="acts as one"):
        AccessPlaces.read({"DETECTOR_POOL_TOKEN_FILE": "a", "DETECTOR_POOL_SERVICE_KEYS": "b"}, system)


def test_the_installed_policy_is_ours_and_says_who_it_takes_us_for() -> None:
    """When this fails, pools and commands ask nobody."""
    found = installed_access_policy()

    assert isinstance(found, InstalledAccessPolicy)
    assert (found.caller()["name"], found.caller()["policy"]) == (ME, None)


def test_stores_are_known_by_name() -> None:
    """When this fails, the documentation and the rules speak of other stores."""
    assert set(STORES) == {"evidence", "ledger", "policy", "certificates", "cluster", "waivers"}
