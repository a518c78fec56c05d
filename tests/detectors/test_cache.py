"""The cache may lose anything, but never lies and never stops a run."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.cache import ResultCache, Timing, result_key
from detectors.errors import FormatTooNew, UsageError
from detectors.model import Analysed, Digest, FileReport, Finding, NotAnalysed, Region
from detectors.workload_optimizer import WorkloadOptimizer

FOUND = Analysed("a.c", "d", FileReport((Finding("R", "note", "m", Region(1, 2, 3, 4)),), {"calls": b"\x01"}, 0.5), 1.5)
KEY = result_key(Digest("sha256:d"), Digest("sha256:f"), "c", "")


def test_gives_back_what_was_stored_under_another_path(tmp_path: Path) -> None:
    """Results belong to content: the path is the asker's."""
    with ResultCache(tmp_path) as cache:
        assert not cache.holds_results()
        cache.store("run-1", [(KEY, FOUND)])
    with ResultCache(tmp_path) as cache:
        stored = cache.lookup([KEY, b"\0" * 32])

        assert cache.holds_results()
        assert set(stored) == {KEY}
        assert stored[KEY].run_id == "run-1"
        assert stored[KEY].outcome("b.c", "d") == Analysed("b.c", "d", FileReport(FOUND.report.findings, {}, 0.5), 0.0)
        assert cache.facts([KEY]) == {KEY: {"calls": b"\x01"}}


