"""
Re-performance: a sample of a run's answers computed again from the sources, without cache, and compared byte by byte.

The auditor chooses the seed after the evidence was made, so that nobody could know which answers would be looked at. A
unit's rank is HMAC-SHA256(seed, path, zero byte, detector); the sample is the units of the lowest ranks. Where a share
p of the answers is false, a sample of n shows at least one with probability 1 - (1 - p)^n or more.

Not re-performed are findings of rules over the whole tree (recursion and the like), which no sample of files decides;
they are counted in the statement. Source: HMAC, RFC 2104.
"""

from __future__ import annotations

import datetime
import hmac
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from compliance.assurance_statement import Evidence, signed_statement
from compliance.attestation import snapshot_root
from compliance.errors import NotReperformable
from compliance.signing import SigningKey
from compliance.unit_findings import Unit, digest_of, fresh_answers, of_whole_tree, recorded_answers
from detectors.detector import Registry, RuleGroup, discover
from detectors.model import DetectorRecord, RunRecord, SourceFile
from detectors.ports import Progress
from detectors.rule_settings import RuleSettings
from detectors.scan import Scan, ScanOptions
from detectors.withholding import NO_EXCERPTS

__all__ = ["PREDICATE_TYPE", "Asked", "Reperformance", "ReperformedUnit", "reperform", "sampled", "statement_of"]

PREDICATE_TYPE = "urn:enterprise-detector-pool:predicate:reperformance:v1"
SHOWN = 3


class Asked(msgspec.Struct, frozen=True):
    """What the auditor asks for."""

    sources: tuple[Path, ...]
    """The trees, in the order of the run's own."""
    seed: str
    sample: int
    """Units, at least 1; all where the run has no more."""
    cluster: str = "local"
    """`local` for processes of their own; `inline` for this one."""
    workers: int | None = None


class ReperformedUnit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One answer, then and now."""

    path: str
    detector: str
    state: str
    """In the record: `executed`, `cached` or `not-analysed`."""
    run_id: str
    """The run that computed the recorded answer."""
    recorded: str
    """Sha256 over the recorded findings, one canonical JSON a line."""
    reperformed: str
    missing: tuple[str, ...] = ()
    """Findings that the record has and the sources do not show."""
    unrecorded: tuple[str, ...] = ()
    """Findings that the sources show and the record has not."""

    @property
    def same(self) -> bool:
        """Whether both are the same bytes."""
        return self.recorded == self.reperformed


class Reperformance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The predicate: what was done again, and what came out."""

    run_id: str
    started: str
    """RFC 3339, UTC."""
    seed: str
    sample: int
    units: int
    """Of the run, from which the sample was drawn."""
    snapshot: str
    """Merkle root over the sources, which is that of the evidence."""
    environment: dict[str, str]
    same: int
    different: int
    beyond: int
    """Findings of the record that no sample re-performs: those of rules over the whole tree."""
    answers: tuple[ReperformedUnit, ...]


def sampled(record: RunRecord, seed: str, sample: int) -> list[Unit]:
    """Return the units of the lowest ranks under a seed, lowest first."""
    if sample < 1 or not seed:
        raise NotReperformable("a sample needs a seed and at least one unit; give --seed and --sample")

    def rank(unit: Unit) -> bytes:
        return hmac.digest(seed.encode(), f"{unit[0]}\0{unit[1]}".encode(), "sha256")

    chosen = sorted(((unit.path, unit.detector) for unit in record.units), key=rank)[:sample]
    assert len(chosen) == min(sample, len(record.units)), "all, where the run has no more"
    return chosen


def reperform(evidence: Evidence, asked: Asked, progress: Progress | None = None) -> Reperformance:
    """
    Compute a sample of a run's answers again.

    Args:
        evidence: Verified.
        asked: Which sources, seed, sample.
        progress: Told of each step's advance.

    Raises:
        NotReperformable: The sources or the detectors are not those of the run, or its options cannot be read.
        DetectorPoolError: As `detectors.scan.scan`.
    """
    record = evidence.record
    chosen = sampled(record, asked.seed, asked.sample)
    registry, started = discover(), datetime.datetime.now(datetime.UTC)
    with Scan(_options(record, asked), progress) as scan:
        _check_sources(record, scan.snapshot().files)
        _ = scan.plan()
        _check_detectors(_that_ran(record), scan.identities())
        scan.only(_with_readers_of_suppressions(record, chosen, registry))
        scan.execute_all()
        outcomes = {
            unit: outcome for unit, outcome in scan.answers().items() if unit[0] in {path for path, _ in chosen}
        }
    missing = [unit for unit in chosen if unit not in outcomes]
    if missing:
        raise NotReperformable(f"no answer came for {_shown(f'{path} by {name}' for path, name in missing)}")
    beyond = of_whole_tree(registry)
    day = datetime.datetime.fromisoformat(record.started).date()
    answers = _compared(record, chosen, fresh_answers(outcomes, registry, day, beyond), beyond)
    return Reperformance(
        run_id=record.run_id,
        started=started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        seed=asked.seed,
        sample=len(chosen),
        units=len(record.units),
        snapshot=snapshot_root(record.files),
        environment={"python": platform.python_version(), "machine": platform.machine()},
        same=sum(answer.same for answer in answers),
        different=sum(not answer.same for answer in answers),
        beyond=sum(item.finding.rule in beyond for item in record.findings),
        answers=answers,
    )


