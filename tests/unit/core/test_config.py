"""The config file: kept as it is, hashed, refused with file and line."""

from __future__ import annotations

import hashlib
import json
import math

import pytest

from airflow_mcp.core.config import ConfigFile, config_from_text, inline_config
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
    with pytest.raises(InvalidArgumentError, match=r"config cannot be written as JSON: .*; allowed: text, finite"):
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
    with pytest.raises(InvalidArgumentError, match=f"config file {name} holds a {kind}; allowed: a mapping"):
        config_from_text(name, text)
