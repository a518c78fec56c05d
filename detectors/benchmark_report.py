"""
A benchmark's page: tables and plots in one HTML file that runs no script and loads nothing.

Plots: the samples of each figure (with what lies far out), speed-ups over workers, the timeline of the suite, and the
profile as a flame graph. Each is also given as an image of its own, for artifacts.
"""

from __future__ import annotations

import base64
import importlib.resources
import io
import math
from collections.abc import Sequence
from typing import Any

from detectors.benchmark_record import FALSE_ALARMS, BenchmarkRun, Figure, Frame
from detectors.errors import UsageError
from detectors.measurement import ALPHA

__all__ = ["hot_spots", "page_of", "plots_of"]

MAX_ROWS = 40
MAX_FRAMES = 2_000
SHOWN_HOT_SPOTS = 15
WIDTH_IN = 9.0
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
"""Told apart by colour-blind readers, too (P. Tol, "Colour Schemes", SRON 2021)."""


def page_of(run: BenchmarkRun) -> str:
    """Return the page; every word passes through Jinja's escaping."""
    import jinja2

    template = importlib.resources.files("detectors").joinpath("benchmark.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    images = {name: base64.b64encode(data).decode("ascii") for name, data in plots_of(run, "svg").items()}
    page = environment.from_string(template).render(
        run=run, judgements=run.judgements(), images=images, hot_spots=hot_spots(run.profile), number=number,
        alpha=ALPHA, false_alarms=FALSE_ALARMS,
    )  # fmt: skip
    assert page.startswith("<!DOCTYPE html>"), "a whole page"
    assert "<script" not in page, "it runs nothing"
    return page


def plots_of(run: BenchmarkRun, kind: str = "png") -> dict[str, bytes]:
    """
    Return the plots of a run by name, those for which there is something to draw.

    Args:
        run: What was measured.
        kind: `png` or `svg`.

    Raises:
        UsageError: Another kind.
    """
    if kind not in {"png", "svg"}:
        raise UsageError(f"plots are png or svg, not {kind!r}")
    drawn: dict[str, bytes] = {}
    spread = [figure for figure in run.figures if max(map(len, figure.samples.values())) > 1 and not figure.census]
    curve = [figure for figure in run.figures if figure.name.startswith("speed-up-") and _level(figure) > 0]
    if spread:
        drawn["distribution"] = _distribution(spread[:MAX_ROWS], kind)
    if curve:
        drawn["scaling"] = _scaling(curve, kind)
    if run.seconds:
        drawn["timeline"] = _timeline(run, kind)
    if run.profile is not None and run.profile.seconds > 0:
        drawn["flame"] = _flame(run.profile, kind)
    assert all(drawn.values()), "a plot that is drawn is an image"
    assert len(drawn) <= 4, "there are four plots"
    return drawn


def hot_spots(profile: Frame | None) -> list[tuple[str, float, float]]:
    """Return functions by their own share of a profile: (name, share, seconds), the largest first."""
    if profile is None or not profile.seconds > 0:
        return []
    own: dict[str, float] = {}
    waiting = [profile]
    for frame in waiting:  # grows by the calls, of which a profile has finitely many
        assert frame.own_seconds <= frame.seconds + 1e-9, "a part of the whole"
        own[frame.name] = own.get(frame.name, 0.0) + frame.own_seconds
        waiting += frame.calls
    ranked = sorted(own.items(), key=lambda item: -item[1])[:SHOWN_HOT_SPOTS]
    assert len(ranked) <= SHOWN_HOT_SPOTS, "no more than are shown"
    return [(name, seconds / profile.seconds, seconds) for name, seconds in ranked]


def number(value: float) -> str:
    """Return a number as people read it: four digits that count."""
    if not math.isfinite(value):
        raise UsageError(f"{value} is no number to show")
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _level(figure: Figure) -> int:
    """Return the number of workers that a speed-up is of; 0 where its name tells none."""
    words = figure.name.removeprefix("speed-up-").split("-")
    assert words, "a name has words"
    assert figure.name, "a figure is called something"
    return int(words[0]) if words[0].isdigit() else 0


def _image(chart: Any, kind: str) -> bytes:
    from matplotlib import pyplot

    with io.BytesIO() as file:
        chart.savefig(
            file, format=kind, bbox_inches="tight", dpi=110, metadata={"Date": None} if kind == "svg" else None
        )
        pyplot.close(chart)
        data = file.getvalue()
    assert kind in {"png", "svg"}, "there are no other images"
    assert data, "something was drawn"
    return data


def _chart(rows: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    if not rows > 0:
        raise UsageError("a chart has rows")
    return pyplot.subplots(figsize=(WIDTH_IN, rows))


def _distribution(figures: Sequence[Figure], kind: str) -> bytes:
    """Draw every sample over its figure's median, so that figures of all units stand side by side."""
    chart, axes = _chart(0.32 * len(figures) + 1)
    names: list[str] = []
    for place, figure in enumerate(figures):
        sides = [(side, of) for side, of in figure.samples.items() if not side.startswith("pilot") and of]
        for shift, (_side, amounts) in enumerate(sides):
            middle = sorted(amounts)[len(amounts) // 2] or 1.0
            axes.plot(
                [amount / middle for amount in amounts], [place + 0.25 * shift] * len(amounts), "|",
                color=COLOURS[shift % len(COLOURS)], markersize=7,
            )  # fmt: skip
        names.append(figure.name)
    assert len(names) == len(figures), "one row each"
    assert len(figures) <= MAX_ROWS, "no more than can be read"
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("sample over its median (of pairs: both sides)")
    axes.set_xscale("log")
    return _image(chart, kind)


def _scaling(figures: Sequence[Figure], kind: str) -> bytes:
    chart, axes = _chart(3.2)
    ordered = sorted(figures, key=_level)
    levels = [_level(figure) for figure in ordered]
    centers = [figure.interval.estimate for figure in ordered]
    reach = [
        [max(0.0, one.interval.estimate - one.interval.low) for one in ordered],
        [max(0.0, one.interval.high - one.interval.estimate) for one in ordered],
    ]
    assert len(levels) == len(centers) == len(reach[0]), "a point a level"
    axes.errorbar([1, *levels], [1.0, *centers], yerr=[[0.0, *reach[0]], [0.0, *reach[1]]], marker="o", capsize=4)
    axes.plot([1, *levels], [1, *levels], "--", color="#999999", label="as many times as workers")
    axes.set_xlabel("workers")
    axes.set_ylabel("times as fast as one")
    axes.legend()
    return _image(chart, kind)


def _timeline(run: BenchmarkRun, kind: str) -> bytes:
    chart, axes = _chart(0.3 * len(run.seconds) + 1)
    began = 0.0
    for place, (name, seconds) in enumerate(run.seconds.items()):
        assert seconds >= 0, "a clock does not run backwards"
        axes.barh(place, seconds, left=began, color=COLOURS[place % len(COLOURS)])
        axes.text(began + seconds, place, f" {name} {seconds:.0f} s", va="center", fontsize=7)
        began += seconds
    assert began >= 0, "a suite takes time"
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the suite began")
    return _image(chart, kind)


def _flame(profile: Frame, kind: str) -> bytes:
    """Draw frames as boxes as wide as their time, callers above what they call; at most 2,000 of them."""
    waiting: list[tuple[Frame, float, int]] = [(profile, 0.0, 0)]
    depth = 0
    boxes: list[tuple[Frame, float, int]] = []
    for _ in range(MAX_FRAMES):
        if not waiting:
            break
        frame, left, level = waiting.pop(0)
        boxes.append((frame, left, level))
        depth = max(depth, level)
        inner = left
        for call in frame.calls:
            waiting.append((call, inner, level + 1))
            inner += call.seconds
    assert boxes, "the root is a box"
    chart, axes = _chart(0.16 * (depth + 1) + 1)
    for place, (frame, left, level) in enumerate(boxes):
        axes.barh(
            level, frame.seconds, left=left, height=0.95, color=COLOURS[place % len(COLOURS)], edgecolor="white",
            linewidth=0.3,
        )  # fmt: skip
        room = int(frame.seconds / profile.seconds * 130)
        if room > 3:
            axes.text(left, level, f" {frame.name[:room]}", va="center", fontsize=5, clip_on=True)
    assert depth < len(boxes), "a level has a box"
    axes.invert_yaxis()
    axes.set_yticks([])
    axes.set_xlabel("seconds of a cold scan under the profiler")
    return _image(chart, kind)
