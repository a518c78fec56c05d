"""
Key of a result, and its store: SQLite in WAL mode, values msgpack, never pickle.

A cache may be lost at any time without loss of truth, so damage never stops a run: a file that is no cache of ours or
is corrupt is set aside and rebuilt, a row whose checksum fails is dropped and computed again, a full disk turns
storing off. Only a cache of a *newer* format is refused, since it belongs to somebody else.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.duration_model import ModelState
from detectors.errors import FormatTooNew, UsageError
from detectors.model import Analysed, Digest, FileReport, Finding, Language, Marker, NotAnalysed, Outcome, Reason
from detectors.snapshot import StatEntry

if TYPE_CHECKING:
    from detectors.shared_store import SharedStore

__all__ = ["CachedResult", "ResultCache", "Timing", "result_key"]

FORMAT = 1
TIMING_VERSION = 2
"""Of a history row; rows of version 1 have no field for it, and are read."""
APPLICATION_ID = 0x45445031
"""`EDP1` in SQLite's header: tells our files from anybody else's."""
DETERMINISTIC: frozenset[Reason] = frozenset({"header-missing", "parse-error", "too-large"})
"""Reasons that the file's bytes and its closure alone decide; such answers are as good as any and may be kept."""
ROWS_A_QUERY = 500
CHECKSUM_BYTES = 16
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, TypeError)
"""What decoding raises on bytes that were damaged, or on what is no bytes any more."""
OF_THE_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""A full or failing disk, which may happen to any run; what else hinders opening is a folder that was named wrongly."""
PRIMARY_CODE = 0xFF
"""The low byte of SQLite's extended result codes."""
STORE_RESULT = "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?, ?, ?, ?)"
SharedResult = tuple[str, bytes, bytes, float]
"""Of a result in a shared store: run, report, facts, seconds."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS result (
    key BLOB PRIMARY KEY, run TEXT NOT NULL, report BLOB NOT NULL, facts BLOB NOT NULL, checksum BLOB NOT NULL,
    seconds REAL NOT NULL, stored REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stat (
    root TEXT NOT NULL, path BLOB NOT NULL, entry BLOB NOT NULL, PRIMARY KEY (root, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timing (detector TEXT PRIMARY KEY, sums BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answered (
    root TEXT NOT NULL, path BLOB NOT NULL, detector TEXT NOT NULL, digest TEXT NOT NULL, findings REAL NOT NULL,
    PRIMARY KEY (root, path, detector)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS value (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL, stored REAL NOT NULL
) WITHOUT ROWID;
"""


class _Report(msgspec.Struct, frozen=True, array_like=True):
    """A result as stored: without path, detector and facts, which the caller knows or loads apart."""

    findings: tuple[Finding, ...] = ()
    understood: float = 1.0
    reason: Reason | None = None
    detail: str = ""
    markers: tuple[Marker, ...] = ()


class _TimingVersion(msgspec.Struct, frozen=True):
    version: int = 1


class CachedResult(msgspec.Struct, frozen=True):
    """A stored answer and the run that computed it."""

    key: bytes
    run_id: str
    report: _Report
    seconds: float

    def outcome(self, path: str, detector: str) -> Outcome:
        """Return the answer for the file it is asked for; facts are loaded by `ResultCache.facts` when needed."""
        if self.report.reason is not None:
            return NotAnalysed(path, detector, self.report.reason, self.report.detail)
        stored = self.report
        return Analysed(path, detector, FileReport(stored.findings, {}, stored.understood, stored.markers), 0.0)


