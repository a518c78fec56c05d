"""
A run's record without the words of its sources, for sources that must not leave their room.

What stays: paths, lines, rules, levels, digests, fingerprints. What goes: messages, since tools quote names and strings
in them (the rule's own summary stands instead), the text that a fingerprint is made of, what comments ask for and why,
what a tool said when it failed, and patterns of ignore files. Digests and fingerprints are of the source: whoever has a
guess of a file or a line can try it against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from detectors import findings
from detectors.model import Finding, Related, RunRecord, Suppression

__all__ = ["NO_EXCERPTS", "WITHHELD", "without_words"]

NO_EXCERPTS: Final = "excerpts=False"
"""In what a record says of its options."""
WITHHELD: Final = "withheld"
IGNORE_LINE: Final = re.compile(r"(?s)(.*\.gitignore:\d+): .*")
QUOTING: Final = " is not used"
"""In warnings about files of the tree, before what is wrong with them."""


def without_words(run: RunRecord) -> RunRecord:
    """
    Return the record with nothing in it that its sources say.

    Args:
        run: As it was settled; the fingerprints of its findings stay, the digest of the findings is of what is left.
    """
    summaries = {rule.id: rule.summary for detector in run.detectors for rule in detector.rules}
    located = tuple(msgspec.structs.replace(item, finding=_finding(item.finding, summaries)) for item in run.findings)
    located = tuple(sorted(located, key=findings.sort_key))
    told = msgspec.structs.replace(
        run,
        findings=located,
        findings_digest=findings.digest(located),
        not_analysed=tuple(msgspec.structs.replace(entry, detail="") for entry in run.not_analysed),
        excluded=tuple(msgspec.structs.replace(one, by=IGNORE_LINE.sub(r"\1", one.by)) for one in run.excluded),
        absent=tuple(_absent(entry) for entry in run.absent),
        problems=tuple(_warning(text) for text in run.problems),
    )
    assert len(told.findings) == len(run.findings), "words go, findings stay"
    assert not any(item.finding.context for item in told.findings), "a line of the source is the source"
    return told


def _finding(finding: Finding, summaries: Mapping[str, str]) -> Finding:
    related = tuple(Related(one.path, one.line, WITHHELD) for one in finding.related)
    excuse = finding.suppression
    if excuse is not None:
        excuse = Suppression(WITHHELD, WITHHELD, "", excuse.until)
    message = summaries.get(finding.rule) or f"{finding.rule}: the tool's words are {WITHHELD}"
    assert message, "a finding says something"
    return msgspec.structs.replace(finding, message=message, related=related, suppression=excuse, context="")


def _absent(entry: Mapping[str, object]) -> dict[str, object]:
    told = {name: value for name, value in entry.items() if name != "related"} | {"message": WITHHELD}
    assert told["message"] == WITHHELD, "a baseline has words of its sources, too"
    return told


def _warning(text: str) -> str:
    before, quoting, _ = text.partition(QUOTING)
    assert before or not text, "a warning begins with what it is about"
    return before + quoting
