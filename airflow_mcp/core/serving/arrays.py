"""Bodies of MLflow's scoring protocol for models that take one array of numbers, such as a matrix."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType, defstruct

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.scoring import (
    INPUTS,
    INSTANCES,
    LARGEST_FLOAT32,
    TYPES,
    UNREADABLE,
    Rows,
    TableReader,
    UnreadableRequestError,
    json_type,
    parse_json,
    read_cell,
)
from airflow_mcp.core.serving.signature import ARRAY_TYPES, PACK_CODES, ModelSignature, Tensor


class RowReader(Protocol):
    """Reads bodies into rows."""

    def read(self, body: bytes) -> Rows | None:
        """Read a body; None when MLflow's own parser has to read it."""
        ...


def reader_of(signature: ModelSignature) -> RowReader | None:
    """Return what reads the rows of a model; None when only MLflow's own parser can."""
    if signature.is_fast:
        return TableReader(signature)
    return None if signature.array is None else ArrayReader(signature.array)


class ArrayReader:
    """Reads rows of one array.

    :param tensor: the array; its first dimension is the number of rows.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._kind = ARRAY_TYPES[tensor.dtype]
        self._shape = tensor.shape[1:]
        self._packer = struct.Struct(f"<{math.prod(self._shape)}{PACK_CODES[self._kind]}")
        self._decoder = msgspec.json.Decoder(_body_type(self._kind, self._shape))

    def read(self, body: bytes) -> Rows | None:
        """Read a body.

        :return: the rows; None when it holds inference parameters or a table, which MLflow's own parser reads.
        :raises UnreadableRequestError: when it is not JSON, or does not fit the array.
        """
        try:
            parsed = self._decoder.decode(body)
        except UNREADABLE:
            return self._read_leniently(body)
        if parsed.params is not UNSET or (parsed.inputs is UNSET) == (parsed.instances is UNSET):
            return self._read_leniently(body)
        rows = parsed.instances if parsed.inputs is UNSET else parsed.inputs
        if len(self._shape) != 1:
            rows = [_flat(row) for row in rows]
        try:
            payload = b"".join([self._packer.pack(*row) for row in rows])
        except (struct.error, OverflowError):  # a null, or a number beyond 32 bits
            return packed_array(self._tensor, [value for row in rows for value in row], len(rows), "$")
        return _checked_rows(payload, len(rows))

    def _read_leniently(self, body: bytes) -> Rows | None:
        document = parse_json(body)
        if not isinstance(document, dict):
            raise UnreadableRequestError("invalid_body", f"the body must be a JSON object; got {json_type(document)}")
        forms = [form for form in (INPUTS, INSTANCES) if form in document]
        if document.get("params") is not None or not forms:
            return None
        if len(forms) > 1:
            raise UnreadableRequestError("invalid_body", "the body must hold `inputs` or `instances`; got both")
        rows, place = document[forms[0]], f"$.{forms[0]}"
        name = self._tensor.name
        if name and isinstance(rows, dict) and set(rows) == {name}:
            rows, place = rows[name], f"{place}.{name}"
        elif name and isinstance(rows, list) and rows and all(isinstance(row, dict) and name in row for row in rows):
            rows = [row[name] for row in rows]
        if not isinstance(rows, list):
            raise UnreadableRequestError("invalid_rows", f"`{place}`: expected array, got {json_type(rows)}")
        values: list[Any] = []
        for index, row in enumerate(rows):
            self._collect(row, self._shape, f"{place}[{index}]", values)
        return packed_array(self._tensor, values, len(rows), place)

    def _collect(self, value: Any, shape: Sequence[int], place: str, found: list[Any]) -> None:
        """Append the numbers in nested lists of a shape."""
        if not shape:
            found.append(read_cell(self._kind, value, place))
            return
        if not isinstance(value, list):
            raise UnreadableRequestError("invalid_rows", f"`{place}`: expected array, got {json_type(value)}")
        if len(value) != shape[0]:
            raise UnreadableRequestError("invalid_rows", f"`{place}`: expected {shape[0]} values, got {len(value)}")
        for index, item in enumerate(value):
            self._collect(item, shape[1:], f"{place}[{index}]", found)


def packed_array(tensor: Tensor, values: Sequence[Any], rows: int, place: str) -> Rows:
    """Pack the numbers of an array, one row after the other.

    :param tensor: the array.
    :param values: its numbers; null stands for NaN.
    :param rows: number of rows.
    :param place: where they are in the body, for messages.
    :raises UnreadableRequestError: when there are no rows, or a number does not fit the type.
    """
    kind = ARRAY_TYPES[tensor.dtype]
    numbers = [read_cell(kind, value, place) for value in values]
    numbers = [math.nan if number is None else number for number in numbers]
    if kind == "float" and any(abs(number) > LARGEST_FLOAT32 for number in numbers):
        raise UnreadableRequestError("invalid_rows", f"`{place}`: expected 32-bit floats, got a larger number")
    return _checked_rows(struct.pack(f"<{len(numbers)}{PACK_CODES[kind]}", *numbers), rows)


def _checked_rows(payload: bytes, rows: int) -> Rows:
    if not rows:
        raise UnreadableRequestError("invalid_rows", "there must be at least one row; got none")
    return Rows(FrameKind.ARRAY, payload, rows, b"")


def _flat(value: Any) -> list[Any]:
    """Return the numbers in nested lists, or a number by itself, as one list."""
    if not isinstance(value, list):
        return [value]
    return [number for item in value for number in _flat(item)]


def _body_type(kind: str, shape: Sequence[int]) -> Any:
    nested: Any = TYPES[kind]
    for size in reversed(shape):
        nested = Annotated[list[nested], Meta(min_length=size, max_length=size)]
    rows = list[nested]
    return defstruct(
        "ArrayBody",
        [
            (INPUTS, rows | UnsetType, UNSET),
            (INSTANCES, rows | UnsetType, UNSET),
            ("params", msgspec.Raw | UnsetType, UNSET),
        ],
        kw_only=True,
    )