def statement_of(evidence: Evidence, told: Reperformance, key: SigningKey) -> bytes:
    """Return the signed statement's file."""
    assert told.same + told.different == told.sample == len(told.answers), "each unit of the sample is accounted for"
    assert told.run_id == evidence.record.run_id, "it speaks of this evidence"
    return signed_statement((evidence,), PREDICATE_TYPE, told, key)


def _options(record: RunRecord, asked: Asked) -> ScanOptions:
    """Return the run's own options, as its record lists them, for the auditor's copy of the sources."""
    if NO_EXCERPTS in record.command:
        raise NotReperformable("it was made with --no-excerpts, and so does not say what was found in words")
    said = dict(option.partition("=")[::2] for option in record.command)
    try:
        settings = msgspec.json.decode(said["settings"], type=RuleSettings)
        patterns = [tuple(item for item in said[name].split(",") if item) for name in ("include", "exclude")]
        ignore = {"True": True, "False": False}[said["ignore"]]
    except (KeyError, msgspec.DecodeError) as problem:
        raise NotReperformable("its record does not say with which options it ran") from problem
    if len(asked.sources) != len(record.roots):
        raise NotReperformable(f"the run was over {len(record.roots)} trees; give --sources for each, in their order")
    return ScanOptions(
        paths=asked.sources,
        detectors=tuple(item.name for item in _that_ran(record)),
        cluster=asked.cluster,
        workers=asked.workers,
        use_cache=False,
        include=patterns[0],
        exclude=patterns[1],
        ignore=ignore,
        settings=settings,
    )


def _that_ran(record: RunRecord) -> tuple[DetectorRecord, ...]:
    """Return the detectors of a run but for tools whose results were taken in: they ran elsewhere."""
    taken_in = {item.detector for item in record.imports}
    assert not taken_in & {unit.detector for unit in record.units}, "who has units has run"
    return tuple(item for item in record.detectors if item.name not in taken_in)


def _check_sources(record: RunRecord, files: Sequence[SourceFile]) -> None:
    """Refuse sources that are not the run's: their answers would be other ones, and prove nothing."""
    then = {file.path: file.digest for file in record.files}
    now = {file.path: file.digest for file in files}
    unlike = sorted(path for path in then.keys() | now.keys() if then.get(path) != now.get(path))
    if unlike:
        raise NotReperformable(f"the sources are not those of the run: {_shown(unlike)}")
    assert len(then) == len(now), "the same files, no more and no fewer"


def _check_detectors(then: Sequence[DetectorRecord], now: Sequence[DetectorRecord]) -> None:
    """Refuse another release, rule setting or tool than the run's; each detector says which differ."""
    ran = {item.name: (item.version, item.code_digest, item.config_digest) for item in then}
    runs = {item.name: (item.version, item.code_digest, item.config_digest) for item in now}
    unlike = sorted(name for name in ran.keys() | runs.keys() if ran.get(name) != runs.get(name))
    if unlike:
        told = _shown(
            f"{name} (run: {ran.get(name, ('none',))[0]}, here: {runs.get(name, ('none',))[0]})" for name in unlike
        )
        raise NotReperformable(f"the detectors here are not those of the run, by version, code or settings: {told}")
    assert len(ran) == len(runs), "the same detectors"


def _with_readers_of_suppressions(record: RunRecord, chosen: Iterable[Unit], registry: Registry) -> frozenset[Unit]:
    """Return the sample and, for its files, the groups of rules: they read the suppressions that others heed."""
    chosen = frozenset(chosen)
    groups = {detector.name for detector in registry if isinstance(detector, RuleGroup)}
    paths = {path for path, _ in chosen}
    more = {(unit.path, unit.detector) for unit in record.units if unit.path in paths and unit.detector in groups}
    assert chosen, "a sample has units"
    return chosen | more


def _compared(
    record: RunRecord, chosen: Sequence[Unit], fresh: dict[Unit, tuple[bytes, ...]], beyond: frozenset[str]
) -> tuple[ReperformedUnit, ...]:
    then = recorded_answers(record, beyond)
    states = {(unit.path, unit.detector): unit for unit in record.units}
    answers = []
    for unit in chosen:
        before, now = then[unit], fresh[unit]
        missing = tuple(line.decode() for line in before if line not in now)
        unrecorded = tuple(line.decode() for line in now if line not in before)
        state, run_id = states[unit].state, states[unit].run_id
        answer = ReperformedUnit(*unit, state, run_id, digest_of(before), digest_of(now), missing, unrecorded)
        assert answer.same == (before == now), "digests part what differs"
        answers.append(answer)
    return tuple(answers)


def _shown(items: Iterable[str]) -> str:
    listed = list(items)
    assert listed, "there is something to show"
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
