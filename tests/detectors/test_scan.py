"""The pipeline through its public door, with a third party's detectors installed as `pip install` would."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.detectors import third_party

Scan = Callable[..., dict[str, Any]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment in which the third party's detectors are found."""
    folder = tmp_path / "site"
    folder.mkdir()
    return {**os.environ, "PYTHONPATH": str(third_party.install(folder))}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of text files."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.txt").write_text("fine\n  bad twin\n")
    (folder / "b.txt").write_text("twin\n")
    (folder / "c.txt").write_text("fine\n")
    return folder


def _short(result: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(item["path"], item["rule"], item["line"]) for item in result["findings"]]


def test_file_rules_tree_rules_and_tools_answer(scan_json: Scan, environment: dict[str, str], tree: Path) -> None:
    """Each kind of detector reaches the findings, sorted, with the fixed keys."""
    result = scan_json(tree, "--detectors", "third-party,shell-tool", env=environment)

    assert _short(result) == [
        ("a.txt", "TP-twin", 1),
        ("a.txt", "shell/ran", 1),
        ("a.txt", "TP-bad", 2),
        ("b.txt", "TP-twin", 1),
        ("b.txt", "shell/ran", 1),
        ("c.txt", "shell/ran", 1),
    ]
    assert result["not_analysed"] == []
    assert result["summary"]["files"] == 3
    assert (result["summary"]["executed"], result["summary"]["cached"]) == (6, 0)


def test_a_warm_run_executes_nothing_and_an_edit_only_itself(
    scan_json: Scan, environment: dict[str, str], tree: Path
) -> None:
    """Results are content-addressed: what did not change does not run again, and the digest tells no difference."""
    arguments = (tree, "--detectors", "third-party,shell-tool")
    cold = scan_json(*arguments, env=environment)
    warm = scan_json(*arguments, env=environment)
    (tree / "c.txt").write_text("twin\n")
    edited = scan_json(*arguments, env=environment)
    fresh = scan_json(*arguments, "--no-cache", env=environment)

    assert (warm["summary"]["executed"], warm["summary"]["cached"]) == (0, 6)
    assert warm["summary"]["findings_digest"] == cold["summary"]["findings_digest"]
    assert (edited["summary"]["executed"], edited["summary"]["cached"]) == (2, 4)
    assert ("c.txt", "TP-twin", 1) in _short(edited)
    assert fresh["summary"]["findings_digest"] == edited["summary"]["findings_digest"]
    assert fresh["summary"]["cached"] == 0


def test_equal_content_is_shared_between_paths(scan_json: Scan, environment: dict[str, str], tree: Path) -> None:
    """A moved file keeps its results where the path does not matter."""
    scan_json(tree, "--detectors", "third-party", env=environment)
    (tree / "sub").mkdir()
    (tree / "a.txt").rename(tree / "sub" / "a.txt")

    moved = scan_json(tree, "--detectors", "third-party", env=environment)

    assert moved["summary"]["cached"] == 3
    assert ("sub/a.txt", "TP-bad", 2) in _short(moved)


def test_changed_code_of_a_detector_makes_its_answers_stale(
    scan_json: Scan, environment: dict[str, str], tree: Path
) -> None:
    """A cache that outlives the rule's code would report what the old rule said."""
    arguments = (tree, "--detectors", "third-party")
    scan_json(*arguments, env=environment)
    module = Path(environment["PYTHONPATH"]) / "third_party_detectors.py"
    module.write_text(module.read_text().replace('"bad word"', '"very bad word"'))

    again = scan_json(*arguments, env=environment)

    assert again["summary"]["cached"] == 0
    assert {item["message"] for item in again["findings"]} == {"very bad word", "twin"}


def test_one_detector_that_fails_on_one_file_costs_that_file_only(
    scan_json: Scan, environment: dict[str, str], tree: Path
) -> None:
    """What a rule or tool cannot do becomes an entry; all other findings stand."""
    (tree / "x0.txt").write_text("leave-me\n")
    (tree / "x1.txt").write_text("crash-me bad\n")
    (tree / "x2.txt").write_text("tool-dies\n")
    (tree / "x3.txt").write_text("tool-silent\n")

    result = scan_json(tree, "--detectors", "third-party,shell-tool", "--require-complete", env=environment)

    assert {(entry["path"], entry["detector"]) for entry in result["not_analysed"]} == {
        ("x0.txt", "third-party"),
        ("x1.txt", "third-party"),
        ("x2.txt", "shell-tool"),
        ("x3.txt", "shell-tool"),
    }
    assert ("a.txt", "TP-bad", 2) in _short(result)
    assert ("x1.txt", "shell/ran", 1) in _short(result)
    assert ("c.txt", "shell/ran", 1) in _short(result)


