"""
What a benchmark found, as data: figures with samples and interval, held against the specification's aims and history.

A figure is met when the end of its interval that speaks against it is within the aim; a count of all that happened has
no such end, and is held by itself. What was not measured says why, and is never met.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from detectors.errors import FormatTooNew, UsageError
from detectors.measurement import Comparison, Environment, Interval, Series, mean_interval, outliers

__all__ = [
    "AIMS",
    "Aim",
    "BenchmarkRun",
    "Figure",
    "Frame",
    "Judgement",
    "Regression",
    "compared",
    "counted",
    "history",
    "judged",
    "measured",
    "regressions",
    "remember",
    "seen",
    "write_samples",
]

Verdict = Literal["met", "missed", "not measured"]
Better = Literal["lower", "higher", ""]
FORMAT = 1
HISTORY = "history.jsonl"
LEAST_HISTORY = 4
"""Earlier runs on such a machine before a run is held against them."""
FALSE_ALARMS = 0.05
"""Share of runs without any regression in which at least one figure is called a regression."""
KEPT_RUNS = 50
MAX_RUNS = 10_000


class Figure(msgspec.Struct, frozen=True):
    """One figure: what it is of, what was seen, and how sure that is."""

    name: str
    dimension: str
    words: str
    """What it says, in one line."""
    unit: str
    better: Better
    interval: Interval
    samples: dict[str, tuple[float, ...]]
    """By side: `values`, or `first`, `second`, `pilot_first`, `pilot_second` in the order in which they were run."""
    noise: Interval | None = None
    """Of equals, measured between the same runs; of ratios only."""
    null_probability: float | None = None
    warm_up: int = 0
    steady: bool = True
    limited: bool = False
    """Whether there was time for fewer pairs than the wanted interval needs."""
    census: bool = False
    """Whether everything that happened was counted, so that nothing is left to chance."""
    far_out: int = 0
    """Samples far out; they are in the figure."""

    def __post_init__(self) -> None:
        assert self.name, "a figure is called something"
        assert self.dimension, "a figure is of something"
        assert any(self.samples.values()), "a figure stands on samples"
        assert min(self.warm_up, self.far_out) >= 0, "runs are counted from 0"

    @property
    def worst(self) -> float:
        """The end of the interval that speaks against the figure."""
        assert self.better in {"", "lower", "higher"}, "there are no other sides"
        if self.census or not self.better:
            return self.interval.estimate
        return self.interval.high if self.better == "lower" else self.interval.low


class Aim(msgspec.Struct, frozen=True):
    """One row of the specification's table; `figure` is empty where this suite does not measure it."""

    row: str
    specification: str
    aim: str
    figure: str
    bound: float
    elsewhere: str = ""
    """What measures it instead."""


class Judgement(msgspec.Struct, frozen=True):
    """An aim beside what was measured."""

    aim: Aim
    verdict: Verdict
    reason: str
    interval: Interval | None


class Frame(msgspec.Struct, frozen=True):
    """A stack frame of a profile, with what it called."""

    name: str
    seconds: float
    own_seconds: float
    calls: tuple[Frame, ...] = ()


class Regression(msgspec.Struct, frozen=True):
    """A figure that is worse than its history, by a test with `FALSE_ALARMS`."""

    figure: str
    now: float
    before: float
    runs: int
    probability: float
    """Of a value as bad or worse, if nothing had changed."""


class BenchmarkRun(msgspec.Struct, frozen=True):
    """All of one run."""

    run: str
    mode: str
    environment: Environment
    load_average_after: float
    seconds: dict[str, float]
    """By dimension, in the order in which they ran."""
    figures: tuple[Figure, ...]
    not_measured: dict[str, str]
    """Dimension to why it gave nothing."""
    regressions: tuple[Regression, ...] = ()
    held_against: int = 0
    """Earlier runs on such a machine."""
    profile: Frame | None = None
    format: int = FORMAT

    def judgements(self) -> tuple[Judgement, ...]:
        """Return every row of the specification's table with its verdict."""
        found = judged(self.figures, self.not_measured)
        assert len(found) == len(AIMS), "no row is forgotten"
        return found


