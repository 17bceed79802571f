"""The page about Kubernetes is held to the code: options, rights, defaults."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from airflow_mcp.core.workload.pod_options import PodOptions, SecretVariable, VolumeOption, pod_options
from tests.support.paths import DOCS

PAGE = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>[^|]*) \| (?P<default>[^|]*) \| ?(?P<meaning>[^|]*) ?\|$", re.M)
REQUIRED = "required"


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found is not None, heading
    return found[1]


def documented(page: str, heading: str) -> dict[str, Any]:
    """Read the table of a section: name to default."""
    return {
        row["name"]: REQUIRED if row["default"] == REQUIRED else eval(row["default"].strip("`"), {})
        for row in ROW.finditer(section(page, heading))
    }


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
    }


@pytest.mark.parametrize(
    ("heading", "model"), [("Options", PodOptions), ("Secrets", SecretVariable), ("Volumes", VolumeOption)]
)
def test_every_field_is_documented_in_its_order_with_its_default(heading: str, model: type[BaseModel]) -> None:
    assert list(documented(PAGE, heading).items()) == list(defaults(model).items())


def test_a_default_that_differs_would_be_found() -> None:
    assert documented(PAGE.replace("`'2Gi'`", "`'1Gi'`"), "Options") != defaults(PodOptions)


def test_every_yaml_block_can_be_read_and_the_example_of_defaults_is_accepted() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
    values = [list(yaml.safe_load_all(block)) for block in blocks]
    (example,) = [value[0] for value in values if "namespace" in value[0]]
    assert pod_options(example).namespace == "ml"
    assert len(values) == 2
