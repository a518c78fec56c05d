"""Fixtures that every room's tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[bytes]]

FAST_FIRST = ("contract", "detectors", "compliance", "demo", "deployments", "flows", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: what is marked slow runs last, so that a plain mistake is seen early."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the state of whoever runs it."""
    monkeypatch.setenv("DETECTOR_POOL_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("DETECTOR_POOL_PASSPHRASE", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def pool_command() -> Run:
    """Run `detector-pool` as a user does, in a process of its own."""

    def run(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "deployments.cli", *map(os.fspath, arguments)]
        return subprocess.run(command, capture_output=True, timeout=280, check=False, **options)

    return run


@pytest.fixture
def scan_json(pool_command: Run) -> Callable[..., dict[str, Any]]:
    """Run `scan --json` and return its object; the exit code must be one of 0, 1 and 4."""

    def run(*arguments: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
        done = pool_command("scan", "--json", *arguments, **options)
        assert done.returncode in (0, 1, 4), done.stderr.decode()
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    """A few files that every wrapped tool and rule has something to say of."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "jump.c").write_text("int f(int n)\n{\n    if (n) goto out;\n    n++;\nout:\n    return n;\n}\n")
    (tree / "copy.c").write_text(
        "#include <string.h>\n#include <stdlib.h>\nvoid g(char *to, const char *from)\n{\n    strcpy(to, from);\n"
        "    free(malloc(3));\n}\n"
    )
    (tree / "run.py").write_text(
        "import os, sys\nimport subprocess\n\n\ndef call(text):\n    return eval(text)\n\n\n"
        "def down(n):\n    return down(n - 1) if n else subprocess.call('ls', shell=True)\n"
    )
    (tree / "notes.txt").write_text("nothing to see\n")
    return tree
