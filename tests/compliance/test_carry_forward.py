"""Carry-forward: evidence of one release holds for exactly what decides the same answers in the next."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from compliance.assurance_statement import Evidence, read_evidence
from compliance.carry_forward import CarryForward, carry
from compliance.errors import NotCarried
from compliance.evidence import collect
from compliance.signing import SigningKey
from detectors.model import RunRecord
from detectors.rule_settings import RuleSettings
from detectors.scan import ScanOptions, scan

DETECTORS = ("compiler-warnings", "power-of-ten-c", "power-of-ten-python")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two C files, one of which includes a header, and a Python file."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "limit.h").write_text("#define LIMIT 3\n")
    (folder / "with.c").write_text('#include "limit.h"\nint f(int n)\n{\n    return n + LIMIT;\n}\n')
    (folder / "without.c").write_text("int g(int n)\n{\n    if (n) goto out;\n    n++;\nout:\n    return n;\n}\n")
    (folder / "a.py").write_text("def f(n):\n    return eval(n)\n")
    return folder


def run_of(tree: Path, settings: RuleSettings | None = None) -> RunRecord:
    return scan(ScanOptions((tree,), detectors=DETECTORS, cluster="inline", settings=settings or RuleSettings()))


def evidence(record: RunRecord, folder: Path) -> Evidence:
    collect(record, folder, SigningKey.from_raw(b"\1" * 32))
    return read_evidence(folder, None)


def compared(a: RunRecord, b: RunRecord, home: Path) -> CarryForward:
    told = carry(evidence(a, home / "a"), evidence(b, home / "b"))
    assert told.carried + len(told.anew) + len(told.contradictions) == told.units == len(b.units)
    return told


def reasons(told: CarryForward) -> dict[tuple[str, str], str]:
    return {(item.path, item.detector): item.reason for item in told.anew}


def test_nothing_changed_is_carried_whole(tree: Path, tmp_path: Path) -> None:
    """A copy elsewhere is the same release; the digest over what is carried is made as documented."""
    shutil.copytree(tree, tmp_path / "copy" / "tree")
    a, b = run_of(tree), run_of(tmp_path / "copy" / "tree")
    told = compared(a, b, tmp_path)
    lines = "".join(f"{unit.path}\0{unit.detector}\0{unit.key}\n" for unit in sorted(b.units))

    assert (told.carried, told.anew, told.gone, told.contradictions) == (len(b.units), (), (), ())
    assert told.carried_digest == hashlib.sha256(lines.encode()).hexdigest()
    assert told.whole_tree_rules
    assert all(told.whole_tree_rules.values())


def test_a_file_that_changed_is_not_carried(tree: Path, tmp_path: Path) -> None:
    """Neither are rules over the whole tree of its group; those of other groups are."""
    a = run_of(tree)
    (tree / "without.c").write_text("int g(int n)\n{\n    return n;\n}\n")
    told = compared(a, run_of(tree), tmp_path)

    assert {path for path, _ in reasons(told)} == {"without.c"}
    assert set(reasons(told).values()) == {"the file changed"}
    assert told.carried == told.units - len(told.anew)
    assert told.carried > 0
    assert (told.whole_tree_rules["power-of-ten-c"], told.whole_tree_rules["power-of-ten-python"]) == (False, True)


def test_a_header_in_the_closure_that_changed_is_not_carried(tree: Path, tmp_path: Path) -> None:
    """The file itself is the same; what the compiler saw of it is not."""
    a = run_of(tree)
    (tree / "limit.h").write_text("#define LIMIT 4\n")
    told = compared(a, run_of(tree), tmp_path)
    found = reasons(told)

    assert found["with.c", "compiler-warnings"] == "a file that it includes or imports changed"
    assert ("with.c", "power-of-ten-c") not in found
    assert ("without.c", "compiler-warnings") not in found
    assert found["limit.h", "power-of-ten-c"] == "the file changed"


def test_another_version_and_other_settings_are_not_carried(tree: Path, tmp_path: Path) -> None:
    """Each says why: a version, code, settings."""
    a = run_of(tree)
    other = [
        msgspec.structs.replace(item, version="9") if item.name == "power-of-ten-c" else item for item in a.detectors
    ]
    units = tuple(
        msgspec.structs.replace(unit, key="0" * 64) if unit.detector == "power-of-ten-c" else unit for unit in a.units
    )
    newer = msgspec.structs.replace(a, detectors=tuple(other), units=units, run_id="1" * 32)
    told = compared(a, newer, tmp_path)
    version = next(item.version for item in a.detectors if item.name == "power-of-ten-c")
    assert set(reasons(told).values()) == {f"the detector's version changed from {version} to 9"}
    assert {name for _, name in reasons(told)} == {"power-of-ten-c"}
    (tmp_path / "2").mkdir()
    told = compared(a, run_of(tree, RuleSettings(function_lines=10)), tmp_path / "2")
    assert "the detector's settings changed" in set(reasons(told).values())
    assert not told.whole_tree_rules["power-of-ten-c"]


def test_new_and_gone_files_are_listed(tree: Path, tmp_path: Path) -> None:
    """A renamed file is a new one: messages and fingerprints have its path."""
    a = run_of(tree)
    (tree / "a.py").rename(tree / "b.py")
    told = compared(a, run_of(tree), tmp_path)

    assert reasons(told) == {("b.py", "power-of-ten-python"): "the file is new"}
    assert told.gone == (("a.py", "power-of-ten-python"),)
    assert told.whole_tree_rules == {"power-of-ten-c": True, "power-of-ten-python": False}


def test_equal_keys_with_other_findings_are_a_contradiction(tree: Path, tmp_path: Path) -> None:
    """One of the two runs is wrong, and neither may be carried; a suppression that ended is no such thing."""
    a = run_of(tree)
    fewer = msgspec.structs.replace(a, findings=tuple(f for f in a.findings if f.finding.rule != "P10-R1-goto"))
    told = compared(a, fewer, tmp_path)

    assert [(item.path, item.detector) for item in told.contradictions] == [("without.c", "power-of-ten-c")]
    assert not told.whole_tree_rules["power-of-ten-c"]


def test_a_record_that_says_too_little_is_refused(tree: Path, tmp_path: Path) -> None:
    """Of an early release, or of a run that is not whole."""
    a = run_of(tree)
    early = msgspec.structs.replace(a, units=tuple(msgspec.structs.replace(unit, key="") for unit in a.units))
    with pytest.raises(NotCarried, match="early release"):
        carry(evidence(early, tmp_path / "early"), evidence(a, tmp_path / "a"))
    broken = msgspec.structs.replace(a, whole=False, problems=("a unit was lost",))
    with pytest.raises(NotCarried, match="a unit was lost"):
        carry(evidence(a, tmp_path / "b"), evidence(broken, tmp_path / "c"))


def test_the_command_signs_what_was_done_anew(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tree: Path, tmp_path: Path
) -> None:
    """As a release manager runs it; forged evidence is refused, a contradiction is exit code 1."""
    a, b, output = tmp_path / "a", tmp_path / "b", tmp_path / "carried.jsonl"
    first = run_of(tree)
    _ = evidence(first, a)
    (tree / "a.py").write_text("def f(n):\n    return n\n")
    _ = evidence(run_of(tree), b)
    done = pool_command("evidence", "carry", a, b, "--output", output)

    assert done.returncode == 0, done.stderr
    assert b"anew a.py by power-of-ten-python: the file changed" in done.stdout
    import base64

    statement = json.loads(base64.b64decode(json.loads(output.read_bytes())["payload"]))
    assert [item["digest"]["sha256"] for item in statement["subject"]] == [
        hashlib.sha256((folder / "attestation.intoto.jsonl").read_bytes()).hexdigest() for folder in (a, b)
    ]
    assert statement["predicate"]["anew"] == [
        {"path": "a.py", "detector": "power-of-ten-python", "reason": "the file changed"}
    ]
    _ = evidence(msgspec.structs.replace(first, findings=()), tmp_path / "silent")
    told = pool_command("evidence", "carry", a, tmp_path / "silent", "--output", tmp_path / "2", "--json")
    assert (told.returncode, json.loads(told.stdout)["ok"]) == (1, False)
    (b / "run.json").write_text("{}")
    assert pool_command("evidence", "carry", a, b, "--output", tmp_path / "3").returncode == 1
    assert not (tmp_path / "3").exists()
