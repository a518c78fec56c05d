"""What this machine lacks, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from detectors.errors import FormatTooNew

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.settings import Settings

__all__ = ["Check", "examine"]

NEEDED = ("prefect", "distributed", "cryptography", "pyarrow", "tree-sitter", "tree-sitter-c", "tree-sitter-cpp")
LOW_DISK_BYTES = 1 << 30
MAX_KEY_BYTES = 1 << 16


class Check(msgspec.Struct, frozen=True):
    """One thing looked at."""

    what: str
    ok: bool
    seen: str
    mend: str = ""

    def shown(self) -> dict[str, object]:
        """Return it for `--json`."""
        assert self.ok or self.mend, "what is wrong comes with what to do about it"
        return msgspec.structs.asdict(self)


def examine(settings: Settings) -> tuple[Check, ...]:
    """Look at interpreter, libraries, tools, isolation, folders, keys, access, certificates; starts nothing heavy."""
    checks = (
        *_interpreter(), *_tools(), *_isolation(), *_folders(settings), *_key(settings),
        *_ledger(settings), *_access(), *_certificates(), *_formats(),
    )  # fmt: skip
    assert len({check.what for check in checks}) == len(checks), "each thing is told once"
    assert all(check.seen for check in checks), "whoever looks sees something"
    return checks


def _interpreter() -> Iterator[Check]:
    seen = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    yield Check("python", ok, seen, "" if ok else "install Python 3.11 or later")
    for name in NEEDED:
        try:
            yield Check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Check(name, False, "missing", "pip install --require-hashes -r requirements.txt")


def _tools() -> Iterator[Check]:
    from detectors.detector import discover

    for detector in discover():
        missing = detector.missing()
        yield Check(f"detector {detector.name}", missing is None, detector.version, missing or "")


def _isolation() -> Iterator[Check]:
    from detectors.sandbox import network_isolated

    for name, brings in (("prlimit", "limits of tools"), ("setpriv", "tools that end with their parent")):
        found = shutil.which(name)
        yield Check(
            name, found is not None, found or "missing", "" if found else f"install util-linux: it brings {brings}"
        )
    cut = network_isolated()
    mend = "" if cut else "allow unprivileged user namespaces, so that tools run without a network"
    yield Check("tools without network", cut, "yes" if cut else "no", mend)


def _folders(settings: Settings) -> Iterator[Check]:
    for what, folder in (("cache folder", settings.cache), ("state folder", settings.state)):
        assert folder.is_absolute(), "one of its parents exists, the root at last"
        there = next(place for place in (folder, *folder.parents) if place.exists())
        writable = os.access(there, os.W_OK | os.X_OK)
        free = shutil.disk_usage(there).free
        mend = "" if writable else "make it writable, or name another (--cache, DETECTOR_POOL_HOME)"
        if writable and free < LOW_DISK_BYTES:
            mend = "free some disk: results may not be kept"
        yield Check(what, not mend, f"{folder} ({free / 1e9:.1f} GB free)", mend)


def _key(settings: Settings) -> Iterator[Check]:
    if not (file := settings.keys / "signing-key.pem").exists():
        yield Check("signing key", True, "none yet; the first evidence makes one")
        return
    mode = stat.S_IMODE(file.lstat().st_mode)
    ok = mode == 0o600
    yield Check("signing key", ok, f"{file} mode {mode:04o}, {_described(file)}", "" if ok else f"chmod 600 {file}")


def _ledger(settings: Settings) -> Iterator[Check]:
    """Tell whether runs are recorded; where they are not, their evidence says so, which is nothing to mend."""
    if settings.passphrase is None:
        seen = "runs are not recorded: set DETECTOR_POOL_PASSPHRASE, or give scan --passphrase-file"
        yield Check("ledger of runs", True, seen)
        return
    if not settings.ledger.exists():
        yield Check("ledger of runs", True, f"none yet; the first evidence makes {settings.ledger}")
        return
    from compliance.errors import LedgerError
    from compliance.ledger_format import read_genesis
    from compliance.ledger_verify import last_chain

    try:
        opened = read_genesis(str(settings.ledger))
        size = last_chain(opened).state.size
    except (LedgerError, FormatTooNew) as problem:
        yield Check("ledger of runs", False, str(problem), f"detector-pool audit verify --ledger {settings.ledger}")
        return
    yield Check("ledger of runs", True, f"{settings.ledger}, {opened.origin}, {size} records")


def _formats() -> Iterator[Check]:
    from compliance.evidence import left_out

    told = "; ".join(left_out())
    # An extra that was not asked for is no fault.
    yield Check("formats of evidence", True, told or "all")


def _access() -> Iterator[Check]:
    """Tell whose word counts here, and for whom we are taken."""
    from compliance.access_policy import InstalledAccessPolicy
    from compliance.errors import EvidenceError

    try:
        installed = InstalledAccessPolicy()
    except EvidenceError as problem:
        yield Check("access policy", False, str(problem), "mend it; until then nobody may do anything")
        return
    if installed.policy is None:
        found = installed.decide("run", "any")
        seen = f"no policy file: the owner of {installed.places.state} may do all, others nothing"
        yield Check("access policy", found.allowed, seen, "" if found.allowed else found.reason)
    else:
        yield Check("access policy", True, f"{installed.policy.origin} {installed.policy.digest[:23]}")
    who = installed.identity
    yield Check("acting as", True, f"{who.kind} {who.name}, roles {', '.join(sorted(who.roles)) or 'none'}")


def _certificates() -> Iterator[Check]:
    from deployments.certificate_commands import default_folder
    from deployments.certificates import CertificateProblem, show

    folder = default_folder()
    if not folder.exists():
        yield Check("cluster certificates", True, "none; --cluster local makes its own, tls:// needs `certs init`")
        return
    try:
        bad = [f"{one.role}: {one.problem}" for one in show(folder) if one.problem is not None]
    except CertificateProblem as problem:
        yield Check("cluster certificates", False, str(problem), "mend it, or make others in a new folder")
        return
    mend = "detector-pool certs renew" if bad else ""
    yield Check("cluster certificates", not bad, f"{folder} {', '.join(bad) or 'valid'}", mend)


def _described(file: Path) -> str:
    """Return a key's id and whether it lies encrypted; the private key itself stays closed."""
    from compliance.errors import KeyUnusable
    from compliance.signing import PUBLIC, VerifyingKey

    assert file.is_absolute(), "it lies in the state's folder"
    try:
        if file.stat().st_size > MAX_KEY_BYTES:
            return f"{file} is larger than any key"
        known = f"id {VerifyingKey.load(file.with_name(PUBLIC)).id[:16]}"
        return f"{known}, {'encrypted' if b'ENCRYPTED' in file.read_bytes() else 'not encrypted'}"
    except (KeyUnusable, OSError) as problem:
        return str(problem)
