"""
What `detector-pool comply` and `detector-pool run audit` do and print, beside the command line's own file.

They load nothing of compliance until they are run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deployments.options import Checkpoint, Json, PublicKey
from deployments.output import print_answer

if TYPE_CHECKING:
    from compliance.defense_compliance_monitor import ComplianceReport
    from deployments.settings import Settings
    from detectors.ports import Progress
    from detectors.scan import ScanOptions

__all__ = ["Asked", "complied", "print_report", "run_audit_command"]

HOLDS, FAILS = 0, 1


class Asked(NamedTuple):
    """What `comply` was asked for beside the trees."""

    fail_under: float | None
    require_controls: bool
    try_controls: bool
    ledger: Path | None

    def missed_by(self, report: ComplianceReport) -> bool:
        """Tell whether a report is below what was asked for."""
        score = report.score.score
        if self.fail_under is not None and (score is None or score < self.fail_under):
            return True
        return self.require_controls and not (report.controls and all(one.ok for one in report.controls))


def complied(
    options: ScanOptions, asked: Asked, settings: Settings, progress: Progress, *, through_prefect: bool
) -> ComplianceReport:
    """
    Score trees and try the controls, straight or as a flow.

    Raises:
        DetectorPoolError: As `detectors.scan.scan`.
    """
    assert options.paths, "the command line asks for one"
    if through_prefect:
        from deployments.prefect_server import run_server

        with run_server(settings.prefect):
            from flows.comply import run_comply_flow

            return run_comply_flow(
                options, fail_under=asked.fail_under, require_controls=asked.require_controls,
                try_controls=asked.try_controls, ledger=asked.ledger, progress=progress,
            )  # fmt: skip
    from compliance.defense_compliance_monitor import ComplianceReport, DefenseComplianceMonitor

    monitor = DefenseComplianceMonitor(ledger=asked.ledger)
    score, run = monitor.validate_power_of_ten(options, progress)
    controls = monitor.validate_controls() if asked.try_controls else ()
    assert bool(controls) == asked.try_controls, "there are controls"
    return ComplianceReport(score, controls, len(run.not_analysed), run.whole)


def print_report(report: ComplianceReport, *, json: bool) -> None:
    """Print a report: one JSON object, or tables."""
    import msgspec

    score: dict[str, Any] = msgspec.to_builtins(report.score)
    controls = [msgspec.to_builtins(one) for one in report.controls]
    lines = [f"{'rule':5}{'checked':>9}{'violating':>11}{'score':>10}{'strict':>10}"]
    for name, of in report.score.rules.items():
        figures = f"{of.checked:>9}{of.violations:>11}{_per_cent(of.score):>10}{_per_cent(of.strict_score):>10}"
        lines.append(f"{name:5}{figures}  {of.problem}".rstrip())
    lines.append(f"score {_per_cent(report.score.score)}, strict {_per_cent(report.score.strict_score)}")
    lines += [
        f"{'ok  ' if one.ok else 'FAIL'} {one.id} ({one.seconds:.1f} s): {one.evidence}" for one in report.controls
    ]
    if report.controls:
        held = sum(one.ok for one in report.controls)
        assert held <= len(report.controls), "some of all"
        lines.append(f"{held} of {len(report.controls)} operational controls hold")
    print_answer({**score, "controls": controls, "not_analysed": report.not_analysed}, lines, json=json)
    if report.not_analysed and not json:
        _ = sys.stderr.write(f"{report.not_analysed} files were not analysed and are in no figure\n")


def run_audit_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    ledger: Annotated[Path | None, typer.Option(metavar="DIR", help="The ledger's folder.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that holds a folder of evidence for each run.")
    ] = None,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="How many of the newest runs are verified.")] = 10,
    checkpoint: Checkpoint = None,
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """
    Verify the ledger and the evidence of the last runs, as a Prefect flow; what does not hold raises an alert.

    Exit codes: 0 all holds, 1 something does not, 2 usage or an anchor that is none, 3 internal failure.
    """
    from deployments.prefect_server import run_server
    from deployments.settings import Settings
    from detectors.errors import UsageError

    if ledger is None and (evidence is None or checkpoint is not None):
        raise UsageError("name --ledger, or --evidence, or both; --checkpoint is of a ledger")
    with run_server(Settings.read().prefect):
        from flows.audit import run_audit_flow

        report = run_audit_flow(
            ledger=ledger, evidence=evidence, last=last, checkpoint=checkpoint, public_key=public_key
        )
    assert report.verified or not report.ok, "where nothing was verified, nothing holds"
    assert all(one.problem for one in report.verified if not one.ok), "what does not hold has a reason"
    import msgspec

    lines = [
        f"{'ok  ' if one.ok else 'FAIL'} {one.what}{'' if one.anchored else ' (not anchored)'}"
        + (f": {one.problem}" if one.problem else "")
        for one in report.verified
    ]
    print_answer({"ok": report.ok, **msgspec.to_builtins(report)}, lines, json=json)
    raise typer.Exit(HOLDS if report.ok else FAILS)


def _per_cent(value: float | None) -> str:
    if value is None:
        return "none"
    assert 0 <= value <= 100, "per cent"
    return f"{value:.1f} %"
