"""The pinned versions install on every Python that the package declares."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.support.paths import ROOT

PINNED = dict(re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text()))


def test_the_oldest_python_that_the_package_declares_may_install_every_pinned_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = Version(declared.removeprefix(">="))
    refused = {}
    for name, version in PINNED.items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a pin of an extra that is not installed here
        wanted = found.metadata.get("Requires-Python", "")
        if found.version == version and wanted and oldest not in SpecifierSet(wanted):
            refused[f"{name}=={version}"] = wanted
    assert not refused, f"these pins need a newer Python than {declared}"


@pytest.mark.parametrize("name", ["apache-airflow", "mlflow", "evidently", "dvc", "pandas"])
def test_what_the_package_stands_on_is_pinned_to_what_is_installed(name: str) -> None:
    assert PINNED[name] == metadata.version(name)
