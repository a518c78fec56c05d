"""Certificates of a cluster, and what is refused by real sockets and a real scheduler."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.certificates import ROLES, Authority, CertificateProblem, Issued, init, read_issued, renew, show
from deployments.mutual_tls import MutualTLS, _security, from_folder, temporary
from detectors.errors import ClusterError, UsageError
from detectors.ports import open_cluster

LOOPBACK = ("127.0.0.1",)
AUTHORITY = Authority.make()
STRANGER = Authority.make()
GOOD = {role: AUTHORITY.issue(role, LOOPBACK) for role in ROLES}


def _with(leaf: Issued | None = None, authority: Authority = AUTHORITY) -> MutualTLS:
    """Return the cluster's certificates, or one that stands in for every role."""
    return _security(authority.certificate, GOOD if leaf is None else dict.fromkeys(ROLES, leaf))


@contextlib.contextmanager
def _listening(context: ssl.SSLContext, host: str = "127.0.0.1") -> Iterator[tuple[int, list[str]]]:
    """Take connections as Dask does; yield the port, and a list of what came of each."""
    seen: list[str] = []
    server = socket.create_server((host, 0), family=socket.AF_INET)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.settimeout(10)
                try:
                    with context.wrap_socket(connection, server_side=True) as peer:
                        seen.append("taken")
                        peer.sendall(b"hello")
                except OSError as problem:
                    seen.append(str(problem))
                    connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1], seen
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def _reached(port: int, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> str:
    """Return what a client reads, or why it reads nothing."""
    with socket.create_connection((host, port), timeout=10) as plain:
        try:
            if context is None:
                plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return plain.recv(5).decode("latin-1")
            with context.wrap_socket(plain, server_hostname="any") as peer:
                return peer.recv(5).decode()
        except OSError as problem:
            return f"refused: {problem}"


def test_scheduler_worker_and_client_reach_whom_they_should() -> None:
    """When this fails, no cluster starts; or a client can run code on a worker past the scheduler."""
    for listens, connects, taken in (
        ("scheduler", "client", True),
        ("scheduler", "worker", True),
        ("worker", "scheduler", True),
        ("worker", "worker", True),
        ("worker", "client", False),
        ("scheduler", "scheduler", False),
    ):
        with _listening(_with().get_listen_args(listens)["ssl_context"]) as (port, seen):
            read = _reached(port, _with().get_connection_args(connects)["ssl_context"])
        assert (read == "hello", seen == ["taken"]) == (taken, taken), (listens, connects, read, seen)


def _no_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=AUTHORITY.certificate)
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("connects", "told"),
    [
        (lambda: None, "WRONG_VERSION|HTTP_REQUEST|UNSUPPORTED|EOF"),
        (_no_certificate, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (lambda: _connecting(STRANGER.issue("client", ())), "CERTIFICATE_VERIFY_FAILED|unknown ca"),
        (lambda: _connecting(AUTHORITY.issue("client", (), -1)), "expired"),
        (lambda: _connecting(GOOD["scheduler"]), "for scheduler is not taken here"),
        (lambda: _old(_connecting(GOOD["client"])), "UNSUPPORTED_PROTOCOL|VERSION"),
    ],
    ids=["plain", "none", "wrong-authority", "expired", "wrong-role", "old-tls"],
)
def test_a_scheduler_refuses_who_comes_without_a_right(
    connects: Callable[[], ssl.SSLContext | None], told: str
) -> None:
    """When this fails, whoever reaches the port runs code on every worker."""
    import re

    with _listening(_with().get_listen_args("scheduler")["ssl_context"]) as (port, seen):
        read = _reached(port, connects())

    assert read != "hello"
    assert len(seen) == 1
    assert re.search(told, seen[0]), seen


def _connecting(leaf: Issued) -> ssl.SSLContext:
    context: ssl.SSLContext = _security(AUTHORITY.certificate, {"client": leaf}).get_connection_args("client")[
        "ssl_context"
    ]
    return context


def _old(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    ("leaf", "told"),
    [
        (
            lambda: STRANGER.issue("scheduler", LOOPBACK),
            "unable to get local issuer|self-signed|CERTIFICATE_VERIFY_FAILED",
        ),
        (lambda: AUTHORITY.issue("scheduler", LOOPBACK, -1), "expired"),
        (lambda: AUTHORITY.issue("scheduler", ("10.1.2.3", "::1")), "not for 127.0.0.1"),
        (lambda: GOOD["client"], "CERTIFICATE_VERIFY_FAILED|unsuitable|purpose"),
    ],
    ids=["wrong-authority", "expired", "wrong-address", "client-that-serves"],
)
def test_a_client_refuses_whom_it_did_not_mean(leaf: Callable[[], Issued], told: str) -> None:
    """When this fails, somebody in between takes our sources and answers with findings of his own."""
    import re

    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.certificate)
    with _files(leaf()) as file:
        server.load_cert_chain(file)
    with _listening(server) as (port, _):
        read = _reached(port, _with().get_connection_args("client")["ssl_context"])

    assert read.startswith("refused")
    assert re.search(told, read), read


