"""Batches of rows as the model's input, and its answer to them."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from airflow_mcp.core.serving.arrays import reader_of
from airflow_mcp.core.serving.frames import AnswerKind, FrameKind, joined_rows
from airflow_mcp.core.serving.scoring import UnreadableRequestError, parse_json
from airflow_mcp.core.serving.signature import ModelSignature
from airflow_mcp.work.serve_model.answers import Answer, answer_of, json_text

_log = logging.getLogger(__name__)
_DTYPES: Mapping[str, Any] = {
    "boolean": np.bool_,
    "integer": np.int32,
    "long": np.int64,
    "float": np.float32,
    "double": np.float64,
    "string": object,
}

_REFUSALS = (ValueError, TypeError, LookupError)
"""What models raise for values that they do not take; anything else is a defect of the model."""


class ModelRaisedError(Exception):
    """The model itself raised an error for rows that fit its signature."""


class Batches:
    """A loaded model that answers batches.

    :param pyfunc: MLflow's ``PyFuncModel``.
    :param signature: its signature.
    """

    def __init__(self, pyfunc: Any, signature: ModelSignature) -> None:
        self._pyfunc = pyfunc
        self._columns = signature.columns
        self._has_no_signature = not (signature.columns or signature.tensors)
        self._names = pd.Index([column.name for column in signature.columns])
        self._reader = reader_of(signature)
        self._array = signature.array
        self._takes_params = "params" in inspect.signature(pyfunc.predict).parameters
        codes = signature.pack_codes
        self._is_all_double = bool(codes) and set(codes) == {"<", "d"}
        fields = [(f"c{index}", _DTYPES.get(column.type, object)) for index, column in enumerate(self._columns)]
        self._row = np.dtype(fields).newbyteorder("<") if codes else None
        self._columns_decoder = msgspec.msgpack.Decoder(tuple[list[int], list[list[Any]]])
        self._body_decoder = msgspec.msgpack.Decoder(tuple[str, bytes, bool])
        self._tensors_decoder = msgspec.msgpack.Decoder(list[tuple[str, str, list[int], list[Any]]])

    def answer(self, kind: int, payload: bytes, rows: int) -> Answer:
        """Return the predictions for a batch.

        :param kind: how the rows are written; see :class:`FrameKind`.
        :param payload: the rows.
        :param rows: their number.
        :raises UnreadableRequestError: when a body cannot be read, or the model refused what could not be checked.
        :raises ModelRaisedError: when the model raised; the cause holds the error.
        """
        if kind == FrameKind.PACKED:
            return answer_of(self._ask(self._unpacked(payload, rows)), rows)
        if kind == FrameKind.ARRAY:
            return answer_of(self._ask(self._of_array(payload)), rows)
        if kind == FrameKind.COLUMNS:
            return answer_of(self._ask(self._of_columns(*self._columns_decoder.decode(payload))), rows)
        if kind == FrameKind.TENSORS:
            return answer_of(self._ask(self._of_tensors(payload)), 0)
        return self._of_body(*self._body_decoder.decode(payload))

    def predict_frame(self, frame: Any) -> Any:
        """Return the model's predictions for an input in its own form, such as the input example."""
        return self._predict(frame)

    def _predict(self, frame: Any, params: Mapping[str, Any] | None = None) -> Any:
        try:
            if params is not None and self._takes_params:
                return self._pyfunc.predict(frame, params=params)
            return self._pyfunc.predict(frame)
        except Exception as error:
            raise ModelRaisedError(type(error).__name__) from error

    def _ask(self, frame: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return the model's predictions for rows of a caller.

        :raises UnreadableRequestError: when the model refused values that could not be checked before: nulls, or rows
            of a model without a signature.
        """
        try:
            return self._predict(frame, params)
        except ModelRaisedError as error:
            why = self._why_refused(frame, params) if isinstance(error.__cause__, _REFUSALS) else ""
            if not why:
                raise
            _log.warning("the model raised %s for rows %s; this is answered 400", error, why)
            raise UnreadableRequestError("invalid_rows", f"the model raised {error} for rows {why}") from None

    def _why_refused(self, frame: Any, params: Mapping[str, Any] | None) -> str:
        """Return what is wrong with rows that the model refused; empty when the model is to blame."""
        if self._has_no_signature:
            return "that could not be checked, because the model has no signature"
        complete = _without_nulls(frame)
        if complete is None:
            return ""
        try:  # a model that fails without the nulls too is broken, and a breaker must count that
            self._predict(complete, params)
        except ModelRaisedError:
            return ""
        return "that hold nulls, which this model does not take"

    # --- rows -> DataFrame -------------------------------------------------------------------------------------------

    def _unpacked(self, payload: bytes, rows: int) -> pd.DataFrame:
        if self._is_all_double:
            values = np.frombuffer(payload, "<f8").reshape(rows, len(self._names))
            return pd.DataFrame(values.copy(), columns=self._names)
        packed = np.frombuffer(payload, self._row)
        return pd.DataFrame(
            {
                column.name: packed[f"c{index}"].astype(_DTYPES[column.type])
                for index, column in enumerate(self._columns)
            }
        )

    def _of_columns(self, present: Sequence[int], rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
        columns = {}
        for index, values in zip(present, zip(*rows, strict=True), strict=True):
            column = self._columns[index]
            columns[column.name] = np.array(values, dtype=_DTYPES[column.type])
        return pd.DataFrame(columns, index=range(len(rows)))

    def _of_array(self, payload: bytes) -> Any:
        if self._array is None:
            raise UnreadableRequestError("invalid_rows", "this model takes no array")
        dtype = np.dtype(self._array.dtype)
        values = np.frombuffer(payload, dtype.newbyteorder("<")).astype(dtype).reshape(-1, *self._array.shape[1:])
        return {self._array.name: values} if self._array.name else values

    def _of_tensors(self, payload: bytes) -> Any:
        arrays = {
            name: np.array(values, dtype=object if dtype == "object" else np.dtype(dtype)).reshape(shape)
            for name, dtype, shape, values in self._tensors_decoder.decode(payload)
        }
        schema = self._pyfunc.metadata.get_input_schema()
        if schema is not None and schema.has_input_names():
            return arrays
        return next(iter(arrays.values()))

    # --- bodies of callers -------------------------------------------------------------------------------------------

    def _of_body(self, content_type: str, body: bytes, is_for_mlflow: bool) -> Answer:
        if self._reader is not None and not is_for_mlflow:
            rows = self._reader.read(body)
            if rows is not None:
                payload = joined_rows(rows.kind, rows.form, [rows.payload], rows.number)
                return self.answer(rows.kind, payload, rows.number)
        return self._by_mlflow(content_type, body)

    def _by_mlflow(self, content_type: str, body: bytes) -> Answer:
        """Read a body with MLflow's own parser, with its coercions, and answer it."""
        schema = self._pyfunc.metadata.get_input_schema()
        is_unwrapped, params = False, None
        with contextlib.redirect_stderr(io.StringIO()):  # MLflow prints tracebacks that quote the body
            try:
                if content_type == scoring_server.CONTENT_TYPE_CSV:
                    data = scoring_server.parse_csv_input(io.StringIO(body.decode("utf-8")), schema)
                else:
                    parse_json(body, nan_is_a_number=True)
                    parsed = scoring_server._parse_json_data(body, self._pyfunc.metadata, schema)
                    data, params, is_unwrapped = parsed.data, parsed.params, parsed.is_unified_llm_input
            except UnreadableRequestError:
                raise
            except Exception as error:
                raise UnreadableRequestError("invalid_rows", _why_unreadable(error)) from None
        if isinstance(data, pd.DataFrame | np.ndarray) and data.shape[:1] == (0,):
            raise UnreadableRequestError("invalid_rows", "there must be at least one row; got none")
        try:
            predictions = self._ask(data, params)
        except ModelRaisedError as error:
            if _is_schema_error(error.__cause__):
                raise UnreadableRequestError("invalid_rows", _NOT_THE_SIGNATURE) from None
            raise
        if is_unwrapped:
            return Answer(AnswerKind.UNWRAPPED, json_text(predictions), 1)
        return answer_of(predictions, len(data) if isinstance(data, pd.DataFrame | np.ndarray) else 0)


_NOT_THE_SIGNATURE = "the rows or the parameters do not fit the signature of the model; see `/openapi.json`"


def _why_unreadable(error: Exception) -> str:
    """Return why MLflow's parser refused a body; its own texts quote the body, so only the kind is named."""
    kind = "a body of this form" if isinstance(error, MlflowException) else type(error).__name__
    return f"MLflow's parser did not accept the body ({kind}): it must fit the signature of the model"


def _without_nulls(frame: Any) -> Any:
    """Return a table or array with 0 or an empty text for each null; None when it holds none."""
    if isinstance(frame, np.ndarray):
        filled = _without_nulls(pd.DataFrame({0: frame.ravel()}))
        return None if filled is None else filled[0].to_numpy(frame.dtype).reshape(frame.shape)
    if isinstance(frame, dict):
        parts = {name: _without_nulls(part) for name, part in frame.items()}
        if all(part is None for part in parts.values()):
            return None
        return {name: frame[name] if part is None else part for name, part in parts.items()}
    if not isinstance(frame, pd.DataFrame) or not frame.isna().any(axis=None):
        return None
    return pd.DataFrame({name: _filled(frame[name]) for name in frame.columns})


def _filled(column: pd.Series) -> pd.Series:
    """Return a column of numbers or texts without nulls; others, such as dates, as they are."""
    if column.dtype == object:
        return column.fillna("")
    return column.fillna(0) if pd.api.types.is_float_dtype(column.dtype) else column


def _is_schema_error(error: BaseException | None) -> bool:
    """Return whether MLflow refused an input or parameters before the model saw them."""
    return isinstance(error, MlflowException) and error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
