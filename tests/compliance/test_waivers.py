"""Waivers: what two persons signed counts until its day, and nothing else does."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from compliance.access_policy import Policy
from compliance.compact_signatures import sign_compact
from compliance.errors import WaiverRefused
from compliance.formats import html, run_json, sarif, scan_json, tables
from compliance.score import score_of
from compliance.signing import SigningKey
from compliance.waived_runs import open_counts, with_waivers
from compliance.waivers import APPROVAL_TYPE, TERMS_TYPE, Terms, WaivedFinding, approve, sign_terms
from detectors.errors import UsageError
from detectors.findings import digest
from detectors.model import FunctionSpan, RunRecord
from tests.compliance.test_formats import SCHEMA

PEOPLE = {"alice": "developer", "bob": "approver", "carol": "developer", "dave": "approver", "eve": "viewer"}
RUN_DAY = datetime.date(2026, 1, 2)


class Desk:
    """A policy whose requesters are `PEOPLE`, their keys, and a folder of waivers."""

    def __init__(self, home: Path, rules: str | None = None, names: dict[str, str] | None = None) -> None:
        self.keys = {name: SigningKey.load_or_create(home / "keys" / name) for name in (*PEOPLE, "mallory")}
        self.folder = home / "waivers"
        self.folder.mkdir()
        self.file = home / "access.toml"
        self.write_policy({name: (names or {}).get(name, name) for name in PEOPLE}, rules)

    def write_policy(self, people: dict[str, str], rules: str | None = None) -> Policy:
        """Write who is believed: by key, under which name."""
        lines = ["format = 1", 'audience = "here"', f"rules = '''{rules}'''" if rules else ""]
        for key, name in people.items():
            pem = self.keys[key].public.pem().decode()
            lines += ["[[requesters]]", f'name = "{name}"', f'roles = ["{PEOPLE[key]}"]', f'public-key = """\n{pem}"""']
        self.file.write_text("\n".join(lines) + "\n")
        self.file.chmod(0o600)
        return self.policy

    @property
    def policy(self) -> Policy:
        """As it is read now."""
        return Policy.read(self.file)

    def draft(self, run: RunRecord, author: str = "alice", **changed: Any) -> bytes:
        """Return a waiver of the first finding, signed by its author."""
        return sign_terms(self.keys[author], self.policy, terms(run, **changed))

    def put(self, data: bytes, name: str = "one.json") -> None:
        """Lay a waiver into the folder."""
        (self.folder / name).write_bytes(data)

    def applied(self, run: RunRecord) -> RunRecord:
        """Return the run with the folder's waivers."""
        return with_waivers(run, self.folder, self.policy)


def terms(run: RunRecord, **changed: Any) -> Terms:
    item = run.findings[0]
    named = WaivedFinding(item.fingerprint, item.finding.rule, item.path)
    sound = Terms(1, "here", (named,), "bounded by the caller", "SI-10", "2026-01-01", "2026-06-30", "")
    return msgspec.structs.replace(sound, **changed)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Four people who may, and one who may not."""
    return Desk(tmp_path)


def test_a_waiver_of_two_persons_lets_its_finding_pass_and_drops_nothing(desk: Desk, run: RunRecord) -> None:
    """When this fails, a waived finding counts, vanishes, or changes the digest of what was found."""
    desk.put(approve(desk.keys["bob"], desk.policy, desk.draft(run), "one.json", RUN_DAY))
    found = desk.applied(run)
    (told,) = found.waivers

    assert (told.state, told.author, told.approver, told.control) == ("applied", "alice", "bob", "SI-10")
    assert [item.waiver for item in found.findings] == [told.id, "", ""]
    assert open_counts(found) == (2, 1)
    assert found.findings_digest == digest(found.findings) == run.findings_digest
    assert (found.problems, found.whole) == (run.problems, True)
    with pytest.raises(UsageError, match="already"):
        desk.applied(found)


def _self_approved(desk: Desk, run: RunRecord) -> bytes:
    """Sign both halves with one key."""
    draft = json.loads(desk.draft(run))
    return _with_approval(desk, draft["waiver"], "alice", draft["waiver"])


def _with_approval(desk: Desk, waiver: str, by: str, of: str, day: str = "2026-01-02") -> bytes:
    import hashlib

    approval = {"waiver": hashlib.sha256(of.encode()).hexdigest(), "approved": day}
    signed = sign_compact(desk.keys[by], APPROVAL_TYPE, json.dumps(approval).encode())
    return json.dumps({"waiver": waiver, "approval": signed}).encode()


def _approved(desk: Desk, run: RunRecord, by: str = "bob", **changed: Any) -> bytes:
    waiver = json.loads(desk.draft(run, **changed))["waiver"]
    return _with_approval(desk, waiver, by, waiver)


def _spliced(desk: Desk, run: RunRecord) -> bytes:
    """Put other terms under the author's own signature of before."""
    import base64

    held = json.loads(_approved(desk, run))
    head, body, signature = held["waiver"].split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    said["until"] = "2026-12-31"
    body = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    return json.dumps({**held, "waiver": f"{head}.{body}.{signature}"}).encode()


