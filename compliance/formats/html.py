"""
`report.html`: what a person reads; opens without a network.

Every word of the scanned tree passes through Jinja's escaping, or lies in a block of JSON from which the page's one
script takes it as text. A content security policy names that script by its digest and forbids all others, all loads,
and all ways from text to markup, so that a hostile file name or message stays text.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from compliance import coverage
from compliance.errors import EvidenceExists
from compliance.excerpts import excerpts_of
from compliance.same_cause import shared_causes
from compliance.waived_runs import open_counts
from detectors.model import BatchRecord, RunRecord

__all__ = ["MEDIA_TYPE", "NAME", "write"]

NAME = "report.html"
MEDIA_TYPE = "text/html"
SHOWN = 2_000
"""Rows of each list in the page; all are in the SARIF and Parquet files beside it."""
STATIC = 200
"""Findings that a browser without scripts shows; the page's script has all."""
EXCERPTS = 2_000
"""Findings with an excerpt of the source, the gravest first."""
GRAVITY = {"error": 0, "warning": 1, "note": 2}
DRAWN = 4_000
"""Batches in the timeline; beyond, the longest are drawn."""


def write(run: RunRecord, file: Path) -> None:
    """
    Write the page.

    Raises:
        EvidenceExists: The file is there already.
    """
    if file.exists():
        raise EvidenceExists(str(file))
    import jinja2
    import markupsafe

    here = importlib.resources.files("compliance.formats")
    template, script = (here.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("html.j2", "js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ours = {
        "script": markupsafe.Markup(script),  # noqa: S704  # a file of this package
        "data": markupsafe.Markup(_data(run)),  # noqa: S704  # JSON without `<`
    }
    page = environment.from_string(template).render(**_content(run), **ours, script_digest=digest)
    assert page.lower().count("<script") == 2, "nothing of the tree becomes a script"
    file.write_text(page, "utf-8")


def _content(run: RunRecord) -> dict[str, Any]:
    import markupsafe

    by_rule: Counter[tuple[str, str, str]] = Counter()
    by_file: Counter[str] = Counter()
    muted: Counter[tuple[str, str, str]] = Counter()
    by_detector: Counter[str] = Counter({detector.name: 0 for detector in run.detectors})
    for item in run.findings:
        key = (item.detector, item.finding.rule, item.finding.level)
        by_rule[key] += 1
        muted[key] += item.suppressed
        by_file[item.path] += 1
        by_detector[item.detector] += 1
    assert len(by_detector) == len(run.detectors), "each finding is of a detector that ran"
    assert all(muted[key] <= count for key, count in by_rule.items()), "suppressed findings are findings"
    without, with_them = open_counts(run)
    units = Counter((unit.detector, unit.state) for unit in run.units)
    statement = coverage.stated(run)
    assert len(statement.files) == len(run.files), "each file has its row"
    return {
        "run": run,
        "coverage": statement,
        "folders": _folders(statement),
        "shown": SHOWN,
        "static": STATIC,
        "rules": [(*key, count, muted[key]) for key, count in sorted(by_rule.items())],
        "detectors": [
            (record, by_detector[record.name], *(units[record.name, s] for s in ("executed", "cached", "not-analysed")))
            for record in run.detectors
        ],
        "without": without,
        "with_them": with_them,
        "files": by_file.most_common(SHOWN),
        "files_with_findings": len(by_file),
        "hidden": sum(entry.files for entry in run.excluded),
        # The plot is ours; names in it were reduced to detector names of our own plan.
        "timeline": markupsafe.Markup(_timeline(run.batches)),  # noqa: S704  # drawn by us, as the line above says
    }


def _data(run: RunRecord) -> str:
    """Return what the page's script shows, as JSON that ends no element; the order of a row is the script's."""
    rules: dict[str, int] = {}
    detectors: dict[str, int] = {}
    paths: dict[str, int] = {}
    levels: dict[str, int] = {}
    baselines: dict[str, int] = {}
    rows = []
    gravest = sorted(range(len(run.findings)), key=lambda n: (GRAVITY[run.findings[n].finding.level], n))
    excerpts = excerpts_of(run, gravest[:EXCERPTS])
    places = {id(item): number for number, item in enumerate(run.findings)}
    for cause in shared_causes(run.findings):
        item = cause.first
        region = item.finding.region
        also = [
            (
                rules.setdefault(other.finding.rule, len(rules)), detectors.setdefault(other.detector, len(detectors)),
                other.finding.message,
            )
            for other in cause.also
        ]  # fmt: skip
        rows.append((
            paths.setdefault(item.path, len(paths)), region.start_line, region.start_column,
            levels.setdefault(item.finding.level, len(levels)), rules.setdefault(item.finding.rule, len(rules)),
            detectors.setdefault(item.detector, len(detectors)), item.finding.message,
            item.suppressed + 2 * item.waived, baselines.setdefault(item.baseline, len(baselines)), item.waiver,
            places[id(item)], region.end_line or region.start_line, region.end_column or 0, also,
        ))  # fmt: skip
    assert len(rows) + sum(len(row[-1]) for row in rows) == len(run.findings), "each finding is in a row"
    told = msgspec.json.encode({
        "rules": list(rules), "detectors": list(detectors), "paths": list(paths), "levels": list(levels),
        "baselines": list(baselines), "findings": rows, "excerpts": excerpts,
    })  # fmt: skip
    # Within a script element, markup is what begins with `<`; JSON has it only in texts.
    shown = told.decode().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    assert "<" not in shown, "nothing ends the element"
    return shown


def _folders(statement: coverage.Coverage) -> list[tuple[str, int, list[str], list[coverage.Row]]]:
    """Return the matrix by folder: name, number of files, for each detector its states counted, and the rows shown."""
    found: dict[str, list[coverage.Row]] = {}
    for row in statement.files:
        found.setdefault(row.path.rpartition("/")[0] or ".", []).append(row)
    left = SHOWN
    folders = []
    for name, rows in sorted(found.items()):
        states = [
            Counter(statement.cells[row.cells[number]].state for row in rows)
            for number in range(len(statement.detectors))
        ]
        told = [", ".join(f"{count} {state}" for state, count in sorted(one.items())) for one in states]
        folders.append((name, len(rows), told, rows[: max(left, 0)]))
        left -= len(rows)
    assert sum(count for _, count, _, _ in folders) == len(statement.files), "each file is in one folder"
    return folders


def _timeline(batches: tuple[BatchRecord, ...]) -> str:
    """Return the batches over the workers as SVG: a bar each, coloured by stage; nothing without batches."""
    if not batches:
        return ""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = sorted(batches, key=lambda batch: -batch.seconds)[:DRAWN]
    assert drawn[-1].seconds >= 0, "no batch ends before it begins"
    workers = sorted({batch.worker for batch in drawn})
    stages = sorted({batch.name.rpartition("-")[0] for batch in drawn})
    colours = mpl.colormaps["tab10"]
    with mpl.rc_context({"svg.hashsalt": "detector-pool", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10, 1.2 + 0.45 * len(workers)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, stage in enumerate(stages):
            mine = [batch for batch in drawn if batch.name.rpartition("-")[0] == stage]
            axes.barh(
                [workers.index(batch.worker) for batch in mine],
                [batch.seconds for batch in mine],
                left=[batch.start_s for batch in mine],
                height=0.8,
                color=colours(number % 10),
                alpha=0.8,
                edgecolor="white",
                linewidth=0.4,
                label=stage,
            )
        axes.set_yticks(range(len(workers)), [f"worker {number + 1}" for number in range(len(workers))])
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds since the start of the run")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", fontsize="small", frameon=False)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    # From `<svg` on, without the XML and DOCTYPE lines and the metadata with its links to schemas.
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return body.replace("<svg", '<svg role="img" aria-label="Timeline of batches over workers"', 1)
