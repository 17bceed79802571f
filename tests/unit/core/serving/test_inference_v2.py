"""The Open Inference Protocol: tensors to rows, and predictions to tensors."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.inference_v2 import InferenceReader, metadata_of, outputs_of
from airflow_mcp.core.serving.scoring import TableReader, UnreadableRequestError
from airflow_mcp.core.serving.signature import Column, ModelSignature, Tensor

TABLE = ModelSignature(columns=(Column("x", "double"), Column("n", "long")))
ARRAY = ModelSignature(tensors=(Tensor("image", "float32", (-1, 2, 2)),))
PAIR = ModelSignature(tensors=(Tensor("ids", "int64", (-1, 3)), Tensor("mask", "int64", (-1, 3))))


def reader(signature: ModelSignature) -> InferenceReader:
    return InferenceReader(signature, TableReader(signature) if signature.is_fast else None)


def tensor(name: str, shape: list[int], data: list[Any], datatype: str = "FP64") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def read(signature: ModelSignature, *inputs: Any, **further: Any) -> Any:
    return reader(signature).read(json.dumps({"inputs": list(inputs), **further}).encode())


def test_one_input_per_column_is_a_table() -> None:
    rows, asked = read(TABLE, tensor("n", [2, 1], [[3], [4]], "INT64"), tensor("x", [2], [0.5, 1]), id="abc")
    assert rows.payload == struct.pack("<dqdq", 0.5, 3, 1.0, 4)
    assert asked == ("abc", ())


def test_one_matrix_with_a_column_for_each_of_the_signature_is_a_table() -> None:
    nested, _ = read(TABLE, tensor("anything", [2, 2], [[0.5, 3], [1, 4]]))
    flat, _ = read(TABLE, tensor("anything", [2, 2], [0.5, 3, 1, 4]))
    assert nested == flat
    assert flat.payload == struct.pack("<dqdq", 0.5, 3, 1.0, 4)


def test_one_array_of_numbers_is_rows_that_may_share_a_batch() -> None:
    rows, _ = read(ARRAY, tensor("image", [2, 2, 2], [1, 2, 3, 4, 5, 6, 7, None], "FP32"))
    assert (rows.kind, rows.number) == (FrameKind.ARRAY, 2)
    assert struct.unpack("<7f", rows.payload[:28]) == (1, 2, 3, 4, 5, 6, 7)


def test_other_tensors_keep_the_type_of_the_model_and_their_shape() -> None:
    pixels = ModelSignature(tensors=(Tensor("image", "uint8", (-1, 2, 2)),))
    rows, _ = read(pixels, tensor("image", [1, 2, 2], [1, 2, 3, 4], "UINT8"))
    assert rows.kind is FrameKind.TENSORS
    assert msgspec.msgpack.decode(rows.payload) == [["image", "uint8", [1, 2, 2], [1, 2, 3, 4]]]
    both, _ = read(PAIR, tensor("mask", [1, 3], [1, 1, 0], "INT64"), tensor("ids", [1, 3], [7, 8, 9], "INT64"))
    assert [entry[0] for entry in msgspec.msgpack.decode(both.payload)] == ["mask", "ids"]


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        (TABLE, [tensor("x", [1], [1])], "'n' is required and missing"),
        (TABLE, [tensor("x", [1], [1]), tensor("n", [2], [1, 2], "INT64")], "one number of rows"),
        (TABLE, [tensor("x", [2], [1])], "must have 2 values, as its shape says; got 1"),
        (TABLE, [tensor("x", [1], ["1"])], "values of type FP64"),
        (TABLE, [tensor("x", [1], [True])], "values of type FP64"),
        (TABLE, [tensor("x", [1], [1]), tensor("n", [1], [1.5], "INT64")], "values of type INT64"),
        (TABLE, [tensor("x", [1], [1], "FLOAT")], "datatype` must be one of BOOL"),
        (TABLE, [tensor("x", [-1], [1])], "list of whole numbers"),
        (TABLE, [tensor("x", [1, 1, 1], [1]), tensor("n", [1], [1], "INT64")], r"must be \[rows\] or \[rows, 1\]"),
        (TABLE, [tensor("x", [1], [1]), tensor("x", [1], [1])], "each input once"),
        (TABLE, [1], r"inputs\[0\]` must be an object"),
        (TABLE, [{**tensor("x", [1], [1]), "parameters": {"binary_data_size": 8}}], "got binary data"),
        (TABLE, [], "list `inputs`"),
        (ARRAY, [tensor("image", [1, 3, 2], [1] * 6)], r"must be \[-1, 2, 2\]"),
        (PAIR, [tensor("ids", [1, 3], [1, 2, 3], "INT64")], "'mask' is required and missing"),
        (PAIR, [tensor("other", [1, 3], [1, 2, 3], "INT64")], "no input of this name"),
        (ModelSignature(), [tensor("x", [1], [1])], "neither a table nor tensors"),
    ],
)
def test_what_does_not_fit_is_refused(signature: ModelSignature, inputs: list[Any], message: str) -> None:
    with pytest.raises(UnreadableRequestError, match=message):
        read(signature, *inputs)


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([1, 2], [("predictions", [2], "INT64", [1, 2])]),
        ([0.5, None], [("predictions", [2], "FP64", [0.5, None])]),
        ([True], [("predictions", [1], "BOOL", [True])]),
        (["a", "b"], [("predictions", [2], "BYTES", ["a", "b"])]),
        ([[0.1, 0.9], [0.8, 0.2]], [("predictions", [2, 2], "FP64", [0.1, 0.9, 0.8, 0.2])]),
        ([[1], [1, 2]], [("predictions", [2], "BYTES", ["[1]", "[1,2]"])]),
        ([{"score": 0.5, "label": "x"}], [("score", [1], "FP64", [0.5]), ("label", [1], "BYTES", ["x"])]),
        ({"a": [1], "b": ["x"]}, [("a", [1], "INT64", [1]), ("b", [1], "BYTES", ["x"])]),
        ("text", [("predictions", [1], "BYTES", ["text"])]),
    ],
)
def test_predictions_become_tensors(predictions: Any, expected: list[Any]) -> None:
    outputs = outputs_of(predictions)
    assert [(each["name"], each["shape"], each["datatype"], each["data"]) for each in outputs] == expected


def test_only_the_outputs_that_are_asked_for_are_sent() -> None:
    rows = [{"score": 0.5, "label": "x"}]
    assert [output["name"] for output in outputs_of(rows, ("label",))] == ["label"]
    with pytest.raises(UnreadableRequestError, match="must be among label, score; got 1"):
        outputs_of(rows, ("other",))
    assert read(TABLE, tensor("x", [1], [1]), tensor("n", [1], [1], "INT64"), outputs=[{"name": "o"}])[1].outputs == (
        "o",
    )


def test_metadata_names_inputs_and_their_types() -> None:
    metadata = metadata_of("fraud", "8", TABLE)
    assert (metadata["name"], metadata["versions"]) == ("fraud", ["8"])
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP64", "shape": [-1]},
        {"name": "n", "datatype": "INT64", "shape": [-1]},
    ]
    assert metadata_of("m", "1", ARRAY)["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 2, 2]}]
