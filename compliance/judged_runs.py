"""What is held against a settled run before its record is sealed, the same at both doors: waivers."""

from __future__ import annotations

from pathlib import Path

from detectors.model import RunRecord

__all__ = ["judged"]


def judged(run: RunRecord, *, waivers: Path | None = None) -> RunRecord:
    """
    Return the record with what the operator's folders say of it.

    Args:
        run: As the engine settled it.
        waivers: Folder of waivers; `None` for none.

    Raises:
        UsageError: A folder that is not there, or waivers without an access policy.
        PolicyInvalid: The access policy cannot be used.
    """
    if waivers is None:
        return run
    from compliance.access_policy import Policy
    from compliance.identity import AccessPlaces
    from compliance.waived_runs import with_waivers

    file = AccessPlaces.read().policy
    found = with_waivers(run, waivers, None if file is None else Policy.read(file))
    assert found.findings_digest == run.findings_digest, "who lets a finding pass does not change what was found"
    return found