@contextlib.contextmanager
def _files(leaf: Issued) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "both.pem"
        file.write_text(leaf.certificate + leaf.key)
        yield file


def test_a_folder_is_private_and_its_files_too(tmp_path: Path) -> None:
    """When this fails, another user of the machine holds the cluster's keys."""
    folder = tmp_path / "certs"
    init(folder, LOOPBACK)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == dict.fromkeys(
        ("ca.pem", "ca-key.pem", "scheduler.pem", "worker.pem", "client.pem", "front.pem"), 0o600
    )
    (folder / "client.pem").chmod(0o640)
    with pytest.raises(CertificateProblem, match="0600"):
        from_folder(folder, "client")
    (folder / "client.pem").chmod(0o600)
    (folder / "worker.pem").unlink()
    (folder / "worker.pem").symlink_to(folder / "client.pem")
    with pytest.raises(CertificateProblem, match=r"worker\.pem"):
        read_issued(folder, "worker")
    (folder / "worker.pem").unlink()
    (folder / "worker.pem").write_text("nonsense")
    (folder / "worker.pem").chmod(0o600)
    with pytest.raises(CertificateProblem, match="does not hold"):
        show(folder)
    folder.chmod(0o755)
    with pytest.raises(CertificateProblem, match="0700"):
        show(folder)


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    """When this fails, a certificate is made that serves nowhere, lasts for ever, or replaces another authority."""
    with pytest.raises(UsageError, match="--host"):
        init(tmp_path / "a", ())
    with pytest.raises(UsageError, match="no-such-host"):
        init(tmp_path / "a", ("no-such-host.invalid",))
    with pytest.raises(UsageError, match="some days"):
        init(tmp_path / "a", LOOPBACK, 0)
    with pytest.raises(UsageError, match="90 days"):
        init(tmp_path / "a", LOOPBACK, 91)
    with pytest.raises(CertificateProblem, match="certs init"):
        renew(tmp_path / "a", LOOPBACK)
    init(tmp_path / "a", LOOPBACK)
    with pytest.raises(CertificateProblem, match="not empty"):
        init(tmp_path / "a", LOOPBACK)
    (tmp_path / "a" / "ca-key.pem").write_text(STRANGER.issued().key)
    with pytest.raises(CertificateProblem, match="not that of its certificate"):
        renew(tmp_path / "a", LOOPBACK)
    short = Authority.make(1)
    for name, text in (("ca.pem", short.certificate), ("ca-key.pem", short.issued().key)):
        (tmp_path / "a" / name).write_text(text)
    with pytest.raises(CertificateProblem, match="the authority ends"):
        renew(tmp_path / "a", LOOPBACK)
    assert {one.problem for one in show(tmp_path / "a")} == {None, "not signed by this folder's authority"}


def test_renewal_breaks_no_connection_and_overlaps(tmp_path: Path) -> None:
    """When this fails, renewing certificates at night ends the run that is under way."""
    folder = tmp_path / "certs"
    init(folder, ("127.0.0.1", "localhost"), 1)
    before = from_folder(folder, *ROLES)
    old = {one.role: one for one in show(folder)}
    with _listening(before.get_listen_args("scheduler")["ssl_context"]) as (port, seen):
        client = before.get_connection_args("client")["ssl_context"]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, client.wrap_socket(plain) as peer:
            renew(folder, (), 2)
            after = from_folder(folder, *ROLES)
            read_over_the_old_connection = peer.recv(5)
        new_to_old = _reached(port, after.get_connection_args("client")["ssl_context"])
    with _listening(after.get_listen_args("scheduler")["ssl_context"]) as (port, _):
        old_to_new = _reached(port, before.get_connection_args("client")["ssl_context"])
    new = {one.role: one for one in show(folder)}

    assert (read_over_the_old_connection, new_to_old, old_to_new) == (b"hello", "hello", "hello")
    assert seen == ["taken", "taken"]
    assert old["authority"] == new["authority"]
    for role in ROLES:
        assert old[role].fingerprint != new[role].fingerprint
        assert old[role].names == new[role].names
        assert old[role].not_after < new[role].not_after


def test_a_front_serves_and_has_no_part_in_a_cluster(tmp_path: Path) -> None:
    """When this fails, whoever takes the key of the TLS front runs code on the cluster."""
    folder = tmp_path / "certs"
    init(folder, LOOPBACK)
    trusting = ssl.create_default_context(cafile=folder / "ca.pem")
    trusting.check_hostname = False  # the address stands in the certificate, which another test looks at
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "front.pem")
    with _listening(serving) as (port, _):
        assert _reached(port, trusting) == "hello"
    trusting.load_cert_chain(folder / "front.pem")
    with _listening(from_folder(folder, "scheduler").get_listen_args("scheduler")["ssl_context"]) as (port, seen):
        _reached(port, trusting)
    trusting.load_cert_chain(folder / "client.pem")
    with _listening(from_folder(folder, "scheduler").get_listen_args("scheduler")["ssl_context"]) as (port, known):
        assert _reached(port, trusting) == "hello"

    assert "unsuitable certificate purpose" in seen[0]
    assert known == ["taken"]