def _author_changed_it(desk: Desk, run: RunRecord) -> bytes:
    """Let the author sign other terms, and keep the approval of the first."""
    first = json.loads(desk.draft(run))["waiver"]
    second = json.loads(desk.draft(run, until="2026-12-31"))["waiver"]
    return _with_approval(desk, second, "bob", first)


def _by_mallory(desk: Desk, run: RunRecord) -> bytes:
    signed = sign_compact(desk.keys["mallory"], TERMS_TYPE, msgspec.json.encode(terms(run)))
    return _with_approval(desk, signed, "bob", signed)


def _by_eve(desk: Desk, run: RunRecord) -> bytes:
    signed = sign_compact(desk.keys["eve"], TERMS_TYPE, msgspec.json.encode(terms(run)))
    return _with_approval(desk, signed, "bob", signed)


def _lasting_for_ever(desk: Desk, run: RunRecord) -> bytes:
    signed = sign_compact(desk.keys["alice"], TERMS_TYPE, msgspec.json.encode(terms(run, until="2099-01-01")))
    return _with_approval(desk, signed, "bob", signed)


def _halves_swapped(desk: Desk, run: RunRecord) -> bytes:
    """Give an approval where terms are asked for."""
    held = json.loads(_approved(desk, run))
    return json.dumps({"waiver": held["approval"], "approval": held["waiver"]}).encode()


