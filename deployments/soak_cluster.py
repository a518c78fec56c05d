"""
A Dask cluster of separate processes that may be killed, and who starts them again, as a service manager would.

    python -m deployments.soak_cluster scheduler|worker PORT CERTIFICATES
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from detectors.errors import ClusterError, UsageError

__all__ = ["SupervisedCluster"]

Part = Literal["scheduler", "worker"]
LOOPBACK = "127.0.0.1"
LOOK_S = 0.25
"""Between looks at whether a part has died."""
MOST_LOOKS = 1 << 32
START_S = 60.0


class SupervisedCluster:
    """
    A scheduler and workers over mutual TLS on loopback; whichever part dies is started again.

    Args:
        folder: Certificates, made by `deployments.certificates.init`.
        workers: Worker processes.
    """

    def __init__(self, folder: Path, workers: int) -> None:
        if workers < 1:
            raise UsageError(f"a cluster has at least one worker, not {workers}")
        self._folder, self._port = folder, _free_port()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = 0
        for name in ("scheduler", *(f"worker-{number}" for number in range(workers))):
            self._parts[name] = self._started(name)
        self._watcher = threading.Thread(target=self._watch, name="soak-supervisor", daemon=True)
        self._watcher.start()

    @property
    def address(self) -> str:
        """What `--cluster` takes; the same after the scheduler was started again."""
        assert self._port, "a port was found"
        return f"tls://{LOOPBACK}:{self._port}"

    def pids(self, part: Part) -> tuple[int, ...]:
        """Return the living processes of a part."""
        with self._lock:
            found = [one.pid for name, one in self._parts.items() if name.startswith(part) and one.poll() is None]
        assert len(found) == len(set(found)), "each process is one"
        return tuple(found)

    def wait_until_ready(self) -> None:
        """
        Wait until a client is served by a worker.

        Raises:
            ClusterError: It is not, within a minute.
        """
        from detectors.ports import open_cluster

        with open_cluster(self.address, 1) as client:
            try:
                answer = client.submit(sum, [1, 2]).result(START_S)
            except TimeoutError as problem:
                raise ClusterError(f"no worker of {self.address} came within {START_S:g} s") from problem
        if answer != 3:
            raise ClusterError(f"a worker of {self.address} takes 1 + 2 for {answer}")

    def close(self) -> None:
        """End all parts; a second call does nothing."""
        self._stop.set()
        self._watcher.join()
        with self._lock:
            for one in self._parts.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
                _ = one.wait()
            self._parts.clear()

    def _watch(self) -> None:
        for _ in range(MOST_LOOKS):
            if self._stop.wait(LOOK_S):
                return
            with self._lock:
                for name, one in self._parts.items():
                    if one.poll() is not None:
                        self._parts[name] = self._started(name)
                        self.restarts += 1

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        part = name.partition("-")[0]
        assert part in {"scheduler", "worker"}, "there are no other parts"
        command = [sys.executable, "-m", "deployments.soak_cluster", part, str(self._port), str(self._folder)]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env=_environment(os.environ),
        )  # fmt: skip


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the passphrase: a worker needs none."""
    assert "PATH" in inherited, "programs are found"
    return {name: value for name, value in inherited.items() if name != "DETECTOR_POOL_PASSPHRASE"}


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    assert port, "the kernel gave one"
    return port


async def _serve(part: str, port: int, folder: Path) -> None:
    """Run one part until it ends."""
    from distributed import Scheduler, Worker

    from deployments.mutual_tls import from_folder

    if part == "scheduler":
        async with Scheduler(
            protocol="tls://", host=LOOPBACK, port=port, security=from_folder(folder, "scheduler"), dashboard=False,
            dashboard_address=f"{LOOPBACK}:0",
        ) as scheduler:  # fmt: skip
            await scheduler.finished()
        return
    if part != "worker":
        raise UsageError(f"a part is a scheduler or a worker, not {part!r}")
    async with Worker(
        f"tls://{LOOPBACK}:{port}", host=LOOPBACK, protocol="tls://", nthreads=1,
        security=from_folder(folder, "worker"), dashboard=False, dashboard_address=f"{LOOPBACK}:0",
    ) as worker:  # fmt: skip
        await worker.finished()


def main(arguments: list[str]) -> int:
    """Serve one part; return 0 when it ended by itself."""
    import dask

    from deployments.clusters.local import CONFIGURATION

    part, port, folder = arguments
    assert port.isdigit(), "our own supervisor names it"
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with dask.config.set(CONFIGURATION):
        asyncio.run(_serve(part, int(port), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
