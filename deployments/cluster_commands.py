"""`detector-pool cluster`: a Dask cluster over mutual TLS on this machine, and this machine's workers for another."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from deployments.options import Json
from deployments.output import print_answer, print_bytes
from detectors.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from deployments.cluster_record import ClusterRecord, Place

__all__ = ["cluster_app"]

START_S = 120.0
CLEAN, NOT_UP = 0, 1
DEFAULT_PORT = 8786
"""Dask's own."""

cluster_app = typer.Typer(help="A Dask cluster over mutual TLS on this machine.", no_args_is_help=True)

Certificates = Annotated[
    Path | None, typer.Option("--certs", metavar="DIR", help="Folder of the certificates; that of `certs init`.")
]
Host = Annotated[str, typer.Option(help="Address where this machine serves; must stand in its certificates.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; the processors when absent.")]
Adapt = Annotated[
    str | None, typer.Option(metavar="MIN:MAX", help="Let Dask start and end workers between these numbers.")
]


@cluster_app.command("up", epilog="Example: detector-pool cluster up --workers 4")
def up(  # noqa: PLR0917  # p10: ignore[R10] typer: a parameter an option by the maintainers
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of the scheduler; 0 for any that is free.")] = DEFAULT_PORT,
    workers: Workers = None,
    adapt: Adapt = None,
    certs: Certificates = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port on loopback for the scheduler's metrics; closed when absent.")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, for systemd and containers; ends by SIGTERM.")
    ] = False,
    json: Json = False,
) -> None:
    """
    Start a scheduler and workers that go on after this command, known to `cluster status` and `cluster down`.

    Nothing starts without certificates (`detector-pool certs init`).
    """
    arguments = ["--host", host, "--port", str(port)]
    if adapt is not None:
        arguments += ["--adapt", adapt]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    if metrics_port is not None:
        arguments += ["--metrics-port", str(metrics_port)]
    place = _certificates(certs)
    arguments += ["--certs", str(place)]
    bounds = _bounds(adapt)
    # No worker, and no tool of one, inherits it.
    os.environ.pop("DETECTOR_POOL_PASSPHRASE", None)
    if foreground:
        from deployments.cluster_node import NodeSpec, serve

        given = _processors() if workers is None else workers
        stop = threading.Event()
        with contextlib.suppress(KeyboardInterrupt):
            serve(NodeSpec(place, host, given, port, bounds, metrics_port), _tell_ready, stop)
        return
    _require_certificates(place, host)
    record = _start(arguments, place)
    shown = {"ok": True, **_shown(record)}
    print_answer(
        shown,
        [f"{record.address} is up (process {record.pid}); its log is {record.log}",
         f"use it: detector-pool scan PATH --cluster {record.address}"],
        json=json,
    )  # fmt: skip


@cluster_app.command("join", epilog="Example: detector-pool cluster join tls://10.0.0.5:8786 --host 10.0.0.6")
def join(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of the scheduler: tls://HOST:PORT.")],
    host: Host = "127.0.0.1",
    workers: Workers = None,
    certs: Certificates = None,
) -> None:
    """
    Give this machine's workers to a scheduler elsewhere; stays until that ends (exit 3) or this is asked to (exit 0).

    Needs `ca.pem` and `worker.pem` of the scheduler's authority, and the same release.
    """
    from deployments.cluster_node import NodeSpec
    from deployments.cluster_node import join as run

    os.environ.pop("DETECTOR_POOL_PASSPHRASE", None)  # no worker, and no tool of one, inherits it
    given = _processors() if workers is None else workers
    run(address, NodeSpec(_certificates(certs), host, given), _tell_ready)


@cluster_app.command("status", epilog="Example: detector-pool cluster status --json")
def status(json: Json = False) -> None:
    """Show the cluster that `cluster up` started here, and who works for it; exits 1 where it is not up."""
    place = _place()
    record = place.read()
    if record is None:
        print_answer({"ok": False, "problem": "none was started here"}, ["no cluster was started here"], json=json)
        raise typer.Exit(NOT_UP)
    from deployments.cluster_record import alive

    problem: str | None = None
    workers: list[dict[str, Any]] = []
    if not alive(record):
        problem = f"its process {record.pid} has ended; see {record.log}, then `detector-pool cluster down`"
    else:
        try:
            workers = _workers(record)
        except ClusterError as seen:
            problem = str(seen)
    shown = {"ok": problem is None, **_shown(record), "workers": workers, "problem": problem}
    lines = [f"{record.address}: {problem or 'up'} (process {record.pid}, log {record.log})"]
    lines += [
        f"  worker {one['name']} at {one['address']}: " + ("busy" if one["busy"] else "idle")
        + (f"; {one['problem']}" if one["problem"] else "")
        for one in workers
    ]  # fmt: skip
    print_answer(shown, lines, json=json)
    raise typer.Exit(CLEAN if problem is None else NOT_UP)


