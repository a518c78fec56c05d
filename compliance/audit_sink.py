"""
Events of a pool into a ledger, many in one commit.

`record` returns at once; a thread commits what has come every tenth of a second, so that an event that is lost with the
process is younger than that. A ledger that cannot be written ends the audit loudly: the next `record` raises what was
wrong. The ledger is given free between commits, so that pools and runs side by side share one.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from compliance.errors import LedgerUnwritable
from compliance.ledger import Ledger
from compliance.run_trail import LedgerPlace
from detectors.errors import DetectorPoolError, UsageError
from detectors.ports import Alert

__all__ = ["LedgerAuditSink"]

DELAY_S = 0.1
MOST_WAITING = 10_000
"""Events; whoever brings more waits until some are durable."""
CLOSE_S = 30.0


class LedgerAuditSink:
    """
    An audit sink and an alert sink; may be called from any thread.

    Args:
        place: The ledger.

    Raises:
        LedgerError: It cannot be opened.
    """

    def __init__(self, place: LedgerPlace) -> None:
        self._ledger: Ledger = place.open()
        self._folder = str(place.folder)
        self._ledger.release()
        self._state = threading.Condition()
        self._waiting: list[dict[str, Any]] = []
        self._taken = self._durable = 0
        """Events that came, and that are durable."""
        self._failure: DetectorPoolError | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._commit, name="audit", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def record(self, event: Mapping[str, Any]) -> None:
        """
        Take an event; it is durable a tenth of a second later, or when `flush` returns.

        Raises:
            LedgerUnwritable: An earlier event could not be written, or the sink is closed; this one is not kept.
        """
        if "event" not in event:
            raise UsageError("an event names its kind under `event`")
        with self._state:
            self._check()
            if self._closing:
                raise LedgerUnwritable(self._folder, "its audit sink is closed")
            while len(self._waiting) >= MOST_WAITING and self._failure is None:
                self._state.wait()
            self._check()
            self._waiting.append(dict(event))
            self._taken += 1
            if len(self._waiting) == 1:
                self._state.notify_all()

    def send(self, alert: Alert) -> None:
        """Record an alert; what is wrong with the ledger is told by the next `record`."""
        with self._state:
            if self._failure is None and not self._closing:
                self._waiting.append({"event": "alerted", "time": time.time(), "alert": msgspec.to_builtins(alert)})
                self._taken += 1
                self._state.notify_all()

    def flush(self) -> None:
        """Return when all events so far are durable; raises LedgerUnwritable where they cannot be."""
        with self._state:
            until = self._taken
            assert self._durable <= until, "only what came can be durable"
            while self._durable < until and self._failure is None:
                self._state.wait()
            self._check()

    def close(self) -> None:
        """Make everything durable and give the ledger free; a second call does nothing. Raises LedgerUnwritable."""
        atexit.unregister(self.close)
        with self._state:
            if self._closing:
                return
            self._closing = True
            self._state.notify_all()
        self._thread.join(CLOSE_S)
        self._ledger.close()
        with self._state:
            self._check()

    def _check(self) -> None:
        assert self._durable <= self._taken, "only what came can be durable"
        if self._failure is not None:
            raise LedgerUnwritable(self._folder, f"{self._failure}; the audit has ended") from self._failure

    def _commit(self) -> None:
        """Be the thread: commit what has come, until the sink is closed and nothing is left."""
        while self._failure is None:
            with self._state:
                while not self._waiting and not self._closing:
                    self._state.wait()
                if not self._waiting:
                    return
                if not self._closing:
                    # Whatever comes now shares the commit.
                    self._state.wait(DELAY_S)
                events, self._waiting = self._waiting, []
                assert len(events) <= self._taken - self._durable, "no event is committed twice"
                self._state.notify_all()
            try:
                receipt = self._ledger.append_all(events)
                assert len(receipt.indices) == len(events), "each event is a record"
                self._ledger.release()
            except DetectorPoolError as problem:
                with self._state:
                    self._failure = problem
                    self._state.notify_all()
                return
            with self._state:
                self._durable += len(events)
                assert self._durable + len(self._waiting) == self._taken, "each event waits or is durable"
                self._state.notify_all()
