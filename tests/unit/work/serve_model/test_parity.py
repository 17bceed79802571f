"""Bodies as our decoder and MLflow's own parser read them: where both accept a body, the model sees the same table."""

from __future__ import annotations

import json
import warnings
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest

from airflow_mcp.core.serving.arrays import ArrayReader
from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.scoring import TableReader, UnreadableRequestError
from airflow_mcp.core.serving.signature import Column, ModelSignature, Tensor

with warnings.catch_warnings():  # MLflow warns of type hints of its own
    warnings.simplefilter("ignore")
    from mlflow.models.utils import _enforce_schema
    from mlflow.pyfunc import scoring_server
    from mlflow.types import ColSpec, Schema, TensorSpec

    from airflow_mcp.work.serve_model.batches import Batches

COLUMNS = (
    Column("d", "double"),
    Column("f", "float", required=False),
    Column("l", "long"),
    Column("i", "integer", required=False),
    Column("b", "boolean"),
    Column("s", "string"),
    Column("t", "string", required=False),
)
SCHEMA = Schema([ColSpec(each.type, each.name, required=each.required) for each in COLUMNS])
SIGNATURE = ModelSignature(columns=COLUMNS)
ROW = {"d": 1.5, "l": 3, "b": True, "s": "x"}


class _Metadata:
    def get_input_schema(self) -> Schema:
        return SCHEMA


class _SeesItsInput:
    """A model that returns the table that it is given."""

    metadata = _Metadata()

    def predict(self, table: Any, params: Any = None) -> Any:
        return table


BATCHES, READER = Batches(_SeesItsInput(), SIGNATURE), TableReader(SIGNATURE)


def ours(body: bytes) -> pd.DataFrame:
    rows = READER.read(body)
    assert rows is not None
    assert rows.kind is FrameKind.COLUMNS
    decoded = msgspec.msgpack.decode(b"\xdd" + rows.number.to_bytes(4, "big") + rows.payload)
    return BATCHES._of_columns(msgspec.msgpack.decode(rows.form), decoded)


def of_mlflow(body: bytes) -> pd.DataFrame:
    data, _ = scoring_server._split_data_and_params(body)
    table = _enforce_schema(scoring_server.infer_and_parse_data(data, SCHEMA), SCHEMA, flavor=None)
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)


def records(*changes: dict[str, Any], without: str = "") -> bytes:
    rows = [
        {name: value for name, value in {**ROW, **change}.items() if name != without} for change in changes or ({},)
    ]
    return json.dumps({"dataframe_records": rows}).encode()


def split(columns: list[str], *data: list[Any], **further: Any) -> bytes:
    return json.dumps({"dataframe_split": {"columns": columns, "data": list(data), **further}}).encode()


def form(name: str, value: Any, **further: Any) -> bytes:
    return json.dumps({name: value, **further}).encode()


NAMES, VALUES = ["d", "l", "b", "s"], [1, 2, False, "x"]
BY_COLUMN = {name: [value] for name, value in ROW.items()}

ALIKE: dict[str, bytes] = {
    "records": records(),
    "several records": records({"d": 2.5}, {"l": 7}, {"s": "é\u0000"}),
    "optional columns": records({"f": 0.25, "i": 4, "t": "y"}),
    "optional double is null": records({"f": None}),
    "an optional column in some records": records({"f": 1.0}, {}),
    "extra column": records({"zz": [1, {"a": 2}]}),
    "whole number for a double": records({"d": 1}),
    "huge whole number for a double": records({"d": 2**70}),
    "null for a double": records({"d": None}),
    "3.0 for a long": records({"l": 3.0}),
    "largest long": records({"l": 2**63 - 1}),
    "smallest long": records({"l": -(2**63)}),
    "a long that no double holds": records({"l": 2**53 + 1}),
    "null for a string": records({"s": None}),
    "empty string": records({"s": ""}),
    "split": split(NAMES, VALUES, VALUES),
    "split in another order": split(["s", "b", "l", "d"], ["x", False, 2, 1]),
    "split with an index": split(NAMES, VALUES, index=[7]),
    "split with an extra column": split(["q", *NAMES], [9, *VALUES]),
    "instances": form("instances", [ROW, ROW]),
    "inputs by column": form("inputs", BY_COLUMN),
    "inputs as single values": form("inputs", ROW),
    "inputs as records": form("inputs", [ROW]),
    "further keys beside the form": form("dataframe_records", [ROW], other=1),
    "params that are null": form("dataframe_records", [ROW], params=None),
    "the same key twice": b'{"dataframe_records":[{"d":1,"d":2,"l":1,"s":"x","b":true}]}',
    "byte order mark": b"\xef\xbb\xbf" + records(),
    "white space": b" \n\t" + records() + b"\r\n",
}


