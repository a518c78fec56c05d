"""
What differs from a commit: which files of a snapshot, what the commit has in their place, and who has to look.

A file is touched when its bytes are not those of the commit under its path. A detector that reads single files looks
at these; one that reads closures also at every file whose closure is another than it was at the commit, which is known
from the snapshot alone. Rules over the whole tree have no smaller part that is safe: a call from any file may close a
cycle. They get the facts of all files, which come from the cache where nothing changed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from detectors.cache import ResultCache, result_key
from detectors.detector import ClosureTool, Detector, RuleGroup
from detectors.errors import RepositoryUnusable, SourceChanged
from detectors.model import Digest, Narrowed, Root, SinceRecord, SourceFile
from detectors.parsing import MAX_PARSE_BYTES
from detectors.repository import SUBMODULE, Repository, TreeEntry
from detectors.snapshot import Scope, Snapshot, read_verified, report_path, take_snapshot
from detectors.tree_closures import TreeClosures

__all__ = ["Change"]


class Change:
    """
    What differs between a snapshot and the commit that it was made of.

    Args:
        snapshot: Of the run.
        scope: By which it was taken.
        ref: Name of a commit; what counts is the newest that it has in common with the checked-out one.
        store: Keeps the ids that git gives to files' bytes.
        scratch: Empty folder for the commit's versions of what was touched.

    Raises:
        RepositoryUnusable: There is no such commit, or the trees do not lie in one repository.
        ToolMissing: There is no git.
    """

    def __init__(self, snapshot: Snapshot, scope: Scope, ref: str, store: ResultCache, scratch: Path) -> None:
        assert snapshot.roots, "a snapshot is of some tree"
        self.warnings: list[str] = []
        """What could not be compared."""
        self._head, self._store, self._ref = snapshot, store, ref
        with Repository(Path(snapshot.roots[0].path)) as repository:
            self._below = _below(repository, snapshot.roots)
            self.commit = repository.fork_point(repository.commit(ref))
            """The commit itself."""
            self._entries = repository.tree(self.commit)
            self._submodules = self._unmoved_submodules(repository)
            self.touched = frozenset(self._touched(repository))
            """Report paths of files that are new or have other bytes."""
            self.base = self._base(repository, scope, scratch)
            """The tree as the commit has it; what was not touched is read where it lies."""
        assert self.touched <= {file.path for file in snapshot.files}, "what is touched is there"

    def narrowed(
        self, detectors: Collection[Detector], closures: TreeClosures, base: TreeClosures
    ) -> dict[str, frozenset[str]]:
        """
        Return at which files a detector has to look, for those that need not look at all.

        Args:
            detectors: Of the run.
            closures: Of the snapshot.
            base: Of `base`.
        """
        found: dict[str, frozenset[str]] = {}
        for detector in detectors:
            if isinstance(detector, RuleGroup):
                continue
            looked = self.touched
            if isinstance(detector, ClosureTool) and detector.missing() is None:
                now = closures.digests(detector.closure, detector.languages)
                before = base.digests(detector.closure, detector.languages)
                looked = looked | {path for path, closure in now.items() if before.get(path) != closure}
            found[detector.name] = looked
        assert all(self.touched <= paths for paths in found.values()), "what was touched is looked at by all"
        return found

    def gone(self) -> frozenset[str]:
        """Return the report paths that the commit has and the snapshot has not."""
        return frozenset(file.path for file in self.base.files) - {file.path for file in self._head.files}

    def record(self, narrowed: Mapping[str, frozenset[str]]) -> SinceRecord:
        """Return what a run says of it."""
        kept = {file.path: file.language for file in self._head.files}
        assert all(paths <= kept.keys() for paths in narrowed.values()), "only what is there is looked at"
        selections = tuple(Narrowed(name, tuple(sorted(paths))) for name, paths in sorted(narrowed.items()))
        return SinceRecord(self._ref, self.commit, tuple(sorted(self.touched)), selections)

    def _touched(self, repository: Repository) -> Iterator[str]:
        known = self._known_ids(repository.hash)
        fresh: dict[bytes, bytes] = {}
        for file in self._head.files:
            place = self._below[file.root] + file.raw
            entry = self._entries.get(place)
            if entry is None or not entry.is_file:
                if not any(place.startswith(module + b"/") for module in self._submodules):
                    yield file.path
                continue
            if entry.size_bytes != file.size_bytes:
                yield file.path
                continue
            key = _id_key(repository.hash, file.digest)
            found = known.get(key) or fresh.get(key)
            if found is None:
                try:
                    data = read_verified(self._head.roots[file.root].path, file)
                except SourceChanged:
                    yield file.path  # whoever analyses it sees the same, and says so
                    continue
                found = fresh[key] = repository.blob_id(data).encode()
            if found != entry.id.encode():
                yield file.path
        self._store.store_values(fresh.items())

    def _known_ids(self, name: str) -> dict[bytes, bytes]:
        keys = [_id_key(name, file.digest) for file in self._head.files]
        known = self._store.values(keys)
        assert len(known) <= len(keys), "a file's bytes have one id"
        return known

    def _unmoved_submodules(self, repository: Repository) -> frozenset[bytes]:
        """Return the submodules whose commit is still the same; what is in them was not touched by a commit."""
        modules = {path: entry.id for path, entry in self._entries.items() if entry.kind == SUBMODULE}
        if not modules:
            return frozenset()
        now = repository.tree(repository.commit("HEAD"))
        same = frozenset(path for path, id_ in modules.items() if path in now and now[path].id == id_)
        self.warnings += [
            f"the submodule {report_path(path, '')} is at the commit that it had; edits in it are not compared"
            for path in sorted(same)
        ]
        return same

    def _base(self, repository: Repository, scope: Scope, scratch: Path) -> Snapshot:
        """Lay out the commit's versions of what is touched or gone, and put them in the snapshot's place."""
        roots, files = list(self._head.roots), [file for file in self._head.files if file.path not in self.touched]
        for number, root in enumerate(self._head.roots):
            folder = scratch / str(number)
            folder.mkdir()
            self._laid_out(repository, number, folder)
            seen = take_snapshot((folder,), Scope(scope.include, scope.exclude, ignore=False))
            files += [
                msgspec.structs.replace(file, path=report_path(file.raw, root.label), root=len(roots))
                for file in seen.files
            ]
            roots.append(Root(root.label, seen.roots[0].path))
        assert len({file.path for file in files}) == len(files), "a path stands for one file"
        return Snapshot(tuple(roots), tuple(sorted(files, key=_path)), (), ())

    def _laid_out(self, repository: Repository, number: int, folder: Path) -> None:
        here = {file.raw: file for file in self._head.files if file.root == number}
        wanted = {raw: entry for raw, entry in self._below_root(number) if self._is_wanted(number, raw, entry, here)}
        places: dict[str, list[bytes]] = {}
        for raw, entry in wanted.items():
            places.setdefault(entry.id, []).append(raw)
        for id_, data in repository.contents(wanted.values()):
            for raw in places[id_]:
                target = folder / os.fsdecode(raw)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                except OSError as problem:
                    told = report_path(raw, "")
                    self.warnings.append(f"{told} of {self.commit[:12]} is not compared: {problem.strerror}")

    def _is_wanted(self, number: int, raw: bytes, entry: TreeEntry, here: Mapping[bytes, SourceFile]) -> bool:
        """Tell whether a file of the commit has to be laid out: it is touched, or gone from a tree that was walked."""
        if not entry.is_file or entry.size_bytes > MAX_PARSE_BYTES or not _is_plain(raw):
            return False
        if raw in here:
            return here[raw].path in self.touched
        return not self._head.roots[number].listed

    def _below_root(self, number: int) -> Iterator[tuple[bytes, TreeEntry]]:
        below = self._below[number]
        for path, entry in self._entries.items():
            if path.startswith(below):
                yield path[len(below) :], entry


def _below(repository: Repository, roots: tuple[Root, ...]) -> list[bytes]:
    """Return where each root lies below the repository's top, with a `/` at the end; raises RepositoryUnusable."""
    top = os.fsencode(repository.top)
    found = []
    for root in roots:
        place = os.fsencode(root.path)
        if place != top and not place.startswith(top.rstrip(b"/") + b"/"):
            raise RepositoryUnusable(root.path, f"it does not lie in {repository.top}; scan the trees one by one")
        relative = os.path.relpath(place, top)
        found.append(b"" if relative == b"." else relative + b"/")
    return found


def _is_plain(raw: bytes) -> bool:
    """Tell whether a path of a commit, which anybody may have made, stays in the folder that it is put in."""
    return bool(raw) and all(part not in {b"", b".", b"..", b".git"} for part in raw.split(b"/"))


def _id_key(name: str, digest: Digest) -> bytes:
    assert digest.startswith("sha256:"), "ids stand for content"
    return result_key(Digest(f"git-blob:{name}"), digest, "text", "")


def _path(file: SourceFile) -> str:
    return file.path
