"""`detector-pool certs`: the cluster's certificate authority and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.options import Json
from deployments.output import print_answer

__all__ = ["certificates_app", "default_folder"]

LOOPBACK = ("127.0.0.1", "localhost")

certificates_app = typer.Typer(
    help="Certificate authority and certificates for scheduler, workers and clients.", no_args_is_help=True
)

Folder = Annotated[Path | None, typer.Option("--folder", metavar="DIR", help="Where they lie; below the state folder.")]
Hosts = Annotated[
    list[str] | None, typer.Option("--host", help="Name or address where scheduler and workers serve; repeated.")
]
Days = Annotated[float, typer.Option("--days", help="How long certificates last, 90 at most.")]


def default_folder() -> Path:
    """Return where certificates lie when nobody says otherwise."""
    from compliance.identity import state_folder

    folder = state_folder() / "certs"
    assert folder.is_absolute(), "a state folder is named whole"
    return folder


@certificates_app.command("init", epilog="Example: detector-pool certs init --host scheduler.internal --host 10.0.0.5")
def init(folder: Folder = None, host: Hosts = None, days: Days = 7, json: Json = False) -> None:
    """Make an authority, and a certificate each for scheduler, workers and clients; loopback when no host is named."""
    from deployments.certificates import init as make

    place = folder or default_folder()
    make(place, tuple(host or LOOPBACK), days)
    raise typer.Exit(_show(place, json=json))


@certificates_app.command("renew", epilog="Example: detector-pool certs renew --days 7")
def renew(folder: Folder = None, host: Hosts = None, days: Days = 7, json: Json = False) -> None:
    """Sign new certificates by the same authority; those in use stay valid until they expire, so nothing breaks."""
    from deployments.certificates import renew as make

    place = folder or default_folder()
    make(place, tuple(host or ()), days)
    raise typer.Exit(_show(place, json=json))


@certificates_app.command("show", epilog="Example: detector-pool certs show --json")
def show(folder: Folder = None, json: Json = False) -> None:
    """List certificates: subject, names, expiry, fingerprint; exits 1 when one has expired or cannot be used."""
    raise typer.Exit(_show(folder or default_folder(), json=json))


def _show(folder: Path, *, json: bool) -> int:
    """Print what lies in the folder, and return 0 when all of it can be used, else 1."""
    import msgspec

    from deployments.certificates import show as look

    found = look(folder)
    usable = all(one.problem is None for one in found)
    lines = [str(folder)]
    for one in found:
        lines += [
            f"{one.problem.upper() if one.problem else 'ok'} {one.role} until {one.not_after}: {one.subject}",
            f"   names {', '.join(one.names) or 'none'}",
            f"   sha256 {one.fingerprint}",
        ]
    print_answer({"ok": usable, "folder": str(folder), "certificates": msgspec.to_builtins(found)}, lines, json=json)
    return 0 if usable else 1
