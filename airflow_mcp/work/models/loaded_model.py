"""Models under test: loaded from MLflow, checked against their signature, asked for predictions and probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.exceptions import DatasetError, FailedError, RefusedError
from airflow_mcp.work.models.input_columns import cast_columns
from airflow_mcp.work.run.mlflow_run import mlflow_errors, redacted

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


class LoadedModel:
    """A model that is ready to predict.

    :param uri: its MLflow address, for messages.
    :param pyfunc: MLflow's ``PyFuncModel``.
    :raises RefusedError: when the model has no signature or one that names no columns of a table.
    """

    def __init__(self, uri: str, pyfunc: Any) -> None:
        self.uri = uri
        self._pyfunc = pyfunc
        schema = pyfunc.metadata.get_input_schema()
        if schema is None:
            raise RefusedError(
                f"Model {uri} has no signature, so nobody can tell which columns it takes. Log it again with "
                "signature=mlflow.models.infer_signature(X, model.predict(X)), or with an input_example. "
                "Nothing was measured."
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
        """Name, MLflow type and whether it is required, of each input column; empty for a model that takes an array."""
        return list(self._columns)

    @property
    def classes(self) -> list[Any] | None:
        """Class labels in the order of the probabilities; None when the model does not tell."""
        classes = getattr(self._native, "classes_", None)
        return None if classes is None or np.ndim(classes) != 1 else list(np.asarray(classes).tolist())

    def prepare(self, frame: pd.DataFrame, target: str) -> Any:
        """Give the rows in the form that the model takes: its columns, in its types.

        :param frame: dataset; columns that the signature does not name are left out.
        :param target: label column, which is never an input of a model that names no columns.
        :return: a DataFrame, or an array for a model that was logged with one.
        :raises DatasetError: naming every column that is missing or cannot be given without loss in the type needed.
        """
        if self._tensor:
            return self._prepare_array(frame.drop(columns=[target]))
        return cast_columns(frame, self._columns, self.uri)

    def predict(self, inputs: Any) -> Any:
        """Call the model as MLflow would serve it.

        :raises RefusedError: when the model refuses the rows or breaks on them.
        """
        return predict(self._pyfunc, inputs, self.uri, f"{len(inputs)} rows")

    def probabilities(self, inputs: Any) -> tuple[np.ndarray[Any, Any] | None, str]:
        """Ask the native model (scikit-learn and its kin) for class probabilities.

        :param inputs: what :meth:`prepare` gave.
        :return: array of shape (rows, classes) and ``""``; or None and the reason why there are none.
        """
        method = getattr(self._native, "predict_proba", None)
        if method is None or self.classes is None:
            return None, "the model has no predict_proba with classes_"
        try:
            values = np.asarray(method(inputs), dtype=float)
        except Exception as error:  # for example SVC without probability=True
            return None, f"predict_proba failed: {type(error).__name__}: {redacted(error, 200)}"
        if values.shape != (len(inputs), len(self.classes)):
            return None, f"predict_proba gave shape {values.shape}, not ({len(inputs)}, {len(self.classes)})"
        if not np.isfinite(values).all():
            return None, "predict_proba gave numbers that are not finite"
        if not np.allclose(values.sum(axis=1), 1, atol=1e-3):
            return None, "the probabilities of a row do not add up to 1"
        return values, ""

    def _prepare_array(self, features: pd.DataFrame) -> np.ndarray[Any, Any]:
        dtype, width = self._tensor or (np.dtype(float), 0)
        if features.shape[1] != width:
            raise DatasetError(
                f"Model {self.uri} was logged with an array of {width} unnamed columns; the dataset has "
                f"{features.shape[1]} beside the label. Log the model with a DataFrame, so that its columns have names."
            )
        try:
            return np.asarray(features.to_numpy(dtype=dtype))
        except (TypeError, ValueError) as error:
            raise DatasetError(f"Model {self.uri} takes {dtype} only: {redacted(error, 200)}.") from None


def load_model(uri: str) -> LoadedModel:
    """Load a model whose inputs are columns of a dataset.

    :param uri: as in :func:`load_pyfunc`, which says what else is raised.
    :raises RefusedError: when it has no usable signature.
    """
    return LoadedModel(uri, load_pyfunc(uri))


def load_pyfunc(uri: str) -> Any:
    """Load a model as ``mlflow.pyfunc`` does, with whatever signature.

    :param uri: ``models:/<model id>``, ``models:/<name>/<version>`` or ``runs:/<run id>/<path>``.
    :return: MLflow's ``PyFuncModel``.
    :raises RefusedError: when the code it needs is not installed.
    :raises MlflowError: when the server does not have it or does not answer.
    :raises FailedError: when it cannot be loaded for any other reason.
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
            f"Model {uri} needs the module {error.name!r}, which this image does not have. Add it to the image, or "
            "log the model with code_paths. Nothing was measured."
        ) from error
    except Exception as error:
        raise FailedError(
            f"Model {uri} cannot be loaded: {type(error).__name__}: {redacted(error)}. Its libraries may have other "
            "versions here than where it was trained. Nothing was measured."
        ) from error


