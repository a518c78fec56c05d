"""
How good each detector is on a sealed corpus: cases that were judged in real code, and mutants of real code.

A **found** case is one line of a published source distribution and one rule, judged by reading (violation or clean); a
**mutant** is a real file with a planted violation, or with its harmless twin. Cases without an answer (a tool that is
missing, a file that was not analysed) count for nothing and are told.

Source of the intervals: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from compliance.attestation import snapshot_root
from compliance.mutants import Mutant, asked, drawn, matches
from compliance.score import WARNERS
from detectors.detector import Detector, RuleGroup, discover
from detectors.errors import UsageError
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan

__all__ = ["Corpus", "Figures", "Share", "Trial", "qualify", "share"]

CASE_FILES: dict[Literal["c", "python"], str] = {"c": "c.json", "python": "python.json"}
MAX_CASE_BYTES = 16 << 20
CONFIDENCE = 0.95


class FoundCase(msgspec.Struct, frozen=True):
    """One judged line of a published package."""

    package: str
    version: str
    file: str
    """Below the top folder of the distribution."""
    line: int
    rule: str
    """Such as `P10-R1`."""
    verdict: Literal["violation", "clean"]


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share with its 95 % interval after Wilson; nothing of nothing."""

    good: int
    count: int
    value: float | None
    low: float | None
    high: float | None


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one detector, over all cases or those of one origin and rule."""

    recall: Share
    """What was found of the violations."""
    precision: Share
    """What was a violation of the judged cases that were reported."""
    unanswered: int


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """What came of one detector."""

    detector: str
    version: str
    code_digest: str
    config_digest: str
    figures: Figures
    parts: dict[str, Figures]
    """By origin and rule or operator, such as `found P10-R1` or `mutant eval`."""


class Corpus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """On what: enough to see whether two statements are of the same corpus."""

    cases: str | None
    """Sha256 over the files of found cases; None without them."""
    sources: dict[str, str]
    """Merkle root over the files that were read of each package, by its folder's name and how it was read."""
    mutants: int
    seed: int
    mutants_root: str
    """Merkle root over the files that were made."""


Answer = tuple[str, str, bool, bool | None]
"""Detector, part, whether it is a violation, and whether it was reported (None: no answer)."""


def share(good: int, count: int) -> Share:
    """Return a share with its interval; raises ValueError for more good ones than there are."""
    from scipy.stats import binomtest

    if not 0 <= good <= count:
        raise ValueError(f"{good} of {count} is no share")
    if count == 0:
        return Share(0, 0, None, None, None)
    interval = binomtest(good, count).proportion_ci(CONFIDENCE, method="wilson")
    assert interval.low <= good / count + 1e-9, "the interval holds the share"
    return Share(good, count, good / count, float(interval.low), float(interval.high))


def qualify(
    names: Sequence[str] | None, sources: Path, corpus: Path | None = None, *, seed: int = 0, per_operator: int = 10
) -> tuple[list[Trial], Corpus]:
    """
    Try detectors on the corpus, on one worker, without a cache that others wrote.

    Args:
        names: Of the detectors; all that run without being named for `None`.
        sources: Folder of real code; the packages of found cases lie in it as `<package>-<version>`.
        corpus: Folder of found cases; `None` for mutants alone.
        seed: Of the mutants.
        per_operator: Mutants for each operator.

    Returns:
        A trial for each detector that has cases, and the corpus.

    Raises:
        UsageError: Folders that are not there, or case files that cannot be read.
        UnknownDetector: A name that is not registered.
    """
    chosen = [one for one in discover().select(names) if {"c", "cpp", "python"} & one.languages]
    if not chosen:
        raise UsageError("none of these detectors reads C or Python, so there is no case for them")
    cases = [] if corpus is None else _cases(corpus)
    mutants = drawn(sources, seed, per_operator)
    roots: dict[str, str] = {}
    identities: dict[str, tuple[str, str, str]] = {}
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory(prefix="qualification-") as scratch:
        for package in sorted({f"{case.package}-{case.version}" for case in cases}):
            place = sources / package
            mine = [case for case in cases if f"{case.package}-{case.version}" == package]
            if not place.is_dir():
                answers += [(one.name, f"found {case.rule}", _bad(case), None) for case in mine for one in chosen
                            if _speaks(one, case)]  # fmt: skip
                continue
            for kind, some, files in _shares(chosen, mine):
                run = _scanned(place, some, identities, files)
                roots[f"{package} {kind}"] = snapshot_root(run.files)
                answers += _found(run, mine, some)
        mutant_answers, mutants_root = _mutant_answers(mutants, chosen, Path(scratch), identities)
    answers += mutant_answers
    sealed = Corpus(_sealed(corpus), roots, len(mutants), seed, mutants_root)
    trials = [
        _trial(one.name, identities[one.name], answers) for one in chosen if any(a[0] == one.name for a in answers)
    ]
    return trials, sealed


def _trial(name: str, identity: tuple[str, str, str], answers: Iterable[Answer]) -> Trial:
    mine = [answer for answer in answers if answer[0] == name]
    assert mine, "it has cases"
    parts = {part: _figures([a for a in mine if a[1] == part]) for part in sorted({a[1] for a in mine})}
    whole = _figures(mine)
    assert whole.recall.count == sum(part.recall.count for part in parts.values()), "each case stands in one part"
    return Trial(name, *identity, whole, parts)


def _figures(answers: Sequence[Answer]) -> Figures:
    count = Counter((bad, got) for _, _, bad, got in answers)
    hits, misses, alarms = count[True, True], count[True, False], count[False, True]
    assert sum(count.values()) == len(answers), "each is counted once"
    return Figures(share(hits, hits + misses), share(hits, hits + alarms), count[True, None] + count[False, None])