AIMS = (
    Aim("overhead, full suite active", "< 1 %", "upper end of the interval ≤ 1 %", "overhead", 1.01),
    Aim("parallel detectors", "32", "32, of 1,000 queued none lost", "queued-answered", 1.0),
    Aim("parallel detectors, loss", "32", "32 at once no slower than one", "parallel-loss", 1.01),
    Aim("executions a second, in process", "200+", "20,000+", "no-ops", 20_000),
    Aim("executions a second, through Dask", "200+", "2,000+", "no-ops-dask", 2_000),
    Aim("baseline memory of the driver", "< 2 GB", "< 300 MB", "driver-memory", 300),
    Aim("baseline memory, growth", "", "flat: ten times the files, at most a tenth more", "driver-memory-growth", 1.1),
    Aim("CPU utilisation under load", "85 %", "95 %", "busy", 0.95),
    Aim("cache hit rate, unchanged", "> 85 %", "every unchanged unit", "hits-unchanged", 1.0),
    Aim("cache hit rate, 1 % edited", "> 85 %", "99 % and more", "hits-edited", 0.99),
    Aim("Power-of-Ten score of own code", "95 %", "≥ 95 %", "own-score", 95.0),
    Aim("Power-of-Ten recall and precision", "", "better than the best open checker", "", 0.0,
        "`make corpus` and docs/differential.md hold the rules against labels and other checkers"),
    Aim("fault-tolerance success", "94.7 %", "every injected fault survived", "faults-survived", 1.0),
    Aim("uptime", "99.9 %", "all accepted work finished in a soak", "", 1.0,
        "`detector-pool benchmark soak` runs for as long as it is told"),
    Aim("coverage", "> 95 %", "> 95 % of branches", "", 95.0, "`make test` measures it with the tests"),
)  # fmt: skip


def measured(
    name: str, dimension: str, words: str, values: Sequence[float], *, unit: str, better: Better = "",
    interval: Interval | None = None,
) -> Figure:  # fmt: skip
    """
    Return a figure of single values; their mean counts unless another interval is given.

    Raises:
        UsageError: No values.
    """
    if not values:
        raise UsageError(f"{name} was not measured")
    of = interval or mean_interval(values)
    assert math.isfinite(of.estimate), "a figure is a number"
    return Figure(
        name, dimension, words, unit, better, of, {"values": tuple(values)}, far_out=len(outliers(values))
    )  # fmt: skip


def seen(name: str, dimension: str, words: str, of: Series, *, unit: str, better: Better = "lower") -> Figure:
    """Return the figure of one side's mean."""
    assert of.values, "something was measured"
    return Figure(
        name, dimension, words, unit, better, of.mean, {"values": of.values, "pilot": of.pilot}, warm_up=of.warm_up,
        steady=of.steady, limited=of.limited, far_out=len(outliers(of.values)),
    )  # fmt: skip


def compared(name: str, dimension: str, words: str, of: Comparison, better: Better = "lower") -> Figure:
    """Return the figure of two sides that were run in turn: the ratio of the first to the second."""
    assert of.ratio.estimate > 0, "a ratio of amounts above 0"
    samples = {
        "first": of.first, "second": of.second, "pilot_first": of.pilot_first, "pilot_second": of.pilot_second
    }  # fmt: skip
    assert len(of.first) == len(of.second), "they are pairs"
    return Figure(
        name, dimension, words, "ratio", better, of.ratio, samples, of.noise, of.null_probability, of.warm_up,
        of.steady, of.limited, far_out=len(outliers(of.first)) + len(outliers(of.second)),
    )  # fmt: skip


def counted(name: str, dimension: str, words: str, *, good: int, of: int, better: Better = "higher") -> Figure:
    """
    Return the figure of a share of all that happened.

    Raises:
        UsageError: Counts that are none.
    """
    from detectors.measurement import share_interval

    interval = share_interval(good, of)
    assert interval.samples == of, "each counts"
    return Figure(
        name, dimension, f"{words} ({good} of {of})", "share", better, interval, {"values": (float(good), float(of))},
        census=True,
    )  # fmt: skip


def judged(figures: Iterable[Figure], not_measured: Mapping[str, str]) -> tuple[Judgement, ...]:
    """
    Hold figures against the specification's table.

    Args:
        figures: What was measured.
        not_measured: Dimension to why it gave nothing.

    Returns:
        One judgement a row.

    Raises:
        UsageError: Two figures of one name.
    """
    by_name: dict[str, Figure] = {}
    for figure in figures:
        if figure.name in by_name:
            raise UsageError(f"two figures are called {figure.name}")
        by_name[figure.name] = figure
    found: list[Judgement] = []
    for aim in AIMS:
        of = by_name.get(aim.figure)
        if of is None:
            why = "; ".join(f"{name}: {words}" for name, words in not_measured.items())
            found.append(Judgement(aim, "not measured", aim.elsewhere or why or "its dimension did not run", None))
            continue
        assert of.better, "an aim has a direction"
        held = of.worst <= aim.bound if of.better == "lower" else of.worst >= aim.bound
        found.append(Judgement(aim, "met" if held else "missed", _reason(of, aim, held), of.interval))
    assert len(found) == len(AIMS), "one a row"
    return tuple(found)


def _reason(figure: Figure, aim: Aim, held: bool) -> str:
    """Return what the verdict stands on; a miss says whether noise alone may be at fault."""
    assert figure.name == aim.figure, "a verdict is of its own figure"
    words = [figure.words]
    inside = figure.interval.low <= aim.bound <= figure.interval.high
    if not held and inside and not figure.census:
        words.append("the aim lies inside of the interval, so that this run cannot tell")
    if figure.noise is not None:
        words.append(f"equals differ by {figure.noise.low:.3f} to {figure.noise.high:.3f} here")
    if figure.limited:
        words.append("time for fewer pairs than the wanted interval needs")
    assert all(words), "a reason has words"
    return "; ".join(words)


