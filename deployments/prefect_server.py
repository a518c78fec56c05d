"""
One Prefect server for one run: on loopback, behind a random password, without telemetry, gone at the end.

The password travels in the environment of the server and of this process only, never in an argument. The database
stays in the state folder, so that runs are remembered and its migrations cost once; two runs at once get a database
each, since SQLite serves one server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from detectors.errors import DetectorPoolError, told

__all__ = ["QUIET", "ServerNotStarted", "run_server"]

START_LIMIT_S = 120.0
POLL_S = 0.1
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
}
"""Nothing leaves the machine, and standard output stays free for results."""
SERVICES_OFF = {
    f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false"
    for service in ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "REPOSSESSOR")
}
"""What a server of one run has no use for."""


@told
class ServerNotStarted(DetectorPoolError):
    """The Prefect server did not come up."""

    log: str
    seen: str
    message = "the Prefect server did not start ({seen}); its log is {log}; `scan` works without it"


@contextlib.contextmanager
def run_server(home: Path) -> Iterator[str]:
    """
    Bring a server up for the block, and point Prefect's client at it.

    Must be entered before `prefect` is imported. With `PREFECT_API_URL` set, that server is used and none is started.

    Args:
        home: Folder of the database and the log.

    Yields:
        The API's address.

    Raises:
        ServerNotStarted: With the place of its log.
    """
    assert home.is_absolute(), "the server has a working directory of its own"
    configured = os.environ.get("PREFECT_API_URL")
    with contextlib.ExitStack() as stack:
        if configured:
            # Whether the server of somebody else has a page is theirs to say.
            page = "PREFECT_SERVER_UI_ENABLED"
            stack.enter_context(_environment({**QUIET, page: os.environ.get(page, QUIET[page])}))
            yield configured
            return
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = stack.enter_context(_own_folder(home))
        password = secrets.token_urlsafe(32)
        port = _free_port()
        url = f"http://127.0.0.1:{port}/api"
        assert own.parent == home, "what is remembered stays in the folder of the state"
        assert password not in url, "an address is shown to everybody"
        settings = {
            **QUIET,
            "PREFECT_HOME": str(own),
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": f"run:{password}",
            "PREFECT_PROFILES_PATH": str(own / "profiles.toml"),
        }
        server = {
            **SERVICES_OFF,
            "PREFECT_SERVER_API_AUTH_STRING": f"run:{password}",
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{own / 'prefect.db'}",
        }
        stack.enter_context(_environment(settings, remove=("PREFECT_API_KEY",)))
        stack.enter_context(_server(own / "server.log", port, server))
        yield url


@contextlib.contextmanager
def _server(log: Path, port: int, settings: dict[str, str]) -> Iterator[None]:
    setpriv = shutil.which("setpriv")
    # The server ends with us even when we are killed and cannot end it.
    prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    command = [*prefix, sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    assert log.is_absolute(), "its place is told when the server does not start"
    options = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "2")
    assert not {*settings.values()} & {*command, *options}, "arguments are shown to every user of the machine"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **settings},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield
    finally:
        _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the server answers; only its health is free to ask without the password."""
    import http.client

    assert 0 < port < 1 << 16, "it was bound once"
    assert log.exists(), "the server writes to it from its start"
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerNotStarted(str(log), f"it ended with {process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/api/health")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(POLL_S)
    raise ServerNotStarted(str(log), f"no answer within {START_LIMIT_S:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.pid > 1, "it ends a group of its own and nobody else's"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode is not None, "nobody is left behind"


@contextlib.contextmanager
def _own_folder(home: Path) -> Iterator[Path]:
    """Yield the folder of this run's server: the first that no other run holds."""
    import fcntl

    assert home.is_dir(), "folders of runs lie in it"
    with contextlib.ExitStack() as stack:
        for number in range(64):
            folder = home / f"server-{number}"
            folder.mkdir(exist_ok=True, mode=0o700)
            lock = stack.enter_context((folder / "lock").open("w"))
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield folder
                return
    raise ServerNotStarted(str(home), "64 other runs hold its folders")


@contextlib.contextmanager
def _environment(values: dict[str, str], remove: tuple[str, ...] = ()) -> Iterator[None]:
    assert not values.keys() & set(remove), "a variable is set or taken away"
    before = {name: os.environ.get(name) for name in (*values, *remove)}
    os.environ.update(values)
    for name in remove:
        os.environ.pop(name, None)
    assert os.environ.keys().isdisjoint(remove), "no child process inherits what was taken away"
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    assert port > 0, "the system chose one"
    return port
