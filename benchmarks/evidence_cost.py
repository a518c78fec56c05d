"""
What coverage, canaries and audit cost a run: the same scan with and without them, by turns, each in a new process.

    python -m benchmarks.evidence_cost TREE [--detectors NAMES] [--cold N] [--warm N] [--canaries N]

Both sides scan TREE and write signed evidence. `on` is what `scan --evidence` does: canaries in each batch, a ledger
with fsync that records the run from its beginning, the coverage statement, and its matrix in report and OSCAL. `off`
lacks these and nothing else; users have no such door, so it is made here. The third comparison is of canaries alone,
without any evidence. A ratio of 1.01 is a cost of 1 %. Wall seconds are what a user waits; processor seconds (the
process and all that it waited for) say the same on a machine that others use. `cold` begins without any answer in the
cache, `warm` has all of them, so that what is fixed a run stands alone: its difference is told in seconds, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from detectors.measurement import mean_interval
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan

DETECTORS = "power-of-ten-c,power-of-ten-python,compiler-warnings,ruff,bandit,flawfinder,lizard,mypy"
PASSPHRASE = b"benchmark"
SIDES = ("off", "on")
Used = tuple[float, float]
"""Wall and processor seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line a comparison."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="evidence_cost", description=__doc__, formatter_class=shape)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--detectors", default=DETECTORS)
    parser.add_argument("--cold", type=int, default=6, help="pairs")
    parser.add_argument("--warm", type=int, default=20, help="pairs")
    parser.add_argument("--canaries", type=int, default=6, help="pairs, cold and without evidence")
    parser.add_argument("--side", nargs=3, metavar=("KIND", "SIDE", "SCRATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        kind, side, scratch = options.side
        return _one(options.tree, options.detectors, kind, side == "on", Path(scratch))
    print(f"{len(os.sched_getaffinity(0))} processors, load average {os.getloadavg()[0]:.1f} at the start", flush=True)
    beside = Path(".demo")  # a real disk: temporary folders may lie in memory
    beside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as name:
        for kind, pairs in (("warm", options.warm), ("canaries", options.canaries), ("cold", options.cold)):
            if pairs:
                _compare(kind, pairs, options, Path(name))
    return 0


def _compare(kind: str, pairs: int, options: argparse.Namespace, scratch: Path) -> None:
    """Run both sides by turns, and print what the one costs over the other."""
    used: dict[str, list[Used]] = {side: [] for side in SIDES}
    units = 0
    for side in SIDES if kind == "warm" else ():
        _ = _run(kind, side, options, scratch)  # fills the cache, and makes ledger and key
    for pair in range(pairs):
        for side in SIDES if pair % 2 else SIDES[::-1]:
            if kind != "warm":
                shutil.rmtree(scratch / f"cache-{side}", ignore_errors=True)
            seconds, units = _run(kind, side, options, scratch)
            used[side].append(seconds)
    for place, clock in enumerate(("wall", "processor")):
        ratios = [on[place] / off[place] for on, off in zip(used["on"], used["off"], strict=True)]
        added_s = [on[place] - off[place] for on, off in zip(used["on"], used["off"], strict=True)]
        off_s = sum(off[place] for off in used["off"]) / pairs
        print(
            f"{kind}, {units} units, {clock}: off {off_s:.2f} s; ratio {mean_interval(ratios).told()}; "
            f"added seconds {mean_interval(added_s).told()}"
        )
    sys.stdout.flush()


def _run(kind: str, side: str, options: argparse.Namespace, scratch: Path) -> tuple[Used, int]:
    """Run one side in a process of its own; return what it used, and how many units it answered."""
    command = [
        sys.executable, "-m", "benchmarks.evidence_cost", str(options.tree), "--detectors", options.detectors,
        "--side", kind, side, str(scratch),
    ]  # fmt: skip
    answer = scratch / "answer"
    clock = time.perf_counter()
    with answer.open("wb") as out:
        child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)])
        _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - clock
    assert status == 0, "both sides end well"
    return (seconds, usage.ru_utime + usage.ru_stime), json.loads(answer.read_bytes())["units"]


def _one(tree: Path, detectors: str, kind: str, on: bool, scratch: Path) -> int:
    """Be one side."""
    cache = scratch / ("cache-on" if on else "cache-off")
    options = ScanOptions((tree,), tuple(detectors.split(",")), "inline", cache=cache, canaries=on)
    run = scan(options) if kind == "canaries" else _sealed(options, scratch, on=on)
    assert run.whole, "what is compared is whole"
    print(json.dumps({"units": run.planned}))
    return 0


def _sealed(options: ScanOptions, scratch: Path, *, on: bool) -> RunRecord:
    from compliance import evidence
    from compliance.run_trail import LedgerPlace, RunTrail, recorded_scan
    from compliance.signing import SigningKey

    folder = scratch / "evidence"
    shutil.rmtree(folder, ignore_errors=True)
    key = SigningKey.load_or_create(scratch / "keys")
    place = LedgerPlace(scratch / "ledger", scratch / "ledger-keys", PASSPHRASE, create=True) if on else None

    def seal(record: RunRecord) -> None:
        written = list(evidence._formats()) if on else list(_without(list(evidence._formats())))
        with mock.patch.object(evidence, "_formats", return_value=written):
            _ = evidence.collect(record, folder, key, trail)

    trail = RunTrail(place)
    return recorded_scan(options, trail, seal)


def _without(formats: Sequence[Any]) -> Iterator[Any]:
    """Yield the formats of evidence without the coverage statement, and without its matrix in others."""
    for module in formats:
        if module.NAME == "coverage.json":
            continue
        if module.NAME in {"report.html", "oscal.json"}:
            yield SimpleNamespace(NAME=module.NAME, MEDIA_TYPE=module.MEDIA_TYPE, write=_bare(module.write))
        else:
            yield module


def _bare(write: Callable[[RunRecord, Path], None]) -> Callable[[RunRecord, Path], None]:
    """Return a writer that sees no units, so that it has no states to count."""

    def written(run: RunRecord, file: Path) -> None:
        write(msgspec.structs.replace(run, files=(), units=(), planned=0, executed=0, cached=0), file)

    return written


if __name__ == "__main__":
    raise SystemExit(main())
