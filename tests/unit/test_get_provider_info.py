"""The provider's metadata: strict schema, complete lists of modules, hook, connection form, links, options."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import BaseOperator
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
from airflow.triggers.base import BaseTrigger

from airflow_mcp import __version__
from airflow_mcp.audit.settings import EXTRAS
from airflow_mcp.get_provider_info import get_provider_info
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.hooks.signing import EXTRAS as SIGNING_EXTRAS
from airflow_mcp.mlflow_client.settings import EXTRA_FIELDS
from airflow_mcp.operators.load_check import LoadCheckOperator
from tests.support.paths import DOCS, ROOT


def problems(info: dict[str, Any]) -> list[str]:
    """Check against the schema of Airflow's own providers, which knows no unknown keys."""
    schema = json.loads((Path(airflow.__file__).parent / "provider.yaml.schema.json").read_text())
    complete = {**info, "state": "ready", "versions": [__version__], "source-date-epoch": 0}
    return [error.message for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(complete)]


def test_the_metadata_meets_the_strict_schema() -> None:
    assert problems(get_provider_info()) == []


def rename_top(info: dict[str, Any]) -> None:
    info["conection-types"] = info.pop("connection-types")


def rename_label(info: dict[str, Any]) -> None:
    field = info["connection-types"][0]["conn-fields"]["token"]
    field["lable"] = field.pop("label")


def wrong_type(info: dict[str, Any]) -> None:
    info["config"]["airflow_mcp"]["options"]["runtime"]["type"] = "text"


@pytest.mark.parametrize("spoil", [rename_top, rename_label, wrong_type])
def test_the_strict_schema_notices_a_typo(spoil: Callable[[dict[str, Any]], None]) -> None:
    info = copy.deepcopy(get_provider_info())
    spoil(info)
    assert problems(info) != []


def test_airflow_lists_the_hook() -> None:
    hook = ProvidersManagerTaskRuntime().hooks["mlflow"]
    assert hook is not None
    assert (hook.hook_name, hook.package_name, hook.connection_id_attribute_name) == (
        MlflowHook.hook_name,
        "airflow-mcp",
        MlflowHook.conn_name_attr,
    )
    assert hook.connection_testable


def test_the_connection_form_has_every_extra_that_is_read() -> None:
    widgets = ProvidersManager().connection_form_widgets
    assert {widget.field_name for widget in widgets.values() if widget.package_name == "airflow-mcp"} == {
        *EXTRA_FIELDS,
        *EXTRAS,
        *SIGNING_EXTRAS,
    }


def test_every_named_class_exists_and_the_links_are_listed() -> None:
    info = get_provider_info()
    for dotted in [*info["extra-links"], *(kind["hook-class-name"] for kind in info["connection-types"])]:
        module, _, name = dotted.rpartition(".")
        assert getattr(importlib.import_module(module), name)
    assert set(info["extra-links"]) <= set(ProvidersManager().extra_links_class_names)


def test_nothing_secret_is_shown_in_the_form() -> None:
    form = get_provider_info()["connection-types"][0]["conn-fields"]
    assert form["token"]["schema"]["format"] == "password"


def listed(kind: str) -> list[str]:
    """Return the modules that the metadata lists for a kind, such as ``operators``."""
    return [module for group in get_provider_info()[kind] for module in group["python-modules"]]


def classes(folder: str, base: type) -> Iterator[type]:
    """Find every class in a folder of the package that inherits from a class of Airflow."""
    for path in sorted((ROOT / "airflow_mcp" / folder).glob("[!_]*.py")):
        module = importlib.import_module(f"airflow_mcp.{folder}.{path.stem}")
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__:
                yield value


@pytest.mark.parametrize(
    ("folder", "base"), [("operators", BaseOperator), ("sensors", BaseOperator), ("triggers", BaseTrigger)]
)
def test_every_module_with_a_class_for_users_is_listed(folder: str, base: type) -> None:
    found = list(classes(folder, base))
    # Bases are not for users: abstract triggers, and operators that another one of the package inherits from.
    parents = {parent for each in found for parent in each.__mro__[1:] if issubclass(parent, BaseOperator)}
    parents -= {LoadCheckOperator}  # for users too: the rehearsal of a rollback is a load check
    wanted = {each.__module__ for each in found if each not in parents and not inspect.isabstract(each)}
    assert sorted(listed(folder)) == sorted(wanted)


def test_every_hook_that_the_docs_name_is_listed() -> None:
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.rglob("*.md")]]
    named = {name for text in texts for name in re.findall(r"airflow_mcp\.hooks\.\w+(?=\.[A-Z]| import )", text)}
    assert sorted(listed("hooks")) == sorted(named)
