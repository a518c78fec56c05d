"""How many executions a second, and whether many detectors at once lose any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectors.benchmark_record import Figure, compared, counted, measured
from detectors.benchmark_work import Work, digest_of, findings_in, nothing
from detectors.dimension import Dimension, checked, timed
from detectors.enterprise_detector_pool import DetectorConfig, EnterpriseDetectorPool, Isolation
from detectors.measurement import compare, mean_interval, series

__all__ = ["Throughput"]

EMPTY = {"thread": 5_000, "dask": 2_000}
DETECTORS, QUEUED = 32, 1_000
QUEUED_FILES = 20
"""The smallest, since what counts is that none is lost."""
HASHED_BYTES = 2_000_000
"""Of each unit: some two milliseconds."""


class Throughput(Dimension):
    """No-op executions in process and on Dask; 1,000 executions by 32 detectors; 32 detectors that hash real files."""

    name = "throughput"
    share = 2.0

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield rates, the count of answers, and what 32 at once cost."""
        assert QUEUED >= DETECTORS, "each detector has something waiting"
        yield self._rate(work, "thread", "no-ops")
        yield self._queued(work)
        yield self._loss(work)
        yield self._rate(work, "dask", "no-ops-dask")

    def _rate(self, work: Work, isolation: Isolation, name: str) -> Figure:
        assert isolation in EMPTY, "it is known how many of these are enough"
        count = EMPTY[isolation]
        with EnterpriseDetectorPool(max_workers=work.workers) as pool:
            pool.register_detector("nothing", nothing, isolation=isolation)
            configs: list[DetectorConfig] = [("nothing", (number,), {}) for number in range(count)]
            seen = series(
                lambda: timed(lambda: checked(pool.execute_parallel(configs))), half_width=0.05,
                budget_s=work.budget_s / 4,
            )  # fmt: skip
        rates = [count / seconds for seconds in seen.values]
        assert min(rates) > 0, "something was executed"
        return measured(
            name, self.name, f"no-op executions a second, isolation {isolation}, in lists of {count:,}", rates,
            unit="1/s", better="higher", interval=mean_interval(rates),
        )  # fmt: skip

    def _queued(self, work: Work) -> Figure:
        calls = sorted(work.calls("rules", 200), key=lambda call: Path(call[1][0]).stat().st_size)[:QUEUED_FILES]
        assert calls, "there is work"
        expected = [findings_in(*args) for _, args, _ in calls]
        with EnterpriseDetectorPool(max_workers=work.workers) as pool:
            for number in range(DETECTORS):
                pool.register_detector(f"rules-{number}", findings_in)
            configs: list[DetectorConfig] = [
                (f"rules-{number % DETECTORS}", calls[number % len(calls)][1], {}) for number in range(QUEUED)
            ]
            results = pool.execute_parallel(configs)
        assert len(results) == QUEUED, "a result for each"
        right = sum(result.value == expected[number % len(calls)] for number, result in enumerate(results))
        return counted(
            "queued-answered", self.name, f"{DETECTORS} detectors, {QUEUED:,} executions queued: answered, and right",
            good=right, of=QUEUED,
        )  # fmt: skip

    def _loss(self, work: Work) -> Figure:
        data = b"".join(path.read_bytes() for path in work.files(500))[:HASHED_BYTES]
        assert data, "real files hold something"
        rounds = max(1, HASHED_BYTES // len(data))
        count = max(2 * DETECTORS, round(50 * work.workers))
        with EnterpriseDetectorPool(max_workers=work.workers) as pool:
            for number in range(DETECTORS):
                pool.register_detector(f"digest-{number}", digest_of)
            many: list[DetectorConfig] = [(f"digest-{at % DETECTORS}", (data, rounds), {}) for at in range(count)]
            one: list[DetectorConfig] = [("digest-0", (data, rounds), {})] * count
            found = compare(
                lambda: timed(lambda: checked(pool.execute_parallel(many))),
                lambda: timed(lambda: checked(pool.execute_parallel(one))), half_width=0.01,
                budget_s=work.budget_s / 4,
            )  # fmt: skip
        assert len(many) == len(one), "the same work"
        assert len({name for name, _, _ in many}) == DETECTORS, "all of them at once"
        return compared(
            "parallel-loss", self.name,
            f"{DETECTORS} detectors at once over one: {count} units that hash {len(data) * rounds / 1e6:.1f} MB each",
            found,
        )  # fmt: skip