BROKEN: dict[str, tuple[Callable[[Desk, RunRecord], bytes], str]] = {
    "expired": (lambda desk, run: _approved(desk, run, until="2026-01-01"), "it has expired: it was good until 2026-01-01"),
    "of tomorrow": (lambda desk, run: _approved(desk, run, written="2026-02-01"), "yet to come"),
    "for ever": (_lasting_for_ever, "at most 366 days"),
    "forged": (_spliced, "the author's signature proves nothing: Signature verification failed"),
    "halves swapped": (_halves_swapped, "header is not that of detector-pool-waiver"),
    "unknown signer": (_by_mallory, "is not one that the policy names"),
    "unknown approver": (lambda desk, run: _approved(desk, run, by="mallory"), "the approver's signature proves nothing"),
    "one person twice": (_self_approved, "alice wrote and approved it; it takes two persons"),
    "changed content": (_author_changed_it, "bob approved another waiver than this one; its content was changed"),
    "approver not allowed": (lambda desk, run: _approved(desk, run, by="carol"), "carol may not approve"),
    "author not allowed": (_by_eve, "eve may not waive"),
    "not approved": (lambda desk, run: desk.draft(run), "nobody has approved it"),
    "no waiver": (lambda _desk, _run: b"[1]", "it is no waiver"),
    "a field more": (lambda desk, run: _approved(desk, run)[:-1] + b',"more":1}', "it is no waiver"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_believed_waives_nothing_and_says_why(desk: Desk, run: RunRecord, kind: str) -> None:
    """When this fails, a waiver that is expired, forged, or of one person hides a finding, or nobody learns why not."""
    make, message = BROKEN[kind]
    desk.put(make(desk, run))
    found = desk.applied(run)

    assert [one.state for one in found.waivers] == ["refused"]
    assert message in found.waivers[0].problem
    assert open_counts(found) == (2, 2)
    assert any("one.json is refused" in problem and message in problem for problem in found.problems)


def test_one_person_with_two_keys_is_one_person(tmp_path: Path, run: RunRecord) -> None:
    """When this fails, whoever gets a second key into the policy waives alone."""
    desk = Desk(tmp_path, names={"bob": "alice"})
    desk.put(_approved(desk, run))

    assert "alice wrote and approved it" in desk.applied(run).waivers[0].problem


def test_a_waiver_ends_with_the_leave_of_who_signed_it(desk: Desk, run: RunRecord) -> None:
    """When this fails, the consent of somebody who has left the policy goes on to count."""
    desk.put(_approved(desk, run))
    before = desk.applied(run).waivers[0].state
    desk.write_policy({"alice": "alice"})

    assert before == "applied"
    assert "the approver's signature proves nothing" in desk.applied(run).waivers[0].problem


def test_the_policy_can_keep_waivers_to_its_trees(tmp_path: Path, run: RunRecord) -> None:
    """When this fails, who may waive in one project waives in all."""
    rules = """
    @id("w") permit (principal in Role::"developer", action == Action::"waive", resource);
    @id("a") permit (principal in Role::"approver", action == Action::"approve", resource)
    when { context.tree like "/ours*" || context.tree == "" };
    @id("v") permit (principal in Role::"viewer", action == Action::"read", resource);
    """
    desk = Desk(tmp_path, rules)
    desk.put(_approved(desk, run))
    ours = msgspec.structs.replace(run, roots=(msgspec.structs.replace(run.roots[0], path="/ours"),))

    assert "bob may not approve on /src: no rule permits it" in desk.applied(run).waivers[0].problem
    assert desk.applied(ours).waivers[0].state == "applied"


def test_a_waiver_that_matches_nothing_is_told(desk: Desk, run: RunRecord) -> None:
    """When this fails, waivers of what was mended long ago lie about and wait for the next finding."""
    desk.put(_approved(desk, run, findings=(WaivedFinding("0" * 32),)))
    other_rule = (WaivedFinding(run.findings[0].fingerprint, "P10-R9-other", run.findings[0].path),)
    desk.put(_approved(desk, run, findings=other_rule), "two.json")
    found = desk.applied(run)

    assert [(one.file, one.state, one.matched) for one in found.waivers] == [
        ("one.json", "unused", 0), ("two.json", "unused", 0),
    ]  # fmt: skip
    assert open_counts(found) == (2, 2)
    assert "the waiver one.json matches nothing here; take it out" in found.problems


def test_links_and_copies_are_refused(desk: Desk, run: RunRecord, tmp_path: Path) -> None:
    """When this fails, a link leads to a file that nobody reviewed in the folder, or one waiver counts twice."""
    desk.put(_approved(desk, run))
    desk.put((desk.folder / "one.json").read_bytes(), "two.json")
    (desk.folder / "three.json").symlink_to(desk.folder / "one.json")
    os.mkfifo(desk.folder / "pipe.json")

    states = {one.file: one.state for one in desk.applied(run).waivers}
    assert states == {"one.json": "applied", "two.json": "refused", "three.json": "refused", "pipe.json": "refused"}


def test_a_run_with_waivers_needs_a_policy_and_a_folder(desk: Desk, run: RunRecord) -> None:
    """When this fails, waivers count although nobody says whose signatures do, or a mistyped folder waives nothing in silence."""
    with pytest.raises(UsageError, match="policy"):
        with_waivers(run, desk.folder, None)
    with pytest.raises(UsageError, match="no such folder"):
        with_waivers(run, desk.folder / "none", desk.policy)


def test_nobody_signs_what_would_not_be_believed(desk: Desk, run: RunRecord) -> None:
    """When this fails, people hand on waivers that the night's run refuses."""
    with pytest.raises(UsageError, match="reason"):
        desk.draft(run, reason=" ")
    with pytest.raises(UsageError, match="control"):
        desk.draft(run, control="")
    with pytest.raises(UsageError, match="2027-01-31"):
        desk.draft(run, until="June")
    with pytest.raises(UsageError, match="fingerprints"):
        desk.draft(run, findings=(WaivedFinding("short"),))
    with pytest.raises(WaiverRefused, match="eve may not waive"):
        desk.draft(run, author="eve")
    with pytest.raises(WaiverRefused, match="no requester's"):
        desk.draft(run, author="mallory")
    draft = desk.draft(run)
    with pytest.raises(WaiverRefused, match="two persons"):
        approve(desk.keys["alice"], desk.policy, draft, "one.json", RUN_DAY)
    with pytest.raises(WaiverRefused, match="carol may not approve"):
        approve(desk.keys["carol"], desk.policy, draft, "one.json", RUN_DAY)
    with pytest.raises(WaiverRefused, match="approved already"):
        approve(
            desk.keys["dave"], desk.policy, approve(desk.keys["bob"], desk.policy, draft, "x", RUN_DAY), "x", RUN_DAY
        )


def test_every_report_shows_the_run_with_and_without(desk: Desk, run: RunRecord, tmp_path: Path) -> None:
    """When this fails, a reader of one report does not see what another shows as waived."""
    import pyarrow.parquet as pq

    desk.put(_approved(desk, run))
    found = desk.applied(run)
    waiver = found.waivers[0]
    html.write(found, tmp_path / "report.html")
    tables.write(found, tmp_path / "findings.parquet")
    run_json.write(found, tmp_path / "run.json")
    page = (tmp_path / "report.html").read_text()
    shown = json.loads(scan_json.dumps(found))
    log = json.loads(sarif.dumps(found))
    jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(log)
    excuses = [one for part in log["runs"] for result in part["results"] for one in result.get("suppressions", ())]

    assert [entry.get("waived") for entry in shown["findings"]] == [waiver.id, None, None]
    assert (shown["summary"]["open_without_waivers"], shown["summary"]["open_with_waivers"]) == (2, 1)
    assert [(one["kind"], one.get("status"), one["justification"]) for one in excuses] == [
        ("external", "accepted", "bounded by the caller"), ("inSource", None, "# noqa"),
    ]  # fmt: skip
    assert "<strong>1</strong> with waivers, <strong>2</strong> without" in page
    assert f"(waived by <code>{waiver.id}</code>)" in page
    assert pq.read_table(tmp_path / "findings.parquet")["waived"].to_pylist() == [waiver.id, "", ""]
    assert waiver.digest in (tmp_path / "run.json").read_text()


def test_a_waiver_betters_the_score_and_not_the_strict_one(desk: Desk, run: RunRecord) -> None:
    """When this fails, paper makes code look as if it kept the rules."""
    desk.put(_approved(desk, run))
    found = desk.applied(run)
    spans = {file.path: (FunctionSpan("f", 1, 9),) for file in run.files}
    before, after = score_of(run, spans).rules["R1"], score_of(found, spans).rules["R1"]

    assert (before.violations, after.violations) == (2, 1)
    assert (before.strict_violations, after.strict_violations) == (2, 2)
