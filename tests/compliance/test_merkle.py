"""Merkle trees as RFC 6962 and RFC 9162 have them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance import merkle
from compliance.errors import ProofInvalid

VECTORS = Path(os.environ.get("DETECTOR_POOL_VECTORS", Path(__file__).parents[3] / "shared" / "vectors")) / "rfc6962"
# transparency-dev/merkle testonly/constants.go (Apache-2.0), the set of google/certificate-transparency: leaves, and
# the roots of their first 0 to 8.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HASHES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
# The one that is valid upstream with a root of 11 bytes, which is no SHA-256: refused here on purpose.
STRICTER = {"sizes-are-equal-one-and-proof-is-empty.json"}
hashes = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


def _nodes(leaves: list[bytes]) -> merkle.Nodes:
    return lambda level, index: merkle.tree_hash(leaves[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    """An auditor's other software must compute our roots."""
    assert merkle.tree_hash(HASHES[:size]).hex() == ROOTS[size]


@given(hashes, st.data())
@settings(max_examples=60, deadline=None)
def test_every_proof_holds_and_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    """A proof that holds for another leaf, place, size or root proves nothing."""
    size = len(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root, old_root = merkle.tree_hash(leaves), merkle.tree_hash(leaves[:old])
    path = merkle.inclusion_proof(_nodes(leaves), index, size)
    steps = merkle.consistency_proof(_nodes(leaves), old, size)

    merkle.verify_inclusion(index, size, leaves[index], path, root)
    merkle.verify_consistency(old, size, steps, old_root, root)
    wrong = merkle.leaf_hash(b"another")
    for changed in (
        (index, size, wrong, path, root),
        (index, size, leaves[index], path, wrong),
        (index, size, leaves[index], (*path, wrong), root),
        (index, size, leaves[index], path[1:], root if path else wrong),
        (size, size, leaves[index], path, root),
        (-1, size, leaves[index], path, root),
        (index, size, leaves[index][:31], path, root),
    ):
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(*changed)
    for altered in (
        (old, size, (*steps, wrong), old_root, root),
        (old, size, steps, wrong, root),
        (old, size, steps, old_root, wrong),
        (old, size, steps[1:], old_root, root if steps else wrong),
        (0, size, steps, old_root, root),
        (size + 1, size, steps, old_root, root),
    ):
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(*altered)


@given(st.lists(hashes, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_tree_that_grows_is_the_tree_made_at_once(parts: list[list[bytes]]) -> None:
    """A ledger is opened again and again from its frontier."""
    frontier, leaves = merkle.Frontier(), []
    for part in parts:
        frontier.extend(part)
        leaves += part
        frontier = merkle.Frontier(frontier.size, frontier.peaks)

        assert frontier.root() == merkle.tree_hash(leaves)


@pytest.mark.parametrize(
    ("size", "peaks"), [(1, ()), (0, (bytes(32),)), (3, (bytes(32),)), (1, (bytes(31),)), (-1, ())]
)
def test_an_impossible_frontier_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    """A header that was changed must not be taken up."""
    with pytest.raises(ValueError, match="peaks"):
        merkle.Frontier(size, peaks)


def test_what_cannot_be_proven_is_refused() -> None:
    """A proof is made for a leaf that is there, and from a tree that is not empty."""
    with pytest.raises(ValueError, match="not in a tree"):
        merkle.inclusion_proof(_nodes(HASHES), 8, 8)
    with pytest.raises(ValueError, match="no consistency proof"):
        merkle.consistency_proof(_nodes(HASHES), 0, 8)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the published test data of transparency-dev is not on this machine")
def test_published_proofs_good_and_bad() -> None:
    """What other verifiers accept and refuse, so do we."""
    files = [*VECTORS.rglob("inclusion/**/*.json"), *VECTORS.rglob("consistency/**/*.json")]
    for file in files:
        case = json.loads(file.read_text())
        proof = [base64.b64decode(node) for node in case["proof"] or []]
        decoded = {
            name: base64.b64decode(case[name] or "") for name in ("root", "root1", "root2", "leafHash") if name in case
        }
        try:
            if "leafIdx" in case:
                merkle.verify_inclusion(case["leafIdx"], case["treeSize"], decoded["leafHash"], proof, decoded["root"])
            else:
                merkle.verify_consistency(case["size1"], case["size2"], proof, decoded["root1"], decoded["root2"])
            refused = False
        except ProofInvalid:
            refused = True

        assert refused == (case["wantErr"] or file.name in STRICTER), file
    assert len(files) >= 196
