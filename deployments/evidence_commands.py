"""`detector-pool evidence`: what an auditor runs, and what `scan --evidence` needs of settings, keys and ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deployments.options import Checkpoint, Json, PassphraseFile, PublicKey
from deployments.output import print_answer, write_new
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.evidence_verify import Verdict
    from compliance.run_trail import LedgerPlace
    from compliance.signing import SigningKey
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
def evidence_verify(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The evidence folder.")],
    public_key: PublicKey = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The ledger; must hold what the folder's checkpoint says.")
    ] = None,
    checkpoint: Checkpoint = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="File with the ledger's passphrase: to see that canaries were committed to.")
    ] = None,
    json: Json = False,
) -> None:
    """Check every file of an evidence folder, offline, against its attestation, its ledger's checkpoint and anchors."""
    from compliance.evidence_verify import verify
    from deployments.settings import Settings
    from detectors.access import require

    if passphrase_file is not None and ledger is None:
        raise UsageError("--passphrase-file opens a ledger; give --ledger too")
    passphrase = None
    if ledger is not None and passphrase_file is not None:
        require("read", "ledger", door="command", folder=ledger)  # the door has asked for the evidence
        passphrase = Settings.read(None, passphrase_file).passphrase
    verdict = verify(folder, public_key, ledger=ledger, checkpoint=checkpoint, passphrase=passphrase)
    print_answer(_shown(verdict), _lines(verdict), json=json)
    raise typer.Exit(HOLDS if verdict.ok else FAILS)


