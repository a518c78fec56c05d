"""The real pre-commit, the real git, and our hook installed as anybody installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hook_speed import Hooks

BAD = "def f(n):\n    return eval(n)\n"


@pytest.mark.system
@pytest.mark.timeout(1500)  # pip installs the project with all that it stands on
def test_a_commit_is_stopped_by_what_it_adds(tmp_path: Path) -> None:
    """What `.pre-commit-hooks.yaml` promises, end to end: installed from a repository, run by `git commit`."""
    hooks = Hooks(tmp_path)
    rules = "--since, HEAD, --detectors, 'power-of-ten-c,power-of-ten-python', --fail-on, warning"
    tree = hooks.user("tree", {"old.py": BAD, "new.py": "N = 1\n"}, hooks.own_hook(rules))

    (tree / "new.py").write_text("N = 2\n")
    (tree / "old.py").write_text(f"# moved\n{BAD}")
    passed = hooks.commit(tree)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert b"detector-pool" in passed.stdout + passed.stderr

    (tree / "new.py").write_text("N = eval('2')\n")
    stopped = hooks.commit(tree)
    told = (stopped.stdout + stopped.stderr).decode()
    assert stopped.returncode == 1, told
    assert "new.py:1:5: warning:" in told
    assert "old.py:" not in told
    assert hooks.run(["git", "log", "--oneline"], tree).stdout.count(b"\n") == 2
