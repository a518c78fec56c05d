"""`detector-pool waiver`: write, approve and list waivers; each signature and approval is recorded in a ledger."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.options import Json, OwnKeys, PassphraseFile
from deployments.output import print_answer, write_new
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import Policy
    from compliance.signing import SigningKey
    from compliance.waivers import WaivedFinding, Waiver

__all__ = ["waiver_app"]

ALL_BELIEVED, SOME_REFUSED = 0, 1

waiver_app = typer.Typer(help="Findings that two persons let pass, until a day.", no_args_is_help=True)


@waiver_app.command(
    "create",
    epilog="Example: detector-pool waiver create --fingerprint 0123… --reason 'bounded by the caller' --control SI-10 "
    "--until 2027-01-31 --keys me --findings scan.json --output waivers/bound.json",
)
def create(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    fingerprint: Annotated[list[str], typer.Option(help="Of a finding; repeated.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why it may pass.", show_default=False)],
    control: Annotated[str, typer.Option(help="Under which, such as SI-10.", show_default=False)],
    until: Annotated[str, typer.Option(metavar="DATE", help="Last day, such as 2027-01-31.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="New file, *.json.", show_default=False)],
    keys: OwnKeys,
    findings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output of `scan --json`: shows rule and path of each.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Sign a waiver, which somebody else has yet to approve."""
    from compliance.waivers import FORMAT, Terms, opened, sign_terms

    if output.suffix != ".json":
        raise UsageError(f"--output {output}: `scan --waivers` reads files whose names end with .json")
    policy, key = _policy(), _key(keys, passphrase_file)
    today = _today()
    named = tuple(_shown_findings(list(dict.fromkeys(fingerprint)), findings))
    terms = Terms(FORMAT, policy.file.audience, named, reason, control, today.isoformat(), until, "")
    data = sign_terms(key, policy, terms)
    waiver = opened(data, policy, output.name, today, ("",), draft=True)
    write_new(output, data)
    _recorded("waiver.created", waiver, waiver.author)
    print_answer(_shown(output.name, waiver), [f"{output}: {_line(waiver)}; not approved yet"], json=json)


@waiver_app.command("approve", epilog="Example: detector-pool waiver approve waivers/bound.json --keys me")
def approve_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `waiver create` wrote.", show_default=False)],
    keys: OwnKeys,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Show a waiver, and sign that you agree; its author cannot."""
    from compliance.waivers import MAX_FILE_BYTES, approve, opened

    if not file.is_file() or file.is_symlink() or file.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"there is no waiver {file}")
    policy, key = _policy(), _key(keys, passphrase_file)
    today = _today()
    data = approve(key, policy, file.read_bytes(), file.name, today)
    waiver = opened(data, policy, file.name, today, ("",))
    # Recorded first: an approval that counts and that no ledger knows must not be.
    _recorded("waiver.approved", waiver, waiver.approver)
    draft = file.with_name(f".{file.name}.approved")
    write_new(draft, data)
    draft.replace(file)
    print_answer(_shown(file.name, waiver), [f"{file}: {_line(waiver)}"], json=json)


@waiver_app.command("list", epilog="Example: detector-pool waiver list waivers")
def list_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of waivers.", show_default=False)],
    json: Json = False,
) -> None:
    """List the waivers of a folder as the access policy of today takes them; exits 1 if it refuses one."""
    from compliance.errors import WaiverRefused
    from compliance.waivers import opened, read_folder

    policy, today = _policy(), _today()
    shown: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, data in read_folder(folder):
        try:
            if isinstance(data, WaiverRefused):
                raise data
            waiver = opened(data, policy, name, today, ("",))
        except WaiverRefused as problem:
            shown.append({"file": name, "state": "refused", "problem": problem.problem})
            lines.append(f"REFUSED {name}: {problem.problem}")
            continue
        shown.append(_shown(name, waiver))
        lines.append(f"valid {name}: {_line(waiver)}")
    refused = sum(one["state"] == "refused" for one in shown)
    lines.append(f"{len(shown)} waivers, {refused} refused")
    print_answer({"waivers": shown}, lines, json=json)
    raise typer.Exit(SOME_REFUSED if refused else ALL_BELIEVED)


def _shown(name: str, waiver: Waiver) -> dict[str, Any]:
    import msgspec

    assert waiver.id, "only what is believed is shown so"
    return {
        "file": name, "state": "valid" if waiver.approver else "draft", "waiver": waiver.id, "digest": waiver.digest,
        "author": waiver.author, "approver": waiver.approver or None, **msgspec.to_builtins(waiver.terms),
    }  # fmt: skip


def _line(waiver: Waiver) -> str:
    terms = waiver.terms
    named = [f"{one.fingerprint} {one.rule} {one.path}".rstrip() for one in terms.findings]
    assert named, "a waiver is of something"
    approved = f", approved by {waiver.approver}" if waiver.approver else ""
    told = f"waiver {waiver.id} by {waiver.author}{approved} until {terms.until} under {terms.control}: {terms.reason}"
    return "; ".join([told, *named])


def _shown_findings(fingerprints: list[str], file: Path | None) -> list[WaivedFinding]:
    """Return the findings with rule and path, where a scan shows them; raises UsageError for one that it has not."""
    import msgspec

    from compliance.waivers import WaivedFinding

    if file is None:
        return [WaivedFinding(one) for one in fingerprints]
    try:
        told = msgspec.json.decode(file.read_bytes(), type=dict[str, Any]).get("findings")
        known = {str(one["fingerprint"]): one for one in told or ()}
        missing = [one for one in fingerprints if one not in known]
        if missing:
            raise UsageError(f"{file} has no finding {missing[0]}")
        return [WaivedFinding(one, str(known[one]["rule"]), str(known[one]["path"])) for one in fingerprints]
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as problem:
        raise UsageError(f"{file} is no output of `scan --json` ({problem})") from problem


def _recorded(kind: str, waiver: Waiver, by: str) -> None:
    """Record an event through the audit sink, with the account that ran the command; raises DetectorPoolError."""
    from detectors.access import Closable, caller
    from detectors.ports import installed_audit_sink

    sink = installed_audit_sink()
    if sink is None:
        raise UsageError("no audit sink is installed, so no waiver can be recorded; install the project anew")
    sink.record(
        {
            "event": kind, "time": time.time(), "waiver": waiver.id, "digest": waiver.digest, "signed_by": by,
            "fingerprints": [one.fingerprint for one in waiver.terms.findings], "control": waiver.terms.control,
            "until": waiver.terms.until, "who": caller(),
        }
    )  # fmt: skip
    if isinstance(sink, Closable):
        sink.close()


def _policy() -> Policy:
    from compliance.access_policy import Policy
    from compliance.identity import AccessPlaces

    file = AccessPlaces.read().policy
    if file is None:
        raise UsageError("waivers need an access policy that says whose signatures count; `access init` makes one")
    return Policy.read(file)


def _key(folder: Path, passphrase_file: Path | None) -> SigningKey:
    from compliance.signing import SigningKey
    from deployments.settings import Settings

    if not folder.is_dir():
        raise UsageError(f"there is no key in {folder}; make one with `access key`, and put it under [[requesters]]")
    return SigningKey.load_or_create(folder, Settings.read(passphrase_file=passphrase_file).passphrase)


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
