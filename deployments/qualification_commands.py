"""`detector-pool detectors qualify` and `detectors agreement`: how good detectors are, and where they differ."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.options import Json, PassphraseFile
from deployments.output import print_answer, write_new
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.qualification_trial import Share, Trial

__all__ = ["QUALIFY_EXAMPLE", "agreement_command", "qualify_command"]

DONE, TOO_LOW = 0, 1
MAX_RECORD_BYTES = 1 << 30
QUALIFY_EXAMPLE = (
    "Example: detector-pool detectors qualify bandit --corpus tests/corpus/found --sources .demo/sources "
    "--output qualifications/bandit.intoto.jsonl"
)


def qualify_command(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    sources: Annotated[
        Path, typer.Option(metavar="DIR", help="Real code; the packages of judged cases lie in it.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New file, *.jsonl.", show_default=False)],
    detectors: Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help="All when absent.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judged cases: c.json, python.json; mutants alone when absent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the mutants.")] = 0,
    mutants: Annotated[int, typer.Option(help="How many for each operator.", min=1, max=1000)] = 10,
    days: Annotated[int, typer.Option("--valid-days", help="For how long it holds.", min=1, max=1096)] = 180,
    fail_under_recall: Annotated[
        float | None, typer.Option(help="Sign nothing and exit with 1 if a detector's recall (0 to 1) is lower.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Measure recall and precision of detectors on judged real code and on mutants of it; sign what came out."""
    import msgspec

    from compliance.qualification import SUFFIX, sealed
    from compliance.qualification_trial import qualify
    from compliance.signing import SigningKey
    from deployments.settings import Settings

    if output.exists() or output.suffix != SUFFIX:
        raise UsageError(f"--output {output}: name a new file that ends with {SUFFIX}")
    if fail_under_recall is not None and not 0 <= fail_under_recall <= 1:
        raise UsageError(f"--fail-under-recall takes a share from 0 to 1, not {fail_under_recall}")
    settings = Settings.read(passphrase_file=passphrase_file)
    # Before the work: a key that cannot be used must not cost it.
    key = SigningKey.load_or_create(settings.keys, settings.passphrase)
    names = None if detectors is None else tuple(name for words in detectors for name in words.split(",") if name)
    trials, sealed_corpus = qualify(names or None, sources, corpus, seed=seed, per_operator=mutants)
    low = [one.detector for one in trials if _is_low(one, fail_under_recall)]
    lines = [_line(one) for one in trials]
    if not trials:
        raise UsageError("no case speaks of these detectors; nothing can be said of them")
    if low:
        lines.append(f"NOTHING IS SIGNED: recall under {fail_under_recall}: {', '.join(low)}")
    else:
        today = datetime.datetime.now(datetime.UTC).date()
        write_new(output, sealed(trials, sealed_corpus, key, today, days))
        lines.append(f"{output}: signed by {key.public.id[:16]}, holds for {days} days")
    shown = {
        "signed": not low, "detectors": msgspec.to_builtins(trials), "corpus": msgspec.to_builtins(sealed_corpus),
        "refused": low,
    }  # fmt: skip
    print_answer(shown, lines, json=json)
    raise typer.Exit(TOO_LOW if low else DONE)


def agreement_command(
    file: Annotated[Path, typer.Argument(metavar="RUN.JSON", help="Of an evidence folder.", show_default=False)],
    json: Json = False,
) -> None:
    """Tell how far detectors of one question agree in a run (Cohen's kappa over files), and where they do not."""
    import msgspec

    from compliance.agreement import agreements
    from detectors.model import RunRecord

    try:
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise UsageError(f"{file} is larger than {MAX_RECORD_BYTES} bytes")
        run = msgspec.json.decode(file.read_bytes(), type=RunRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"{file} is no run.json of an evidence folder ({problem})") from problem
    found = agreements(run)
    lines: list[str] = []
    for one in found:
        kappa = "none (both say the same of all files)" if one.kappa is None else f"{one.kappa:.3f}"
        lines.append(f"{one.question}: {one.first} and {one.second}, {one.files} files: kappa {kappa}; "
                     f"both {one.both}, neither {one.neither}, one of them {len(one.disagreements)}")  # fmt: skip
        lines += [f"  {each.path}:{','.join(map(str, each.lines))} by {each.by}" for each in one.disagreements]
    shown = {"agreements": msgspec.to_builtins(found)}
    print_answer(shown, lines or ["no two detectors of one question ran"], json=json)


def _is_low(trial: Trial, least: float | None) -> bool:
    recall = trial.figures.recall.value
    return least is not None and (recall is None or recall < least)


def _line(trial: Trial) -> str:
    figures = trial.figures
    told = f"{trial.detector} {trial.version}: recall {_share(figures.recall)}; precision {_share(figures.precision)}"
    assert trial.parts, "a trial has cases"
    return told + (f"; {figures.unanswered} cases without an answer" if figures.unanswered else "")


def _share(share: Share) -> str:
    if share.value is None:
        return "unknown"
    assert share.count > 0, "a share is of something"
    return f"{share.good}/{share.count} = {share.value:.3f} (95 % Wilson {share.low:.3f} to {share.high:.3f})"
