"""docs/tutorial.md and the how-tos: each of their commands, run as it stands, on a small real tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compliance.pages import DOCS, Run, commands_of, runner

SAVED = re.compile(r"^```(?:python|toml) (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def room(tmp_path: Path, small_tree: Path) -> Path:
    """The reader's folder, with a tree in it."""
    assert small_tree.parent == tmp_path
    return tmp_path


def _run_in(room: Path, **more: str) -> Run:
    return runner(room, {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(room / "home"),
        "DETECTOR_POOL_HOME": str(room / "home"), "COVERAGE_PROCESS_START": os.environ.get("COVERAGE_PROCESS_START", ""),
        **more,
    })  # fmt: skip


def _done(run: Run, commands: str) -> str:
    done = run(commands)
    assert done.returncode == 0, (commands, done.stdout, done.stderr)
    return done.stdout + done.stderr


def _install(room: Path, page: str, project: str) -> str:
    """Save the page's files and install the project as its reader does, into a folder instead of the environment."""
    for name, text in SAVED.findall(project) + SAVED.findall(page):
        (room / name).write_text(text)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    place = room / "installed"
    subprocess.run([*command, "--target", str(place), "."], cwd=room, check=True, capture_output=True, timeout=200)
    return str(place)


def test_the_tutorial_leads_from_nothing_to_verified_evidence(room: Path) -> None:
    """When this fails, who comes anew is stuck before he has seen anything."""
    doctor, scan, show, baseline, evidence, verify, changed = commands_of((DOCS / "tutorial.md").read_text())
    run = _run_in(room)
    ready = run(doctor)

    # What the machine lacks is its own; that each line comes with what to do is what counts.
    assert ready.returncode in (0, 1), ready.stderr
    assert "goto" in _done(run, scan)
    assert "0 executed" in _done(run, scan)
    assert "Instead:" in _done(run, show)
    _done(run, baseline)
    _done(run, evidence)
    assert (room / "evidence" / "report.html").exists()
    assert "evidence verified: signed by the key that you gave" in _done(run, verify)
    assert "FAIL report.html" in _done(run, changed)


def test_a_detector_is_one_file(room: Path) -> None:
    """When this fails, the page's rule does not run, and a newcomer writes a second one that does not."""
    page = (DOCS / "how-to-add-a-detector.md").read_text()
    tried, used = commands_of(page)
    place = _install(room, page, page)
    run = _run_in(room, PYTHONPATH=place)
    (room / "tree" / "tab.c").write_text("int a;\n\tint b;\n")

    _done(run, tried)
    told = _done(run, used)
    assert "our style guide, section 2" in told
    assert "tab.c:2" in told
    assert "HOUSE-tabs" in told


def test_a_tool_is_one_file(room: Path) -> None:
    """When this fails, the page's wrapper does not account for its files."""
    page = (DOCS / "how-to-wrap-a-tool.md").read_text()
    project = (DOCS / "how-to-add-a-detector.md").read_text()
    named = (
        project.replace("house-rules", "long-lines").replace("house_rules", "long_lines").replace("house =", "lines =")
    )
    (used,) = commands_of(page)
    run = _run_in(room, PYTHONPATH=_install(room, page, named))
    (room / "tree" / "long.c").write_text(f"int a;\nint {'b' * 120};\n")

    told = _done(run, used)
    assert "long.c:2" in told
    assert "long-lines/length" in told
    assert "1 findings" in told or "1 finding" in told


def test_loss_is_recovered_from(room: Path) -> None:
    """When this fails, who has lost something loses more by doing what the page says."""
    cache, torn, key, _ = commands_of((DOCS / "how-to-recover.md").read_text())
    ledger = {"DETECTOR_POOL_PASSPHRASE": "a passphrase for the test of recovery"}
    run = _run_in(room)
    before = _done(run, "detector-pool scan tree --evidence evidence-of-before --fail-on never")
    digest = re.compile(r"findings digest (\S+)")
    assert digest.findall(before)
    assert digest.findall(_done(run, cache)) == digest.findall(before)

    shutil.copy(room / "evidence-of-before" / "public-key.pem", room / "old-public-key.pem")
    assert "does NOT verify" in _done(run, key)

    recorded = _run_in(room, **ledger)
    shutil.rmtree(room / "home" / "state" / "keys")
    _done(recorded, "detector-pool audit init --ledger ledger")
    _done(recorded, 'echo \'{"type": "kept"}\' | detector-pool audit append --ledger ledger')
    _done(recorded, 'echo \'{"type": "lost"}\' | detector-pool audit append --ledger ledger')
    last = max((room / "ledger").glob("*.segment"))
    last.write_bytes(last.read_bytes()[:-40])
    assert recorded("detector-pool audit verify --ledger ledger").returncode == 4
    assert "intact" in _done(recorded, torn)


def test_a_full_disk_is_seen_and_gone_around(room: Path) -> None:
    """On a disk that is really full: when this fails, `doctor` calls it ready, or the page's way around is none."""
    disk = commands_of((DOCS / "how-to-recover.md").read_text())[-1]
    run = _run_in(room)
    if run("unshare -rm mount -t tmpfs none /mnt").returncode != 0:
        pytest.skip("user namespaces are forbidden here: there is no small disk to fill")
    (room / "home" / "cache").mkdir(parents=True)
    (room / "full.sh").write_text(
        "mount -t tmpfs -o size=64k none home/cache\nhead -c 1m /dev/zero > home/cache/other || true\n"
        f"detector-pool scan tree --fail-on never || echo ended with $?\n{disk}"
    )
    told = _done(run, "unshare -rm /bin/sh -eu full.sh")

    assert "ended with" not in told, "what a cache is for may be lost, and no finding"
    assert "this run keeps its own" in told
    assert re.search(r"MEND +cache folder", told)
    assert "goto" in told
