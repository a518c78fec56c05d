"""Does a pool's memory grow with executions? A slope with its interval, not two numbers compared."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from detectors import EnterpriseDetectorPool

ALLOWED_BYTES_AN_EXECUTION = 40.0
"""One object forgotten by each execution is more: CPython's smallest take 16 to 48 bytes, a result 96."""
WARM_SHARE = 0.6
"""First blocks that do not count: caches and bounded histories fill for some 40,000 executions."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """Resident memory against executions."""

    executions: int
    slope: float
    """Bytes an execution: Theil-Sen estimate (H. Theil, 1950; P. K. Sen, JASA 63(324), 1968)."""
    low: float
    high: float
    """Its 95 % interval."""
    resident_bytes: int

    @property
    def flat(self) -> bool:
        """Whether the lower end of the interval allows no more than a forgotten object an execution."""
        return self.low < ALLOWED_BYTES_AN_EXECUTION and self.slope < ALLOWED_BYTES_AN_EXECUTION

    def __str__(self) -> str:
        return (
            f"{self.executions} executions: {self.slope:+.2f} bytes each (95 % interval {self.low:+.2f} to "
            f"{self.high:+.2f}, Theil-Sen), {self.resident_bytes / 1e6:.0f} MB resident at the end"
        )


def growth_apart(executions: int, blocks: int, leaks: bool = False) -> Growth:
    """Measure in a fresh interpreter: in one that freed much before, a leak fills holes and is not seen."""
    command = [sys.executable, "-m", "tests.detectors.leaking", str(executions), str(blocks), str(int(leaks))]
    # The measurement of coverage remembers what it saw, which grows, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True, timeout=1_800)
    return Growth(**json.loads(done.stdout))


def growth(executions: int, blocks: int, leak: list[Any] | None = None) -> Growth:
    """
    Run executions of every kind that a pool knows in this process and beside it.

    Args:
        executions: In all.
        blocks: After each, memory is read.
        leak: Grows by an object an execution, to see that the test sees it.
    """
    from scipy.stats import theilslopes

    process = psutil.Process()
    size = executions // blocks
    done: list[int] = []
    resident: list[int] = []
    with EnterpriseDetectorPool(max_workers=2, cache_size=200) as pool:
        pool.register_detector("value", lambda n: [n] * 3 if leak is None else leak.append([n] * 100))
        pool.register_detector("error", _error, breaker=None)
        pool.register_detector("kept", lambda n: str(n) * 20, cacheable=True)
        pool.register_detector("apart", _echo, isolation="process")
        for block in range(blocks):
            for result in pool.execute_stream(_mixed(block * size, size)):
                assert result.ok == (result.detector != "error")
            gc.collect()
            done.append((block + 1) * size)
            resident.append(process.memory_info().rss)
    first = int(blocks * WARM_SHARE)
    slope, _, low, high = theilslopes(resident[first:], done[first:], 0.95)
    return Growth(executions, slope, low, high, resident[-1])


def _mixed(start: int, size: int) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    for n in range(start, start + size):
        yield ("value", "error", "kept", "apart")[n % 4], (n,), {}


def _error(n: int) -> None:
    raise ValueError(n)


def _echo(n: int) -> int:
    return n


if __name__ == "__main__":
    kept: list[Any] | None = [] if sys.argv[3] == "1" else None
    sys.stdout.write(json.dumps(dataclasses.asdict(growth(int(sys.argv[1]), int(sys.argv[2]), kept))))