@pytest.mark.parametrize("name", ALIKE)
def test_both_read_the_same_table(name: str) -> None:
    ours_, theirs = ours(ALIKE[name]), of_mlflow(ALIKE[name]).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours_, theirs[list(ours_.columns)])
    # A column that no row has is missing in both, or MLflow has it without values.
    assert theirs.drop(columns=list(ours_.columns)).isna().all(axis=None)


BOTH_REFUSE: dict[str, bytes] = {
    "null for a long": records({"l": None}),
    "null for an integer": records({"i": None}),
    "an optional integer in some records": records({"i": 1}, {}),
    "2**70 for a long": records({"l": 2**70}),
    "list for a double": records({"d": [1]}),
    "object for a long": records({"l": {"a": 1}}),
    "required column missing": records({}, without="d"),
    "required column missing in one": form("dataframe_records", [ROW, {}]),
    "split row too short": split(NAMES, VALUES[:3]),
    "split row too long": split(NAMES, [*VALUES, 1]),
    "split column twice": split(["d", *NAMES], [1, *VALUES]),
    "split without columns": form("dataframe_split", {"data": [VALUES]}),
    "split without data": form("dataframe_split", {"columns": NAMES}),
    "split with another key": split(NAMES, VALUES, z=1),
    "split that is a list": form("dataframe_split", [VALUES]),
    "no records": form("dataframe_records", []),
    "records that are an object": form("dataframe_records", {}),
    "instances as lists": form("instances", [VALUES]),
    "inputs as lists": form("inputs", [VALUES]),
    "inputs of unequal length": form("inputs", {**BY_COLUMN, "d": [1.5, 2.5]}),
    "two forms": form("dataframe_records", [ROW], instances=[ROW]),
    "no form": b'{"rows": []}',
    "a list": b"[1]",
    "null": b"null",
    "nothing": b"",
    "cut off": records()[:-5],
    "not UTF-8": b'{"dataframe_records":[{"d":1,"l":1,"s":"\xff","b":true}]}',
    "deep": b'{"dataframe_records":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("name", BOTH_REFUSE)
def test_both_refuse(name: str) -> None:
    with pytest.raises(UnreadableRequestError):
        ours(BOTH_REFUSE[name])
    with pytest.raises(Exception):  # noqa: B017  (MLflow raises many types)
        of_mlflow(BOTH_REFUSE[name])


class Coerced(NamedTuple):
    """What MLflow makes of a value that we refuse."""

    body: bytes
    column: str
    becomes: Any


ONLY_WE_REFUSE: dict[str, Coerced] = {
    "3.7 for a long": Coerced(records({"l": 3.7}), "l", 3),
    "text for a long": Coerced(records({"l": "3"}), "l", 3),
    "text for a double": Coerced(records({"d": "1.5"}), "d", 1.5),
    "true for a long": Coerced(records({"l": True}), "l", 1),
    "true for a double": Coerced(records({"d": True}), "d", 1.0),
    "2**63 for a long": Coerced(records({"l": 2**63}), "l", -(2**63)),
    "2**31 for an integer": Coerced(records({"i": 2**31}), "i", -(2**31)),
    "number for a string": Coerced(records({"s": 5}), "s", 5),
    "number beyond a double": Coerced(records({"d": float("inf")}).replace(b"Infinity", b"1e400"), "d", float("inf")),
    "null for a boolean": Coerced(records({"b": None}), "b", False),
    "text for a boolean": Coerced(records({"b": "false"}), "b", True),
    "1 for a boolean": Coerced(records({"b": 1}), "b", True),
}


@pytest.mark.parametrize("name", ONLY_WE_REFUSE)
def test_only_we_refuse_what_mlflow_changes(name: str) -> None:
    body, column, becomes = ONLY_WE_REFUSE[name]
    with pytest.raises(UnreadableRequestError, match="expected"):
        ours(body)
    assert of_mlflow(body)[column].tolist() == [becomes]


def test_only_we_refuse_the_words_nan_and_infinity_and_a_table_without_rows() -> None:
    with pytest.raises(UnreadableRequestError, match="no -Infinity"):
        ours(records({"d": -float("inf")}))
    assert of_mlflow(records({"d": -float("inf")}))["d"].tolist() == [-float("inf")]
    with pytest.raises(UnreadableRequestError, match="no NaN"):
        ours(records({"d": float("nan")}))
    assert of_mlflow(records({"d": float("nan")}))["d"].isna().all()
    with pytest.raises(UnreadableRequestError, match="at least one row"):
        ours(split(NAMES))
    assert of_mlflow(split(NAMES)).empty


def test_packed_numbers_become_the_table_that_mlflow_reads() -> None:
    kinds = {"d": "double", "f": "float", "l": "long", "i": "integer", "b": "boolean"}
    signature = ModelSignature(columns=tuple(Column(name, kind) for name, kind in kinds.items()))
    schema = Schema([ColSpec(kind, name) for name, kind in kinds.items()])
    body = form("dataframe_records", [{"d": 0.1, "f": 0.1, "l": 2**62, "i": -5, "b": True}, {**ROW, "f": None, "i": 0}])
    rows = TableReader(signature).read(body)
    assert rows is not None
    assert (rows.kind, rows.number) == (FrameKind.PACKED, 2)
    data, _ = scoring_server._split_data_and_params(body)
    theirs = _enforce_schema(scoring_server.infer_and_parse_data(data, schema), schema, flavor=None)
    pd.testing.assert_frame_equal(Batches(_SeesItsInput(), signature)._unpacked(rows.payload, 2), theirs)


# --- models that take one array --------------------------------------------------------------------------------------


class Array(NamedTuple):
    """A body, and the array that it is for."""

    body: bytes
    dtype: str = "float64"
    shape: tuple[int, ...] = (-1, 2)
    name: str = ""

    def ours(self) -> Any:
        reader = ArrayReader(Tensor(self.name, self.dtype, self.shape))
        rows = reader.read(self.body)
        assert rows is not None
        signature = ModelSignature(tensors=(Tensor(self.name, self.dtype, self.shape),))
        return Batches(_SeesItsInput(), signature)._of_array(rows.payload)

    def of_mlflow(self) -> Any:
        schema = Schema([TensorSpec(np.dtype(self.dtype), self.shape, self.name or None)])
        data, _ = scoring_server._split_data_and_params(self.body)
        return _enforce_schema(scoring_server.infer_and_parse_data(data, schema), schema, flavor=None)


ARRAYS_ALIKE: dict[str, Array] = {
    "inputs": Array(form("inputs", [[1, 2.5], [3, 4]])),
    "instances": Array(form("instances", [[1, 2.5]])),
    "32 bits": Array(form("inputs", [[0.1, 1e-40]]), "float32"),
    "whole numbers": Array(form("inputs", [[1, -(2**62)]]), "int64"),
    "3.0 for a whole number": Array(form("inputs", [[1.0, 2]]), "int64"),
    "null": Array(form("inputs", [[None, 1]])),
    "one number per row": Array(form("inputs", [1, 2, 3]), shape=(-1,)),
    "a box": Array(form("inputs", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]), "float32", (-1, 2, 2)),
    "named": Array(form("inputs", {"x": [[1, 2]]}), name="x"),
    "named, by row": Array(form("instances", [{"x": [1, 2]}, {"x": [3, 4]}]), name="x"),
}


