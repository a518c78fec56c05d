"""Basic function: every execution answers, rightly and in its order, however many there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from detectors.enterprise_detector_pool import DetectorConfig, DetectorResult, EnterpriseDetectorPool, Isolation
from detectors.errors import UsageError
from detectors.file_work import FileCall, file_findings, source_files
from detectors.ports import Figure, Workplace

__all__ = ["AnswersRightly", "ManyAtOnce"]

ISOLATIONS: tuple[Isolation, ...] = ("thread", "process")
AT_ONCE, QUEUED = 32, 1_000
SMALL_BYTES = 6_000
"""Files of a thousand executions, so that they take seconds and not minutes."""
MEETING_S = 30.0
"""For which the first of the detectors at once waits for the last one."""


def right_answers(results: Sequence[DetectorResult], names: Sequence[str], values: Sequence[Any]) -> int:
    """Return how many results are of the detector and the value that a plain call gives, at the same place."""
    if len(results) != len(values):
        raise UsageError(f"{len(values)} executions were asked for, and {len(results)} results came")
    assert len(names) == len(values), "each was asked of a detector"
    return sum(
        result.ok and result.value == value and result.detector == name
        for result, name, value in zip(results, names, values, strict=True)
    )


class AnswersRightly:
    """Every door of the pool gives what a plain call gives."""

    part: ClassVar[str] = "basic function"
    title: ClassVar[str] = "every door of the pool gives what a plain call gives, in the order asked"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Run the rules over real files by plain calls, and through each door."""
        files = source_files(workplace.sources, workplace.files)
        assert files, "there is something to work on"
        plain = [file_findings(*file) for file in files]
        found = sum(len(places) for places in plain)
        with EnterpriseDetectorPool(max_workers=workplace.workers) as pool:
            for isolation in ISOLATIONS:
                pool.register_detector(isolation, file_findings, isolation=isolation)
                calls: list[DetectorConfig] = [(isolation, file, {}) for file in files]
                names = [isolation] * len(calls)
                doors: dict[str, Sequence[DetectorResult]] = {
                    "execute_parallel": pool.execute_parallel(calls),
                    "execute_adaptive": pool.execute_adaptive(calls),
                    "execute_stream": tuple(pool.execute_stream(iter(calls))),
                    "execute_detector": [pool.execute_detector(name, *args) for name, args, _ in calls],
                }
                for door, results in doors.items():
                    right = right_answers(results, names, plain)
                    told = f"the rules on {len(files)} files, {found} findings"
                    yield Figure(
                        f"right answers of {door}, {isolation}", right, "executions", len(files), "at least",
                        len(files), method=told,
                    )  # fmt: skip
        assert pool.closed, "nothing is left running"


class ManyAtOnce:
    """Thirty-two detectors at once, a thousand executions queued, none lost."""

    part: ClassVar[str] = "basic function"
    title: ClassVar[str] = "32 detectors run at once, and of 1,000 queued executions none is lost"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Let detectors wait for each other until all run; then ask for a thousand executions in one call."""
        yield _met(AT_ONCE)
        small = source_files(workplace.sources, workplace.files, SMALL_BYTES)
        yield _queued(small, workplace.workers)


def _met(detectors: int) -> Figure:
    """Return how many detectors were running at one moment, which each of them waits for."""
    if detectors < 1:
        raise UsageError(f"at least one detector runs, not {detectors}")
    meeting = threading.Barrier(detectors)

    def meet(number: int) -> int:
        meeting.wait(MEETING_S)
        return number

    with EnterpriseDetectorPool(max_workers=detectors) as pool:
        for number in range(detectors):
            pool.register_detector(f"meets-{number}", meet)
        calls: list[DetectorConfig] = [(f"meets-{number}", (number,), {}) for number in range(detectors)]
        came = sum(result.value == number for number, result in enumerate(pool.execute_parallel(calls)))
    assert came <= detectors, "each comes once"
    return Figure(
        "detectors running at one moment", came, "detectors", detectors, "at least", detectors,
        method="each waits until all are there",
    )  # fmt: skip


def _queued(files: Sequence[FileCall], workers: int) -> Figure:
    values = [file_findings(*file) for file in files]
    names = [f"rules-{number}" for number in range(AT_ONCE)]
    with EnterpriseDetectorPool(max_workers=workers) as pool:
        for name in names:
            pool.register_detector(name, file_findings)
        calls: list[DetectorConfig] = [
            (names[place % AT_ONCE], files[place % len(files)], {}) for place in range(QUEUED)
        ]
        results = pool.execute_parallel(calls)
    asked = [name for name, _, _ in calls]
    right = right_answers(results, asked, [values[place % len(files)] for place in range(QUEUED)])
    assert 0 <= right <= QUEUED, "some of all"
    return Figure(
        "right answers of 1,000 queued", right, "executions", QUEUED, "at least", QUEUED,
        method=f"{AT_ONCE} detectors, {workers} workers",
    )  # fmt: skip
