"""What the control group of a container leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mcp.serving.memory import free_memory


def group(folder: Path, limit: str, used: int = 700, inactive: int = 200) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 400\ninactive_file {inactive}\nactive_file 100\n")
    return folder


def test_pages_of_files_that_can_be_dropped_count_as_free(tmp_path: Path) -> None:
    assert free_memory(group(tmp_path, "1000")) == 500


def test_a_container_beyond_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_memory(group(tmp_path, "100", inactive=0)) == 0


@pytest.mark.parametrize("limit", ["max", "", "-1"])
def test_without_a_limit_it_is_not_known(tmp_path: Path, limit: str) -> None:
    assert free_memory(group(tmp_path, limit)) is None


def test_without_control_groups_it_is_not_known(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none") is None