@evidence_app.command(
    "reperform",
    epilog="Example: detector-pool evidence reperform evidence/tonight --sources src --seed 2027-audit --sample 50 "
    "--output reperformed.jsonl",
)
def evidence_reperform(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The evidence folder.")],
    sources: Annotated[
        list[Path], typer.Option(metavar="TREE", help="Your copy of the sources; repeated, in order, for each tree.")
    ],
    seed: Annotated[str, typer.Option(help="Any text, chosen after the evidence was made; decides the sample.")],
    sample: Annotated[int, typer.Option(help="How many pairs of file and detector are run again.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="New file for the signed statement.")],
    public_key: PublicKey = None,
    cluster: Annotated[str, typer.Option(help="local for processes of their own, inline for this one.")] = "local",
    workers: Annotated[int | None, typer.Option(help="How many at once; the processors when absent.")] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """
    Run a sample of a run again on the same sources, without cache, and sign whether it gave the same.

    Exit codes: 0 the same, 1 something differs or the evidence does not verify, 2 other sources, detectors or usage.
    """
    from compliance.assurance_statement import read_evidence, refuse_existing_file
    from compliance.reperformance import Asked, reperform, statement_of

    refuse_existing_file(output, [folder])
    evidence = read_evidence(folder, public_key)
    key = _own_key(passphrase_file)
    told = reperform(evidence, Asked(tuple(sources), seed, sample, cluster, workers))
    write_new(output, statement_of(evidence, told, key))
    lines = [f"{told.sample} of {told.units} units run again on the same sources; {told.same} gave the same bytes"]
    for answer in told.answers:
        if not answer.same:
            lines.append(f"DIFFERS {answer.path} by {answer.detector}, computed by the run {answer.run_id}")
            lines += [f"  in the evidence only: {line}" for line in answer.missing]
            lines += [f"  in the sources only:  {line}" for line in answer.unrecorded]
    if told.beyond:
        lines.append(f"{told.beyond} findings of rules over the whole tree are not in any sample")
    lines.append(f"signed statement: {output} (key {key.public.id})")
    shown = {
        "ok": told.different == 0,
        "anchored": evidence.verdict.anchored,
        "sample": told.sample,
        "units": told.units,
        "same": told.same,
        "different": [
            {
                "path": answer.path,
                "detector": answer.detector,
                "missing": answer.missing,
                "unrecorded": answer.unrecorded,
            }
            for answer in told.answers
            if not answer.same
        ],
        "statement": str(output),
    }
    print_answer(shown, lines, json=json)
    raise typer.Exit(FAILS if told.different else HOLDS)


@evidence_app.command(
    "carry",
    epilog="Example: detector-pool evidence carry evidence/1.0 evidence/1.1 --output carried.jsonl",
)
def evidence_carry(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    earlier: Annotated[Path, typer.Argument(metavar="A", help="Evidence of the earlier release.")],
    later: Annotated[Path, typer.Argument(metavar="B", help="Evidence of the later release.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="New file for the signed statement.")],
    public_key: PublicKey = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """
    Sign which part of release B the evidence of release A holds for, and what was done anew.

    Exit codes: 0 done, 1 the runs contradict each other or evidence does not verify, 2 a record says too little, usage.
    """
    from compliance.assurance_statement import read_evidence, refuse_existing_file
    from compliance.carry_forward import carry, statement_of
    from detectors.access import require

    require("verify", "evidence", door="command", folder=earlier)  # the door has asked for the other
    refuse_existing_file(output, [earlier, later])
    a, b = (read_evidence(folder, public_key) for folder in (earlier, later))
    key = _own_key(passphrase_file)
    told = carry(a, b)
    write_new(output, statement_of(a, b, told, key))
    lines = [f"anew {item.path} by {item.detector}: {item.reason}" for item in told.anew]
    lines += [f"CONTRADICTION {item.path} by {item.detector}: {item.reason}" for item in told.contradictions]
    lines += [f"gone {path} by {detector}" for path, detector in told.gone]
    for name, carried in sorted(told.whole_tree_rules.items()):
        lines.append(f"rules of {name} over the whole tree: {'carried' if carried else 'done anew'}")
    lines.append(f"{told.carried} of {told.units} units of B are carried from A; {len(told.anew)} were done anew")
    lines.append(f"signed statement: {output} (key {key.public.id})")
    shown = {
        "ok": not told.contradictions,
        "units": told.units,
        "carried": told.carried,
        "anew": [{"path": item.path, "detector": item.detector, "reason": item.reason} for item in told.anew],
        "gone": [{"path": path, "detector": detector} for path, detector in told.gone],
        "contradictions": [{"path": item.path, "detector": item.detector} for item in told.contradictions],
        "whole_tree_rules": told.whole_tree_rules,
        "statement": str(output),
    }
    print_answer(shown, lines, json=json)
    raise typer.Exit(FAILS if told.contradictions else HOLDS)


def _own_key(passphrase_file: Path | None) -> SigningKey:
    """Return the key of whoever runs this: what he states, he signs; raises KeyUnusable."""
    from compliance.signing import SigningKey
    from deployments.settings import Settings

    settings = Settings.read(None, passphrase_file)
    key = SigningKey.load_or_create(settings.keys, settings.passphrase)
    assert len(key.public.id) == 64, "a key has an id"
    return key


def ledger_place(settings: Settings, ledger: Path | None) -> LedgerPlace | None:
    """
    Return where a run is recorded: the ledger that was named, else the machine's own; None without a passphrase.

    Raises:
        UsageError: A ledger was named, and there is no passphrase.
    """
    from compliance.run_trail import LedgerPlace, own_ledger

    if settings.passphrase is None:
        if ledger is not None:
            raise UsageError(f"--ledger {ledger} needs DETECTOR_POOL_PASSPHRASE or --passphrase-file")
        return None
    if ledger is None:
        return own_ledger(settings.state, settings.passphrase)
    # One that somebody named must be there: a mistyped name would begin a ledger that nobody watches.
    return LedgerPlace(ledger, settings.keys_of(ledger), settings.passphrase)


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
    effect_of: ScanOptions | None = None
    """What was asked for, where it is to be shown what the tree would have muted."""

    def judged(self, record: RunRecord) -> RunRecord:
        """Return the record with its waivers, and with what validating its tables showed where that is wanted."""
        from compliance.judged_runs import judged

        record = judged(
            record, waivers=self.waivers, qualifications=self.qualifications, qualification_key=self.qualification_key,
            effect_of=self.effect_of,
        )  # fmt: skip
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


def _shown(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "ok": verdict.ok,
        "anchored": verdict.anchored,
        "anchors": list(verdict.anchors),
        "ledger": verdict.ledger,
        "no_ledger": verdict.no_ledger,
        "canaries": verdict.canaries or None,
        "checked": [{"file": check.file, "ok": check.ok, "problem": check.problem} for check in verdict.checked],
    }


def _lines(verdict: Verdict) -> list[str]:
    lines = [
        f"{'ok  ' if check.ok else 'FAIL'} {check.file}" + (f": {check.problem}" if check.problem else "")
        for check in verdict.checked
    ]
    if verdict.ledger is not None:
        lines.append(f"recorded in the ledger {verdict.ledger}")
    elif verdict.no_ledger is not None:
        lines.append(f"no ledger record stands behind it: {verdict.no_ledger}")
    if verdict.canaries:
        lines.append(f"canaries: {verdict.canaries}")
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
