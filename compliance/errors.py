"""
Errors of the proof, below the engine's base error:

    DetectorPoolError
    └── EvidenceError         exit 3
        ├── EvidenceExists    exit 2   the folder is taken
        ├── CoverageIncomplete  exit 4  a run that calls itself whole, and whose units do not add up
        ├── DataInvalid       exit 1   a run's own tables do not hold what is expected of them
        ├── SuiteBroken       exit 3   expectations that cannot be evaluated say nothing of the data
        ├── ExpectationsMissing  exit 2   Great Expectations is not installed
        ├── KeyUnusable       exit 2   the signing key is missing, too open, of another kind, or locked
        ├── AttestationInvalid  exit 1  an attestation is not signed, or is not what it should be
        ├── NotReperformable  exit 2   the sources or the detectors are not those of the run
        ├── NotCarried        exit 2   a record does not say enough to be compared with another
        ├── PolicyInvalid     exit 2   the access policy cannot be read or makes no sense
        ├── IdentityUnproven  exit 6   a token, key or signed request does not prove who somebody is
        ├── WaiverRefused     exit 1   a waiver that is not believed
        └── LedgerError       exit 7   a ledger cannot be read or written
            ├── LedgerDamaged      exit 1   it was changed, or is damaged
            ├── ProofInvalid       exit 1   a Merkle proof does not lead to the signed root
            ├── CheckpointInvalid  exit 2   a checkpoint that cannot serve as an anchor
            │   └── CheckpointReleased  exit 2   it lies before what a retention kept
            ├── LedgerMissing      exit 2   there is no ledger, or one where none must be
            ├── LedgerBusy         exit 5   another writer holds it
            ├── LedgerLocked       exit 6   the passphrase or the signing key is wrong or missing
            └── LedgerUnwritable   exit 7   the operating system refused to write or read

That evidence or a ledger does not verify is an answer (`evidence.Verdict`, `ledger_verify.Verdict`), never an
exception; `LedgerDamaged` comes where a damaged ledger is to be written to or read from.
"""

from __future__ import annotations

from detectors.errors import DetectorPoolError, told

__all__ = [
    "AttestationInvalid",
    "CheckpointInvalid",
    "CheckpointReleased",
    "CoverageIncomplete",
    "DataInvalid",
    "EvidenceError",
    "EvidenceExists",
    "ExpectationsMissing",
    "IdentityUnproven",
    "KeyUnusable",
    "LedgerBusy",
    "LedgerDamaged",
    "LedgerError",
    "LedgerLocked",
    "LedgerMissing",
    "LedgerUnwritable",
    "NotCarried",
    "NotReperformable",
    "PolicyInvalid",
    "ProofInvalid",
    "SuiteBroken",
    "WaiverRefused",
]


class EvidenceError(DetectorPoolError):
    """Evidence cannot be written."""


@told
class EvidenceExists(EvidenceError):
    """The evidence folder exists and is not empty; evidence is never overwritten."""

    exit_code = 2

    folder: str
    message = "{folder} exists and is not empty; evidence is never overwritten: name a new folder"


@told
class CoverageIncomplete(EvidenceError):
    """A run that calls itself whole while files are unaccounted for; it is not sealed."""

    exit_code = 4

    count: int
    problems: tuple[str, ...]
    message = "the run is not sealed as whole: {count} units do not add up, such as: {problems}"


@told
class DataInvalid(EvidenceError):
    """Tables of a run that do not hold what is expected of them."""

    exit_code = 1

    problem: str
    message = "the run's own tables are not as they must be, so do not rely on it: {problem}"


@told
class SuiteBroken(EvidenceError):
    """Expectations that cannot be evaluated; nothing is known of the data."""

    exit_code = 3

    problem: str
    message = "the expectations themselves are broken, and say nothing of the data: {problem}"


class ExpectationsMissing(EvidenceError):
    """Great Expectations is not installed."""

    exit_code = 2
    message = "validation needs Great Expectations: pip install 'enterprise-detector-pool[validation]'"


@told
class KeyUnusable(EvidenceError):
    """A key file that must not or cannot be used."""

    exit_code = 2

    file: str
    problem: str
    message = "the key {file} cannot be used: {problem}"


class AttestationInvalid(EvidenceError):
    """An attestation that is not signed by the key that is asked for, or is not what it should be."""

    exit_code = 1


class NotReperformable(EvidenceError):
    """Sources, detectors or options that are not those of the run: what they would show proves nothing of it."""

    exit_code = 2


class NotCarried(EvidenceError):
    """A run whose record does not say enough to be compared with another, unit by unit."""

    exit_code = 2


@told
class PolicyInvalid(EvidenceError):
    """The access policy cannot be read, is open to others, or makes no sense; until then nobody may anything."""

    exit_code = 2

    file: str
    problem: str
    message = "the access policy {file} cannot be used: {problem}"


@told
class IdentityUnproven(EvidenceError):
    """A token, a key or a signed request does not prove who somebody is."""

    exit_code = 6

    proof: str
    problem: str
    message = "{proof} proves nothing: {problem}"


@told
class WaiverRefused(EvidenceError):
    """A waiver that is not believed: expired, forged, of one person, by somebody who may not."""

    exit_code = 1

    waiver: str
    problem: str
    message = "the waiver {waiver} is refused: {problem}"


class LedgerError(EvidenceError):
    """A ledger cannot be read or written."""

    exit_code = 7


@told
class LedgerDamaged(LedgerError):
    """The ledger was changed or is damaged; nothing is read from or added to it."""

    exit_code = 1

    ledger: str
    index: int
    problem: str
    message = (
        "the ledger {ledger} is damaged at record {index}: {problem}; "
        "keep the folder as it is, and compare it with a copy and with checkpoints kept elsewhere"
    )


class ProofInvalid(LedgerError):
    """A Merkle proof does not lead to the root that it is held against."""

    exit_code = 1


@told
class CheckpointInvalid(LedgerError):
    """A checkpoint that cannot serve as an anchor: empty, damaged, forged, or of another ledger."""

    exit_code = 2

    origin: str
    problem: str
    message = "the checkpoint {origin} cannot be used: {problem}"


class CheckpointReleased(CheckpointInvalid):
    """A checkpoint of records that a retention released: what is left cannot be held against it."""


@told
class LedgerMissing(LedgerError):
    """There is no ledger where one must be, or something where a new one shall be."""

    exit_code = 2

    folder: str
    problem: str
    message = "{folder}: {problem}"


@told
class LedgerBusy(LedgerError):
    """Another process holds the ledger for writing."""

    exit_code = 5

    ledger: str
    message = "another writer holds the ledger {ledger}; there is one writer at a time, wait until it has ended"


@told
class LedgerLocked(LedgerError):
    """The passphrase or the signing key is wrong or missing."""

    exit_code = 6

    ledger: str
    problem: str
    message = "the ledger {ledger} stays closed: {problem}"


@told
class LedgerUnwritable(LedgerError):
    """The operating system refused: disk full, read-only folder, device error."""

    ledger: str
    problem: str
    message = (
        "the ledger {ledger} cannot be read or written: {problem}; "
        "what was acknowledged is kept, what was not is to be appended again"
    )
