"""
A soak: pool, scans and a Dask cluster under load on real files while faults are injected; every answer is checked.

    python -m deployments.soak CONFIGURATION.json REPORT.json

What is right is known beforehand, from runs without faults. Each piece of work that was accepted ends in one of four
ways: right, declared (an error or *not analysed* said so), wrong, lost (no answer). Availability is the share that is
right. Run by `detector-pool benchmark soak` in a mount namespace of its own, so that a small file system can be filled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from deployments.soak_cluster import SupervisedCluster
from deployments.soak_faults import FAULTS, Fault, Faults, SmallVolume
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool, RetryPolicy
from detectors.errors import ClusterError, DetectorPoolError, ExecutionError, UsageError
from detectors.file_work import FileCall, file_findings, here, source_files
from detectors.measurement import Environment, environment
from detectors.model import RunRecord
from detectors.parallel_executor import WorkerLost
from detectors.scan import ScanOptions, scan

__all__ = ["Counts", "SoakConfig", "SoakReport", "markdown", "soak", "wilson"]

KINDS = ("pool, isolated processes", "pool, Dask", "scan with tools", "scan on Dask")
Ending = Literal["right", "declared", "wrong", "lost"]
AGAIN = RetryPolicy(attempts=8, base_s=0.2, cap_s=5.0, on=(ClusterError, WorkerLost, ExecutionError))
BLOCK = 40
"""Executions asked for in one call."""
CALLS_A_POOL = 12
"""After which a pool is closed and another made, as runs follow each other."""
TREES, TREE_FILES = 4, 16
TOOLS = ("ruff", "flawfinder", "power-of-ten-c", "power-of-ten-python")
RULES = ("power-of-ten-c", "power-of-ten-python")
VOLUME_BYTES = 24 << 20
JOB_LIMIT_S = 120.0
"""After which work that was accepted counts as lost."""
SMALL_BYTES = 12_000
KEPT_PROBLEMS = 12
"""Of each kind of work."""


class SoakConfig(msgspec.Struct, frozen=True):
    """What a soak does."""

    minutes: float = 20.0
    every_s: float = 5.0
    """Between the beginnings of faults."""
    sources: tuple[str, ...] = ()
    """Folders of real C and Python; what the interpreter brings when empty."""
    folder: str = ""
    """Where it works; new or empty."""
    workers: int = 2
    seed: int = 1
    faults: tuple[str, ...] = FAULTS

    def __post_init__(self) -> None:
        if not (self.minutes > 0 and self.every_s > 0) or self.workers < 1:
            raise UsageError("a soak takes minutes, a fault comes after seconds, and somebody works: all above 0")
        unknown = set(self.faults) - set(FAULTS)
        if unknown or not self.faults:
            raise UsageError(f"faults are of {', '.join(FAULTS)}, not {', '.join(sorted(unknown)) or 'none'}")


class Counts(msgspec.Struct, frozen=True):
    """How the work of one kind ended."""

    kind: str
    accepted: int
    right: int
    declared: int
    wrong: int
    lost: int

    @property
    def finished(self) -> int:
        """Answers of whatever kind."""
        return self.right + self.declared + self.wrong

    @property
    def availability(self) -> tuple[float, float, float]:
        """Share that is right, with its 95 % Wilson interval."""
        return (self.right / self.accepted if self.accepted else 0.0, *wilson(self.right, self.accepted))


class SoakReport(msgspec.Struct, frozen=True):
    """What a soak showed."""

    config: SoakConfig
    environment: Environment
    seconds: float
    counts: tuple[Counts, ...]
    faults: tuple[Fault, ...]
    restarts: int
    """Of parts of the cluster."""
    problems: tuple[str, ...]
    """What was wrong, declared or lost, in words; the first dozen of each kind of work."""

    @property
    def all(self) -> Counts:
        """All kinds together."""
        columns = ("accepted", "right", "declared", "wrong", "lost")
        return Counts("all", *(sum(getattr(one, column) for one in self.counts) for column in columns))

    @property
    def held(self) -> bool:
        """Whether work was done, faults were injected, and all accepted work is right."""
        every = self.all
        return every.accepted > 0 and every.right == every.accepted and any(one.injected for one in self.faults)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (E. B. Wilson, JASA 22(158), 1927); 0 to 1 where nothing was tried."""
    if not 0 <= successes <= trials:
        raise UsageError(f"{successes} of {trials} is no share")
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    ends = binomtest(successes, trials).proportion_ci(0.95, "wilson")
    assert 0 <= ends.low <= ends.high <= 1, "shares"
    return float(ends.low), float(ends.high)


