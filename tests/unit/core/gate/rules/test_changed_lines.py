"""Unified diffs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from airflow_mcp.core.gate.rules.changed_lines import parse_changed_lines
from airflow_mcp.exceptions import EvidenceError
from tests.support.paths import REPORTS

DIFF = (REPORTS / "change.diff").read_bytes()


def test_a_new_file_is_new_in_every_line() -> None:
    assert parse_changed_lines(DIFF) == {"scale.py": set(range(1, 16))}


@pytest.mark.parametrize("context", ["-U0", "-U3"])
def test_the_lines_that_git_says_are_new_are_found(tmp_path: Path, context: str) -> None:
    old = [f"line {number}" for number in range(20)]
    new = ["first", *old[:5], "--- a dashed line", *old[6:15], "+++ b/not/a/file", "inserted", *old[15:19]]
    for folder, lines in (("a", old), ("b", new)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text("\n".join(lines) + "\n")
    command = ["git", "diff", "--no-index", context, "a/x.py", "b/x.py"]
    diff = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).stdout
    (numbers,) = parse_changed_lines(diff).values()
    assert {new[number - 1] for number in numbers} == {"first", "--- a dashed line", "+++ b/not/a/file", "inserted"}


def test_a_removed_file_and_an_empty_diff_change_no_line() -> None:
    removed = b"diff --git a/x b/x\n--- a/x\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n"
    assert parse_changed_lines(removed) == {}
    assert parse_changed_lines(b"") == {}
    assert parse_changed_lines(b"diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n") == {}


@pytest.mark.parametrize("sign", ["\f", "\v", "\x1c", "\x85", "\u2028", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, sign: str) -> None:
    for folder, text in (("a", "one\nlast\n"), ("b", f"one\nbefore{sign} behind\nnew\r\nlast\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_bytes(text.encode())
    command = ["git", "diff", "--no-index", "-U3", "a/x.py", "b/x.py"]
    diff = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).stdout
    assert list(parse_changed_lines(diff).values()) == [{2, 3}]


def test_a_diff_with_line_ends_of_windows_names_the_same_files_and_lines() -> None:
    assert parse_changed_lines(DIFF.replace(b"\n", b"\r\n")) == parse_changed_lines(DIFF)
    stripped = b"--- a/x\r\n+++ b/x\r\n@@ -1,2 +1,3 @@\r\n one\r\n\r\n+new\r\n"
    assert parse_changed_lines(stripped) == {"x": {3}}  # an empty line of context without its space


@pytest.mark.parametrize("text", [b"hello", b"<html/>", DIFF[:300], b"+++ b/x\n@@ -1,2 +1 @@\n+a\n+b\n+c\n-d\n"])
def test_what_is_no_whole_diff_is_refused(text: bytes) -> None:
    with pytest.raises(EvidenceError, match=r"it is not a|is truncated"):
        parse_changed_lines(text)
