"""`scan --since`: what a change touches, what depends on it, and what is new because of it."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import msgspec
import pytest

from detectors.errors import RepositoryUnusable
from detectors.findings import as_json
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan
from tests.detectors.git_trees import committed, git, made

RULES = ("power-of-ten-python", "power-of-ten-c")
FILES = {
    "a.py": "from b import g\n\n\ndef f(n):\n    return g(n)\n",
    "b.py": "def g(n):\n    return n\n",
    "c.py": "def h(n):\n    return eval(n)\n",
    "d.c": '#include "d.h"\nint d(int n)\n{\n    if (n) goto out;\nout:\n    return n;\n}\n',
    "d.h": "int d(int n);\n",
}


def since(tree: Path, *detectors: str, ref: str = "HEAD", cache: Path | None = None, **changed: object) -> RunRecord:
    options = ScanOptions((tree,), detectors or RULES, "inline", since=ref, cache=cache)
    return scan(dataclasses.replace(options, **changed))  # type: ignore[arg-type]


def looked(record: RunRecord, detector: str) -> set[str]:
    return {unit.path for unit in record.units if unit.detector == detector}


def new(record: RunRecord) -> set[tuple[str, str]]:
    return {(item.path, item.finding.rule) for item in record.findings if item.baseline == "new"}


def test_tools_look_at_what_differs_and_at_what_reads_it(tmp_path: Path) -> None:
    """An edited module is looked at by all, its importer by the tool that follows imports, the rest by nobody."""
    tree = made(tmp_path / "tree", FILES)
    (tree / "b.py").write_text("def g(n):\n    return eval(n)\n")
    (tree / "new.py").write_text("X = 1\n")

    record = since(tree, "ruff", "mypy", "power-of-ten-python")

    assert looked(record, "ruff") == {"b.py", "new.py"}
    assert looked(record, "mypy") == {"a.py", "b.py", "new.py"}
    assert looked(record, "power-of-ten-python") == {"a.py", "b.py", "c.py", "new.py"}
    assert record.since is not None
    assert record.since.touched == ("b.py", "new.py")
    assert record.whole
    assert ("b.py", "P10-R8-python-dynamic-code") in new(record)
    assert {path for path, _ in new(record)} <= {"b.py", "new.py"}


def test_a_file_that_is_gone_touches_those_that_read_it(tmp_path: Path) -> None:
    """What an importer loses is a change of the importer, though none of its bytes differ."""
    tree = made(tmp_path / "tree", FILES)
    (tree / "b.py").unlink()

    record = since(tree, "mypy", "ruff")

    assert looked(record, "mypy") == {"a.py"}
    assert looked(record, "ruff") == set()
    assert record.whole


def test_a_cycle_that_a_change_closes_is_new_in_files_that_it_does_not_touch(tmp_path: Path) -> None:
    """A rule over the whole tree has no safe part: the other half of the cycle lies in an old file."""
    tree = made(tmp_path / "tree", FILES)
    (tree / "b.py").write_text("from a import f\n\n\ndef g(n):\n    return f(n)\n")

    assert {path for path, rule in new(since(tree)) if "recursion" in rule} == {"a.py", "b.py"}


def test_what_the_commit_had_is_no_news(tmp_path: Path) -> None:
    """Moved lines, a renamed file and other findings of an edited file must not fail a merge request."""
    tree = made(tmp_path / "tree", FILES)
    (tree / "c.py").rename(tree / "moved.py")
    (tree / "d.c").write_text("/* one more line */\n" + FILES["d.c"])
    assert new(since(tree)) == set()

    (tree / "d.c").write_text(FILES["d.c"] + "int e(int n)\n{\n    if (n) goto end;\nend:\n    return n;\n}\n")
    assert ("d.c", "P10-R1-goto") in new(since(tree))


def test_a_suppression_that_is_taken_away_makes_its_finding_new(tmp_path: Path) -> None:
    """Else an excuse would be a way to make a finding old."""
    excused = "def h(n):\n    return eval(n)  # p10: ignore[R8] a console by the owner\n"
    tree = made(tmp_path / "tree", {"c.py": excused})
    assert not any(item.baseline == "new" for item in since(tree).findings)

    (tree / "c.py").write_text(FILES["c.py"])
    assert ("c.py", "P10-R8-python-dynamic-code") in new(since(tree))


def test_named_files_are_held_against_the_commit(tmp_path: Path) -> None:
    """As pre-commit calls it: some files, and HEAD."""
    tree = made(tmp_path / "tree", FILES)
    (tree / "c.py").write_text(FILES["c.py"] + "\n\ndef k(n):\n    return exec(n)\n")
    record = since(tree, paths=(tree / "c.py", tree / "b.py"))

    assert {file.path for file in record.files} == {"b.py", "c.py"}
    assert record.roots[0].listed
    assert [item.finding.region.start_line for item in record.findings if item.baseline == "new"] == [6]


def test_several_trees_of_one_repository_and_never_of_two(tmp_path: Path) -> None:
    """Labels stand before the paths on both sides; another repository has another history."""
    tree = made(tmp_path / "tree", {f"{part}/{name}": text for part in ("x", "y") for name, text in FILES.items()})
    (tree / "x" / "b.py").write_text("def g(n):\n    return eval(n)\n")
    both = since(tree, paths=(tree / "x", tree / "y"))
    assert both.since is not None
    assert both.since.touched == ("x/b.py",)
    assert {path for path, _ in new(both)} == {"x/b.py"}

    other = made(tmp_path / "other", FILES)
    with pytest.raises(RepositoryUnusable, match="one by one"):
        since(tree, paths=(tree, other))


def test_a_submodule_that_did_not_move_is_not_touched(tmp_path: Path) -> None:
    """What a superproject's commit does not hold cannot be compared, which the run says."""
    inner = made(tmp_path / "inner", {"in.py": FILES["c.py"]})
    tree = made(tmp_path / "tree", FILES)
    git(tree, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "module")
    git(tree, "commit", "-q", "-m", "module")
    (tree / "b.py").write_text("B = 2\n")
    record = since(tree)

    assert record.since is not None
    assert record.since.touched == ("b.py",)
    assert [problem for problem in record.problems if "submodule module" in problem]