class _Remembered(msgspec.Struct, frozen=True):
    """One run in the history: means by figure."""

    run: str
    time: str
    mode: str
    machine: str
    version: str
    figures: dict[str, float]
    format: int = FORMAT


def history(folder: Path) -> tuple[_Remembered, ...]:
    """
    Return the runs that a folder remembers, oldest first.

    Raises:
        UsageError: A line cannot be read.
        FormatTooNew: A newer version wrote it.
    """
    file = folder / HISTORY
    if not file.exists():
        return ()
    lines = file.read_bytes().splitlines()
    found: list[_Remembered] = []
    for number, line in enumerate(lines[-MAX_RUNS:], 1):
        try:
            one = msgspec.json.decode(line, type=_Remembered)
        except msgspec.MsgspecError as problem:
            raise UsageError(f"line {number} of {file} is no run of a benchmark: {problem}; move it away") from problem
        if one.format > FORMAT:
            raise FormatTooNew(str(file), one.format, FORMAT)
        found.append(one)
    assert len(found) <= MAX_RUNS, "older ones are not looked at"
    assert all(one.format <= FORMAT for one in found), "each is understood"
    return tuple(found)


def remember(folder: Path, run: BenchmarkRun) -> None:
    """Add a run to a folder's history."""
    means = {figure.name: figure.interval.estimate for figure in run.figures}
    assert all(math.isfinite(value) for value in means.values()), "figures are numbers"
    entry = _Remembered(
        run.run, run.environment.time, run.mode, run.environment.fingerprint, run.environment.version, means
    )
    folder.mkdir(parents=True, exist_ok=True)
    line = msgspec.json.encode(entry) + b"\n"
    assert line.count(b"\n") == 1, "a run is a line"
    assert entry.figures or not run.figures, "what was measured is remembered"
    with (folder / HISTORY).open("ab") as file:
        written = file.write(line)
    assert written == len(line), "whole"


def regressions(run: BenchmarkRun, earlier: Sequence[_Remembered]) -> tuple[tuple[Regression, ...], int]:
    """
    Hold a run against earlier ones of the same mode on such a machine.

    For each figure that has a better side: the probability of a value as bad or worse, if it came from the earlier runs
    (Student's t for one new value, on logarithms). Holm's step-down holds the share of runs in which anything is called
    a regression wrongly at `FALSE_ALARMS`, however many figures there are.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6,
    1979.

    Returns:
        The regressions, worst first, and how many earlier runs they were held against; fewer than `LEAST_HISTORY`
        say nothing.
    """
    alike = [
        one for one in earlier if (one.machine, one.mode) == (run.environment.fingerprint, run.mode)
    ][-KEPT_RUNS:]  # fmt: skip
    if len(alike) < LEAST_HISTORY:
        return (), len(alike)
    tested: list[Regression] = []
    for figure in run.figures:
        values = [one.figures[figure.name] for one in alike if figure.name in one.figures]
        if figure.better and len(values) >= LEAST_HISTORY and min(*values, figure.interval.estimate) > 0:
            tested.append(_tested(figure, values))
    tested.sort(key=lambda one: one.probability)
    called: list[Regression] = []
    for place, one in enumerate(tested):
        if one.probability > FALSE_ALARMS / (len(tested) - place):
            break
        called.append(one)
    assert len(called) <= len(tested), "some of all"
    return tuple(called), len(alike)


def _tested(figure: Figure, values: Sequence[float]) -> Regression:
    from scipy import stats

    logs = [math.log(value) for value in values]
    sign = 1 if figure.better == "lower" else -1
    worse = sign * (math.log(figure.interval.estimate) - statistics.fmean(logs))
    # A history without any spread is one of counts: any step to the worse is one.
    spread = statistics.stdev(logs) * math.sqrt(1 + 1 / len(logs))
    probability = float(stats.t.sf(worse / spread, len(logs) - 1)) if spread > 0 else float(worse <= 0)
    assert 0 <= probability <= 1, "a probability"
    before = math.exp(statistics.fmean(logs))
    assert before > 0, "a mean of amounts above 0"
    return Regression(figure.name, figure.interval.estimate, before, len(values), probability)


def write_samples(run: BenchmarkRun, file: Path) -> int:
    """Write every sample as a row of a Parquet file; return how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        (run.run, figure.dimension, figure.name, figure.unit, side, number, amount)
        for figure in run.figures
        for side, amounts in figure.samples.items()
        for number, amount in enumerate(amounts)
    ]
    assert rows or not run.figures, "figures stand on samples"
    names = ("run", "dimension", "figure", "unit", "side", "number", "amount")
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    assert len(columns) == len(names), "a column a name"
    assert all(len(column) == len(rows) for column in columns), "a row a sample"
    table = pa.table({name: list(column) for name, column in zip(names, columns, strict=True)})
    pq.write_table(table, file)
    return len(rows)