def test_the_commands_make_renew_and_show(pool_command: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    """When this fails, an operator cannot make certificates, or does not learn that one has expired."""
    made = pool_command("certs", "init", "--host", "127.0.0.1", "--json")
    again = pool_command("certs", "init")
    renewed = pool_command("certs", "renew", "--days", "3")
    shown = pool_command("certs", "show", "--json")
    folder = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "certs"
    authority = Authority.from_pem(read_issued(folder, "ca"), "here")
    leaf = authority.issue("worker", LOOPBACK, -1)
    (folder / "worker.pem").write_text(leaf.certificate + leaf.key)
    expired = pool_command("certs", "show")

    assert (made.returncode, again.returncode, renewed.returncode, shown.returncode, expired.returncode) == (
        0,
        2,
        0,
        0,
        1,
    )
    told = json.loads(shown.stdout)
    assert (told["ok"], [one["role"] for one in told["certificates"]]) == (True, ["authority", *ROLES, "front"])
    ends = datetime.datetime.fromisoformat(told["certificates"][1]["not_after"])
    assert 2.9 < (ends - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400 <= 3
    assert b"EXPIRED worker" in expired.stdout
    assert all(len(one["fingerprint"]) == 64 and one["subject"] for one in told["certificates"])


@pytest.mark.slow
def test_a_real_scheduler_takes_only_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, the checks above hold for sockets and not for Dask."""
    import dask
    from distributed import Client, LocalCluster, Security

    from deployments.clusters.local import CONFIGURATION

    folder = Path(os.environ["DETECTOR_POOL_HOME"]) / "state" / "certs"
    init(folder, LOOPBACK)
    security = from_folder(folder, *ROLES)
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}
    authority = Authority.from_pem(read_issued(folder, "ca"), "here")
    bad = {
        "none": None,
        "temporary of Dask": Security.temporary(),
        "wrong authority": temporary(),
        "expired": _security(authority.certificate, {"client": authority.issue("client", (), -1)}),
        "wrong role": _security(authority.certificate, {"client": authority.issue("scheduler", LOOPBACK)}),
    }
    with (
        dask.config.set(CONFIGURATION),
        LocalCluster(protocol="tls://", security=security, host="127.0.0.1", **options) as cluster,
    ):
        address = cluster.scheduler_address
        with open_cluster(address, 1) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        for name, wrong in bad.items():
            with pytest.raises((OSError, TimeoutError, RuntimeError, ValueError, TypeError)):
                Client(address, security=wrong, timeout="3s", set_as_default=False).submit(print, name)
        worker = next(iter(cluster.workers.values())).address
        with pytest.raises((OSError, TimeoutError)):
            Client(worker, security=security, timeout="3s", set_as_default=False)
        with open_cluster(address, 1) as client:
            renew(folder, ())
            assert client.submit(sum, [3, 4]).result() == 7
        with open_cluster(address, 1) as client:
            assert client.submit(sum, [5, 6]).result() == 11
    # The same certificates at an address that they do not name.
    with (
        dask.config.set(CONFIGURATION),
        LocalCluster(
            protocol="tls://",
            security=_security(authority.certificate, {role: authority.issue(role, ("127.0.0.2",)) for role in ROLES}),
            host="127.0.0.2",
            **options,
        ) as cluster,
    ):
        port = cluster.scheduler_address.rpartition(":")[2]
        with open_cluster(f"tls://127.0.0.2:{port}", 1) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        renew(folder, ("127.0.0.1",))
    monkeypatch.setattr("deployments.clusters.address.TIMEOUT", "3s")
    with (
        dask.config.set(CONFIGURATION),
        LocalCluster(
            protocol="tls://",
            security=_elsewhere(authority),
            host="127.0.0.1",
            n_workers=0,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        pytest.raises(ClusterError, match="cannot be reached"),
        open_cluster(cluster.scheduler_address, 1),
    ):
        pass


def _elsewhere(authority: Authority) -> Any:
    """Return certificates of the right authority and roles, for another address, and Dask's own checks of ours."""
    from distributed import Security

    files: dict[str, Any] = {"tls_ca_file": authority.certificate}
    for role in ROLES:
        leaf = authority.issue(role, ("127.0.0.9",))
        files |= {f"tls_{role}_cert": leaf.certificate, f"tls_{role}_key": leaf.key}
    return Security(require_encryption=True, **files)
