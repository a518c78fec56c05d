"""What is held against a settled run before its record is sealed, at both doors: waivers, qualifications, muting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detectors.errors import UsageError
from detectors.model import RunRecord

if TYPE_CHECKING:
    from detectors.scan import ScanOptions

__all__ = ["judged"]


def judged(
    run: RunRecord,
    *,
    waivers: Path | None = None,
    qualifications: Path | None = None,
    qualification_key: Path | None = None,
    effect_of: ScanOptions | None = None,
) -> RunRecord:
    """
    Return the record with what the operator's folders say of it.

    Args:
        run: As the engine settled it.
        waivers: Folder of waivers; `None` for none.
        qualifications: Folder of qualification statements; `None` for none.
        qualification_key: Public key whose signature counts for them.
        effect_of: What the scan was asked, where it is to be shown what the tree would have muted.

    Raises:
        UsageError: A folder that is not there, waivers without an access policy, qualifications without a key.
        KeyUnusable, PolicyInvalid: The key or the access policy cannot be used.
    """
    found = run
    if qualifications is not None:
        from compliance.qualification import with_qualifications
        from compliance.signing import VerifyingKey

        if qualification_key is None:
            raise UsageError("--qualifications needs the key whose signature counts (--qualification-key)")
        found = with_qualifications(found, qualifications, VerifyingKey.load(qualification_key))
    if effect_of is not None:
        from compliance.muting_effects import with_effects

        found = with_effects(found, effect_of)
    if waivers is not None:
        from compliance.access_policy import Policy
        from compliance.identity import AccessPlaces
        from compliance.waived_runs import with_waivers

        file = AccessPlaces.read().policy
        found = with_waivers(found, waivers, None if file is None else Policy.read(file))
    assert found.findings_digest == run.findings_digest, "what is said of a run does not change what was found"
    return found
