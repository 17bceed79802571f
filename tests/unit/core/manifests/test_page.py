"""The page about the model server on Kubernetes is held to the code: fields, defaults, examples."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import BaseModel

from airflow_mcp.core.manifests.spec import Autoscaling, ModelServerSpec, NetworkRule, Resources, read_model_server
from tests.support.paths import DOCS
from tests.unit.test_docs_kubernetes import REQUIRED, ROW, section

PAGE = (DOCS / "serving" / "kubernetes.md").read_text(encoding="utf-8")
HEADINGS = {"Fields": ModelServerSpec, "Autoscaling": Autoscaling, "Resources": Resources, "Network": NetworkRule}


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_field_is_documented_with_its_default(heading: str) -> None:
    model: type[BaseModel] = HEADINGS[heading]
    documented = {row["name"]: row["default"].strip("`") for row in ROW.finditer(section(PAGE, heading))}
    wanted = {
        name: REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
    }
    names = {"NetworkRule": NetworkRule}
    assert {name: each if each == REQUIRED else eval(each, names) for name, each in documented.items()} == wanted


def test_the_example_of_a_file_is_accepted() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)]
    (example,) = [block for block in blocks if "secrets" in block]
    given = {"model_name": "fraud", "image": "registry/fraud:1", "tracking_uri": "http://mlflow:5000"}
    assert read_model_server({**given, **example}).replicas == 3
