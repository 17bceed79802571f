"""The Merkle tree of RFC 6962 over the records: tree heads, and proofs that one record is in the log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

NODE = b"\1"
EMPTY_ROOT = hashlib.sha256(b"").digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(NODE + left + right).digest()


class Frontier:
    """The right edge of a growing tree: it keeps one hash for each bit of its size, so 20 for a million records.

    :param hashes: hashes of a frontier that was kept, the largest subtree first.
    :param size: number of leaves so far.
    """

    def __init__(self, hashes: Iterable[bytes] = (), size: int = 0) -> None:
        self._subtrees, self.size = list(hashes), size

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """What to keep to go on later, with the size."""
        return tuple(self._subtrees)

    def add(self, leaf: bytes) -> None:
        """Add one leaf.

        :param leaf: its hash.
        """
        number = self.size
        while number & 1:
            leaf = node_hash(self._subtrees.pop(), leaf)
            number >>= 1
        self._subtrees.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the tree head over all leaves so far."""
        if not self._subtrees:
            return EMPTY_ROOT
        *others, root = self._subtrees
        for subtree in reversed(others):
            root = node_hash(subtree, root)
        return root


def tree_head(leaves: Iterable[bytes]) -> bytes:
    """Return the tree head over hashes of leaves."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.add(leaf)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that a leaf is in the tree.

    :param leaves: hashes of all leaves.
    :param index: position of the leaf, from 0, below the number of leaves.
    """
    if len(leaves) == 1:
        return []
    split = _largest_power_below(len(leaves))
    if index < split:
        return [*inclusion_proof(leaves[:split], index), tree_head(leaves[split:])]
    return [*inclusion_proof(leaves[split:], index - split), tree_head(leaves[:split])]


def is_included(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether a proof shows that a leaf is in a tree.

    :param leaf: hash of the leaf.
    :param index: its position, from 0.
    :param size: number of leaves of the tree.
    :param proof: the proof.
    :param root: head of the tree.
    """
    if not 0 <= index < size:
        return False
    node, last, seen = index, size - 1, leaf
    for other in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            seen = node_hash(other, seen)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            seen = node_hash(seen, other)
        node, last = node >> 1, last >> 1
    return last == 0 and seen == root


def _largest_power_below(number: int) -> int:
    return 1 << (number - 1).bit_length() - 1
