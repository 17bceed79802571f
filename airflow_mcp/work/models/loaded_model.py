"""Models loaded from MLflow: their inputs by signature, their predictions and their probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.exceptions import DatasetError, FailedError, RefusedError
from airflow_mcp.work.models.failure_cause import described, is_of_signature, where_raised
from airflow_mcp.work.models.input_columns import CONVERTED, cast_array, cast_columns
from airflow_mcp.work.run.mlflow_run import mlflow_errors, redacted

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


class LoadedModel:
    """A model that is ready to predict.

    :param uri: MLflow address of the model, for messages.
    :param pyfunc: MLflow's ``PyFuncModel``.
    :raises RefusedError: when the model has no signature, or one that does not describe a table.
    """

    def __init__(self, uri: str, pyfunc: Any) -> None:
        self.uri = uri
        self._pyfunc = pyfunc
        schema = pyfunc.metadata.get_input_schema()
        if schema is None:
            raise RefusedError(
                f"model {uri} has no signature, so its input columns are unknown. Log it again with "
                "signature=mlflow.models.infer_signature(X, model.predict(X)), or with an input_example. "
                "Nothing was measured"
            )
        self._tensor = _tensor_of(uri, schema)
        self._columns = [] if self._tensor else _columns_of(uri, schema)
        self._native = _native_model(pyfunc)

    @property
    def column_types(self) -> dict[str, str]:
        """MLflow type of each named input column; empty for a model that takes an array."""
        return {name: kind for name, kind, _ in self._columns}

    @property
    def columns(self) -> list[tuple[str, str, bool]]:
        """Name, MLflow type and whether it is required, per input column; empty for a model that takes an array."""
        return list(self._columns)

    @property
    def classes(self) -> list[Any] | None:
        """Class labels in the order of the probabilities; None when the model does not expose them."""
        classes = getattr(self._native, "classes_", None)
        return None if classes is None or np.ndim(classes) != 1 else list(np.asarray(classes).tolist())

    def prepare(self, frame: pd.DataFrame, target: str) -> Any:
        """Convert rows to the input of the model: its columns, in its types.

        :param frame: dataset; columns that the signature does not name are left out.
        :param target: label column; a model without named columns gets all other columns.
        :return: a DataFrame, or an array for a model that was logged with one.
        :raises DatasetError: when columns are missing or cannot be converted without loss; names them all.
        """
        if self._tensor:
            return self._prepare_array(frame.drop(columns=[target]))
        return cast_columns(frame, self._columns, self.uri)

    def predict(self, inputs: Any) -> Any:
        """Predict as MLflow would serve the model.

        :param inputs: result of :meth:`prepare`.
        :raises RefusedError: when the model refuses the rows or fails on them.
        """
        return predict(self._pyfunc, inputs, self.uri, f"{len(inputs)} rows", self._columns)

    def probabilities(self, inputs: Any) -> tuple[np.ndarray[Any, Any] | None, str]:
        """Predict class probabilities with the native model (scikit-learn and compatible libraries).

        :param inputs: result of :meth:`prepare`.
        :return: array of shape (rows, classes) and an empty text; or None and the reason.
        """
        method = getattr(self._native, "predict_proba", None)
        if method is None or self.classes is None:
            return None, "the model has no predict_proba with classes_"
        try:
            values = np.asarray(method(inputs), dtype=float)
        except Exception as error:  # for example SVC without probability=True
            _log.info("predict_proba failed: %s", described(error))
            return None, f"predict_proba failed: {where_raised(error)}"  # the reason becomes evidence
        if values.shape != (len(inputs), len(self.classes)):
            return None, f"predict_proba returned shape {values.shape}, not ({len(inputs)}, {len(self.classes)})"
        if not np.isfinite(values).all():
            return None, "predict_proba returned numbers that are not finite"
        if not np.allclose(values.sum(axis=1), 1, atol=1e-3):  # 32-bit floats add up to 1 only roughly
            return None, "the probabilities of a row do not add up to 1"
        return values, ""

    def _prepare_array(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        dtype, width = self._tensor or (np.dtype(float), 0)
        if features.shape[1] != width:
            raise DatasetError(
                f"model {self.uri} was logged with an array of {width} unnamed columns, but the dataset has "
                f"{features.shape[1]} besides the label. Log the model with a DataFrame, so that its columns have "
                "names. Nothing was measured"
            )
        return cast_array(features, dtype, self.uri)


def load_model(uri: str) -> LoadedModel:
    """Load a model whose inputs are columns of a dataset.

    :param uri: as for :func:`load_pyfunc`, which raises further errors.
    :raises RefusedError: when the model has no usable signature.
    """
    return LoadedModel(uri, load_pyfunc(uri))


def load_pyfunc(uri: str) -> Any:
    """Load a model with ``mlflow.pyfunc``, whatever its signature.

    :param uri: ``models:/<model id>``, ``models:/<name>/<version>`` or ``runs:/<run id>/<path>``.
    :return: MLflow's ``PyFuncModel``.
    :raises RefusedError: when a module that the model needs is not installed.
    :raises MlflowError: when the server does not have the model or does not answer.
    :raises FailedError: when the model cannot be loaded for another reason.
    """
    import mlflow.pyfunc  # noqa: PLC0415

    _log.info("load model %s", uri)
    try:
        with mlflow_errors(f"load model {uri}"):
            return mlflow.pyfunc.load_model(uri, suppress_warnings=True)
    except FailedError:
        raise
    except ModuleNotFoundError as error:
        raise RefusedError(
            f"model {uri} needs the module {error.name!r}, which this image does not have. Add it to the image, or "
            "log the model with code_paths. Nothing was measured"
        ) from error
    except Exception as error:
        raise FailedError(
            f"model {uri} cannot be loaded: {type(error).__name__}: {redacted(error)}. Its libraries may have other "
            "versions here than where it was trained. Nothing was measured"
        ) from error


def predict(pyfunc: Any, inputs: Any, uri: str, what: str, columns: Sequence[tuple[str, str, bool]] = ()) -> Any:
    """Predict as MLflow would serve a model.

    :param pyfunc: MLflow's ``PyFuncModel``.
    :param inputs: its inputs.
    :param uri: address of the model, for the message.
    :param what: description of the inputs, for the message.
    :param columns: name, MLflow type and whether it is required, of the converted input columns; for the message.
    :raises RefusedError: when the model refuses the inputs or fails on them.
    """
    try:
        return pyfunc.predict(inputs)
    except Exception as error:  # whatever a user's model raises
        unchecked = ", ".join(f"{name!r} ({kind})" for name, kind, _ in columns if kind not in CONVERTED)
        advice = f". Check the values of {unchecked}" if unchecked and is_of_signature(error) else ""
        raise RefusedError(
            f"model {uri} failed to predict {what}: {described(error)}{advice}. Nothing was recorded"
        ) from error


def one_prediction_per_row(output: Any, rows: int, uri: str) -> np.ndarray[Any, Any]:
    """Convert a model's output to one value per row.

    :param output: array, list, Series or DataFrame with one column.
    :param rows: number of rows of the input.
    :param uri: address of the model, for the message.
    :return: array of shape (rows,).
    :raises RefusedError: when there is not exactly one value per row, or values are missing or not finite.
    """
    import pandas as pd  # noqa: PLC0415

    values = as_array(output, uri)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,):
        raise RefusedError(
            f"model {uri} must return one value per row; got an output of shape {values.shape} for {rows} rows. "
            "Nothing was recorded"
        )
    missing = int(pd.isna(values).sum())
    if values.dtype.kind == "f":
        missing = int((~np.isfinite(values)).sum())
    if missing:
        raise RefusedError(
            f"model {uri} predicted no finite value for {missing} of {rows} rows. Rows are never left out, so nothing "
            "was recorded"
        )
    return values


def as_array(output: Any, uri: str) -> np.ndarray[Any, Any]:
    """Convert an output to an array that keeps the types of its values: NumPy would turn the 1 in [1, "a"] to text.

    :param output: output of a model.
    :param uri: address of the model, for the message.
    :raises RefusedError: when it cannot become an array, such as lists of different lengths.
    """
    try:
        values = np.asarray(output)
        if values.dtype.kind == "U" and isinstance(output, list | tuple) and np.ndim(output) == 1:
            return np.asarray(output, dtype=None if all(isinstance(value, str) for value in output) else object)
    except Exception as error:  # lists of different lengths, or whatever a tensor raises
        raise RefusedError(
            f"model {uri} must return one value per row; got a {type(output).__name__} that is not an array "
            f"({type(error).__name__}). Nothing was recorded"
        ) from None
    return values


def _tensor_of(uri: str, schema: Any) -> tuple[np.dtype[Any], int] | None:
    """Return type and width of a signature that describes one array; None when it names columns."""
    if not schema.is_tensor_spec():
        return None
    specs = list(schema.inputs)
    shape: Sequence[int] = specs[0].shape
    if len(specs) != 1 or len(shape) != 2 or shape[0] != -1 or shape[1] < 1:
        raise RefusedError(
            f"the signature of model {uri} describes tensors that are not one table (shape {tuple(shape)}). Only "
            "tabular models can be measured here; use an evaluation image of your own for others"
        )
    return np.dtype(specs[0].type), int(shape[1])


def _columns_of(uri: str, schema: Any) -> list[tuple[str, str, bool]]:
    """Return name, MLflow type and whether it is required, for each input column."""
    columns = [
        (str(spec.name) if spec.name is not None else "", str(getattr(spec.type, "name", spec.type)), spec.required)
        for spec in schema.inputs
    ]
    if not columns or any(not name for name, _, _ in columns):
        raise RefusedError(
            f"the signature of model {uri} has inputs without a name. Log the model with a DataFrame, so that its "
            "columns have names. Nothing was measured"
        )
    return columns


def _native_model(pyfunc: Any) -> Any:
    try:
        return pyfunc.get_raw_model()
    except NotImplementedError:
        return None
