"""
A second level behind the cache, which several drivers share: whatever keeps bytes under names.

Whoever can write to the store could plant a clean answer for a bad file. So an entry is believed only where its tag
fits its name and content under a key that the drivers alone have; any other is dropped and computed again. A store that
fails is left alone for a while (`circuit_breaker`): a run is slower without it, and never wrong.

Source: RFC 2104 (HMAC), with SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar, runtime_checkable

from detectors.circuit_breaker import Breaker, BreakerPolicy
from detectors.errors import StoreUnavailable, UsageError

__all__ = ["KEY_BYTES", "Kept", "SharedStore", "StoreBackend"]

FORMAT = 1
KEY_BYTES = 32
TAG_BYTES = 32
ENTRIES_AT_ONCE = 500
POLICY = BreakerPolicy(failures=2, reset_s=30.0)
Kept = Literal["result", "value"]
Answer = TypeVar("Answer")


@runtime_checkable
class StoreBackend(Protocol):
    """Bytes under names of letters, digits and `/`; any thread may call it."""

    name: str
    """For messages; without secrets."""

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return what is there; raises StoreUnavailable."""
        ...

    def write(self, entries: Mapping[str, bytes]) -> None:
        """Keep entries; raises StoreUnavailable."""
        ...

    def drop(self, names: Sequence[str]) -> None:
        """Remove entries; raises StoreUnavailable."""
        ...

    def close(self) -> None:
        """Close connections; a second call does nothing."""
        ...


class SharedStore:
    """
    Entries by 32-byte keys, authenticated. Thread-safe.

    Args:
        backend: Where they lie.
        key: 32 secret bytes, the same for all drivers that share answers.
        policy: When a store that fails is left alone.

    Raises:
        UsageError: A key of another length.
    """

    def __init__(self, backend: StoreBackend, key: bytes, policy: BreakerPolicy = POLICY) -> None:
        if len(key) != KEY_BYTES:
            raise UsageError(f"the key of a shared store has {KEY_BYTES} bytes, not {len(key)}")
        self._backend, self._key = backend, key
        # Drivers with another key keep to themselves; they neither read nor drop what is not theirs.
        self._space = hashlib.sha256(b"detector-pool store\0" + key).hexdigest()[:16]
        self._breaker = Breaker(policy)
        self._lock = threading.Lock()
        self._news: list[str] = []
        self._failed = False
        self.rejected = 0
        """Entries that were damaged or forged."""

    def fetch(self, kind: Kept, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return what is kept under `keys` and is authentic."""
        names = {self._name(kind, key): key for key in keys}
        found: dict[bytes, bytes] = {}
        bad: list[str] = []
        listed = list(names)
        for start in range(0, len(listed), ENTRIES_AT_ONCE):
            part = listed[start : start + ENTRIES_AT_ONCE]
            for name, entry in (self._tried(lambda part=part: self._backend.read(part)) or {}).items():  # type: ignore[misc]  # bound now
                tag, content = entry[:TAG_BYTES], entry[TAG_BYTES:]
                if name in names and hmac.compare_digest(tag, self._tag(name, content)):
                    found[names[name]] = content
                else:
                    bad.append(name)
        if bad:
            self.rejected += len(bad)
            self._say(f"{len(bad)} entries of {self._backend.name} were damaged or forged; they are computed again")
            self._tried(lambda: self._backend.drop(bad))
        assert found.keys() <= set(keys), "nobody is given what he did not ask for"
        return found

    def keep(self, kind: Kept, entries: Mapping[bytes, bytes]) -> None:
        """Keep entries, if the store takes them."""
        if not entries:
            return
        named = {self._name(kind, key): content for key, content in entries.items()}
        assert len(named) == len(entries), "each key has a name of its own"
        self._tried(lambda: self._backend.write({name: self._tag(name, c) + c for name, c in named.items()}))

    def news(self) -> list[str]:
        """Return what went wrong since the last call, for the user and the evidence."""
        with self._lock:
            told, self._news = self._news, []
        assert all(told), "a message says something"
        return told

    def close(self) -> None:
        """Close the store."""
        self._backend.close()

    def _tried(self, action: Callable[[], Answer]) -> Answer | None:
        """Do something with the store, if it is not left alone; `None` where nothing came of it."""
        if self._breaker.admit() is not None:
            return None
        try:
            answer = action()
        except StoreUnavailable as problem:
            self._breaker.record(failed=True)
            if not self._failed:
                self._failed = True
                self._say(f"{problem}; answers that it may hold are computed again, and new ones are kept here alone")
            return None
        self._breaker.record(failed=False)
        return answer

    def _say(self, message: str) -> None:
        with self._lock:
            self._news.append(message)

    def _name(self, kind: Kept, key: bytes) -> str:
        assert len(key) == KEY_BYTES, "keys of results and values are digests"
        return f"{self._space}/{kind}/{FORMAT}/{key.hex()}"

    def _tag(self, name: str, content: bytes) -> bytes:
        tag = hmac.digest(self._key, name.encode() + b"\0" + content, "sha256")
        assert len(tag) == TAG_BYTES, "SHA-256"
        return tag
