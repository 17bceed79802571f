"""Bodies of the Open Inference Protocol (version 2): tensors to rows, and predictions to tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from airflow_mcp.core.serving.arrays import packed_array
from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.scoring import Rows, TableReader, UnreadableRequestError, parse_json
from airflow_mcp.core.serving.signature import Column, ModelSignature, Tensor

DATATYPES: Mapping[str, str] = {
    "BOOL": "bool",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BYTES": "object",
}
"""NumPy's name of each type of the protocol."""
_OF_COLUMNS: Mapping[str, str] = {
    "boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES",
}  # fmt: skip
_PREDICTIONS = "predictions"


class InferenceRequest(NamedTuple):
    """What a caller asked for besides its rows."""

    id: str
    """The caller's name for the request; empty without one."""
    outputs: tuple[str, ...]
    """Names of the outputs that the caller wants; empty for all."""


class InferenceReader:
    """Reads inference requests to one model.

    :param signature: signature of the model.
    :param table: reads its rows; None when its inputs are not named columns of plain types.
    """

    def __init__(self, signature: ModelSignature, table: TableReader | None) -> None:
        self._signature = signature
        self._table = table

    def read(self, body: bytes) -> tuple[Rows, InferenceRequest]:
        """Read a request.

        :raises UnreadableRequestError: when it is not one, or does not fit the signature.
        """
        document = parse_json(body)
        if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
            raise UnreadableRequestError("invalid_body", "the body must be an object with a list `inputs`; got another")
        inputs = [_input(entry, f"$.inputs[{index}]") for index, entry in enumerate(document["inputs"])]
        if len({item.name for item in inputs}) != len(inputs):
            raise UnreadableRequestError("invalid_body", "`$.inputs` must name each input once; got one twice")
        rows = self._of_tensors(inputs) if self._table is None else self._of_table(self._table, inputs)
        wanted = document.get("outputs") or []
        names = [entry.get("name") if isinstance(entry, dict) else None for entry in wanted]
        if not all(isinstance(name, str) for name in names):
            raise UnreadableRequestError(
                "invalid_body", "`$.outputs` must be a list of objects with a `name`; got another"
            )
        identity = document.get("id")
        msgspec.msgpack.encode(identity)  # is written into the answer, so half of a surrogate pair is refused here
        return rows, InferenceRequest(identity if isinstance(identity, str) else "", tuple(map(str, names)))

    def _of_table(self, table: TableReader, inputs: Sequence[_Input]) -> Rows:
        columns = self._signature.columns
        known = [item for item in inputs if item.name in {column.name for column in columns}]
        if not known and len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].shape[1] == len(columns):
            return self._of_matrix(table, inputs[0], columns)
        for item in known:
            if len(item.shape) > 2 or item.shape[1:] not in ((), (1,)):
                raise _wrong_shape(item, "[rows] or [rows, 1]")
        lengths = {item.shape[0] for item in known}
        if len(lengths) > 1:
            raise UnreadableRequestError("invalid_rows", "`$.inputs` must have one number of rows; got several")
        values = {item.name: item.values for item in known}
        return table.of_columns(values, lengths.pop() if lengths else 0, "$.inputs")

    def _of_matrix(self, table: TableReader, item: _Input, columns: Sequence[Column]) -> Rows:
        width = len(columns)
        values = {column.name: item.values[index::width] for index, column in enumerate(columns)}
        return table.of_columns(values, item.shape[0], item.place)

    def _of_tensors(self, inputs: Sequence[_Input]) -> Rows:
        tensors = self._signature.tensors
        if not tensors:
            raise UnreadableRequestError(
                "invalid_rows", "this model takes neither a table nor tensors; ask it by `/invocations`"
            )
        expected = {tensor.name: tensor for tensor in tensors}
        for item in inputs:
            tensor = tensors[0] if len(tensors) == len(inputs) == 1 else expected.get(item.name)
            if tensor is None:
                raise UnreadableRequestError("invalid_rows", f"`{item.place}`: the model has no input of this name")
            if not _fits(item.shape, tensor):
                raise _wrong_shape(item, str(list(tensor.shape)))
        missing = [name for name in expected if len(tensors) > 1 and name not in {item.name for item in inputs}]
        if missing:
            raise UnreadableRequestError("invalid_rows", f"`$.inputs`: input {missing[0]!r} is required and missing")
        array = self._signature.array
        if array is not None:
            return packed_array(array, inputs[0].values, inputs[0].shape[0], inputs[0].place)
        dtypes = {item.name: (expected.get(item.name) or tensors[0]).dtype for item in inputs}
        listed = [(item.name, dtypes[item.name], list(item.shape), item.values) for item in inputs]
        return Rows(FrameKind.TENSORS, msgspec.msgpack.encode(listed), max(inputs[0].shape[0], 1), b"")


class _Input(NamedTuple):
    name: str
    place: str
    shape: tuple[int, ...]
    values: list[Any]
    """Row after row."""


