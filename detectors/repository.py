"""
A git repository's commits, read by git without any setting of that repository.

Git runs what a repository's own files tell it to: `.git/config` (file-system monitor, hooks, filters, text conversion,
external diff, pager, credential helpers, ssh commands, includes), hooks, attributes of the work tree, promisor remotes.
So git never sees them. It is given a folder of ours with a configuration of ours, and of the repository only what is
data: the heads, copied, and the objects, linked. It has no work tree, asks no index, and runs in the sandbox like any
wrapped tool. What differs from a commit is decided by the bytes of the files, not by an index that can be made to lie.

Source: git-config(1), gitattributes(5), githooks(5), gitrepository-layout(5).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from detectors import sandbox
from detectors.errors import RepositoryUnusable, ToolCrashed, ToolMissing

__all__ = ["BlamedLine", "Repository", "TreeEntry"]

LIMITS: Final = sandbox.Limits(wall_s=120.0, cpu_s=240)
GIT_FOLDERS: Final = "/usr/bin:/bin:/usr/local/bin"
ENVIRONMENT: Final = (
    "GIT_CONFIG_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0",
    "GIT_ATTR_NOSYSTEM=1", "GIT_PAGER=cat", "GIT_ALLOW_PROTOCOL=",
)  # fmt: skip
MAX_REF_BYTES = 64 << 20
"""Of all that is copied of heads; a repository with more is not one that people work in."""
MAX_REFS = 200_000
MAX_POINTER_BYTES = 4096
BATCH_BYTES = 64 << 20
"""Of objects that are asked for at once; what a sandboxed program may print is four times that."""
MAX_REF_CHARACTERS = 250
COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SHA256_OBJECTS: Final = re.compile(rb"(?mi)^\s*objectformat\s*=\s*sha256\s*$")
FILES: Final = frozenset({b"100644", b"100755"})
SUBMODULE: Final = b"160000"


class TreeEntry(msgspec.Struct, frozen=True):
    """What a commit has under one path."""

    kind: bytes
    """Its mode as git prints it: `100644`, `100755`, `120000` for a link, `160000` for a submodule's commit."""
    id: str
    size_bytes: int
    """0 for what has none of its own."""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.kind in FILES


class BlamedLine(msgspec.Struct, frozen=True):
    """Who wrote a line last."""

    mail: str
    seconds: int
    """Since 1970, as the author's clock said."""


