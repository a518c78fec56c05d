"""
The audit sink that a pool with `audit_mode` finds: this machine's ledger of pools, made with the first of them.

Its passphrase is the one in the environment, or, where there is none, one made at random beside the signing key, mode
0600: whoever may read that folder may write the ledger. Named by the entry point `detector_pool.audit`; one that
somebody else installs takes its place.
"""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from pathlib import Path

from compliance.audit_sink import LedgerAuditSink
from compliance.run_trail import LedgerPlace
from deployments.settings import Settings
from detectors.errors import ConfigurationError

__all__ = ["PoolAuditSink"]


class PoolAuditSink(LedgerAuditSink):
    """
    The ledger of this machine's pools.

    Raises:
        ConfigurationError: The ledger has a passphrase, and none is given.
        LedgerError: It cannot be opened.
    """

    def __init__(self) -> None:
        settings = _settings(os.environ.get("DETECTOR_POOL_HOME"))
        folder = settings.pool_ledger
        keys = settings.keys_of(folder)
        assert not keys.is_relative_to(folder), "keys lie outside of what they sign"
        passphrase = _passphrase(settings, folder, keys)
        assert passphrase, "an empty passphrase would lock nothing"
        super().__init__(LedgerPlace(folder, keys, passphrase, create=True))


@lru_cache(maxsize=4)
def _settings(_home: str | None) -> Settings:
    """Read the settings once a folder: reading takes the passphrase out of the environment."""
    return Settings.read()


def _passphrase(settings: Settings, ledger: Path, keys: Path) -> bytes:
    file = keys / "passphrase"
    if file.is_file():
        return Settings.read(passphrase_file=file).passphrase or b""
    if settings.passphrase is not None:
        return settings.passphrase
    if ledger.exists():
        raise ConfigurationError(f"the ledger {ledger} has a passphrase; set DETECTOR_POOL_PASSPHRASE")
    assert not file.exists(), "a passphrase that is there is never replaced"
    assert keys.name == f"{ledger.name}-keys", "a passphrase is made for a ledger of this machine only"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_urlsafe(32) + "\n")
    return Settings.read(passphrase_file=file).passphrase or b""
