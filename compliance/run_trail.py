"""
What a ledger keeps of one run: who began it on what, what was planned, what came out, the attestation, how it ended.

The ledger is held for moments only, so that runs side by side share one; a run that was killed has a beginning and no
end. Where there is no ledger, the same calls keep nothing, and the attestation says that and why.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from compliance.attestation import LedgerReference, NoLedger, snapshot_root
from compliance.errors import LedgerError, LedgerMissing
from compliance.ledger import Ledger, Publication
from detectors.access import caller
from detectors.errors import UsageError
from detectors.model import RunRecord
from detectors.ports import Progress
from detectors.scan import Scan, ScanOptions, Stage

__all__ = ["LedgerPlace", "RunTrail", "own_ledger", "record_flow_end", "recorded_scan"]

BUSY_PATIENCE_S = 30.0
"""How long a run waits for another that writes; each holds the ledger for a second at most."""
MAX_TOLD = 500
NOT_GIVEN = "no ledger was given; set DETECTOR_POOL_PASSPHRASE, or give --passphrase-file and --ledger"


@dataclass(frozen=True)
class LedgerPlace:
    """Where the ledger of runs lies, and what opens it."""

    folder: Path
    keys: Path
    passphrase: bytes = field(repr=False)
    create: bool = False
    """Whether it is made when there is none."""

    def open(self) -> Ledger:
        """
        Open it for writing; waits for another writer.

        Raises:
            LedgerBusy: Another writer held it for half a minute.
            LedgerError: See `Ledger.open` and `Ledger.create`.
        """
        if self.create and not (self.folder.is_dir() and any(self.folder.iterdir())):
            with contextlib.suppress(LedgerMissing):  # another run has just made it
                _ = Ledger.create(self.folder, self.keys, self.passphrase)
        return Ledger.open(self.folder, self.keys, self.passphrase, patience_s=BUSY_PATIENCE_S)


def own_ledger(state: Path, passphrase: bytes) -> LedgerPlace:
    """
    Return where this machine's runs are recorded; made with the first of them.

    Args:
        state: The state folder. The ledger's keys lie beside it: the one that signs evidence may lie unencrypted, and
            who holds one cannot speak for another.
        passphrase: Opens it.
    """
    assert state.is_absolute(), "a relative folder would follow the working directory"
    assert passphrase, "an empty passphrase would lock nothing"
    folder = state / "ledger"
    return LedgerPlace(folder, folder.with_name("ledger-keys"), passphrase, create=True)


class RunTrail:
    """
    A run's records; a context manager that records how the run ended, whatever ended it.

    Args:
        place: The ledger; `None` for none.
        reason: Why there is none, for the attestation.
    """

    def __init__(self, place: LedgerPlace | None = None, reason: str = NOT_GIVEN) -> None:
        if place is not None and not place.passphrase:
            raise UsageError("a ledger needs a passphrase; set DETECTOR_POOL_PASSPHRASE or give --passphrase-file")
        self._place, self._reason = place, reason
        self._ledger: Ledger | None = None
        self._run_id = ""
        self._pending: list[dict[str, object]] = []
        """What goes into the ledger with the next record: it is not worth an opening of its own."""
        self._start_index: int | None = None
        self._reached = False
        """Whether the ledger could be opened, so that there may be a beginning that asks for an end."""
        self._outcome = "failed"
        self._ended = False

    def __enter__(self) -> RunTrail:
        """Return itself."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Record the end; that it could not be recorded is told beside what ended the run."""
        try:
            self.ended(problem)
        except LedgerError as second:
            if problem is None:
                raise
            problem.add_note(f"the end of the run could not be recorded: {second}")
        finally:
            self._let_go()

    def started(self, run_id: str, options: ScanOptions, commitment: str = "", flow_run: str = "") -> None:
        """
        Record who begins what.

        Args:
            run_id: Of the run.
            options: What it is asked to do.
            commitment: To the seed of its canaries; empty where it has none.
            flow_run: Prefect's id of it; empty where it has none.

        Raises:
            UsageError: The run has begun already.
            LedgerError: The ledger cannot be opened or written; nothing has begun.
        """
        if self._run_id:
            raise UsageError(f"the run {self._run_id} has begun already; each run has a trail of its own")
        self._run_id = run_id
        who = {**caller(), "user": _user(), "uid": os.getuid(), "host": platform.node(), "pid": os.getpid()}
        roots = [os.fsencode(path.absolute()).decode("utf-8", "backslashreplace") for path in options.paths]
        told = {"canaries": commitment} if commitment else {}
        told |= {"flow_run": flow_run} if flow_run else {}
        self._record("scan.started", who=who, roots=roots, configuration=list(options.shown()), **told)

    def planned(self, stages: Sequence[Stage]) -> None:
        """Record what each detector has to do; raises LedgerError."""
        plan = [
            {"stage": stage.name, "planned": stage.planned, "cached": stage.cached, "batches": len(stage.batches)}
            for stage in stages
        ]
        self._record("scan.planned", stages=plan)

    def settled(self, record: RunRecord) -> None:
        """Record what came out, together with what comes next; raises UsageError for another run's record."""
        if record.run_id != self._run_id and self._place is not None:
            raise UsageError(f"the record of {record.run_id} belongs to another trail than that of {self._run_id}")
        self._outcome = "finished" if record.whole else "not-whole"
        self._pending.append(
            {
                "type": "scan.settled",
                "run_id": record.run_id,
                "whole": record.whole,
                "problems": list(record.problems[:20]),
                "snapshot": snapshot_root(record.files),
                "files": len(record.files),
                "units": {"planned": record.planned, "executed": record.executed, "cached": record.cached},
                "not_analysed": len(record.not_analysed),
                "findings": {"count": len(record.findings), "digest": record.findings_digest},
                "waivers": [
                    {"id": one.id, "file": one.file, "digest": one.digest, "state": one.state, "findings": one.matched}
                    for one in record.waivers
                ],
            }
        )

    def reference(self) -> LedgerReference | NoLedger:
        """Return what the attestation says of the ledger, once the run has begun."""
        if self._ledger is None or self._start_index is None:
            assert self._place is None, "a run is recorded from its beginning"
            return NoLedger(self._reason)
        return LedgerReference(self._ledger.origin, self._ledger.verifier_key, self._start_index)

    def attested(self, attestation_digest: str, key_id: str) -> Publication | None:
        """Record the sha256 of the attestation's file in clear, and return the proof; raises LedgerError."""
        if self._place is None:
            return None
        event = {
            "type": "evidence.attested", "run_id": self._run_id, "attestation": attestation_digest, "key": key_id,
        }  # fmt: skip
        with self.held():
            assert self._ledger is not None, "it is held"
            if self._pending:
                _ = self._ledger.append_all(self._pending)
                self._pending = []
            return self._ledger.publish(event)

    def ended(self, problem: BaseException | None = None) -> None:
        """Record the end, once; raises LedgerError."""
        if not self._reached or self._ended:
            return
        if problem is not None and not isinstance(problem, Exception):
            self._outcome = "interrupted"
        elif problem is not None and self._outcome == "finished":
            self._outcome = "failed"
        told = None if problem is None else f"{type(problem).__name__}: {problem}"[:MAX_TOLD]
        self._record("scan.ended", outcome=self._outcome, error=told)
        self._ended = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Open the ledger where it is not, and let others in afterwards; raises LedgerError."""
        if self._place is None:
            yield
            return
        if self._ledger is None:
            self._ledger = self._place.open()
            self._reached = True
        try:
            yield
        except BaseException:
            # An interrupt in the middle of a commit leaves a ledger that takes no more; the next record opens it anew.
            self._let_go()
            raise
        if self._ledger is not None:
            self._ledger.release()

    def _let_go(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _record(self, kind: str, **fields: object) -> None:
        if self._place is None:
            return
        with self.held():
            assert self._ledger is not None, "it is held"
            receipt = self._ledger.append_all([*self._pending, {"type": kind, "run_id": self._run_id, **fields}])
        self._pending = []
        if self._start_index is None:
            self._start_index = receipt.index


def record_flow_end(place: LedgerPlace, flow_run: str, run_id: str, outcome: str, reason: str) -> None:
    """
    Record what became of a flow run that could not say it itself.

    Args:
        place: The ledger.
        flow_run: Prefect's id, which stands in the run's beginning.
        run_id: Of the run; empty where it is not known.
        outcome: Such as `crashed`.
        reason: In Prefect's words.

    Raises:
        LedgerError: The ledger cannot be opened or written.
    """
    assert flow_run, "a flow run has an id"
    assert outcome, "it came to something"
    event = {
        "type": "flow.ended", "flow_run": flow_run, "run_id": run_id, "outcome": outcome, "reason": reason[:MAX_TOLD],
    }  # fmt: skip
    with place.open() as ledger:
        _ = ledger.append_all([event])


def recorded_scan(
    options: ScanOptions,
    trail: RunTrail,
    seal: Callable[[RunRecord], object],
    progress: Progress | None = None,
    *,
    judge: Callable[[RunRecord], RunRecord] | None = None,
) -> RunRecord:
    """
    Scan as `detectors.scan.scan`, and record it.

    Args:
        options: What to do.
        trail: New.
        seal: Writes the evidence of the record.
        progress: Told of each step's advance.
        judge: Adds to the record what holding it against expectations showed.

    Raises:
        LedgerError: The ledger cannot be opened or written.
        DetectorPoolError: As `detectors.scan.scan`; the end is recorded.
    """
    with trail, Scan(options, progress) as scan:
        trail.started(scan.run_id, options, scan.commitment)
        _ = scan.snapshot()
        trail.planned(scan.plan())
        scan.execute_all()
        scan.reduce()
        settled = scan.settle()
        record = settled if judge is None else judge(settled)
        trail.settled(record)
        _ = seal(record)
    return record


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run under a number that nobody named
        return ""
