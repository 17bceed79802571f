"""The config file of a workload: one versioned document, injected by path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import InvalidArgumentError

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class ConfigFile:
    """A config file as the workload will read it."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        """``sha256:<hex>`` of the text."""
        return content_hash(self.text.encode())


def inline_config(values: Mapping[str, Any]) -> ConfigFile:
    """Make a config file of plain values.

    :param values: JSON values; keys are sorted so that equal values give the same hash.
    :raises InvalidArgumentError: when a value is not plain JSON.
    """
    try:
        text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"config cannot be written as JSON: {error}; "
            "allowed: text, finite numbers, true, false, null, lists and maps"
        ) from None
    return ConfigFile("config.json", text + "\n")


def config_from_text(name: str, text: str) -> ConfigFile:
    """Check that a config file holds a mapping, and keep its text as it is.

    :param name: file name; its suffix says the format (.yaml, .yml or .json).
    :param text: the file's text.
    :raises InvalidArgumentError: naming file and line, when it cannot be read or is not a mapping.
    """
    _values(name, text)
    return ConfigFile(name, text)


def override_config(config: ConfigFile | None, overrides: Mapping[str, str]) -> ConfigFile | None:
    """Replace values of a config.

    :param config: the config; None has no keys.
    :param overrides: dotted key (``optimizer.rate``) to the new value as JSON text.
    :return: a config of the same name; the very same text when no value changes.
    :raises InvalidArgumentError: naming the key that the config does not have, or whose value is not JSON.
    """
    values = {} if config is None else _values(config.name, config.text)
    merged = values
    for key, text in overrides.items():
        merged = _replaced(merged, key.split("."), _json_value(key, text), key)
    if config is None or repr(merged) == repr(values):  # == would not tell true from 1
        return config
    if config.name.endswith(".json"):
        return ConfigFile(config.name, inline_config(merged).text)
    return ConfigFile(config.name, yaml.safe_dump(merged, sort_keys=False, allow_unicode=True))


def _replaced(values: Mapping[str, Any], path: list[str], value: Any, key: str) -> dict[str, Any]:
    name, *rest = path
    if name not in values:
        known = ", ".join(sorted(map(str, values))) or "nothing"
        raise InvalidArgumentError(
            f"config_overrides has {key!r}, but the config has no {name!r} there (it has {known})"
        )
    if rest and not isinstance(values[name], Mapping):
        raise InvalidArgumentError(f"config_overrides has {key!r}, but {name!r} of the config is not a mapping")
    return {**values, name: _replaced(values[name], rest, value, key) if rest else value}


def _json_value(key: str, text: Any) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # NaN and 1e999 are read without complaint
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f'config_overrides: the value of {key!r} is {text!r}; allowed: JSON text, for example 0.1, true or "text"'
        ) from None
    return value


def _values(name: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: broken JSON, and dates such as 2026-13-01 in YAML
        raise InvalidArgumentError(f"config file {name} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise InvalidArgumentError(
            f"config file {name} holds a {type(values).__name__}; allowed: a mapping of names to values at the top"
        )
    return values
