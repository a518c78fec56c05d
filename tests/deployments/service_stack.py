"""
Real PostgreSQL, Prefect server, TLS front and worker on loopback, for tests: started by what the units say, and ended.

Whatever a test starts here it ends here, by its process group; PostgreSQL runs as an unprivileged user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

PROGRAMS = Path(sys.executable).parent
PATIENCE_S = 120


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Return what the condition gives once it gives something; fails with `what` after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {patience_s:g} s")


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; none where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return found[-1].parent if found else None


class Service:
    """One program that runs until it is ended; its output goes to a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.command, self.environment, self.log = command, environment, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=dict(self.environment), cwd=self.log.parent, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End its process group, and wait for it."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


class Postgres:
    """PostgreSQL with a data folder of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        programs = postgres_programs()
        assert programs is not None
        self.folder, self.port = folder, port
        folder.mkdir()
        become: list[str] = []
        if os.geteuid() == 0:
            who = pwd.getpwnam("postgres")
            os.chown(folder, who.pw_uid, who.pw_gid)
            become = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--"]
        data = folder / "data"
        initdb = [*become, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            [*initdb, "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        settings = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(folder)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        log = folder.with_name("postgres.log")
        self.service = Service([*become, str(programs / "postgres"), "-D", str(data), *options], os.environ, log)

    @property
    def administrator(self) -> dict[str, str]:
        """Return the environment in which `psql` is the administrator's."""
        return {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "postgres"}

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.service.start()
        command = ["psql", "-qc", "select 1"]
        environment = {**os.environ, **self.administrator}
        until(
            lambda: subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0,
            "PostgreSQL takes connections",
        )


def unit_service(unit: Path, log: Path) -> Service:
    """Return the service of a systemd unit."""
    text = unit.read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    environment = {"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": str(unit.parent), "LANG": "C.UTF-8"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    for file in re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE):
        environment |= settings(Path(file))
    return Service(shlex.split(command), environment, log)


def settings(file: Path) -> dict[str, str]:
    """Return what an environment file says."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def left_over(*marks: str) -> list[str]:
    """Return the processes whose command or environment holds a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = " ".join([*process.cmdline(), *process.environ().values()])
            if any(mark in words for mark in marks) and process.pid != os.getpid():
                found.append(f"{process.pid}: {' '.join(process.cmdline())[:200]}")
    return found


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield a folder that PostgreSQL's own user can reach, too."""
    folder = Path(f"/tmp/{name}-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
