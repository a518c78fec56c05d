"""
Merkle trees as transparency logs have them: pure functions over hashes of 32 bytes.

A leaf is hashed as SHA-256(0x00 || leaf), a node as SHA-256(0x01 || left || right), the empty tree as SHA-256 of
nothing. Roots that a proof leads to are compared with a *signed* root, never with one that stood beside the proof.

Source: RFC 6962 §2.1; RFC 9162 §2.1.3 and §2.1.4 for the verification of proofs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from compliance.errors import ProofInvalid

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "Nodes",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "node_hash",
    "root_from_inclusion_proof",
    "tree_hash",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()

Nodes = Callable[[int, int], bytes]
"""(level, index) to the hash of the complete subtree over leaves `index << level` to `(index + 1) << level`."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier:
    """
    What a tree must remember to grow: the roots of its complete subtrees, at most one a level.

    Adding leaves costs two hashes a leaf and memory for the new leaves only; the root costs one hash a level.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """
        Take up a tree where it was left.

        Args:
            size: Leaves so far.
            peaks: What `peaks` of such a tree returned.

        Raises:
            ValueError: There is not one peak of 32 bytes for each one-bit of `size`.
        """
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError(f"a tree of {size} leaves has {max(size, 0).bit_count()} peaks of {HASH_BYTES} bytes")
        self._levels: list[bytes] = [b""] * size.bit_length()
        left = list(peaks)
        for level in range(size.bit_length() - 1, -1, -1):
            if size >> level & 1:
                self._levels[level] = left.pop(0)
        assert not left, "each peak has its level"
        self.size = size
        """Number of leaves."""

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the complete subtrees, the largest (leftmost) first."""
        found = tuple(peak for peak in reversed(self._levels) if peak)
        assert len(found) == self.size.bit_count(), "one peak for each one-bit of the size"
        return found

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaf hashes; level by level, since that is what Python does fastest."""
        if not leaves:
            return
        assert len(leaves[0]) == len(leaves[-1]) == HASH_BYTES, "leaves come as their hashes"
        sha256, nodes = hashlib.sha256, list(leaves)
        self.size += len(nodes)
        for level in range(self.size.bit_length()):
            if not nodes:
                break
            if level == len(self._levels):
                self._levels.append(b"")
            if self._levels[level]:
                nodes.insert(0, self._levels[level])
            self._levels[level] = nodes.pop() if len(nodes) & 1 else b""
            pairs = iter(nodes)
            nodes = [sha256(b"\1" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
        assert len(self._levels) == self.size.bit_length(), "one level for each bit of the size"

    def root(self) -> bytes:
        """Return the root (RFC 6962 MTH)."""
        if not self.size:
            return EMPTY_ROOT
        found = _folded(self.peaks)
        assert len(found) == HASH_BYTES, "a root is a hash"
        return found


def tree_hash(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes (RFC 6962 MTH)."""
    leaves = list(leaf_hashes)
    frontier = Frontier()
    frontier.extend(leaves)
    assert frontier.size == len(leaves), "every leaf is in the tree"
    return frontier.root()


