"""
What an audit keeps of executions: digests of what went in and what came out, before anybody sees the result.

A digest is the SHA-256 of the value's msgpack (dictionaries sorted), which costs microseconds; of what has none, such
as paths and arrays, `content_key`, marked `content:`; of what has no content at all, none.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from detectors.content_key import Unkeyable, content_key

__all__ = ["AuditedResults", "execution_events"]

EXECUTIONS_AN_EVENT = 500
"""So that an event stays far below what a ledger takes as one record."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class AuditedResults(Future[list[Any]]):
    """
    Results that are recorded before whoever waits for them gets them.

    Args:
        configs: What was asked: (name, args, kwargs) each.
        record: Keeps an event; what it raises takes the place of the results, since they were not audited.
    """

    def __init__(self, configs: Sequence[Any], record: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._configs, self._record = configs, record
        began = self.set_running_or_notify_cancel()
        assert began, "nobody can have cancelled it yet"

    def set_result(self, result: list[Any]) -> None:
        """Record, then hand on."""
        assert self.running(), "results are handed on once"
        try:
            for event in execution_events(self._configs, result):
                self._record(event)
        except Exception as problem:  # whatever an audit sink raises; the one who waits must learn of it
            self.set_exception(problem)
        else:
            super().set_result(result)


def execution_events(configs: Sequence[Any], results: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """
    Yield `executed` events, each of at most 500 executions, and `retried` where some were begun more than once.

    Args:
        configs: (name, args, kwargs) each.
        results: The `DetectorResult` of each.
    """
    assert len(configs) == len(results), "each execution has one result"
    for start in range(0, len(results), EXECUTIONS_AN_EVENT):
        executions = []
        retried: dict[str, int] = {}
        for index in range(start, min(start + EXECUTIONS_AN_EVENT, len(results))):
            result = results[index]
            name, args, kwargs = configs[index]
            assert result.detector == name, "results stand in the order in which they were asked for"
            error = result.error
            assert result.attempts >= 0, "attempts are counted from none"
            executions.append(
                {
                    "detector": result.detector,
                    "input": _digest((args, kwargs)),
                    "output": _digest(result.value) if error is None else None,
                    "error": None if error is None else type(error).__name__,
                    "attempts": result.attempts,
                    "from_cache": result.from_cache,
                }
            )
            if result.attempts > 1:
                retried[result.detector] = retried.get(result.detector, 0) + result.attempts - 1
        assert 0 < len(executions) <= EXECUTIONS_AN_EVENT, "an event stays far below what a ledger takes"
        assert all(again > 0 for again in retried.values()), "who was begun once is not among them"
        now = time.time()
        if retried:
            yield {"event": "retried", "time": now, "attempts": retried}
        yield {"event": "executed", "time": now, "executions": executions}


def _digest(value: Any) -> str | None:
    try:
        return hashlib.sha256(_encode(value)).hexdigest()
    except (TypeError, ValueError, OverflowError, RecursionError):
        try:
            key = content_key(value, False)
        except Unkeyable:
            return None
        assert len(key) == hashlib.sha256().digest_size, "both kinds of digest are equally long"
        return f"content:{key.hex()}"
