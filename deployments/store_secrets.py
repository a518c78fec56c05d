"""
What opens a shared store: the password of its server, and the key that tells our entries from anybody's.

Neither stands in an argument, an address or a message: `DETECTOR_POOL_STORE_PASSWORD`, or a file that
`DETECTOR_POOL_STORE_PASSWORD_FILE` names; the key in a file that `DETECTOR_POOL_STORE_KEY_FILE` names, or in the
folder of the keys, where it is made on first use and carried from to the other drivers.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from deployments.output import write_new
from detectors.errors import ConfigurationError, UsageError
from detectors.shared_store import KEY_BYTES

__all__ = ["shown", "split", "store_key", "store_password"]

PASSWORD, PASSWORD_FILE, KEY_FILE = (
    "DETECTOR_POOL_STORE_PASSWORD",
    "DETECTOR_POOL_STORE_PASSWORD_FILE",
    "DETECTOR_POOL_STORE_KEY_FILE",
)
MAX_SECRET_BYTES = 4096
_MAKING = threading.Lock()
"""Threads of a process would share the draft of the key."""


def split(url: str) -> SplitResult:
    """Return the parts of a store's address; raises UsageError where it carries a password, which it does not show."""
    try:
        parts = urlsplit(url)
        secret = parts.password is not None
    except ValueError as problem:
        raise UsageError("the address of the store cannot be read as one") from problem
    if secret:
        told = f"--store {shown(parts)}: a password in an address is seen by every user of the machine"
        raise UsageError(f"{told}; put it into {PASSWORD}, or into a file that {PASSWORD_FILE} names")
    assert parts.password is None, "nothing secret goes on from here"
    return parts


def shown(parts: SplitResult) -> str:
    """Return an address without user, password and options."""
    place = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    text = f"{parts.scheme}://{place}{parts.path}"
    assert "@" not in place, "who logs in is nobody's business"
    return text


def store_password() -> str:
    """Return the password of a store's server; empty where none is set. Raises ConfigurationError for a bad file."""
    file = os.environ.get(PASSWORD_FILE)
    if not file:
        return os.environ.get(PASSWORD, "")
    words = _private(Path(file)).splitlines()
    if not words or not words[0]:
        raise ConfigurationError(f"{PASSWORD_FILE} names {file}, which is empty")
    return words[0]


def store_key() -> bytes:
    """
    Return the key that authenticates entries.

    Raises:
        ConfigurationError: The file is open to others, or holds no key.
    """
    from compliance.identity import state_folder

    named = os.environ.get(KEY_FILE)
    file = Path(named) if named else state_folder() / "keys" / "store.key"
    if not named:
        with _MAKING:
            _make(file)
    try:
        key = bytes.fromhex(_private(file).strip())
    except ValueError as problem:
        raise ConfigurationError(f"{file} does not hold a store's key ({KEY_BYTES} bytes, hexadecimal)") from problem
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"{file} holds {len(key)} bytes, and a store's key has {KEY_BYTES}")
    return key


def _make(file: Path) -> None:
    """Make the key, unless it is there."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        write_new(file, secrets.token_hex(KEY_BYTES).encode() + b"\n", mode=0o600)
    except UsageError:
        if not file.exists():  # else another process made it meanwhile
            raise


def _private(file: Path) -> str:
    """Read a file that nobody else may read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise ConfigurationError(f"{file} cannot be read: {problem.strerror}") from problem
    with os.fdopen(descriptor, "rb") as opened:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_mode & 0o077:
            raise ConfigurationError(f"{file} must be a regular file with mode 0600 (chmod 600)")
        data = opened.read(MAX_SECRET_BYTES)
    assert len(data) <= MAX_SECRET_BYTES, "a secret is short"
    return data.decode("utf-8", "replace")
