"""`--store file:///srv/results`: a folder wherever fsspec reaches: a file system, a bucket, a share."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from deployments.store_secrets import shown, split, store_key
from deployments.stores.redis_server import SCHEMES
from detectors.errors import ConfigurationError, StoreUnavailable
from detectors.shared_store import SharedStore

__all__ = ["FsspecFolder"]


class FsspecFolder:
    """
    Any address of fsspec that can be written.

    Its credentials are the business of fsspec's own configuration, never of the address.
    """

    name: ClassVar[str] = "file:///FOLDER (or another of fsspec)"

    def accepts(self, url: str) -> bool:
        """Tell whether `url` is an address, and none of a server with a kind of its own."""
        scheme, mark, _ = url.partition("://")
        return bool(mark) and scheme not in SCHEMES

    def open(self, url: str) -> SharedStore:
        """Return the store; it is reached when it is first asked. See `detectors.ports.StoreKind`."""
        assert self.accepts(url), "who opens it saw that it is meant"
        parts = split(url)
        try:
            from fsspec.core import url_to_fs
        except ImportError as problem:
            raise ConfigurationError("this store needs the extra `fsspec` of this package") from problem
        try:
            system, root = url_to_fs(url)
            if parts.scheme == "file":
                # Findings say much of the sources; who shares them with other users makes the folder himself.
                Path(root).mkdir(parents=True, exist_ok=True, mode=0o700)
        except (ImportError, ValueError, OSError) as problem:
            raise ConfigurationError(f"--store {shown(parts)} cannot be opened: {problem}") from problem
        return SharedStore(_Entries(system, root, shown(parts)), store_key())


class _Entries:
    """Entries as files, spread over folders by the first two digits of their key."""

    def __init__(self, system: Any, root: str, name: str) -> None:
        self._system, self._root, self.name = system, root.rstrip("/"), name

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """See `StoreBackend`."""
        paths = {self._path(name): name for name in names}
        found: dict[str, bytes] = {}
        for path, entry in self._asked("cat", list(paths), on_error="return").items():
            if isinstance(entry, bytes):
                found[paths[path]] = entry
            elif not isinstance(entry, (FileNotFoundError, NotADirectoryError, KeyError)):
                raise StoreUnavailable(self.name, str(entry)) from entry
        assert found.keys() <= set(names), "one answer for each at most"
        return found

    def write(self, entries: Mapping[str, bytes]) -> None:
        """Put each entry in place whole, where the file system can rename; see `StoreBackend`."""
        assert entries, "somebody keeps something"
        for name, entry in entries.items():
            path = self._path(name)
            draft = f"{path}.{secrets.token_hex(8)}.draft"
            self._asked("makedirs", path.rpartition("/")[0], exist_ok=True)
            self._asked("pipe_file", draft, entry)
            self._asked("mv", draft, path)

    def drop(self, names: Sequence[str]) -> None:
        """See `StoreBackend`."""
        for name in names:
            if self._asked("exists", self._path(name)):
                self._asked("rm_file", self._path(name))

    def close(self) -> None:
        """See `StoreBackend`; file systems are shared in a process, and stay."""

    def _path(self, name: str) -> str:
        folder, _, leaf = name.rpartition("/")
        assert leaf.isalnum(), "names are digests"
        return f"{self._root}/{folder}/{leaf[:2]}/{leaf}"

    def _asked(self, action: str, *arguments: Any, **options: Any) -> Any:
        system = self._system
        actions = {
            "cat": system.cat, "makedirs": system.makedirs, "pipe_file": system.pipe_file, "mv": system.mv,
            "exists": system.exists, "rm_file": system.rm_file,
        }  # fmt: skip
        try:
            return actions[action](*arguments, **options)
        except Exception as problem:  # each file system has errors of its own; none of them may end a run
            raise StoreUnavailable(self.name, f"{type(problem).__name__}: {problem}") from problem
