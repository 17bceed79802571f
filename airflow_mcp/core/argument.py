"""Arguments that are mappings: read strictly, with every problem listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_mcp.exceptions import InvalidArgumentError

_Model = TypeVar("_Model", bound=BaseModel)


def read_argument(model: type[_Model], name: str, value: Any) -> _Model:
    """Read one mapping.

    :param model: what it must be.
    :param name: the argument's name, for the message.
    :param value: what was given.
    :raises InvalidArgumentError: naming every problem, the value and the names that are allowed.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, (name, *item['loc'])))}: {item['msg']}{_given(item['input'])}"
            for item in error.errors()
        )
        raise InvalidArgumentError(f"{problems}. Allowed names: {', '.join(model.model_fields)}") from None


def _given(value: Any) -> str:
    """Repeat a single value; a mapping or list is not repeated: something else in it may be a secret."""
    return "" if isinstance(value, Mapping | list | tuple) else f" (got {value!r})"


def read_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list of mappings, or a single one.

    :param model: what each item must be.
    :param name: the argument's name, for the message.
    :param values: what was given.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, Mapping):
        return (read_argument(model, name, values),)
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a mapping or a list of mappings, got {values!r}")
    read, problems = [], []
    for position, value in enumerate(values):
        try:
            read.append(read_argument(model, f"{name}[{position}]", value))
        except InvalidArgumentError as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return tuple(read)


def read_metric_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list whose items are mappings with a ``metric``, or just the metric's name.

    :param model: what each item must be.
    :param name: the argument's name, for the message.
    :param values: what was given.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a list of metrics or mappings, got {values!r}")
    return read_list(model, name, [{"metric": value} if isinstance(value, str) else value for value in values])