@cluster_app.command("down", epilog="Example: detector-pool cluster down")
def down(json: Json = False) -> None:
    """End the cluster that `cluster up` started here, and nothing else; without one there is nothing to do."""
    from deployments.cluster_record import end

    place = _place()
    with place.held():
        record = place.read()
        if record is None:
            print_answer({"ok": True, "ended": None}, ["no cluster was started here"], json=json)
            return
        how = end(record)
        place.forget()
    told = {"ended": "has ended", "killed": "did not end and was killed", "gone": "had ended before"}[how]
    print_answer({"ok": True, "ended": how, **_shown(record)}, [f"{record.address} {told}"], json=json)


def _start(arguments: list[str], certificates: Path) -> ClusterRecord:
    """Start the cluster in a session of its own, and return what was put on record of it."""
    from deployments.cluster_record import ClusterRecord, alive, process_start

    place = _place()
    with place.held():
        before = place.read()
        if before is not None and alive(before):
            raise UsageError(f"{before.address} is up already; `detector-pool cluster down` ends it")
        command = [sys.executable, "-P", "-m", "deployments.cli", "cluster", "up", "--foreground", *arguments]
        descriptor = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )  # fmt: skip
        started = process_start(process.pid)
        address = _address_from(process) if started is not None else ""
        if started is None or not address:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            said = place.log.read_text(errors="replace").strip().splitlines()
            raise ClusterError(f"the cluster did not start: {said[-1] if said else 'it said nothing'} ({place.log})")
        record = ClusterRecord(address, process.pid, *started, str(place.log), str(certificates))
        place.write(record)
        # It goes on without us; nobody here waits for it.
        process.returncode = 0
    return record


def _address_from(process: subprocess.Popen[bytes]) -> str:
    """Return the address that the scheduler says it listens at; empty where it ends, or says nothing in time."""
    assert process.stdout is not None, "its output was asked for"
    with process.stdout as said:
        deadline = time.monotonic() + START_S
        while (left_s := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([said], [], [], left_s)
            line = said.readline() if readable else b""
            if not line:
                return ""
            with contextlib.suppress(msgspec.DecodeError):
                ready: dict[str, str] = msgspec.json.decode(line, type=dict[str, str])
                return ready.get("ready", "")
    return ""


def _tell_ready(address: str) -> None:
    assert address.startswith("tls://"), "only encrypted addresses are told"
    print_bytes(msgspec.json.encode({"ready": address}) + b"\n")


def _workers(record: ClusterRecord) -> list[dict[str, Any]]:
    """Ask the scheduler who works for it; raises ClusterError where it does not answer."""
    import logging

    from distributed import Client

    from deployments.mutual_tls import from_folder
    from deployments.version_skew import differences, installed

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    security = from_folder(Path(record.certificates), "client")
    try:
        client = Client(record.address, security=security, timeout="20s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError) as problem:
        raise ClusterError(f"the scheduler does not answer: {problem}") from problem
    with contextlib.closing(client):
        known = client.scheduler_info(n_workers=-1)["workers"]
        busy = client.processing()  # type: ignore[no-untyped-call]
        theirs = client.run(installed, on_error="return")
        mine = installed()
        return [
            {
                "name": str(worker["name"]),
                "address": address,
                "busy": bool(busy.get(address)),
                "problem": _skew(mine, theirs.get(address), differences),
            }
            for address, worker in sorted(known.items())
        ]


def _skew(mine: dict[str, str], theirs: Any, differences: Any) -> str | None:
    if not isinstance(theirs, dict):
        return f"it does not understand this release: {theirs}"
    return "; ".join(differences(mine, theirs)) or None


def _shown(record: ClusterRecord) -> dict[str, Any]:
    return {"address": record.address, "pid": record.pid, "log": record.log}


def _place() -> Place:
    from compliance.identity import state_folder
    from deployments.cluster_record import Place

    return Place(state_folder() / "cluster")


def _certificates(given: Path | None) -> Path:
    from deployments.certificate_commands import default_folder

    folder = (given or default_folder()).absolute()
    if not folder.is_dir():
        raise UsageError(
            f"a cluster needs certificates, and {folder} is not there; make them by `detector-pool certs init`"
        )
    return folder


def _require_certificates(folder: Path, host: str) -> None:
    from deployments.certificates import require_usable

    require_usable(folder, ("scheduler", "worker", "client"), host)


def _bounds(adapt: str | None) -> tuple[int, int] | None:
    if adapt is None:
        return None
    if (seen := re.fullmatch(r"(\d{1,5}):(\d{1,5})", adapt)) is None:
        raise UsageError(f"--adapt takes MIN:MAX, such as 1:8, not {adapt!r}")
    return int(seen[1]), int(seen[2])


def _processors() -> int:
    count = len(os.sched_getaffinity(0))
    assert count >= 1, "this runs on one"
    return count
