"""`compliance.html`: what a person reads of a live monitor; opens without a network, runs no script."""

from __future__ import annotations

import datetime
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compliance.live_record import LiveRecord, Sample

__all__ = ["NAME", "write"]

NAME = "compliance.html"
SHOWN = 500
"""Violations in the page; all are in the Parquet file."""
WIDTH, HEIGHT = 900, 160
DRAWN = 900
"""Points of the curve; of more samples the lowest of each stretch is drawn, so that no dip is hidden."""


def write(record: LiveRecord, file: Path) -> None:
    """Write the page; every word passes through Jinja's escaping."""
    import jinja2

    template = importlib.resources.files("compliance.live_formats").joinpath("compliance.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(**_content(record))
    assert page.startswith("<!DOCTYPE html>"), "a whole page"
    size = file.write_text(page, "utf-8")
    assert size > 0, "something was written"


def _content(record: LiveRecord) -> dict[str, Any]:
    worst_first = sorted(record.violations, key=lambda one: (one.until is not None, one.level != "critical", one.since))
    assert len(worst_first) == len(record.violations), "sorting loses nothing"
    assert record.looks >= len(record.samples), "each sample is a look"
    return {
        "record": record,
        "last": record.samples[-1] if record.samples else None,
        "violations": worst_first[:SHOWN],
        "hidden": max(0, len(worst_first) - SHOWN),
        "started": _moment(record.started),
        "until": _moment(record.until),
        "moment": _moment,
        "points": _points(record.samples),
        "width": WIDTH,
        "height": HEIGHT,
    }


def _points(samples: Sequence[Sample]) -> str:
    """Return the score over the samples as the points of a polyline."""
    if not samples:
        return ""
    stretch = -(-len(samples) // DRAWN)
    lowest = [min(sample.score for sample in samples[at : at + stretch]) for at in range(0, len(samples), stretch)]
    assert 0 < len(lowest) <= DRAWN, "at most one point a stretch"
    assert all(0 <= score <= 100 for score in lowest), "per cent"
    step = WIDTH / max(len(lowest) - 1, 1)
    return " ".join(f"{place * step:.1f},{HEIGHT * (1 - score / 100):.1f}" for place, score in enumerate(lowest))


def _moment(seconds: float) -> str:
    if seconds < 0:
        raise ValueError(f"{seconds} is before the epoch")
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(sep=" ", timespec="seconds")
