"""
Files of the services around a Prefect server: PostgreSQL behind it, TLS in front of it, a worker beside it.

Secrets are made here, stand in files of mode 0600, and nowhere in an argument. The API's password is one for all who
have it: it says nothing of who asks, which signed requests say (`flows.admission`).
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import re
import secrets
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from deployments.certificates import FRONT, CertificateProblem, names_of, read_issued
from detectors.errors import UsageError

__all__ = ["FILES", "Place", "write"]

PUBLIC, PRIVATE = 0o644, 0o600
FILES = {
    "server.env": PRIVATE,
    "client.env": PRIVATE,
    "worker.env": PRIVATE,
    "postgres.sql": PRIVATE,
    "nginx.conf": PUBLIC,
    "prefect-server.service": PUBLIC,
    "prefect-worker.service": PUBLIC,
    "prefect-front.service": PUBLIC,
}
"""Name and mode of each."""
FOLDERS = ("server", "worker", "home", "nginx")
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+\Z")
"""What a path may consist of: it stands in files of four syntaxes."""
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9.-]{1,253}\Z")


@dataclass(frozen=True)
class Place:
    """Where the services are."""

    folder: Path
    """Of the files; new or empty."""
    certs: Path
    """Of `certs init`; holds the front's certificate."""
    host: str
    """Name or address by which workers and browsers reach the front; stands in its certificate."""
    port: int = 4443
    listen: str = "0.0.0.0"  # noqa: S104  # workers on other hosts reach the front, and the front only
    api_port: int = 4200
    database_port: int = 5432


def write(place: Place) -> tuple[Path, ...]:
    """
    Write the services' files, with secrets made for them.

    Args:
        place: Where.

    Returns:
        The files.

    Raises:
        CertificateProblem: There is no certificate for the front, or it is for another host.
        UsageError: The folder holds something or cannot be written, or a value that the files cannot hold.
    """
    from jinja2 import Environment, StrictUndefined

    _check(place)
    templates = resources.files("deployments") / "templates"
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=True)
    values = {**asdict(place), **_machine(), **_made_secrets()}
    assert all(PLAIN.match(str(value)) for value in values.values()), "each value is plain in every syntax"
    written = []
    try:
        for name in FOLDERS:
            (place.folder / name).mkdir(parents=True, mode=0o700)
        for name, mode in FILES.items():
            text = environment.from_string((templates / f"{name}.j2").read_text()).render(values)
            file = place.folder / name
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as opened:
                opened.write(text)
            written.append(file)
    except OSError as problem:
        raise UsageError(f"{place.folder} cannot be written: {problem.strerror}") from problem
    assert len(written) == len(FILES), "all of them belong together"
    return tuple(written)


def _check(place: Place) -> None:
    if not place.folder.is_absolute() or not place.certs.is_absolute():
        raise UsageError("the services are told whole paths, whatever their working directory")
    for path in (place.folder, place.certs):
        if not PLAIN.match(str(path)):
            raise UsageError(f"{path} holds other characters than letters, digits and _ . / + -; name another folder")
    if place.folder.exists() and (not place.folder.is_dir() or any(place.folder.iterdir())):
        raise UsageError(f"{place.folder} is not empty; its secrets are in use, name a new folder")
    ports = (place.port, place.api_port, place.database_port)
    if not all(0 < port < 1 << 16 for port in ports) or len(set(ports)) != len(ports):
        raise UsageError(f"ports are three different numbers below 65536, not {', '.join(map(str, ports))}")
    if not HOST_NAME.match(place.host):
        raise UsageError(f"{place.host!r} is no name or address of a host")
    try:
        ipaddress.ip_address(place.listen)
    except ValueError as problem:
        raise UsageError(f"{place.listen!r} is no address to listen at") from problem
    names = names_of(read_issued(place.certs, FRONT).certificate)
    if place.host not in names:
        told = f"it is for {', '.join(names)}, not for {place.host}; `detector-pool certs renew --host` makes another"
        raise CertificateProblem(str(place.certs / f"{FRONT}.pem"), told)


def _machine() -> dict[str, str]:
    """Return who runs the services, and with which programs."""
    programs = Path(sys.executable).parent
    assert programs.is_absolute(), "a unit names its programs whole"
    user = pwd.getpwuid(os.getuid()).pw_name
    assert user, "somebody runs this"
    return {"user": user, "programs": str(programs), "nginx": shutil.which("nginx") or "/usr/sbin/nginx"}


def _made_secrets() -> dict[str, str]:
    made = {name: secrets.token_hex(24) for name in ("api_password", "database_password", "passphrase")}
    assert len(set(made.values())) == len(made), "who knows one knows no other"
    assert all(value.isalnum() for value in made.values()), "they stand in an address, in SQL and in a shell"
    return made
