"""
What a commit of one changed file costs with our hook, beside ruff's own hook and no hook: the real pre-commit.

pre-commit installs this project and ruff into environments of their own, as it does for anybody (the first time takes
minutes). Then files of a real repository are changed and committed, by turns under each configuration; the wall time
and the processor time of `git commit` are told as medians with their range. Ruff's hook is the one that its authors
publish, written down here since it is fetched from a forge otherwise: the same entry, the same language.

    python -m benchmarks.hook_speed FOLDER [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Hooks", "main"]

ROOT = Path(__file__).parents[1]
PACKAGED = (
    "detectors",
    "compliance",
    "flows",
    "deployments",
    "prefect.yaml",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    ".pre-commit-hooks.yaml",
)
RUFF_HOOK = """\
- id: ruff-check
  name: ruff check
  entry: ruff check --force-exclude
  language: python
  types_or: [python, pyi, jupyter]
  args: []
  require_serial: true
"""
RUFF_PROJECT = """\
[project]
name = "ruff-hook"
version = "0"
dependencies = ["ruff=={version}"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[tool.hatch.build.targets.wheel]
bypass-selection = true
"""


class Hooks:
    """
    pre-commit with our hook and ruff's, set up in a folder that may be kept for the next time.

    Args:
        folder: Made when missing.

    Raises:
        RuntimeError: A program that is needed for it failed; the message has what it said.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "PRE_COMMIT_HOME": str(self.folder / "pre-commit-home"),
            "DETECTOR_POOL_HOME": str(self.folder / "state"),
            "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "n@example.org", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
            "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "n@example.org",
            # Equal files are an equal commit, so that environments of an earlier time are found again.
            "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # who uses hooks has bytecode
        self.program = self.folder / "venv" / "bin" / "pre-commit"
        if not self.program.exists():
            venv.create(self.folder / "venv", with_pip=True)
            self.run([self.program.with_name("python"), "-m", "pip", "install", "--quiet", "pre-commit"], self.folder)

    def run(
        self, command: Sequence[str | Path], where: Path, *, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program; raises RuntimeError with its words where it fails and that matters."""
        done = subprocess.run(command, cwd=where, env=self.environment, capture_output=True, check=False)
        if check and done.returncode != 0:
            said = (done.stdout + done.stderr).decode("utf-8", "replace")[-3000:]
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}")
        return done

    def repository(self, name: str, files: Mapping[str, Path | str]) -> tuple[Path, str]:
        """Make a repository of copies or texts, with one commit; return its folder and the commit."""
        tree = self.folder / name
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        for path, source in files.items():
            if isinstance(source, str):
                (tree / path).write_text(source)
            elif source.is_dir():
                shutil.copytree(source, tree / path, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / path)
        for command in (
            ["git", "init", "-q", "-b", "main"],
            ["git", "add", "-A"],
            ["git", "commit", "-q", "-m", "all"],
        ):
            self.run(command, tree)
        return tree, self.run(["git", "rev-parse", "HEAD"], tree).stdout.decode().strip()

    def own_hook(self, arguments: str = "") -> str:
        """Return a configuration with our hook, as it is in this working tree."""
        tree, commit = self.repository("own-hook", {name: ROOT / name for name in PACKAGED})
        return _configuration(tree, commit, "detector-pool", arguments)

    def ruff_hook(self) -> str:
        """Return a configuration with ruff's hook, at the version that this project wraps."""
        import importlib.metadata

        project = RUFF_PROJECT.format(version=importlib.metadata.version("ruff"))
        tree, commit = self.repository("ruff-hook", {".pre-commit-hooks.yaml": RUFF_HOOK, "pyproject.toml": project})
        return _configuration(tree, commit, "ruff-check", "")

    def user(self, name: str, files: Mapping[str, Path | str], configuration: str | None) -> Path:
        """Return a repository of somebody who has installed a hook; the environments are made here."""
        told = {} if configuration is None else {".pre-commit-config.yaml": configuration}
        tree, _ = self.repository(name, {**files, **told})
        if configuration is not None:
            self.run([self.program, "install", "--install-hooks"], tree)
        return tree

    def commit(self, tree: Path) -> subprocess.CompletedProcess[bytes]:
        """Commit everything, with the hooks that are installed."""
        self.run(["git", "add", "-A"], tree)
        return self.run(["git", "commit", "-q", "-m", "change"], tree, check=False)


def _configuration(tree: Path, commit: str, hook: str, arguments: str) -> str:
    extra = f"\n        args: [{arguments}]" if arguments else ""
    return f"repos:\n  - repo: {tree}\n    rev: {commit}\n    hooks:\n      - id: {hook}{extra}\n"


def _timed(hooks: Hooks, tree: Path) -> tuple[float, float]:
    """Return wall and processor seconds of a commit that passes."""
    hooks.run(["git", "add", "-A"], tree)
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    hooks.run(["git", "commit", "-q", "-m", "change"], tree)
    wall_s, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="What a commit of one changed file costs with hooks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args(arguments)
    hooks = Hooks(asked.folder)
    files: dict[str, Path | str] = {
        name: ROOT / "detectors" / name for name in ("cache.py", "findings.py", "snapshot.py", "model.py")
    }
    # A commit has to pass, and ruff without a word of its user chooses rules that these files do not keep.
    files["ruff.toml"] = '[lint]\nselect = ["E4", "E7", "E9", "F"]\n'
    only_new = "--since, HEAD, --detectors, 'power-of-ten-c,power-of-ten-python', --fail-on, error"
    configurations = {
        "no hook": None, "ruff's own hook": hooks.ruff_hook(), "our hook": hooks.own_hook(),
        "our hook, only what is new": hooks.own_hook(only_new),
    }  # fmt: skip
    trees = {
        name: hooks.user(f"user{number}", files, configuration)
        for number, (name, configuration) in enumerate(configurations.items())
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    for round_ in range(asked.rounds + 1):
        for name, tree in trees.items():
            with (tree / "cache.py").open("a") as opened:
                opened.write(f"# {round_}\n")
            seconds = _timed(hooks, tree)
            if round_:  # the first fills the caches
                taken[name].append(seconds)
    print(f"{asked.rounds} warm commits of one changed file of {len(files)} under each, by turns")
    print("seconds: median (range)")
    for name, found in taken.items():
        wall, cpu = [one for one, _ in found], [one for _, one in found]
        print(
            f"{name:28} wall {statistics.median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f})  "
            f"processor {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f})"
        )


if __name__ == "__main__":
    main()
