"""Reading bodies: the compiled decoder, the second reader, and messages without the caller's values."""

from __future__ import annotations

import json
import struct

import msgspec
import pytest

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.scoring import Rows, TableReader, UnreadableRequestError, parse_json
from airflow_mcp.core.serving.signature import Column, ModelSignature

NUMBERS = TableReader(ModelSignature(columns=(Column("a b", "double"), Column("n", "long"))))
MIXED = TableReader(
    ModelSignature(columns=(Column("x", "double"), Column("s", "string"), Column("o", "long", required=False)))
)
SECRET = "4929123412341234"


def read(reader: TableReader, document: object) -> Rows:
    rows = reader.read(json.dumps(document).encode())
    assert rows is not None
    return rows


def decoded(rows: Rows) -> tuple[list[int], list[list[object]]]:
    """Return the columns that are present, and the rows."""
    assert rows.kind is FrameKind.COLUMNS
    listed = msgspec.msgpack.decode(b"\xdd" + rows.number.to_bytes(4, "big") + rows.payload)
    return msgspec.msgpack.decode(rows.form), listed


def test_rows_of_numbers_are_packed_in_the_order_of_the_signature() -> None:
    expected = struct.pack("<dqdq", 1.5, 2, -0.25, 2**62)
    records = {"dataframe_records": [{"a b": 1.5, "n": 2}, {"n": 2**62, "a b": -0.25}]}
    split = {"dataframe_split": {"columns": ["a b", "n"], "data": [[1.5, 2], [-0.25, 2**62]]}}
    turned = {"dataframe_split": {"columns": ["n", "z", "a b"], "data": [[2, 0, 1.5], [2**62, 0, -0.25]]}}
    by_column = {"inputs": {"a b": [1.5, -0.25], "n": [2, 2**62]}}
    for document in (records, split, turned, by_column):
        assert read(NUMBERS, document) == Rows(FrameKind.PACKED, expected, 2, b"")


def test_null_in_a_double_is_packed_as_nan() -> None:
    payload = read(NUMBERS, {"dataframe_records": [{"a b": None, "n": 1}]}).payload
    assert struct.unpack("<dq", payload)[0] != struct.unpack("<dq", payload)[0]


def test_rows_with_the_same_columns_may_share_a_batch_and_others_may_not() -> None:
    with_optional = read(MIXED, {"dataframe_records": [{"x": 1, "s": "a", "o": 5}]})
    without = read(MIXED, {"dataframe_records": [{"x": 1, "s": "a"}]})
    null_in_text = read(MIXED, {"dataframe_records": [{"x": None, "s": None, "o": 1}]})
    assert with_optional.form == null_in_text.form != without.form
    assert decoded(without) == ([0, 1], [[1.0, "a"]])
    assert decoded(null_in_text) == ([0, 1, 2], [[None, None, 1]])


def test_inference_parameters_are_left_to_mlflow() -> None:
    body = json.dumps({"dataframe_records": [{"a b": 1, "n": 1}], "params": {"k": 3}}).encode()
    assert NUMBERS.read(body) is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"dataframe_records": [{"a b": SECRET, "n": 1}]}, "`$.dataframe_records[0].a b`: expected number, got string"),
        ({"dataframe_records": [{"a b": 1, "n": 3.7}]}, "`$.dataframe_records[0].n`: expected int, got float"),
        ({"dataframe_records": [{"a b": 1}]}, "`$.dataframe_records[0]` has no column 'n', which is required"),
        (
            {"dataframe_split": {"columns": ["a b", "n"], "data": [[1, 1], [1, SECRET]]}},
            "`$.dataframe_split.data[1][1]` (column 'n'): expected int, got string",
        ),
        ({"dataframe_split": {"columns": [SECRET], "data": []}}, "'a b', 'n' are required and missing"),
        ({"instances": [[1, SECRET]]}, "`$.instances[0]`: expected object, got array"),
        ({"inputs": {"a b": [1], "n": SECRET}}, "`$.inputs.n`: expected array, got string"),
        ({"inputs": {"a b": [1], "n": [int(SECRET) ** 5]}}, "expected a whole number from"),
        ({SECRET: 1}, "exactly one of"),
    ],
)
def test_errors_name_the_place_and_never_the_value(document: object, message: str) -> None:
    with pytest.raises(UnreadableRequestError) as raised:
        read(NUMBERS, document)
    assert message in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"dataframe_records": [{{"a b": {SECRET}, '.encode(),
        f'{{"dataframe_records": "{SECRET}", }}'.encode(),
        b'{"x": "\xff' + SECRET.encode() + b'"}',
        SECRET.encode(),
        b"[" * 200_000,
        b'{"dataframe_records": [{"a b": ' + b"1" * 10_000 + b', "n": 1}], }',
        b"",
    ],
)
def test_what_is_no_json_is_refused_without_its_text(body: bytes) -> None:
    with pytest.raises(UnreadableRequestError) as raised:
        NUMBERS.read(body)
    assert raised.value.code == "invalid_body"
    assert SECRET not in str(raised.value)


def test_a_number_beyond_32_bits_is_refused_for_a_float() -> None:
    reader = TableReader(ModelSignature(columns=(Column("f", "float"),)))
    assert read(reader, {"dataframe_records": [{"f": 0.1}]}).payload == struct.pack("<f", 0.1)
    with pytest.raises(UnreadableRequestError, match=r"row 1, column 'f'`: expected a 32-bit float"):
        read(reader, {"dataframe_records": [{"f": 1}, {"f": 1e39}]})


def test_a_model_with_one_column_takes_plain_lists() -> None:
    reader = TableReader(ModelSignature(columns=(Column("t", "string"),)))
    assert decoded(read(reader, {"inputs": ["a", "b"]})) == ([0], [["a"], ["b"]])
    assert decoded(read(reader, {"instances": ["a"]})) == ([0], [["a"]])


def test_mlflow_reads_the_word_nan_and_the_strict_reader_does_not() -> None:
    assert parse_json(b"[NaN, Infinity]", nan_is_a_number=True)[1] == float("inf")
    with pytest.raises(UnreadableRequestError, match="Send null"):
        parse_json(b"[NaN]")
    with pytest.raises(UnreadableRequestError, match="no Infinity"):
        parse_json(b"[Infinity]")


@pytest.mark.parametrize("kind", ["double", "float"])
def test_numbers_beyond_the_type_are_refused(kind: str) -> None:
    reader = TableReader(ModelSignature(columns=(Column("x", kind),)))
    for form in (b'{"dataframe_records": [{"x": -1e400}]}', b'{"inputs": {"x": [1e400]}}'):
        with pytest.raises(UnreadableRequestError, match="got a larger number"):
            reader.read(form)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (rb'{"dataframe_records": [{"x": 1, "s": "\ud800", "o": 1}]}', "`$.dataframe_records[0].s`"),
        (rb'{"inputs": {"x": [1], "s": ["a\udfff"]}}', "`$.inputs[0][1]` (column 's')"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_with_its_place(body: bytes, place: str) -> None:
    with pytest.raises(UnreadableRequestError) as raised:
        MIXED.read(body)
    assert str(raised.value) == f"{place}: expected a string of whole characters, got half of a surrogate pair"
