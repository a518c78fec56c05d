"""
Results of executions, kept by content key: bounded by entries, bytes and age; each key computed once at a time.

Values are given out as they were computed, not copied: whoever changes a cached list changes it for all. Below lies
the store of `detectors.cache` for values that msgpack gives back exactly as they were; others stay in memory.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import cachetools
import msgspec

from detectors.cache import ResultCache
from detectors.memory_pressure import MemoryState, next_limit, read_memory

__all__ = ["Claim", "Memo", "MemoState", "exact_msgpack", "size_of"]

PRESSURE_CHECK_S = 1.0
ENTRY_BYTES = 400
"""Key, times and place of an entry in CPython 3.11, beside its value."""
MAX_WALKED = 10_000
"""Objects looked at to size one value; the rest is taken to be like them."""
PLAIN = frozenset({type(None), bool, float, str, bytes})
INT64 = range(-(1 << 63), 1 << 64)


class _Entry:
    __slots__ = ("expires", "size_bytes", "value")

    def __init__(self, value: Any, size_bytes: int, expires: float) -> None:
        self.value, self.size_bytes, self.expires = value, size_bytes, expires


class Claim(msgspec.Struct, frozen=True):
    """What a key that was asked for stands for."""

    kind: Literal["hit", "lead", "follow"]
    """`hit`: `value` counts. `lead`: compute it, then `settle`. `follow`: another computes it; ask `flight`."""
    value: Any = None
    flight: Future[Any] | None = None


class MemoState(msgspec.Struct, frozen=True):
    """The cache as the metrics show it."""

    entries: int
    size_bytes: int
    limit_entries: int
    limit_bytes: int
    """At present; below the configured one under memory pressure."""
    hits: int
    stored_hits: int
    """Of `hits`, those from the store on disk."""
    shared: int
    """Executions that waited for an equal one under way."""
    misses: int


@dataclasses.dataclass(eq=False)
class Memo:
    """A bounded cache with single flight. Thread-safe."""

    entries: int
    """At most; 0 keeps nothing in memory."""
    ttl_s: float
    """Seconds for which a value is given again."""
    limit_bytes: int
    """Of all values together, at most; less under memory pressure."""
    _: dataclasses.KW_ONLY
    store: ResultCache | None = None
    """Where values outlive the process."""
    memory: Callable[[], MemoryState] = read_memory
    """Reads how much memory is free."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._cache = self._empty(self.limit_bytes)
        self._bytes_now = self.limit_bytes
        self._flights: dict[bytes, Future[Any]] = {}
        self._checked = self.clock()
        self._hits = self._stored_hits = self._shared = self._misses = 0

    def claim(self, keys: Sequence[bytes], stored: Sequence[bytes | None]) -> list[Claim]:
        """
        Ask for several keys; who leads must `settle` each before waiting for any that it follows.

        Args:
            keys: Of the memory.
            stored: Of the store, for each key; `None` where the value must not come from there.
        """
        claims: list[Claim] = []
        with self._lock:
            for key in keys:
                entry = self._cache.get(key)
                if entry is not None:
                    self._hits += 1
                    claims.append(Claim("hit", entry.value))
                elif (flight := self._flights.get(key)) is not None:
                    self._shared += 1
                    claims.append(Claim("follow", flight=flight))
                else:
                    self._flights[key] = Future()
                    claims.append(Claim("lead", flight=self._flights[key]))
        from_store = 0
        wanted = [name for name, claim in zip(stored, claims, strict=True) if name and claim.kind == "lead"]
        if self.store is not None and wanted:
            found = self.store.values(wanted, self.ttl_s)
            for place, name in enumerate(stored):
                if claims[place].kind == "lead" and name in found:
                    value = msgspec.msgpack.decode(found[name])
                    self.settle(keys[place], value=value)
                    claims[place] = Claim("hit", value)
                    from_store += 1
        with self._lock:
            self._hits += from_store
            self._stored_hits += from_store
            self._misses += sum(claim.kind == "lead" for claim in claims)
        return claims

    def settle(
        self, key: bytes, *, value: Any = None, error: BaseException | None = None, stored: bytes | None = None
    ) -> None:
        """Give what a leader computed to whoever follows, and keep it; an error is given, and never kept."""
        size = size_of(value) if error is None else 0
        encoded = exact_msgpack(value) if stored and error is None and self.store is not None else None
        with self._lock:
            if error is None:
                self._keep(key, value, size)
            flight = self._flights.pop(key, None)
        if encoded is not None and self.store is not None and stored:
            self.store.store_values([(stored, encoded)])
        if flight is not None:
            flight.set_result((value, error))

    def state(self) -> MemoState:
        """Return sizes and counts."""
        with self._lock:
            return MemoState(
                len(self._cache), int(self._cache.currsize), self.entries, self._bytes_now,
                self._hits, self._stored_hits, self._shared, self._misses,
            )  # fmt: skip

    def adapt(self) -> tuple[int, int, float]:
        """Fit the limit to the memory that is free; return (old limit, new limit, share of memory free)."""
        share = self.memory().free_share
        with self._lock:
            before = self._bytes_now
            self._resize(next_limit(before, self.limit_bytes, share))
            return before, self._bytes_now, share

    def expire(self) -> int:
        """Drop what is out of date; return how many."""
        with self._lock:
            return len(self._cache.expire())

    def _keep(self, key: bytes, value: Any, size: int) -> None:
        now = self.clock()
        if now - self._checked >= PRESSURE_CHECK_S:
            self._checked = now
            self._resize(next_limit(self._bytes_now, self.limit_bytes, self.memory().free_share))
        if self.entries == 0 or self.ttl_s <= 0 or size > self._bytes_now:
            return
        self._cache[key] = _Entry(value, size, now + self.ttl_s)
        if len(self._cache) > self.entries:
            self._cache.popitem()

    def _resize(self, limit_bytes: int) -> None:
        if limit_bytes == self._bytes_now:
            return
        self._bytes_now = limit_bytes
        # cachetools fixes a cache's size; the entries bring their own time of expiry to the new one, oldest use first.
        old, self._cache = self._cache, self._empty(limit_bytes)
        for key, entry in old.items():
            if entry.size_bytes <= limit_bytes:
                self._cache[key] = entry

    def _empty(self, limit_bytes: int) -> cachetools.TLRUCache[bytes, _Entry, float]:
        return cachetools.TLRUCache(maxsize=max(limit_bytes, 1), ttu=_expires, timer=self.clock, getsizeof=_size)


