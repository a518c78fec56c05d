"""
A certificate authority of one cluster, and what it signs: short-lived certificates for scheduler, worker and client,
and for the TLS front of the Prefect server.

A certificate says its holder's role (organisational unit), and where it may serve (addresses). Keys are ECDSA on P-256.

Source: RFC 5280 (profile of certificates), RFC 9525 (names stand in subjectAltName only).
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from detectors.errors import DetectorPoolError, UsageError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

__all__ = [
    "AUTHORITY",
    "FRONT",
    "ROLES",
    "Authority",
    "CertificateProblem",
    "Issued",
    "Role",
    "Shown",
    "init",
    "renew",
    "require_usable",
    "show",
]

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = ("scheduler", "worker", "client")
FRONT: Literal["front"] = "front"
"""Who answers HTTPS for the Prefect server; it serves only, and has no part in a cluster of Dask."""
AUTHORITY = "ca"
AUTHORITY_KEY = "ca-key.pem"
END = "-----END CERTIFICATE-----\n"
ORGANISATION = "enterprise-detector-pool"
AUTHORITY_DAYS = 730
LEAF_DAYS = 7
MAX_LEAF_DAYS = 90
BACKDATED = datetime.timedelta(minutes=5)
"""Clocks of machines differ."""
MAX_PEM_BYTES = 64 << 10


class CertificateProblem(DetectorPoolError):
    """Certificates cannot be made, read or used."""

    exit_code = 2

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(place, problem)
        self.place, self.problem = place, problem

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, in PEM."""

    certificate: str
    key: str


class Shown(msgspec.Struct, frozen=True):
    """One certificate as `certs show` tells it."""

    file: str
    role: str
    subject: str
    names: tuple[str, ...]
    not_before: str
    not_after: str
    fingerprint: str
    """SHA-256 of the DER, hexadecimal."""
    problem: str | None
    """Why it cannot be used; `None` when it can."""


