"""
Numbers in Prometheus' format over HTTP: plain on loopback, beyond it only over TLS to who shows a certificate.

The certificates are of an authority of their own: a client's of the cluster is the right to run code on it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from detectors.enterprise_detector_pool import EnterpriseDetectorPool

__all__ = ["served", "served_pool"]

CERTIFICATES = "DETECTOR_POOL_METRICS_CERTS"


@contextlib.contextmanager
def served(registry: Any, address: str) -> Iterator[str]:
    """
    Serve a registry for the block.

    Args:
        registry: Of prometheus_client.
        address: HOST:PORT; port 0 for any. Beyond loopback `DETECTOR_POOL_METRICS_CERTS` names a folder that
            `certs init --folder` made: its scheduler's certificate serves, its client's is for who scrapes.

    Yields:
        The address to scrape.

    Raises:
        UsageError: An address that is none, or is beyond loopback without certificates.
        ConfigurationError: It cannot be served there.
    """
    from prometheus_client import start_http_server

    host, port = _place(address)
    options: dict[str, Any] = {}
    if not ipaddress.ip_address(host).is_loopback:
        folder = _certificates(host)
        served_by = str(folder / "scheduler.pem")
        options = {
            "certfile": served_by, "keyfile": served_by, "client_cafile": str(folder / "ca.pem"),
            "client_auth_required": True, "tls_min_version": ssl.TLSVersion.TLSv1_3,
        }  # fmt: skip
    try:
        server, thread = start_http_server(port, host, registry, **options)
    except OSError as problem:
        raise ConfigurationError(f"metrics cannot be served on {address}: {problem}") from problem
    try:
        scheme = "https" if options else "http"
        assert server.server_port > 0, "the system chose a port where none was named"
        yield f"{scheme}://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def served_pool(pool: EnterpriseDetectorPool, address: str) -> contextlib.AbstractContextManager[str]:
    """Serve the metrics of a pool for a block, fresh for each scrape; see `served`."""
    from detectors.pool_metrics import registry_of

    assert address, "it is served somewhere"
    return served(registry_of(pool.get_pool_metrics), address)


def _place(address: str) -> tuple[str, int]:
    host, mark, port = address.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port) if mark else -1
    except ValueError as problem:
        raise UsageError(f"metrics are served at an ADDRESS:PORT such as 127.0.0.1:9464, not {address!r}") from problem


def _certificates(host: str) -> Path:
    from deployments.certificate_commands import default_folder
    from deployments.certificates import require_usable

    named = os.environ.get(CERTIFICATES)
    if not named:
        raise UsageError(
            f"metrics beyond loopback need {CERTIFICATES}, a folder of `detector-pool certs init --folder`"
        )
    folder = Path(named).absolute()
    if folder.resolve() == default_folder().resolve():
        told = "is the cluster's: who may scrape could run code on it"
        raise UsageError(f"{CERTIFICATES} {told}; make another by `detector-pool certs init --folder`")
    require_usable(folder, ("scheduler",), host)
    return folder
