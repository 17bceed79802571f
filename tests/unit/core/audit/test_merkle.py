"""The Merkle tree against the test vectors of Certificate Transparency (RFC 6962)."""

from __future__ import annotations

import hashlib

import pytest

from airflow_mcp.core.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    inclusion_proof,
    is_included,
    tree_head,
)
from airflow_mcp.core.audit.record import record_hash

INPUTS = [
    bytes.fromhex(text)
    for text in (
        *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [record_hash(data) for data in INPUTS]
MANY = [record_hash(str(number).encode()) for number in range(33)]


@pytest.mark.parametrize("size", range(1, 9))
def test_heads_are_those_of_the_rfc(size: int) -> None:
    assert tree_head(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


def test_inclusion_proofs_are_those_of_the_rfc() -> None:
    assert [each.hex() for each in inclusion_proof(LEAVES, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 20, 33])
def test_every_leaf_can_be_proved_and_no_other(size: int) -> None:
    leaves, root = MANY[:size], tree_head(MANY[:size])
    for index, leaf in enumerate(leaves):
        proof = inclusion_proof(leaves, index)
        assert is_included(leaf, index, size, proof, root)
        assert not is_included(record_hash(b"another"), index, size, proof, root)
        assert not is_included(leaf, index, size, [*proof, leaf], root)
        assert not is_included(leaf, size, size, proof, root)
        assert size == 1 or not is_included(leaf, (index + 1) % size, size, proof, root)


def test_a_frontier_goes_on_where_it_was_kept() -> None:
    frontier = Frontier()
    for leaf in MANY[:13]:
        frontier.add(leaf)
    kept = Frontier(frontier.hashes, frontier.size)
    for leaf in MANY[13:]:
        kept.add(leaf)
    assert kept.root() == tree_head(MANY)