class Timing(msgspec.Struct, frozen=True):
    """What is known of a detector's durations: decayed sums over (megabytes x, seconds y) of what ran, and a model."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    files: float = 0.0
    version: int = TIMING_VERSION
    model: ModelState | None = None
    """`None` in what was written before there was one; the sums stand in."""


def result_key(identity: Digest, digest: Digest, language: Language, path: str, closure: str = "") -> bytes:
    """
    Return the 32-byte key of a result.

    Args:
        identity: Digest of the detector: name, version, code, configuration, tool's files, interpreter.
        digest: The file's content.
        language: What the file was taken for.
        path: The part of the path that the result depends on; empty where it depends on none.
        closure: Digest of what else is read; empty for a detector that reads nothing else.
    """
    return hashlib.sha256(msgspec.msgpack.encode((FORMAT, identity, digest, language, path, closure))).digest()


class ResultCache:
    """
    Results, stat index and timings in one file; thread-safe, one connection.

    Args:
        folder: Made when missing. `None`: a store in memory, gone with the object.
        shared: A second level: what is not here is looked for there, and what is stored here goes there, too.

    Raises:
        FormatTooNew: A newer release wrote it.
        UsageError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path | None, shared: SharedStore | None = None) -> None:
        self._shared = shared
        self.warnings: list[str] = []
        """What went wrong and was survived; shown to the user and kept in the evidence."""
        self._rejected = 0
        self._newer_timings: set[str] = set()
        self._lock = threading.RLock()
        self._storing = True
        self._path: Path | None = None
        if folder is None:
            self._connection = self._connect(":memory:")
            return
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise UsageError(f"the cache folder {folder} cannot be made: {problem.strerror}") from problem
        self._path = folder / "cache.sqlite3"
        try:
            self._connection = self._connect(str(self._path))
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode & PRIMARY_CODE in OF_THE_DISK:
                self._connection = self._connect(":memory:")
                self._path = None
                self.warnings.append(f"the cache {folder} cannot be used ({problem}); this run keeps its own")
                return
            raise UsageError(
                f"the cache {self._path} cannot be opened: {problem}; name another with --cache"
            ) from problem
        except sqlite3.DatabaseError as problem:
            self._connection = self._rebuilt(str(problem))

    @property
    def rejected(self) -> int:
        """How many entries, here or in the shared store, were damaged or forged."""
        return self._rejected + (0 if self._shared is None else self._shared.rejected)

    def __enter__(self) -> ResultCache:
        """Return itself; closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file and the shared store; a second call does nothing."""
        with self._lock:
            self._connection.close()
        if self._shared is not None:
            self._shared.close()

    def lookup(self, keys: Sequence[bytes]) -> dict[bytes, CachedResult]:
        """Return what is known of `keys`; rows that fail their checksum are dropped."""
        found = self._lookup_here(keys)
        missing = [key for key in keys if key not in found]
        if self._shared is None or not missing:
            return found
        rows = []
        for key, entry in self._shared.fetch("result", missing).items():
            try:
                run, report, facts, seconds = msgspec.msgpack.decode(entry, type=SharedResult)
            except msgspec.DecodeError:
                continue  # by another release that has the key; computed again
            rows.append((key, run, report, facts, _checksum(key, report, facts), seconds, time.time()))
        self.warnings += self._shared.news()
        self._write(STORE_RESULT, rows)
        # Read from here: facts are asked for later, and must be where the answer is.
        return found | self._lookup_here([row[0] for row in rows])

    def _lookup_here(self, keys: Sequence[bytes]) -> dict[bytes, CachedResult]:
        found: dict[bytes, CachedResult] = {}
        damaged: list[bytes] = []
        for row in self._select("SELECT key, run, report, facts, checksum, seconds FROM result WHERE key IN ", keys):
            key, run, report, facts, checksum, seconds = row
            if not _intact(checksum, key, report, facts):
                damaged.append(key)
                continue
            try:
                found[key] = CachedResult(key, run, msgspec.msgpack.decode(report, type=_Report), seconds)
            except UNREADABLE:
                damaged.append(key)
        if damaged:
            self._rejected += len(damaged)
            self.warnings.append(f"{len(damaged)} damaged cache entries were dropped and are computed again")
            self._write("DELETE FROM result WHERE key = ?", [(key,) for key in damaged])
        return found

    def holds_results(self) -> bool:
        """Tell whether any answer is stored, or may be stored elsewhere, of whichever detector and file."""
        return self._shared is not None or bool(self._read("SELECT 1 FROM result LIMIT 1", ()))

    def facts(self, keys: Sequence[bytes]) -> dict[bytes, dict[str, bytes]]:
        """Return the facts stored with `keys` (looked up before, so known to be sound)."""
        rows = self._select("SELECT key, facts FROM result WHERE key IN ", keys)
        return {key: msgspec.msgpack.decode(facts, type=dict[str, bytes]) for key, facts in rows}

    def store(self, run_id: str, outcomes: Iterable[tuple[bytes, Outcome]]) -> None:
        """Keep answers that the key alone decides; others (crashes, timeouts) are tried again by the next run."""
        rows = []
        for key, outcome in outcomes:
            match outcome:
                case Analysed(report=report, seconds=seconds):
                    stored, facts, spent = (
                        _Report(report.findings, report.understood, markers=report.markers),
                        report.facts,
                        seconds,
                    )
                case NotAnalysed(reason=reason, detail=detail) if reason in DETERMINISTIC:
                    stored, facts, spent = _Report((), 0.0, reason, detail), {}, 0.0
                case _:
                    continue
            encoded, packed = msgspec.msgpack.encode(stored), msgspec.msgpack.encode(facts)
            rows.append((key, run_id, encoded, packed, _checksum(key, encoded, packed), spent, time.time()))
        self._write(STORE_RESULT, rows)
        if self._shared is not None:
            self._shared.keep(
                "result", {row[0]: msgspec.msgpack.encode((row[1], row[2], row[3], row[5])) for row in rows}
            )
            self.warnings += self._shared.news()

    def known(self, root: str, paths: Sequence[bytes] | None = None) -> dict[bytes, StatEntry]:
        """Return the stat index of a root, or of some paths of it; see `snapshot.StatIndex`."""
        decode = msgspec.msgpack.Decoder(StatEntry).decode
        entries = {}
        if paths is None:
            rows: Iterable[tuple[Any, ...]] = self._read("SELECT path, entry FROM stat WHERE root = ?", (root,))
        else:
            rows = self._select("SELECT path, entry FROM stat WHERE root = ? AND path IN ", paths, (root,))
        for path, sealed in rows:
            entry = _opened(root, path, sealed)
            if entry is None:
                continue  # not trusted, so hashed again
            try:
                entries[path] = decode(entry)
            except UNREADABLE:
                continue
        return entries

    def remember(self, root: str, entries: Mapping[bytes, StatEntry]) -> None:
        """Keep stat entries of a root."""
        encode = msgspec.msgpack.Encoder().encode
        rows = [(root, path, _sealed(root, path, encode(entry))) for path, entry in entries.items()]
        self._write("INSERT OR REPLACE INTO stat VALUES (?, ?, ?)", rows)

    def answered(self, root: str) -> dict[tuple[bytes, str], tuple[Digest, float]]:
        """Return by raw path and detector the content that was last answered for, and how much was found so far."""
        rows = self._read("SELECT path, detector, digest, findings FROM answered WHERE root = ?", (root,))
        return {(path, detector): (digest, findings) for path, detector, digest, findings in rows}

    def remember_answered(self, root: str, answers: Iterable[tuple[bytes, str, Digest, int]]) -> None:
        """
        Keep which contents of a root were answered.

        Args:
            root: Absolute path.
            answers: Raw path, detector, digest of the content, and findings; those of earlier runs count half.
        """
        self._write(
            "INSERT INTO answered VALUES (?, ?, ?, ?, ?) ON CONFLICT (root, path, detector) "
            "DO UPDATE SET digest = excluded.digest, findings = findings / 2 + excluded.findings",
            [(root, *answer) for answer in answers],
        )

    def timings(self) -> dict[str, Timing]:
        """Return the history of each detector; one of a newer release is left alone, with a warning."""
        found = {}
        for name, sums in self._read("SELECT detector, sums FROM timing", ()):
            try:
                version = msgspec.msgpack.decode(sums, type=_TimingVersion).version
                if version > TIMING_VERSION:
                    self._newer_timings.add(name)
                    self.warnings.append(
                        f"the history of {name} is of version {version}, and this release reads up to "
                        f"{TIMING_VERSION}; it is kept for the newer release, and this one predicts without it"
                    )
                    continue
                found[name] = msgspec.msgpack.decode(sums, type=Timing)
            except UNREADABLE:
                continue  # a history can be learnt again
        return found

    def remember_timings(self, timings: Mapping[str, Timing]) -> None:
        """Keep the history."""
        rows = [
            (name, msgspec.msgpack.encode(timing))
            for name, timing in timings.items()
            if name not in self._newer_timings
        ]
        self._write("INSERT OR REPLACE INTO timing VALUES (?, ?)", rows)

    def values(self, keys: Sequence[bytes], ttl_s: float = math.inf) -> dict[bytes, bytes]:
        """Return the msgpack values stored under `keys` in the last `ttl_s` seconds; damaged ones are dropped."""
        assert ttl_s >= 0, "an age in seconds"
        found = self._values_here(keys, ttl_s)
        missing = [key for key in keys if key not in found]
        # What must be young is not looked for where no age is kept.
        if self._shared is None or not missing or ttl_s != math.inf:
            return found
        fetched = self._shared.fetch("value", missing)
        self.warnings += self._shared.news()
        return found | fetched

    def _values_here(self, keys: Sequence[bytes], ttl_s: float) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        damaged: list[tuple[bytes]] = []
        oldest = time.time() - ttl_s
        for key, value, checksum, stored in self._select(
            "SELECT key, value, checksum, stored FROM value WHERE key IN ", keys
        ):
            if not _intact(checksum, key, value, b"") or not isinstance(stored, float):
                damaged.append((key,))
            elif stored >= oldest:
                found[key] = value
        if damaged:
            self._rejected += len(damaged)
            self.warnings.append(f"{len(damaged)} damaged cache entries were dropped and are computed again")
            self._write("DELETE FROM value WHERE key = ?", damaged)
        return found

    def store_values(self, values: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep values that are no answer of a detector to a file, msgpack under a 32-byte key."""
        now = time.time()
        rows = [(key, value, _checksum(key, value, b""), now) for key, value in values]
        self._write("INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?)", rows)
        if self._shared is not None:
            self._shared.keep("value", {key: value for key, value, _, _ in rows})
            self.warnings += self._shared.news()

    def _connect(self, where: str) -> sqlite3.Connection:
        connection = sqlite3.connect(where, timeout=30, check_same_thread=False, isolation_level=None)
        try:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and owner != APPLICATION_ID:
                raise sqlite3.DatabaseError("it is another program's database")
            if found > FORMAT:
                raise FormatTooNew(f"the cache {where}", found, FORMAT)
            connection.execute("PRAGMA journal_mode = WAL")
            # A result lost to a power cut is computed again; a result half written is caught by its checksum.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.executescript(SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _rebuilt(self, problem: str) -> sqlite3.Connection:
        assert self._path is not None
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        self._path.rename(aside)
        for tail in ("-wal", "-shm"):
            self._path.with_name(self._path.name + tail).unlink(missing_ok=True)
        self.warnings.append(f"the cache was damaged ({problem}); it was set aside as {aside.name} and is rebuilt")
        return self._connect(str(self._path))

    def _recover(self, problem: sqlite3.DatabaseError) -> None:
        """Go on without what cannot be read or written."""
        if isinstance(problem, sqlite3.OperationalError) or self._path is None:
            if self._storing:
                self.warnings.append(f"the cache cannot be used any more ({problem}); results of this run are not kept")
            self._storing = False
            return
        self._connection.close()
        self._connection = self._rebuilt(str(problem))

    def _read(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as problem:
                self._recover(problem)
                return []

    def _select(self, statement: str, keys: Sequence[bytes], before: tuple[str, ...] = ()) -> Iterable[tuple[Any, ...]]:
        """Yield the rows of a statement that ends with `IN` and the keys, after `before`."""
        for start in range(0, len(keys), ROWS_A_QUERY):
            part = keys[start : start + ROWS_A_QUERY]
            yield from self._read(f"{statement} ({','.join('?' * len(part))})", (*before, *part))

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows or not self._storing:
            return
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except sqlite3.DatabaseError as problem:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._recover(problem)


def _intact(checksum: Any, key: Any, report: Any, facts: Any) -> bool:
    """Tell whether a row is what was stored; a damaged page may give a column another type."""
    if not all(isinstance(part, bytes) for part in (key, report, facts)):
        return False
    return bool(checksum == _checksum(key, report, facts))


def _sealed(root: str, path: bytes, entry: bytes) -> bytes:
    """Return a stat entry with its checksum before it."""
    assert entry, "an entry says something"
    return _checksum(path, root.encode("utf-8", "surrogateescape"), entry) + entry


def _opened(root: str, path: Any, sealed: Any) -> bytes | None:
    """Return the entry of a row of the stat index; `None` where it is damaged, or older than its checksum."""
    if not isinstance(path, bytes) or not isinstance(sealed, bytes) or len(sealed) <= CHECKSUM_BYTES:
        return None
    entry = sealed[CHECKSUM_BYTES:]
    return entry if sealed == _sealed(root, path, entry) else None


def _checksum(key: bytes, report: bytes, facts: bytes) -> bytes:
    return hashlib.sha256(b"%d:%d:" % (len(report), len(facts)) + key + report + facts).digest()[:CHECKSUM_BYTES]
