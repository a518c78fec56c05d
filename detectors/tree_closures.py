"""
The closures of one snapshot, and what is kept of them between runs.

References are read once for each content of a file, closures are computed once for each state of the tree: a run over
a tree that has not changed reads their digests from the store, and computes them only when something must run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from detectors import compile_database
from detectors.cache import ResultCache, result_key
from detectors.closures import (
    Closure,
    ClosureKind,
    Context,
    ImportClosures,
    IncludeClosures,
    References,
    references,
    system_stats,
)
from detectors.errors import SourceChanged
from detectors.model import Digest, Language, SourceFile
from detectors.parsing import MAX_PARSE_BYTES
from detectors.snapshot import Snapshot, read_verified

__all__ = ["NO_CLOSURE", "ClosureDigest", "TreeClosures"]

KEY_BYTES = 32
FORMAT = 2
"""Of what is stored; a change of what is read from a file needs another."""


class ClosureDigest(msgspec.Struct, frozen=True, array_like=True):
    """What stands for a closure in a key."""

    digest: str = ""
    outside: str = ""
    """See `Closure.outside`."""


NO_CLOSURE = ClosureDigest()


class _KnownClosures(msgspec.Struct, frozen=True):
    """The closures of a whole tree, as they are kept from one run to the next."""

    digests: dict[str, ClosureDigest]
    system: dict[str, str]
    """What `system_stats` said of names that the tree does not hold; the digests hold as long as it says the same."""
    warnings: list[str] = []


class TreeClosures:
    """
    The closures of a snapshot's files.

    Args:
        snapshot: Of the run.
        store: Where references and digests are kept between runs.
        folders: Outside of the tree, where headers may be; absolute.
    """

    def __init__(self, snapshot: Snapshot, store: ResultCache, folders: Sequence[str]) -> None:
        assert all(folder.startswith("/") for folder in folders), "a relative folder is another on each worker"
        self.warnings: list[str] = []
        """Compile databases that could not be used."""
        self._snapshot, self._store, self._folders = snapshot, store, folders
        self._files = {file.path: file for file in snapshot.files}
        assert len(self._files) == len(snapshot.files), "a report path names one file"
        assert all(0 <= file.root < len(snapshot.roots) for file in snapshot.files), "a file lies below a root"
        self._content = {file.path: file.digest for file in snapshot.files}
        self._closures: dict[ClosureKind, Mapping[str, Closure]] = {}
        self._digests: dict[ClosureKind, Mapping[str, ClosureDigest]] = {}
        self._system: dict[str, str] = {}

    def digests(self, kind: ClosureKind, languages: frozenset[Language]) -> Mapping[str, ClosureDigest]:
        """Return what stands for the closures in keys, by report path of the files in `languages`."""
        assert languages, "closures are of files of some language"
        if kind in self._digests:
            return self._digests[kind]
        content = msgspec.msgpack.encode((self._content, self._snapshot.roots, self._folders))
        tree = Digest(hashlib.sha256(content).hexdigest())
        key = result_key(Digest(f"closures:{kind}:{FORMAT}"), tree, "text", "")
        found = self._digests[kind] = self._known(key) or self._made(key, kind, languages)
        assert len(found) <= len(self._files), "closures are of files of the tree"
        return found

    def of(self, kind: ClosureKind, languages: frozenset[Language]) -> Mapping[str, Closure]:
        """Return the closures themselves; computed when first asked for."""
        if kind in self._closures:
            return self._closures[kind]
        units = {path: file.language for path, file in self._files.items() if file.language in languages}
        with _ReferenceReader(self._snapshot, self._store, units) as refer:
            if kind == "imports":
                found = ImportClosures(units, refer).of_all(units)
            else:
                roots = list(dict.fromkeys(root.label for root in self._snapshot.roots))
                includes = IncludeClosures(self._files, roots, refer, self._commands(), self._folders)
                found = includes.of_all(units)
                self._system = includes.system
        assert found.keys() == units.keys(), "each file has a closure, if an empty one"
        self._closures[kind] = found
        return found

    def _known(self, key: bytes) -> Mapping[str, ClosureDigest] | None:
        assert len(key) == KEY_BYTES, "results are kept under digests"
        stored = self._store.values([key]).get(key)
        if stored is None:
            return None
        known = msgspec.msgpack.decode(stored, type=_KnownClosures)
        if list(known.system.values()) != list(system_stats(known.system, self._folders)):
            return None
        assert known.digests.keys() <= self._files.keys(), "what stands under this tree's key is of this tree"
        self.warnings += known.warnings
        return known.digests

    def _made(self, key: bytes, kind: ClosureKind, languages: frozenset[Language]) -> Mapping[str, ClosureDigest]:
        assert len(key) == KEY_BYTES, "results are kept under digests"
        closures = self.of(kind, languages)
        assert kind in self._closures, "what was computed is kept for who asks for the closures themselves"
        assert closures.keys() <= self._content.keys(), "closures are of files of the tree"
        digests = {path: ClosureDigest(item.digest(self._content), item.outside) for path, item in closures.items()}
        known = _KnownClosures(digests, self._system if kind == "includes" else {}, self.warnings)
        self._store.store_values([(key, msgspec.msgpack.encode(known))])
        return digests

    def _commands(self) -> dict[str, Context]:
        """Return what the tree's compile databases say; the first that knows a file speaks for it."""
        commands: dict[str, Context] = {}
        for path, file in self._files.items():
            folder, _, name = path.rpartition("/")
            if name != compile_database.NAME or file.size_bytes > MAX_PARSE_BYTES:
                continue
            root = self._snapshot.roots[file.root]
            inside = folder.removeprefix(root.label).lstrip("/") if root.label else folder
            assert not inside.startswith("/"), "a folder counts from its root"
            try:
                data = read_verified(root.path, file)
                known = compile_database.commands_of(data, inside, root.path, root.label)
            except (SourceChanged, ValueError) as problem:
                self.warnings.append(f"{path} is not used: {problem}")
                continue
            commands = known | commands
        return {path: context for path, context in commands.items() if path in self._files}


