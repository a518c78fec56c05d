"""
`detector-pool audit`: the ledger's commands.

They start before a user notices: each imports what it needs and nothing else. What they end with is the ledger's own
exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.options import Checkpoint, Json, PassphraseFile, PublicKey
from deployments.output import print_answer, print_bytes
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.ledger import Ledger
    from compliance.ledger_verify import Verdict
    from deployments.settings import Settings

__all__ = ["audit_app"]

READ_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 21

audit_app = typer.Typer(
    help="The tamper-evident ledger.",
    epilog="Exit codes: 0 intact or done, 1 tampered, 2 usage or bad checkpoint file, 4 torn tail, 5 busy, "
    "6 wrong passphrase or key, 7 input/output error.",
    no_args_is_help=True,
)

LedgerFolder = Annotated[Path, typer.Option("--ledger", metavar="DIR", help="The ledger's folder.", show_default=False)]
Keys = Annotated[
    Path | None, typer.Option("--keys", metavar="DIR", help="Folder of the signing key, never in the ledger's.")
]


@audit_app.command("init", epilog="Example: detector-pool audit init --ledger audit/ledger")
def init(
    ledger: LedgerFolder,
    keys: Keys = None,
    segment_records: Annotated[
        int | None, typer.Option(metavar="N", help="Begin a new segment after so many records (16384).")
    ] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Make an empty ledger, and its signing key where there is none."""
    from compliance.ledger import SEGMENT_RECORDS, Ledger

    settings, passphrase = _settings(passphrase_file, needed=True)
    place = keys or settings.keys_of(ledger)
    limit = SEGMENT_RECORDS if segment_records is None else segment_records
    opened = Ledger.create(ledger, place, passphrase, segment_records=limit)
    shown = {
        "ledger": str(ledger), "origin": opened.origin, "public_key": str(place / "public-key.pem"),
        "checkpoint": opened.note.decode(),
    }  # fmt: skip
    text = f"{opened.origin}\nkeep elsewhere: {place / 'public-key.pem'}, and what `audit checkpoint` prints"
    print_answer(shown, text.splitlines(), json=json)


@audit_app.command("append", epilog='Example: echo \'{"type": "note"}\' | detector-pool audit append --ledger DIR')
def append(
    ledger: LedgerFolder,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    json: Annotated[  # noqa: ARG001  # every command takes it
        bool, typer.Option("--json", help="The output is JSON lines in any case.")
    ] = False,
) -> None:
    """Append one JSON event a line from standard input; print {"index": n} for each once it is durable."""
    with _opened(ledger, keys, passphrase_file) as opened:
        for events, problem in _events():
            if events:
                receipt = opened.append_all(events)
                print_bytes(b"".join(b'{"index":%d}\n' % index for index in receipt.indices))
            if problem is not None:
                raise UsageError(problem)


