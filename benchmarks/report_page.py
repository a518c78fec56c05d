"""
How long `report.html` of a large run takes to write and to open in the system's Chromium.

    python -m benchmarks.report_page [--findings N] [--runs N]

The run is made up: N findings of 20 rules in 500 files. A page counts as open when its table tells how many findings
there are; each run opens it in a fresh profile.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from compliance.formats import html
from detectors.measurement import mean_interval
from detectors.model import Finding, LocatedFinding, Region, RunRecord
from detectors.scan import ScanOptions, scan

PATIENCE_MS = 60_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both, in seconds."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="report_page", description=__doc__, formatter_class=shape)
    parser.add_argument("--findings", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        run = _run(Path(folder), options.findings)
        began = time.perf_counter()
        html.write(run, page)
        print(f"written in {time.perf_counter() - began:.2f} s, {page.stat().st_size / 1e6:.1f} MB")
        seconds = _opened(page, options.runs)
    told = mean_interval(seconds).told()
    print(f"{options.findings:,} findings: seconds until open {told}, {max(seconds):.2f} at most")
    return 0


def _run(folder: Path, findings: int) -> RunRecord:
    tree = folder / "tree"
    tree.mkdir()
    (tree / "a.py").write_text("x = 1\n")
    run = scan(ScanOptions((tree,), detectors=("ruff",), cluster="inline"))
    many = tuple(
        LocatedFinding(
            f"src/module{n % 500}/file.c",
            "ruff",
            Finding(
                f"ruff/X{n % 20:03}", "warning", f"message {n} of a length that messages have", Region(1 + n % 900)
            ),
            f"{n:032x}",
        )
        for n in range(findings)
    )
    return msgspec.structs.replace(run, findings=many)


def _opened(page: Path, runs: int) -> list[float]:
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(runs):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_function("document.getElementById('told').textContent !== ''", timeout=PATIENCE_MS)
            seconds.append(time.perf_counter() - began)
            tab.close()
        browser.close()
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
