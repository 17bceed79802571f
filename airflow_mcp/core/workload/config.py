"""The config file of a workload, whose path is passed in an environment variable."""

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
    """Write plain values as a config file.

    :param values: JSON values; keys are sorted so that equal values give the same hash.
    :raises InvalidArgumentError: when a value is not plain JSON.
    """
    try:
        text = json.dumps(values, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"config must contain only text, finite numbers, true, false, null, lists and mappings; got {error}"
        ) from None
    return ConfigFile("config.json", text + "\n")


def config_from_text(name: str, text: str) -> ConfigFile:
    """Check that a config file contains a mapping, and keep its text unchanged.

    :param name: file name; its suffix is the format (.yaml, .yml or .json).
    :param text: the file's text.
    :raises InvalidArgumentError: naming file and line, when it cannot be read or is not a mapping.
    """
    _values(name, text)
    return ConfigFile(name, text)


def override_config(config: ConfigFile | None, overrides: Mapping[str, str]) -> ConfigFile | None:
    """Replace values of a config.

    :param config: the config; None has no keys.
    :param overrides: dotted key (``optimizer.rate``) to the new value as JSON text.
    :return: a config of the same name, with the same text if no value changes.
    :raises InvalidArgumentError: when the config does not have a key, or a value is not JSON.
    """
    values = {} if config is None else _values(config.name, config.text)
    merged = values
    for key, text in overrides.items():
        merged = _replaced(merged, key.split("."), _json_value(key, text), key)
    if config is None or repr(merged) == repr(values):  # == does not distinguish true from 1
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
        json.dumps(value, allow_nan=False)  # loads() accepts NaN and 1e999
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f'config_overrides: the value of {key!r} must be JSON text, for example 0.1, true or "text"; got {text!r}'
        ) from None
    return value


def _values(name: str, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: broken JSON, and dates such as 2026-13-01 in YAML
        raise InvalidArgumentError(f"config file {name} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise InvalidArgumentError(
            f"config file {name} must be a mapping of names to values; got a {type(values).__name__}"
        )
    return values
