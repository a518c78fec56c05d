"""Seconds are learnt from features, with intervals that hold, and none of it needs a numerical library."""

from __future__ import annotations

import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.duration_model import DurationModel, ModelState, QuantileTracker, work_features


def _taught(model: DurationModel, seed: int, count: int, noise: float) -> DurationModel:
    """Teach 0.5 s a batch, 2 s/MB of Python and 1 s/MB of C, with multiplicative noise."""
    chooser = random.Random(seed)
    for _ in range(count):
        python, c = chooser.randrange(1_000_000), chooser.randrange(1_000_000)
        parts = zip(
            work_features(python, "python", files=chooser.randrange(9)), work_features(c, "c", batches=1), strict=True
        )
        features = tuple(left + right for left, right in parts)
        truth_s = 0.5 + 2 * features[5] + features[3]
        model.learn(features, [truth_s * chooser.lognormvariate(0, noise)], model.seconds(features))
    return model


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 0.001), (0.1, 0.1)])
def test_languages_and_the_start_are_told_apart(noise: float, tolerance: float) -> None:
    """One rate for all languages would send the slow ones late."""
    model = _taught(DurationModel(7.0), 1, 200, noise)

    assert model.line("python")[2] == pytest.approx(2.0, rel=tolerance)
    assert model.line("c")[2] == pytest.approx(1.0, rel=2 * tolerance)
    assert model.line("c")[0] == pytest.approx(0.5, rel=3 * tolerance)


def test_lines_count_where_they_are_known() -> None:
    """A file of short lines and one of long ones differ only by a feature that the model has to use."""
    model, chooser = DurationModel(), random.Random(2)
    for _ in range(100):
        size, lines = chooser.randrange(10_000, 1_000_000), chooser.randrange(1_000, 60_000)
        features = work_features(size, "c", lines)
        model.learn(features, [size / 1e6 + lines / 1e4], model.seconds(features))

    short, long = (model.seconds(work_features(500_000, "c", lines)) for lines in (50_000, 5_000))
    assert short == pytest.approx(5.5, rel=0.05)
    assert long == pytest.approx(1.0, rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1e5)), max_size=60))
def test_no_history_predicts_negative_or_endless_time(history: list[tuple[int, float]]) -> None:
    """A plan over such a prediction would hang or lose its order."""
    model = DurationModel()
    for size_bytes, seconds in history:
        features = work_features(size_bytes, batches=1)
        model.judge(model.seconds(features), seconds)
        model.learn(features, [seconds], model.seconds(features))
    found = model.predict(work_features(10**6, "c"))

    assert 0 < found.low_s <= found.seconds <= found.high_s < float("inf")


@given(st.floats(0.01, 0.99), st.lists(st.floats(-50, 50), min_size=1, max_size=800))
def test_a_tracked_quantile_keeps_its_bound_on_any_sequence(level: float, values: list[float]) -> None:
    """An interval whose coverage depends on well-behaved errors promises nothing."""
    tracker = QuantileTracker(level, 0.0)
    above = sum(tracker.update(value) for value in values)

    bound = (2 * tracker.clip + tracker.step) / (tracker.step * len(values))
    assert abs(above / len(values) - (1 - level)) <= bound + 1e-9


def test_an_interval_covers_what_it_says() -> None:
    """Bounds that are kept half of the time are decoration."""
    model, chooser = _taught(DurationModel(), 3, 100, 0.3), random.Random(4)
    features = work_features(1_000_000, "c", batches=1)
    held = [model.judge(model.seconds(features), 1.5 * chooser.lognormvariate(0, 0.3)) for _ in range(2_000)]

    assert sum(held[500:]) / 1_500 == pytest.approx(0.9, abs=0.03)


def test_files_far_off_the_line_are_remembered_scaled_and_forgotten() -> None:
    """The one file that takes a minute must be known before it is run, as long as it is the same file."""
    model = DurationModel()
    model.observe_file("slow.c", 1_000, 0.01, 60.0)
    model.observe_file("plain.c", 1_000, 0.01, 0.011)

    assert model.surprise_s("slow.c", 1_000) == pytest.approx(59.99)
    assert model.surprise_s("slow.c", 1_500) == pytest.approx(90, rel=0.01)
    assert model.surprise_s("slow.c", 900_000) == model.surprise_s("plain.c", 1_000) == 0.0
    model.observe_file("slow.c", 1_000, 60.0, 60.1)
    assert not model.remembers("slow.c")


def test_memory_of_files_is_bounded_and_keeps_the_largest_misses() -> None:
    """A history that grows with the tree is read by every warm run."""
    model = DurationModel()
    for number in range(10_000):
        model.observe_file(f"{number}", 1_000, 0.0, 1.0 + number)

    state = model.state()
    assert len(state.surprises) <= 4_000
    assert all(str(number) in state.surprises for number in range(9_000, 10_000))


def test_small_batches_of_a_slow_starter_teach_no_rate() -> None:
    """Two files of a tool that takes seconds to begin must not make the next tree's batches hold one file each."""
    model = DurationModel(1.0)
    model.expect_start(3.0)
    for files, size_bytes, taken_s in ((3, 900, 6.1), (1, 400, 4.2)):
        features = work_features(size_bytes, "c", files=files, batches=1)
        model.learn(features, [taken_s], model.seconds(features))

    a_batch_s, a_file_s, a_megabyte_s = model.line("c")
    assert a_batch_s > 3.0
    assert 10_000 * a_file_s + 10 * a_megabyte_s < 3_600


def test_a_model_is_the_same_after_it_was_kept() -> None:
    """What is lost between runs is learnt again every night."""
    model = _taught(DurationModel(), 5, 50, 0.1)
    model.observe_file("slow.c", 1_000, 0.01, 60.0)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(model.state()), type=ModelState)
    again = DurationModel(99.0, kept)

    assert again.state() == model.state()
    assert _taught(again, 6, 20, 0.1).coefficients == _taught(model, 6, 20, 0.1).coefficients


def test_a_refit_is_taken_only_where_it_would_have_predicted_better() -> None:
    """A refit that makes predictions worse must not replace what was learnt."""
    # Seconds of the first batches are wrong by orders (a cold disk): decaying sums drag them along, Huber does not.
    model = DurationModel()
    chooser = random.Random(7)
    for number in range(120):
        features = work_features(chooser.randrange(100_000, 2_000_000), "c", batches=1)
        seconds = 3 * features[3] * (40 if number % 9 == 0 else 1)
        model.learn(features, [seconds], model.seconds(features))
    before = model.coefficients
    found = model.refit()

    assert found is not None
    assert found.kept == (found.refit_error_s < found.online_error_s)
    assert (model.coefficients != before) == found.kept
    assert found.kept
    assert model.line("c")[2] == pytest.approx(3.0, rel=0.1)
    assert DurationModel().refit() is None


def test_learning_and_predicting_import_no_numerical_library() -> None:
    """A warm run would wait seconds for libraries that only training needs."""
    program = (
        "import sys\nfrom detectors.workload_optimizer import WorkloadOptimizer\n"
        "o = WorkloadOptimizer()\no.observe('d', 5, 1.0)\no.predict('d', 5)\n"
        "o.optimize_allocation(['d'], 0.0)\no.get_optimization_stats()\no.timings()\n"
        "print(*sorted({'numpy', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
