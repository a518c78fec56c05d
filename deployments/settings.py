"""The one frozen `Settings`: what comes from the environment and the user's folders, read once, handed on in parts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from detectors.errors import UsageError

__all__ = ["MAX_PASSPHRASE_BYTES", "Settings"]

MAX_PASSPHRASE_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where state lies, and the passphrase of the signing key."""

    cache: Path
    """Results and stat index; may be deleted at any time."""
    state: Path
    """Keys, the Prefect server's database."""
    passphrase: bytes | None = dataclasses.field(repr=False)

    @property
    def keys(self) -> Path:
        """Folder of the signing key, mode 0700."""
        assert self.state.is_absolute(), "a relative folder would follow the working directory"
        assert self.state != self.cache, "the cache may be deleted at any time, keys may not"
        return self.state / "keys"

    @property
    def ledger(self) -> Path:
        """Folder of the ledger that runs are recorded in; made with the first of them, where there is a passphrase."""
        assert self.state.is_absolute(), "a relative folder would follow the working directory"
        assert self.state != self.cache, "the cache may be deleted at any time, a ledger may not"
        return self.state / "ledger"

    @property
    def pool_ledger(self) -> Path:
        """Folder of the ledger of pools in `audit_mode`; made with the first of them."""
        assert self.state != self.cache, "the cache may be deleted at any time, what is remembered may not"
        return self.state / "pool-ledger"

    def keys_of(self, ledger: Path) -> Path:
        """
        Return the folder of a ledger's signing key.

        This machine's own ledgers have keys of their own: the one that signs evidence may lie unencrypted, and who
        holds one cannot speak for another.
        """
        place = ledger.absolute()
        keys = place.with_name(f"{place.name}-keys") if place in (self.ledger, self.pool_ledger) else self.keys
        assert keys.is_absolute(), "a relative folder would follow the working directory"
        if keys == place:
            raise UsageError(f"{ledger} holds signing keys; a ledger lies in a folder of its own")
        return keys

    @property
    def prefect(self) -> Path:
        """Folder of the Prefect server that a run brings up."""
        assert self.state != self.cache, "the cache may be deleted at any time, what is remembered may not"
        return self.state / "prefect"

    @classmethod
    def read(cls, cache: Path | None = None, passphrase_file: Path | None = None) -> Settings:
        """
        Read the environment: `DETECTOR_POOL_HOME` (all state below one folder) and `DETECTOR_POOL_PASSPHRASE`.

        Args:
            cache: What `--cache` named.
            passphrase_file: What `--passphrase-file` named; its first line counts.

        Raises:
            UsageError: The passphrase file cannot be read, or the cache would lie among what must be kept.
        """
        from compliance.identity import state_folder

        home = os.environ.get("DETECTOR_POOL_HOME")
        if home:
            default_cache = Path(home) / "cache"
        else:
            import platformdirs

            default_cache = platformdirs.user_cache_path("detector-pool")
        state = state_folder()
        if cache is not None and cache.absolute() == state:
            raise UsageError(f"{cache} holds keys, and a cache may be deleted at any time; name another --cache")
        settings = cls((cache or default_cache).absolute(), state, _passphrase(passphrase_file))
        assert settings.cache != settings.state, "what may be deleted lies apart from what must be kept"
        assert settings.cache.is_absolute(), "every process of the run means the same folder"
        assert settings.state.is_absolute(), "every process of the run means the same folder"
        assert settings.passphrase is None or len(settings.passphrase) > 0, "an empty passphrase would lock nothing"
        return settings


def _passphrase(file: Path | None) -> bytes | None:
    if file is None:
        # Taken out of the environment, so that no child process inherits it.
        text = os.environ.pop("DETECTOR_POOL_PASSPHRASE", None)
        if text and len(os.fsencode(text)) > MAX_PASSPHRASE_BYTES:
            raise UsageError(f"DETECTOR_POOL_PASSPHRASE is longer than {MAX_PASSPHRASE_BYTES} bytes")
        return os.fsencode(text) if text else None
    try:
        with file.open("rb") as opened:
            line = opened.read(MAX_PASSPHRASE_BYTES + 1).split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as problem:
        raise UsageError(f"the passphrase file {file} cannot be read: {problem.strerror}") from problem
    if not line:
        raise UsageError(f"the passphrase file {file} is empty")
    if len(line) > MAX_PASSPHRASE_BYTES:
        raise UsageError(f"the first line of the passphrase file {file} is longer than {MAX_PASSPHRASE_BYTES} bytes")
    assert b"\n" not in line, "one line is the passphrase"
    return line
