"""A fixed run record that holds one of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from compliance.signing import SigningKey
from detectors import findings
from detectors.model import (
    BatchRecord,
    DetectorRecord,
    Digest,
    Excluded,
    Finding,
    NotAnalysed,
    Region,
    Related,
    Root,
    RuleRecord,
    RunRecord,
    SourceFile,
    Suppression,
    UnitRecord,
)

HOSTILE = "<script>alert(1)</script>\x1b[31m&\"'.c"
ZERO = Digest("sha256:" + "0" * 64)


def make_run(*, whole: bool = True, found: tuple[tuple[str, str, Finding], ...] | None = None) -> RunRecord:
    """Return a run with odd names, a suppression, a related place and entries not analysed."""
    if found is None:
        found = (
            (
                "a b%#?.c",
                "power-of-ten-c",
                Finding("P10-R1-goto", "warning", "goto", Region(3, 5, 3, 9), context="goto"),
            ),
            (HOSTILE, "power-of-ten-c", Finding("P10-R1-goto", "error", f"in {HOSTILE}", Region(1, 1))),
            (
                "x.py",
                "ruff",
                Finding("ruff/F401", "note", "unused", Region(2), (Related("", 7, "here"),), Suppression("# noqa")),
            ),
        )
    located, _ = findings.settle(found)
    paths = sorted({item.path for item in located} | {"clean.c"})
    rule = RuleRecord("P10-R1-goto", "warning", "`goto`", "`goto`\n\nWhy: flow.")
    return RunRecord(
        run_id="0" * 32,
        version="0.1.0",
        started="2026-01-02T03:04:05.678Z",
        seconds=1.5,
        command=("detectors=*",),
        platform={"python": "3.11"},
        workers=2,
        cluster="local",
        roots=(Root("", "/src"),),
        files=tuple(SourceFile(path, path.encode(), 0, 10, 1, 2, ZERO, "c") for path in paths),
        excluded=(Excluded("build/", ".gitignore:1", 3),),
        detectors=(
            DetectorRecord("power-of-ten-c", "0.1.0", ZERO, ZERO, ("c",), (rule,)),
            DetectorRecord("ruff", "0.17.6", ZERO, ZERO, ("python",)),
        ),
        units=tuple(UnitRecord(path, "power-of-ten-c", "executed", "0" * 32) for path in paths),
        batches=(
            BatchRecord("power-of-ten-c-1", "host:1", 0.0, 0.5, 0.4, 3),
            BatchRecord("ruff-1", "host:2", 0.1, 0.2, 0.4, 1),
        ),
        findings=located,
        not_analysed=(NotAnalysed(HOSTILE, "ruff", "crashed", HOSTILE), NotAnalysed("pipe", "", "special-file")),
        absent=(),
        planned=len(paths),
        executed=len(paths),
        cached=0,
        whole=whole,
        problems=() if whole else ("1 unit has no answer",),
        findings_digest=findings.digest(located),
    )


@pytest.fixture
def run() -> RunRecord:
    """A whole run."""
    return make_run()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """A fresh key outside of the evidence."""
    return SigningKey.load_or_create(tmp_path / "keys")
