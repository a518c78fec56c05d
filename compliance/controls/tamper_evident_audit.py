"""What a pool does is in the ledger, and any change of the ledger afterwards is seen."""

from __future__ import annotations

import dataclasses
import random
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from compliance import ledger_export, ledger_verify
from compliance.control import Control, Observation, Trial
from compliance.ledger import Ledger
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.ports import Action
from detectors.registration import BreakerPolicy

__all__ = ["TamperEvidentAudit"]

FLIPS = 40
"""Bytes in which one bit is flipped, one after another, spread over all files of the ledger."""
EXPECTED = ("detector-registered", "executions-asked", "access-denied", "breaker-changed")


@dataclasses.dataclass(frozen=True)
class _LedgerSink:
    """Writes each event of a pool to a ledger before the pool goes on."""

    ledger: Ledger

    def record(self, event: Mapping[str, Any]) -> None:
        """Append one event."""
        assert event, "an empty event says nothing"
        receipt = self.ledger.append(event)
        assert receipt.checkpoint, "what is acknowledged is under a signed head"


class _NotThatOne:
    """Denies the execution of one detector."""

    def denial(self, action: Action, target: str, _roles: frozenset[str], _tree: str = "", /) -> str | None:
        """Say why not."""
        assert action in ("register", "run"), "the trial opens no store"
        assert target.startswith("trial-"), "it is asked about the trial's own detectors only"
        return "the trial denies it" if action == "run" and target == "trial-denied" else None


def _fails() -> None:
    raise ValueError("injected")


class TamperEvidentAudit(Control):
    """Lets a pool write to a disposable ledger, reads it back, flips bytes of it, and rolls it back."""

    id = "tamper-evident-audit"
    title = "Tamper-evident audit trail"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Compare the ledger with what was done, and count the changes that were caught."""
        folder, keys, passphrase = trial.folder / "ledger", trial.folder / "keys", secrets.token_bytes(24)
        _ = Ledger.create(folder, keys, passphrase, segment_records=4)
        with Ledger.open(folder, keys, passphrase) as ledger:
            done = _work(trial, ledger)
            middle = shutil.copytree(folder, trial.folder / "earlier")
            _ = ledger.append({"event": "trial-ended"})
            anchor = trial.folder / "checkpoint"
            _ = anchor.write_bytes(ledger.checkpoint)
        assert not anchor.is_relative_to(folder), "an anchor lies elsewhere than what it anchors"
        verdict = ledger_verify.verify(folder, checkpoint=anchor, processes=1)
        yield Observation(
            verdict.ok and verdict.anchored, f"{verdict.records} records verify ({verdict.verdict}) by their checkpoint"
        )
        yield _recorded(folder, passphrase, done)
        caught, files = _flipped(folder)
        assert 0 < files <= FLIPS, "each file has a bit flipped"
        yield Observation(caught == FLIPS, f"{caught} of {FLIPS} flipped bits in {files} files were caught")
        rolled = ledger_verify.verify(middle, checkpoint=anchor, processes=1)
        yield Observation(
            rolled.verdict == "tampered", f"an older copy is {rolled.verdict} by the checkpoint kept elsewhere"
        )
        if trial.ledger is not None:
            live = ledger_verify.verify(trial.ledger)
            yield Observation(live.ok, f"the live ledger of {live.records} records is {live.verdict}")


def _work(trial: Trial, ledger: Ledger) -> list[tuple[str, str]]:
    """Do what must be recorded, with auditing as in the live pool; return (kind, detector) of it."""
    audited: dict[str, Any] = {"access_policy": _NotThatOne()}
    if trial.configuration.get("audit_mode"):
        audited["audit_sink"] = _LedgerSink(ledger)
    with trial.pool(**audited) as pool:
        _register(pool)
        _ = pool.execute_detector("trial-denied")
        _ = pool.execute_detector("trial-failing")
        _ = pool.execute_detector("trial-good", "abc")
    assert pool.closed, "nothing more is recorded"
    return [
        ("detector-registered", "trial-good"), ("detector-registered", "trial-denied"),
        ("detector-registered", "trial-failing"), ("access-denied", "trial-denied"),
        ("executions-asked", "trial-denied"), ("executions-asked", "trial-failing"),
        ("breaker-changed", "trial-failing"), ("executions-asked", "trial-good"),
    ]  # fmt: skip


def _register(pool: EnterpriseDetectorPool) -> None:
    assert not pool.closed, "a closed pool takes no detector"
    pool.register_detector("trial-good", len)
    pool.register_detector("trial-denied", len)
    pool.register_detector("trial-failing", _fails, breaker=BreakerPolicy(failures=1, reset_s=3600.0))


def _recorded(folder: Path, passphrase: bytes, done: list[tuple[str, str]]) -> Observation:
    """Tell whether everything that was done stands in the ledger, in order, and can be read back."""
    assert {kind for kind, _ in done} <= set(EXPECTED), "what is looked for is kept"
    lines: list[bytes] = []
    _ = ledger_export.export(folder, passphrase, lines.append)
    kept: list[tuple[str, str]] = []
    for line in b"".join(lines).splitlines():
        event = msgspec.json.decode(line)["event"]
        if event.get("event") in EXPECTED:
            named = event.get("detector") or ",".join(event.get("detectors", ()))
            kept.append((str(event["event"]), str(named)))
    missing = [f"{kind} of {name}" for kind, name in done if (kind, name) not in kept]
    assert len(missing) <= len(done), "some of what was done"
    told = f", without {', '.join(missing)}" if missing else ""
    return Observation(not missing, f"{len(done) - len(missing)} of {len(done)} events of a pool are in it{told}")


def _flipped(folder: Path) -> tuple[int, int]:
    """Flip bits one after another, each put back; return how many were caught, and over how many files they lay."""
    choose = random.Random(7)  # noqa: S311  # a reproducible sample, no secret
    files = sorted(file for file in folder.iterdir() if file.stat().st_size)
    assert files, "a ledger has a genesis"
    caught = 0
    for number in range(FLIPS):
        file = files[number % len(files)]
        sound = file.read_bytes()
        place = choose.randrange(len(sound))
        damaged = bytearray(sound)
        damaged[place] ^= 1 << choose.randrange(8)
        assert damaged != sound, "one bit is another"
        try:
            _ = file.write_bytes(damaged)
            caught += ledger_verify.verify(folder, processes=1).verdict == "tampered"
        finally:
            _ = file.write_bytes(sound)
    return caught, len(files)
