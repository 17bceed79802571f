"""Bodies of MLflow's scoring protocol, read into rows by a decoder that is compiled from the model's signature.

What the compiled decoder refuses is read once more in plain Python, which accepts a little more (``3.0`` for a whole
number, columns in another order) and words the error. No error repeats a value of the caller.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType, defstruct

from airflow_mcp.core.serving.frames import FrameKind
from airflow_mcp.core.serving.signature import PACK_CODES, RANGES, Column, ModelSignature

SPLIT, RECORDS, INSTANCES, INPUTS = "dataframe_split", "dataframe_records", "instances", "inputs"
FORMS = (SPLIT, RECORDS, INSTANCES, INPUTS)
"""The four forms of a body."""
_MAX_SHOWN_COLUMNS = 5
LARGEST_FLOAT32 = 3.4028234663852886e38
_LARGEST_EXACT = 2**53
"""Above, a floating-point number skips whole numbers."""
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class UnreadableRequestError(ValueError):
    """A body cannot be read; the message names the place and never a value.

    :param code: ``invalid_body`` or ``invalid_rows``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rows(NamedTuple):
    """Rows that were read, as they are sent to the model."""

    kind: FrameKind
    payload: bytes
    number: int
    form: bytes
    """Rows of equal form may share a batch; for COLUMNS the list of columns as MessagePack."""


