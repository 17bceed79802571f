"""ONNX files, made without a framework."""

from __future__ import annotations

from typing import Any


def linear_onnx(*, external: bool = False, kind: str = "FLOAT") -> bytes:
    """Return a model that gives ``2 a + 10 b`` for each row of its input ``x``.

    :param external: say that the weights are in another file.
    :param kind: type of the input.
    """
    from onnx import TensorProto, helper

    node = helper.make_node("Gemm", ["x", "weights"], ["score"])
    inputs: list[Any] = [helper.make_tensor_value_info("x", TensorProto.DataType.Value(kind), [None, 2])]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])]
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [2, 1], [2.0, 10.0])
    if external:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../../etc/passwd")
    graph = helper.make_graph([node], "linear", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