def predict(pyfunc: Any, inputs: Any, uri: str, what: str) -> Any:
    """Call a model as MLflow would serve it.

    :param pyfunc: MLflow's ``PyFuncModel``.
    :param inputs: what it takes.
    :param uri: its address, for the message.
    :param what: what it is asked to predict, for the message.
    :raises RefusedError: when the model refuses the inputs or breaks on them.
    """
    try:
        return pyfunc.predict(inputs)
    except Exception as error:  # whatever a user's model raises
        raise RefusedError(
            f"Model {uri} failed to predict {what}: {type(error).__name__}: {redacted(error)}. Nothing was recorded."
        ) from error


def one_prediction_per_row(output: Any, rows: int, uri: str) -> np.ndarray[Any, Any]:
    """Give a model's output as one value per row.

    :param output: array, list, Series or DataFrame with one column.
    :param rows: number of rows that were asked for.
    :return: array of shape (rows,).
    :raises RefusedError: when there is not exactly one value per row, or values are missing or not finite.
    """
    import pandas as pd  # noqa: PLC0415

    values = np.asarray(output)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (rows,):
        raise RefusedError(
            f"Model {uri} gave an output of shape {values.shape} for {rows} rows; one value per row is needed. "
            "Nothing was recorded."
        )
    missing = int(pd.isna(values).sum())
    if values.dtype.kind == "f":
        missing = int((~np.isfinite(values)).sum())
    if missing:
        raise RefusedError(
            f"Model {uri} predicted no finite value for {missing} of {rows} rows. Rows are never left out, so nothing "
            "was recorded."
        )
    return values


def _tensor_of(uri: str, schema: Any) -> tuple[np.dtype[Any], int] | None:
    """Type and width of a signature that describes one array; None when it names columns."""
    if not schema.is_tensor_spec():
        return None
    specs = list(schema.inputs)
    shape: Sequence[int] = specs[0].shape
    if len(specs) != 1 or len(shape) != 2 or shape[0] != -1 or shape[1] < 1:
        raise RefusedError(
            f"The signature of model {uri} describes tensors that are not one table (shape {tuple(shape)}). Only "
            "tabular models can be measured here; bring your own evaluation image for others."
        )
    return np.dtype(specs[0].type), int(shape[1])


def _columns_of(uri: str, schema: Any) -> list[tuple[str, str, bool]]:
    """Name, MLflow type and whether it is required, for each input column."""
    columns = [
        (str(spec.name) if spec.name is not None else "", str(getattr(spec.type, "name", spec.type)), spec.required)
        for spec in schema.inputs
    ]
    if not columns or any(not name for name, _, _ in columns):
        raise RefusedError(
            f"The signature of model {uri} has inputs without a name. Log the model with a DataFrame, so that its "
            "columns have names. Nothing was measured."
        )
    return columns


def _native_model(pyfunc: Any) -> Any:
    try:
        return pyfunc.get_raw_model()
    except NotImplementedError:
        return None
