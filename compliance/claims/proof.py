"""What compliance claims: controls hold when tried, own code keeps its rules, altered evidence is found out."""

from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from compliance.access_policy import InstalledAccessPolicy
from compliance.control import RecordedEvents
from compliance.defense_compliance_monitor import DefenseComplianceMonitor
from compliance.evidence import collect, verify
from compliance.identity import AccessPlaces
from compliance.score import RULES
from compliance.signing import SigningKey
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import UsageError
from detectors.file_work import source_files
from detectors.ports import Figure, Workplace
from detectors.scan import ScanOptions, scan

__all__ = ["AlteredEvidence", "ControlsHold", "OwnCodeKeepsTheRules"]

CONTROLS = 8
SCORE_AIM_PER_CENT = 95.0
ROOMS = ("detectors", "compliance", "flows", "deployments")
EVIDENCE_FILES = 12
ALTERATIONS_A_FILE = 3


class ControlsHold:
    """The eight operational controls hold when they are tried."""

    part: ClassVar[str] = "compliance"
    title: ClassVar[str] = "the eight operational controls hold when they are tried"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Try each on a disposable pool; see `compliance.controls`."""
        if not workplace.folder.is_dir():
            raise UsageError(f"{workplace.folder} is no folder to work in")
        # A policy of its own: what an operator has not configured yet says nothing of the product.
        policy, sink = _policy(workplace.folder / "state"), RecordedEvents()
        with EnterpriseDetectorPool(workplace.workers, audit_mode=True, audit_sink=sink, access_policy=policy) as pool:
            results = DefenseComplianceMonitor(pool).validate_controls()
        assert results, "some were tried"
        failed = "; ".join(f"{result.id}: {result.evidence}" for result in results if not result.ok)
        yield Figure(
            "controls that hold", sum(result.ok for result in results), "controls", CONTROLS, "at least", len(results),
            method=failed or ", ".join(result.id for result in results),
        )  # fmt: skip


def _policy(state: Path) -> InstalledAccessPolicy:
    """Write an access policy that knows nobody but whoever runs this, and read it."""
    state.mkdir(mode=0o700)
    file = state / "access.toml"
    me = pwd.getpwuid(os.getuid()).pw_name
    _ = file.write_text(f'format = 1\n[users]\n{json.dumps(me)} = ["administrator"]\n')
    file.chmod(0o600)
    policy = InstalledAccessPolicy(AccessPlaces(state, file))
    if policy.policy is None:
        raise UsageError(f"{file} was not read as a policy")
    return policy


class OwnCodeKeepsTheRules:
    """This project's own code keeps the Power of Ten."""

    part: ClassVar[str] = "compliance"
    title: ClassVar[str] = "this project's own code scores 95 % by the Power of Ten"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Scan the installed rooms as `comply` does."""
        rooms = _rooms()
        options = ScanOptions(rooms, cluster="inline", workers=workplace.workers, cache=workplace.cache)
        score, run = DefenseComplianceMonitor().validate_power_of_ten(options)
        if score.score is None or not run.whole:
            raise UsageError(f"there is no score of {', '.join(map(str, rooms))}")
        assert set(score.rules) == set(RULES), "each rule is accounted for"
        unscored = [name for name, rule in score.rules.items() if rule.score is None]
        told = f"{len(run.files)} files, {len(score.rules) - len(unscored)} rules scored"
        yield Figure("Power of Ten", score.score, "%", SCORE_AIM_PER_CENT, "at least", len(run.files), method=told)


def _rooms() -> tuple[Path, ...]:
    """Return the folders of the rooms that are loaded or beside them."""
    house = Path(sys.modules["compliance"].__path__[0]).parent
    rooms = tuple(house / room for room in ROOMS if (house / room).is_dir())
    assert rooms, "this file lies in one of them"
    return rooms


class AlteredEvidence:
    """Evidence verifies, and evidence that was altered anywhere does not."""

    part: ClassVar[str] = "compliance"
    title: ClassVar[str] = "evidence of a real scan verifies, and any altered file of it is found"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        """Sign the evidence of a scan of real files; flip bits, and take files away."""
        tree = workplace.folder / "tree"
        tree.mkdir()
        for number, (path, _) in enumerate(source_files(workplace.sources, EVIDENCE_FILES)):
            _ = shutil.copyfile(path, tree / f"{number:04}-{Path(path).name}")
        run = scan(ScanOptions((tree,), ("power-of-ten-c", "power-of-ten-python"), "inline", workplace.workers))
        folder = workplace.folder / "evidence"
        envelope = collect(run, folder, SigningKey.load_or_create(workplace.folder / "keys"))
        public_key = workplace.folder / "keys" / "public-key.pem"
        assert envelope, "there is an attestation"
        sound = verify(folder, public_key)
        yield Figure("evidence that verifies by its key", int(sound.ok and sound.anchored), "", 1, "at least",
                     len(sound.checked), method=f"{len(run.files)} files, {len(run.findings)} findings")  # fmt: skip
        found, tried = _altered(folder, public_key)
        yield Figure("alterations that were found", found, "alterations", tried, "at least", tried,
                     method="a bit flipped, a byte cut, the file removed; in every file")  # fmt: skip


def _altered(folder: Path, public_key: Path) -> tuple[int, int]:
    """Alter each file in each way, put it back; return how many alterations were named, and of how many."""
    chooser = random.Random(11)  # noqa: S311  # a reproducible sample, no secret
    files = sorted(folder.iterdir())
    if not files:
        raise UsageError(f"{folder} is empty")
    found = 0
    for file in files:
        sound = file.read_bytes()
        flipped = bytearray(sound)
        flipped[chooser.randrange(len(flipped))] ^= 1 << chooser.randrange(8)
        for altered in (bytes(flipped), sound[:-1], None):
            if altered is None:
                file.unlink()
            else:
                _ = file.write_bytes(altered)
            found += not verify(folder, public_key).ok
            _ = file.write_bytes(sound)
    assert verify(folder, public_key).ok, "each was put back"
    assert found <= len(files) * ALTERATIONS_A_FILE, "no alteration counts twice"
    return found, len(files) * ALTERATIONS_A_FILE
