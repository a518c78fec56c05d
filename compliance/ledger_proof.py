"""
That a public record is in a ledger, as files that lie beside what the record speaks of.

The proof holds the record in clear and the hashes that lead from it to the root of a signed checkpoint: who has the
ledger's verifier key needs neither the ledger nor a passphrase.

Source: RFC 9162 §2.1.3; C2SP tlog-checkpoint.
"""

from __future__ import annotations

import msgspec

from compliance.errors import CheckpointInvalid, ProofInvalid
from compliance.ledger import Publication
from compliance.ledger_format import MAX_EVENT_BYTES, PREFIX, encode, head_note_bytes, public_payload
from compliance.merkle import leaf_hash, verify_inclusion
from compliance.signing import Checkpoint, VerifyingKey, note_text

__all__ = ["MAX_PROOF_BYTES", "LedgerProof", "claimed_checkpoint", "proof_of", "read_checkpoint", "read_proof"]

FORMAT = 1
MAX_PROOF_BYTES = 2 * MAX_EVENT_BYTES
MAX_PATH = 63


class LedgerProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record in clear, and where it stands."""

    format: int
    origin: str
    index: int
    leaf: bytes
    """The record as it stands in its file."""
    path: tuple[bytes, ...]
    """Sibling hashes of 32 bytes, from the leaf upwards."""

    def event(self) -> dict[str, object]:
        """Return what the record says; raises ProofInvalid if it is not a public record of this index."""
        if self.index < 0:
            raise ProofInvalid(f"there is no record {self.index}")
        payload = public_payload(self.leaf)
        if payload is None:
            raise ProofInvalid("it holds no record in clear")
        if PREFIX.unpack_from(self.leaf)[2] != self.index:
            raise ProofInvalid(f"its record is not record {self.index}")
        return payload.event

    def hold(self, checkpoint: Checkpoint) -> None:
        """Hold it against a signed checkpoint; raises ProofInvalid."""
        if checkpoint.origin != self.origin:
            raise ProofInvalid(f"it is of the ledger {self.origin}, the checkpoint of {checkpoint.origin}")
        if self.index >= checkpoint.size:
            raise ProofInvalid(f"record {self.index} is not among the {checkpoint.size} of the checkpoint")
        verify_inclusion(self.index, checkpoint.size, leaf_hash(self.leaf), self.path, checkpoint.root)


def proof_of(publication: Publication, origin: str) -> bytes:
    """Return the file of a proof."""
    assert public_payload(publication.leaf) is not None, "a published record is in clear"
    assert len(publication.path) <= MAX_PATH, "a path that no reader would take"
    proof = LedgerProof(FORMAT, origin, publication.index, publication.leaf, publication.path)
    return encode(proof) + b"\n"


def read_proof(data: bytes) -> LedgerProof:
    """Return the proof that a file holds; raises ProofInvalid if it holds none, or is spelled otherwise than here."""
    if len(data) > MAX_PROOF_BYTES:
        raise ProofInvalid(f"it is larger than {MAX_PROOF_BYTES} bytes")
    try:
        proof = msgspec.json.decode(data, type=LedgerProof)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ProofInvalid(f"it is no proof: {problem}") from problem
    if proof.format != FORMAT:
        raise ProofInvalid(f"it has format {proof.format}, this release knows {FORMAT}")
    if encode(proof) + b"\n" != data or len(proof.path) > MAX_PATH:
        raise ProofInvalid("it is not spelled as this project spells it")
    return proof


def read_checkpoint(data: bytes, verifier_key: str, origin: str) -> Checkpoint:
    """
    Return the checkpoint that a file holds.

    Args:
        data: A signed note with one signature.
        verifier_key: Of the ledger (C2SP signed-note).
        origin: The ledger's name.

    Raises:
        CheckpointInvalid: It is none, of another ledger, or not signed by that key.
        KeyUnusable: `verifier_key` is none.
    """
    name, key = VerifyingKey.from_vkey(verifier_key, "of the ledger")
    told = claimed_checkpoint(data)
    if told.origin != origin or name != origin:
        raise CheckpointInvalid("in the evidence", f"it is of the ledger {told.origin}, the attestation of {origin}")
    text = note_text(data, origin, key, "in the evidence")
    if len(data) != head_note_bytes(origin, told.size):
        raise CheckpointInvalid("in the evidence", "it is not spelled as this project spells it")
    assert text == told.text(), "what was signed is what it says"
    return told


def claimed_checkpoint(data: bytes, file: str = "in the evidence") -> Checkpoint:
    """Return what a note says, whoever signed it; raises CheckpointInvalid if it is no checkpoint."""
    text, blank, _ = data.rpartition(b"\n\n")
    if not blank or not text:
        raise CheckpointInvalid(file, "it is no signed note")
    return Checkpoint.from_text(text + b"\n", file)
