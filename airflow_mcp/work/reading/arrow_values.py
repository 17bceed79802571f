"""Values of Arrow in plain types: what a value is must not depend on how its file stores it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_LARGEST_INTEGER = 2**63
GUESSED = {b"airflow_mcp": b"guessed"}
"""Metadata of a field whose file stores text only, and whose type a parser guessed from the values of one block."""
_TIME_TYPES = (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("ns", "UTC"))


class MixedType(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A column of JSON whose values have several types: each type is a column of its own, the others are null there."""

    def __init__(self) -> None:
        kinds = [("flag", pa.bool_()), ("number", pa.float64()), ("text", pa.string()), ("nested", pa.binary())]
        super().__init__(pa.struct([("integer", pa.int64()), *kinds]), "airflow_mcp.mixed")

    def __arrow_ext_serialize__(self) -> bytes:
        """Return no parameters."""
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> MixedType:
        """Return the type."""
        return cls()


def plain(values: pa.Array) -> pa.Array:
    """Return values without encodings that do not change them: dictionaries, run lengths, views, extension types.

    :param values: a column of a record batch.
    """
    kind = values.type
    if isinstance(kind, MixedType):
        return values
    if isinstance(kind, pa.BaseExtensionType):
        return plain(values.storage)
    if pa.types.is_dictionary(kind):
        words = plain(values.dictionary)
        return pa.DictionaryArray.from_arrays(values.indices, words).dictionary_decode()
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if pa.types.is_float16(kind):
        return values.cast(pa.float32())
    return values.cast(pa.string()) if pa.types.is_string_view(kind) else values


def by_type(values: pa.Array) -> list[pa.Array]:
    """Return a column of mixed types as one column per type, and any other column as it is; without empty ones.

    :param values: a column in plain types.
    """
    columns = values.storage.flatten() if isinstance(values.type, MixedType) else [values]
    return [column for column in columns if column.null_count < len(column)]


def as_floats(values: pa.Array) -> pa.Array:
    """Return numbers as doubles. Decimals become the nearest ones: Arrow's own conversion makes 0.3 more than 0.3."""
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    return values.cast(pa.float64(), safe=False)


def as_times(texts: pa.Array) -> pa.Array | None:
    """Return texts as times; None unless every text is a time in ISO 8601, all with or all without a zone.

    :param texts: a column of text.
    """
    known = texts.slice(0, 64).drop_null() if texts.null_count < len(texts) else None
    if known is None:
        return None
    for kind in _TIME_TYPES:
        try:
            known.cast(kind)
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None


def column_of_json(values: Sequence[Any]) -> pa.Array:
    """Return values of JSON as a column: of one type if they have one, else of :class:`MixedType`.

    Never fails: whole numbers beyond 64 bits become doubles, and half a surrogate pair becomes its escape.

    :param values: Python values, None where there is none.
    """
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds:
        return pa.nulls(len(values))
    if len(kinds) == 1:
        return _of_one_kind(values, *kinds)
    by_kind = {
        kind: _of_one_kind([value if value is not None and _kind(value) == kind else None for value in values], kind)
        for kind in sorted(kinds)
    }
    numbers = by_kind.pop("number", None)
    if numbers is not None:
        by_kind["integer" if pa.types.is_integer(numbers.type) else "number"] = numbers
    mixed = MixedType()
    columns = [by_kind.get(field.name, pa.nulls(len(values), field.type)) for field in mixed.storage_type]
    missing = pa.array([value is None for value in values])
    storage = pa.StructArray.from_arrays(columns, fields=list(mixed.storage_type), mask=missing)
    return pa.ExtensionArray.from_storage(mixed, storage)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "nested"


def _of_one_kind(values: Sequence[Any], kind: str) -> pa.Array:
    if kind == "flag":
        return pa.array(values, pa.bool_())
    if kind == "number":
        if all(value is None or _fits(value) for value in values):
            return pa.array(values, pa.int64())
        return pa.array([None if value is None else _float(value) for value in values], pa.float64())
    if kind == "text":
        return pa.array([None if value is None else _encodable(value) for value in values], pa.string())
    return pa.array([None if value is None else json.dumps(value).encode() for value in values], pa.binary())


def _fits(value: float) -> bool:
    return isinstance(value, int) and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def guessed(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return a table with the mark that the types of some columns were guessed.

    :param names: names of these columns.
    """
    marked = set(names)
    fields = [field.with_metadata(GUESSED) if field.name in marked else field for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