class TableReader:
    """Reads rows of named scalar columns.

    :param signature: a signature that :attr:`ModelSignature.is_fast`.
    """

    def __init__(self, signature: ModelSignature) -> None:
        self._columns = signature.columns
        self._names = [column.name for column in signature.columns]
        self._has_optional = not all(column.required for column in signature.columns)
        self._packer = struct.Struct(signature.pack_codes) if signature.pack_codes else None
        self._decoder = msgspec.json.Decoder(_body_type(signature.columns))
        self._encode = msgspec.msgpack.Encoder().encode
        self._all_columns = self._encode(list(range(len(self._columns))))
        self._cells = [_CELLS[column.type] for column in signature.columns]

    def read(self, body: bytes) -> Rows | None:
        """Read a body.

        :return: the rows; None when the body holds inference parameters, which MLflow's own parser reads.
        :raises UnreadableRequestError: when it is not JSON, or does not fit the signature.
        """
        try:
            parsed = self._decoder.decode(body)
        except UNREADABLE:
            return self._read_leniently(body)
        split, records, instances = parsed.dataframe_split, parsed.dataframe_records, parsed.instances
        if parsed.params is not UNSET or parsed.inputs is not UNSET:
            return self._read_leniently(body)
        if split is not UNSET and records is UNSET and instances is UNSET and split.columns == self._names:
            return self._packed(split.data)
        if records is not UNSET and split is UNSET and instances is UNSET:
            return self._of_records(records)
        if instances is not UNSET and split is UNSET and records is UNSET:
            return self._of_records(instances)
        return self._read_leniently(body)

    def of_columns(self, columns: Mapping[str, Sequence[Any]], rows: int, place: str) -> Rows:
        """Check columns that were read from another protocol.

        :param columns: values of each column, ``rows`` of each.
        :param place: where they are in the body, for messages.
        :raises UnreadableRequestError: when they do not fit the signature.
        """
        listed = [[columns[name][row] for name in columns] for row in range(rows)]
        return self._of_lists(list(columns), listed, place, place)

    # --- rows that the compiled decoder has checked ------------------------------------------------------------------

    def _of_records(self, records: Sequence[Any]) -> Rows:
        rows = [msgspec.structs.astuple(record) for record in records]
        if self._has_optional and any(UNSET in row for row in rows):
            return self._with_gaps(rows)
        return self._packed(rows)

    def _packed(self, rows: Sequence[Sequence[Any]]) -> Rows:
        if not rows:
            raise UnreadableRequestError("invalid_rows", "there must be at least one row; got none")
        packer = self._packer
        if packer is None:
            encode = self._encode
            return Rows(FrameKind.COLUMNS, b"".join(map(encode, rows)), len(rows), self._all_columns)
        try:
            payload = packer.pack(*rows[0]) if len(rows) == 1 else b"".join([packer.pack(*row) for row in rows])
        except (struct.error, OverflowError):  # a null, or a number beyond 32 bits
            payload = b"".join(packer.pack(*self._storable(row, index)) for index, row in enumerate(rows))
        return Rows(FrameKind.PACKED, payload, len(rows), b"")

    def _storable(self, row: Sequence[Any], index: int) -> list[Any]:
        """Return a row with NaN for null, as MLflow has it."""
        for column, value in zip(self._columns, row, strict=True):
            if column.type == "float" and value is not None and abs(value) > LARGEST_FLOAT32:
                raise _misfit(f"row {index}, column {column.name!r}", "a 32-bit float", "a larger number")
        return [math.nan if value is None else value for value in row]

    def _with_gaps(self, rows: Sequence[Sequence[Any]]) -> Rows:
        """Return rows in which optional columns are missing: without those that no row has."""
        present = [index for index in range(len(self._columns)) if any(row[index] is not UNSET for row in rows)]
        for index in present:
            column = self._columns[index]
            if column.type not in ("double", "float", "string") and any(row[index] is UNSET for row in rows):
                raise UnreadableRequestError(
                    "invalid_rows", f"column {column.name!r} must be in all rows or in none; got it in some"
                )
        if len(present) == len(self._columns):
            return self._packed([[None if value is UNSET else value for value in row] for row in rows])
        encoded = [self._encode([None if row[index] is UNSET else row[index] for index in present]) for row in rows]
        return Rows(FrameKind.COLUMNS, b"".join(encoded), len(rows), self._encode(present))

    # --- the second reader, in plain Python ---------------------------------------------------------------------------

    def _read_leniently(self, body: bytes) -> Rows | None:
        document = parse_json(body)
        if not isinstance(document, dict):
            raise UnreadableRequestError("invalid_body", f"the body must be a JSON object; got {json_type(document)}")
        forms = [form for form in FORMS if form in document]
        if len(forms) != 1:
            raise UnreadableRequestError(
                "invalid_body", f"the body must hold exactly one of {', '.join(FORMS)}; got {len(forms)} of them"
            )
        if document.get("params") is not None:
            return None
        form, value = forms[0], document[forms[0]]
        if form == SPLIT:
            return self._of_split(value)
        if form == INPUTS and isinstance(value, dict):
            return self._of_mapping(value)
        return self._of_list(value, f"$.{form}")

    def _of_split(self, value: Any) -> Rows:
        place = f"$.{SPLIT}"
        if not isinstance(value, dict) or not {"data"} <= set(value) <= {"columns", "data", "index"}:
            raise UnreadableRequestError(
                "invalid_body",
                f"`{place}` must be an object with `columns`, `data` and, if wanted, `index`; got another",
            )
        columns, data = value.get("columns"), value["data"]
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise UnreadableRequestError("invalid_body", f"`{place}.columns` must be a list of strings; got another")
        if not isinstance(data, list):
            raise _misfit(f"{place}.data", "array", json_type(data))
        return self._of_lists(columns, data, f"{place}.columns", f"{place}.data")

    def _of_mapping(self, columns: Mapping[str, Any]) -> Rows:
        place = f"$.{INPUTS}"
        known = {name: values for name, values in columns.items() if name in self._names}
        if not any(isinstance(values, list) for values in known.values()):
            return self._of_lists(list(known), [list(known.values())], place, place)
        for name, values in known.items():
            if not isinstance(values, list):
                raise _misfit(f"{place}.{name}", "array", json_type(values))
        lengths = {len(values) for values in known.values()}
        if len(lengths) != 1:
            raise UnreadableRequestError("invalid_rows", f"`{place}` must have columns of equal length; got several")
        return self.of_columns(known, lengths.pop(), place)

    def _of_list(self, value: Any, place: str) -> Rows:
        if not isinstance(value, list):
            raise _misfit(place, "array", json_type(value))
        if len(self._columns) == 1 and place != f"$.{RECORDS}" and not any(isinstance(item, dict) for item in value):
            return self._of_lists(self._names, [[item] for item in value], place, place)
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                raise _misfit(f"{place}[{index}]", "object", json_type(item))
        return self._of_dicts(value, place)

    def _of_dicts(self, records: Sequence[Mapping[str, Any]], place: str) -> Rows:
        rows: list[list[Any]] = []
        for index, record in enumerate(records):
            row: list[Any] = []
            for column, cell in zip(self._columns, self._cells, strict=True):
                if column.name in record:
                    row.append(_checked(cell, record[column.name], f"{place}[{index}].{column.name}"))
                elif column.required:
                    raise UnreadableRequestError(
                        "invalid_rows", f"`{place}[{index}]` has no column {column.name!r}, which is required"
                    )
                else:
                    row.append(UNSET)
            rows.append(row)
        return self._with_gaps(rows) if any(UNSET in row for row in rows) else self._packed(rows)

    def _of_lists(self, names: Sequence[str], data: Sequence[Any], columns_place: str, place: str) -> Rows:
        positions = self._positions(names, columns_place)
        rows: list[list[Any]] = []
        for index, values in enumerate(data):
            if not isinstance(values, list):
                raise _misfit(f"{place}[{index}]", "array", json_type(values))
            if len(values) != len(names):
                raise _misfit(f"{place}[{index}]", f"{len(names)} values", str(len(values)))
            rows.append(
                [
                    UNSET if at is None else _checked(cell, values[at], f"{place}[{index}][{at}]", column.name)
                    for at, cell, column in zip(positions, self._cells, self._columns, strict=True)
                ]
            )
        return self._with_gaps(rows) if rows and None in positions else self._packed(rows)

    def _positions(self, names: Sequence[str], place: str) -> list[int | None]:
        """Return where each column of the signature is among the names; None for one that is left out."""
        found = {name: index for index, name in enumerate(names)}
        if len(found) != len(names):
            raise UnreadableRequestError("invalid_rows", f"`{place}` must name each column once; got one twice")
        missing = [column.name for column in self._columns if column.required and column.name not in found]
        if missing:
            raise UnreadableRequestError("invalid_rows", f"`{place}`: {_listed(missing)} required and missing")
        return [found.get(column.name) for column in self._columns]


