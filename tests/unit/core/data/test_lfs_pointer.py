"""Pointers of Git LFS are read by its specification, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from airflow_mcp.core.data.lfs_pointer import LfsPointer, lfs_url, read_pointer
from airflow_mcp.exceptions import SourceError

OID = "4d7a" + "0" * 60
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n".encode()


def test_a_pointer_names_hash_size_and_place() -> None:
    found = read_pointer(POINTER)
    assert found == LfsPointer(OID, 12345)
    assert found.object_path == f"4d/7a/{OID}"
    with_extension = POINTER.replace(b"oid", b"ext-0-a sha256:" + b"1" * 64 + b"\noid", 1)
    assert read_pointer(with_extension) == found


@pytest.mark.parametrize(
    "text",
    [b"", b"a,b\n1,2\n", POINTER.replace(b"sha256", b"md5"), POINTER + b"more\n", POINTER.replace(b"12345", b"-1")],
)
def test_what_is_no_pointer_is_none(text: bytes) -> None:
    assert read_pointer(text) is None


@pytest.mark.parametrize(
    ("repo", "config", "url"),
    [
        ("https://h/team/x", None, "https://h/team/x.git/info/lfs"),
        ("https://h/team/x.git", b"", "https://h/team/x.git/info/lfs"),
        ("https://h/team/x", b"[lfs]\n\turl = https://other/lfs/\n", "https://other/lfs"),
        ("file:///srv/x.git", None, "file:///srv/x.git"),
        ("ssh://git@h/x", None, "ssh://git@h/x"),
    ],
)
def test_the_store_is_where_the_repository_says_or_beside_it(repo: str, config: bytes | None, url: str) -> None:
    assert lfs_url(repo, config) == url


def test_a_config_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(SourceError, match=r"\.lfsconfig of https://h/x cannot be read"):
        lfs_url("https://h/x", b"url")
