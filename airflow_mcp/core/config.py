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
    try:
        values = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: broken JSON, and dates such as 2026-13-01 in YAML
        raise InvalidArgumentError(f"config file {name} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise InvalidArgumentError(
            f"config file {name} holds a {type(values).__name__}; allowed: a mapping of names to values at the top"
        )
    return ConfigFile(name, text)