class Authority:
    """A certificate authority: its certificate, and its key."""

    def __init__(self, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def make(cls, days: int = AUTHORITY_DAYS) -> Authority:
        """Return a new one, which lasts for `days`."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        assert days > 0, "it lasts for a time"
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("authority", os.urandom(4).hex())
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _dated(x509.CertificateBuilder(), days)
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )
        return cls(builder.sign(key, SHA256()), key)

    @classmethod
    def from_pem(cls, issued: Issued, place: str) -> Authority:
        """Read one; raises CertificateProblem."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
            key = load_pem_private_key(issued.key.encode(), None)
        except (ValueError, TypeError) as problem:
            raise CertificateProblem(place, f"the authority cannot be read: {problem}") from problem
        if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateProblem(place, "the authority's key is not that of its certificate")
        return cls(certificate, key)

    @property
    def certificate(self) -> str:
        """Its certificate in PEM."""
        return _pem(self._certificate)

    @property
    def not_after(self) -> datetime.datetime:
        """Until when it lasts."""
        return self._certificate.not_valid_after_utc

    def issued(self) -> Issued:
        """Return certificate and key."""
        return Issued(self.certificate, _key_pem(self._key))

    def issue(self, role: Role | Literal["front"], hosts: Sequence[str], days: float = LEAF_DAYS) -> Issued:
        """
        Sign a certificate for a new key.

        Args:
            role: Of its holder. A client's may not serve, a front's only that; scheduler and worker do both, as each
                connects to the other.
            hosts: Names and addresses where a scheduler, worker or front serves; names are resolved now.
            days: How long it lasts, at most 90.

        Raises:
            UsageError: No host, one that does not resolve, or a time that makes no sense.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.x509.oid import ExtendedKeyUsageOID

        if not days <= MAX_LEAF_DAYS:
            raise UsageError(f"a certificate lasts {MAX_LEAF_DAYS} days at most, not {days}")
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [] if role == FRONT else [ExtendedKeyUsageOID.CLIENT_AUTH]
        names: list[x509.GeneralName] = [x509.DNSName(f"{role}.{ORGANISATION}")]
        if role != "client":
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names += _alternative_names(hosts)
        public = self._key.public_key()
        builder = (
            _dated(x509.CertificateBuilder(), days)
            .subject_name(_name(role, f"{role}.{ORGANISATION}"))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
        return Issued(_pem(builder.sign(self._key, SHA256())), _key_pem(key))


def init(folder: Path, hosts: Sequence[str], days: float = LEAF_DAYS) -> None:
    """
    Make an authority and a certificate for each role, and for the front.

    Args:
        folder: New or empty; mode 0700.
        hosts: Where scheduler and workers serve.
        days: How long the certificates last; the authority lasts two years.

    Raises:
        CertificateProblem: There is one already, or the folder cannot be written.
        UsageError: See `Authority.issue`.
    """
    authority = Authority.make()
    leaves = _leaves(authority, hosts, days)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_folder(folder)
        if any(folder.iterdir()):
            raise CertificateProblem(
                str(folder), "it is not empty; `certs renew` renews, a new authority needs a new folder"
            )
        _write(folder, {AUTHORITY_KEY: authority.issued().key, f"{AUTHORITY}.pem": authority.certificate, **leaves})
    except OSError as problem:
        raise CertificateProblem(str(folder), f"it cannot be written: {problem.strerror}") from problem


def renew(folder: Path, hosts: Sequence[str], days: float = LEAF_DAYS) -> None:
    """
    Sign anew for each role; what was signed before stays valid until it expires, so that nothing running breaks.

    Args:
        folder: Of `init`.
        hosts: Where scheduler and workers serve; as before when empty.
        days: How long the certificates last.

    Raises:
        CertificateProblem: There is no authority, it expires before what it would sign, or the folder is unusable.
    """
    _check_folder(folder)
    authority = Authority.from_pem(read_issued(folder, AUTHORITY), str(folder))
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    if authority.not_after < ends:
        told = f"the authority ends {authority.not_after:%Y-%m-%d}; make another in a new folder"
        raise CertificateProblem(str(folder), told)
    wanted = list(hosts) or [name for name in names_of(read_issued(folder, "scheduler").certificate) if _is_host(name)]
    leaves = _leaves(authority, wanted, days)
    try:
        _write(folder, leaves)
    except OSError as problem:
        raise CertificateProblem(str(folder), f"it cannot be written: {problem.strerror}") from problem


def show(folder: Path) -> tuple[Shown, ...]:
    """Return what lies in a folder of `init`, the authority first; raises CertificateProblem where nothing does."""
    from cryptography import x509

    _check_folder(folder)
    now = datetime.datetime.now(datetime.UTC)
    authority = x509.load_pem_x509_certificate(read_issued(folder, AUTHORITY).certificate.encode())
    found = tuple(_shown(folder, name, authority, now) for name in (AUTHORITY, *ROLES, FRONT))
    assert len(found) == 2 + len(ROLES), "one for each role and the front, and the authority"
    return found


def read_issued(folder: Path, name: str) -> Issued:
    """
    Read certificate and key of a role, or the authority's.

    Raises:
        CertificateProblem: One is missing, or the key is open to others.
    """
    if name == AUTHORITY:
        return Issued(_read(folder / f"{AUTHORITY}.pem"), _read(folder / AUTHORITY_KEY, private=True))
    certificate, mark, key = _read(folder / f"{name}.pem", private=True).partition(END)
    if not mark or "PRIVATE KEY" not in key:
        raise CertificateProblem(str(folder / f"{name}.pem"), "it does not hold a certificate and its key")
    return Issued(certificate + mark, key)


def require_usable(folder: Path, roles: Sequence[Role], host: str) -> None:
    """
    Look at certificates before anybody serves with them.

    Args:
        folder: Where `ca.pem` and the file of each role lie.
        roles: Who serves or connects.
        host: Address where a scheduler or worker serves.

    Raises:
        CertificateProblem: One is missing, open to others, not valid today, or not for this host.
    """
    from cryptography import x509

    assert roles, "somebody has a certificate"
    _check_folder(folder)
    now = datetime.datetime.now(datetime.UTC)
    for role in roles:
        file = str(folder / f"{role}.pem")
        try:
            authority = x509.load_pem_x509_certificate(_read(folder / f"{AUTHORITY}.pem").encode())
            certificate = x509.load_pem_x509_certificate(read_issued(folder, role).certificate.encode())
            names = names_of(read_issued(folder, role).certificate)
        except ValueError as problem:
            raise CertificateProblem(file, f"it or {AUTHORITY}.pem cannot be read: {problem}") from problem
        if found := _problem_of(certificate, authority, now):
            raise CertificateProblem(file, f"it is {found}; `detector-pool certs renew` signs another")
        if role != "client" and host not in names:
            told = f"it is for {', '.join(filter(_is_host, names)) or 'no host'}, not for {host}"
            raise CertificateProblem(file, f"{told}; `detector-pool certs renew --host {host}` signs another")


def names_of(certificate: str) -> tuple[str, ...]:
    """Return the names and addresses of a certificate in PEM."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.encode())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def _shown(folder: Path, name: str, authority: x509.Certificate, now: datetime.datetime) -> Shown:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    issued = read_issued(folder, name)
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    return Shown(
        f"{name}.pem", "authority" if name == AUTHORITY else name, certificate.subject.rfc4514_string(),
        names_of(issued.certificate), certificate.not_valid_before_utc.isoformat(),
        certificate.not_valid_after_utc.isoformat(), certificate.fingerprint(SHA256()).hex(),
        _problem_of(certificate, authority, now),
    )  # fmt: skip


def _problem_of(certificate: x509.Certificate, authority: x509.Certificate, now: datetime.datetime) -> str | None:
    """Return why a certificate cannot be used; `None` when it can."""
    from cryptography.exceptions import InvalidSignature

    assert now.tzinfo is not None, "certificates speak of one zone"
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return "not signed by this folder's authority"
    if now > certificate.not_valid_after_utc:
        return "expired"
    return "not yet valid" if now < certificate.not_valid_before_utc else None


def _leaves(authority: Authority, hosts: Sequence[str], days: float) -> dict[str, str]:
    """Return a file for each role and the front: its certificate, then its key."""
    if not days > 0:
        raise UsageError(f"certificates last for some days, not {days}")
    made = {role: authority.issue(role, hosts, days) for role in (*ROLES, FRONT)}
    assert all(issued.certificate.endswith(END) for issued in made.values()), "certificates are in PEM"
    return {f"{role}.pem": issued.certificate + issued.key for role, issued in made.items()}


def _check_folder(folder: Path) -> None:
    try:
        seen = folder.lstat()
    except OSError as problem:
        told = f"it cannot be looked at ({problem.strerror}); `detector-pool certs init` makes it"
        raise CertificateProblem(str(folder), told) from problem
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        raise CertificateProblem(str(folder), "it must be your own folder with mode 0700 (chmod 700)")


def _read(file: Path, *, private: bool = False) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        told = f"it cannot be read ({problem.strerror}); `detector-pool certs init` makes certificates"
        raise CertificateProblem(str(file), told) from problem
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) or seen.st_uid != os.geteuid() or (private and seen.st_mode & 0o077):
        os.close(descriptor)
        raise CertificateProblem(str(file), "it must be your own regular file with mode 0600 (chmod 600)")
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(MAX_PEM_BYTES).decode("ascii", "replace")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Put files in place; each is whole at any time. A leaf's key lies with its certificate: both change at once."""
    for name, text in files.items():
        draft = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(text.encode())
                opened.flush()
                os.fsync(opened.fileno())
            draft.replace(folder / name)
        finally:
            draft.unlink(missing_ok=True)


