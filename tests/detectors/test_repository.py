"""Commits read from repositories that nobody has to trust."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from detectors.errors import RepositoryUnusable
from detectors.repository import Repository
from detectors.scan import ScanOptions, scan
from tests.detectors.git_trees import PLANTS, Plant, committed, git, made

FILES = {"a.py": "def f(n):\n    return n\n", "b.py": "B = 1\n"}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_nothing_that_a_repository_names_is_run(plant: Plant, tmp_path: Path) -> None:
    """A scan of a hostile checkout must not run its programs; the same plant runs under ordinary git."""
    tree = made(tmp_path / "tree", FILES)
    marker, program = tmp_path / "it-ran", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    program.chmod(0o755)
    plant.plant(tree, program)
    (tree / "a.py").write_text("def f(n):\n    return eval(n)\n")
    marker.unlink(missing_ok=True)

    try:
        record = scan(ScanOptions((tree,), ("power-of-ten-python",), "inline", since="HEAD"))
        assert "a.py" in record.since.touched  # type: ignore[union-attr]
    except RepositoryUnusable:
        assert plant.name == "promisor-remote"  # what is not here is not fetched
    with Repository(tree) as repository:
        repository.blame(repository.commit("HEAD"), b"a.py")
    assert not marker.exists()
    plant.spring(tree)
    assert marker.exists(), "the plant is none: this test shows nothing"


def test_objects_of_other_repositories_are_not_read(tmp_path: Path) -> None:
    """Alternates and links would let a tree show what lies in a neighbour's repository."""
    other = made(tmp_path / "other", {"secret.py": "SECRET = 1\n"})
    secret = git(other, "rev-parse", "HEAD").strip()
    tree = made(tmp_path / "tree", FILES)
    (tree / ".git" / "objects" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "objects" / "info" / "alternates").write_text(f"{other}/.git/objects\n")
    git(tree, "cat-file", "-e", secret)  # ordinary git reads it

    with Repository(tree) as repository, pytest.raises(RepositoryUnusable, match="no commit"):
        repository.commit(secret)
    shutil.rmtree(tree / ".git" / "objects" / "pack")
    (tree / ".git" / "objects" / "pack").mkdir()
    (tree / ".git" / "objects" / "pack" / "x.pack").symlink_to(other / ".git" / "HEAD")
    with pytest.raises(RepositoryUnusable, match="a link to elsewhere"):
        Repository(tree)


def test_a_tree_that_points_at_a_neighbours_repository_is_refused(tmp_path: Path) -> None:
    """A `.git` file may name any folder of the machine; only one that knows the tree is its repository."""
    other = made(tmp_path / "other", FILES)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {other}/.git\n")
    with pytest.raises(RepositoryUnusable):
        Repository(tree)

    git(other, "worktree", "add", "-q", str(tmp_path / "second"), "-b", "second")
    with Repository(tmp_path / "second") as repository:
        assert repository.commit("HEAD") == git(other, "rev-parse", "second").strip()


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
def test_a_commit_is_read_as_git_has_it(hash_name: str, tmp_path: Path) -> None:
    """Names of any bytes, packed or loose, under both hashes: the tree, the bytes and the authors."""
    tree = made(tmp_path / "tree", FILES, hash_name=hash_name)
    odd = b"\xff odd\nname.py"
    Path(os.fsdecode(os.fsencode(tree) + b"/" + odd)).write_bytes(b"\0x = 1\r\n")
    first = git(tree, "rev-parse", "HEAD").strip()
    commit = committed(tree, {"b.py": "B = 1\nC = 2\n"})
    git(tree, "gc", "-q")

    with Repository(tree / ".") as repository:
        assert repository.commit("main") == repository.fork_point(commit) == commit
        assert repository.fork_point(first) == first
        entries = repository.tree(commit)
        contents = dict(repository.contents(entries.values()))
        assert {name: contents[entry.id] for name, entry in entries.items()} == {
            b"a.py": FILES["a.py"].encode(), b"b.py": b"B = 1\nC = 2\n", odd: b"\0x = 1\r\n",
        }  # fmt: skip
        assert all(repository.blob_id(data) == id_ for id_, data in contents.items())
        assert [line.mail for line in repository.blame(commit, b"b.py")] == ["author@example.org"] * 2
        assert repository.blame(commit, b"none.py") == ()


@pytest.mark.parametrize("ref", ["", "--output=x", "none", "HEAD~9", "a\nb", "HEAD:a.py", "x" * 300])
def test_a_name_that_is_no_commit_is_refused_with_a_remedy(ref: str, tmp_path: Path) -> None:
    """An option in the place of a name, or a branch that was not fetched, gets a clear error."""
    tree = made(tmp_path / "tree", FILES)
    with Repository(tree) as repository, pytest.raises(RepositoryUnusable):
        repository.commit(ref)
    with pytest.raises(RepositoryUnusable, match="nor a folder above"):
        Repository(tmp_path)


def test_a_shallow_checkout_says_what_to_fetch(tmp_path: Path) -> None:
    """CI clones one commit; without the fork point no comparison is honest."""
    tree = made(tmp_path / "tree", FILES)
    git(tree, "checkout", "-q", "-b", "topic")
    committed(tree, {"c.py": "C = 1\n"})
    git(tree, "checkout", "-q", "main")
    committed(tree, {"b.py": "B = 2\n"})
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", "--no-single-branch", f"file://{tree}", str(clone))

    with Repository(clone) as repository, pytest.raises(RepositoryUnusable, match="fetch-depth: 0"):
        repository.fork_point(repository.commit("origin/topic"))
    git(clone, "fetch", "-q", "--unshallow")
    with Repository(clone) as repository:
        forked = repository.fork_point(repository.commit("origin/topic"))
    assert forked == git(tree, "merge-base", "main", "topic").strip()
