"""`--store rediss://host:port`: a Redis server, over TLS, on loopback or through a socket, always with a password."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, parse_qsl

from deployments.store_secrets import PASSWORD, PASSWORD_FILE, shown, split, store_key, store_password
from detectors.errors import ConfigurationError, StoreUnavailable, UsageError
from detectors.shared_store import SharedStore

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisServer"]

SCHEMES = frozenset({"redis", "rediss", "unix"})
OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "db"})
"""What an address may carry; anything else could turn verification off."""
ANSWER_S = 5.0
CONNECT_S = 2.0
PREFIX = "detector-pool:"


class RedisServer:
    """
    `rediss://HOST:PORT/DB`, `unix:///path/to/socket`, or `redis://` on loopback.

    The user stands in the address, the password does not (`store_secrets`). `ssl_ca_certs=FILE` names the authority,
    `ssl_certfile` and `ssl_keyfile` a client's certificate.
    """

    name: ClassVar[str] = "rediss://HOST:PORT"

    def accepts(self, url: str) -> bool:
        """Tell whether `url` is a Redis server."""
        scheme, mark, _ = url.partition("://")
        return bool(mark) and scheme in SCHEMES

    def open(self, url: str) -> SharedStore:
        """Return the store; it connects when it is first asked. See `detectors.ports.StoreKind`."""
        assert self.accepts(url), "who opens it saw that it is meant"
        parts = split(url)
        _require_closed(parts)
        password = store_password()
        if not password:
            told = f"--store {shown(parts)} needs a password, since whoever reaches Redis reads and writes all of it"
            raise UsageError(f"{told}; set {PASSWORD}, or {PASSWORD_FILE} to a file")
        try:
            from redis import Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as problem:
            raise ConfigurationError("a Redis store needs the extra `redis` of this package") from problem
        # One attempt: the circuit breaker decides about more.
        client = Redis.from_url(
            url, password=password, socket_timeout=ANSWER_S, socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        return SharedStore(_Entries(client, shown(parts)), store_key())


class _Entries:
    """Entries as strings of Redis."""

    def __init__(self, client: Redis, name: str) -> None:
        self._client, self.name = client, name

    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """See `StoreBackend`."""
        found: Sequence[Any] = self._asked("mget", [PREFIX + name for name in names]) if names else []
        assert len(found) == len(names), "one answer for each"
        return {name: entry for name, entry in zip(names, found, strict=True) if isinstance(entry, bytes)}

    def write(self, entries: Mapping[str, bytes]) -> None:
        """See `StoreBackend`."""
        assert entries, "somebody keeps something"
        self._asked("mset", {PREFIX + name: entry for name, entry in entries.items()})

    def drop(self, names: Sequence[str]) -> None:
        """See `StoreBackend`."""
        assert names, "somebody drops something"
        self._asked("delete", *(PREFIX + name for name in names))

    def close(self) -> None:
        """See `StoreBackend`."""
        self._client.close()

    def _asked(self, command: str, *arguments: Any) -> Any:
        from redis.exceptions import RedisError

        commands: dict[str, Any] = {"mget": self._client.mget, "mset": self._client.mset, "delete": self._client.delete}
        try:
            return commands[command](*arguments)
        except (RedisError, OSError) as problem:
            raise StoreUnavailable(self.name, f"{type(problem).__name__}: {problem}") from problem


def _require_closed(parts: SplitResult) -> None:
    """Raise UsageError for an address through which others could read along, or be taken for the server."""
    odd = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - OPTIONS
    if odd:
        raise UsageError(f"--store {shown(parts)}: {', '.join(sorted(odd))} is none of {', '.join(sorted(OPTIONS))}")
    if parts.scheme == "redis" and not _loopback(parts.hostname or ""):
        raise UsageError(f"--store {shown(parts)}: beyond loopback only rediss:// is taken")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
