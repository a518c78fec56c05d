"""Tokens, service keys and signed requests: what proves somebody, and every way in which it does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compliance.access_policy import InstalledAccessPolicy
from compliance.access_tokens import issue_token
from compliance.errors import IdentityUnproven
from compliance.identity import AccessPlaces
from compliance.run_requests import admitted, sign_request
from compliance.signing import SigningKey
from detectors.errors import UsageError
from tests.compliance.access_fixtures import House, house

TYPE = "detector-pool-access+jwt"
DEPLOYMENT = "scan/nightly"
DEFAULTS = {"paths": None, "workers": None, "ignore": True}


@pytest.fixture
def home(tmp_path: Path) -> House:
    """A state folder with a policy."""
    return house(tmp_path / "state")


def _bytes(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _forged(key: SigningKey, claims: dict[str, Any], **header: Any) -> str:
    """Make a token by hand, as an attacker would, with any header and claims, signed with Ed25519."""
    head = {"alg": "EdDSA", "typ": TYPE, "kid": key.public.id, **header}
    text = ".".join(_bytes(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{_bytes(key.sign(text.encode()))}"


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"aud": "here", "sub": "alice", "roles": ["auditor"], "iat": now, "nbf": now, "exp": now + 600, "jti": "1"}
    return {name: value for name, value in {**given, **changes}.items() if value is not None}


def _acting(home: House, token: str) -> InstalledAccessPolicy:
    file = home.state / "token"
    file.write_text(token)
    file.chmod(0o600)
    return InstalledAccessPolicy(AccessPlaces(home.state, home.file, token=file))


def test_a_token_says_who_and_which_roles(home: House) -> None:
    """When this fails, nobody gets in."""
    acting = _acting(home, issue_token(home.issuer, home.policy, "alice", frozenset({"auditor"}), 600) + "\n")

    assert (acting.identity.name, acting.identity.kind, acting.identity.roles) == ("alice", "token", {"auditor"})
    assert acting.denial("verify", "ledger", frozenset()) is None
    assert acting.denial("administer", "ledger", frozenset()) is not None
    assert _acting(home, _forged(home.issuer, _claims())).identity.name == "alice"


def test_a_token_ends_also_while_a_pool_runs(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a decision that is remembered outlives the proof that it was made for."""
    acting = _acting(home, _forged(home.issuer, _claims()))
    assert acting.denial("verify", "ledger", frozenset()) is None
    assert acting.identity.expires is not None
    monkeypatch.setattr(time, "time", lambda: acting.identity.expires)

    assert "expired" in str(acting.denial("verify", "ledger", frozenset()))


NOW = int(time.time())
HOUR = 3600


@pytest.mark.parametrize(
    ("claims", "header", "told"),
    [
        ({"exp": NOW - 5, "iat": NOW - HOUR, "nbf": NOW - HOUR}, {}, "expired"),
        ({"nbf": NOW + HOUR, "exp": NOW + 2 * HOUR}, {}, "not yet valid"),
        ({"iat": NOW + HOUR, "exp": NOW + 2 * HOUR}, {}, "not yet valid"),
        ({"exp": NOW + 48 * HOUR}, {}, "longer than"),
        ({"aud": "there"}, {}, "[Aa]udience"),
        ({"aud": ["here", "there"]}, {}, "[Aa]udience|claim format"),
        ({"roles": ["administrator"]}, {}, "cannot give"),
        ({"roles": ["auditor", "service"]}, {}, "cannot give"),
        ({"roles": "auditor"}, {}, "array"),
        ({"sub": ""}, {}, "names nobody"),
        ({"sub": "a\x1b[31m"}, {}, "names nobody"),
        ({"sub": 7}, {}, "[Ss]ubject|str"),
        ({"admin": True}, {}, "unknown field"),
        *(({name: None}, {}, name) for name in ("aud", "exp", "iat", "jti", "nbf", "roles", "sub")),
        ({}, {"alg": "none"}, "header"),
        ({}, {"alg": "HS256"}, "header"),
        ({}, {"alg": "Ed448"}, "header"),
        ({}, {"typ": "JWT"}, "header"),
        ({}, {"typ": "detector-pool-run-request+jws"}, "header"),
        ({}, {"kid": 7}, "header|[Kk]ey ID"),
        ({}, {"kid": "../../etc/passwd"}, "no issuer"),
        ({}, {"jwk": {"kty": "OKP"}}, "header"),
        ({}, {"crit": ["exp"]}, "header|crit"),
    ],
)
def test_a_token_that_is_wrong_proves_nothing(
    home: House, claims: dict[str, Any], header: dict[str, Any], told: str
) -> None:
    """When this fails, one of the known ways around a JWT works."""
    with pytest.raises(IdentityUnproven, match=told):
        _acting(home, _forged(home.issuer, _claims(**claims), **header))


