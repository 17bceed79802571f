"""The hash of a tracked path is read from what DVC writes into Git."""

from __future__ import annotations

import pytest

from airflow_mcp.core.dvc_pointer import pointer_files, tracked_hash
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
    assert tracked_hash(DOT_DVC, "data/train.csv.dvc", "data/train.csv") == "aa11"
    assert tracked_hash(LOCK, "data/dvc.lock", "data/out/train") == "bb22.dir"


@pytest.mark.parametrize("path", ["out/train", "data/raw.csv", "data/out"])
def test_a_path_that_is_no_output_has_no_hash(path: str) -> None:
    assert tracked_hash(LOCK, "data/dvc.lock", path) == ""


@pytest.mark.parametrize("text", [b"{", b"- a", b"", b"\xff\xfe\x00", b"!!python/object:os.system x"])
def test_what_dvc_did_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(SourceError, match=r"dvc\.lock is"):
        tracked_hash(text, "dvc.lock", "x")


@pytest.mark.parametrize("text", [b"outs: 3", b"stages: [a]", b"outs: [a, {}]", b"stages: {a: b}"])
def test_a_pointer_of_another_form_says_nothing(text: bytes) -> None:
    assert tracked_hash(text, "dvc.lock", "x") == ""
