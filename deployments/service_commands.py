"""`detector-pool services`: the files of PostgreSQL, Prefect server, TLS front and worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.options import Json
from deployments.output import print_answer

__all__ = ["services_app"]

services_app = typer.Typer(help="Prefect server, TLS front, database and worker.", no_args_is_help=True)


@services_app.callback()
def _services() -> None:
    """Prefect server, TLS front, database and worker."""


@services_app.command(
    "init", epilog="Example: detector-pool services init --folder /srv/detector-pool --host scans.internal"
)
def init(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    folder: Annotated[Path, typer.Option(metavar="DIR", help="New folder for the files.", show_default=False)],
    host: Annotated[str, typer.Option(help="Name or address of the front, as its certificate has it.")],
    certs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of `certs init`; below the state folder when absent.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of the front.")] = 4443,
    listen: Annotated[str, typer.Option(help="Address that the front listens at.")] = "0.0.0.0",  # noqa: S104  # as in `Place`
    api_port: Annotated[int, typer.Option(help="Of the Prefect server, on loopback.")] = 4200,
    database_port: Annotated[int, typer.Option(help="Of PostgreSQL, on loopback.")] = 5432,
    json: Json = False,
) -> None:
    """Write settings, secrets and units of the services; docs/how-to-deploy.md says what is done with each."""
    from deployments.certificate_commands import default_folder
    from deployments.services import FILES, Place, write

    place = Place(folder, (certs or default_folder()).absolute(), host, port, listen, api_port, database_port)
    files = write(place)
    lines = [f"{file} ({FILES[file.name]:04o})" for file in files]
    shown = {"folder": str(folder), "url": f"https://{host}:{port}", "files": [file.name for file in files]}
    print_answer(shown, [*lines, f"the Prefect server will be at https://{host}:{port}"], json=json)