def test_a_token_under_another_key_or_algorithm_proves_nothing(home: House) -> None:
    """When this fails, anybody signs tokens: with his own key, with none, or with our public key as a password."""
    public = home.issuer.public
    head = {"alg": "HS256", "typ": TYPE, "kid": public.id}
    none = {"alg": "none", "typ": TYPE, "kid": public.id}
    texts = [".".join(_bytes(json.dumps(part).encode()) for part in (h, _claims())) for h in (head, none)]
    confused = [
        f"{texts[0]}.{_bytes(hmac.new(secret, texts[0].encode(), hashlib.sha256).digest())}"
        for secret in (public.pem(), public.raw, public.id.encode())
    ]
    with pytest.raises(IdentityUnproven, match="no issuer"):
        _acting(home, _forged(home.stranger, _claims()))
    for key in (home.service, home.requester):
        with pytest.raises(IdentityUnproven, match="no issuer"):
            _acting(home, _forged(key, _claims()))
    with pytest.raises(IdentityUnproven, match="Signature"):
        _acting(home, _forged(home.stranger, _claims(), kid=public.id))
    for token in (*confused, f"{texts[1]}.", texts[1]):
        with pytest.raises(IdentityUnproven):
            _acting(home, token)


def test_every_changed_character_of_a_token_is_noticed(home: House) -> None:
    """When this fails, a token can be edited."""
    token = issue_token(home.issuer, home.policy, "alice", frozenset({"auditor"}), 600)
    good = _acting(home, token).identity
    seen = 0
    for place in range(0, len(token), 5):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        try:
            identity = _acting(home, changed).identity
        except IdentityUnproven:
            seen += 1
        else:
            # The last character of base64 may hold bits that stand for nothing; then it is the same token.
            assert identity == good
            assert place == len(token) - 1
    assert seen >= len(token) // 5


def test_a_token_file_is_private(home: House) -> None:
    """When this fails, whoever can read or replace a file is somebody else."""
    acting = _acting(home, issue_token(home.issuer, home.policy, "alice", frozenset({"auditor"}), 600))
    file = acting.places.token
    assert file is not None
    link = home.state / "link"
    link.symlink_to(file)
    for place in (link, home.state, home.state / "none"):
        with pytest.raises(IdentityUnproven):
            InstalledAccessPolicy(AccessPlaces(home.state, home.file, token=place))
    file.chmod(0o640)
    with pytest.raises(IdentityUnproven, match="0600") as problem:
        InstalledAccessPolicy(AccessPlaces(home.state, home.file, token=file))
    assert file.read_text() not in str(problem.value)
    file.chmod(0o600)
    for data in (b"", b"x" * 20_000, b"\xff", b"a.b.c", b"." * 100):
        file.write_bytes(data)
        with pytest.raises(IdentityUnproven):
            InstalledAccessPolicy(AccessPlaces(home.state, home.file, token=file))
    with pytest.raises(IdentityUnproven, match="no policy file"):
        InstalledAccessPolicy(AccessPlaces(home.state, None, token=file))


@pytest.mark.parametrize(
    ("subject", "roles", "lifetime_s"),
    [
        ("", {"auditor"}, 600),
        ("a", set(), 600),
        ("a", {"administrator"}, 600),
        ("a", {"auditor"}, 0),
        ("a", {"auditor"}, 10**6),
    ],
)
def test_no_token_is_signed_that_would_not_be_believed(
    home: House, subject: str, roles: set[str], lifetime_s: int
) -> None:
    """When this fails, an operator learns of a bad token from whoever cannot use it."""
    with pytest.raises(UsageError):
        issue_token(home.issuer, home.policy, subject, frozenset(roles), lifetime_s)
    with pytest.raises(UsageError, match="no issuer"):
        issue_token(home.stranger, home.policy, "a", frozenset({"auditor"}), 600)


