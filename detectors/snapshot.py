"""
A directory to a `Snapshot`: scope, gitignore rules, stat index, digests; later reads are checked against the digest.

The tree is untrusted. Symlinks are never followed, files are opened without following one and only when they are
regular, and whatever cannot be read is an entry of its own (`NotAnalysed`), never silence. What scope rules hide is
counted and listed (`Excluded`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from detectors.errors import SourceChanged, UsageError
from detectors.model import Digest, Excluded, Language, NotAnalysed, Reason, Root, SourceFile

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = [
    "Scope",
    "Snapshot",
    "StatEntry",
    "StatIndex",
    "hash_file",
    "read_verified",
    "report_path",
    "take_snapshot",
    "verified",
]

VERSION_CONTROL = frozenset({b".git", b".hg", b".svn", b".bzr"})
RACY_NS = 2_000_000_000
"""A file touched this shortly before its hashing is hashed again next time: the coarsest mtime in use is 2 s (FAT)."""
MAX_IGNORE_FILE_BYTES = 1 << 20
MAX_PATTERN_CHARACTERS = 120
"""Of a pattern that is told beside what it excludes."""
CHUNK_BYTES = 1 << 20

SUFFIXES: dict[bytes, Language] = {
    b".c": "c", b".h": "c",
    b".cc": "cpp", b".cpp": "cpp", b".cxx": "cpp", b".c++": "cpp", b".C": "cpp",
    b".hh": "cpp", b".hpp": "cpp", b".hxx": "cpp", b".h++": "cpp", b".ipp": "cpp", b".tcc": "cpp",
    b".py": "python", b".pyi": "python", b".pyw": "python",
}  # fmt: skip


class Scope(msgspec.Struct, frozen=True):
    """Which files of the tree are looked at."""

    include: tuple[str, ...] = ()
    """Gitignore-style patterns; when there are any, only files that match one are in scope."""
    exclude: tuple[str, ...] = ()
    ignore: bool = True
    """Whether the tree's `.gitignore` files are obeyed."""


class Snapshot(msgspec.Struct, frozen=True):
    """The tree as one run saw it; `files` sorted by path."""

    roots: tuple[Root, ...]
    files: tuple[SourceFile, ...]
    excluded: tuple[Excluded, ...]
    not_analysed: tuple[NotAnalysed, ...]


