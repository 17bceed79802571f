"""Arguments that are mappings: read strictly, with every problem listed."""

from __future__ import annotations

from collections.abc import Sequence
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
            f"{'.'.join(map(str, (name, *item['loc'])))}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        )
        raise InvalidArgumentError(f"{problems}. Allowed names: {', '.join(model.model_fields)}") from None


def read_metric_list(model: type[_Model], name: str, values: Any) -> tuple[_Model, ...]:
    """Read a list whose items are mappings with a ``metric``, or just the metric's name.

    :param model: what each item must be.
    :param name: the argument's name, for the message.
    :param values: what was given.
    :raises InvalidArgumentError: with the problems of every item.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidArgumentError(f"{name} must be a list of metrics or mappings, got {values!r}")
    read, problems = [], []
    for position, value in enumerate(values):
        given = {"metric": value} if isinstance(value, str) else value
        try:
            read.append(read_argument(model, f"{name}[{position}]", given))
        except InvalidArgumentError as error:
            problems.append(str(error))
    if problems:
        raise InvalidArgumentError("; ".join(problems))
    return tuple(read)
