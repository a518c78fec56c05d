"""`detector-pool history`: what became of the findings over the runs of an evidence folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.options import Json, PublicKey
from deployments.output import print_answer
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.followed import Followed
    from compliance.history import History

__all__ = ["history_app"]

CHOICES = ("open", "new", "reopened", "fixed", "all")
history_app = typer.Typer(help="Findings over the runs of an evidence folder.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Holds a folder of evidence for each run.")]
OneTree = Annotated[
    bool, typer.Option("--one-tree", help="All runs are of one tree, whatever folder it was checked out into.")
]


@history_app.callback()
def _history() -> None:
    """Findings over the runs of an evidence folder."""


@history_app.command("runs", epilog="Example: detector-pool history runs evidence --public-key auditors-copy.pem")
def history_runs(folder: Folder, public_key: PublicKey = None, one_tree: OneTree = False, json: Json = False) -> None:
    """List the runs from the oldest: what each brought, what it closed, and how many findings were open after it."""
    from compliance.history import history_of

    told = history_of(folder, public_key, one_tree=one_tree)
    lines = [
        f"{run.started} {run.folder}: {run.findings} findings ({run.errors} errors, {run.warnings} warnings, "
        f"{run.notes} notes); {run.new} new, {run.reopened} reopened, {run.fixed} fixed, {run.open} open"
        + (f"; since {run.since[:12]}" if run.since else "")
        + ("" if run.whole else "; NOT WHOLE")
        for run in told.runs
    ]
    print_answer(_shown(told, runs=True), [*lines, *_ends(told)], json=json)


@history_app.command("trend", epilog="Example: detector-pool history trend evidence --json")
def history_trend(folder: Folder, public_key: PublicKey = None, one_tree: OneTree = False, json: Json = False) -> None:
    """Count, for each rule, what is open, what is new in the newest run, what came back and what was fixed."""
    from compliance.followed import STATES
    from compliance.history import history_of

    told = history_of(folder, public_key, one_tree=one_tree)
    counts = Counter((one.rule, one.state) for one in told.findings)
    rules = {
        rule: {state: counts[rule, state] for state in STATES} for rule in sorted({one.rule for one in told.findings})
    }
    lines = [
        f"{rule}: {row['new'] + row['reopened'] + row['open']} open ({row['new']} new, {row['reopened']} reopened), "
        f"{row['fixed']} fixed"
        for rule, row in rules.items()
    ]
    shown = _shown(told, runs=True) | {"rules": rules}
    print_answer(shown, [*lines, *_ends(told)], json=json)


@history_app.command("findings", epilog="Example: detector-pool history findings evidence --state new --sources src")
def history_findings(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    folder: Folder,
    state: Annotated[
        str, typer.Option(help="open (new and reopened ones, too), new, reopened, fixed or all.")
    ] = "open",
    sources: Annotated[
        Path | None,
        typer.Option(metavar="TREE", help="Checkout of the tree, for owners: CODEOWNERS, else who wrote the line."),
    ] = None,
    public_key: PublicKey = None,
    one_tree: OneTree = False,
    json: Json = False,
) -> None:
    """List findings with their state, age and owner; with --state new, what the newest run of a tree brought."""
    import msgspec

    from compliance.history import history_of
    from compliance.same_cause import with_also

    if state not in CHOICES:
        raise UsageError(f"--state takes one of {', '.join(CHOICES)}, not {state!r}")
    told = history_of(folder, public_key, one_tree=one_tree)
    found = tuple(one for one in told.findings if _is_in(one, state))
    problems: tuple[str, ...] = ()
    if sources is not None:
        found, problems = _owned(found, sources)
    found = with_also(found)
    shown = _shown(told) | {"findings": msgspec.to_builtins(found), "problems": problems}
    lines = [*_listed(found), f"{len(found)} findings", *(f"warning: {problem}" for problem in problems)]
    print_answer(shown, [*lines, *_ends(told)], json=json)


def _owned(found: tuple[Followed, ...], sources: Path) -> tuple[tuple[Followed, ...], tuple[str, ...]]:
    from compliance.owners import with_owners

    trees = {one.tree for one in found}
    if len(trees) > 1:
        raise UsageError(f"--sources speaks of one tree, and the runs are of {len(trees)}; give them a folder each")
    owned = with_owners(found, sources)
    return owned.findings, owned.problems


def _is_in(one: Followed, state: str) -> bool:
    if state == "all":
        return True
    return one.state != "fixed" if state == "open" else one.state == state


def _listed(found: Sequence[Followed]) -> Iterator[str]:
    """Yield a line for each cause: what others report of the same stands behind the first."""
    behind = {fingerprint for one in found for fingerprint in one.also}
    by_fingerprint = {one.fingerprint: one for one in found}
    for one in found:
        if one.fingerprint in behind:
            continue
        told = f"{one.state} {one.path}:{one.line}: {one.level}: {one.message} [{one.rule}] {one.age_days:.1f} days"
        told += f", {one.owner}" if one.owner else ""
        told += " (suppressed)" if one.suppressed else ""
        told += f" (waived by {one.waived})" if one.waived else ""
        also = ", ".join(by_fingerprint[other].rule for other in one.also)
        yield told + (f"; also reported by {also}" if also else "")


def _shown(told: History, *, runs: bool = False) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = {"anchored": told.anchored, "left_out": msgspec.to_builtins(told.left_out)}
    return shown | {"runs": msgspec.to_builtins(told.runs)} if runs else shown


def _ends(told: History) -> Iterator[str]:
    yield from (f"LEFT OUT {one.folder}: {one.problem}" for one in told.left_out)
    key = "signed by the key that you gave" if told.anchored else "self-consistent; give --public-key to check whose"
    yield f"{len(told.runs)} runs, {len(told.left_out)} folders left out; evidence {key}"
