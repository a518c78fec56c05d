"""A home with certificates, as the tests of clusters and of what may happen to them need one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from deployments import certificates


def command(*words: str | Path) -> list[str]:
    """Return `detector-pool` and its arguments, for a process of its own."""
    return [sys.executable, "-P", "-m", "deployments.cli", *map(str, words)]


class House:
    """A home with certificates, and commands that live in it."""

    def __init__(self, home: Path, *hosts: str) -> None:
        self.home = home
        self.address = ""
        self.certificates = home / "state" / "certs"
        (home / "state").mkdir(parents=True, mode=0o700)
        certificates.init(self.certificates, hosts or ("127.0.0.1",))

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "DETECTOR_POOL_HOME": str(self.home), **more}

    def run(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words), env=self.environment(**more), capture_output=True, text=True, timeout=200, check=False
        )

    def json(self, *words: str | Path) -> dict[str, Any]:
        done = self.run(*words, "--json")
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
