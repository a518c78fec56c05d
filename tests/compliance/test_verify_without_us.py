"""docs/verify-without-us.md, run as it stands, where nothing of this project can be imported."""

from __future__ import annotations

import json
import re
import shutil
import sys
import venv
from pathlib import Path

import pytest

from compliance.evidence import collect
from compliance.run_trail import RunTrail, recorded_scan
from compliance.signing import SigningKey
from detectors.scan import ScanOptions
from tests.compliance.pages import DOCS, Run, commands_of, runner
from tests.compliance.test_run_trail import place_of

pytestmark = pytest.mark.system

PAGE = (DOCS / "verify-without-us.md").read_text()
SCRIPTS = dict(re.findall(r"^```python (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
VERIFY, SOURCES = commands_of(PAGE)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with its standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader of the page has: evidence of a real scan, the tree, the page's scripts, a copy of the key."""
    tmp_path = tmp_path_factory.mktemp("laid-out")
    room = tmp_path / "room"
    (room / "tree" / "sub").mkdir(parents=True)
    (room / "tree" / "a.c").write_text("int f(int n) { return f(n); }\n")
    (room / "tree" / "sub" / "b ü.py").write_text("def f(n):\n    return n\n")
    key = SigningKey.load_or_create(tmp_path / "keys")
    for number in range(3):  # so that the path has something to show
        trail = RunTrail(place_of(tmp_path))
        options = ScanOptions((room / "tree",), detectors=("power-of-ten-c", "power-of-ten-python"))
        folder = room / "evidence" if number == 1 else tmp_path / f"evidence-{number}"
        recorded_scan(options, trail, lambda run, trail=trail, folder=folder: collect(run, folder, key, trail))
    (room / "auditors-copy.pem").write_bytes(key.public.pem())
    for name, text in SCRIPTS.items():
        (room / name).write_text(text)
    return room


@pytest.fixture
def room(laid_out: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(laid_out, tmp_path / "room")
    return tmp_path / "room"


@pytest.fixture
def run(bare: Path, room: Path) -> Run:
    """Run commands of the page in an empty environment."""
    return runner(room, {"PATH": f"{bare / 'bin'}:/usr/bin:/bin"})


def test_the_page_verifies_evidence(run: Run, room: Path) -> None:
    """When this fails, an auditor who trusts nothing of ours cannot check anything."""
    done = run(VERIFY)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Signature Verified Successfully") == 2
    assert run(SOURCES).returncode == 0
    assert json.loads((room / "evidence" / "ledger-proof.json").read_text())["path"]


def test_nothing_of_ours_is_there(run: Run) -> None:
    """The environment in which the page runs has neither this project nor a library that it installs."""
    done = run("python3 -I -S -c 'import sys; print(sys.prefix)' && for name in compliance detectors msgspec cryptography; do"
               " ! python3 -c \"import $name\" 2>/dev/null; done")  # fmt: skip

    assert done.returncode == 0
    assert SCRIPTS["check.py"].count("\n") <= 34
    imported = set(re.findall(r"^import (.*)$", "".join(SCRIPTS.values()), re.MULTILINE))
    assert {name for line in imported for name in line.split(", ")} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("run.json", b'"whole":true', b'"whole":null', "not those that were signed"),
        ("report.html", b"<html", b"<htnl", "not those that were signed"),
        ("attestation.intoto.jsonl", b'"sig":"', b'"sig":"AAAA', "attestation"),
        ("ledger-proof.json", b'"leaf":"U', b'"leaf":"V', "does not have this attestation"),
        ("ledger-checkpoint", b"\n7\n", b"\n8\n", "does not have this attestation"),
    ],
)
def test_the_page_finds_what_was_changed(run: Run, room: Path, name: str, old: bytes, new: bytes, told: str) -> None:
    """A check that passes whatever is in the folder would be worse than none."""
    file = room / "evidence" / name
    data = file.read_bytes()
    if name == "ledger-checkpoint":
        size = data.split(b"\n")[1]
        old, new = b"\n" + size + b"\n", b"\n%d\n" % (int(size) * 2)
    assert old in data
    file.write_bytes(data.replace(old, new, 1))
    done = run(VERIFY)

    assert done.returncode != 0
    assert told in done.stderr


def test_the_page_finds_a_removed_an_added_file_another_key_and_another_source(run: Run, room: Path) -> None:
    """Whatever is not the signer's word about these files and these sources ends a command."""
    clean = "rm -r scratch; "
    assert run(VERIFY).returncode == 0
    assert run(f"{clean} touch evidence/more; {VERIFY}").returncode != 0
    assert run(f"{clean} rm evidence/more; mv evidence/report.html .; {VERIFY}").returncode != 0
    assert run(f"{clean} mv report.html evidence; {VERIFY}").returncode == 0
    (room / "auditors-copy.pem").write_bytes(SigningKey.from_raw(b"\1" * 32).public.pem())
    assert "Failure" in run(f"{clean} {VERIFY}").stdout
    (room / "tree" / "a.c").write_text("int f(void);\n")
    assert "not what was scanned: a.c" in run(SOURCES).stderr
