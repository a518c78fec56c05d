"""`detector-pool waiver` and `scan --waivers`, as people use them."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from compliance.evidence import verify
from compliance.ledger_export import export
from compliance.signing import SigningKey
from deployments.cli import app
from deployments.settings import Settings
from detectors.errors import DetectorPoolError, UsageError
from tests.compliance.access_fixtures import ME

UNTIL = (datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)).isoformat()


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Keys of alice (developer) and bob (approver), whom the policy names; this user administers."""
    state = Path(os.environ["DETECTOR_POOL_HOME"]) / "state"
    state.mkdir(parents=True, mode=0o700)
    lines = ["format = 1", "[users]", f'{json.dumps(ME)} = ["administrator"]']
    for name, role in (("alice", "developer"), ("bob", "approver")):
        pem = SigningKey.load_or_create(tmp_path / name).public.pem().decode()
        lines += ["[[requesters]]", f'name = "{name}"', f'roles = ["{role}"]', f'public-key = """\n{pem}"""']
    file = state / "access.toml"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return tmp_path


def _run(capfdbinary: pytest.CaptureFixture[bytes], *words: str | Path) -> tuple[int, Any]:
    code = get_command(app)(args=[*map(str, words), "--json"], standalone_mode=False)
    return int(code or 0), json.loads(capfdbinary.readouterr().out)


def test_two_persons_let_a_finding_pass(people: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, the way from a finding to an approved waiver and a run that heeds it is broken."""
    tree, folder = people / "tree", people / "waivers"
    tree.mkdir()
    folder.mkdir()
    (tree / "a.c").write_text("int f(int n)\n{\n    if (n) goto out;\n    n++;\nout:\n    return n;\n}\n")
    scan = ("scan", tree, "--detectors", "power-of-ten-c", "--fail-on", "note")
    _, shown = _run(capfdbinary, *scan)
    (people / "scan.json").write_text(json.dumps(shown))
    prints = [word for one in shown["findings"] for word in ("--fingerprint", one["fingerprint"])]
    create = (
        *("waiver", "create", *prints, "--reason", "generated", "--control", "SI-10", "--until", UNTIL),
        *("--keys", people / "alice", "--findings", people / "scan.json", "--output", folder / "a.json"),
    )  # fmt: skip

    _, made = _run(capfdbinary, *create)
    draft_code, drafted = _run(capfdbinary, *scan, "--waivers", folder)
    with pytest.raises(DetectorPoolError, match="two persons"):
        _run(capfdbinary, "waiver", "approve", folder / "a.json", "--keys", people / "alice")
    _, approved = _run(capfdbinary, "waiver", "approve", folder / "a.json", "--keys", people / "bob")
    listed_code, listed = _run(capfdbinary, "waiver", "list", folder)
    code, waived = _run(capfdbinary, *scan, "--waivers", folder, "--evidence", people / "evidence")

    assert {one["rule"] for one in made["findings"]} == {one["rule"] for one in shown["findings"]}
    assert (draft_code, "nobody has approved it" in drafted["summary"]["problems"][0]) == (1, True)
    assert (listed_code, listed["waivers"][0]["state"], listed["waivers"][0]["approver"]) == (0, "valid", "bob")
    assert code == 0
    assert {one["waived"] for one in waived["findings"]} == {approved["waiver"]}
    assert (waived["summary"]["open_without_waivers"], waived["summary"]["open_with_waivers"]) == (len(prints) // 2, 0)
    assert approved["digest"] in (people / "evidence" / "run.json").read_text()
    assert verify(people / "evidence").ok
    with pytest.raises(UsageError, match="exists"):
        _run(capfdbinary, *create)


def test_signatures_and_approvals_are_in_the_ledger(people: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """When this fails, a waiver can be made and used without a trace."""
    create = (
        "--reason",
        "r",
        "--control",
        "AC-5",
        "--until",
        UNTIL,
        "--keys",
        people / "alice",
        "--output",
        people / "w.json",
    )
    _, made = _run(capfdbinary, "waiver", "create", "--fingerprint", "0" * 32, *create)
    _, approved = _run(capfdbinary, "waiver", "approve", people / "w.json", "--keys", people / "bob")
    settings = Settings.read()
    ledger = settings.pool_ledger
    passphrase = (settings.keys_of(ledger) / "passphrase").read_bytes().strip()
    lines: list[bytes] = []
    _ = export(ledger, passphrase, lines.append)
    events = [json.loads(line)["event"] for chunk in lines for line in chunk.splitlines()]

    assert [(one["event"], one["waiver"], one["signed_by"], one["who"]["name"]) for one in events] == [
        ("waiver.created", made["waiver"], "alice", ME), ("waiver.approved", approved["waiver"], "bob", ME),
    ]  # fmt: skip
