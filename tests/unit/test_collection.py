"""What is done once, before the workers of pytest-xdist collect the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.assertion import rewrite

from tests.support.collection import files_to_rewrite, keep_rewritten


def kept(file: Path) -> Path:
    return rewrite.get_cache_dir(file) / (file.stem + rewrite.PYC_TAIL)


def test_pytest_finds_the_assertions_rewritten_and_writes_them_anew_when_the_file_changes(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    file = tmp_path / "test_one.py"
    for number in (1, 2):
        file.write_text(f"def test():\n    found = {number}\n    assert found == 0\n")
        assert rewrite._read_pyc(file, kept(file)) is None
        keep_rewritten(file, pytestconfig)
        code = rewrite._read_pyc(file, kept(file))
        assert code is not None
        names: dict[str, object] = {}
        exec(code, names)
        with pytest.raises(AssertionError, match=rf"assert {number} == 0"):
            names["test"]()  # type: ignore[operator]


def test_a_mistake_of_syntax_is_left_to_pytest(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    file = tmp_path / "test_one.py"
    file.write_text("def test(:\n")
    keep_rewritten(file, pytestconfig)
    assert not kept(file).exists()


def test_folders_files_and_node_ids_are_understood(tmp_path: Path) -> None:
    for name in ("conftest.py", "test_a.py", "helper.py", "deeper/test_b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = files_to_rewrite([str(tmp_path), f"{tmp_path}/helper.py::test_it", f"{tmp_path}/missing"])
    assert [file.relative_to(tmp_path).as_posix() for file in found] == [
        *("conftest.py", "deeper/test_b.py", "test_a.py"),
        "helper.py",
    ]
