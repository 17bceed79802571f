"""Checks of a model's output for its input example: one answer per row, no missing values, the recorded signature."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from airflow_mcp.core.registry.load_check import FindingName, LoadFinding
from airflow_mcp.work.run.mlflow_run import redacted

_FITS: Mapping[str, str] = {"b": "b", "i": "iub", "u": "iub", "f": "fiub", "c": "cfiub", "M": "M", "m": "m"}
"""Kind of a recorded NumPy type to the kinds of output that satisfy it, of any width; ``1`` may stand for ``1.0``."""
_TEXT = "OSU"


def check_output(example: Any, output: Any, schema: Any) -> tuple[int | None, list[LoadFinding]]:
    """Check the output of a model.

    :param example: the input example, as MLflow loads it.
    :param output: output of the model for it.
    :param schema: MLflow's output schema of the model, or None.
    :return: number of rows of the example, None when it is a single input; and the findings ``rows``, ``finite`` and
        ``signature``.
    """
    asked = rows_of_example(example)
    checks: dict[FindingName, Callable[[], LoadFinding]] = {
        "rows": lambda: _rows(asked, output),
        "finite": lambda: _finite(output),
        "signature": lambda: _signature(output, schema),
    }
    return asked, [_examined(name, check) for name, check in checks.items()]


def _examined(name: FindingName, check: Callable[[], LoadFinding]) -> LoadFinding:
    """Make a check; an output that raises an error when it is looked at does not pass it."""
    try:
        return check()
    except Exception as error:  # whatever an object of a user's model raises, also when it contains itself
        note = f"its answers cannot be examined: {type(error).__name__}: {redacted(error, 200)}"
        return LoadFinding(name=name, holds=False, note=note)


def rows_of_example(example: Any) -> int | None:
    """Count the rows of an input example.

    Tables, matrices, and lists of anything but plain numbers have rows.

    :param example: the input example.
    :return: None for a single input: a mapping, a text or a vector.
    """
    if isinstance(example, list | tuple):
        return None if not example or all(isinstance(each, int | float) for each in example) else len(example)
    shape: tuple[int, ...] = getattr(example, "shape", ())
    return int(shape[0]) if len(shape) > 1 else None


# --- one answer per row ----------------------------------------------------------------------------------------------


def _rows(asked: int | None, output: Any) -> LoadFinding:
    given = _count(output)
    if output is None or given == 0:
        return LoadFinding(name="rows", holds=False, note=f"it returned no answer ({type(output).__name__})")
    if asked is None:
        return LoadFinding(
            name="rows", holds=None, note="its example is a single input, so the answers were not counted"
        )
    if given != asked:
        got = f"one {type(output).__name__}" if given is None else f"{given} answers"
        return LoadFinding(
            name="rows", holds=False, note=f"it returned {got} for {asked} rows; one answer per row is required"
        )
    return LoadFinding(name="rows", holds=True)


def _count(output: Any) -> int | None:
    """Count answers; None for an output without rows."""
    if isinstance(output, Mapping):
        counts = {_count(value) for value in output.values()}
        return counts.pop() if len(counts) == 1 else None
    if isinstance(output, list | tuple):
        return len(output)
    shape: tuple[int, ...] = getattr(output, "shape", ())
    return int(shape[0]) if len(shape) else None


# --- no missing values ------------------------------------------------------------------------------------------------


def _finite(output: Any) -> LoadFinding:
    missing = _missing(output)
    if missing:
        return LoadFinding(name="finite", holds=False, note=f"{missing} of its answers are missing, NaN or infinite")
    return LoadFinding(name="finite", holds=True)


def _missing(value: Any) -> int:
    """Count values that are missing or not finite, at any depth."""
    import pandas as pd  # noqa: PLC0415

    if isinstance(value, pd.DataFrame):
        value = [value.iloc[:, place] for place in range(value.shape[1])]  # names may occur twice
    elif isinstance(value, Mapping):
        value = list(value.values())
    elif isinstance(value, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        value = np.asarray(value)
    elif hasattr(value, "toarray"):  # a sparse matrix: values that it does not store are zero
        value = value.data
    if isinstance(value, list | tuple | set):
        return sum(map(_missing, value))
    if isinstance(value, np.ndarray):
        return _missing_in(value)
    if isinstance(value, float | np.floating):
        return int(not math.isfinite(value))
    return int(value is None or value is pd.NA or value is pd.NaT)


def _missing_in(array: np.ndarray[Any, Any]) -> int:
    if array.dtype.kind in "fc":
        return int((~np.isfinite(array)).sum())
    if array.dtype.kind in "Mm":
        return int(np.isnat(array).sum())
    return sum(map(_missing, array.flat)) if array.dtype.kind == "O" else 0


# --- the recorded signature -------------------------------------------------------------------------------------------


def _signature(output: Any, schema: Any) -> LoadFinding:
    if schema is None:
        note = "the model has no output signature to compare its answers with"
        return LoadFinding(name="signature", holds=None, note=note)
    try:
        problem, note = (
            _against_tensors(output, schema) if schema.is_tensor_spec() else _against_columns(output, schema)
        )
    except (TypeError, ValueError) as error:  # output that NumPy cannot convert to an array
        problem, note = f"they cannot be converted to an array: {error}", ""
    if problem:
        note = f"its answers do not match its signature ({schema}): {problem}"
        return LoadFinding(name="signature", holds=False, note=note)
    return LoadFinding(name="signature", holds=None if note else True, note=note)


def _against_tensors(output: Any, schema: Any) -> tuple[str, str]:
    specs = list(schema.inputs)
    if len(specs) == 1:
        return _array_problem(output.get(specs[0].name) if isinstance(output, Mapping) else output, specs[0]), ""
    if not isinstance(output, Mapping):
        return f"{len(specs)} named arrays are required, it returned one {type(output).__name__}", ""
    problems = (
        f"{spec.name} is missing" if spec.name not in output else _array_problem(output[spec.name], spec)
        for spec in specs
    )
    return next(filter(None, problems), ""), ""


def _array_problem(value: Any, spec: Any) -> str:
    array = _array(value)
    wanted, shape = tuple(spec.shape), array.shape
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    fits = len(shape) == len(wanted) and all(size in (-1, there) for size, there in zip(wanted, shape, strict=True))
    if not fits:
        return f"the shape is {array.shape}, not {wanted}"
    return _type_problem(array, np.dtype(spec.type), "")


def _against_columns(output: Any, schema: Any) -> tuple[str, str]:
    specs = list(schema.inputs)
    columns = _columns(output)
    by_name = {name: values for name, values in columns if name is not None}
    names = [spec.name for spec in specs]
    if by_name and None not in names:
        wrong = [f"{name} is missing" for name in schema.required_input_names() if name not in by_name]
        wrong += [f"{name} is not in the signature" for name in by_name if name not in names]
        pairs = [(spec, by_name[spec.name]) for spec in specs if spec.name in by_name]
    else:
        wrong = [] if len(columns) == len(specs) else [f"{len(columns)} columns instead of {len(specs)}"]
        pairs = list(zip(specs, (values for _, values in columns), strict=False))
    if wrong:
        return "; ".join(wrong), ""
    plain = [(spec, values) for spec, values in pairs if hasattr(spec.type, "to_numpy")]
    problems = (
        _type_problem(values, spec.type.to_numpy(), f"{spec.name}: " if spec.name else "") for spec, values in plain
    )
    nested = "" if len(plain) == len(pairs) else "answers of nested types were not compared with the signature"
    return next(filter(None, problems), ""), nested


def _columns(output: Any) -> list[tuple[str | None, np.ndarray[Any, Any]]]:
    """Return output as columns with their names; columns of an array have no names."""
    import pandas as pd  # noqa: PLC0415

    if isinstance(output, pd.DataFrame):
        named = all(isinstance(name, str) for name in output.columns)
        return [
            (str(name) if named else None, _array(output.iloc[:, place])) for place, name in enumerate(output.columns)
        ]
    if isinstance(output, Mapping):
        return [(str(name), _array(values)) for name, values in output.items()]
    if isinstance(output, list | tuple) and output and all(isinstance(each, Mapping) for each in output):
        return _columns(pd.DataFrame(list(output)))
    array = _array(output)
    if array.ndim < 2:
        return [(None, array)]
    return [(None, array[:, position]) for position in range(array.shape[1])]


def _array(value: Any) -> np.ndarray[Any, Any]:
    array = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
    if (
        array.dtype.kind == "O"
        and array.size
        and all(isinstance(each, bool | int | float | np.number) for each in array.flat)
    ):
        array = np.asarray(array.tolist())
    return np.asarray(array)


def _type_problem(array: np.ndarray[Any, Any], wanted: np.dtype[Any], where: str) -> str:
    fits = _TEXT if wanted.kind in _TEXT else _FITS.get(wanted.kind, wanted.kind)
    return "" if array.dtype.kind in fits else f"{where}the type is {array.dtype}, not {wanted}"
