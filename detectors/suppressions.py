"""
Suppressions in the source, and what becomes of them.

A comment such as `p10: ignore[R3] one buffer for the life of the program until 2027-01-31 by A. Reviewer` asks for
silence about the findings on its line, or, standing alone, on the next line of code. It needs a reason and an owner;
the date is optional. Nothing is dropped: a suppressed finding stays in the evidence, marked. A suppression that is
malformed, past its date, or suppresses nothing is a finding itself.
"""

from __future__ import annotations

import datetime
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from detectors.model import Finding, Marker, Region, RuleRecord, Suppression
from detectors.parsing import ParsedFile

__all__ = ["RULES", "applied", "markers_of"]

ASKS = re.compile(r"\bp10:\s*ignore\b")
FORM = re.compile(r"\bp10:\s*ignore\s*\[([^\]]*)\]\s*(.*)", re.S)
RULE = re.compile(r"R(?:10|[1-9])|P10-R(?:10|[1-9])(?:-[a-z0-9-]+)?")
C_COMMENT = re.compile(
    rb"(?P<comment>/\*[\s\S]*?(?:\*/|\Z)|//(?:[^\\\n]|\\[\s\S]?)*+)"
    rb"|\"(?:[^\"\\\n]|\\[\s\S]?)*+\"?|'(?:(?<![0-9a-fA-F]'))(?:[^'\\\n]|\\[\s\S]?)*+'?"
)
MALFORMED, EXPIRED, UNUSED = "P10-suppression-malformed", "P10-suppression-expired", "P10-suppression-unused"
RULES = (
    RuleRecord(
        MALFORMED,
        "warning",
        "A suppression without a rule, a reason or an owner.",
        "A suppression without a rule, a reason or an owner.\n\nWhy: who asks for silence says why and stands for it."
        "\nInstead: `p10: ignore[R3] the reason until 2027-01-31 by the owner`; the date may be left out.",
    ),
    RuleRecord(
        EXPIRED,
        "warning",
        "A suppression past its date.",
        "A suppression past its date.\n\nWhy: it was granted until then.\nInstead: mend the finding, or grant it anew.",
    ),
    RuleRecord(
        UNUSED,
        "warning",
        "A suppression that suppresses nothing.",
        "A suppression that suppresses nothing.\n\nWhy: it would hide the next finding there.\nInstead: delete it.",
    ),
)
MAX_SHOWN = 300
MAX_AHEAD = 50
"""Lines after a comment of its own in which the line of code is looked for that it speaks of."""


def markers_of(parsed: ParsedFile) -> tuple[Marker, ...]:
    """Return the suppressions that the comments of a C, C++ or Python file ask for, in order."""
    if b"p10:" not in parsed.source or not ASKS.search(parsed.text):
        return ()
    comments = _python_comments(parsed) if parsed.language == "python" else _c_comments(parsed)
    return tuple(_marker(parsed, start, end, text) for start, end, text in comments if ASKS.search(text))


def applied(
    found: Iterable[tuple[str, str, Finding]],
    markers: Mapping[tuple[str, str], tuple[Marker, ...]],
    today: datetime.date,
    ran: Mapping[str, frozenset[str]],
    speakers: Mapping[str, str],
) -> Iterator[tuple[str, str, Finding]]:
    """
    Yield all findings, those marked that a suppression speaks of, and the findings about the suppressions.

    Args:
        found: (report path, detector, finding).
        markers: By report path and detector.
        today: Of the run, in UTC; a suppression is good through its date.
        ran: Ids of the rules that ran, by detector: what did not run says nothing of a suppression.
        speakers: Tools whose findings break a rule of ours, and that rule: who suppresses the rule suppresses them.
    """
    used: set[tuple[str, str, Marker]] = set()
    by_path: dict[str, list[tuple[str, Marker]]] = {}
    for (path, owner), listed in markers.items():
        by_path.setdefault(path, []).extend((owner, marker) for marker in listed)
    for path, detector, finding in found:
        rule = speakers.get(detector, finding.rule)
        asked = (
            (owner, item)
            for owner, item in by_path.get(path, ())
            if (owner == detector or detector in speakers) and _speaks_of(item, rule, finding.region.start_line)
        )
        owner, marker = next(((owner, item) for owner, item in asked if _good(item, today)), ("", None))
        if marker is None:
            yield path, detector, finding
            continue
        used.add((path, owner, marker))
        excuse = Suppression(marker.text, marker.reason, marker.owner, marker.until)
        yield path, detector, msgspec.structs.replace(finding, suppression=excuse)
    for (path, detector), listed in markers.items():
        for marker in listed:
            told = _told(marker, today, used=(path, detector, marker) in used, ran=ran.get(detector, frozenset()))
            if told is not None:
                rule, message = told
                region = Region(marker.line, marker.column)
                yield path, detector, Finding(rule, "warning", message, region, context="".join(marker.text.split()))