@audit_app.command("show", epilog="Example: detector-pool audit show --ledger DIR --index 7")
def show(
    ledger: LedgerFolder,
    index: Annotated[int | None, typer.Option(metavar="N", help="Show this record.")] = None,
    proof: Annotated[bool, typer.Option("--proof", help="With its inclusion proof; needs no passphrase.")] = False,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Show what a ledger is, or one record, or the proof that it is there."""
    if index is None:
        shown = _summary(ledger)
        print_answer(shown, [f"{name}: {value}" for name, value in shown.items()], json=json)
        return
    import msgspec

    from compliance.ledger_export import prove, read_record

    try:
        if proof:
            print_bytes(msgspec.json.encode(prove(ledger, index)) + b"\n")
        else:
            print_bytes(read_record(ledger, index, _settings(passphrase_file, needed=True, ledger=ledger)[1]))
    except IndexError as problem:
        raise UsageError(f"the ledger {ledger} has no record {index}; `audit show` says which it has") from problem


@audit_app.command("verify", epilog="Example: detector-pool audit verify --ledger DIR --public-key auditors-copy.pem")
def verify(
    ledger: LedgerFolder,
    checkpoint: Checkpoint = None,
    public_key: PublicKey = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Verify every byte of a ledger; needs no passphrase and never writes. With a passphrase it also decrypts."""
    import msgspec

    from compliance.ledger_verify import verify as verify_ledger

    _, passphrase = _settings(passphrase_file, needed=False)
    verdict = verify_ledger(ledger, public_key=public_key, checkpoint=checkpoint, passphrase=passphrase or None)
    trust = (
        "held against what you kept elsewhere"
        if verdict.anchored
        else "self-consistent only; give --public-key or --checkpoint to see a rollback, a cut end or another key"
    )
    if verdict.ok:
        text = f"intact: {verdict.records} records, {trust}" if verdict.released is None else _retained(verdict, trust)
    else:
        at = "" if verdict.first_bad_index is None else f" at record {verdict.first_bad_index}"
        text = f"{verdict.verdict.upper()}{at}: {verdict.problem}"
    print_answer(msgspec.to_builtins(verdict), text.splitlines(), json=json)
    raise typer.Exit(verdict.exit_code)


@audit_app.command("recover", epilog="Example: detector-pool audit recover --ledger DIR")
def recover(
    ledger: LedgerFolder, keys: Keys = None, passphrase_file: PassphraseFile = None, json: Json = False
) -> None:
    """Cut a torn tail that was never acknowledged, and record the cut; a whole ledger is left alone."""
    from compliance.errors import LedgerDamaged
    from compliance.ledger_verify import verify as verify_ledger

    verdict = verify_ledger(ledger)
    if verdict.verdict == "tampered":
        raise LedgerDamaged(str(ledger), verdict.first_bad_index or 0, verdict.problem or "")
    with _opened(ledger, keys, passphrase_file) as opened:
        torn_bytes = opened.torn_bytes
        receipt = opened.recover()
        shown = {"cut_bytes": torn_bytes, "index": None if receipt is None else receipt.index, "records": opened.size}
    text = (
        "nothing was torn"
        if receipt is None
        else f"{torn_bytes} bytes that were never acknowledged are cut; record {receipt.index} says so"
    )
    print_answer(shown, text.splitlines(), json=json)


@audit_app.command("checkpoint", epilog="Example: detector-pool audit checkpoint --ledger DIR > elsewhere/checkpoint")
def checkpoint(ledger: LedgerFolder, json: Json = False) -> None:
    """Print the last signed checkpoint; keep it where whoever holds the ledger cannot change it."""
    from compliance.ledger_format import read_genesis
    from compliance.ledger_verify import last_chain

    note = last_chain(read_genesis(str(ledger))).head
    if json:
        print_answer({"checkpoint": note.decode()}, (), json=True)
    else:
        print_bytes(note)


@audit_app.command("export", epilog="Example: detector-pool audit export --ledger DIR --proofs > events.jsonl")
def export(
    ledger: LedgerFolder,
    proofs: Annotated[
        bool, typer.Option("--proofs", help="Add leaf and inclusion proof to each, and the checkpoint as last line.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    json: Annotated[  # noqa: ARG001  # every command takes it
        bool, typer.Option("--json", help="The output is JSON lines in any case.")
    ] = False,
) -> None:
    """Print all records in order, one JSON object a line; the ledger is verified first."""
    from compliance.ledger_export import export as export_ledger

    _, passphrase = _settings(passphrase_file, needed=True, ledger=ledger)
    verdict = export_ledger(ledger, passphrase, print_bytes, proofs=proofs)
    if not verdict.ok:
        _say(f"{verdict.verdict}: {verdict.problem}")


@audit_app.command("rotate", epilog="Example: detector-pool audit rotate --ledger DIR --reason yearly")
def rotate(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    ledger: LedgerFolder,
    keys: Keys = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    revoke: Annotated[bool, typer.Option("--revoke", help="The old signing key must no longer be trusted.")] = False,
    new_passphrase_file: Annotated[Path | None, typer.Option(help="File with another passphrase from now on.")] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Go on with a new signing key and a new root key; the old key certifies the new one, and a record says so."""
    from deployments.settings import Settings

    settings, passphrase = _settings(passphrase_file, needed=True, ledger=ledger)
    given = Settings.read(passphrase_file=new_passphrase_file).passphrase if new_passphrase_file is not None else None
    place = keys or settings.keys_of(ledger)
    with _open(ledger, place, passphrase) as opened:
        receipt = opened.rotate(place, given or passphrase, reason=reason, revoke=revoke)
    shown = {
        "index": receipt.index,
        "public_key": str(place / "public-key.pem"),
        "checkpoint": receipt.checkpoint.decode(),
    }
    print_answer(shown, [f"record {receipt.index}; the new public key is {place / 'public-key.pem'}"], json=json)


@audit_app.command("retain", epilog="Example: detector-pool audit retain --ledger DIR --keep-days 400")
def retain(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    ledger: LedgerFolder,
    keep_days: Annotated[
        int | None, typer.Option(metavar="N", help="Keep every segment with a record of the last N days.")
    ] = None,
    keep_records: Annotated[
        int | None, typer.Option(metavar="N", help="Keep the newest N records or more; with --keep-days, both.")
    ] = None,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """
    Release old whole segments: verify all, record what goes and its signed checkpoint, then remove the files.

    What is left verifies from there on, and proofs of its records hold. Copy the folder before where what goes must be
    readable later: the copy verifies by itself.
    """
    from compliance.ledger_retention import Keep

    keep = Keep(keep_records, keep_days)
    with _opened(ledger, keys, passphrase_file) as opened:
        done = opened.retain(keep)
        shown = {
            "released_segments": 0 if done is None else len(done.segments),
            "released_records": 0 if done is None else len(done.records),
            "first_index": None if done is None else done.records.stop,
            "index": None if done is None else done.index,
            "records": opened.size,
            "checkpoint": None if done is None else done.checkpoint.decode(),
        }
    text = (
        "nothing is old enough: all segments stay"
        if done is None
        else f"records {done.records[0]} to {done.records[-1]} ({len(done.segments)} segments) are released; record "
        f"{done.index} says so, and the ledger begins with record {done.records.stop} under the checkpoint\n"
        f"{done.checkpoint.decode().rstrip()}"
    )
    print_answer(shown, text.splitlines(), json=json)


def _retained(verdict: Verdict, trust: str) -> str:
    """Say what is there and what is not, of a ledger that begins later than it did."""
    released = verdict.released
    assert released is not None, "it is asked about a retention"
    left = "" if verdict.first_index >= released.records else "; their removal is not finished, the next writer does it"
    return (
        f"intact from record {verdict.first_index} on: {verdict.records - verdict.first_index} records verified, "
        f"{trust}\nreleased by the retention of {released.time}: the {released.records} records before record "
        f"{released.records}, in {released.segments} segments{left}; what they were is bound by the checkpoint\n"
        f"{released.checkpoint.rstrip()}"
    )


def _settings(file: Path | None, *, needed: bool, ledger: Path | None = None) -> tuple[Settings, bytes]:
    """Return the settings, and the passphrase (empty when there is none and none is needed)."""
    from deployments.settings import Settings

    settings = Settings.read(passphrase_file=file)
    if settings.passphrase is None and needed:
        told = "set DETECTOR_POOL_PASSPHRASE or give --passphrase-file"
        if ledger is None:
            raise UsageError(f"a ledger needs a passphrase; {told}")
        from compliance.errors import LedgerLocked

        raise LedgerLocked(str(ledger), f"there is no passphrase; {told}")
    return settings, settings.passphrase or b""


def _opened(ledger: Path, keys: Path | None, passphrase_file: Path | None) -> Ledger:
    settings, passphrase = _settings(passphrase_file, needed=True, ledger=ledger)
    return _open(ledger, keys or settings.keys_of(ledger), passphrase)


def _open(ledger: Path, keys: Path, passphrase: bytes) -> Ledger:
    from compliance.ledger import Ledger

    return Ledger.open(ledger, keys, passphrase)


def _events() -> Iterator[tuple[Sequence[Mapping[str, object]], str | None]]:
    """Yield what has come on standard input, so that lines that come together share a commit; then what is wrong."""
    number, rest = 0, b""
    while True:
        data = os.read(sys.stdin.fileno(), READ_BYTES)
        *lines, rest = (rest + data).split(b"\n")
        if not data and rest:
            lines, rest = [rest], b""
        events: list[Mapping[str, object]] = []
        problem = (
            f"line {number + len(lines) + 1} is longer than {MAX_LINE_BYTES} bytes"
            if len(rest) > MAX_LINE_BYTES
            else None
        )
        for line in lines:
            number += 1
            if not line.strip():
                continue
            try:
                events.append(_event(line))
            except UsageError as wrong:
                problem = f"line {number}: {wrong}; the lines before it were appended"
                break
        yield events, problem
        if not data:
            return


def _event(line: bytes) -> Mapping[str, object]:
    import msgspec

    try:
        event = msgspec.json.decode(line, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise UsageError(f"it is no JSON object ({problem})") from problem
    return event


def _summary(ledger: Path) -> dict[str, Any]:
    import hashlib

    from compliance.ledger_format import read_genesis
    from compliance.ledger_verify import last_chain
    from compliance.merkle import Frontier
    from compliance.signing import VerifyingKey

    opened = read_genesis(str(ledger))
    chain = last_chain(opened)
    public = VerifyingKey.from_raw(chain.signers[-1].public_key)
    return {
        "ledger": str(ledger),
        "origin": opened.origin,
        "created": opened.genesis.created,
        "records": chain.state.size,
        "segments": chain.next_number - (0 if chain.released is None else chain.released.number),
        "first_index": 0 if chain.released is None else chain.released.first,
        "segment_records": opened.genesis.segment_records,
        "root": Frontier(chain.state.size, chain.state.peaks).root().hex(),
        "key": hashlib.sha256(public.raw).hexdigest(),
        "verifier_key": public.vkey(opened.origin),
        "keys": len(chain.signers),
        "key_epoch": chain.epoch.number,
        "kdf": f"{chain.epoch.kdf} {chain.epoch.rounds}",
        "torn_bytes": sum(cut.size_bytes for cut in chain.torn),
    }


def _say(message: str) -> None:
    sys.stderr.write(f"detector-pool: {message}\n")
