"""Fault tolerance: injected faults cost no finding, and what keeps failing costs nobody else's."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from detectors.claims.basic_function import right_answers
from detectors.enterprise_detector_pool import BreakerPolicy, DetectorConfig, EnterpriseDetectorPool, RetryPolicy
from detectors.errors import CircuitOpen, ExecutionTimedOut, IsolatedCrash, UsageError
from detectors.file_work import file_findings, source_files
from detectors.model import Language
from detectors.ports import Figure, Workplace

__all__ = ["BadNeighbours", "DamagedCache", "KilledProcesses"]

KILLED_EVERY = 10
"""Each tenth unit kills its process at the first try."""
AGAIN = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.01, on=(IsolatedCrash,))
HANGS_S, LIMIT_S = 60.0, 0.5
DAMAGES = 12


def killed_once(path: str, language: Language, mark: str) -> list[str]:
    """Return `file_findings`; with a mark that is not there yet, leave it and die by SIGKILL first."""
    if mark:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return file_findings(path, language)
        os.kill(os.getpid(), signal.SIGKILL)
    return file_findings(path, language)


class KilledProcesses:
    """A killed process costs no finding."""

    part: ClassVar[str] = "fault tolerance"
    title: ClassVar[str] = "killed processes cost no finding"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Let each tenth unit kill its process, and compare with a run without faults."""
        files = source_files(workplace.sources, workplace.files)
        calm = [file_findings(*file) for file in files]
        marks = [
            str(workplace.folder / f"killed-{place}") if place % KILLED_EVERY == 0 else ""
            for place in range(len(files))
        ]
        with EnterpriseDetectorPool(max_workers=workplace.workers) as pool:
            pool.register_detector("killed", killed_once, isolation="process", retry=AGAIN, breaker=None)
            calls: list[DetectorConfig] = [
                ("killed", (*file, mark), {}) for file, mark in zip(files, marks, strict=True)
            ]
            results = pool.execute_parallel(calls)
            lost = pool.get_pool_metrics()["processes"]["lost"]
        kills = sum(bool(mark) for mark in marks)
        assert kills, "something is killed"
        told = f"{kills} of {len(files)} units killed their process with SIGKILL"
        yield Figure("processes that were lost", lost, "processes", kills, "at least", kills, method=told)
        right = right_answers(results, ["killed"] * len(files), calm)
        yield Figure("right answers after that", right, "executions", len(files), "at least", len(files), method=told)


def hanging() -> None:
    """Never come back by itself."""
    time.sleep(HANGS_S)


def broken() -> None:
    """Fail as a detector does whose tool is gone."""
    raise ConnectionError("injected outage")


class BadNeighbours:
    """A detector that hangs or always fails costs no other its findings."""

    part: ClassVar[str] = "fault tolerance"
    title: ClassVar[str] = "a detector that hangs or keeps failing costs no other its findings"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Run the rules beside a detector that hangs and one that always fails."""
        files = source_files(workplace.sources, workplace.files)
        calm = [file_findings(*file) for file in files]
        assert LIMIT_S < HANGS_S, "it would end before its limit"
        with EnterpriseDetectorPool(max_workers=workplace.workers) as pool:
            pool.register_detector("rules", file_findings)
            pool.register_detector("hangs", hanging, isolation="process", timeout_s=LIMIT_S, breaker=None)
            pool.register_detector("fails", broken, breaker=BreakerPolicy(failures=3, reset_s=3600.0))
            healthy: list[DetectorConfig] = [("rules", file, {}) for file in files]
            bad: list[DetectorConfig] = [("hangs", (), {}), ("hangs", (), {}), *[("fails", (), {})] * 20]
            results = pool.execute_parallel([*bad, *healthy])
            open_now = pool.execute_detector("fails")
        right = right_answers(results[len(bad) :], ["rules"] * len(files), calm)
        yield Figure("right answers beside them", right, "executions", len(files), "at least", len(files))
        ended = sum(isinstance(result.error, ExecutionTimedOut) for result in results[:2])
        yield Figure("hanging executions ended at their limit", ended, "executions", 2, "at least", 2)
        refused = isinstance(open_now.error, CircuitOpen)
        yield Figure("open circuits of what keeps failing", refused, "circuits", 1, "at least", 1)


class DamagedCache:
    """A damaged cache is never believed."""

    part: ClassVar[str] = "fault tolerance"
    title: ClassVar[str] = "a damaged cache changes no finding"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Keep results on disk, damage the store in many ways, and ask again each time."""
        files = source_files(workplace.sources, max(2, workplace.files // 8))
        calm = [file_findings(*file) for file in files]
        folder = workplace.folder / "cache"
        chooser = random.Random(9)  # noqa: S311  # a reproducible sample, no secret
        calls: list[DetectorConfig] = [("rules", file, {}) for file in files]
        same = computed = 0
        for number in range(DAMAGES + 1):
            with EnterpriseDetectorPool(max_workers=workplace.workers, cache_folder=folder) as pool:
                pool.register_detector("rules", file_findings, cacheable=True, version="1")
                results = pool.execute_parallel(calls)
            if number:
                same += right_answers(results, ["rules"] * len(files), calm) == len(files)
                computed += any(not result.from_cache for result in results)
            _damage(folder / "cache.sqlite3", number, chooser)
        assert same <= DAMAGES, "each damage is looked at once"
        told = "stored values swapped or flipped, pages overwritten, the file cut"
        yield Figure("damages after which every answer was right", same, "damages", DAMAGES, "at least", DAMAGES,
                     method=told)  # fmt: skip
        yield Figure("damages that were noticed", computed, "damages", DAMAGES, "at least", DAMAGES, method=told)


def _damage(file: Path, number: int, chooser: random.Random) -> None:
    """Damage a store in one of three ways."""
    if not file.is_file():
        raise UsageError(f"{file} is no store that could be damaged")
    match number % 3:
        case 0:
            with sqlite3.connect(file) as connection:
                connection.execute(
                    "UPDATE value SET value = (SELECT other.value FROM value AS other WHERE other.key <> value.key)"
                )
            connection.close()
        case 1:
            data = bytearray(file.read_bytes())
            for place in range(0, len(data), 4096):  # every page, the header's too
                data[place + chooser.randrange(16)] ^= 0xFF
            _ = file.write_bytes(data)
        case _:
            size_bytes = file.stat().st_size
            assert size_bytes, "there is something to cut"
            os.truncate(file, size_bytes // 2)
