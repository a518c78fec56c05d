"""Whether injected faults cost a result, and how long it takes to get over one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectors.benchmark_record import Figure, counted, measured
from detectors.benchmark_work import Work, findings_in
from detectors.dimension import Dimension, checked, timed
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool, RetryPolicy
from detectors.errors import ExecutionTimedOut, IsolatedCrash
from detectors.model import Language

__all__ = ["FaultRecovery"]

FILES = 60
EVERY = 5
"""One unit in five meets a fault at its first try."""
KINDS = ("killed", "hangs", "raises")
LIMIT_S = 2.0
LEAST_RUNS, MOST_RUNS, RUN_S = 2, 20, 12.0
AGAIN = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.01, on=(IsolatedCrash, ExecutionTimedOut, OSError))


class FaultRecovery(Dimension):
    """The rules on real files in isolated processes that are killed, hang or fail, against a calm run."""

    name = "fault-recovery"
    share = 1.5

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the share of units hit by a fault whose findings are those of a calm run, and seconds a fault."""
        calls = work.calls("rules", FILES)
        expected = [findings_in(*args) for _, args, _ in calls]
        faults = survived = 0
        lost_s: list[float] = []
        for number in range(min(MOST_RUNS, max(LEAST_RUNS, round(work.budget_s / RUN_S)))):
            marks = work.place(f"marks-{number}")
            with EnterpriseDetectorPool(max_workers=work.workers) as pool:
                pool.register_detector(
                    "struck", struck, isolation="process", retry=AGAIN, timeout_s=LIMIT_S, breaker=None
                )  # fmt: skip
                calm: list[DetectorConfig] = [("struck", (*args, "", ""), {}) for _, args, _ in calls]
                warm = checked(pool.execute_parallel(calm))
                assert [result.value for result in warm] == expected, "without faults it finds what the rules find"
                calm_s = timed(partial(_into, [], pool, calm))
                hit = _hit(calls, marks)
                seen: list[Sequence[Any]] = []
                spent_s = timed(partial(_into, seen, pool, hit))
            struck_at = [place for place, (_, args, _) in enumerate(hit) if args[3]]
            faults += len(struck_at)
            survived += sum(seen[0][place].value == expected[place] for place in struck_at)
            untouched = [place for place in range(len(hit)) if place not in struck_at]
            assert all(seen[0][place].value == expected[place] for place in untouched), "a fault stays where it fell"
            lost_s.append(max(spent_s - calm_s, 0.0) / len(struck_at))
        yield counted(
            "faults-survived", self.name, "units that met a fault and have the findings of a calm run", good=survived,
            of=faults,
        )  # fmt: skip
        words = f"seconds more for each fault (killed, raised, or hung until {LIMIT_S:g} s have passed)"
        yield measured("recovery", self.name, words, lost_s, unit="s", better="lower")


def struck(path: str, language: Language, marks: str, kind: str) -> int:
    """Run the rules on a file; with a fault of a kind at the first try, of which a mark is left behind."""
    if kind and kind not in KINDS:
        raise ValueError(f"{kind} is no fault of these: {KINDS}")
    mark = Path(marks, path.replace("/", "_")[-200:])
    if kind and not mark.exists():
        mark.touch()
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hangs":
            signal.pause()
        raise OSError("an injected fault")
    assert not kind or mark.exists(), "a fault strikes once"
    return findings_in(path, language)


def _hit(calls: Sequence[DetectorConfig], marks: Path) -> list[DetectorConfig]:
    assert marks.is_dir(), "marks are left somewhere"
    return [
        ("struck", (*args, str(marks), "" if place % EVERY else KINDS[place // EVERY % len(KINDS)]), {})
        for place, (_, args, _) in enumerate(calls)
    ]  # fmt: skip


def _into(seen: list[Sequence[Any]], pool: EnterpriseDetectorPool, configs: Sequence[DetectorConfig]) -> None:
    assert configs, "something is executed"
    seen.append(pool.execute_parallel(configs))
    assert len(seen[-1]) == len(configs), "a result for each"
