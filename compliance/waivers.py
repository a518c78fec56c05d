"""
Waivers: findings that somebody lets pass, by a reason, under a control, until a day, with a second person's consent.

A waiver's file holds two JSON Web Signatures: the author's over the terms, and the approver's over the digest of the
author's. Both are keys of people whom the access policy names (`[[requesters]]`), and its rules say who may `waive`
and who may `approve`, on the trees of the run. It is held against the policy of the day on which it is used: who has
left takes his waivers with him.

Source: RFC 7515 (JWS), RFC 8037 (EdDSA in JOSE); four-eyes principle, NIST SP 800-53 rev. 5 AC-5.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from compliance.compact_signatures import MAX_CHARACTERS, sign_compact, verified
from compliance.errors import IdentityUnproven, WaiverRefused
from compliance.identity import Identity, open_regular
from detectors.errors import UsageError

if TYPE_CHECKING:
    from compliance.access_policy import Holder, Policy
    from compliance.signing import SigningKey, VerifyingKey
    from detectors.ports import Action

__all__ = ["STORE", "Approval", "Terms", "WaivedFinding", "Waiver", "approve", "opened", "read_folder", "sign_terms"]

STORE = "waivers"
TERMS_TYPE = "detector-pool-waiver+jws"
APPROVAL_TYPE = "detector-pool-waiver-approval+jws"
FORMAT = 1
MAX_DAYS = 366
MAX_FINDINGS = 250
MAX_TEXT = 2_000
MAX_FILES = 10_000
MAX_FILE_BYTES = 4 * MAX_CHARACTERS
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
CONTROL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()/:-]{0,99}")
SUFFIX = ".json"


class WaivedFinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that is let pass."""

    fingerprint: str
    rule: str = ""
    """As it was shown to who signed; empty where it was not. A finding that differs is not waived."""
    path: str = ""


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the author signs."""

    format: int
    audience: str
    """Of the access policy."""
    findings: tuple[WaivedFinding, ...]
    reason: str
    control: str
    """Under which the risk is accepted, such as `AC-5`."""
    written: str
    """Day, in UTC."""
    until: str
    """Last day, in UTC."""
    nonce: str


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the approver signs."""

    waiver: str
    """Sha256 of the author's signature with all that it signs, hexadecimal."""
    approved: str
    """Day, in UTC."""


class WaiverFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies in a file."""

    waiver: str
    approval: str | None = None


class Waiver(msgspec.Struct, frozen=True):
    """A waiver whose signatures are valid, and who gave them."""

    id: str
    """First 32 digits of the sha256 of the author's signature with all that it signs."""
    terms: Terms
    author: str
    approver: str
    """Empty while nobody has approved."""
    digest: str
    """Of the file."""


def sign_terms(key: SigningKey, policy: Policy, terms: Terms) -> bytes:
    """
    Return a waiver's file, which somebody else has yet to approve.

    Args:
        key: Of one of the policy's requesters.
        policy: Says who may waive.
        terms: With any nonce; it is replaced.

    Raises:
        UsageError: Terms that make no sense.
        WaiverRefused: The key's holder may not waive.
    """
    problem = _senseless(terms, policy)
    if problem:
        raise UsageError(f"this waiver would be refused: {problem}")
    _allowed(_holder(key.public.id, policy, "the waiver"), policy, "waive", ("",), "the waiver")
    signed = sign_compact(
        key, TERMS_TYPE, msgspec.json.encode(msgspec.structs.replace(terms, nonce=secrets.token_hex(16)))
    )
    if len(signed) > MAX_CHARACTERS:
        raise UsageError(f"the waiver is longer than {MAX_CHARACTERS} characters; write several")
    return msgspec.json.encode(WaiverFile(signed)) + b"\n"


def approve(key: SigningKey, policy: Policy, data: bytes, name: str, today: datetime.date) -> bytes:
    """
    Return a waiver's file with an approval.

    Args:
        key: Of one of the policy's requesters, who is not the author.
        policy: Says who may approve.
        data: What `sign_terms` returned.
        name: Of the file, for messages.
        today: In UTC.

    Raises:
        WaiverRefused: With why it would not be believed.
    """
    draft = _decoded(data, name)
    if draft.approval is not None:
        raise WaiverRefused(name, "it is approved already")
    approval = Approval(_sha256(draft.waiver.encode()), today.isoformat())
    signed = WaiverFile(draft.waiver, sign_compact(key, APPROVAL_TYPE, msgspec.json.encode(approval)))
    made = msgspec.json.encode(signed) + b"\n"
    believed = opened(made, policy, name, today, ("",))
    assert believed.approver, "what is handed out is believed"
    return made


def opened(
    data: bytes, policy: Policy, name: str, today: datetime.date, trees: Sequence[str], *, draft: bool = False
) -> Waiver:
    """
    Check a waiver.

    Args:
        data: The file.
        policy: Whose keys are believed, and who may what.
        name: Of the file, for messages.
        today: In UTC.
        trees: Real paths of the sources that it is to hold for; empty text for none.
        draft: Whether one that nobody has approved is looked at, too.

    Raises:
        WaiverRefused: With why.
    """
    held = _decoded(data, name)
    try:
        payload, author = verified(held.waiver, TERMS_TYPE, policy.requester, "the author's signature")
    except IdentityUnproven as problem:
        raise WaiverRefused(name, str(problem)) from problem
    terms = _terms(payload, name)
    wrong = _senseless(terms, policy)
    if wrong:
        raise WaiverRefused(name, wrong)
    if today.isoformat() > terms.until:
        raise WaiverRefused(name, f"it has expired: it was good until {terms.until}")
    if terms.written > (today + datetime.timedelta(days=1)).isoformat():
        raise WaiverRefused(name, f"it was written on {terms.written}, which is yet to come")
    _allowed(author, policy, "waive", trees, name)
    approver = "" if draft and held.approval is None else _approver(held, policy, name, author, trees, today).name
    digest = _sha256(held.waiver.encode())
    assert approver or draft, "only a draft lacks a second person"
    return Waiver(digest[:32], terms, author.name, approver, f"sha256:{_sha256(data)}")