def inclusion_proof(nodes: Nodes, index: int, size: int) -> tuple[bytes, ...]:
    """
    Return PATH(index, D[size]): the siblings from the leaf upwards.

    Args:
        nodes: Hashes of complete subtrees.
        index: Below `size`.
        size: Leaves of the tree that is proven against.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    low, high = 0, size
    path: list[bytes] = []
    for _ in range(size.bit_length()):
        if high - low == 1:
            break
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range_root(nodes, middle, high))
            high = middle
        else:
            path.append(_range_root(nodes, low, middle))
            low = middle
    assert (low, high) == (index, index + 1), "the way down ends at the leaf"
    assert len(path) <= size.bit_length(), "at most one sibling a level"
    return tuple(reversed(path))


def consistency_proof(nodes: Nodes, old_size: int, size: int) -> tuple[bytes, ...]:
    """Return PROOF(old_size, D[size]); 0 < old_size <= size."""
    if not 0 < old_size <= size:
        raise ValueError(f"no consistency proof leads from {old_size} to {size} leaves")
    low, high, whole = 0, size, True
    path: list[bytes] = []
    for _ in range(size.bit_length()):
        if old_size == high:
            break
        middle = low + _split(high - low)
        if old_size <= middle:
            path.append(_range_root(nodes, middle, high))
            high = middle
        else:
            path.append(_range_root(nodes, low, middle))
            low, whole = middle, False
    assert old_size == high, "the way down ends where the old tree ends"
    if not whole:
        path.append(_range_root(nodes, low, high))
    assert len(path) <= size.bit_length() + 1, "at most one subtree a level, and the one that is left"
    return tuple(reversed(path))


def root_from_inclusion_proof(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """
    Compute the root that an inclusion proof claims.

    Args:
        index: 0-based, below `size`.
        size: Leaves of the tree.
        leaf: Leaf hash, 32 bytes.
        path: Sibling hashes, 32 bytes each, from the leaf upwards.

    Raises:
        ProofInvalid: The path is shorter or longer than the tree's shape allows, or a hash has another length.

    Source: RFC 9162 §2.1.3.2.
    """
    _check_hashes((leaf, *path))
    if not 0 <= index < size:
        raise ProofInvalid(f"leaf {index} is not in a tree of {size}")
    position, last, found = index, size - 1, leaf
    for sibling in path:
        if not last:
            raise ProofInvalid("the inclusion proof is longer than the tree is high")
        if position & 1 or position == last:
            found = node_hash(sibling, found)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofInvalid("the inclusion proof is shorter than the tree is high")
    assert len(found) == HASH_BYTES, "a root is a hash"
    return found


def verify_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Hold an inclusion proof against a signed root; raises ProofInvalid (see `root_from_inclusion_proof`)."""
    _check_hashes((root,))
    if root_from_inclusion_proof(index, size, leaf, path) != root:
        raise ProofInvalid("the inclusion proof leads to another root")


def verify_consistency(old_size: int, size: int, path: Sequence[bytes], old_root: bytes, root: bytes) -> None:
    """
    Hold a consistency proof against two signed roots.

    Raises:
        ProofInvalid: It does not show that the smaller tree is the beginning of the larger one. An empty old tree is
            refused, since its proof would show nothing.

    Source: RFC 9162 §2.1.4.2.
    """
    _check_hashes((old_root, root, *path))
    if not 0 < old_size <= size:
        raise ProofInvalid(f"no consistency proof leads from {old_size} to {size} leaves")
    if old_size == size:
        if path or old_root != root:
            raise ProofInvalid("trees of one size have one root and an empty proof")
        return
    hashes = list(path)
    if not old_size & (old_size - 1):
        hashes.insert(0, old_root)
    if not hashes:
        raise ProofInvalid("the consistency proof is empty")
    old, last = old_size - 1, size - 1
    while old & 1:
        old, last = old >> 1, last >> 1
    assert old < last, "the old tree ends before the new one"
    old_found = found = hashes[0]
    for sibling in hashes[1:]:
        if not last:
            raise ProofInvalid("the consistency proof is longer than the tree is high")
        if old & 1 or old == last:
            old_found, found = node_hash(sibling, old_found), node_hash(sibling, found)
            while not old & 1 and old:
                old, last = old >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        old, last = old >> 1, last >> 1
    if last or old_found != old_root or found != root:
        raise ProofInvalid("the consistency proof does not lead from the old root to the new one")


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    assert size > 1, "one leaf cannot be split"
    left = 1 << (size - 1).bit_length() - 1
    assert left < size <= 2 * left, "the left side is full, and not the smaller one"
    return left


def _range_root(nodes: Nodes, low: int, high: int) -> bytes:
    """Return the root over leaves `low` to `high`, where `low` is a multiple of each power of two up to the length."""
    assert low < high, "no leaves have no root"
    peaks = []
    while low < high:
        level = (high - low).bit_length() - 1
        assert low & ((1 << level) - 1) == 0, "a complete subtree begins at a multiple of its length"
        peaks.append(nodes(level, low >> level))
        low += 1 << level
    return _folded(peaks)


def _folded(peaks: Sequence[bytes]) -> bytes:
    assert peaks, "no peaks have no root"
    found = peaks[-1]
    for peak in reversed(peaks[:-1]):
        found = node_hash(peak, found)
    return found


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofInvalid(f"a proof is made of hashes of {HASH_BYTES} bytes")
