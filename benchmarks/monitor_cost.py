"""
What `RealTimeComplianceMonitor` costs the pool that it watches: pairs of runs with and without it, in turn.

    python -m benchmarks.monitor_cost [--pairs N] [--every S] [--seconds S]

Each run executes the same units in a pool of threads; a ledger grows meanwhile and is watched. Reported: how much
more processor and wall time a run with the monitor takes, mean and 95 % interval, and the seconds of one look.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

from compliance.defense_compliance_monitor import RealTimeComplianceMonitor
from compliance.ledger import Ledger
from compliance.live_record import LiveRecord
from detectors.benchmark_work import calibrated, spin
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.measurement import mean_interval

UNIT_S = 0.001
APPENDS_A_S = 20
SECRET = b"a passphrase of the benchmark"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="of runs with and without the monitor")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between looks")
    parser.add_argument("--seconds", type=float, default=10.0, help="of work in each run")
    asked = parser.parse_args()
    if asked.pairs < 2 or not asked.every > 0 or not asked.seconds > 0:
        parser.error("an interval needs two pairs, and times above 0")
    rounds = calibrated(UNIT_S)
    more_cpu: list[float] = []
    more_wall: list[float] = []
    looks: list[float] = []
    with tempfile.TemporaryDirectory(prefix="monitor-cost-") as place:
        folder, keys = Path(place, "ledger"), Path(place, "keys")
        _ = Ledger.create(folder, keys, SECRET)
        with Ledger.open(folder, keys, SECRET) as ledger:
            stop = threading.Event()
            writer = threading.Thread(target=_write, args=(ledger, stop))
            writer.start()
            try:
                for pair in range(asked.pairs):
                    # In turn, so that whatever else the machine does meets both sides alike.
                    order = (True, False) if pair % 2 else (False, True)
                    seconds = {on: _run(rounds, asked.seconds, folder if on else None, asked.every) for on in order}
                    more_cpu.append(100 * (seconds[True][0] / seconds[False][0] - 1))
                    more_wall.append(100 * (seconds[True][1] / seconds[False][1] - 1))
                    record = seconds[True][2]
                    assert record is not None, "it was watched"
                    looks += [sample.look_cpu_s for sample in record.samples]
            finally:
                stop.set()
                writer.join()
    print(f"a look every {asked.every:g} s, {asked.pairs} pairs of {asked.seconds:g} s of work in units of 1 ms")
    print(f"processor time, per cent more with the monitor: {mean_interval(more_cpu).told()}")
    print(f"wall time, per cent more with the monitor: {mean_interval(more_wall).told()}")
    print(f"one look: median {statistics.median(looks) * 1e3:.1f} ms of processor time, most {max(looks) * 1e3:.1f} ms")
    print(f"share of one processor: {100 * statistics.median(looks) / asked.every:.3f} % ({len(looks)} looks)")


def _run(rounds: int, seconds: float, ledger: Path | None, every_s: float) -> tuple[float, float, LiveRecord | None]:
    """Execute the units; return (processor seconds, wall seconds, what the monitor saw)."""
    units = round(seconds / UNIT_S)
    with EnterpriseDetectorPool() as pool:
        pool.register_detector("spin", spin)
        monitor = None
        if ledger is not None:
            monitor = RealTimeComplianceMonitor(ledger=ledger, sinks=(), every_s=every_s)
            monitor.start_monitoring(pool)
        started, cpu_s = time.perf_counter(), time.process_time()
        results = pool.execute_parallel([("spin", (rounds,), {})] * units)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started
        assert all(result.ok for result in results), "spinning does not fail"
        return cpu_s, wall_s, monitor.stop_monitoring() if monitor is not None else None


def _write(ledger: Ledger, stop: threading.Event) -> None:
    """Append a few events a second, as a pool in audit mode does."""
    number = 0
    while not stop.wait(1 / APPENDS_A_S):
        number += 1
        receipt = ledger.append({"type": "benchmark", "n": number})
        assert receipt.index >= 0, "acknowledged"


if __name__ == "__main__":
    main()