def read_folder(folder: Path) -> list[tuple[str, bytes | WaiverRefused]]:
    """
    Return the waivers of a folder: each file `*.json` by name, with its bytes or why it cannot be read.

    Raises:
        UsageError: There is no such folder, or it holds too many.
    """
    if not folder.is_dir():
        raise UsageError(f"--waivers {folder}: there is no such folder")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(SUFFIX))
    if len(names) > MAX_FILES:
        raise UsageError(f"--waivers {folder}: it holds more than {MAX_FILES} files")
    return [(name, _read(folder / name)) for name in names]


def _read(file: Path) -> bytes | WaiverRefused:
    try:
        descriptor, seen = open_regular(file)
    except OSError as problem:
        return WaiverRefused(file.name, f"it cannot be opened ({problem.strerror})")
    with os.fdopen(descriptor, "rb") as opened_file:
        if seen.st_size > MAX_FILE_BYTES:
            return WaiverRefused(file.name, f"it is larger than {MAX_FILE_BYTES} bytes")
        return opened_file.read(MAX_FILE_BYTES)


def _approver(  # noqa: PLR0917  # p10: ignore[R10] an approval is held against each of these by the maintainers
    held: WaiverFile, policy: Policy, name: str, author: Holder, trees: Sequence[str], today: datetime.date
) -> Holder:
    if held.approval is None:
        raise WaiverRefused(name, "nobody has approved it (`detector-pool waiver approve`)")
    try:
        payload, approver = verified(held.approval, APPROVAL_TYPE, policy.requester, "the approver's signature")
        approval = msgspec.json.decode(payload, type=Approval)
    except (IdentityUnproven, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise WaiverRefused(name, str(problem)) from problem
    # By name: one person with two keys is one person.
    if approver.name == author.name:
        raise WaiverRefused(name, f"{author.name} wrote and approved it; it takes two persons")
    if approval.waiver != _sha256(held.waiver.encode()):
        raise WaiverRefused(name, f"{approver.name} approved another waiver than this one; its content was changed")
    if _day(approval.approved) is None or approval.approved > (today + datetime.timedelta(days=1)).isoformat():
        raise WaiverRefused(name, "the day of its approval is none, or yet to come")
    _allowed(approver, policy, "approve", trees, name)
    return approver


def _allowed(holder: Holder, policy: Policy, action: Action, trees: Sequence[str], name: str) -> None:
    assert trees, "at least one tree is asked about, if it be nowhere"
    identity = Identity(holder.name, "request", holder.roles, "waiver")
    for tree in trees:
        decision = policy.rules.decide(identity, action, STORE, tree=tree)
        if not decision.allowed:
            where = f" on {tree}" if tree else ""
            raise WaiverRefused(name, f"{holder.name} may not {action}{where}: {decision.reason}")


def _holder(key_id: str, policy: Policy, name: str) -> Holder:
    found: tuple[Holder, VerifyingKey] | None = policy.requester(key_id)
    if found is None:
        raise WaiverRefused(name, f"the key {key_id[:16]} is no requester's in {policy.origin}")
    return found[0]


def _terms(payload: bytes, name: str) -> Terms:
    try:
        return msgspec.json.decode(payload, type=Terms)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise WaiverRefused(name, f"its terms cannot be read: {problem}") from problem


def _decoded(data: bytes, name: str) -> WaiverFile:
    if len(data) > MAX_FILE_BYTES:
        raise WaiverRefused(name, f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=WaiverFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise WaiverRefused(name, f"it is no waiver: {problem}") from problem


def _senseless(terms: Terms, policy: Policy) -> str:
    """Return what is wrong with terms; empty for good ones."""
    if terms.format != FORMAT or terms.audience != policy.file.audience:
        return f"it has format {terms.format} and is for {terms.audience!r}; here it is {policy.file.audience!r}"
    prints = [item.fingerprint for item in terms.findings]
    wrong = [one for one in prints if FINGERPRINT.fullmatch(one) is None]
    if wrong or not prints or len(set(prints)) != len(prints) or len(prints) > MAX_FINDINGS:
        return f"it needs 1 to {MAX_FINDINGS} fingerprints of 32 hexadecimal digits, each once" + (
            f", not {wrong[0][:64]!r}" if wrong else ""
        )
    if not terms.reason.strip() or len(terms.reason) > MAX_TEXT:
        return f"it needs a reason of at most {MAX_TEXT} characters"
    if CONTROL.fullmatch(terms.control) is None:
        return "it needs a control, such as AC-5"
    written, until = _day(terms.written), _day(terms.until)
    if written is None or until is None:
        return "its dates are written as 2027-01-31"
    if not 0 <= (until - written).days <= MAX_DAYS:
        return f"it lasts from {written} until {until}; that is at most {MAX_DAYS} days"
    return ""


def _day(text: str) -> datetime.date | None:
    try:
        found = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    # One spelling for each day, so that texts compare as days do.
    return found if found.isoformat() == text else None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
