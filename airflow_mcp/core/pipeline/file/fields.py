"""The kinds of fields that a ModelPipeline is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.types import Strict

from airflow_mcp.core.workload.connection_values import REFERENCE_WORDS, is_reference

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_QUANTITY = re.compile(r"\d{1,12}(\.\d{1,3})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?")
EXPANDABLE = "expandable"
"""Key in a field's JSON schema that says: ``${NAME:-default}`` is replaced from the environment."""


class SpecModel(BaseModel):
    """Base of every section: frozen, names in camelCase, unknown names refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, protected_namespaces=())


def parse_duration(text: str) -> str:
    """Check a length of time and give it back as it was written.

    :param text: a whole number and ``s``, ``m``, ``h`` or ``d``.
    :raises ValueError: for anything else, and for zero.
    """
    if seconds_of(text) == 0:
        raise ValueError(f"{text!r} is no time at all; allowed: more than zero, for example 30m")
    return text


def seconds_of(duration: str) -> int:
    """Give a length of time in seconds.

    :param duration: a whole number and ``s``, ``m``, ``h`` or ``d``.
    :raises ValueError: for anything else.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(
            f"{duration!r} is no length of time; allowed: a whole number and s, m, h or d, for example 30m"
        )
    return int(match[1]) * _SECONDS[match[2]]


def _with_unit(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        message = f"{value} has no unit; allowed: a whole number and s, m, h or d, for example 30m"
        raise ValueError(message)  # noqa: TRY004 -- pydantic turns ValueError into a problem
    return value


def _connection_value(value: Any) -> Any:
    if not is_reference(value):  # it may be the secret itself, so it is not repeated
        raise ValueError(f"does not say where the value is kept (it is not shown here); allowed: {REFERENCE_WORDS}")
    return value


def _connection_id(text: str) -> str:
    if "://" in text:  # the address of a webhook is a secret, so it is not repeated
        raise ValueError("is an address (not shown here); allowed: the id of an Airflow connection that holds it")
    return text


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _relative_path(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or ".." in parts or "\x00" in path:
        raise ValueError(f"{path!r} leads outside; allowed: a path relative to its folder, with / and without ..")
    return path


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it holds a line break or another character that cannot be printed; allowed: one line of text")
    return text


def _runtime(text: str) -> str:
    if text not in ("local", "kubernetes") and "${" not in text:
        raise ValueError(f"is {text!r}; allowed: local, kubernetes")
    return text


def _quantity(text: str) -> str:
    if _QUANTITY.fullmatch(text) is None or not float(text.rstrip("mkKMGTPi")):
        raise ValueError(f'is {text!r}; allowed: a Kubernetes quantity such as "500m", "2" or "4Gi"')
    return text


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
"""One line of text: data, never a template."""
ExpandableText = Annotated[
    str, Field(min_length=1, max_length=1000, json_schema_extra={EXPANDABLE: True}), AfterValidator(_one_line)
]
"""One line of text in which ``${NAME:-default}`` is replaced from the environment."""
_NAME = r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=_NAME, max_length=200)]
"""Lower-case letters, digits, ``-``, ``_`` and ``.``; begins and ends with a letter or digit."""
_STAGE_NAME = r"^[a-z]([a-z0-9_]*[a-z0-9])?$"
StageName = Annotated[str, StringConstraints(pattern=_STAGE_NAME, max_length=60)]
"""Lower-case letters, digits and ``_``; begins with a letter. It becomes a task id."""
_VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
VariableName = Annotated[str, StringConstraints(pattern=_VARIABLE_NAME, max_length=200)]
"""Name of an environment variable."""
ConnectionId = Annotated[Text, AfterValidator(_connection_id)]
"""Id of an Airflow connection."""
ConnectionReference = Annotated[str, BeforeValidator(_connection_value)]
"""Where a secret is kept: ``<connection>.<field>``."""
SecretVariables = dict[VariableName, ConnectionReference]
"""Environment variables whose values are kept in Airflow connections."""
_METRIC_NAME = r"^[A-Za-z_][A-Za-z0-9_./@]*$"
MetricName = Annotated[str, StringConstraints(pattern=_METRIC_NAME, max_length=200)]
"""Name of a metric."""
Duration = Annotated[
    str, BeforeValidator(_with_unit), AfterValidator(parse_duration), Field(examples=["90s", "30m", "2h", "1d"])
]
"""A length of time: a whole number and ``s``, ``m``, ``h`` or ``d``."""
RelativePath = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_relative_path)]
"""Path below the folder that it belongs to."""
Quantity = Annotated[
    str, BeforeValidator(_number_as_text, json_schema_input_type=str | int | float), AfterValidator(_quantity)
]
"""An amount as Kubernetes writes it."""
Whole = Annotated[int, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
ConfigValues = dict[str, Any]
"""JSON values by name."""
_COMPARATOR = r"^\s*(>=|<=|>|<)\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"


def _bound(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not (isinstance(value, str) and re.fullmatch(_COMPARATOR, value) and len(value) < 60):
        shown = f"{value!r}" if isinstance(value, str) else "not that"
        message = f"is {shown}; allowed: a number, or >=, <=, > or < and a number, for example '>= 0.92'"
        raise ValueError(message)
    return value


Bound = Annotated[
    float | str,
    BeforeValidator(_bound, json_schema_input_type=float | Annotated[str, StringConstraints(pattern=_COMPARATOR)]),
]
"""A number, or a direction and a number, for example ``>= 0.92``."""
Runtime = Annotated[
    str, Field(json_schema_extra={EXPANDABLE: True}, examples=["local", "kubernetes"]), AfterValidator(_runtime)
]
"""``local`` or ``kubernetes``, checked after the environment is in."""
PodSettings = dict[str, Annotated[Any, Field(json_schema_extra={EXPANDABLE: True})]]
"""Pod options by name; text values are expandable."""
WORDS_OF_PATTERNS: Mapping[str, str] = {
    _NAME: "lower-case letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    _STAGE_NAME: "lower-case letters, digits and '_', beginning with a letter",
    _VARIABLE_NAME: "letters, digits and '_', not beginning with a digit",
    _METRIC_NAME: "a metric: letters, digits and any of _ . / @, beginning with a letter",
}
"""What the patterns allow, in words."""