def test_a_service_is_who_holds_its_key(home: House) -> None:
    """When this fails, the worker of the night is not the service, or any key makes one."""
    acting = InstalledAccessPolicy(AccessPlaces(home.state, home.file, service_keys=home.state / "service"))

    assert (acting.identity.name, acting.identity.kind) == ("the service", "service")
    assert acting.denial("run", "ruff", frozenset()) is None
    for name in ("issuer", "requester", "stranger", "none"):
        with pytest.raises(IdentityUnproven):
            InstalledAccessPolicy(AccessPlaces(home.state, home.file, service_keys=home.state / name))
    with pytest.raises(IdentityUnproven, match="no policy file"):
        InstalledAccessPolicy(AccessPlaces(home.state, None, service_keys=home.state / "service"))


def _admitted(home: House, text: str, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "deployment": DEPLOYMENT, "parameters": {"paths": ["src"], "workers": None, "ignore": True},
        "defaults": DEFAULTS, "used": home.state / "used",
    }  # fmt: skip
    return admitted(text, home.policy, **{**given, **changes})


def test_a_request_lets_one_run_begin_once(home: House) -> None:
    """When this fails, whoever sees a request in Prefect's UI can run it again."""
    text = sign_request(home.requester, home.policy, DEPLOYMENT, {"paths": ["src"]})
    who = _admitted(home, text)

    assert (who.name, who.kind, who.roles) == ("the requester", "request", {"developer"})
    with pytest.raises(IdentityUnproven, match="used before"):
        _admitted(home, text)


def test_of_many_who_replay_at_once_one_gets_in(home: House) -> None:
    """When this fails, a request is good for as many runs as begin in the same moment."""
    text = sign_request(home.requester, home.policy, DEPLOYMENT, {"paths": ["src"]})

    def outcome(_: int) -> bool:
        try:
            return bool(_admitted(home, text))
        except IdentityUnproven:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(outcome, range(32))) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"deployment": "scan/weekly"}, "asks for scan/nightly"),
        ({"parameters": {"paths": ["/etc"], "workers": None, "ignore": True}}, "other parameters.*paths"),
        ({"parameters": {"paths": ["src"], "workers": 9, "ignore": True}}, "other parameters.*workers"),
        ({"parameters": {"workers": None, "ignore": True}}, "other parameters.*paths"),
        ({"parameters": {"paths": ["src"], "workers": None, "ignore": True, "keys": "/x"}}, "other parameters.*keys"),
    ],
)
def test_a_request_is_bound_to_its_run(home: House, changes: dict[str, Any], told: str) -> None:
    """When this fails, one who may read our request runs something else with it."""
    text = sign_request(home.requester, home.policy, DEPLOYMENT, {"paths": ["src"]})

    with pytest.raises(IdentityUnproven, match=told):
        _admitted(home, text, **changes)
    assert _admitted(home, text)


def test_requests_of_others_or_of_another_time_are_refused(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, a token or a stranger's signature passes for a request, or an old one is taken."""
    with pytest.raises(UsageError, match="no requester"):
        sign_request(home.issuer, home.policy, DEPLOYMENT, {})
    for deployment, lifetime_s in (("nightly", 600), ("a/b/c", 600), (DEPLOYMENT, 0), (DEPLOYMENT, 10**6)):
        with pytest.raises(UsageError):
            sign_request(home.requester, home.policy, deployment, {}, lifetime_s)
    token = issue_token(home.issuer, home.policy, "alice", frozenset({"auditor"}), 600)
    text = sign_request(home.requester, home.policy, DEPLOYMENT, {"paths": ["src"]})
    head, payload, _ = text.split(".")
    other = f"{head}.{payload}"
    for bad in (token, f"{other}.{_bytes(home.stranger.sign(other.encode()))}", other, ""):
        with pytest.raises(IdentityUnproven):
            _admitted(home, bad)
    now = time.time()
    for moment, told in ((now + 700, "expired"), (now - HOUR, "ahead")):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        with pytest.raises(IdentityUnproven, match=told):
            _admitted(home, text)
