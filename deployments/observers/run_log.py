"""`DETECTOR_POOL_LOG=FILE`: one JSON object a line, each with the run's id, those of batches with the batch's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from detectors.errors import ConfigurationError
from detectors.ports import Observe

__all__ = ["RunLog"]

VARIABLE = "DETECTOR_POOL_LOG"
WARNINGS = frozenset({"cluster-lost"})


class RunLog:
    """Appends events to a file, mode 0600; a full disk ends the log, and not the run."""

    def observe_run(self) -> AbstractContextManager[Observe] | None:
        """Return where events go; `None` where nobody asked for a log. See `detectors.ports.RunObserver`."""
        file = os.environ.get(VARIABLE)
        return _logging(file) if file else None


@contextlib.contextmanager
def _logging(file: str) -> Iterator[Observe]:
    import structlog

    assert file, "a log has a place"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise ConfigurationError(f"{VARIABLE} names {file}, which cannot be written: {problem.strerror}") from problem
    with os.fdopen(descriptor, "a", buffering=1, encoding="utf-8", errors="backslashreplace") as opened:
        log = structlog.wrap_logger(
            structlog.WriteLogger(opened),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
        )

        def tell(event: str, fields: Mapping[str, Any]) -> None:
            level = log.warning if event in WARNINGS or fields.get("error") else log.info
            with contextlib.suppress(OSError):
                level(event, **fields)

        yield tell