class Repository:
    """
    A repository; a context manager that removes its scratch folder.

    Args:
        tree: A folder in the work tree.

    Raises:
        RepositoryUnusable: It lies in no repository, or in one of a kind that is not read.
        ToolMissing: There is no git.
    """

    def __init__(self, tree: Path) -> None:
        program = shutil.which("git", path=GIT_FOLDERS)
        if program is None:
            raise ToolMissing("git", "install it (`apt-get install git`)")
        self._program = program
        self.top = _top_of(Path(os.path.realpath(tree)))
        """The work tree's top folder."""
        own, shared = _folders_of(self.top)
        self._scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="repository-")))
        self._git = self._scratch / "git"
        try:
            self.hash = _laid_out(self._git, own, shared, str(self.top))
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def commit(self, ref: str) -> str:
        """Return the id of the commit that a name stands for; raises RepositoryUnusable where there is none."""
        if not ref or ref.startswith("-") or len(ref) > MAX_REF_CHARACTERS or not ref.isprintable():
            raise RepositoryUnusable(str(self.top), f"{ref!r} is no name of a commit")
        told = self._asked(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"])
        found = told.decode("ascii", "replace").strip() if told is not None else ""
        if not COMMIT.fullmatch(found):
            raise RepositoryUnusable(
                str(self.top), f"it has no commit {ref!r}; fetch it first (`git fetch origin {ref.rpartition('/')[2]}`)"
            )
        return found

    def fork_point(self, commit: str, head: str = "HEAD") -> str:
        """
        Return the newest commit that two have in common: what a branch was made of.

        Raises:
            RepositoryUnusable: They have none, or it was not fetched.
        """
        here = self.commit(head)
        told = self._asked(["merge-base", commit, here])
        found = told.decode("ascii", "replace").split("\n")[0] if told is not None else ""
        if not COMMIT.fullmatch(found):
            raise RepositoryUnusable(
                str(self.top),
                f"{commit[:12]} and {head} have no commit in common here; fetch more of the history (`git fetch "
                "--unshallow`, in CI: fetch-depth: 0, GIT_DEPTH: 0)",
            )
        return found

    def tree(self, commit: str) -> dict[bytes, TreeEntry]:
        """Return all files of a commit by their path from the top; raises RepositoryUnusable where it is damaged."""
        assert COMMIT.fullmatch(commit), "the id of a commit"
        told = self._told(["ls-tree", "-r", "-z", "-l", "--full-tree", commit])
        entries: dict[bytes, TreeEntry] = {}
        for line in told.split(b"\0")[:-1]:
            head, _, path = line.partition(b"\t")
            fields = head.split()
            if len(fields) != 4 or not path:
                raise RepositoryUnusable(str(self.top), f"the tree of {commit[:12]} cannot be understood")
            size = int(fields[3]) if fields[3].isdigit() else 0
            entries[path] = TreeEntry(fields[0], fields[2].decode("ascii", "replace"), size)
        return entries

    def contents(self, entries: Iterable[TreeEntry]) -> Iterator[tuple[str, bytes]]:
        """Yield (id, bytes) of files as the commit has them, unfiltered; raises RepositoryUnusable where one lacks."""
        batch: list[str] = []
        size = 0
        for entry in sorted({entry.id: entry for entry in entries}.values(), key=lambda entry: entry.id):
            assert entry.is_file, "only files have bytes"
            if batch and size + entry.size_bytes > BATCH_BYTES:
                yield from self._batch(batch)
                batch, size = [], 0
            batch.append(entry.id)
            size += entry.size_bytes
        if batch:
            yield from self._batch(batch)

    def blame(self, commit: str, path: bytes) -> tuple[BlamedLine, ...]:
        """Return who wrote each line of a file of a commit; empty where git cannot tell."""
        assert COMMIT.fullmatch(commit), "the id of a commit"
        told = self._asked(["blame", "--porcelain", commit, "--", os.fsdecode(path)])
        if told is None:
            return ()
        authors: dict[bytes, BlamedLine] = {}
        lines: list[bytes] = []
        mail, current = "", b""
        for line in told.split(b"\n"):
            if line.startswith(b"\t"):
                lines.append(current)
            elif line.startswith(b"author-mail "):
                mail = line[12:].strip(b"<> ").decode("utf-8", "replace")
            elif line.startswith(b"author-time ") and line[12:].isdigit():
                authors[current] = BlamedLine(mail, int(line[12:]))
            elif COMMIT.fullmatch(line.split(b" ")[0].decode("ascii", "replace")):
                current = line.split(b" ")[0]
        if any(line not in authors for line in lines):
            raise RepositoryUnusable(str(self.top), "what git blames cannot be understood")
        return tuple(authors[line] for line in lines)

    def blob_id(self, data: bytes) -> str:
        """Return the id that git gives to these bytes."""
        state = hashlib.new(self.hash, b"blob %d\0" % len(data), usedforsecurity=False)
        state.update(data)
        return state.hexdigest()

    def _batch(self, ids: list[str]) -> Iterator[tuple[str, bytes]]:
        told = self._told(["cat-file", "--batch"], "".join(f"{one}\n" for one in ids).encode())
        place = 0
        for one in ids:
            end = told.find(b"\n", place)
            fields = told[place:end].split()
            if end < 0 or len(fields) != 3 or fields[1] != b"blob":
                raise RepositoryUnusable(str(self.top), f"it does not hold the object {one}; was it fetched in part?")
            size = int(fields[2])
            data = told[end + 1 : end + 1 + size]
            if self.blob_id(data) != one:
                raise RepositoryUnusable(str(self.top), f"its object {one} is damaged")
            yield one, data
            place = end + 1 + size + 1

    def _told(self, arguments: list[str], given: bytes = b"") -> bytes:
        told = self._asked(arguments, given)
        if told is None:
            raise RepositoryUnusable(str(self.top), f"git {arguments[0]} failed; is the repository damaged?")
        return told

    def _asked(self, arguments: list[str], given: bytes = b"") -> bytes | None:
        """Return what git prints; None where it ends otherwise than well. Raises RepositoryUnusable for a crash."""
        argv = [
            "/usr/bin/env", *ENVIRONMENT, self._program, "--no-pager", "--no-replace-objects", "--literal-pathspecs",
            f"--git-dir={self._git}", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", *arguments,
        ]  # fmt: skip
        try:
            completed = sandbox.run("git", argv, self._git, LIMITS, 1, given)
        except ToolCrashed as problem:
            raise RepositoryUnusable(str(self.top), str(problem)) from problem
        return completed.stdout if completed.exit_code == 0 else None


def _top_of(tree: Path) -> Path:
    for folder in (tree, *tree.parents):
        if os.path.lexists(folder / ".git"):
            return folder
    raise RepositoryUnusable(str(tree), "neither it nor a folder above has a .git")


def _folders_of(top: Path) -> tuple[Path, Path]:
    """Return the folders of this work tree's own files and of the shared ones; raises RepositoryUnusable."""
    place = top / ".git"
    mode = place.lstat().st_mode
    if stat.S_ISDIR(mode):
        return place, place
    if not stat.S_ISREG(mode):
        raise RepositoryUnusable(str(top), "its .git is neither a folder nor a file")
    told = _read(place, MAX_POINTER_BYTES).strip()
    own = Path(os.path.realpath(top / os.fsdecode(told.removeprefix(b"gitdir: "))))
    try:
        # A work tree of `git worktree` is known to its repository; any other file could point at anybody's.
        back = os.path.realpath(os.fsdecode(_read(own / "gitdir", MAX_POINTER_BYTES).strip()))
        common = own / os.fsdecode(_read(own / "commondir", MAX_POINTER_BYTES).strip())
    except OSError as problem:
        told_why = "its .git names a folder that is no work tree's; name a tree in the outermost repository"
        raise RepositoryUnusable(str(top), told_why) from problem
    if back != os.path.realpath(place):
        raise RepositoryUnusable(str(top), f"its .git names {own}, which does not know this work tree")
    return own, Path(os.path.realpath(common))


def _laid_out(git: Path, own: Path, shared: Path, told: str) -> str:
    """Make a git folder of ours with the repository's heads and objects; return the name of its hash."""
    try:
        if (shared / "reftable").exists():
            raise RepositoryUnusable(told, "its heads are in a reftable, which is not read; give a checkout with files")
        config = _read(shared / "config", MAX_REF_BYTES)
        name = "sha256" if SHA256_OBJECTS.search(config) else "sha1"
        git.mkdir(mode=0o700)
        version, format_ = (1, "[extensions]\n\tobjectFormat = sha256\n") if name == "sha256" else (0, "")
        (git / "config").write_text(f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n{format_}")
        (git / "HEAD").write_bytes(_read(own / "HEAD", MAX_POINTER_BYTES))
        for optional in ("packed-refs", "shallow"):
            if (shared / optional).is_file():
                (git / optional).write_bytes(_read(shared / optional, MAX_REF_BYTES))
        _copy_refs(shared / "refs", git / "refs", told)
        _link_objects(shared / "objects", git / "objects", told)
    except OSError as problem:
        raise RepositoryUnusable(told, f"{problem.filename}: {problem.strerror}") from problem
    assert (git / "objects").is_dir(), "git takes a folder without objects for none"
    return name


def _copy_refs(source: Path, target: Path, told: str) -> None:
    target.mkdir()
    copied = 0
    for folder, folders, names in os.walk(source, followlinks=False):
        place = target / Path(folder).relative_to(source)
        for name in folders:
            (place / name).mkdir(exist_ok=True)
        for name in names:
            if not Path(folder, name).is_symlink():
                (place / name).write_bytes(_read(Path(folder, name), MAX_POINTER_BYTES))
            copied += 1
            if copied > MAX_REFS:
                raise RepositoryUnusable(told, f"it has more than {MAX_REFS} heads; run `git pack-refs --all`")


def _link_objects(source: Path, target: Path, told: str) -> None:
    """Link the folders of objects; `info`, with the alternates that lead elsewhere, is not among them."""
    target.mkdir()
    with os.scandir(source) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False) or not re.fullmatch(r"pack|[0-9a-f]{2}", entry.name):
            continue
        with os.scandir(entry.path) as inner:
            if any(one.is_symlink() for one in inner):
                raise RepositoryUnusable(told, f"its objects/{entry.name} holds a link to elsewhere")
        (target / entry.name).symlink_to(entry.path)
    (target / "pack").mkdir(exist_ok=True)


def _read(file: Path, most: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file", str(file))
        data = opened.read(most + 1)
    if len(data) > most:
        raise OSError(0, f"it is larger than {most} bytes", str(file))
    return data
