"""The soak: it sees what is wrong, lost or declared; and what it found in the product stays mended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deployments.certificate_commands import default_folder
from deployments.certificates import init
from deployments.soak import KINDS, Counts, SoakConfig, SoakReport, _Load, _Tally, markdown, wilson
from deployments.soak_cluster import SupervisedCluster
from deployments.soak_faults import Fault, Faults, SmallVolume
from detectors import EnterpriseDetectorPool, file_work
from detectors.errors import ClusterLost, UsageError
from detectors.file_work import file_findings
from detectors.measurement import environment
from detectors.parallel_executor import Call, DaskBackend, ParallelExecutor
from detectors.ports import open_cluster

UNSHARE = ("unshare", "--mount") if os.getuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
FULL_DISK = """
import pathlib, sys
from deployments.soak_faults import SmallVolume
from detectors.cache import ResultCache

folder = pathlib.Path(sys.argv[1])
volume = SmallVolume(folder, 1 << 17)
assert not volume.problem, volume.problem
(folder / "filler").write_bytes(b"")
with (folder / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
with ResultCache(folder) as cache:
    cache.store_values([(bytes(32), b"\\x01")])
    print(len(cache.warnings), cache.values([bytes(32)]) == {bytes(32): b"\\x01"})
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Real files, small ones."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for path, _ in file_work.source_files(file_work.here(), 80, 6_000):
        shutil.copyfile(path, folder / Path(path).name)
    (folder / "recursive.c").write_text("int f(int n)\n{\n    return f(n);\n}\n")
    return folder


def _can_mount() -> bool:
    tried = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="no mount namespaces here (util-linux, user namespaces)")


def _report(*counts: Counts, faults: tuple[Fault, ...] = ()) -> SoakReport:
    return SoakReport(SoakConfig(), environment(), 60.0, counts, faults, 1, ("12:00:00 a scan: wrong: less",))


FAULT = Fault(5.0, "2026-01-01T00:00:05Z", "tool", "SIGKILL to 1", True)


@pytest.mark.parametrize(
    ("counts", "faults", "held"),
    [
        (Counts("a", 10, 10, 0, 0, 0), (FAULT,), True),
        (Counts("a", 10, 9, 1, 0, 0), (FAULT,), False),
        (Counts("a", 10, 9, 0, 1, 0), (FAULT,), False),
        (Counts("a", 10, 9, 0, 0, 1), (FAULT,), False),
        (Counts("a", 0, 0, 0, 0, 0), (FAULT,), False),
        (Counts("a", 10, 10, 0, 0, 0), (), False),
        (Counts("a", 10, 10, 0, 0, 0), (msgspec.structs.replace(FAULT, injected=False),), False),
    ],
)
def test_only_right_work_under_faults_holds(counts: Counts, faults: tuple[Fault, ...], held: bool) -> None:
    """A soak that did nothing, or in which nothing was done to the product, proves nothing."""
    report = _report(counts, faults=faults)

    assert report.held == held
    assert ("Verdict: held" in markdown(report)) == held
    assert "`12:00:00 a scan: wrong: less`" in markdown(report)