def test_a_branch_is_held_against_its_fork_point(tmp_path: Path) -> None:
    """What others merged to main in the meantime is not this branch's change."""
    tree = made(tmp_path / "tree", FILES)
    forked = git(tree, "rev-parse", "HEAD").strip()
    git(tree, "checkout", "-q", "-b", "topic")
    committed(tree, {"b.py": "def g(n):\n    return n + 1\n"})
    git(tree, "checkout", "-q", "main")
    committed(tree, {"c.py": "C = 1\n"})
    git(tree, "checkout", "-q", "topic")
    record = since(tree, ref="main")

    assert record.since is not None
    assert (record.since.commit, record.since.touched) == (forked, ("b.py",))


@pytest.mark.parametrize("seed", range(4))
def test_it_calls_new_what_two_whole_scans_call_new(seed: int, tmp_path: Path) -> None:
    """The oracle: a scan of the commit as baseline, and a scan of the edited tree against it."""
    choose = random.Random(seed)
    tree = made(tmp_path / "tree", FILES)
    shutil.copytree(tree, tmp_path / "before")
    for name in choose.sample(sorted(FILES), 3):
        lines = (tree / name).read_text().splitlines()
        kept = [line for line in lines if choose.random() > 0.2]
        other = (tree / choose.choice(sorted(FILES))).read_text().splitlines()
        (tree / name).write_text("\n".join([*kept, *other[choose.randrange(3) :]]) + "\n")
    (tree / "c.py").write_text((tree / "c.py").read_text() + "\ndef last(n):\n    return exec(n)\n")
    before = scan(ScanOptions((tmp_path / "before",), RULES, "inline"))
    baseline = tmp_path / "before.json"
    baseline.write_bytes(msgspec.json.encode({"findings": [as_json(item) for item in before.findings]}))
    whole = scan(ScanOptions((tree,), RULES, "inline", baseline=baseline))

    partly = since(tree)
    assert partly.findings == whole.findings
    assert new(whole), "the edits bring nothing: this seed shows nothing"
