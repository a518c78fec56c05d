"""
What became of each finding over the runs of an evidence folder: new, open, fixed, reopened, since when, where last.

Only evidence that verifies is read; the rest is named and left out. A finding is *fixed* in a run that looked at its
place and did not find it: the detector answered for the file, or the file is gone from a tree that was walked. Where a
run says nothing (not analysed, not selected, out of scope, not whole), the finding stays as it was. The findings come
from each folder's Parquet table, what a run looked at from its record; DuckDB does the sums, in memory, so that there
is no store to keep in step with the evidence.

Findings are followed by their fingerprint, and trees by the folders that were scanned.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from compliance.assurance_statement import read_evidence
from compliance.errors import AttestationInvalid
from compliance.evidence_verify import ATTESTATION
from compliance.followed import STATES, Followed, LeftOut, PastRun
from compliance.formats.tables import NAME as TABLE
from compliance.signing import VerifyingKey
from detectors.errors import UsageError
from detectors.model import RunRecord
from detectors.sarif_import import PREFIX as IMPORTED

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["History", "history_of"]

MAX_RUNS = 10_000
MAX_TABLE_BYTES = 1 << 30
DAY_S = 86_400.0
COLUMNS: Final = (
    "rule", "path", "line", "level", "message", "detector", "fingerprint", "suppressed", "waived",
)  # fmt: skip
"""Of the Parquet table."""
SAFE: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
}
"""DuckDB fetches extensions and opens files by name unless it is told not to."""

SCHEMA: Final = """
    CREATE TABLE runs(n INTEGER, tree VARCHAR, started TIMESTAMP, listed BOOLEAN);
    CREATE TABLE seen(n INTEGER, rule VARCHAR, path VARCHAR, line INTEGER, level VARCHAR, message VARCHAR,
                      detector VARCHAR, fingerprint VARCHAR, suppressed BOOLEAN, waived VARCHAR);
    CREATE TABLE answered(n INTEGER, path VARCHAR, detector VARCHAR);
    CREATE TABLE ran(n INTEGER, detector VARCHAR, everywhere BOOLEAN);
    CREATE TABLE files(n INTEGER, path VARCHAR, digest VARCHAR);
    CREATE TABLE hidden(n INTEGER, path VARCHAR);
"""
EVENTS: Final = """
    CREATE TABLE events AS
    WITH identity AS (
        SELECT r.tree, s.fingerprint, any_value(s.path) AS path, any_value(s.detector) AS detector, min(s.n) AS first
        FROM seen s JOIN runs r USING (n) GROUP BY r.tree, s.fingerprint
    ), pairs AS (
        SELECT i.tree, i.fingerprint, i.path, i.detector, r.n, r.listed
        FROM identity i JOIN runs r ON r.tree = i.tree AND r.n >= i.first
    ), looks AS (
        SELECT p.tree, p.fingerprint, p.n, s.fingerprint IS NOT NULL AS present,
               a.n IS NOT NULL OR coalesce(d.everywhere, false) AS answered,
               d.n IS NOT NULL AND f.n IS NULL AND NOT p.listed AND NOT EXISTS (
                   SELECT 1 FROM hidden h
                   WHERE h.n = p.n AND (h.path = p.path OR starts_with(p.path, rtrim(h.path, '/') || '/'))
               ) AS gone
        FROM pairs p
        LEFT JOIN seen s ON s.n = p.n AND s.fingerprint = p.fingerprint
        LEFT JOIN answered a ON a.n = p.n AND a.path = p.path AND a.detector = p.detector
        LEFT JOIN ran d ON d.n = p.n AND d.detector = p.detector
        LEFT JOIN files f ON f.n = p.n AND f.path = p.path
    )
    SELECT tree, fingerprint, n, present, lag(present) OVER (PARTITION BY tree, fingerprint ORDER BY n) AS before
    FROM looks WHERE present OR answered OR gone;