def size_of(value: Any) -> int:
    """Return about how many bytes a value holds in memory; buffers by their length, large containers by a sample."""
    size = ENTRY_BYTES
    waiting = [value]
    for seen, item in enumerate(waiting, 1):
        size += getattr(item, "nbytes", 0) if not isinstance(item, memoryview) else item.nbytes
        size += sys.getsizeof(item, 64)
        if seen >= MAX_WALKED:
            return math.ceil(size * len(waiting) / seen)
        if isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif hasattr(item, "__struct_fields__"):
            waiting += [getattr(item, name) for name in item.__struct_fields__]
        elif type(item).__module__.partition(".")[0] not in {"builtins", "numpy", "pandas"}:
            waiting += vars(item).values() if hasattr(item, "__dict__") else ()
    return size


def exact_msgpack(value: Any) -> bytes | None:
    """
    Return the msgpack form of a value that decodes to exactly the same; `None` where it would not.

    Tuples would come back as lists, sets and structs not at all: such values are kept in memory only.
    """
    waiting = [value]
    for item in waiting:
        kind = type(item)
        if kind in PLAIN or (kind is int and item in INT64):
            continue
        if kind is list:
            waiting += item
        elif kind is dict and all(type(key) in {str, int} for key in item):
            waiting += item.keys()
            waiting += item.values()
        else:
            return None
        if len(waiting) > 1_000_000:
            return None
    try:
        return msgspec.msgpack.encode(value)
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError, RecursionError):
        return None


def _expires(_key: bytes, entry: _Entry, _now: float) -> float:
    return entry.expires


def _size(entry: _Entry) -> int:
    return entry.size_bytes
