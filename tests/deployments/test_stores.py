"""Shared stores of results: what two drivers share, what is forged, what is lost; and no secret where it is seen."""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from detectors.cache import ResultCache, result_key
from detectors.circuit_breaker import BreakerPolicy
from detectors.errors import ConfigurationError, StoreUnavailable, UsageError
from detectors.model import Analysed, Digest, FileReport, Finding, Region, RunRecord
from detectors.ports import open_store
from detectors.scan import ScanOptions, scan
from detectors.shared_store import SharedStore

KEY = result_key(Digest("sha256:d"), Digest("sha256:f"), "c", "")
FOUND = Analysed("a.c", "d", FileReport((Finding("R", "note", "m", Region(1, 2, 3, 4)),), {"calls": b"\x01"}, 0.5), 1.5)
RULES = ("power-of-ten-c", "power-of-ten-python")


class Failing:
    """A store that says what is asked of it, and fails when it is told to."""

    name = "failing"

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.asked = 0
        self.broken = False

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        self._ask()
        return {name: self.entries[name] for name in names if name in self.entries}

    def write(self, entries: Mapping[str, bytes]) -> None:
        self._ask()
        self.entries.update(entries)

    def drop(self, names: Sequence[str]) -> None:
        self._ask()
        for name in names:
            self.entries.pop(name, None)

    def close(self) -> None:
        """Nothing is open."""

    def _ask(self) -> None:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable(self.name, "as told")


def _scan(tree: Path, cache: Path, store: str) -> RunRecord:
    return scan(ScanOptions((tree,), RULES, cluster="inline", cache=cache, store=store))


def test_two_drivers_share_answers_through_a_folder(tmp_path: Path, small_tree: Path) -> None:
    """When this fails, each driver computes again what another has; or the findings of the two differ."""
    store = f"file://{tmp_path}/shared/results"
    first = _scan(small_tree, tmp_path / "one", store)
    second = _scan(small_tree, tmp_path / "other", store)
    third = _scan(small_tree, tmp_path / "other", store)

    assert first.executed == first.planned > 0
    assert second.cached == third.cached == first.planned
    assert {unit.run_id for unit in second.units} == {first.run_id}
    assert first.findings_digest == second.findings_digest == third.findings_digest
    assert stat.S_IMODE((tmp_path / "shared" / "results").stat().st_mode) == 0o700


