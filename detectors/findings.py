"""
Fingerprints, baseline state, and the total order that makes output byte-identical.

Fingerprint `edp/v1`: sha256 over rule, path, the finding's first line with white space folded away, and an ordinal
that parts equal contexts. Message, tool version and line number are not in it, so that it survives moved and
reindented lines and a tool's new wording; the ordinal keeps N findings N.
A file that was renamed is matched with its old name where the match is one to one.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.errors import UsageError
from detectors.model import Digest, Finding, LocatedFinding

__all__ = ["FINGERPRINT", "Baseline", "as_json", "digest", "settle", "sort_key", "with_context"]

FINGERPRINT = "edp/v1"
MAX_BASELINE_BYTES = 1 << 30
MAX_CONTEXT = 200
MAX_PAIRS = 10_000
"""New files times absent ones that are compared for renames; more are another tree, not renames."""


def with_context(finding: Finding, line: Callable[[int], str]) -> Finding:
    """
    Return the finding with the text that its fingerprint stands on.

    Args:
        finding: As the detector made it.
        line: Gives the text of a line number of the finding's file.
    """
    text = "".join(line(finding.region.start_line).split())
    return msgspec.structs.replace(finding, context=text if len(text) <= MAX_CONTEXT else _short(text))


def settle(
    found: Iterable[tuple[str, str, Finding]], baseline: Baseline | None = None
) -> tuple[tuple[LocatedFinding, ...], tuple[dict[str, object], ...]]:
    """
    Give every finding its identity and place.

    Args:
        found: (report path, detector, finding) in any order; none is merged or dropped.
        baseline: What an earlier run reported.

    Returns:
        The findings in their total order, and the baseline's findings that are absent now.
    """
    ordered = sorted(found, key=_total)
    seen: Counter[tuple[str, str, str]] = Counter()
    located = []
    for path, detector, finding in ordered:
        place = (finding.rule, path, finding.context)
        fingerprint = _fingerprint(*place, seen[place])
        seen[place] += 1
        state = "none" if baseline is None else baseline.state(fingerprint, suppressed=finding.suppression is not None)
        located.append(LocatedFinding(path, detector, finding, fingerprint, state))  # type: ignore[arg-type]
    located.sort(key=sort_key)
    if baseline is None:
        return tuple(located), ()
    absent = baseline.absent(item.fingerprint for item in located)
    renamed = _renamed(located, absent)
    if not renamed:
        return tuple(located), absent
    found_again: set[str] = set().union(*(kept.values() for kept in renamed.values()))
    moved = {item for kept in renamed.values() for item in kept}
    states = (
        msgspec.structs.replace(item, baseline="unchanged") if item.fingerprint in moved else item for item in located
    )
    return tuple(states), tuple(entry for entry in absent if entry.get("fingerprint") not in found_again)


def sort_key(item: LocatedFinding) -> tuple[object, ...]:
    """Return the total order of INTERFACE: path, line, column, rule, detector, message, fingerprint."""
    region = item.finding.region
    return (
        item.path, region.start_line, region.start_column, item.finding.rule, item.detector, item.finding.message,
        item.fingerprint,
    )  # fmt: skip


def as_json(item: LocatedFinding) -> dict[str, Any]:
    """Return a finding as `scan --json` shows it."""
    region = item.finding.region
    shown: dict[str, Any] = {
        "rule": item.finding.rule,
        "path": item.path,
        "line": region.start_line,
        "column": region.start_column,
        "level": item.finding.level,
        "message": item.finding.message,
        "detector": item.detector,
        "fingerprint": item.fingerprint,
        "baseline": item.baseline,
        "suppressed": item.suppressed,
    }
    if item.waived:
        shown["waived"] = item.waiver
    if item.finding.related:
        shown["related"] = [
            {"path": related.path or item.path, "line": related.line, "message": related.message}
            for related in item.finding.related
        ]
    return shown


def digest(items: Sequence[LocatedFinding]) -> Digest:
    """
    Return the digest of the canonical findings: one JSON object a line, keys sorted, in total order.

    The baseline's state and the waivers are left out: they say something of another run and of people, not of the tree.
    """
    state = hashlib.sha256()
    for item in items:
        shown = as_json(item)
        del shown["baseline"]
        shown.pop("waived", None)
        state.update(msgspec.json.encode(shown, order="sorted") + b"\n")
    return Digest("sha256:" + state.hexdigest())


class Baseline:
    """
    The findings of an earlier run, by fingerprint.

    Args:
        found: As `as_json` shows them.
    """

    def __init__(self, found: Iterable[dict[str, object]]) -> None:
        self._known = {str(entry.get("fingerprint", "")): entry for entry in found}

    @classmethod
    def read(cls, file: Path) -> Baseline:
        """Return that of a file; raises UsageError for one that cannot be read, or is no output of `scan --json`."""
        try:
            if file.stat().st_size > MAX_BASELINE_BYTES:
                raise UsageError(f"the baseline {file} is larger than {MAX_BASELINE_BYTES} bytes")
            content = msgspec.json.decode(file.read_bytes(), type=_BaselineFile)
        except OSError as problem:
            raise UsageError(f"the baseline {file} cannot be read: {problem.strerror}") from problem
        except msgspec.DecodeError as problem:
            raise UsageError(
                f"{file} is no baseline ({problem}); make one with: detector-pool scan --json"
            ) from problem
        return cls(content.findings)

    def state(self, fingerprint: str, *, suppressed: bool = False) -> str:
        """Return `unchanged` for a finding that the baseline has, else `new`; also `new` once its excuse is gone."""
        known = self._known.get(fingerprint)
        if known is None or (known.get("suppressed") is True and not suppressed):
            return "new"
        return "unchanged"

    def absent(self, present: Iterable[str]) -> tuple[dict[str, object], ...]:
        """Return the baseline's findings that are not among `present`, in the baseline's order."""
        here = set(present)
        return tuple(entry for fingerprint, entry in self._known.items() if fingerprint not in here)


class _BaselineFile(msgspec.Struct):
    findings: list[dict[str, object]]


def _fingerprint(rule: str, path: str, context: str, ordinal: int) -> str:
    return hashlib.sha256(msgspec.msgpack.encode((FINGERPRINT, rule, path, context, ordinal))).hexdigest()[:32]


def _renamed(
    located: Sequence[LocatedFinding], absent: Sequence[dict[str, object]]
) -> dict[tuple[str, str], dict[str, str]]:
    """
    Match files that are new as a whole with files that are gone as a whole.

    A pair matches when, under the old path, at least half of the findings of each would have the fingerprints of the
    other, and neither has another such partner.

    Returns:
        By (old path, new path): the new fingerprints with the old ones.
    """
    known = {item.path for item in located if item.baseline == "unchanged"}
    fresh: dict[str, list[LocatedFinding]] = {}
    for item in located:
        if item.path not in known:
            fresh.setdefault(item.path, []).append(item)
    gone: dict[str, set[str]] = {}
    present = {item.path for item in located}
    for entry in absent:
        path = str(entry.get("path", ""))
        if path not in present:
            gone.setdefault(path, set()).add(str(entry.get("fingerprint", "")))
    if not fresh or not gone or len(fresh) * len(gone) > MAX_PAIRS:
        return {}
    pairs: dict[tuple[str, str], dict[str, str]] = {}
    for new, items in fresh.items():
        for old, fingerprints in gone.items():
            kept = _under(items, old, fingerprints)
            if 2 * len(kept) >= max(len(items), len(fingerprints)):
                pairs[old, new] = kept
    olds, news = Counter(old for old, _ in pairs), Counter(new for _, new in pairs)
    return {(old, new): kept for (old, new), kept in pairs.items() if olds[old] == news[new] == 1}


def _under(items: Sequence[LocatedFinding], path: str, wanted: set[str]) -> dict[str, str]:
    """Return the fingerprints of findings whose file is called `path`, where they are wanted, by the real ones."""
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[str, str] = {}
    for item in sorted(items, key=lambda item: _total((item.path, item.detector, item.finding))):
        place = item.finding.rule, item.finding.context
        fingerprint = _fingerprint(item.finding.rule, path, item.finding.context, seen[place])
        seen[place] += 1
        if fingerprint in wanted:
            found[item.fingerprint] = fingerprint
    return found


def _total(item: tuple[str, str, Finding]) -> tuple[object, ...]:
    """Order whatever differs at all, or ordinals would depend on which worker was first."""
    path, detector, finding = item
    return path, finding.rule, finding.context, finding.region, detector, msgspec.msgpack.encode(finding)


def _short(text: str) -> str:
    # A minified line of megabytes must not be carried with each of its findings; its digest identifies it as well.
    return text[:64] + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