@given(
    st.tuples(*[st.text(max_size=4)] * 4),
    st.tuples(*[st.text(max_size=4)] * 4),
)
def test_keys_are_equal_only_for_equal_parts(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Two parts that run together would give one file another's findings."""
    assert (result_key(*one) == result_key(*other)) == (one == other)  # type: ignore[arg-type]


def test_keeps_only_answers_that_the_bytes_decide(tmp_path: Path) -> None:
    """A crash or timeout kept for ever would never be tried again."""
    answers = [NotAnalysed("a", "d", reason) for reason in ("crashed", "timed-out", "parse-error", "too-large")]
    keys = [result_key(Digest("d"), Digest(answer.reason), "c", "") for answer in answers]
    with ResultCache(tmp_path) as cache:
        cache.store("r", zip(keys, answers, strict=True))
        kept = cache.lookup(keys)

    assert [key in kept for key in keys] == [False, False, True, True]
    assert kept[keys[2]].outcome("b", "e") == NotAnalysed("b", "e", "parse-error")


@settings(max_examples=25)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_in_a_row_drops_the_row(where: int, flip: int) -> None:
    """A damaged answer must be computed again, not believed."""
    with ResultCache(None) as cache:
        cache.store("r", [(KEY, FOUND)])
        for column in ("report", "facts", "checksum"):
            value = bytearray(cache._connection.execute(f"SELECT {column} FROM result").fetchone()[0])
            value[where % len(value)] ^= flip
            cache._connection.execute(f"UPDATE result SET {column} = ?", (bytes(value),))
            assert cache.lookup([KEY]) == {}
            assert cache.lookup([KEY]) == {}
            cache.store("r", [(KEY, FOUND)])
            assert KEY in cache.lookup([KEY])

        assert len(cache.warnings) == 3


@pytest.mark.parametrize("content", [b"", b"junk" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_cache_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """A corrupt cache file costs time, never a run."""
    (tmp_path / "cache.sqlite3").write_bytes(content)
    with ResultCache(tmp_path) as cache:
        cache.store("r", [(KEY, FOUND)])

        assert KEY in cache.lookup([KEY])
        assert bool(cache.warnings) == bool(content)
    aside = [file for file in tmp_path.iterdir() if "damaged" in file.name]
    assert [file.read_bytes() for file in aside] == ([content] if content else [])


def test_a_foreign_database_is_set_aside_whole(tmp_path: Path) -> None:
    """Somebody else's database under our name must be neither written nor lost."""
    with sqlite3.connect(tmp_path / "cache.sqlite3") as foreign:
        foreign.execute("CREATE TABLE precious (x)")
        foreign.execute("INSERT INTO precious VALUES (42)")
    foreign.close()
    with ResultCache(tmp_path) as cache:
        assert "another program" in cache.warnings[0]
    aside = next(file for file in tmp_path.iterdir() if "damaged" in file.name)
    with sqlite3.connect(aside) as kept:
        assert kept.execute("SELECT x FROM precious").fetchall() == [(42,)]
    kept.close()


def test_damage_in_the_middle_of_a_run_is_survived(tmp_path: Path) -> None:
    """Pages overwritten while the cache is open end in a rebuilt cache, not in an exception."""
    many = [(result_key(Digest("d"), Digest(str(n)), "c", ""), FOUND) for n in range(2000)]
    with ResultCache(tmp_path) as cache:
        cache.store("r", many)
    file = tmp_path / "cache.sqlite3"
    data = bytearray(file.read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    file.write_bytes(bytes(data))
    with ResultCache(tmp_path) as cache:
        assert cache.lookup([key for key, _ in many]) == {}
        cache.store("r", many[:1])
        assert cache.warnings
        assert set(cache.lookup([many[0][0]])) == {many[0][0]}


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A newer release's cache must not be thrown away by an older one."""
    ResultCache(tmp_path).close()
    with sqlite3.connect(tmp_path / "cache.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(FormatTooNew, match="99"):
        ResultCache(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    """The message must name the folder and the option."""
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="file/cache"):
        ResultCache(tmp_path / "file" / "cache")


def test_a_full_disk_turns_storing_off(tmp_path: Path) -> None:
    """Findings go on when nothing more can be kept, and the run says so."""
    with ResultCache(tmp_path) as cache:
        pages = cache._connection.execute("PRAGMA page_count").fetchone()[0]
        cache._connection.execute(f"PRAGMA max_page_count = {pages}")
        big = Analysed("a", "d", FileReport((), {"x": b"0" * 100_000}), 0.0)
        cache.store("r", [(KEY, big)])
        cache.store("r", [(KEY, big)])

        assert len(cache.warnings) == 1
        assert "not kept" in cache.warnings[0]
        assert cache.lookup([KEY]) == {}


def test_timings_survive(tmp_path: Path) -> None:
    """What was learnt of durations is there in the next run."""
    with ResultCache(tmp_path) as cache:
        cache.remember_timings({"ruff": Timing(1, 2, 3, 4, 5)})
    with ResultCache(tmp_path) as cache:
        cache._connection.execute("INSERT INTO timing VALUES ('bad', x'c1')")
        assert cache.timings() == {"ruff": Timing(1, 2, 3, 4, 5)}


def test_a_history_of_before_the_model_is_read(tmp_path: Path) -> None:
    """Whoever updates must not lose what years of runs have taught."""
    old = msgspec.msgpack.encode({"n": 10.0, "x": 20.0, "y": 60.0, "xx": 40.0, "xy": 120.0})
    with ResultCache(tmp_path) as cache:
        cache._connection.execute("INSERT INTO timing VALUES ('ruff', ?)", (old,))
        timings = cache.timings()

    assert timings == {"ruff": Timing(10, 20, 60, 40, 120)}
    assert WorkloadOptimizer(timings).predict("ruff", 1_000_000) == pytest.approx(3.0, rel=0.01)


def test_a_history_of_a_newer_release_is_left_alone_and_told(tmp_path: Path) -> None:
    """An older release that shares the cache must neither misread nor overwrite what the newer one learnt."""
    newer = msgspec.msgpack.encode({"version": 99, "n": "another meaning"})
    with ResultCache(tmp_path) as cache:
        cache._connection.execute("INSERT INTO timing VALUES ('ruff', ?)", (newer,))
        assert cache.timings() == {}
        assert "version 99" in cache.warnings[0]
        cache.remember_timings({"ruff": Timing(1, 2, 3, 4, 5), "bandit": Timing(1)})

        assert cache._read("SELECT sums FROM timing WHERE detector = 'ruff'", ()) == [(newer,)]
        assert cache.timings() == {"bandit": Timing(1)}


@pytest.mark.parametrize("value", ["5", "x'00'", "'text'", "NULL"])
@pytest.mark.parametrize("column", ["result.report", "result.facts", "value.value", "stat.entry", "timing.sums"])
def test_a_column_that_changed_its_type_is_damage(tmp_path: Path, column: str, value: str) -> None:
    """A damaged page may give a row anything; when this fails, each later run ends with an error of Python's own."""
    import sqlite3

    table, _, name = column.partition(".")
    with ResultCache(tmp_path) as cache:
        cache.store_values([(bytes(32), b"\x01")])
        cache.store("run", [(bytes(32), Analysed("a.c", "d", FileReport(), 0.1))])
        cache._write("INSERT OR REPLACE INTO stat VALUES (?, ?, ?)", [("root", b"a.c", b"damaged")])
        cache.remember_timings({"d": Timing()})
    with sqlite3.connect(tmp_path / "cache.sqlite3") as connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '')")
    connection.close()
    with sqlite3.connect(tmp_path / "cache.sqlite3") as connection:
        connection.execute(f"UPDATE {table} SET {name} = {value}")
    connection.close()
    with ResultCache(tmp_path) as cache:
        seen = cache.lookup([bytes(32)]), cache.values([bytes(32)]), cache.known("root"), cache.timings()

    assert (len(seen[0]), len(seen[1]), len(seen[3])) == (table != "result", table != "value", table != "timing")
    assert seen[2] == {}