def _shares(
    chosen: Sequence[Detector], cases: Iterable[FoundCase]
) -> Iterator[tuple[str, list[Detector], tuple[str, ...]]]:
    """Yield who reads the whole package, since its rules look over all files, and who the judged files alone."""
    groups: list[Detector] = [one for one in chosen if isinstance(one, RuleGroup)]
    tools = [one for one in chosen if not isinstance(one, RuleGroup) and any(_speaks(one, case) for case in cases)]
    if groups:
        yield "whole", groups, ()
    if tools:
        yield "judged files", tools, tuple(sorted({f"/{case.file}" for case in cases}))
    assert len(groups) + len(tools) <= len(chosen), "each reads in one way"


def _scanned(
    place: Path, chosen: Sequence[Detector], identities: dict[str, tuple[str, str, str]], files: tuple[str, ...] = ()
) -> RunRecord:
    names = tuple(one.name for one in chosen)
    options = ScanOptions((place,), names, cluster="inline", include=files, ignore=False)
    run = scan(options)
    assert not options.cache, "nothing that others left in a cache is tried"
    for record in run.detectors:
        identities[record.name] = (record.version, record.code_digest, record.config_digest)
    return run


def _found(run: RunRecord, cases: Iterable[FoundCase], chosen: Sequence[Detector]) -> Iterator[Answer]:
    reported: dict[tuple[str, str, int], set[str]] = {}
    for item in run.findings:
        place = (item.detector, item.path, item.finding.region.start_line)
        reported.setdefault(place, set()).add(item.finding.rule)
    answered = {(unit.detector, unit.path) for unit in run.units if unit.state != "not-analysed"}
    for case in cases:
        for one in chosen:
            if not _speaks(one, case):
                continue
            ids = reported.get((one.name, case.file, case.line), set())
            said = any(matches(rule, (case.rule,)) for rule in ids) or (bool(ids) and _warns(one.name, case))
            got = said if (one.name, case.file) in answered else None
            yield one.name, f"found {case.rule}", _bad(case), got


def _speaks(detector: Detector, case: FoundCase) -> bool:
    if not ({"c", "cpp"} if _language(case) == "c" else {"python"}) & detector.languages:
        return False
    return _warns(detector.name, case) or any(matches(rule.id, (case.rule,)) for rule in detector.rules())


def _warns(name: str, case: FoundCase) -> bool:
    """Tell whether a detector speaks for rule 10 in the case's language, whatever its own ids are."""
    return case.rule == "P10-R10" and name in WARNERS[_language(case)]


def _language(case: FoundCase) -> Literal["c", "python"]:
    return "python" if case.file.endswith((".py", ".pyi")) else "c"


def _bad(case: FoundCase) -> bool:
    return case.verdict == "violation"


def _mutant_answers(
    mutants: Sequence[Mutant], chosen: Sequence[Detector], scratch: Path, identities: dict[str, tuple[str, str, str]]
) -> tuple[list[Answer], str]:
    """Scan the files as they were, with violations, and with twins, each kind in a tree of its own."""
    runs: dict[str, RunRecord] = {}
    for kind in ("original", "planted", "twin"):
        place = scratch / kind
        place.mkdir()
        for number, mutant in enumerate(mutants):
            folder = place / str(number)
            folder.mkdir()
            (folder / mutant.name).write_bytes(getattr(mutant, kind))
        runs[kind] = _scanned(place, chosen, identities)
    counts = {kind: Counter((i.detector, i.path, i.finding.rule) for i in run.findings) for kind, run in runs.items()}
    answered = [
        {(unit.detector, unit.path) for unit in run.units if unit.state != "not-analysed"} for run in runs.values()
    ]
    whole = set.intersection(*answered)
    answers: list[Answer] = []
    for number, mutant in enumerate(mutants):
        path = f"{number}/{mutant.name}"
        for one in chosen:
            if not asked(one, mutant.operator):
                continue
            before, planted, twin = (_count(counts[kind], one.name, path, mutant) for kind in runs)
            part = f"mutant {mutant.operator.language} {mutant.operator.name}"
            known = (one.name, path) in whole
            answers.append((one.name, part, True, planted > before if known else None))
            answers.append((one.name, part, False, twin > before if known else None))
    root = snapshot_root(msgspec.structs.replace(file, path=f"{kind}/{file.path}")
                         for kind, run in runs.items() for file in run.files)  # fmt: skip
    return answers, root


def _count(counts: Counter[tuple[str, str, str]], name: str, path: str, mutant: Mutant) -> int:
    assert path.endswith(mutant.name), "it is the mutant's file"
    rules = mutant.operator.rules
    return sum(n for (by, where, rule), n in counts.items() if by == name and where == path and matches(rule, rules))


def _cases(folder: Path) -> list[FoundCase]:
    found: list[FoundCase] = []
    for name in CASE_FILES.values():
        file = folder / name
        try:
            if file.is_file() and file.stat().st_size <= MAX_CASE_BYTES:
                found += msgspec.json.decode(file.read_bytes(), type=list[FoundCase])
        except (OSError, msgspec.DecodeError) as problem:
            raise UsageError(f"--corpus {folder}: {name} cannot be read: {problem}") from problem
    if not found:
        raise UsageError(f"--corpus {folder} holds no cases ({', '.join(CASE_FILES.values())})")
    return found


def _sealed(folder: Path | None) -> str | None:
    if folder is None:
        return None
    state = hashlib.sha256()
    for name in CASE_FILES.values():
        file = folder / name
        digest = hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b""
        state.update(name.encode() + b"\0" + digest)
    assert state.digest_size == 32, "sha256"
    return state.hexdigest()