"""
FOLLOWED: Final = """
    WITH newest AS (SELECT tree, max(n) AS n FROM runs GROUP BY tree),
    fate AS (
        SELECT e.tree, e.fingerprint, arg_max(e.present, e.n) AS present, min(e.n) AS first,
               max(e.n) FILTER (e.present) AS last_seen,
               min(e.n) FILTER (NOT e.present AND e.n > l.last) AS fixed,
               count(*) FILTER (e.present AND e.before = false) AS reopenings,
               max(e.n) FILTER (e.present AND e.before = false) AS reopened
        FROM events e
        JOIN (SELECT tree, fingerprint, max(n) AS last FROM events WHERE present GROUP BY ALL) l
             USING (tree, fingerprint)
        GROUP BY e.tree, e.fingerprint
    )
    SELECT t.tree, s.fingerprint, s.rule, s.path, s.line, s.level, s.message, s.detector, s.suppressed, s.waived,
           CASE WHEN NOT t.present THEN 'fixed' WHEN t.first = m.n THEN 'new'
                WHEN t.reopened = m.n THEN 'reopened' ELSE 'open' END AS state,
           t.first, t.last_seen, t.fixed, t.reopenings,
           epoch(coalesce(x.started, e.started) - b.started) AS age_s, coalesce(g.digest, '') AS digest
    FROM fate t
    JOIN newest m USING (tree)
    JOIN seen s ON s.n = t.last_seen AND s.fingerprint = t.fingerprint
    LEFT JOIN files g ON g.n = t.last_seen AND g.path = s.path
    JOIN runs b ON b.n = t.first JOIN runs e ON e.n = m.n LEFT JOIN runs x ON x.n = t.fixed
    ORDER BY t.tree, s.path, s.line, s.rule, s.detector, s.fingerprint;
"""
MOVED: Final = """
    SELECT n, count(*) FILTER (present AND before IS NULL) AS new, count(*) FILTER (present AND before = false) AS back,
           count(*) FILTER (NOT present AND before) AS fixed
    FROM events GROUP BY n;
"""


class History(msgspec.Struct, frozen=True):
    """What an evidence folder's runs say together."""

    runs: tuple[PastRun, ...]
    """From the oldest."""
    findings: tuple[Followed, ...]
    left_out: tuple[LeftOut, ...]
    anchored: bool
    """Whether each run's signature was held against a key that the caller trusts."""


class _Run(msgspec.Struct, frozen=True):
    folder: str
    record: RunRecord
    tree: str
    table: Any
    """The findings, as an Arrow table."""

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.record.started).replace(tzinfo=None)


def history_of(folder: Path, public_key: Path | None = None, *, one_tree: bool = False) -> History:
    """
    Follow the findings of all runs whose evidence lies in a folder.

    Args:
        folder: Holds a folder of evidence for each run.
        public_key: The key that the caller trusts; without one, evidence that holds together is believed.
        one_tree: Whether all runs are of one tree, whatever folder it was checked out into.

    Raises:
        UsageError: There is no such folder, or it holds too many runs.
        KeyUnusable: `public_key` is no key.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name the one that holds the runs' evidence")
    if public_key is not None:
        _ = VerifyingKey.load(public_key)  # before the work: a key that is none would leave out every folder
    runs, left_out = _read(folder, public_key, one_tree=one_tree)
    if len(runs) > MAX_RUNS:
        raise UsageError(f"{folder} holds {len(runs)} runs, at most {MAX_RUNS} are followed; move old ones elsewhere")
    runs.sort(key=lambda run: (run.started, run.record.run_id))
    moved, found = _followed(runs) if runs else ({}, ())
    assert all(one.first_seen for one in found), "a finding was seen by some run"
    return History(tuple(_past(runs, moved)), found, tuple(left_out), public_key is not None)


def _read(folder: Path, public_key: Path | None, *, one_tree: bool) -> tuple[list[_Run], list[LeftOut]]:
    runs: list[_Run] = []
    left_out: list[LeftOut] = []
    ids: dict[str, str] = {}
    for place in sorted(folder.iterdir()):
        if not place.is_dir():
            continue
        try:
            run = _one(place, public_key, one_tree=one_tree)
        except (AttestationInvalid, UsageError, OSError) as problem:
            left_out.append(LeftOut(place.name, str(problem)))
            continue
        first = ids.setdefault(run.record.run_id, place.name)
        if first != place.name:
            left_out.append(LeftOut(place.name, f"it is the run of {first} once more"))
            continue
        runs.append(run)
    return runs, left_out


def _one(place: Path, public_key: Path | None, *, one_tree: bool) -> _Run:
    if place.is_symlink():
        raise UsageError("it is a link")
    if not (place / ATTESTATION).exists():
        raise UsageError(f"it is not signed: there is no {ATTESTATION}")
    record = read_evidence(place, public_key).record
    tree = "" if one_tree else ", ".join(sorted(root.path for root in record.roots))
    table = _table(place / TABLE, record)
    assert table.num_rows == len(record.findings), "the table has the record's findings"
    return _Run(place.name, record, tree, table)


def _table(file: Path, record: RunRecord) -> pa.Table:
    """Return the findings of a run whose evidence has verified; raises UsageError for a table of another release."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.stat().st_size > MAX_TABLE_BYTES:
        raise UsageError(f"its {TABLE} is larger than {MAX_TABLE_BYTES} bytes")
    try:
        table = pq.read_table(io.BytesIO(file.read_bytes()))
    except pa.ArrowException as problem:
        raise UsageError(f"its {TABLE} cannot be read: {problem}") from problem
    if "waived" not in table.column_names:
        table = table.append_column("waived", pa.array([""] * table.num_rows, pa.string()))
    if not set(COLUMNS) <= set(table.column_names) or table.num_rows != len(record.findings):
        raise UsageError(f"its {TABLE} is of another release, or is not of this run")
    return table.select(list(COLUMNS))


