"""`--cluster tls://host:port`: a scheduler that runs already."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar

from detectors.errors import ClusterError, ClusterLost, UsageError

__all__ = ["RunningScheduler"]

TIMEOUT = "20s"
WORKERS_S = 60
"""How long a scheduler may be without any worker before a run gives up; adaptive ones and new ones take seconds."""
VARIABLES = ("DETECTOR_POOL_TLS_CA", "DETECTOR_POOL_TLS_CERT", "DETECTOR_POOL_TLS_KEY")


class RunningScheduler:
    """
    A scheduler's address. Only TLS: whoever reaches a scheduler without certificates runs code on its workers.

    The client's certificate lies where `detector-pool certs init` puts it; or the environment names files of another
    authority, of which only that it signed is checked: `DETECTOR_POOL_TLS_CA`, `_CERT`, `_KEY`.
    """

    name: ClassVar[str] = "tls://HOST:PORT"

    def accepts(self, target: str) -> bool:
        """Tell whether `target` is an address."""
        assert target, "a cluster has a name"
        return "://" in target

    @contextlib.contextmanager
    def open(self, target: str, workers: int) -> Iterator[Any]:
        """Yield a connected client whose versions agree with the workers'; see `detectors.ports.ClusterKind`."""
        assert workers >= 1, "somebody does the work"
        assert self.accepts(target), "who opens it saw that it is an address"
        if not target.startswith("tls://"):
            raise UsageError(f"--cluster {target}: only tls:// is taken; anyone may run code through a plain address")
        security = _security(target)
        from distributed import Client
        from distributed.comm.core import CommClosedError, FatalCommClosedError

        from deployments.version_skew import require_same

        try:
            client = Client(target, security=security, timeout=TIMEOUT, set_as_default=False)  # type: ignore[no-untyped-call]
        except FatalCommClosedError as problem:  # certificates that do not match: trying again would not help
            raise ClusterError(f"the scheduler {target} cannot be reached: {problem}") from problem
        except CommClosedError as problem:
            raise ClusterLost(f"the scheduler {target} was lost: {problem}") from problem
        except (OSError, TimeoutError) as problem:
            raise ClusterError(f"the scheduler {target} cannot be reached: {problem}") from problem
        with contextlib.closing(client):
            assert client.security.require_encryption, "nobody reads what is sent"
            try:
                client.wait_for_workers(1, timeout=WORKERS_S)
            except TimeoutError as problem:
                raise ClusterError(f"{target} has no worker; `detector-pool cluster join` gives it some") from problem
            except OSError as problem:
                raise ClusterLost(f"the scheduler {target} was lost: {problem}") from problem
            try:
                require_same(client, target)
            except (OSError, TimeoutError) as problem:
                raise ClusterLost(f"the scheduler {target} was lost: {problem}") from problem
            yield client


def _security(target: str) -> Any:
    """Return the certificates of a client."""
    from deployments.certificate_commands import default_folder

    assert target.startswith("tls://"), "only an encrypted address is shown a certificate"
    files = [os.environ.get(name, "") for name in VARIABLES]
    if all(files):
        from distributed import Security

        return Security(  # type: ignore[no-untyped-call]
            tls_ca_file=files[0], tls_client_cert=files[1], tls_client_key=files[2], require_encryption=True
        )
    folder = default_folder()
    if any(files) or not folder.is_dir():
        told = f"make them by `detector-pool certs init`, or set {', '.join(VARIABLES)} to their files"
        raise UsageError(f"--cluster {target} needs certificates; {told}")
    from deployments.mutual_tls import from_folder

    return from_folder(folder, "client")
