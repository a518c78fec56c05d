"""
What waivers do to a run: each finding that a valid one speaks of is marked, none is dropped.

The record lists every waiver of the folder with its digest and what became of it, so that the attestation covers them.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from compliance.errors import WaiverRefused
from detectors.errors import UsageError
from detectors.model import LocatedFinding, RunRecord, WaiverRecord

if TYPE_CHECKING:
    from compliance.access_policy import Policy
    from compliance.waivers import Waiver

__all__ = ["open_counts", "sarif_suppression", "with_waivers"]


def with_waivers(run: RunRecord, folder: Path, policy: Policy | None) -> RunRecord:
    """
    Return the record with the findings marked that a folder's waivers let pass.

    Args:
        run: As the engine settled it.
        folder: Of waivers.
        policy: Says whose signatures count.

    Raises:
        UsageError: There is no such folder, no policy, or the record has waivers already.
    """
    # Here: reports ask this module what is waived, and a scan without waivers needs no signatures.
    from compliance.waivers import opened, read_folder
    from detectors.access import real_path

    if policy is None:
        raise UsageError("--waivers needs an access policy that says whose signatures count (`access init`)")
    if run.waivers:
        raise UsageError(f"the waivers of run {run.run_id} were applied already")
    today = datetime.datetime.fromisoformat(run.started).astimezone(datetime.UTC).date()
    trees = tuple(real_path(Path(root.path)) for root in run.roots) or ("",)
    valid: dict[str, tuple[str, Waiver]] = {}
    told: list[WaiverRecord] = []
    for name, data in read_folder(folder):
        try:
            if isinstance(data, WaiverRefused):
                raise data
            waiver = opened(data, policy, name, today, trees)
            if waiver.id in valid:
                raise WaiverRefused(name, f"it is the same as {valid[waiver.id][0]}")
        except WaiverRefused as problem:
            told.append(WaiverRecord("", name, _digest(data), "refused", problem=problem.problem))
            continue
        valid[waiver.id] = (name, waiver)
    marked, used = _marked(run, valid)
    told += [_record(name, waiver, used[waiver.id]) for name, waiver in valid.values()]
    told.sort(key=lambda one: one.file)
    warnings = tuple(
        f"the waiver {one.file} {one.problem if one.state == 'unused' else f'is refused: {one.problem}'}"
        for one in told
        if one.problem
    )
    problems = (*run.problems, *warnings)
    assert len(marked) == len(run.findings), "none is dropped"
    return msgspec.structs.replace(run, findings=marked, waivers=tuple(told), problems=problems)


def open_counts(run: RunRecord) -> tuple[int, int]:
    """Return how many findings stand open without the waivers and with them; suppressed ones are in neither."""
    without = sum(not item.suppressed for item in run.findings)
    with_them = sum(not item.excused for item in run.findings)
    assert with_them <= without, "a waiver adds no finding"
    return without, with_them


def sarif_suppression(run: RunRecord, item: LocatedFinding) -> Mapping[str, Any] | None:
    """Return the SARIF suppression (§3.35) of a finding that is waived; None for others."""
    if not item.waived:
        return None
    waiver = next(one for one in run.waivers if one.id == item.waiver)
    assert waiver.state == "applied", "only those that are valid mark findings"
    return {
        "kind": "external", "status": "accepted", "justification": waiver.reason,
        "properties": {
            "waiver": waiver.id, "control": waiver.control, "until": waiver.until, "author": waiver.author,
            "approver": waiver.approver, "digest": waiver.digest,
        },
    }  # fmt: skip


def _marked(run: RunRecord, valid: Mapping[str, tuple[str, Waiver]]) -> tuple[tuple[LocatedFinding, ...], Counter[str]]:
    by_fingerprint: dict[str, list[Waiver]] = {}
    for _, waiver in sorted(valid.values(), key=lambda one: one[1].id):
        for finding in waiver.terms.findings:
            by_fingerprint.setdefault(finding.fingerprint, []).append(waiver)
    used: Counter[str] = Counter()
    marked: list[LocatedFinding] = []
    for item in run.findings:
        speaking = [one for one in by_fingerprint.get(item.fingerprint, ()) if _is_shown(one, item)]
        used.update(one.id for one in speaking)
        marked.append(msgspec.structs.replace(item, waiver=speaking[0].id) if speaking else item)
    assert used.keys() <= valid.keys(), "who marks is valid"
    return tuple(marked), used


def _is_shown(waiver: Waiver, item: LocatedFinding) -> bool:
    """Tell whether a finding is what the signers were shown under its fingerprint."""
    named = next(one for one in waiver.terms.findings if one.fingerprint == item.fingerprint)
    return named.rule in {"", item.finding.rule} and named.path in {"", item.path}


def _record(name: str, waiver: Waiver, matched: int) -> WaiverRecord:
    assert waiver.approver, "only an approved one is valid"
    terms = waiver.terms
    problem = "" if matched else "matches nothing here; take it out"
    return WaiverRecord(
        waiver.id, name, waiver.digest, "applied" if matched else "unused", waiver.author, waiver.approver,
        terms.reason, terms.control, terms.until, matched, len(terms.findings), problem,
    )  # fmt: skip


def _digest(data: bytes | WaiverRefused) -> str:
    import hashlib

    return "" if isinstance(data, WaiverRefused) else "sha256:" + hashlib.sha256(data).hexdigest()