def _input(entry: Any, place: str) -> _Input:
    if not isinstance(entry, dict):
        raise UnreadableRequestError("invalid_body", f"`{place}` must be an object; got another")
    name, shape, datatype, data = (entry.get(key) for key in ("name", "shape", "datatype", "data"))
    parameters = entry.get("parameters")
    if isinstance(parameters, dict) and "binary_data_size" in parameters:
        raise UnreadableRequestError(
            "invalid_body", f"`{place}`: data must be JSON; got binary data, which is not read"
        )
    if not isinstance(name, str):
        raise UnreadableRequestError("invalid_body", f"`{place}.name` must be a string; got another")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise UnreadableRequestError(
            "invalid_body", f"`{place}.datatype` must be one of {', '.join(DATATYPES)}; got another"
        )
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise UnreadableRequestError("invalid_body", f"`{place}.shape` must be a list of whole numbers; got another")
    if not isinstance(data, list):
        raise UnreadableRequestError("invalid_body", f"`{place}.data` must be a list; got another")
    values = _flat(data)
    if len(values) != math.prod(shape):
        raise UnreadableRequestError(
            "invalid_body", f"`{place}.data` must have {math.prod(shape)} values, as its shape says; got {len(values)}"
        )
    _check_values(values, datatype, place)
    return _Input(name, place, tuple(shape), values)


def _check_values(values: Sequence[Any], datatype: str, place: str) -> None:
    kinds: tuple[type, ...] = (int, float, type(None))
    if datatype == "BOOL":
        kinds = (bool,)
    elif datatype == "BYTES":
        kinds = (str, type(None))
    elif "INT" in datatype:
        kinds = (int,)
    for value in values:
        if not isinstance(value, kinds) or (isinstance(value, bool) and datatype != "BOOL"):
            raise UnreadableRequestError(
                "invalid_rows", f"`{place}.data` must hold values of type {datatype}; got another"
            )


def _flat(data: Sequence[Any]) -> list[Any]:
    """Return nested lists as one; the protocol allows both."""
    if not any(isinstance(item, list) for item in data):
        return list(data)
    flat: list[Any] = []
    waiting: list[Any] = list(reversed(data))
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(reversed(item))
        else:
            flat.append(item)
    return flat


def _fits(shape: Sequence[int], tensor: Tensor) -> bool:
    return len(shape) == len(tensor.shape) and all(
        wanted in (-1, size) for size, wanted in zip(shape, tensor.shape, strict=True)
    )


def _wrong_shape(item: _Input, expected: str) -> UnreadableRequestError:
    return UnreadableRequestError("invalid_rows", f"`{item.place}.shape` must be {expected}; got another")


# --- answers ---------------------------------------------------------------------------------------------------------


def outputs_of(predictions: Any, wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return predictions as output tensors.

    :param predictions: plain values; a list with one entry per row, or whatever the model returned.
    :param wanted: names of the outputs that the caller wants; empty for all.
    :raises UnreadableRequestError: when there is no output of a wanted name.
    """
    outputs = _outputs(predictions)
    names = {output["name"] for output in outputs}
    if missing := [name for name in wanted if name not in names]:
        known = ", ".join(sorted(names))
        raise UnreadableRequestError(
            "invalid_rows", f"`$.outputs` must be among {known}; got {len(missing)} that the model does not have"
        )
    return [output for output in outputs if not wanted or output["name"] in wanted]


def _outputs(predictions: Any) -> list[dict[str, Any]]:
    if isinstance(predictions, dict):
        return [_tensor(str(name), values) for name, values in predictions.items()]
    if isinstance(predictions, list) and predictions and all(isinstance(row, dict) for row in predictions):
        names = list(dict.fromkeys(name for row in predictions for name in row))
        return [_tensor(name, [row.get(name) for row in predictions]) for name in names]
    return [_tensor(_PREDICTIONS, predictions)]


def _tensor(name: str, values: Any) -> dict[str, Any]:
    listed = values if isinstance(values, list) else [values]
    shape = _shape(listed)
    flat = _flat(listed) if len(shape) > 1 else listed
    datatype = _datatype(flat)
    if datatype == "BYTES":
        flat = [item if item is None or isinstance(item, str) else msgspec.json.encode(item).decode() for item in flat]
    return {"name": name, "shape": shape, "datatype": datatype, "data": flat}


def _shape(values: Sequence[Any]) -> list[int]:
    """Return the shape of nested lists; those of unequal length count as single values."""
    if values and all(isinstance(item, list) for item in values):
        inner = [_shape(item) for item in values]
        if all(shape == inner[0] for shape in inner):
            return [len(values), *inner[0]]
    return [len(values)]


def _datatype(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    if kinds and kinds <= {int, float}:
        return "FP64"
    return "BYTES" if kinds else "FP64"


def metadata_of(name: str, version: str, signature: ModelSignature) -> dict[str, Any]:
    """Return the metadata of a model, as ``GET /v2/models/NAME`` answers it.

    :param name: name of the model.
    :param version: its version.
    :param signature: its signature.
    """
    return {
        "name": name,
        "versions": [version],
        "platform": "mlflow_pyfunc",
        "inputs": [*map(_column, signature.columns), *map(_tensor_metadata, signature.tensors)],
        "outputs": [*map(_column, signature.outputs), *map(_tensor_metadata, signature.output_tensors)],
    }


def _column(column: Column) -> dict[str, Any]:
    return {"name": column.name or _PREDICTIONS, "datatype": _OF_COLUMNS.get(column.type, "BYTES"), "shape": [-1]}


def _tensor_metadata(tensor: Tensor) -> dict[str, Any]:
    types = {numpy: datatype for datatype, numpy in DATATYPES.items()}
    return {
        "name": tensor.name or _PREDICTIONS,
        "datatype": types.get(tensor.dtype, "BYTES"),
        "shape": list(tensor.shape),
    }
