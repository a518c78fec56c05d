"""What the planner learns, and that its batches lose no file."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.errors import UsageError
from detectors.model import Analysed, Digest, FileReport, SourceFile
from detectors.workload_optimizer import Batch, BatchLimits, WorkloadOptimizer


def _file(number: int, size: int) -> SourceFile:
    return SourceFile(f"f{number:04}.c", b"", 0, size, 0, 0, Digest(f"sha256:{number}"), "c")


@given(st.lists(st.integers(0, 5_000_000), max_size=60), st.integers(1, 8), st.integers(1, 20))
def test_batches_hold_each_file_once_and_keep_the_limits(sizes: list[int], workers: int, most: int) -> None:
    """A file that falls out of the plan would be lost without a trace."""
    files = [_file(number, size) for number, size in enumerate(sizes)]
    optimizer = WorkloadOptimizer()

    batches = optimizer.plan("s", ("d",), files, workers, BatchLimits(files=most))
    again = optimizer.plan("s", ("d",), reversed(files), workers, BatchLimits(files=most))

    assert sorted(file.path for batch in batches for file in batch.files) == [file.path for file in files]
    assert all(0 < len(batch.files) <= most for batch in batches)
    assert batches == again
    assert [batch.predicted_s for batch in batches] == sorted((b.predicted_s for b in batches), reverse=True)


@given(st.floats(0, 5), st.floats(0.01, 100))
def test_learns_the_line_that_durations_follow(start: float, rate: float) -> None:
    """A planner that does not learn balances nothing."""
    optimizer = WorkloadOptimizer()
    for megabytes in (1, 5, 2, 8, 3):
        optimizer.observe("d", megabytes * 1_000_000, start + rate * megabytes)

    assert optimizer.predict("d", 10_000_000) == pytest.approx(rate * 10, rel=1e-3)
    assert optimizer.get_optimization_stats()["detectors"]["d"]["start_s"] == pytest.approx(
        start, abs=1e-2 + rate * 1e-3
    )


def test_history_is_handed_on() -> None:
    """What one run learnt, the next one knows."""
    first = WorkloadOptimizer()
    for _ in range(5):
        first.observe("d", 2_000_000, 8.0)

    assert WorkloadOptimizer(first.timings()).predict("d", 1_000_000) == pytest.approx(4.0, rel=0.01)
    assert WorkloadOptimizer().predict("d", 1_000_000) == pytest.approx(1.0, rel=0.01)


def test_a_falling_line_is_not_believed() -> None:
    """Noise must never predict negative time."""
    optimizer = WorkloadOptimizer()
    for megabytes, seconds in ((1, 9.0), (9, 1.0), (1, 9.0)):
        optimizer.observe("d", megabytes * 1_000_000, seconds)

    assert optimizer.predict("d", 100_000_000) > 0


def test_allocation_follows_load_and_priority() -> None:
    """A busy machine gets fewer at once; what matters more goes first."""
    optimizer = WorkloadOptimizer()
    optimizer.register_detector("late", priority=1)
    optimizer.register_detector("early", priority=9)
    optimizer.register_detector("long", priority=1, complexity_score=5.0)

    idle = optimizer.optimize_allocation(["late", "early", ("long", (), {})], 0.0)
    busy = optimizer.optimize_allocation(["late", "early", "long"], {"cpu": 100.0})

    assert idle.order == ("early", "long", "late")
    assert busy.concurrency == 1 <= idle.concurrency


@pytest.mark.parametrize(("weight", "score"), [(0, 1), (1, 0), (float("nan"), 1)])
def test_senseless_weights_are_refused(weight: float, score: float) -> None:
    """A share of nothing would starve the detector."""
    with pytest.raises(UsageError):
        WorkloadOptimizer().register_detector("d", 1, weight, score)


def _batch(files: list[SourceFile], one_process: bool = False) -> Batch:
    return Batch("s-1", "s", ("d",), tuple(files), 1.0, one_process=one_process)


def test_a_slow_file_is_known_the_next_time() -> None:
    """A file that takes a minute and looks like any other would be started last again every night."""
    optimizer = WorkloadOptimizer()
    files = [_file(number, 1_000) for number in range(20)]
    for _ in range(5):
        seconds = {file.path: 60.0 if file.path == "f0007.c" else 0.01 for file in files}
        answers = [Analysed(path, "d", FileReport(), taken_s) for path, taken_s in seconds.items()]
        optimizer.observe_batch(_batch(files), sum(seconds.values()), answers)
    again = WorkloadOptimizer(optimizer.timings())

    assert again.plan("s", ("d",), files, 2, BatchLimits())[0].files[0].path == "f0007.c"
    assert again.predict_interval("d", 1_000, language="c", path="f0007.c").seconds == pytest.approx(60, rel=0.05)
    assert again.predict("d", 1_000, language="c") < 1


def test_shares_of_one_process_are_not_taken_for_measurements() -> None:
    """A tool's seconds are shared out by bytes; taken for each file's own they would teach noise file by file."""
    optimizer = WorkloadOptimizer()
    files = [_file(number, 100_000) for number in range(10)]
    answers = [Analysed(file.path, "d", FileReport(), 6.0) for file in files]
    optimizer.observe_batch(_batch(files, one_process=True), 60.0, answers)
    model = optimizer.timings()["d"].model
    assert model is not None
    assert model.surprises == {}

    large = [_file(99, 5_000_000), *files[:1]]
    for _ in range(3):
        answers = [Analysed(file.path, "d", FileReport(), 200.0) for file in large]
        optimizer.observe_batch(_batch(large, one_process=True), 2_000.0, answers)
    model = optimizer.timings()["d"].model
    assert model is not None
    assert set(model.surprises) <= {"f0099.c"}


def test_start_ups_are_learnt_and_batches_grow_with_them() -> None:
    """A tool that takes seconds to start, run on ten files at a time, spends the night starting."""
    cheap, dear = WorkloadOptimizer(), WorkloadOptimizer()
    for number in range(1, 40):
        files = [_file(place, 10_000 * (number % 7 + 1)) for place in range(number % 5 + 1)]
        size = sum(file.size_bytes for file in files)
        for optimizer, start_s in ((cheap, 0.0), (dear, 4.0)):
            optimizer.observe("d", size, start_s + size / 1e5, language="c", files=len(files))
    work = [_file(number, 50_000) for number in range(400)]
    few, many = (optimizer.plan("s", ("d",), work, 2, BatchLimits()) for optimizer in (dear, cheap))

    assert dear.get_optimization_stats()["detectors"]["d"]["start_s"] == pytest.approx(4.0, rel=0.05)
    assert 2 <= len(few) < len(many)


def test_prediction_is_scored_against_the_mean_before_it_learns() -> None:
    """A score over what was already learnt would praise any model."""
    optimizer = WorkloadOptimizer()
    chooser = random.Random(1)
    for _ in range(200):
        size = chooser.randrange(10_000, 1_000_000)
        optimizer.observe("d", size, (0.2 + size / 1e6) * chooser.lognormvariate(0, 0.1), language="c", files=1)
    stats = optimizer.get_optimization_stats()

    assert 195 <= stats["scored"] < 200
    assert stats["mean_absolute_error_s"] < 0.6 * stats["mean_only_error_s"]
    assert stats["mean_absolute_error_s"] < stats["size_only_error_s"]
    assert stats["interval_coverage"] == pytest.approx(0.9, abs=0.1)
    assert optimizer.refit()["d"].observations == 200


def test_no_priority_starves() -> None:
    """Work of the lowest priority must come before the end of a long queue of the highest."""
    optimizer = WorkloadOptimizer()
    optimizer.register_detector("urgent", priority=8)
    optimizer.register_detector("idle", priority=2)
    allocation = optimizer.optimize_allocation(["idle"] * 20 + ["urgent"] * 200, 0.0)

    # Weights are 4 to 1 and all calls of one length: the k-th idle one has at most 4 k + 1 urgent ones before it.
    before = [allocation.order[:place].count("urgent") for place, name in enumerate(allocation.order) if name == "idle"]
    assert all(urgent <= 4 * number + 1 for number, urgent in enumerate(before))
    assert sorted(allocation.places) == list(range(220))


@pytest.mark.parametrize("wrong", [{"processors": 0}, {"workers": 0}])
def test_a_machine_without_processors_is_refused(wrong: dict[str, int]) -> None:
    """No limit can be kept on it."""
    with pytest.raises(UsageError, match="processors"):
        WorkloadOptimizer(**wrong)
