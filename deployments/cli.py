"""
`detector-pool`: arguments, progress, exit codes; the only file that prints, beside those of command groups.

Results go to standard output, progress and messages to standard error. Whatever comes from the scanned tree has its
control characters escaped before it reaches a terminal.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from deployments.access_commands import access_app
from deployments.audit_commands import audit_app
from deployments.benchmark_commands import benchmark_app, run_benchmark_command
from deployments.certificate_commands import certificates_app
from deployments.cluster_commands import cluster_app
from deployments.compliance_commands import run_audit_command
from deployments.deploy_commands import DEPLOY_EXAMPLE, deploy_command
from deployments.doors import guarded
from deployments.evidence_commands import Quality, evidence_app, ledger_place, refuse_existing, scan_with_evidence
from deployments.history_commands import history_app
from deployments.options import Json, PassphraseFile
from deployments.output import plain, print_bytes
from deployments.qualification_commands import QUALIFY_EXAMPLE, agreement_command, qualify_command
from deployments.service_commands import services_app
from deployments.soak_commands import SOAK_EXAMPLE, soak_command
from deployments.validation_commands import VALIDATE_EXAMPLE, validate_command
from deployments.waiver_commands import waiver_app
from detectors.errors import DetectorPoolError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from deployments.settings import Settings
    from detectors.model import LocatedFinding, RunRecord
    from detectors.ports import Progress
    from detectors.rule_settings import RuleSettings
    from detectors.scan import ScanOptions

__all__ = ["app", "main"]

CLEAN, FINDINGS, USAGE, INTERNAL, NOT_WHOLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
FORMATS = ("text", "json", "sarif", "sarif-github", "github", "gitlab", "junit", "csv")
LEVELS = ("error", "warning", "note", "never")
SHOWN_NOT_ANALYSED, SHOWN_MUTED = 20, 10

app = typer.Typer(
    name="detector-pool",
    help="Static analysis as a build: many detectors, only what changed, findings and evidence that can be verified.",
    epilog="Example: detector-pool scan src --fail-on warning",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
run_app = typer.Typer(
    help="The same through Prefect flows; without PREFECT_API_URL a server is brought up on loopback.",
    no_args_is_help=True,
)
detectors_app = typer.Typer(help="What is registered.", no_args_is_help=True)
app.add_typer(run_app, name="run")
app.add_typer(detectors_app, name="detectors")
app.add_typer(evidence_app, name="evidence")
app.add_typer(audit_app, name="audit")
app.add_typer(access_app, name="access")
app.add_typer(certificates_app, name="certs")
app.add_typer(cluster_app, name="cluster")
app.add_typer(waiver_app, name="waiver")
app.add_typer(benchmark_app, name="benchmark")
benchmark_app.command("soak", epilog=SOAK_EXAMPLE)(soak_command)
app.add_typer(history_app, name="history")
app.add_typer(services_app, name="services")
detectors_app.command("qualify", epilog=QUALIFY_EXAMPLE)(qualify_command)
detectors_app.command("agreement", epilog="Example: detector-pool detectors agreement evidence/tonight/run.json")(
    agreement_command
)
run_app.command("benchmark", epilog="Example: detector-pool run benchmark --quick")(run_benchmark_command)
run_app.command(
    "audit", epilog="Example: detector-pool run audit --ledger audit/ledger --evidence evidence --checkpoint kept/note"
)(run_audit_command)


def _choice(value: str, allowed: tuple[str, ...], option: str) -> str:
    if value not in allowed:
        raise UsageError(f"{option} takes one of {', '.join(allowed)}, not {value!r}")
    return value


@run_app.command("scan", epilog="Example: detector-pool run scan src --evidence evidence/tonight --fail-on never")
@app.command(
    "scan", epilog="Example: detector-pool scan src --detectors ruff,power-of-ten-c --format sarif -o out.sarif"
)
def scan_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders or files.", show_default=False)],
    detectors: Annotated[
        list[str] | None, typer.Option(help="Names, with commas or repeated; all when absent.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="inline, local or a scheduler's address; chosen when absent.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="How many at once; the processors when absent.")] = None,
    sources: Annotated[
        str, typer.Option(help="How a scheduler's workers get the files: shared path, shipped, or auto.")
    ] = "auto",
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache.")] = None,
    store: Annotated[
        str, typer.Option(envvar="DETECTOR_POOL_STORE", help="Store of results shared with others: rediss:, file:, …")
    ] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Take no stored answer.")] = False,
    verify_cache: Annotated[
        float, typer.Option(help="Share of stored answers, 0 to 1, computed again and compared.")
    ] = 0,
    baseline: Annotated[
        Path | None, typer.Option(help="Output of an earlier `scan --json`; its findings do not count.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="GIT-REF", help="Look at what differs from this commit; what it has already is no news."),
    ] = None,
    import_sarif: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Results of another tool, as SARIF; may be repeated.")
    ] = None,
    no_excerpts: Annotated[
        bool, typer.Option("--no-excerpts", help="Keep every word of the sources out of results and evidence.")
    ] = False,
    evidence: Annotated[Path | None, typer.Option(help="New folder for the signed evidence.")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(help="Ledger that the run is recorded in; with --evidence, by default this machine's own."),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", help="text, json, sarif, sarif-github (within its limits), github, gitlab, junit or csv."
        ),
    ] = "text",
    json: Json = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the result.")] = None,
    fail_on: Annotated[str, typer.Option(help="Exit with 1 from this level: error, warning, note or never.")] = "error",
    require_complete: Annotated[
        bool, typer.Option("--require-complete", help="Exit with 4 if a file was not analysed.")
    ] = False,
    no_ignore: Annotated[bool, typer.Option("--no-ignore", help="Scan what .gitignore hides, too.")] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Only files that match this gitignore-style pattern.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match this gitignore-style pattern.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="File with [tool.detector-pool]: limits, words and selection of the rules.")
    ] = None,
    trust_tree: Annotated[
        bool, typer.Option("--trust-tree", help="Take that from the scanned tree's own pyproject.toml.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    validate: Annotated[
        bool, typer.Option("--validate", help="Hold the run's own tables against Great Expectations.")
    ] = False,
    data_docs: Annotated[Path | None, typer.Option(help="New folder for what --validate showed, as HTML.")] = None,
    waivers: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Signed waivers; who may sign them is the access policy's.")
    ] = None,
    qualifications: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Statements of `detectors qualify`: who is fit for the run.")
    ] = None,
    qualification_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Public key that signed them; this machine's own when absent.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="End within 90s, 20m or 2h: what is riskiest goes first.")
    ] = None,
    show_effect: Annotated[
        bool, typer.Option("--show-effect", help="Show which findings the tree would mute if its files were obeyed.")
    ] = False,
) -> None:
    """
    Scan source trees with every detector; only what changed since the last run is analysed again.

    Exit codes: 0 clean, 1 findings at or over --fail-on, 2 usage, 3 internal failure, 4 not whole, 130 interrupted.
    """
    from deployments.settings import Settings
    from detectors.deadline import seconds_of
    from detectors.scan import ScanOptions

    begun_s = time.monotonic()
    if no_excerpts and show_effect:
        raise UsageError("--show-effect tells what the tree's own files say, which --no-excerpts withholds; give one")
    if deadline is not None and show_effect:
        raise UsageError("--show-effect runs tools a second time, which --deadline has no time for; give one of them")
    shape = "json" if json else _choice(format_, FORMATS, "--format")
    _choice(fail_on, LEVELS, "--fail-on")
    settings = Settings.read(cache, passphrase_file)
    names = tuple(name for given in detectors for name in given.split(",") if name) if detectors is not None else None
    options = ScanOptions(
        paths=tuple(paths), detectors=names, cluster=cluster, workers=workers, sources=sources, store=store,
        cache=settings.cache, use_cache=not no_cache, verify_cache=verify_cache, baseline=baseline,
        include=tuple(include or ()), exclude=tuple(exclude or ()), ignore=not no_ignore,
        settings=_rule_settings(paths, config, trust_tree), canaries=evidence is not None,
        deadline_s=None if deadline is None else seconds_of(deadline), since=since,
        imports=tuple(import_sarif or ()), excerpts=not no_excerpts,
    )  # fmt: skip
    if evidence is not None:
        refuse_existing(evidence)
    through_prefect = context.parent is not None and context.parent.info_name == "run"
    with _progress() as progress:
        quality = Quality(
            validate or data_docs is not None, data_docs, waivers, qualifications,
            qualification_key or settings.keys / "public-key.pem", options if show_effect else None,
        )  # fmt: skip
        by = _by_flow if through_prefect else scan_with_evidence
        run = by(options, evidence, ledger, settings, progress, quality)
    _write(_rendered(run, shape, lines=not through_prefect), output)
    late_s = 0.0 if options.deadline_s is None else time.monotonic() - begun_s - options.deadline_s
    if late_s > 0:  # also where the record itself was in time, and what followed it was not
        _say(f"detector-pool: the command ended {late_s:.1f} s after its deadline of {deadline}")
    if shape == "text" and evidence is not None:
        _say(f"report: {evidence / 'report.html'}")
        _say(f"verify: detector-pool evidence verify {evidence}")
    raise typer.Exit(_exit_code(run, fail_on, require_complete))


@run_app.command("comply", epilog="Example: detector-pool run comply src --fail-under 95 --require-controls")
@app.command("comply", epilog="Example: detector-pool comply src --fail-under 95")
def comply_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders or files.", show_default=False)],
    config: Annotated[
        Path | None, typer.Option(help="File with [tool.detector-pool]: limits, words and selection of the rules.")
    ] = None,
    trust_tree: Annotated[
        bool, typer.Option("--trust-tree", help="Take that from the scanned tree's own pyproject.toml.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files that match this gitignore-style pattern.")] = None,
    fail_under: Annotated[
        float | None, typer.Option(help="Exit with 1 if the score is lower, or if there is none.")
    ] = None,
    require_controls: Annotated[
        bool, typer.Option("--require-controls", help="Exit with 1 if an operational control does not hold.")
    ] = False,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="Do not try the operational controls.")] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="The live ledger, verified with the control of the audit trail.")
    ] = None,
    json: Json = False,
) -> None:
    """
    Score source trees by the Power of Ten: per rule, the share of functions or files that keep it.

    Tries the eight operational controls, too, each on a pool that is made for it and thrown away.

    Exit codes: 0 done, 1 under --fail-under, 2 usage, 3 internal failure, 4 not whole, 130 interrupted.
    """
    from deployments.compliance_commands import Asked, complied, print_report
    from deployments.settings import Settings
    from detectors.scan import ScanOptions

    if no_controls and require_controls:
        raise UsageError("--require-controls asks for what --no-controls leaves out; give one of them")
    settings = Settings.read(cache)
    options = ScanOptions(
        paths=tuple(paths), cache=settings.cache, exclude=tuple(exclude or ()),
        settings=_rule_settings(paths, config, trust_tree),
    )  # fmt: skip
    asked = Asked(fail_under, require_controls, not no_controls, ledger)
    through_prefect = context.parent is not None and context.parent.info_name == "run"
    with _progress() as progress:
        report = complied(options, asked, settings, progress, through_prefect=through_prefect)
    print_report(report, json=json)
    if not report.whole:
        raise typer.Exit(NOT_WHOLE)
    raise typer.Exit(FINDINGS if asked.missed_by(report) else CLEAN)


@detectors_app.command("list", epilog="Example: detector-pool detectors list --json")
def detectors_list(json: Json = False) -> None:
    """List every detector: version, languages, needs, roles, rules."""
    shown = [_detector(detector) for detector in _registry()]
    if json:
        _write_json({"detectors": shown})
        return
    rows = [
        (
            entry["name"],
            entry["version"],
            " ".join(entry["languages"]),
            str(len(entry["rules"])) if entry["rules"] else "the tool's own",
            entry["missing"] or "ready",
        )
        for entry in shown
    ]
    _print_table(("detector", "version", "languages", "rules", "state"), rows)


@detectors_app.command("show", epilog="Example: detector-pool detectors show P10-R1")
def detectors_show(
    name: Annotated[str, typer.Argument(help="A detector, a rule, or the beginning of rule ids.")], json: Json = False
) -> None:
    """Show a detector or the documentation of rules."""
    registry = _registry()
    rules = [rule for detector in registry for rule in detector.rules() if _names_rule(name, rule.id)]
    if rules:
        if json:
            _write_json(
                {"rules": [{"id": r.id, "level": r.level, "summary": r.summary, "help": r.help} for r in rules]}
            )
        else:
            _write("\n\n".join(f"{rule.id} ({rule.level})\n\n{rule.help}" for rule in rules).encode() + b"\n", None)
        return
    entry = _detector(registry[name])
    if json:
        _write_json(entry)
        return
    _write("\n".join(_described(entry)).encode() + b"\n", None)


@app.command("doctor", epilog="Example: detector-pool doctor --json")
def doctor(json: Json = False) -> None:
    """Tell what is missing or misconfigured, and what to do; exits 1 if anything is."""
    from deployments.doctor import examine
    from deployments.settings import Settings

    checks = examine(Settings.read())
    if json:
        _write_json({"ok": all(check.ok for check in checks), "checks": [check.shown() for check in checks]})
    else:
        rows = [("ok" if check.ok else "MEND", check.what, check.seen, check.mend) for check in checks]
        _print_table(("", "what", "seen", "what to do"), rows)
    raise typer.Exit(CLEAN if all(check.ok for check in checks) else FINDINGS)


app.command("validate", epilog=VALIDATE_EXAMPLE)(validate_command)
app.command("deploy", epilog=DEPLOY_EXAMPLE)(deploy_command)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Static analysis as a build: many detectors, only what changed, findings and evidence that can be verified."""
    if version:
        import importlib.metadata

        _say_out(f"detector-pool {importlib.metadata.version('enterprise-detector-pool')}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: list[str]) -> int:
    try:
        code = guarded(_only_asked(arguments))(args=arguments, prog_name="detector-pool", standalone_mode=False)
    except BrokenPipeError:
        # The reader has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as problem:
        return _failed(arguments, *_told(problem))
    if code == INTERRUPTED:  # also what typer makes of Ctrl-C
        told = "interrupted; what was finished is in the cache, and the next run goes on from there"
        return _failed(arguments, told, INTERRUPTED)
    return int(code or CLEAN)


def _only_asked(arguments: list[str]) -> typer.Typer:
    """Return the command line with the one command that is named: building all takes longer than scanning a file."""
    name = arguments[0] if arguments else ""
    groups = [group for group in app.registered_groups if group.name == name]
    leaves = [leaf for leaf in app.registered_commands if leaf.name == name]
    if not groups and not leaves:
        return app
    one = copy.copy(app)
    one.registered_groups, one.registered_commands = groups, leaves
    return one


def _told(problem: Exception) -> tuple[str, int]:
    """Return message and exit code of an error."""
    if isinstance(problem, DetectorPoolError):
        return "; ".join((str(problem), *getattr(problem, "__notes__", ()))), problem.exit_code
    if hasattr(problem, "format_message"):  # typer's own usage errors
        return f"{problem.format_message()} (see --help)", USAGE
    import traceback

    traceback.print_exception(problem)
    return f"internal failure: {type(problem).__name__}: {problem}", INTERNAL


def _failed(arguments: list[str], message: str, code: int) -> int:
    if "--json" in arguments:
        _write_json({"error": message, "exit_code": code})
    _say(f"detector-pool: {message}")
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _rule_settings(paths: Sequence[Path], config: Path | None, trust_tree: bool) -> RuleSettings:
    """Read what the operator named; of the tree, only on his word, and never beside a file that he named."""
    from detectors.rule_settings import RuleSettings, read_settings

    if config is not None:
        return read_settings(config)
    own = [path / "pyproject.toml" for path in paths if (path / "pyproject.toml").is_file()] if trust_tree else []
    if len(own) > 1:
        raise UsageError("--trust-tree finds several pyproject.toml; name one by --config")
    return read_settings(own[0]) if own else RuleSettings()


def _by_flow(  # noqa: PLR0917  # p10: ignore[R10] the same as scan_with_evidence, which stands for it by the maintainers
    options: ScanOptions,
    evidence: Path | None,
    ledger: Path | None,
    settings: Settings,
    progress: Progress,
    quality: Quality,
) -> RunRecord:
    from deployments.prefect_server import run_server

    place = ledger_place(settings, ledger)
    with run_server(settings.prefect):
        from flows.scan import run_scan_flow

        return run_scan_flow(
            options, evidence=evidence, keys=settings.keys, passphrase=settings.passphrase, progress=progress,
            ledger=place, validate_tables=quality.wanted, data_docs=quality.docs, waivers=quality.waivers,
            qualifications=quality.qualifications, qualification_key=quality.qualification_key,
            show_effect=quality.effect_of is not None,
        )  # fmt: skip


def _exit_code(run: RunRecord, fail_on: str, require_complete: bool) -> int:
    if not run.whole or (require_complete and run.not_analysed):
        return NOT_WHOLE
    if any(table.outcome != "passed" for table in run.validated):
        # Where a suite is broken nothing is known of the data, which is our failure and not the tree's.
        return INTERNAL if any(table.outcome == "broken" for table in run.validated) else FINDINGS
    if fail_on == "never":
        return CLEAN
    counted = LEVELS[: LEVELS.index(fail_on) + 1]
    over = any(
        item.finding.level in counted and not item.excused and item.baseline != "unchanged" for item in run.findings
    )
    return FINDINGS if over else CLEAN


def _rendered(run: RunRecord, shape: str, *, lines: bool) -> bytes:
    if shape == "text":
        return _text(run, lines=lines)
    if shape == "sarif-github":
        from compliance.formats.sarif_github import profile

        log = profile(run)
        for told in log.cut:
            _say(f"sarif-github: {told}")
        return log.data
    import importlib

    module = importlib.import_module(f"compliance.formats.{'scan_json' if shape == 'json' else shape}")
    rendered: bytes = module.dumps(run)
    return rendered


def _text(run: RunRecord, *, lines: bool) -> bytes:
    from compliance.waived_runs import open_counts

    parts = list(_listed(run)) if lines else []
    counts: Counter[tuple[str, str, str]] = Counter()
    muted: Counter[tuple[str, str, str]] = Counter()
    for item in run.findings:
        key = (item.detector, item.finding.rule, item.finding.level)
        counts[key] += 1
        muted[key] += item.suppressed
    if counts:
        rows = [(*map(plain, key), str(counts[key]), str(muted[key] or "")) for key in sorted(counts)]
        parts.append(_table(("detector", "rule", "level", "findings", "suppressed"), rows))
    tried = [entry for entry in run.not_analysed if entry.reason != "not-reached"]
    if tried:
        parts.append(f"not analysed ({len(tried)}):")
        for entry in tried[:SHOWN_NOT_ANALYSED]:
            who = f" by {entry.detector}" if entry.detector else ""
            parts.append(plain(f"  {entry.path}{who}: {entry.reason}" + (f": {entry.detail}" if entry.detail else "")))
        if len(tried) > SHOWN_NOT_ANALYSED:
            parts.append(f"  … and {len(tried) - SHOWN_NOT_ANALYSED} more (--json lists all)")
    parts += _deadline_lines(run)
    parts += [plain(line) for line in _effect_lines(run)]
    hidden = sum(entry.files for entry in run.excluded)
    if hidden:
        parts.append(f"out of scope: {hidden} files (--no-ignore scans what .gitignore hides)")
    parts += [plain(f"warning: {problem}") for problem in run.problems]
    source = "all from the cache" if run.planned and run.cached == run.planned else f"{run.cached} from the cache"
    parts.append(
        f"{len(run.files)} files, {run.planned} units: {run.executed} executed, {source}; "
        f"{len(run.findings)} findings in {run.seconds:.2f} s with {run.workers} workers ({run.cluster})"
    )
    parts.append(f"findings digest {run.findings_digest}")
    if run.waivers:
        without, with_them = open_counts(run)
        parts.append(f"open findings: {with_them} with waivers, {without} without ({len(run.waivers)} waivers given)")
    parts += _compared(run)
    for one in run.qualifications:
        parts.append(plain(f"{one.detector} {one.version}: {one.state}" + (f", {one.problem}" if one.problem else "")))
    for table in run.validated:
        told = f"validated {table.table}: {table.outcome}, {table.rows} rows, {table.checks} expectations"
        parts.append(plain("; ".join((told, *table.problems))))
    if not run.whole:
        parts.append("THIS RUN IS NOT WHOLE: see the warnings above")
    return ("\n".join(parts) + "\n").encode("utf-8", "backslashreplace")


def _deadline_lines(run: RunRecord) -> Iterator[str]:
    """Yield how far a run with a deadline came, and what its predictions were worth."""
    if run.deadline is None:
        return
    from detectors.deadline import STATED, calibration

    left = Counter(entry.detector for entry in run.not_analysed if entry.reason == "not-reached")
    reached = run.planned - left.total()
    yield (
        f"deadline {run.deadline.limit_s:g} s: {reached} of {run.planned} units reached "
        f"({reached / max(run.planned, 1):.1%}), the record made after {run.seconds:.1f} s"
    )
    if left:
        told = ", ".join(f"{count} by {name}" for name, count in sorted(left.items()))
        yield f"NOT REACHED: {told} (--json lists all)"
    found = calibration(run.batches)
    if found.share is not None:
        yield (
            f"predictor: {found.inside} of {found.batches} durations inside the stated interval ({found.share:.0%}, "
            f"95 % interval {found.low:.0%} to {found.high:.0%}; {STATED:.0%} were to be)"
        )


def _effect_lines(run: RunRecord) -> Iterator[str]:
    """Yield what the tree would have muted, where that was asked for."""
    if run.effects is None:
        return
    yield f"what the tree would mute, if it were obeyed ({len(run.effects)}):"
    for effect in run.effects:
        who = f"{effect.kind} for {effect.detector}" if effect.detector else effect.kind
        things = ", ".join(effect.things[:3]) + (f" and {len(effect.things) - 3} more" * (len(effect.things) > 3))
        told = f"{len(effect.muted)} findings" if effect.state == "shown" else f"{effect.state}: {effect.told}"
        yield f"  {who} ({things}): {told}"
        yield from (f"    {one.path}:{one.line}: {one.rule}" for one in effect.muted[:SHOWN_MUTED])
        if len(effect.muted) > SHOWN_MUTED:
            yield f"    … and {len(effect.muted) - SHOWN_MUTED} more (--json lists all)"


def _compared(run: RunRecord) -> Iterator[str]:
    if run.since is not None:
        known = sum(item.baseline == "unchanged" for item in run.findings)
        yield plain(
            f"since {run.since.ref} ({run.since.commit[:12]}): {len(run.since.touched)} files touched; "
            f"{len(run.findings) - known} findings are new, {known} known ones are not listed"
        )


def _listed(run: RunRecord) -> Iterator[str]:
    """Yield a line for each cause; what several tools report is shown once, with who else does."""
    from compliance.same_cause import shared_causes

    for cause in shared_causes(tuple(_news(run))):
        item = cause.first
        region, mark = item.finding.region, " (suppressed)" if item.suppressed else ""
        mark += f" (waived by {item.waiver})" if item.waived else ""
        mark += f"; also reported by {', '.join(cause.others())}" if cause.also else ""
        place = f"{item.path}:{region.start_line}:{region.start_column}"
        yield plain(f"{place}: {item.finding.level}: {item.finding.message} [{item.finding.rule}]{mark}")


def _news(run: RunRecord) -> Iterator[LocatedFinding]:
    """Yield the findings that are listed: all, or against a commit those that it has not."""
    yield from (item for item in run.findings if run.since is None or item.baseline != "unchanged")


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    from io import StringIO

    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for name in header:
        numeric = name in {"findings", "suppressed"}
        table.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    on_terminal = sys.stdout.isatty()
    console = Console(file=StringIO(), width=None if on_terminal else 140, force_terminal=on_terminal, highlight=False)
    console.print(table)
    assert isinstance(console.file, StringIO), "the console was given a buffer"
    return "\n".join(line.rstrip() for line in console.file.getvalue().strip("\n").splitlines())


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print_bytes(_table(header, rows).encode("utf-8", "backslashreplace") + b"\n")


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Yield where progress is told: a bar on a terminal, else a line every few seconds, both on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None)

            def show(stage: str, done: int, total: int) -> None:
                bar.update(task, description=stage, completed=done, total=total)

            yield show
        return
    last = [time.monotonic()]

    def tell(stage: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            _say(f"{stage}: {done} of {total}")

    yield tell


def _registry() -> Any:
    from detectors.detector import discover

    return discover()


def _names_rule(name: str, rule_id: str) -> bool:
    """Tell whether `name` is the id, or its beginning up to a dash: `P10-R1` names no rule of `P10-R10`."""
    return rule_id == name or rule_id.startswith(f"{name}-")


def _detector(detector: Any) -> dict[str, Any]:
    return {
        "name": detector.name,
        "version": detector.version,
        "languages": sorted(detector.languages),
        "needs": list(detector.needs),
        "roles": sorted(detector.roles),
        "rules": [rule.id for rule in detector.rules()],
        "missing": detector.missing(),
    }


def _described(entry: dict[str, Any]) -> Iterator[str]:
    yield f"{entry['name']} {entry['version']}"
    for key in ("languages", "needs", "roles", "rules"):
        yield f"{key}: {', '.join(entry[key]) or '-'}"
    if entry["missing"]:
        yield f"missing: {entry['missing']}"


def _write(data: bytes, output: Path | None) -> None:
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as problem:
            raise UsageError(f"--output {output} cannot be written: {problem.strerror}") from problem
        return
    print_bytes(data)


def _write_json(value: object) -> None:
    import msgspec

    print_bytes(msgspec.json.encode(value) + b"\n")


def _say(message: str) -> None:
    sys.stderr.write(plain(message) + "\n")


def _say_out(message: str) -> None:
    print_bytes((plain(message) + "\n").encode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