def test_two_drivers_at_once_give_the_same(tmp_path: Path, small_tree: Path) -> None:
    """When this fails, drivers that write the same entries at the same time spoil them for each other."""
    store = f"memory://{uuid.uuid4().hex}"
    runs: list[RunRecord] = []
    threads = [
        threading.Thread(target=lambda name=name: runs.append(_scan(small_tree, tmp_path / name, store)))
        for name in ("one", "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    third = _scan(small_tree, tmp_path / "third", store)

    assert len({run.findings_digest for run in (*runs, third)}) == 1
    assert third.cached == third.planned
    assert all(run.whole and not run.problems for run in (*runs, third))


@pytest.mark.parametrize("how", ["flipped", "cut", "moved", "empty", "forged"])
def test_entries_that_are_not_ours_are_dropped_and_computed_again(tmp_path: Path, small_tree: Path, how: str) -> None:
    """Whoever may write to the store could plant a clean answer for a bad file."""
    store = tmp_path / "store"
    first = _scan(small_tree, tmp_path / "one", f"file://{store}")
    entries = sorted(file for file in store.rglob("*") if file.is_file() and "/result/" in str(file))
    before = {file: file.read_bytes() for file in entries}
    others = [*entries[1:], entries[0]]
    for file, other in zip(entries, others, strict=True):
        data = before[file]
        file.write_bytes(
            {
                "flipped": data[:-1] + bytes([data[-1] ^ 1]),
                "cut": data[: len(data) // 2],
                "moved": before[other],
                "empty": b"",
                "forged": bytes(32) + data[32:],
            }[how]
        )
    second = _scan(small_tree, tmp_path / "other", f"file://{store}")
    third = _scan(small_tree, tmp_path / "third", f"file://{store}")

    assert len(entries) == first.planned > 2
    assert second.executed == second.planned
    assert second.findings_digest == first.findings_digest
    assert any("damaged or forged" in problem for problem in second.problems)
    assert third.cached == third.planned
    assert third.problems == ()


def test_another_key_shares_nothing_and_spoils_nothing(
    tmp_path: Path, small_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, a driver believes, or removes, what was written with a key that it does not have."""
    store = f"file://{tmp_path}/store"
    ours = _scan(small_tree, tmp_path / "one", store)
    other = tmp_path / "other.key"
    other.write_text("ab" * 32)
    other.chmod(0o600)
    monkeypatch.setenv("DETECTOR_POOL_STORE_KEY_FILE", str(other))
    theirs = _scan(small_tree, tmp_path / "other", store)
    monkeypatch.delenv("DETECTOR_POOL_STORE_KEY_FILE")
    again = _scan(small_tree, tmp_path / "third", store)

    assert theirs.executed == theirs.planned
    assert again.cached == again.planned == ours.planned
    assert theirs.problems == again.problems == ()


def test_a_store_that_fails_is_left_alone_and_the_run_goes_on() -> None:
    """When this fails, each of thousands of questions waits for a server that is gone."""
    backend = Failing()
    with ResultCache(None, SharedStore(backend, bytes(32), BreakerPolicy(failures=2, reset_s=3600))) as cache:
        backend.broken = True
        for number in range(20):
            cache.store("run", [(number.to_bytes(32), FOUND)])
            assert cache.lookup([bytes(31) + b"\xff"]) == {}
        kept = cache.lookup([number.to_bytes(32) for number in range(20)])
        asked = backend.asked
        warnings = list(cache.warnings)

    assert len(kept) == 20
    assert asked == 2
    assert len(warnings) == 1
    assert "failing" in warnings[0]


def test_a_store_that_comes_back_is_used_again() -> None:
    """When this fails, one hiccup costs the night's sharing."""
    backend = Failing()
    with ResultCache(None, SharedStore(backend, bytes(32), BreakerPolicy(failures=1, reset_s=0))) as cache:
        backend.broken = True
        cache.store("run", [(KEY, FOUND)])
        backend.broken = False
        cache.store("run", [(KEY, FOUND)])
    with ResultCache(None, SharedStore(backend, bytes(32))) as other:
        stored = other.lookup([KEY])

        assert stored[KEY].outcome("a.c", "d") == Analysed("a.c", "d", FileReport(FOUND.report.findings, {}, 0.5), 0.0)
        assert other.facts([KEY]) == {KEY: {"calls": b"\x01"}}


def test_an_answer_that_cannot_be_kept_here_is_not_taken_from_there(tmp_path: Path) -> None:
    """Its facts would be missing when the rules over the whole tree ask for them, and findings with them."""
    backend = Failing()
    big = Analysed("a", "d", FileReport((), {"x": b"0" * 100_000}), 0.0)
    with ResultCache(None, SharedStore(backend, bytes(32))) as first:
        first.store("run", [(KEY, big)])
    with ResultCache(tmp_path, SharedStore(backend, bytes(32))) as second:
        pages = second._connection.execute("PRAGMA page_count").fetchone()[0]
        second._connection.execute(f"PRAGMA max_page_count = {pages}")

        assert second.lookup([KEY]) == {}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hunter2@127.0.0.1:6379/0", "DETECTOR_POOL_STORE_PASSWORD"),
        ("redis://127.0.0.1:6379/0", "needs a password"),
        ("redis://cache.internal:6379/0", "only rediss"),
        ("rediss://cache.internal:6379/0?ssl_cert_reqs=none", "ssl_cert_reqs is none of"),
        ("ftp://me:hunter2@files.internal/x", "DETECTOR_POOL_STORE_PASSWORD"),
        ("nonsense", "takes the address of"),
        ("nosuchprotocol://x", "cannot be opened"),
    ],
)
def test_addresses_that_are_open_or_carry_secrets_are_refused(url: str, told: str) -> None:
    """When this fails, a password is in every process list, or anybody on the way reads and writes results."""
    with pytest.raises(UsageError, match=told) as seen:
        open_store(url)

    assert "hunter2" not in str(seen.value)


def test_the_key_is_made_closed_and_refused_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, whoever reads the key can forge every answer."""
    open_store(f"file://{tmp_path}/s").close()
    (key,) = Path(os.environ["DETECTOR_POOL_HOME"]).rglob("store.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="0600"):
        open_store(f"file://{tmp_path}/s")
    for content, problem in (("zz", "hexadecimal"), ("abcd", "2 bytes")):
        key.write_text(content)
        key.chmod(0o600)
        with pytest.raises(ConfigurationError, match=problem):
            open_store(f"file://{tmp_path}/s")
    with pytest.raises(UsageError, match="32 bytes"):
        SharedStore(Failing(), b"short")