@pytest.mark.parametrize("name", ARRAYS_ALIKE)
def test_both_read_the_same_array(name: str) -> None:
    ours_, theirs = ARRAYS_ALIKE[name].ours(), ARRAYS_ALIKE[name].of_mlflow()
    for left, right in zip(_arrays(ours_), _arrays(theirs), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def _arrays(found: Any) -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Array(form("inputs", [[1, 2], [3]])), r"`\$.inputs\[1\]`: expected 2 values, got 1"),
        (Array(form("inputs", [[1, [2]]])), "expected number, got array"),
        (Array(form("inputs", [1, 2])), r"`\$.inputs\[0\]`: expected array, got int"),
        (Array(form("inputs", [[1, {"a": 1}]])), "expected number, got object"),
        (Array(form("inputs", [[None, 1]]), "int64"), "expected int, got null"),
        (Array(form("inputs", 3)), "expected array, got int"),
        (Array(form("inputs", [[1, 2]], instances=[[1, 2]])), "got both"),
        (Array(b"[[1, 2]]"), "must be a JSON object"),
    ],
)
def test_both_refuse_arrays_that_do_not_fit(array: Array, message: str) -> None:
    with pytest.raises(UnreadableRequestError, match=message):
        array.ours()
    with pytest.raises(Exception):  # noqa: B017  (MLflow raises many types)
        array.of_mlflow()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (Array(form("inputs", [["1", 2]])), "expected number, got string"),
        (Array(form("inputs", [[True, 2]])), "expected number, got bool"),
        (Array(form("inputs", [[3.7, 2]]), "int64"), "expected int, got float"),
        (Array(form("inputs", [[1e39, 2]]), "float32"), "32-bit floats"),
        (Array(form("inputs", [])), "at least one row"),
        (Array(form("inputs", [[float("inf"), 1]])), "no Infinity"),
        (Array(b'{"inputs": [[1e400, 1]]}'), "got a larger number"),
    ],
)
def test_only_we_refuse_arrays_that_would_be_changed(array: Array, message: str) -> None:
    with pytest.raises(UnreadableRequestError, match=message):
        array.ours()


def test_parameters_and_tables_for_a_model_with_an_array_are_left_to_mlflow() -> None:
    reader = ArrayReader(Tensor("", "float64", (-1, 2)))
    assert reader.read(form("inputs", [[1, 2]], params={"k": 1})) is None
    assert reader.read(split(["a", "b"], [1, 2])) is None
