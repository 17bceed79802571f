"""Branch coverage: what counts, over several processes, and that it starts before the package is imported."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.support import branch_coverage

CODE = """
def answer(asked):
    if asked:
        return 1
    return 0
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of one module, which is not imported yet, in the place of ours."""
    name = f"measured_{abs(hash(tmp_path))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(branch_coverage, "PACKAGE", tmp_path / name)
    monkeypatch.setenv(branch_coverage.FLOOR, "50")
    return name


def test_lines_and_branches_of_all_processes_count_once(package: str) -> None:
    seen = branch_coverage.start()
    assert seen is not None
    code = importlib.import_module(f"{package}.code")
    code.answer(True)
    first = json.loads(json.dumps(seen.get_coverage()))  # as a worker sends it: 3 of 4 lines, 1 of 2 branches
    assert branch_coverage.percent_covered([first]) == pytest.approx(100 * 4 / 6)
    code.answer(False)
    second = seen.get_coverage()
    assert branch_coverage.percent_covered([first, second]) == 100


def test_a_module_that_nobody_imports_counts_as_missing(package: str) -> None:
    seen = branch_coverage.start()
    assert seen is not None
    importlib.import_module(f"{package}.code").answer(True)
    (branch_coverage.PACKAGE / "never.py").write_text(CODE)
    assert branch_coverage.percent_covered([seen.get_coverage()]) == pytest.approx(100 * 4 / 12)


def test_it_starts_before_the_package_is_imported_or_not_at_all(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module(f"{package}.code")
    with pytest.raises(RuntimeError, match=f"must start before the package is imported; got {package}"):
        branch_coverage.start()
    monkeypatch.delenv(branch_coverage.FLOOR)
    assert branch_coverage.start() is None