class _Tally:
    """Counts what was accepted and how it ended. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accepted = dict.fromkeys(KINDS, 0)
        self._ended: dict[tuple[str, Ending], int] = {}
        self.problems: list[str] = []
        self._told = dict.fromkeys(KINDS, 0)

    def accept(self, kind: str, pieces: int) -> None:
        """Note that so much work was accepted."""
        assert pieces > 0, "work was asked for"
        with self._lock:
            self._accepted[kind] += pieces

    def end(self, kind: str, ending: Ending, pieces: int = 1, words: str = "") -> None:
        """Note how some of it ended."""
        assert kind in self._accepted, "a kind of this soak"
        with self._lock:
            self._ended[kind, ending] = self._ended.get((kind, ending), 0) + pieces
            if ending != "right" and self._told[kind] < KEPT_PROBLEMS:
                self._told[kind] += 1
                now = time.strftime("%H:%M:%S", time.gmtime())
                self.problems.append(f"{now} {kind}: {ending}: {words}"[:400])

    def counts(self) -> tuple[Counts, ...]:
        """Return the counts by kind; what was accepted and did not end is lost."""
        made = []
        with self._lock:
            for kind, accepted in self._accepted.items():
                right, declared, wrong = (self._ended.get((kind, end), 0) for end in ("right", "declared", "wrong"))
                made.append(Counts(kind, accepted, right, declared, wrong, accepted - right - declared - wrong))
        assert all(one.lost >= 0 for one in made), "nothing ends twice"
        return tuple(made)


_Answer = tuple[str, frozenset[tuple[str, str, str]]]
"""Of a scan: the digest of its findings, and what was not analysed: path, detector, reason."""


def _answer(run: RunRecord) -> _Answer:
    found = frozenset((one.path, one.detector, str(one.reason)) for one in run.not_analysed)
    assert len(found) <= run.planned + len(run.not_analysed), "each is of a unit, or of a file that is none"
    return str(run.findings_digest), found


class _Load:
    """Four loops that ask for work until they are stopped."""

    def __init__(self, config: SoakConfig, folder: Path, volume: Path, address: str) -> None:
        self._folder, self._volume, self._address = folder, volume, address
        self._workers = config.workers
        # Reproducible, and no secret.
        self._chooser = random.Random(config.seed)  # noqa: S311  # a reproducible sample, no secret
        self.tally, self.stop = _Tally(), threading.Event()
        sources = tuple(map(Path, config.sources)) or here()
        self._files = source_files(sources, 120, SMALL_BYTES)
        self._expected = {file[0]: file_findings(*file) for file in self._files}
        self._trees = list(self._planted(source_files(sources, TREES * TREE_FILES, SMALL_BYTES)))
        self._pools: list[EnterpriseDetectorPool] = []
        self._threads = [
            threading.Thread(target=self._until_stopped, args=(kind, job), name=f"soak-{number}", daemon=True)
            for number, (kind, job) in enumerate(
                zip(KINDS, (self._processes, self._dask, self._scan_tools, self._scan_dask), strict=True)
            )
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let no new work begin, and wait for what was accepted."""
        self.stop.set()
        deadline = time.monotonic() + JOB_LIMIT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.tally.problems.append(f"{thread.name} never came back: {_stack(thread)}")

    def pool_pids(self) -> Sequence[int]:
        """Return the isolated processes of the pools that are there now."""
        return [pid for pool in tuple(self._pools) for pid in pool.get_pool_metrics()["processes"]["pids"]]

    def _planted(self, files: Sequence[FileCall]) -> Iterator[tuple[Path, _Answer, _Answer]]:
        """Make trees of real files; yield each with its answers without faults, by tools and by rules alone."""
        for number in range(TREES):
            tree = self._folder / f"tree-{number}"
            tree.mkdir()
            for place, (path, _) in enumerate(files[number::TREES]):
                _ = (tree / f"{place:03}-{Path(path).name}").write_bytes(Path(path).read_bytes())
            runs = [scan(ScanOptions((tree,), names, "inline", self._workers)) for names in (TOOLS, RULES)]
            if not all(run.whole and run.findings for run in runs):
                raise UsageError(f"{tree} cannot be scanned without faults: {runs[0].problems}")
            yield tree, _answer(runs[0]), _answer(runs[1])

    def _until_stopped(self, kind: str, job: Callable[[str], None]) -> None:
        for _ in range(1 << 32):
            if self.stop.is_set():
                return
            try:
                job(kind)
            except Exception as problem:  # the loop goes on, and what it did not get is counted
                self.tally.accept(kind, 1)
                self.tally.end(kind, "declared", words=repr(problem))

    def _processes(self, kind: str) -> None:
        cache = self._volume / "pool-cache"
        with self._pool(cache_folder=cache) as pool:
            for name in ("rules", "kept"):
                pool.register_detector(
                    name, file_findings, isolation="process", timeout_s=60.0, retry=AGAIN, breaker=None,
                    cacheable=name == "kept", version="1",
                )  # fmt: skip
            self._ask(kind, pool, ("rules", "kept"))

    def _dask(self, kind: str) -> None:
        with self._pool(cluster=self._address) as pool:
            pool.register_detector("rules", file_findings, isolation="dask", retry=AGAIN, breaker=None)
            self._ask(kind, pool, ("rules",))

    @contextlib.contextmanager
    def _pool(self, **options: Any) -> Iterator[EnterpriseDetectorPool]:
        with EnterpriseDetectorPool(self._workers, **options) as pool:
            self._pools.append(pool)
            try:
                yield pool
            finally:
                self._pools.remove(pool)

    def _ask(self, kind: str, pool: EnterpriseDetectorPool, names: Sequence[str]) -> None:
        for _ in range(CALLS_A_POOL):
            if self.stop.is_set():
                return
            chosen = self._chooser.sample(self._files, min(BLOCK, len(self._files)))
            calls: list[DetectorConfig] = [(names[place % len(names)], file, {}) for place, file in enumerate(chosen)]
            self.tally.accept(kind, len(calls))
            results = pool.execute_parallel(calls)
            for file, result in zip(chosen, results, strict=True):
                if result.error is not None:
                    self.tally.end(kind, "declared", words=f"{result.attempts} attempts: {result.error!r}")
                elif result.value != self._expected[file[0]]:
                    self.tally.end(kind, "wrong", words=f"{file[0]} gave {len(result.value)} findings")
                else:
                    self.tally.end(kind, "right")

    def _scan_tools(self, kind: str) -> None:
        self._scanned(kind, TOOLS, "inline", 1)

    def _scan_dask(self, kind: str) -> None:
        self._scanned(kind, RULES, self._address, 2)

    def _scanned(self, kind: str, detectors: tuple[str, ...], cluster: str, place: int) -> None:
        entry = self._chooser.choice(self._trees)
        # Half of them trust the cache, which is being damaged; half let tools and workers do all of it.
        use_cache = self._chooser.random() < 0.5
        options = ScanOptions(
            (entry[0],), detectors, cluster, self._workers, self._volume / f"scan-cache-{place}", use_cache
        )
        self.tally.accept(kind, 1)
        try:
            run = scan(options)
        except (DetectorPoolError, OSError) as problem:
            self.tally.end(kind, "declared", words=repr(problem))
            return
        told = f"{entry[0].name}, use_cache={use_cache}: "
        expected = entry[1] if place == 1 else entry[2]
        unforeseen = _answer(run)[1] - expected[1]
        if unforeseen or not run.whole:
            words = "; ".join([*map(str, sorted(unforeseen)[:2]), *run.problems[:2]])
            self.tally.end(kind, "declared", words=told + words)
        elif _answer(run) != expected:
            self.tally.end(kind, "wrong", words=f"{told}{len(run.findings)} findings, digest {run.findings_digest}")
        else:
            self.tally.end(kind, "right")


