"""
Dask over mutual TLS in which each side also looks at who the other is: its role, and where it may serve.

Dask itself takes any certificate of the authority for any part, on any host. Imports Dask: only who has a cluster
imports this.
"""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Any, ClassVar

from distributed.security import Security

from deployments.certificates import AUTHORITY, ROLES, Authority, Issued, Role, read_issued

__all__ = ["MutualTLS", "from_folder", "of_a_worker", "temporary"]

ACCEPTED: dict[str, frozenset[str]] = {
    "scheduler": frozenset({"worker", "client"}),
    # Whoever reaches a worker runs code on it; clients have no business there, the scheduler has.
    "worker": frozenset({"worker", "scheduler"}),
    "client": frozenset(),
}
"""By who listens: whose connections are taken."""
SERVING = frozenset({"scheduler", "worker"})
TEMPORARY_DAYS = 30


class MutualTLS(Security):
    """Certificates for a Dask cluster, of which role and address are checked in the handshake; TLS 1.3 only."""

    def get_connection_args(self, role: Role) -> dict[str, Any]:
        """Return how `role` connects: to a scheduler or worker, at an address that stands in its certificate."""
        arguments: dict[str, Any] = super().get_connection_args(role)  # type: ignore[no-untyped-call]
        assert role in ACCEPTED, "a role of Dask"
        assert "ssl_context" in arguments, "certificates are there"
        _checked(arguments["ssl_context"]).sslsocket_class = ConnectedSocket
        return arguments

    def get_listen_args(self, role: Role) -> dict[str, Any]:
        """Return how `role` listens, and to whom."""
        arguments: dict[str, Any] = super().get_listen_args(role)  # type: ignore[no-untyped-call]
        assert role in ACCEPTED, "a role of Dask"
        assert "ssl_context" in arguments, "certificates are there"
        _checked(arguments["ssl_context"]).sslsocket_class = LISTENING[role]
        return arguments


class ConnectedSocket(ssl.SSLSocket):
    """Our end of a connection that we opened."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, then look at whom we reached; raises SSLCertVerificationError."""
        super().do_handshake(block)
        assert not self.server_side, "who is connected to looks at who came instead"
        certificate = self.getpeercert() or {}
        _require_role(certificate, SERVING)
        host = ipaddress.ip_address(str(self.getpeername()[0]).partition("%")[0])
        peer = getattr(host, "ipv4_mapped", None) or host
        names: Any = certificate.get("subjectAltName", ())
        named = {ipaddress.ip_address(str(name)) for kind, name in names if kind == "IP Address"}
        if peer not in named:
            told = f"the certificate is for {', '.join(sorted(map(str, named))) or 'no address'}, not for {peer}"
            raise ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, told)


class ListeningSocket(ssl.SSLSocket):
    """Our end of a connection that came; nobody's is taken."""

    accepted: ClassVar[frozenset[str]] = frozenset()

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands, then look at who came; raises SSLCertVerificationError."""
        super().do_handshake(block)
        assert self.server_side, "who connects looks at whom it reached instead"
        _require_role(self.getpeercert() or {}, self.accepted)


class SchedulerSocket(ListeningSocket):
    """A scheduler's end of a connection that it took."""

    accepted = ACCEPTED["scheduler"]


class WorkerSocket(ListeningSocket):
    """A worker's end of a connection that it took."""

    accepted = ACCEPTED["worker"]


class ClientSocket(ListeningSocket):
    """A client takes no connections."""

    accepted = ACCEPTED["client"]


LISTENING: dict[Role, type[ssl.SSLSocket]] = {
    "scheduler": SchedulerSocket, "worker": WorkerSocket, "client": ClientSocket,
}  # fmt: skip


def temporary() -> MutualTLS:
    """Return certificates for a cluster on loopback that end with it: an authority whose key is kept nowhere."""
    authority = Authority.make(TEMPORARY_DAYS)
    leaves = {role: authority.issue(role, ("127.0.0.1",), TEMPORARY_DAYS) for role in ROLES}
    assert set(leaves) == set(ROLES), "one for each role"
    assert len({leaf.key for leaf in leaves.values()}) == len(ROLES), "no two share a key"
    return _security(authority.certificate, leaves)


def from_folder(folder: Path, *roles: Role) -> MutualTLS:
    """
    Return the certificates of these roles from a folder that `certs init` made.

    Raises:
        CertificateProblem: They are not there, or open to others.
    """
    assert roles, "somebody uses them"
    assert set(roles) <= set(ROLES), "no other role has a certificate"
    return _security((folder / f"{AUTHORITY}.pem").read_text(), {role: read_issued(folder, role) for role in roles})


def of_a_worker(folder: Path) -> MutualTLS:
    """
    Return a worker's certificate for asking a scheduler something, on a machine that has no client's.

    Raises:
        CertificateProblem: It is not there, or open to others.
    """
    issued = read_issued(folder, "worker")
    assert issued.key, "a certificate comes with its key"
    return _security((folder / f"{AUTHORITY}.pem").read_text(), {"client": issued})


def _security(authority: str, leaves: dict[Role, Issued]) -> MutualTLS:
    assert leaves, "somebody uses them"
    assert "-----BEGIN CERTIFICATE-----" in authority, "the authority's certificate is PEM"
    files: dict[str, Any] = {"tls_ca_file": authority, "tls_min_version": ssl.TLSVersion.TLSv1_3}
    for role, issued in leaves.items():
        files |= {f"tls_{role}_cert": issued.certificate, f"tls_{role}_key": issued.key}
    assert len(files) == 2 + 2 * len(leaves), "a certificate and a key for each"
    return MutualTLS(require_encryption=True, **files)  # type: ignore[no-untyped-call]


def _checked(context: ssl.SSLContext) -> ssl.SSLContext:
    # Dask turns this off for authorities that do not keep to RFC 5280; ours does.
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED, "both sides show a certificate"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3, "nothing older is spoken"
    return context


def _require_role(certificate: Any, allowed: frozenset[str]) -> None:
    assert allowed <= frozenset(ROLES), "no other role has a certificate"
    roles = {
        value for part in certificate.get("subject", ()) for name, value in part if name == "organizationalUnitName"
    }
    if len(roles) != 1 or not roles <= allowed:
        told = f"a certificate for {', '.join(sorted(roles)) or 'no role'} is not taken here"
        raise ssl.SSLCertVerificationError(ssl.SSL_ERROR_SSL, told)