# --- types of the compiled decoder -----------------------------------------------------------------------------------

TYPES: Mapping[str, Any] = {
    "double": float | None,
    "float": float | None,
    "string": str | None,
    "boolean": bool,
    **{name: Annotated[int, Meta(ge=low, le=high)] for name, (low, high) in RANGES.items()},
}


def _body_type(columns: Sequence[Column]) -> Any:
    """Return the type of a body with these columns."""
    names = {f"c{index}": column.name for index, column in enumerate(columns)}
    fields: list[Any] = [
        (f"c{index}", TYPES[column.type]) if column.required else (f"c{index}", TYPES[column.type] | UnsetType, UNSET)
        for index, column in enumerate(columns)
    ]
    record = defstruct("Record", fields, kw_only=True, rename=names, gc=False)
    row: Any = tuple.__class_getitem__(tuple(TYPES[column.type] for column in columns))
    split = defstruct(
        "Split",
        [("columns", list[str]), ("data", list[row]), ("index", msgspec.Raw | UnsetType, UNSET)],
        forbid_unknown_fields=True,
    )
    return defstruct(
        "Body",
        [
            (SPLIT, split | UnsetType, UNSET),
            (RECORDS, list[record] | UnsetType, UNSET),  # type: ignore[valid-type]
            (INSTANCES, list[record] | UnsetType, UNSET),  # type: ignore[valid-type]
            (INPUTS, msgspec.Raw | UnsetType, UNSET),
            ("params", msgspec.Raw | UnsetType, UNSET),
        ],
        kw_only=True,
    )


# --- one value -------------------------------------------------------------------------------------------------------