class StatEntry(msgspec.Struct, frozen=True):
    """What the index remembers of a file: its stat when hashed, and the answer."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    digest: Digest
    language: Language
    hashed_ns: int

    def trusts(self, seen: os.stat_result) -> bool:
        """
        Tell whether `seen` is surely the file that was hashed.

        Like git's racy entries: a file that changed within the clock's tick of its hashing may have changed again
        without any trace in its stat, so such an entry is not trusted.
        """
        same = (self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode, self.device) == (
            seen.st_size,
            seen.st_mtime_ns,
            seen.st_ctime_ns,
            seen.st_ino,
            seen.st_dev,
        )
        return same and max(self.mtime_ns, self.ctime_ns) + RACY_NS < self.hashed_ns


_Rules: TypeAlias = "tuple[bytes, GitIgnoreSpec, tuple[str, ...]]"
"""An ignore file: its folder, what it says, and its lines."""


class StatIndex(Protocol):
    """Where stat entries are kept between runs (`cache.ResultCache`)."""

    def known(self, root: str) -> dict[bytes, StatEntry]:
        """Return the entries of a root, by raw path."""
        ...

    def remember(self, root: str, entries: dict[bytes, StatEntry]) -> None:
        """Keep new entries of a root."""
        ...


class _Walk:
    """What one walk gathers; one object for all roots of a snapshot."""

    def __init__(self, roots: tuple[Root, ...], scope: Scope, index: StatIndex | None) -> None:
        self.roots, self.scope, self.index = roots, scope, index
        self.files: list[SourceFile] = []
        self.excluded: list[Excluded] = []
        self.not_analysed: list[NotAnalysed] = []
        self.taken: set[str] = set()
        self.include = _spec(scope.include)
        self.exclude = _spec(scope.exclude)

    def path(self, root: Root, raw: bytes) -> str:
        """Return the report path of `raw`, different from all given before."""
        path = report_path(raw, root.label)
        # `a%FF` may be a name in itself, or the encoding of b"a\xff": the later one gets a byte no name can hold.
        while path in self.taken:
            path += "%00"
        self.taken.add(path)
        return path

    def root(self, number: int, only: Sequence[bytes] | None) -> None:
        """Walk one root, or look at the files `only` of it."""
        root = self.roots[number]
        base = os.fsencode(root.path)
        known = self.index.known(root.path) if self.index else {}
        fresh: dict[bytes, StatEntry] = {}
        found = self._listed(base, only) if only is not None else self._walked(root, base)
        for raw, seen in sorted(found, key=lambda pair: pair[0]):
            self._file(number, base, raw, seen, known, fresh)
        if self.index and fresh:
            self.index.remember(root.path, fresh)

    def _listed(self, base: bytes, only: Sequence[bytes]) -> Iterator[tuple[bytes, os.stat_result]]:
        for raw in only:
            yield raw, os.lstat(os.path.join(base, raw))

    def _walked(self, root: Root, base: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """Yield every file in scope, depth-first with a stack of our own; note what is not."""
        stack: list[tuple[bytes, tuple[_Rules, ...]]] = [(b"", ())]
        while stack:
            folder, specs = stack.pop()
            try:
                entries = sorted(os.scandir(os.path.join(base, folder) if folder else base), key=lambda e: e.name)
            except OSError as problem:
                self._lost(root, folder, problem)
                continue
            if self.scope.ignore:
                specs += self._ignore_rules(base, folder, entries)
            for entry in entries:
                raw = folder + b"/" + entry.name if folder else entry.name
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError as problem:
                    self._lost(root, raw, problem)
                    continue
                is_folder = stat.S_ISDIR(seen.st_mode)
                if hidden := self._hidden_by(raw, entry.name, is_folder, specs):
                    hides = _count_files(os.path.join(base, raw)) if is_folder else 1
                    self.excluded.append(Excluded(self.path(root, raw) + ("/" if is_folder else ""), hidden, hides))
                elif is_folder:
                    stack.append((raw, specs))
                elif stat.S_ISREG(seen.st_mode):
                    yield raw, seen
                else:
                    self._special(root, base, raw, seen)

    def _ignore_rules(self, base: bytes, folder: bytes, entries: list[os.DirEntry[bytes]]) -> tuple[_Rules, ...]:
        if not any(entry.name == b".gitignore" and entry.is_file(follow_symlinks=False) for entry in entries):
            return ()
        try:
            descriptor = _open_regular(os.path.join(base, folder, b".gitignore"))
            with os.fdopen(descriptor, "rb") as file:
                lines = tuple(file.read(MAX_IGNORE_FILE_BYTES).decode("utf-8", "surrogateescape").splitlines())
        except OSError:
            return ()  # listed as unreadable where it is met as a file of the tree
        spec = _spec(lines)
        return ((folder, spec, lines),) if spec is not None else ()

    def _hidden_by(self, raw: bytes, name: bytes, is_folder: bool, specs: tuple[_Rules, ...]) -> str | None:
        if is_folder and name in VERSION_CONTROL:
            return "version-control metadata"
        text = raw.decode("utf-8", "surrogateescape") + ("/" if is_folder else "")
        if self.exclude is not None and (verdict := self.exclude.check_file(text)).include:
            return f"--exclude {_pattern(self.scope.exclude, verdict.index)}".rstrip()
        if self.include is not None and not is_folder and not self.include.match_file(text):
            return f"--include: it matches none of {len(self.scope.include)}"
        for folder, spec, lines in reversed(specs):
            inside = text[len(folder.decode("utf-8", "surrogateescape")) + 1 :] if folder else text
            verdict = spec.check_file(inside)
            if verdict.include is not None:
                where = report_path(folder + b"/.gitignore" if folder else b".gitignore", "")
                if not verdict.include:
                    return None
                return f"{where}:{(verdict.index or 0) + 1}: {_pattern(lines, verdict.index)}"
        return None

    def _special(self, root: Root, base: bytes, raw: bytes, seen: os.stat_result) -> None:
        path = self.path(root, raw)
        if not stat.S_ISLNK(seen.st_mode):
            self.not_analysed.append(NotAnalysed(path, "", "special-file", _kind(seen.st_mode)))
            return
        try:
            target = os.path.realpath(os.path.join(base, raw), strict=True)
        except OSError as problem:
            loop = problem.errno == errno.ELOOP
            detail = "a loop of symbolic links" if loop else "a symbolic link to nothing"
            self.not_analysed.append(NotAnalysed(path, "", "symlink", detail))
            return
        if target == base or target.startswith(base + b"/"):
            # Its target is met under its own name; analysing it twice would double every finding.
            self.excluded.append(Excluded(path, f"symbolic link to {report_path(target[len(base) + 1 :], '') or '.'}"))
        else:
            self.not_analysed.append(NotAnalysed(path, "", "symlink", "a symbolic link out of the root"))

    def _lost(self, root: Root, raw: bytes, problem: OSError) -> None:
        reason: Reason = "vanished" if isinstance(problem, FileNotFoundError) else "unreadable"
        path = self.path(root, raw) if raw else (root.label or ".")
        self.not_analysed.append(NotAnalysed(path, "", reason, problem.strerror or type(problem).__name__))

    def _file(  # noqa: PLR0917  # the walk's state of one root, handed down
        self,
        number: int,
        base: bytes,
        raw: bytes,
        seen: os.stat_result,
        known: dict[bytes, StatEntry],
        fresh: dict[bytes, StatEntry],
    ) -> None:
        root = self.roots[number]
        entry = known.get(raw)
        if entry is None or not entry.trusts(seen):
            try:
                entry = hash_file(os.path.join(base, raw))
            except OSError as problem:
                self._lost(root, raw, problem)
                return
            fresh[raw] = entry
        self.files.append(
            SourceFile(
                self.path(root, raw),
                raw,
                number,
                entry.size_bytes,
                entry.mtime_ns,
                entry.inode,
                entry.digest,
                entry.language,
            )
        )


def take_snapshot(paths: Sequence[Path], scope: Scope | None = None, index: StatIndex | None = None) -> Snapshot:
    """
    See the trees below `paths` as they are now.

    Args:
        paths: Folders, or files (several files count as one root, their common folder).
        scope: Patterns and ignore rules.
        index: Spares the hashing of files whose stat has not changed.

    Raises:
        UsageError: A path does not exist, or is neither folder nor regular file.
    """
    folders, files = _arguments(paths)
    roots = _roots(folders, files)
    walk = _Walk(roots, scope or Scope(), index)
    for number, root in enumerate(roots):
        only = None
        if files and number == len(roots) - 1:
            only = sorted({os.path.relpath(os.fsencode(file), os.fsencode(root.path)) for file in files})
        walk.root(number, only)
    return Snapshot(
        roots,
        tuple(sorted(walk.files, key=lambda file: file.path)),
        tuple(sorted(walk.excluded)),
        tuple(sorted(walk.not_analysed)),
    )


def read_verified(root: str, file: SourceFile) -> bytes:
    """
    Read a file of a snapshot again.

    Raises:
        SourceChanged: It vanished, cannot be read, is no regular file any more, or its bytes have another digest.
    """
    path = os.path.join(os.fsencode(root), file.raw)
    try:
        with os.fdopen(_open_regular(path), "rb") as opened:
            data = opened.read()
    except FileNotFoundError:
        raise SourceChanged(file.path, "vanished") from None
    except OSError as problem:
        raise SourceChanged(file.path, f"became unreadable ({problem.strerror})") from problem
    return verified(file, data)


def verified(file: SourceFile, data: bytes) -> bytes:
    """Return the content of a file of a snapshot if it still is that; raises SourceChanged."""
    if "sha256:" + hashlib.sha256(data).hexdigest() != file.digest:
        raise SourceChanged(file.path, "changed")
    assert len(data) == file.size_bytes, "one digest, one content"
    return data


def report_path(raw: bytes, label: str) -> str:
    """Return a raw path as reports show it; see `detectors.model`."""
    try:
        path = raw.decode("utf-8")
    except UnicodeDecodeError:
        escaped = raw.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
        path = "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in escaped)
    return f"{label}/{path}" if label else path


def _arguments(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    files: list[str] = []
    for path in paths:
        resolved = os.path.realpath(path)
        try:
            mode = os.stat(resolved).st_mode
        except OSError as problem:
            raise UsageError(f"cannot scan {os.fspath(path)!r}: {problem.strerror}") from problem
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UsageError(f"cannot scan {os.fspath(path)!r}: it is {_kind(mode)}; name a folder or a regular file")
        wanted = folders if stat.S_ISDIR(mode) else files
        if resolved not in wanted:
            wanted.append(resolved)
    if not folders and not files:
        raise UsageError("name at least one folder or file to scan")
    return folders, files


def _roots(folders: list[str], files: list[str]) -> tuple[Root, ...]:
    places = list(folders)
    if files:
        parents = [os.path.dirname(file) for file in files]
        places.append(os.path.commonpath(parents))
    if len(places) == 1:
        return (Root("", places[0], bool(files)),)
    roots: list[Root] = []
    labels: set[str] = set()
    for place in places:
        stem = report_path(os.fsencode(os.path.basename(place)), "") or "root"
        label = next(f"{stem}{tail}" for tail in _tails(len(places)) if f"{stem}{tail}" not in labels)
        labels.add(label)
        roots.append(Root(label, place, bool(files) and len(roots) == len(folders)))
    return tuple(roots)


def _tails(count: int) -> Iterator[str]:
    yield ""
    for number in range(2, count + 2):
        yield f"-{number}"


def _open_regular(path: bytes) -> int:
    # O_NONBLOCK: a FIFO put in the file's place must not hang us; O_NOFOLLOW: nor a link lead us out of the tree.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def hash_file(path: bytes) -> StatEntry:
    """Hash a regular file and tell its language; raises OSError."""
    hashed_ns = time.time_ns()
    with os.fdopen(_open_regular(path), "rb") as file:
        seen = os.fstat(file.fileno())
        head = file.read(CHUNK_BYTES)
        digest = hashlib.sha256(head)
        if len(head) == CHUNK_BYTES:
            for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
                digest.update(chunk)
    return StatEntry(
        seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino, seen.st_dev,
        Digest("sha256:" + digest.hexdigest()), _language(os.path.basename(path), head), hashed_ns,
    )  # fmt: skip


def _language(raw: bytes, head: bytes) -> Language:
    from detectors.parsing import looks_binary

    suffix = os.path.splitext(raw)[1]
    language = SUFFIXES.get(suffix) or SUFFIXES.get(suffix.lower())
    if language is not None:
        return language
    if looks_binary(head):
        return "binary"
    first = head.partition(b"\n")[0]
    return "python" if first.startswith(b"#!") and b"python" in first else "text"


def _spec(patterns: tuple[str, ...]) -> GitIgnoreSpec | None:
    if not patterns:
        return None
    from pathspec import GitIgnoreSpec

    # The library drops empty lines from its numbering; as comments they keep the number of those that follow.
    numbered = [line if line.strip() else "#" for line in patterns]
    try:
        return GitIgnoreSpec.from_lines(numbered)
    except (ValueError, re.error):
        # One bad line of the tree must not stop the scan nor hide anything.
        return GitIgnoreSpec.from_lines([line if _valid(line) else "#" for line in numbered])


def _pattern(lines: Sequence[str], index: int | None) -> str:
    """Return a pattern as evidence shows it: within bounds, and text whatever its bytes."""
    if index is None or not 0 <= index < len(lines):
        return ""
    text = lines[index].strip()
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")[:MAX_PATTERN_CHARACTERS]


def _valid(pattern: str) -> bool:
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([pattern])
    except (ValueError, re.error):
        return False
    return True


def _count_files(folder: bytes) -> int:
    return sum(len(files) for _, _, files in os.walk(folder, followlinks=False))


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
        (stat.S_ISDIR, "a folder"),
    ):
        if test(mode):
            return name
    return "no regular file"