def _alternative_names(hosts: Sequence[str]) -> Iterator[Any]:
    from cryptography import x509

    if not hosts:
        raise UsageError("a scheduler's and a worker's certificate need the hosts where they serve (--host)")
    addresses: dict[str, None] = {}
    for host in hosts:
        with contextlib.suppress(ValueError):
            addresses[str(ipaddress.ip_address(host))] = None
            continue
        yield x509.DNSName(host)
        try:
            found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as problem:
            raise UsageError(f"--host {host}: it has no address ({problem})") from problem
        addresses |= dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    assert addresses, "a host has an address"
    for address in addresses:
        yield x509.IPAddress(ipaddress.ip_address(address))


def _is_host(name: str) -> bool:
    return not name.endswith(f".{ORGANISATION}")


def _name(role: str, common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    assert role, "each has a role"
    parts = (
        (NameOID.ORGANIZATION_NAME, ORGANISATION),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        (NameOID.COMMON_NAME, common),
    )
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _dated(builder: x509.CertificateBuilder, days: float) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    numbered = builder.serial_number(x509.random_serial_number())
    end = now + datetime.timedelta(days=days)
    return numbered.not_valid_before(min(now, end) - BACKDATED).not_valid_after(end)


def _usage(*, sign: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign, crl_sign=sign, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
