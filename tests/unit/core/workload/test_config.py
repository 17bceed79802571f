"""The config file: kept as it is, hashed, refused with file and line."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import yaml

from airflow_mcp.core.workload.config import ConfigFile, config_from_text, inline_config, override_config
from airflow_mcp.exceptions import InvalidArgumentError


def test_equal_values_make_equal_files() -> None:
    first, second = (
        inline_config({"b": [1, 2.5], "a": {"y": None, "x": True}}),
        inline_config({"a": {"x": True, "y": None}, "b": [1, 2.5]}),
    )
    assert first == second
    assert first.name == "config.json"
    assert json.loads(first.text) == {"a": {"x": True, "y": None}, "b": [1, 2.5]}
    assert first.hash != inline_config({"b": [1, 2.5001], "a": {"y": None, "x": True}}).hash


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x", object(), {"deep": [math.nan]}])
def test_values_that_are_not_json_are_refused(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"config must contain only text, finite numbers.*; got"):
        inline_config({"x": value})


def test_a_config_that_contains_itself_is_refused() -> None:
    values: dict[str, object] = {}
    values["self"] = values
    with pytest.raises(InvalidArgumentError, match="Circular"):
        inline_config(values)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.yaml", "# comment\nrate: 0.1\nlayers: [1, 2]\n"),
        ("train.yml", "{}"),
        ("train.json", '{"rate": 0.1}'),
        ("train.yaml", '{"rate": 0.1}'),
    ],
)
def test_a_file_is_kept_to_the_letter(name: str, text: str) -> None:
    config = config_from_text(name, text)
    assert config == ConfigFile(name, text)
    assert config.hash == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train.yaml", "a: 1\nb: [1, 2\n", "line 3"),
        ("train.yaml", "a: 1\n\tb: 2\n", "line 2"),
        ("train.json", '{"a": 1,\n "b": }', "line 2"),
        ("train.json", "a: 1", "line 1"),
        ("train.yaml", "a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("train.yaml", "day: 2026-13-01", "month must be in 1..12"),
        ("train.yaml", "n: 0x_", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_and_place(name: str, text: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        config_from_text(name, text)
    assert f"config file {name} cannot be read" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("train.yaml", "", "NoneType"),
        ("train.yaml", "- a\n- b\n", "list"),
        ("train.yaml", "word", "str"),
        ("train.json", "[1]", "list"),
        ("train.json", "null", "NoneType"),
    ],
)
def test_a_file_without_a_mapping_is_refused(name: str, text: str, kind: str) -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"config file {name} must be a mapping of names to values; got a {kind}"
    ):
        config_from_text(name, text)


YAML_CONFIG = config_from_text("config.yaml", "rate: 0.01  # a comment\nmodel:\n  depth: 3\n  name: forest\n")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"rate": "0.00001"}, {"rate": 1e-05, "model": {"depth": 3, "name": "forest"}}),
        ({"model.depth": "5"}, {"rate": 0.01, "model": {"depth": 5, "name": "forest"}}),
        ({"model.name": '"yes"', "rate": "null"}, {"rate": None, "model": {"depth": 3, "name": "yes"}}),
        ({"model": '{"depth": 1}'}, {"rate": 0.01, "model": {"depth": 1}}),
        ({"model": "[1, true]", "rate": "2"}, {"rate": 2, "model": [1, True]}),
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
def test_overrides_replace_values_and_the_file_reads_back_the_same(
    name: str, overrides: dict[str, str], expected: dict[str, object]
) -> None:
    plain = {"rate": 0.01, "model": {"depth": 3, "name": "forest"}}
    config = inline_config(plain) if name.endswith("json") else YAML_CONFIG
    changed = override_config(config, overrides)
    assert changed is not None
    assert changed.name == name
    assert (json.loads if name.endswith("json") else yaml.safe_load)(changed.text) == expected
    assert changed.hash != config.hash
    assert override_config(config, overrides) == changed


def test_overrides_that_change_nothing_keep_the_very_text() -> None:
    assert override_config(YAML_CONFIG, {}) == YAML_CONFIG
    assert override_config(YAML_CONFIG, {"model.depth": "3", "rate": "0.01"}) == YAML_CONFIG
    assert override_config(None, {}) is None


def test_true_is_not_taken_for_one() -> None:
    changed = override_config(inline_config({"a": 1}), {"a": "true"})
    assert changed is not None
    assert json.loads(changed.text)["a"] is True


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("rates", "1", "the config has no 'rates' there (it has model, rate)"),
        ("model.size", "1", "the config has no 'size' there (it has depth, name)"),
        ("rate.x", "1", "'rate' of the config is not a mapping"),
        ("", "1", "the config has no '' there"),
        ("model.", "1", "the config has no '' there"),
        ("rate", "forest", "the value of 'rate' must be JSON text, for example"),
        ("rate", "forest", "; got 'forest'"),
        ("rate", "", "; got ''"),
        ("rate", "NaN", "; got 'NaN'"),
        ("rate", "1e999", "; got '1e999'"),
        ("rate", 1, "; got 1"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(key: str, text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        override_config(YAML_CONFIG, {key: text})
    assert message in str(caught.value)


def test_without_a_config_there_is_no_key_to_override() -> None:
    with pytest.raises(InvalidArgumentError, match="the config has no 'rate' there"):
        override_config(None, {"rate": "1"})