def test_the_interval_is_wilsons() -> None:
    """Of ten right ones in ten, 100 % sure is not what can be said (Wilson 1927; the values are of Newcombe 1998)."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(UsageError):
        wilson(3, 2)


def test_what_did_not_end_is_lost() -> None:
    """Work that was accepted and has no answer must be counted."""
    tally = _Tally()
    tally.accept(KINDS[0], 5)
    tally.end(KINDS[0], "right", 3)
    tally.end(KINDS[0], "wrong", words="less")

    assert tally.counts()[0] == Counts(KINDS[0], 5, 3, 0, 1, 1)
    assert tally.counts()[0].finished == 4
    assert "wrong: less" in tally.problems[0]


def test_wrong_and_failed_work_is_seen(tmp_path: Path, sources: Path) -> None:
    """A soak that takes any answer for right finds nothing."""
    volume = tmp_path / "volume"
    volume.mkdir()
    load = _Load(SoakConfig(sources=(str(sources),)), tmp_path, volume, "inline")
    with EnterpriseDetectorPool(2) as pool:
        pool.register_detector("rules", file_findings)
        pool.register_detector("fails", lambda *_: 1 / 0, breaker=None)
        load._ask(KINDS[0], pool, ("rules",))
        sound = load.tally.counts()[0]
        load._expected = {path: [*found, "another"] for path, found in load._expected.items()}
        load._ask(KINDS[1], pool, ("rules",))
        load._ask(KINDS[2], pool, ("fails",))
    load._scan_tools(KINDS[3])
    scanned = load.tally.counts()[3]
    other = ("sha256:other", frozenset[tuple[str, str, str]]())
    load._trees = [(tree, (other[0], tools[1]), other) for tree, tools, _ in load._trees]
    load._scan_tools(KINDS[3])
    _, wrong, failed, scans = load.tally.counts()

    assert sound.right == sound.accepted > 0
    assert wrong.wrong == wrong.accepted > 0
    assert failed.declared == failed.accepted > 0
    assert (scanned.accepted, scanned.right) == (1, 1), load.tally.problems[-2:]
    assert (scans.accepted, scans.right, scans.wrong) == (2, 1, 1)


def test_faults_are_done_and_told(tmp_path: Path) -> None:
    """A fault that is logged and was not injected makes the soak look better than it was."""
    cache = tmp_path / "cache.sqlite3"
    cache.write_bytes(bytes(100_000))
    volume = SmallVolume.__new__(SmallVolume)
    volume.folder, volume.problem = tmp_path, "not allowed"
    victim = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    faults = Faults({"tool": lambda: [victim.pid], "scheduler": lambda: []}, volume, [cache], 1)
    killed, nobody, full, damaged = (faults.inject(kind) for kind in ("tool", "scheduler", "disk-full", "cache-damage"))
    victim.communicate()

    assert victim.returncode == -signal.SIGKILL
    assert (killed.injected, nobody.injected, full.injected, damaged.injected) == (True, False, False, True)
    assert "not allowed" in full.what
    assert 0 < sum(byte != 0 for byte in cache.read_bytes()) <= 24 * 64
    assert len(cache.read_bytes()) == 100_000
    assert faults.log == [killed, nobody, full, damaged]
    assert sorted(fault.at_s for fault in faults.log) == [fault.at_s for fault in faults.log]
    with pytest.raises(UsageError, match="no fault"):
        faults.inject("earthquake")


@pytest.mark.parametrize(
    "options", [{"minutes": 0.0}, {"every_s": -1.0}, {"workers": 0}, {"faults": ("earthquake",)}, {"faults": ()}]
)
def test_a_soak_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    """A soak without faults or without an end is a mistake of whoever asked."""
    with pytest.raises(UsageError):
        SoakConfig(**options)


@needs_mounts
def test_a_cache_on_a_full_disk_costs_the_cache_only(tmp_path: Path) -> None:
    """A full disk must not end a run that would work without a cache."""
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL_DISK, str(tmp_path / "volume")],
        capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "True"]


def _large(number: int) -> bytes:
    return bytes(20_000_000 + number)


@pytest.mark.slow
def test_a_scheduler_that_dies_is_told_and_not_waited_for(tmp_path: Path) -> None:
    """When this fails, a run whose scheduler dies while results are fetched waits for ever."""
    init(default_folder(), ("127.0.0.1",), 1)
    cluster = SupervisedCluster(default_folder(), 2)
    ended: list[object] = []
    try:
        for _ in range(3):
            cluster.wait_until_ready()
            with open_cluster(cluster.address, 2) as client:
                executor = ParallelExecutor(DaskBackend(client, 2, cluster.address))

                def consume(executor: ParallelExecutor = executor) -> None:
                    try:
                        for place, _ in enumerate(executor.run([Call("large", _large, (n,)) for n in range(12)])):
                            if place == 0:
                                for pid in cluster.pids("scheduler"):
                                    os.kill(pid, signal.SIGKILL)
                        ended.append(place)
                    except ClusterLost as problem:
                        ended.append(problem)

                thread = threading.Thread(target=consume, daemon=True)
                thread.start()
                thread.join(90)
                assert not thread.is_alive()
        assert cluster.restarts >= 3
    finally:
        cluster.close()

    assert len(ended) == 3
    assert any(isinstance(one, ClusterLost) for one in ended)


@pytest.mark.slow
@needs_mounts
def test_a_short_soak_loses_nothing(
    tmp_path: Path, sources: Path, pool_command: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    """Each fault once, on the real product; the twenty minutes are in docs/soak.md."""
    name = tmp_path / "report"
    asked = ["benchmark", "soak", "--minutes", "0.3", "--every", "3", "--sources", sources, "--output", name, "--json"]
    done = pool_command(*asked)
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=SoakReport)

    assert done.returncode in (0, 1), done.stderr.decode()[-2000:]
    assert json.loads(done.stdout)["held"] == (done.returncode == 0) == report.held
    assert [fault.kind for fault in report.faults] == list(report.config.faults)
    assert sum(fault.injected for fault in report.faults) >= 4
    assert all(one.accepted for one in report.counts)
    assert (report.all.wrong, report.all.lost) == (0, 0), report.problems
    assert (tmp_path / "report.md").read_text() == markdown(report)
    assert pool_command(*asked).returncode == UsageError.exit_code
