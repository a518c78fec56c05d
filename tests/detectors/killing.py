"""Kill isolated workers at random while healthy executions run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time

from detectors import EnterpriseDetectorPool
from detectors.enterprise_detector_pool import RetryPolicy
from detectors.errors import IsolatedCrash

BLOCK = 50


def slow_square(n: int) -> int:
    """Take a few milliseconds, so that kills hit work under way."""
    time.sleep(0.003)
    return n * n


def survive_kills(seed: int, kills: int) -> tuple[int, int, int]:
    """
    Run healthy executions in isolated processes until so many of those were killed.

    Returns:
        Executions with the right value, all executions, kills that hit a living process.
    """
    chooser = random.Random(seed)
    stop, done = threading.Event(), 0
    # More attempts than kills: what is proven is that no kill corrupts or loses a result, not that ten in a row are rare.
    retry = RetryPolicy(attempts=kills + 1, base_s=0.001, cap_s=0.01, on=(IsolatedCrash,))
    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("square", slow_square, isolation="process", timeout_s=60, retry=retry, breaker=None)

        def kill() -> None:
            nonlocal done
            while done < kills and not stop.wait(chooser.uniform(0.05, 0.3)):
                pids = pool.get_pool_metrics()["processes"]["pids"]
                if pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chooser.choice(pids), signal.SIGKILL)
                        done += 1

        killer = threading.Thread(target=kill)
        killer.start()
        right = asked = 0
        try:
            for _ in range(100 * kills):
                results = pool.execute_parallel([("square", (n,), {}) for n in range(asked, asked + BLOCK)])
                right += sum(item.value == n * n for n, item in enumerate(results, asked))
                for item in results:
                    if not item.ok:
                        sys.stderr.write(f"{item.attempts} attempts: {item.error!r}\n")
                asked += BLOCK
                if done >= kills and asked >= 20 * kills:
                    break
        finally:
            stop.set()
            killer.join()
    return right, asked, done
