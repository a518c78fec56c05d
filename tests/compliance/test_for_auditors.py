"""docs/for-auditors.md: each of its commands, run as it stands, by somebody who has what the page says that he brings."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from compliance import verify_alone
from compliance.evidence import collect
from compliance.ledger_format import read_genesis
from compliance.ledger_verify import last_chain
from compliance.run_trail import RunTrail, recorded_scan
from compliance.signing import SigningKey
from detectors.scan import ScanOptions
from tests.compliance.pages import DOCS, Run, commands_of, runner
from tests.compliance.test_run_trail import PASSPHRASE, place_of

PAGE = (DOCS / "for-auditors.md").read_text()
DIGEST, VERIFY, LEDGER, CHECKPOINT, CANARIES, REPERFORM, STATEMENT, CARRY = commands_of(PAGE)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader has before him: evidence of two releases, the sources, a ledger, and what he brought."""
    home = tmp_path_factory.mktemp("audit")
    room = home / "room"
    (room / "tree").mkdir(parents=True)
    (room / "tree" / "a.c").write_text("int f(int n)\n{\n    if (n) goto out;\n    n++;\nout:\n    return n;\n}\n")
    (room / "tree" / "b.py").write_text("def f(n):\n    return eval(n)\n")
    (room / "tree-b").mkdir()
    shutil.copytree(room / "tree", room / "tree-b" / "tree")
    (room / "tree-b" / "tree" / "b.py").write_text("def f(n):\n    return n\n")
    place, key = place_of(home), SigningKey.load_or_create(home / "keys")
    for tree, folder in ((room / "tree", "evidence"), (room / "tree-b" / "tree", "evidence-of-b")):
        trail = RunTrail(place)
        names = ("lizard", "power-of-ten-c", "power-of-ten-python")
        options = ScanOptions((tree,), names, cluster="inline", canaries=True)
        recorded_scan(options, trail, lambda run, trail=trail, to=room / folder: collect(run, to, key, trail))
        if folder == "evidence":
            (room / "kept-checkpoint").write_bytes(last_chain(read_genesis(str(place.folder))).head)
    shutil.copytree(place.folder, room / "ledger")
    (room / "auditors-copy.pem").write_bytes(key.public.pem())
    (room / "verify.py").write_bytes(Path(verify_alone.__file__).read_bytes())
    (room / "passphrase").write_bytes(PASSPHRASE)
    shutil.copy(DOCS / "verifier.sha256", room)
    return room


@pytest.fixture
def room(laid_out: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(laid_out, tmp_path / "room")
    return tmp_path / "room"


@pytest.fixture
def run(room: Path, tmp_path: Path) -> Run:
    """Run a command of the page in the auditor's own home."""
    home = tmp_path / "home"
    return runner(room, {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DETECTOR_POOL_HOME": str(home), "HOME": str(home),
        "COVERAGE_PROCESS_START": os.environ.get("COVERAGE_PROCESS_START", ""),
    })  # fmt: skip


def test_the_page_leads_an_auditor_from_the_folder_to_his_own_statement(run: Run, room: Path, tmp_path: Path) -> None:
    """Every command in its order; when this fails, somebody who trusts the page is led astray."""
    told = {}
    for name, command in (
        ("digest", DIGEST), ("verify", VERIFY), ("ledger", LEDGER), ("checkpoint", CHECKPOINT),
        ("canaries", CANARIES), ("again", REPERFORM),
    ):  # fmt: skip
        done = run(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        told[name] = done.stdout
    shutil.copy(tmp_path / "home" / "state" / "keys" / "public-key.pem", room / "my-key.pem")
    for name, command in (("statement", STATEMENT), ("carry", CARRY)):
        done = run(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        told[name] = done.stdout

    assert told["digest"] == "verify.py: OK\n"
    assert told["verify"].endswith("evidence verified: signed by the key that you gave\n")
    trust = re.findall(r"`(evidence verified: [^`]*checkpoint that you gave)`", PAGE.replace("\n", " "))
    assert told["ledger"].endswith(f"{trust[0]}\n")
    assert (room / "next-checkpoint").read_text().startswith("detector-pool/ledger/")
    assert re.findall(r"`(canaries: [^`]*)`", PAGE)[0] in told["canaries"]
    assert "4 of 4 units run again on the same sources; 4 gave the same bytes" in told["again"]
    assert '"seed": "a line of today"' in told["statement"]
    assert "anew b.py by power-of-ten-python: the file changed" in told["carry"]


@pytest.mark.parametrize(
    ("command", "spoil", "code"),
    [
        (DIGEST, "echo '# more' >> verify.py", 1),
        (VERIFY, "echo >> evidence/report.html", 1),
        (VERIFY, "rm evidence/oscal.json", 1),
        (VERIFY, "cp evidence-of-b/ledger-proof.json evidence", 1),
        (VERIFY, "rm auditors-copy.pem", 2),
        (LEDGER, "rm ledger/*.segment", 1),
        (LEDGER, "sed -i 2s/./9/ kept-checkpoint", 1),
        (CANARIES, "rm ledger/*.segment", 1),
        (CANARIES, "echo wrong > passphrase", 6),
        (REPERFORM, "echo >> tree/a.c", 2),
        (CARRY, "echo >> evidence-of-b/run.json", 1),
    ],
)
def test_each_command_finds_what_it_is_for(run: Run, command: str, spoil: str, code: int) -> None:
    """A step that passes whatever lies there would be worse than none; the page says which exit code tells what."""
    assert run(spoil).returncode == 0
    done = run(command)

    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout + done.stderr


def test_what_the_page_says_of_sample_sizes_is_right() -> None:
    """When this fails, an auditor draws too few."""
    said = re.findall(r"(\d+) for (\d+) %", PAGE.replace(" with 95 % confidence", ""))

    assert said == [("59", "5"), ("299", "1")]
    for number, share in said:
        missed = (1 - int(share) / 100) ** int(number)
        assert missed <= 0.05 < missed / (1 - int(share) / 100)
