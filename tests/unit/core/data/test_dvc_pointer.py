"""What DVC writes into Git about data and remotes is read as DVC reads it."""

from __future__ import annotations

import pytest

from airflow_mcp.core.data.dvc_pointer import (
    TrackedOutput,
    folder_hash,
    pointer_files,
    read_folder,
    remote_url,
    tracked_output,
)
from airflow_mcp.exceptions import SourceError

DOT_DVC = b"outs:\n- md5: aa11\n  size: 5\n  hash: md5\n  path: train.csv\n"
LOCK = b"""schema: '2.0'
stages:
  prepare:
    cmd: python prepare.py
    deps: [{path: raw.csv, md5: ff00}]
    outs:
    - {path: out/train, md5: bb22.dir, size: 9}
  other: {outs: null}
"""


def test_the_pointer_beside_the_file_comes_first_then_the_lock_files_up_to_the_root() -> None:
    assert list(pointer_files("a/b/train.csv")) == ["a/b/train.csv.dvc", "a/b/dvc.lock", "a/dvc.lock", "dvc.lock"]
    assert list(pointer_files("train.csv")) == ["train.csv.dvc", "dvc.lock"]


def test_the_hash_is_found_relative_to_the_pointer() -> None:
    assert tracked_output(DOT_DVC, "data/train.csv.dvc", "data/train.csv") == TrackedOutput("aa11", 5)
    assert tracked_output(LOCK, "data/dvc.lock", "data/out/train") == TrackedOutput("bb22.dir", 9, is_legacy=True)


@pytest.mark.parametrize("path", ["out/train", "data/raw.csv", "data/out"])
def test_a_path_that_is_no_output_is_not_tracked(path: str) -> None:
    assert tracked_output(LOCK, "data/dvc.lock", path) is None


@pytest.mark.parametrize("text", [b"{", b"- a", b"", b"\xff\xfe\x00", b"!!python/object:os.system x"])
def test_what_dvc_did_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError, match=r"dvc\.lock is"):
        tracked_output(text, "dvc.lock", "x")


@pytest.mark.parametrize("text", [b"outs: 3", b"stages: [a]", b"outs: [a, {}]", b"stages: {a: b}"])
def test_a_pointer_of_another_form_says_nothing(text: bytes) -> None:
    assert tracked_output(text, "dvc.lock", "x") is None


MD5 = "0123456789abcdef0123456789abcdef"


def test_dvc_before_version_3_kept_content_elsewhere_and_its_hash_is_not_that_of_the_bytes() -> None:
    now, before = TrackedOutput(MD5), TrackedOutput(MD5, is_legacy=True)
    assert (now.object_path(), before.object_path()) == (f"files/md5/01/{MD5[2:]}", f"01/{MD5[2:]}")
    assert (now.pinned_hash, before.pinned_hash) == (f"md5:{MD5}", "")
    assert TrackedOutput("etag-of-a-store").object_path() == ""


CONFIG = b"""[core]
    remote = store
['remote "store"']
    url = s3://bucket/dvc
['remote "disk"']
    url = /mnt/dvc
['remote "near"']
    url = ../dvc
"""


def test_a_remote_is_found_by_name_or_as_the_default() -> None:
    assert remote_url(CONFIG) == "s3://bucket/dvc"
    assert remote_url(CONFIG, "disk") == "/mnt/dvc"


@pytest.mark.parametrize(
    ("config", "name", "message"),
    [
        (CONFIG, "gone", "has no remote 'gone' with a url. Known remotes: disk, near, store"),
        (b"", "", "has no remote '\\(no default is set\\)' with a url. Known remotes: none"),
        (CONFIG, "near", "relative address"),
        (CONFIG, "core", "has no remote 'core'"),
        (b"url = x", "", "cannot be read"),
    ],
)
def test_a_remote_that_cannot_be_found_is_refused(config: bytes, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        remote_url(config, name)


def test_a_folder_is_hashed_as_dvc_hashes_it() -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    files = {"b/c.csv": "b" * 32, "a.csv": "a" * 32, "\u00e4.csv": "c" * 32}
    tree = Tree()
    for path, digest in files.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", digest))
    tree.digest()
    assert folder_hash(files) == tree.hash_info.value
    assert read_folder(tree.as_bytes(), "x") == files


@pytest.mark.parametrize("text", [b"", b"{}x", b"[1]", b'[{"md5": "a"}]', b"null"])
def test_a_list_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError, match="store/x is not the list of a folder"):
        read_folder(text, "store/x")
