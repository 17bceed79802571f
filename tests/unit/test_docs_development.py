"""What the page for developers says about this repository, against the repository."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.longest_first import SECONDS
from tests.support.paths import DOCS, ROOT

PAGE = (DOCS / "development.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [("PARALLEL", "`make test` runs the tests in {}"), ("POD_PARALLEL", "`make test-kubernetes` in {}.")],
)
def test_the_number_of_processes_is_that_of_the_makefile(variable: str, sentence: str) -> None:
    (number,) = re.findall(rf"^{variable} \?= -n (\d+) ", MAKEFILE, re.M)
    assert sentence.format(number) in PAGE


def test_the_number_of_slowest_tests_is_that_of_the_makefile() -> None:
    (number,) = re.findall(r"--durations=(\d+)", MAKEFILE)
    assert f"{number} slowest tests" in PAGE


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|yml|yaml|json))`", PAGE)
    assert len(named) > 20
    missing = [name for name in named if not any((ROOT / place / name).exists() for place in ("", "airflow_mcp"))]
    assert missing == []


def test_files_whose_time_was_recorded_are_there() -> None:
    assert [name for name in json.loads(SECONDS.read_text()) if not (ROOT / name).exists()] == []