class _MisfitError(Exception):
    """A value is not of the type of its column; expected and got, in words."""


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MisfitError("number", json_type(value))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):  # such as 1e400
        raise _MisfitError("a 64-bit float", "a larger number")
    return number


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _MisfitError("string", json_type(value))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _MisfitError("a string of whole characters", "half of a surrogate pair") from None
    return value


def _whole(kind: str) -> Callable[[Any], int]:
    low, high = RANGES[kind]

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _MisfitError("int", json_type(value))
        if isinstance(value, float) and (not value.is_integer() or abs(value) > _LARGEST_EXACT):
            raise _MisfitError("int", "float")
        number = int(value)
        if not low <= number <= high:
            raise _MisfitError(f"a whole number from {low} to {high}", "one outside of it")
        return number

    return read


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _MisfitError("bool", json_type(value))
    return value


_JSON_TYPES: Mapping[type, str] = {
    bool: "bool", int: "int", float: "float", str: "string", list: "array", dict: "object", type(None): "null",
}  # fmt: skip
_CELLS: Mapping[str, Callable[[Any], Any]] = {
    "double": _number,
    "float": _number,
    "integer": _whole("integer"),
    "long": _whole("long"),
    "boolean": _boolean,
    "string": _text,
}
assert set(_CELLS) == {*PACK_CODES, "string"}  # noqa: S101  (a new type needs a reader)


def read_cell(kind: str, value: Any, place: str) -> Any:
    """Return a value as a column of this type has it.

    :param kind: MLflow's name of the type.
    :param place: where it is in the body, for the message.
    :raises UnreadableRequestError: when it does not fit.
    """
    return _checked(_CELLS[kind], value, place)


def json_type(value: Any) -> str:
    """Return the name of a value's type, for messages."""
    return _JSON_TYPES.get(type(value), type(value).__name__)


def _checked(cell: Callable[[Any], Any], value: Any, place: str, column: str = "") -> Any:
    try:
        return cell(value)
    except _MisfitError as misfit:
        expected, got = misfit.args
        raise _misfit(place, expected, got, column) from None


def _misfit(place: str, expected: str, got: str, column: str = "") -> UnreadableRequestError:
    named = f" (column {column!r})" if column else ""
    return UnreadableRequestError("invalid_rows", f"`{place}`{named}: expected {expected}, got {got}")


def _listed(names: Iterable[str]) -> str:
    all_names = list(names)
    shown = ", ".join(repr(name) for name in all_names[:_MAX_SHOWN_COLUMNS])
    more = len(all_names) - _MAX_SHOWN_COLUMNS
    verb = "is" if len(all_names) == 1 else "are"
    return f"{shown} and {more} more {verb}" if more > 0 else f"{shown} {verb}"


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(body: bytes, *, nan_is_a_number: bool = False) -> Any:
    """Parse a body.

    :param nan_is_a_number: whether the words ``NaN``, ``Infinity`` and ``-Infinity`` are numbers, as for MLflow;
        otherwise they are refused.
    :raises UnreadableRequestError: when it is not JSON in UTF-8.
    """
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        pass
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_any_word if nan_is_a_number else _word)
    except UnicodeDecodeError as error:
        message = f"the body must be UTF-8; got a byte that is not at position {error.start}"
    except json.JSONDecodeError as error:
        message = f"the body must be JSON; got something else at line {error.lineno}, column {error.colno}"
    except RecursionError:
        message = "the body must be JSON of moderate depth; got too many nested brackets"
    except UnreadableRequestError:
        raise
    except ValueError:  # a number with thousands of digits
        message = "the body must hold numbers of moderate length; got a longer one"
    raise UnreadableRequestError("invalid_body", message)


def _word(word: str) -> float:
    advice = ". Send null" if word == "NaN" else ""
    raise UnreadableRequestError("invalid_body", f"the body must be JSON, which has no {word}; got {word}{advice}")


def _any_word(word: str) -> float:
    return float(word.replace("Infinity", "inf"))