def _followed(runs: Sequence[_Run]) -> tuple[dict[int, dict[str, int]], tuple[Followed, ...]]:
    """Return, by a run's number, what it changed; and all findings."""
    import duckdb

    with duckdb.connect(":memory:", config=SAFE) as database:
        _ = database.execute(SCHEMA)
        for number, run in enumerate(runs):
            _load(database, number, run)
        _ = database.execute(EVENTS)
        moved = {n: {"new": new, "reopened": back, "fixed": fixed} for n, new, back, fixed in _rows(database, MOVED)}
        found = tuple(_finding(row, runs) for row in _rows(database, FOLLOWED))
    assert len({(one.tree, one.fingerprint) for one in found}) == len(found), "a finding is followed once"
    return moved, found


def _load(database: Any, number: int, run: _Run) -> None:
    import pyarrow as pa

    record = run.record
    listed = any(root.listed for root in record.roots)
    _ = database.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", [number, run.tree, run.started, listed])
    done = [unit for unit in record.units if unit.state != "not-analysed"]
    hidden = [entry.path for entry in record.excluded]
    hidden += [entry.path for entry in record.not_analysed if not entry.detector]
    tables: dict[str, pa.Table] = {
        "answered": pa.table({"path": [unit.path for unit in done], "detector": [unit.detector for unit in done]}),
        "ran": pa.table(
            {
                "detector": [item.name for item in record.detectors],
                "everywhere": [item.name.startswith(IMPORTED) for item in record.detectors],
            }
        ),
        "files": pa.table(
            {"path": [file.path for file in record.files], "digest": [file.digest for file in record.files]}
        ),
        "hidden": pa.table({"path": hidden}),
        "seen": run.table,
    }
    for name, table in tables.items():
        if table.num_rows:
            _ = database.register("given", table)
            _ = database.execute(f"INSERT INTO {name} SELECT {number}, * FROM given")  # noqa: S608  # names of ours
            _ = database.unregister("given")


def _rows(database: Any, query: str) -> Iterator[tuple[Any, ...]]:
    yield from database.execute(query).fetchall()


def _finding(row: tuple[Any, ...], runs: Sequence[_Run]) -> Followed:
    (tree, fingerprint, rule, path, line, level, message, detector, suppressed, waived, state, first, last, fixed,
     reopenings, age_s, digest) = row  # fmt: skip
    assert state in STATES, "the query names states of ours"
    ids = [runs[number].record.run_id if number is not None else None for number in (first, last, fixed)]
    return Followed(
        state=state, fingerprint=fingerprint, rule=rule, path=path, line=line, level=level, message=message,
        detector=detector, suppressed=suppressed, waived=waived, tree=tree, first_seen=str(ids[0]),
        last_seen=str(ids[1]), fixed_in=ids[2] if state == "fixed" else None, reopenings=reopenings,
        age_days=max(0.0, age_s) / DAY_S, digest=digest,
    )  # fmt: skip


def _past(runs: Sequence[_Run], moved: dict[int, dict[str, int]]) -> Iterator[PastRun]:
    still: dict[str, int] = {}
    for number, run in enumerate(runs):
        record = run.record
        change = moved.get(number, {"new": 0, "reopened": 0, "fixed": 0})
        still[run.tree] = still.get(run.tree, 0) + change["new"] + change["reopened"] - change["fixed"]
        levels = [item.finding.level for item in record.findings]
        assert still[run.tree] >= 0, "no more is fixed than was open"
        yield PastRun(
            run_id=record.run_id, folder=run.folder, started=record.started, tree=run.tree, whole=record.whole,
            since="" if record.since is None else record.since.commit, findings=len(levels),
            errors=levels.count("error"), warnings=levels.count("warning"), notes=levels.count("note"),
            open=still[run.tree], **change,
        )  # fmt: skip