class _ReferenceReader:
    """
    The references of a snapshot's files, by report path; read once a content, then taken from the store.

    A context manager: what was read is stored at its end.

    Args:
        snapshot: Of the run.
        store: Where references are kept between runs.
        units: Report paths that will surely be asked for, with their languages.
    """

    def __init__(self, snapshot: Snapshot, store: ResultCache, units: Mapping[str, Language]) -> None:
        self._files = {file.path: file for file in snapshot.files}
        assert units.keys() <= self._files.keys(), "only files of the snapshot are read"
        self._roots = tuple(root.path for root in snapshot.roots)
        self._store = store
        self._known = self._stored([self._files[path] for path in units])
        self._fresh: dict[bytes, References] = {}

    def __enter__(self) -> Callable[[str], References]:
        """Return the function that takes a report path."""
        assert not self._fresh, "a reader is entered once"
        return self._references

    def __exit__(self, *_: object) -> None:
        """Store what was read."""
        assert self._fresh.keys() <= self._known.keys(), "what was read is known from then on"
        self._store.store_values((key, msgspec.msgpack.encode(found)) for key, found in self._fresh.items())

    def _references(self, path: str) -> References:
        assert path in self._files, "a closure asks for files of the snapshot only"
        file = self._files[path]
        key = _reference_key(file)
        if key in self._known:
            return self._known[key]
        self._known |= self._stored([file])
        if key in self._known:
            return self._known[key]
        try:
            data = read_verified(self._roots[file.root], file)
        except SourceChanged:
            return ()  # whoever analyses the file sees the same, and says so
        self._known[key] = self._fresh[key] = references(data, file.language)
        return self._known[key]

    def _stored(self, files: Sequence[SourceFile]) -> dict[bytes, References]:
        stored = self._store.values([_reference_key(file) for file in files])
        assert len(stored) <= len(files), "a file has one content, and a content one entry"
        decode = msgspec.msgpack.Decoder(References).decode
        return {key: decode(found) for key, found in stored.items()}


def _reference_key(file: SourceFile) -> bytes:
    assert file.digest.startswith("sha256:"), "references stand for content"
    key = result_key(Digest(f"references:{FORMAT}"), file.digest, file.language, "")
    assert len(key) == KEY_BYTES, "results are kept under digests"
    return key
