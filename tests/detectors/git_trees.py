"""Git repositories for tests, and what a hostile one can make git run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
    "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "author@example.org", "GIT_COMMITTER_NAME": "n",
    "GIT_COMMITTER_EMAIL": "author@example.org", "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}  # fmt: skip


def git(tree: Path, *arguments: str, given: str = "", check: bool = True) -> str:
    """Run git as anybody would, believing the repository; return what it prints."""
    done = subprocess.run(
        ["git", "-C", str(tree), *arguments], env=ENVIRONMENT, input=given, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


def made(tree: Path, files: dict[str, str], *, hash_name: str = "sha1") -> Path:
    """Make a repository with one commit of some files."""
    tree.mkdir(parents=True)
    git(tree, "init", "-q", "-b", "main", f"--object-format={hash_name}")
    committed(tree, files)
    return tree


def committed(tree: Path, files: dict[str, str]) -> str:
    """Write files and commit everything; return the commit."""
    for name, text in files.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "change")
    return git(tree, "rev-parse", "HEAD").strip()


class Plant(Struct, frozen=True):
    """Something in a repository that makes git run a program."""

    name: str
    plant: Callable[[Path, Path], None]
    """Given the tree and the program."""
    spring: Callable[[Path], None]
    """An ordinary use of git that runs it."""


def _config(tree: Path, **settings: str) -> None:
    for name, value in settings.items():
        git(tree, "config", name.replace("__", "."), value)


def _hook(tree: Path, program: Path, folder: str = ".git/hooks") -> None:
    (tree / folder).mkdir(exist_ok=True)
    hook = tree / folder / "reference-transaction"
    hook.write_text(program.read_text())
    hook.chmod(0o755)


def _attributes(tree: Path, what: str) -> None:
    (tree / ".gitattributes").write_text(f"* {what}=evil\n")


def _plant_textconv(tree: Path, program: Path) -> None:
    _attributes(tree, "diff")
    _config(tree, diff__evil__textconv=str(program))


def _plant_filter(tree: Path, program: Path) -> None:
    _attributes(tree, "filter")
    _config(tree, filter__evil__clean=str(program), filter__evil__smudge=str(program))


def _plant_hooks_path(tree: Path, program: Path) -> None:
    _hook(tree, program, "evil")
    _config(tree, core__hooksPath=str(tree / "evil"))


def _plant_include(tree: Path, program: Path) -> None:
    (tree / "evil.cfg").write_text(f'[core]\n\tfsmonitor = "{program}"\n')
    _config(tree, include__path=str(tree / "evil.cfg"))


def _plant_worktree_config(tree: Path, program: Path) -> None:
    _config(tree, core__repositoryformatversion="1", extensions__worktreeConfig="true")
    (tree / ".git" / "config.worktree").write_text(f'[core]\n\tfsmonitor = "{program}"\n')


def _plant_ssh(tree: Path, program: Path) -> None:
    _config(tree, core__sshCommand=str(program), remote__origin__url="ssh://git@example.invalid/x")


def _plant_promisor(tree: Path, program: Path) -> None:
    _config(
        tree, core__repositoryformatversion="1", extensions__partialClone="origin", remote__origin__promisor="true",
        protocol__ext__allow="always", remote__origin__url=f"ext::{program}",
    )  # fmt: skip
    lost = git(tree, "rev-parse", "HEAD:a.py").strip()
    (tree / ".git" / "objects" / lost[:2] / lost[2:]).unlink()


def _plant_submodule(tree: Path, program: Path) -> None:
    inner = made(tree.parent / "inner", {"in.py": "A = 1\n"})
    git(tree, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "module")
    git(tree, "commit", "-q", "-m", "module")
    _config(tree, submodule__module__update=f"!{program}")
    git(tree / "module", "commit", "-q", "--allow-empty", "-m", "other")


def _under_a_terminal(tree: Path) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(
        ["git", "-C", str(tree), "-p", "log"], env=ENVIRONMENT | {"TERM": "xterm"}, stdout=theirs, stdin=theirs,
        check=False, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode in (0, 141)


PLANTS = (
    Plant("fsmonitor", lambda tree, it: _config(tree, core__fsmonitor=str(it)), lambda tree: _run(tree, "status")),
    Plant("hook", _hook, lambda tree: _run(tree, "update-ref", "refs/heads/other", "HEAD")),
    Plant("hooks-path", _plant_hooks_path, lambda tree: _run(tree, "update-ref", "refs/heads/other", "HEAD")),
    Plant("external-diff", lambda tree, it: _config(tree, diff__external=str(it)), lambda tree: _run(tree, "diff", "HEAD")),
    Plant("textconv", _plant_textconv, lambda tree: _run(tree, "diff", "HEAD")),
    Plant("textconv-blame", _plant_textconv, lambda tree: _run(tree, "blame", "a.py")),
    Plant("filter", _plant_filter, lambda tree: _run(tree, "diff", "HEAD")),
    Plant("pager", lambda tree, it: _config(tree, core__pager=str(it)), _under_a_terminal),
    Plant(
        "credential-helper", lambda tree, it: _config(tree, credential__helper=f"!{it}"),
        lambda tree: _run(tree, "credential", "fill", given="protocol=https\nhost=example.invalid\n\n"),
    ),
    Plant("ssh-command", _plant_ssh, lambda tree: _run(tree, "fetch", "origin")),
    Plant("promisor-remote", _plant_promisor, lambda tree: _run(tree, "cat-file", "-p", "HEAD:a.py")),
    Plant("include", _plant_include, lambda tree: _run(tree, "status")),
    Plant("worktree-config", _plant_worktree_config, lambda tree: _run(tree, "status")),
    Plant("submodule-update", _plant_submodule, lambda tree: _run(tree, "submodule", "update")),
)  # fmt: skip


def _run(tree: Path, *arguments: str, given: str = "") -> None:
    git(tree, *arguments, given=given, check=False)
