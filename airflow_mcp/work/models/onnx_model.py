"""Wraps an ONNX file as an MLflow model: its signature comes from the graph, its example from the caller or zeros."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError

_REFUSED = "the ONNX file was refused: {problem}. Nothing was registered"
_MAX_EXAMPLE_VALUES = 10_000_000
"""Numbers in an example: a graph may declare inputs of any size."""


def wrap_onnx(file: Path, folder: Path, example: Mapping[str, Any] | None) -> None:
    """Write a model in MLflow's format around an ONNX file, which stays as it is byte for byte.

    :param file: the ONNX file; moved into the model.
    :param folder: folder of the model; must not exist.
    :param example: values by the names of the inputs; None takes zeros, with 1 for every size that is free.
    :raises EvidenceError: when it is not a valid model, keeps weights in other files, or has inputs or outputs that
        are not tensors of known rank.
    :raises InvalidArgumentError: when the example does not fit its inputs, or the image has no ONNX.
    """
    try:
        import mlflow.onnx  # noqa: PLC0415
        import onnx  # noqa: PLC0415
    except ImportError:
        raise InvalidArgumentError(
            "the image of the workload has no onnx: install airflow-mcp[onnx] in it. Nothing was registered"
        ) from None
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema  # noqa: PLC0415

    model = _read(onnx, file)
    inputs = tuple(_tensors(onnx, _fed(model.graph), "input"))
    outputs = tuple(_tensors(onnx, model.graph.output, "output"))
    mlflow.onnx.save_model(
        model,
        str(folder),
        signature=ModelSignature(Schema(list(inputs)), Schema(list(outputs))),
        input_example=_example(inputs, example),
        # Given, because MLflow would find them by loading the model in a process of its own.
        pip_requirements=mlflow.onnx.get_default_pip_requirements(),
        save_as_external_data=False,
    )
    shutil.move(file, folder / "model.onnx")


def _refused(problem: str) -> EvidenceError:
    return EvidenceError(_REFUSED.format(problem=problem))


def _read(onnx: Any, file: Path) -> Any:
    """Return the model, checked, without following the names of other files in it."""
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as error:  # whatever protobuf raises for bytes that are not a model
        raise _refused(f"it cannot be read ({type(error).__name__})") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _all_tensors(onnx, model)):
        raise _refused("its weights are in other files, which were not uploaded. Save it as one file")
    try:
        onnx.checker.check_model(str(file))
    except Exception as error:  # the checker's own error, or what its C++ raises
        raise _refused(f"it is not valid: {' '.join(str(error).split())[:500]}") from None
    return model


def _all_tensors(onnx: Any, message: Any) -> Iterator[Any]:
    """Yield every tensor of a model: of its graph, of nested graphs, of functions and of attributes."""
    todo = [message]
    while todo:
        found = todo.pop()
        if isinstance(found, onnx.TensorProto):
            yield found
            continue
        for field, value in found.ListFields():
            if field.type == field.TYPE_MESSAGE:
                todo += list(value) if field.is_repeated else [value]


def _fed(graph: Any) -> list[Any]:
    """Return the inputs that a caller gives; old files list their weights as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [given for given in graph.input if given.name not in weights]


def _tensors(onnx: Any, values: Any, what: str) -> Iterator[Any]:
    """Yield the specification of each input or output."""
    import numpy as np  # noqa: PLC0415
    from mlflow.types import TensorSpec  # noqa: PLC0415

    for value in values:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            raise _refused(
                f"{what} {value.name!r} must be a tensor with a shape. A classifier of scikit-learn gives tensors when "
                "it is converted with zipmap=False"
            )
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if kind.kind not in "biuf":
            raise _refused(
                f"{what} {value.name!r} must hold numbers or booleans; got "
                f"{onnx.TensorProto.DataType.Name(tensor.elem_type)}"
            )
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
        yield TensorSpec(np.dtype(kind), sizes, value.name)


def _example(inputs: tuple[Any, ...], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the example: what the caller gave, in the types of the graph, or zeros."""
    import numpy as np  # noqa: PLC0415

    if given is None:
        sizes = {spec.name: [1 if size < 0 else size for size in spec.shape] for spec in inputs}
        if sum(int(np.prod(shape, dtype=object)) for shape in sizes.values()) > _MAX_EXAMPLE_VALUES:
            raise _refused(f"its inputs must have at most {_MAX_EXAMPLE_VALUES} values in all; got more")
        return {spec.name: np.zeros(sizes[spec.name], spec.type) for spec in inputs}
    names = sorted(spec.name for spec in inputs)
    if sorted(given) != names:
        raise InvalidArgumentError(
            f"input_example must have the inputs {', '.join(names)}; got {', '.join(sorted(given)) or 'none'}. Nothing "
            "was registered"
        )
    return {spec.name: _array(spec, given[spec.name]) for spec in inputs}


def _array(spec: Any, given: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    wanted = [None if size < 0 else size for size in spec.shape]
    try:
        array = np.asarray(given, dtype=spec.type)
    except (ValueError, TypeError, OverflowError):
        array = None
    if (
        array is None
        or array.ndim != len(wanted)
        or any(size not in (None, found) for size, found in zip(wanted, array.shape, strict=True))
    ):
        shape = "x".join("n" if size is None else str(size) for size in wanted) or "a single value"
        raise InvalidArgumentError(
            f"input_example of {spec.name!r} must be {spec.type} of shape {shape}; got something else. Nothing was "
            "registered"
        )
    return array
