"""
Sinks for alerts: the log, a callback, a signed webhook. The one place that delivers them, whoever raises them.

Nothing is sent anywhere unless a `WebhookSink` is made. Its requests are signed so that a receiver can tell ours from
anybody else's, and an old one from a new one: HMAC-SHA256 over the time and the body, as GitHub and Stripe do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import http.client
import ipaddress
import logging
import ssl
import time
import urllib.parse
from collections.abc import Callable

import msgspec

from detectors.errors import UsageError
from detectors.ports import Alert

__all__ = ["CallbackSink", "LogSink", "WebhookSink", "signature"]

_LOG = logging.getLogger(__name__)
LEVELS = {"warning": logging.WARNING, "critical": logging.ERROR, "resolved": logging.INFO}
SECRET_BYTES = 16
TIMEOUT_S = 5.0


class LogSink:
    """Writes alerts to the log, which goes to standard error unless it is configured otherwise."""

    def send(self, alert: Alert) -> None:
        """Write one line."""
        assert alert.level in LEVELS, "each level has one of the log's"
        _LOG.log(LEVELS[alert.level], "%s %s: %s", alert.check, alert.subject, alert.message)


@dataclasses.dataclass(frozen=True)
class CallbackSink:
    """Hands alerts to a function."""

    function: Callable[[Alert], object]
    """Called with each alert; what it raises is logged, and hides no other alert."""

    def send(self, alert: Alert) -> None:
        """Call the function."""
        assert alert.level in LEVELS, "a receiver tells them apart by it"
        try:
            self.function(alert)
        except Exception:  # anybody's code; the watch goes on
            _LOG.exception("an alert's callback failed on %s of %s", alert.check, alert.subject)


class WebhookSink:
    """
    Posts alerts as JSON, signed.

    The header `X-Detector-Pool-Signature` is `t=<seconds>,v1=<hex>`, see `signature`. No redirect is followed; an
    answer that is not 2xx, or none in 5 s, is logged and not tried again: the next alert says what is true then.

    Args:
        url: `https`, or `http` to a loopback address.
        secret: Shared with the receiver, at least 16 bytes; never logged.
        context: For TLS; `None` for the system's authorities.

    Raises:
        UsageError: Another scheme, plain HTTP beyond loopback, or a short secret.
    """

    def __init__(self, url: str, secret: bytes, context: ssl.SSLContext | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.hostname is None or not (parts.scheme == "https" or _is_loopback(parts)):
            raise UsageError(
                f"a webhook's address is https, or http to loopback, not {parts.scheme}://{parts.hostname}"
            )
        if len(secret) < SECRET_BYTES:
            raise UsageError(f"a webhook's secret has at least {SECRET_BYTES} bytes")
        self._parts, self._secret, self._context = parts, secret, context
        self._host: str = parts.hostname
        assert self._host, "an alert goes somewhere"

    def send(self, alert: Alert) -> None:
        """Post one alert."""
        assert alert.level in LEVELS, "a receiver tells them apart by it"
        assert alert.check, "whoever gets it learns what was looked at"
        body = msgspec.json.encode(alert)
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "X-Detector-Pool-Signature": f"t={now},v1={signature(self._secret, now, body)}",
        }
        target = urllib.parse.urlunsplit(("", "", self._parts.path or "/", self._parts.query, ""))
        assert target.startswith("/"), "a path counts from the host"
        connection = self._connection()
        try:
            connection.request("POST", target, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as problem:
            _LOG.warning("an alert did not reach %s: %s", self._host, problem)
        else:
            if not 200 <= status < 300:
                _LOG.warning("an alert was refused by %s with status %d", self._host, status)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._parts.scheme == "https":
            context = self._context or ssl.create_default_context()
            assert context.verify_mode != ssl.CERT_NONE or self._context is not None, "whom it reaches is checked"
            return http.client.HTTPSConnection(self._host, self._parts.port, timeout=TIMEOUT_S, context=context)
        assert _is_loopback(self._parts), "what is not encrypted stays on this machine"
        return http.client.HTTPConnection(self._host, self._parts.port, timeout=TIMEOUT_S)


def signature(secret: bytes, seconds: int, body: bytes) -> str:
    """
    Return the signature that a receiver computes again, and compares with `hmac.compare_digest`.

    Args:
        secret: Shared.
        seconds: Since the epoch, as the header says; a receiver refuses what is older than some minutes.
        body: Exactly as received.

    Returns:
        64 hexadecimal digits: HMAC-SHA256 (RFC 2104) over `<seconds>.<body>`.
    """
    assert secret, "anybody can sign with an empty secret"
    assert seconds > 0, "after the epoch"
    digits = hmac.new(secret, b"%d." % seconds + body, hashlib.sha256).hexdigest()
    assert len(digits) == 64, "SHA-256"
    return digits


def _is_loopback(parts: urllib.parse.SplitResult) -> bool:
    if parts.scheme != "http" or parts.hostname is None:
        return False
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:  # a name, which may mean another address to somebody else
        return False