def soak(config: SoakConfig, told: Callable[[Fault], None] | None = None) -> SoakReport:
    """
    Run a soak in this process, which must be allowed to mount where disks shall fill.

    Args:
        config: What it does; its folder holds all that it writes.
        told: Called with each fault.

    Raises:
        UsageError: The folder is not empty, or the sources cannot be scanned.
        ClusterError: The cluster does not come up.
    """
    from deployments.certificate_commands import default_folder
    from deployments.certificates import init

    folder = Path(config.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; a soak damages what lies there")
    os.environ["DETECTOR_POOL_HOME"] = str(folder / "home")
    seen, clock = environment(), time.perf_counter()
    certificates = default_folder()
    init(certificates, ("127.0.0.1",), 1)
    volume = SmallVolume(folder / "volume", VOLUME_BYTES)
    cluster = SupervisedCluster(certificates, config.workers)
    try:
        cluster.wait_until_ready()
        load = _Load(config, folder, volume.folder, cluster.address)
        caches = [volume.folder / name / "cache.sqlite3" for name in ("pool-cache", "scan-cache-1", "scan-cache-2")]
        faults = Faults(
            {
                "pool-process": load.pool_pids,
                "tool": _tools,
                "dask-worker": lambda: cluster.pids("worker"),
                "scheduler": lambda: cluster.pids("scheduler"),
            },
            volume, caches, config.seed,
        )  # fmt: skip
        load.start()
        _inject(config, faults, told)
        load.finish()
    finally:
        cluster.close()
    counts = load.tally.counts()
    assert [one.kind for one in counts] == list(KINDS), "each kind is counted"
    return SoakReport(
        config, seen, time.perf_counter() - clock, counts, tuple(faults.log), cluster.restarts,
        tuple(load.tally.problems),
    )  # fmt: skip


def _inject(config: SoakConfig, faults: Faults, told: Callable[[Fault], None] | None) -> None:
    """Inject one fault after the other, each at its time, until the minutes are over."""
    began, count = time.monotonic(), int(config.minutes * 60 / config.every_s)
    for number in range(count):
        due_s = began + (number + 1) * config.every_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        fault = faults.inject(config.faults[number % len(config.faults)])
        if told is not None:
            told(fault)
    assert len(faults.log) == count, "each fault is logged"


def _stack(thread: threading.Thread) -> str:
    """Return where a thread stands, the innermost call first."""
    import traceback

    frame = sys._current_frames().get(thread.ident or 0)  # what faulthandler prints, as text
    if frame is None:
        return "it has ended"
    stack = traceback.extract_stack(frame)[::-1]
    return " < ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in stack[:12])


def _tools() -> Sequence[int]:
    """Return the processes of wrapped tools that run now: children that are neither ours nor Dask's."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = " ".join(child.cmdline()[:4])
            if any(name in words for name in ("ruff", "flawfinder")):
                found.append(child.pid)
    assert os.getpid() not in found, "the soak itself is no tool"
    return found


def markdown(report: SoakReport) -> str:
    """Return the report as a page."""
    every = report.all
    share, low, high = every.availability
    injected = sum(one.injected for one in report.faults)
    lines = [
        "# Soak with faults",
        "",
        f"Made by `detector-pool benchmark soak --minutes {report.config.minutes:g} --every {report.config.every_s:g}`",
        "over C and Python of real projects; every fault and every count is in the JSON beside this page.",
        f"{report.environment.told()}.",
        "",
        f"{injected} of {len(report.faults)} faults were injected in {report.seconds / 60:.1f} minutes, one every "
        f"{report.config.every_s:g} s; {report.restarts} parts of the cluster were started again.",
        f"Of {every.accepted:,} pieces of accepted work {every.right:,} are right: availability {share:.4%} "
        f"(95 % Wilson interval {low:.4%} to {high:.4%}). {every.wrong} are wrong, {every.lost} lost, "
        f"{every.declared} ended with an error that says so. Verdict: {'held' if report.held else 'FAILED'}.",
        "",
        "| work | accepted | finished | right | declared | wrong | lost | availability, 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in (*report.counts, every):
        rate, least, most = one.availability
        lines.append(
            f"| {one.kind} | {one.accepted:,} | {one.finished:,} | {one.right:,} | {one.declared} | {one.wrong} | "
            f"{one.lost} | {rate:.4%} ({least:.4%} to {most:.4%}) |"
        )
    lines += ["", "| fault | asked | injected |", "|---|---|---|"]
    for kind in report.config.faults:
        mine = [fault for fault in report.faults if fault.kind == kind]
        assert len(mine) <= len(report.faults), "some of all"
        lines.append(f"| {kind} | {len(mine)} | {sum(fault.injected for fault in mine)} |")
    lines += ["", "Right is what a run without faults gave: the findings of a file, the digest of a tree's findings."]
    if report.problems:
        lines += ["", "What was not right:", "", *(f"- `{words}`" for words in report.problems)]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the soak that a file describes, write its report to another; return 0 when all work is right, 1 when not."""
    for name in ("distributed", "tornado"):  # they tell of each connection that a fault broke
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    asked, answer = map(Path, arguments)
    report = soak(msgspec.json.decode(asked.read_bytes(), type=SoakConfig), _print_fault)
    _ = answer.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    assert report.counts, "work was counted"
    return 0 if report.held else 1


def _print_fault(fault: Fault) -> None:
    assert fault.kind in FAULTS, "a known kind"
    _ = sys.stderr.write(f"{fault.time} {fault.kind}: {fault.what}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
