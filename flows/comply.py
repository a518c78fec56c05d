"""The flow `comply`: score trees by the Power of Ten, try the operational controls, publish both."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Annotated, Any

import msgspec
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.utilities.annotations import quote
from pydantic import Field

from compliance.control import ControlResult
from compliance.defense_compliance_monitor import ComplianceReport, DefenseComplianceMonitor
from compliance.score import DETECTORS, Score
from detectors.errors import DetectorPoolError
from detectors.model import RunRecord
from detectors.ports import Progress
from detectors.rule_settings import settings_from
from detectors.scan import ScanOptions
from flows.admission import admit_run

__all__ = ["NotCompliant", "comply_flow", "run_comply_flow"]

_PROGRESS: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("progress", default=None)


class NotCompliant(DetectorPoolError):
    """A score below what was asked for, a control that does not hold, or a scan that is not whole."""

    exit_code = 1

    def __init__(self, report: ComplianceReport, problems: tuple[str, ...]) -> None:
        assert problems, "what is not compliant has a reason"
        super().__init__("not compliant: " + "; ".join(problems))
        self.report, self.problems = report, problems


@task(name="power-of-ten", cache_policy=NO_CACHE, persist_result=False)
def score(options: ScanOptions, progress: Progress | None) -> tuple[Score, RunRecord]:
    """Scan and score the trees."""
    scored, run = DefenseComplianceMonitor().validate_power_of_ten(options, progress)
    assert run.findings_digest, "a run has a digest"
    assert {detector.name for detector in run.detectors} <= set(DETECTORS), "no others have a say"
    get_run_logger().info("%d files scored: %s", len(run.files), scored.score)
    return scored, run


@task(name="controls", cache_policy=NO_CACHE, persist_result=False)
def controls(ledger: Path | None) -> tuple[ControlResult, ...]:
    """Try the operational controls."""
    results = DefenseComplianceMonitor(ledger=ledger).validate_controls()
    assert results, "there are controls"
    assert len({result.id for result in results}) == len(results), "each is tried once"
    for result in results:
        get_run_logger().info("%s %s: %s", result.id, "held" if result.ok else "DID NOT HOLD", result.evidence)
    return results


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(report: ComplianceReport, problems: tuple[str, ...]) -> None:
    """Make the artifacts: a table by rule, a table by control, a summary."""
    rules = [
        {"rule": name, "checked": of.checked, "violating": of.violations, "score": of.score, "strict": of.strict_score}
        for name, of in report.score.rules.items()
    ]
    assert rules, "a score has rules"
    create_table_artifact(table=rules, key="power-of-ten", description=f"Score {_told(report.score.score)}")
    rows = [{"control": one.id, "held": one.ok, "evidence": one.evidence} for one in report.controls]
    assert len(rows) == len(report.controls), "a row a control"
    assert all(problems), "a problem has words"
    create_table_artifact(table=rows, key="operational-controls", description=_held(report))
    verdict = "Compliant." if not problems else "NOT COMPLIANT: " + "; ".join(problems)
    create_markdown_artifact(
        markdown=f"# Compliance\n\n{verdict}\n\n- Power of Ten: {_told(report.score.score)}, "
        f"strict {_told(report.score.strict_score)}\n- {_held(report)}\n",
        key="compliance-summary",
    )


@flow(
    name="comply",
    flow_run_name="comply-{paths[0]}",
    description="Score source trees by the Power of Ten, and try the operational controls.",
    persist_result=False,
    validate_parameters=True,
)
def comply_flow(  # noqa: PLR0917  # p10: ignore[R10] Prefect: a field a parameter by the maintainers
    paths: Annotated[list[str], Field(min_length=1)],
    fail_under: Annotated[float | None, Field(ge=0, le=100)] = None,
    require_controls: bool = False,
    try_controls: bool = True,
    ledger: str | None = None,
    cache: str | None = None,
    exclude: list[str] | None = None,
    rules: dict[str, Any] | None = None,
    request: str | None = None,
) -> ComplianceReport:
    """
    Score source trees by the Power of Ten, and try the operational controls.

    Args:
        paths: Folders or files to score.
        fail_under: The score that is asked for, in per cent.
        require_controls: Whether a control that does not hold fails the run.
        try_controls: Whether the controls are tried.
        ledger: Folder of the live ledger, verified with the control of the audit trail.
        cache: Folder of the cache.
        exclude: Gitignore-style patterns of files out of scope.
        rules: Limits, vocabulary and selection of the rules, as under [tool.detector-pool].
        request: What `detector-pool access request` printed, where an access policy asks for it; no secret.

    Raises:
        AccessDenied: Who asks for this run may not.
        NotCompliant: After everything was published.
        DetectorPoolError: As `detectors.scan.scan`.
    """
    admit_run(comply_flow.fn, {**locals(), "detectors": DETECTORS})
    options = ScanOptions(
        paths=tuple(map(Path, paths)), cache=Path(cache) if cache else None, exclude=tuple(exclude or ()),
        settings=settings_from(rules or {}, "the parameter rules"),
    )  # fmt: skip
    # Quoted, so that Prefect does not walk through them in search of futures.
    given: tuple[Any, Any] = quote(options), quote(_PROGRESS.get())
    scored, run = score(*given)
    tried = controls(Path(ledger) if ledger else None) if try_controls else ()
    assert bool(tried) == try_controls, "there are controls"
    report = ComplianceReport(scored, tried, len(run.not_analysed), run.whole)
    problems = _problems(report, fail_under, require_controls)
    assert report.whole or problems, "a score of a part is no pass"
    quoted: Any = quote(report)
    publish(quoted, problems)
    if problems:
        raise NotCompliant(report, problems)
    return report


def run_comply_flow(
    options: ScanOptions,
    *,
    fail_under: float | None = None,
    require_controls: bool = False,
    try_controls: bool = True,
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> ComplianceReport:
    """
    Run the flow in this process, against the server that `PREFECT_API_URL` names.

    Returns:
        The report, also of a flow run that failed because of what it says.
    """
    assert options.paths, "a flow run scores something"
    token = _PROGRESS.set(progress)
    try:
        report = comply_flow(
            paths=[str(path) for path in options.paths],
            fail_under=fail_under,
            require_controls=require_controls,
            try_controls=try_controls,
            ledger=None if ledger is None else str(ledger.absolute()),
            cache=None if options.cache is None else str(options.cache),
            exclude=list(options.exclude),
            rules=msgspec.to_builtins(options.settings),
        )
    except NotCompliant as problem:
        return problem.report
    finally:
        _PROGRESS.reset(token)
        # The server may end with this run; what was logged must be there before.
        APILogHandler().flush()
    assert isinstance(report, ComplianceReport), "the flow returns its report"
    return report


def _problems(report: ComplianceReport, fail_under: float | None, require_controls: bool) -> tuple[str, ...]:
    """Return why the run fails; empty where it does not."""
    assert fail_under is None or 0 <= fail_under <= 100, "per cent, as the flow's parameters have it"
    found: list[str] = []
    if not report.whole:
        found.append("the scan is not whole, so the score is of a part")
    low = fail_under is not None and (report.score.score is None or report.score.score < fail_under)
    if low:
        found.append(f"the score is {_told(report.score.score)}, and {fail_under:g} % was asked for")
    if require_controls:
        found += [f"{one.id} does not hold" for one in report.controls if not one.ok]
        if not report.controls:
            found.append("no control was tried")
    assert all(found), "a problem has words"
    return tuple(found)


def _held(report: ComplianceReport) -> str:
    held = sum(one.ok for one in report.controls)
    assert held <= len(report.controls), "some of all"
    return f"{held} of {len(report.controls)} operational controls hold"


def _told(value: float | None) -> str:
    assert value is None or 0 <= value <= 100, "per cent"
    return "none" if value is None else f"{value:.1f} %"
