"""
`detector-pool evidence`: what an auditor runs, and what `scan --evidence` needs of settings, keys and ledger.

What they print goes through the command line's own doors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deployments.audit_commands import print_answer
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.evidence_verify import Verdict
    from compliance.run_trail import LedgerPlace
    from deployments.settings import Settings
    from detectors.model import RunRecord
    from detectors.ports import Progress
    from detectors.scan import ScanOptions

__all__ = ["evidence_app", "ledger_place", "refuse_existing", "scan_with_evidence"]

HOLDS, FAILS = 0, 1

evidence_app = typer.Typer(help="Evidence folders.", no_args_is_help=True)


@evidence_app.callback()
def _evidence() -> None:
    """Evidence folders."""


@evidence_app.command(
    "verify", epilog="Example: detector-pool evidence verify evidence/tonight --public-key auditor.pem"
)
def evidence_verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The evidence folder.")],
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The key that you trust, kept elsewhere (PEM).")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The ledger; must hold what the folder's checkpoint says.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint of the ledger, kept elsewhere.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Check every file of an evidence folder, offline, against its attestation, its ledger's checkpoint and anchors."""
    from compliance.evidence_verify import verify

    verdict = verify(folder, public_key, ledger=ledger, checkpoint=checkpoint)
    print_answer(_shown(verdict), "\n".join(_lines(verdict)), json=json)
    raise typer.Exit(HOLDS if verdict.ok else FAILS)


def ledger_place(settings: Settings, ledger: Path | None) -> LedgerPlace | None:
    """
    Return where a run is recorded: the ledger that was named, else the machine's own; None without a passphrase.

    Raises:
        UsageError: A ledger was named, and there is no passphrase.
    """
    from compliance.run_trail import LedgerPlace

    if settings.passphrase is None:
        if ledger is not None:
            raise UsageError(f"--ledger {ledger} needs DETECTOR_POOL_PASSPHRASE or --passphrase-file")
        return None
    folder = ledger or settings.ledger
    # One that somebody named must be there: a mistyped name would begin a ledger that nobody watches.
    return LedgerPlace(folder, settings.keys_of(folder), settings.passphrase, create=ledger is None)


def refuse_existing(folder: Path) -> None:
    """Say so before the work, not after it; raises UsageError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--evidence {folder}: it exists and is not an empty folder; name a new one")


class Quality(NamedTuple):
    """Whether the run's own tables are validated, where what that shows is drawn, and what else judges the run."""

    wanted: bool
    docs: Path | None
    waivers: Path | None = None
    qualifications: Path | None = None
    qualification_key: Path | None = None

    def judged(self, record: RunRecord) -> RunRecord:
        """Return the record with its waivers, and with what validating its tables showed where that is wanted."""
        from compliance.judged_runs import judged

        record = judged(
            record, waivers=self.waivers, qualifications=self.qualifications, qualification_key=self.qualification_key
        )
        if not self.wanted:
            return record
        from compliance.expectations import validated

        return validated(record, docs=self.docs)


def scan_with_evidence(  # noqa: PLR0917  # p10: ignore[R10] called as the flow's door is, by place by the maintainers
    options: ScanOptions,
    evidence: Path | None,
    ledger: Path | None,
    settings: Settings,
    progress: Progress,
    quality: Quality,
) -> RunRecord:
    """
    Scan in this process; record it in a ledger, validate it and write evidence, where asked for.

    Raises:
        LedgerError, EvidenceError: Neither half a folder nor a run without an end is left behind.
        DetectorPoolError: As `detectors.scan.scan`.
    """
    if evidence is None and ledger is None:
        from detectors.scan import scan

        return quality.judged(scan(options, progress))
    from compliance.evidence import collect
    from compliance.run_trail import RunTrail, recorded_scan
    from compliance.signing import SigningKey

    # Before the work: a key or a ledger that cannot be used must not cost the results of a night.
    key = SigningKey.load_or_create(settings.keys, settings.passphrase) if evidence is not None else None
    trail = RunTrail(ledger_place(settings, ledger))

    def seal(record: RunRecord) -> None:
        if evidence is not None and key is not None:
            _ = collect(record, evidence, key, trail)

    return recorded_scan(options, trail, seal, progress, judge=quality.judged)


def _plain(text: str) -> str:
    """Escape control characters: the name of a file that was slipped in must not drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "ok": verdict.ok,
        "anchored": verdict.anchored,
        "anchors": list(verdict.anchors),
        "ledger": verdict.ledger,
        "no_ledger": verdict.no_ledger,
        "checked": [{"file": check.file, "ok": check.ok, "problem": check.problem} for check in verdict.checked],
    }


def _lines(verdict: Verdict) -> list[str]:
    lines = [
        _plain(f"{'ok  ' if check.ok else 'FAIL'} {check.file}" + (f": {check.problem}" if check.problem else ""))
        for check in verdict.checked
    ]
    if verdict.ledger is not None:
        lines.append(f"recorded in the ledger {verdict.ledger}")
    elif verdict.no_ledger is not None:
        lines.append(f"no ledger record stands behind it: {verdict.no_ledger}")
    if not verdict.ok:
        return [*lines, "evidence does NOT verify"]
    told = {
        "public-key": "signed by the key that you gave",
        "ledger": "recorded in the ledger that you gave",
        "checkpoint": "in agreement with the checkpoint that you gave",
    }
    trust = ", ".join(told[anchor] for anchor in verdict.anchors)
    return [
        *lines,
        f"evidence verified: {trust or 'self-consistent; give --public-key to check whose signature it is'}",
    ]