def _told(marker: Marker, today: datetime.date, *, used: bool, ran: frozenset[str]) -> tuple[str, str] | None:
    if marker.problem:
        return MALFORMED, marker.problem
    if not _good(marker, today):
        return EXPIRED, f"this suppression by {marker.owner} was good until {marker.until}"
    if used or not any(_names(rule, one) for rule in marker.rules for one in ran):
        return None
    return UNUSED, f"nothing of {', '.join(marker.rules)} is found here any more; delete the suppression"


def _good(marker: Marker, today: datetime.date) -> bool:
    return not marker.problem and (not marker.until or datetime.date.fromisoformat(marker.until) >= today)


def _speaks_of(marker: Marker, rule: str, line: int) -> bool:
    return marker.target == line and any(_names(asked, rule) for asked in marker.rules)


def _names(asked: str, rule: str) -> bool:
    """Tell whether `R3` or `P10-R3-dynamic-memory` means a rule's id."""
    prefix = asked if asked.startswith("P10-") else f"P10-{asked}"
    return rule == prefix or rule.startswith(prefix + "-")


def _marker(parsed: ParsedFile, start: int, end: int, text: str) -> Marker:
    region = parsed.region(start, end)
    shown = " ".join(text.split())[:MAX_SHOWN]
    target = _target(parsed, start, end, region)
    rules: tuple[str, ...] = ()
    reason = owner = until = problem = ""
    form = FORM.search(" ".join(text.removesuffix("*/").split()))
    if form is None:
        problem = "name the rules in brackets: p10: ignore[R3] reason by owner"
    else:
        rules = tuple(dict.fromkeys(item.strip() for item in form[1].split(",") if item.strip()))
        said, _, owner = form[2].rpartition(" by ")
        reason, until = said.strip(), ""
        if dated := re.search(r"(?:^|\s)until\s+(\S+)$", reason):
            reason, until = reason[: dated.start()].strip(), dated[1]
        owner = owner.strip()
        problem = _problem(rules, reason, owner, until)
    return Marker(region.start_line, region.start_column, target, rules, reason, owner, until, shown, problem)


def _problem(rules: tuple[str, ...], reason: str, owner: str, until: str) -> str:
    wrong = [rule for rule in rules if RULE.fullmatch(rule) is None]
    if not rules or wrong:
        return f"{', '.join(wrong) or 'an empty list'} names no rule; such as R3 or P10-R3-dynamic-memory"
    if not reason or not owner:
        return "a suppression needs a reason and an owner: p10: ignore[R3] reason by owner"
    try:
        if until:
            datetime.date.fromisoformat(until)
    except ValueError:
        return f"{until} is no date; write it as 2027-01-31"
    return ""


def _target(parsed: ParsedFile, start: int, end: int, region: Region) -> int:
    """Return the line that a comment speaks of: its own if code stands on it, else the next that is not blank."""
    starts = parsed.line_starts
    last = parsed.region(end, end).start_line
    before = parsed.source[starts[region.start_line - 1] : start].strip()
    after = parsed.source[end : starts[last] if last < len(starts) else len(parsed.source)].strip()
    if before:
        return region.start_line
    if after:
        return last
    for line in range(last + 1, last + 1 + MAX_AHEAD):
        text = parsed.line(line).strip()
        if text and not text.startswith(("#", "//", "/*")):
            return line
    return last


def _c_comments(parsed: ParsedFile) -> Iterator[tuple[int, int, str]]:
    for match in C_COMMENT.finditer(parsed.source):
        if match["comment"]:
            yield match.start(), match.end(), match[0].decode("utf-8", "replace")


def _python_comments(parsed: ParsedFile) -> Iterator[tuple[int, int, str]]:
    starts = parsed.line_starts
    try:
        for token in tokenize.generate_tokens(io.StringIO(parsed.text).readline):
            if token.type == tokenize.COMMENT and token.start[0] <= len(starts):
                start = starts[token.start[0] - 1] + len(token.line[: token.start[1]].encode("utf-8", "surrogatepass"))
                yield start, start + len(token.string.encode("utf-8", "surrogatepass")), token.string
    except (tokenize.TokenError, SyntaxError):
        return  # what cannot be read is no Python, and has no findings of ours