def test_a_broken_tool_is_left_alone_told_and_asked_again_by_the_next_run(
    scan_json: Scan, tmp_path: Path, tree: Path
) -> None:
    """What a breaker refused is an entry for each file, never kept: a tool that was mended must be asked again."""
    folder = tmp_path / "broken"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(third_party.install(folder))}
    for number in range(300):
        (tree / f"more{number}.txt").write_text("fine\n")
    arguments = (tree, "--detectors", "third-party,shell-tool", "--cluster", "inline", "--workers", "2")

    first = scan_json(*arguments, env=environment)
    again = scan_json(*arguments, env=environment)

    assert {entry["detector"] for entry in first["not_analysed"]} == {"shell-tool"}
    assert len(first["not_analysed"]) == 303
    assert "breaker-open" in {entry["reason"] for entry in first["not_analysed"]}
    assert (first["summary"]["executed"], first["summary"]["cached"]) == (606, 0)
    assert (again["summary"]["executed"], again["summary"]["cached"]) == (303, 303)


def test_a_detector_that_writes_is_an_error_that_names_it(
    pool_command: Callable[..., Any], environment: dict[str, str], tree: Path
) -> None:
    """A detector that changes what it reads makes every later result worthless."""
    (tree / "w.txt").write_text("tool-writes\n")

    done = pool_command("scan", tree, "--detectors", "shell-tool", env=environment)

    assert done.returncode == 3
    assert b"shell-tool" in done.stderr
    assert (tree / "w.txt").read_text() == "tool-writes\n"


def test_a_module_that_cannot_be_imported_stops_the_run(
    pool_command: Callable[..., Any], environment: dict[str, str], tree: Path
) -> None:
    """Fewer rules than installed would look like a cleaner tree."""
    (Path(environment["PYTHONPATH"]) / "third_party_detectors.py").write_text("import nowhere_to_be_found\n")

    done = pool_command("scan", tree, env=environment)

    assert done.returncode == 3
    assert b"third_party_detectors" in done.stderr


def test_verify_cache_finds_an_answer_that_is_not_true(
    scan_json: Scan, pool_command: Callable[..., Any], environment: dict[str, str], tree: Path, tmp_path: Path
) -> None:
    """A result that another hand put into the cache under the right key is found by computing it again."""
    from detectors.cache import ResultCache
    from detectors.model import Analysed, FileReport

    cache = tmp_path / "cache"
    arguments = (tree, "--detectors", "third-party", "--cache", cache)
    scan_json(*arguments, env=environment)
    honest = pool_command("scan", *arguments, "--verify-cache", "1", "--fail-on", "never", env=environment)
    with ResultCache(cache) as store:
        keys = [row[0] for row in store._connection.execute("SELECT key FROM result ORDER BY stored")]
        store.store("forger", [(key, Analysed("", "third-party", FileReport(), 0.0)) for key in keys])

    forged = pool_command("scan", *arguments, "--verify-cache", "1", "--fail-on", "never", env=environment)

    assert honest.returncode == 0, honest.stderr.decode() + honest.stdout.decode()
    assert forged.returncode == 4
    assert b"forger" in forged.stdout


def test_baseline_lets_old_findings_pass(
    pool_command: Callable[..., Any], environment: dict[str, str], tree: Path, tmp_path: Path
) -> None:
    """A gate on old code must fail on what is new only."""
    arguments = ("scan", tree, "--detectors", "third-party")
    before = pool_command(*arguments, "--json", "--output", tmp_path / "base.json", env=environment)
    same = pool_command(*arguments, "--baseline", tmp_path / "base.json", env=environment)
    (tree / "c.txt").write_text("also bad\n")
    worse = pool_command(*arguments, "--baseline", tmp_path / "base.json", env=environment)

    assert (before.returncode, same.returncode, worse.returncode) == (1, 0, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--detectors", "third-prty"), b"third-party"),
        (("--workers", "0"), b"--workers"),
        (("--verify-cache", "2"), b"--verify-cache"),
        (("--fail-on", "fatal"), b"--fail-on"),
        (("--format", "xml"), b"--format"),
        (("--cluster", "nonsense"), b"--cluster"),
        (("--baseline", "missing.json"), b"missing.json"),
        (("--frmat", "json"), b"--format"),
    ],
)
def test_wrong_usage_is_told(
    pool_command: Callable[..., Any], environment: dict[str, str], tree: Path, arguments: tuple[str, ...], told: bytes
) -> None:
    """Exit code 2 and a message that helps, for every option that cannot be followed."""
    done = pool_command("scan", tree, *arguments, env=environment)

    assert done.returncode == 2, done.stderr.decode()
    assert told in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_deleted_after_the_snapshot_is_listed(environment: dict[str, str], tree: Path) -> None:
    """A file that vanishes in mid-scan is neither lost nor a crash."""
    from detectors.scan import Scan, ScanOptions

    with Scan(ScanOptions((tree,), cluster="inline")) as run:
        run.snapshot()
        run.plan()
        (tree / "c.txt").unlink()
        run.execute_all()
        run.reduce()
        record = run.settle()

    assert all(entry.path == "c.txt" and entry.reason == "vanished" for entry in record.not_analysed)
    assert any("c.txt vanished" in problem for problem in record.problems)
