"""`detector-pool deploy`: the work pool and the deployments of `prefect.yaml`, registered where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.options import Json
from deployments.output import print_answer, print_bytes
from detectors.errors import UsageError

__all__ = ["DEPLOY_EXAMPLE", "deploy_command"]

DEPLOY_EXAMPLE = "Example: detector-pool deploy nightly --file prefect.yaml"


def deploy_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Deployments, such as nightly; all when absent.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your prefect.yaml; that of this release when absent.")
    ] = None,
    pool_limit: Annotated[
        int | None, typer.Option(help="Runs at once in the work pool; 2 for a new one, as it is when absent.")
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the file, to copy and change; do nothing.")] = False,
    json: Json = False,
) -> None:
    """Register work pool and deployments with the server that PREFECT_API_URL names; what is the same is left alone."""
    from deployments.prefect_server import run_server
    from deployments.schedules import apply, declaration_file, declared, server_address
    from deployments.settings import Settings

    if pool_limit is not None and pool_limit < 1:
        raise UsageError(f"--pool-limit takes a number from 1, not {pool_limit}")
    place = file or declaration_file()
    wanted = declared(place, names or ())
    if print_:
        print_bytes(place.read_bytes())
        return
    server_address()
    with run_server(Settings.read().prefect):  # there is one: this only keeps Prefect quiet
        done = apply(wanted, pool_limit)
    lines = [f"{one.did} {one.kind} {one.name}{': ' if one.changed else ''}{', '.join(one.changed)}" for one in done]
    shown = [{"kind": one.kind, "name": one.name, "did": one.did, "changed": list(one.changed)} for one in done]
    print_answer({"file": str(place), "applied": shown}, lines, json=json)
