"""Models of several libraries, each saved by MLflow and served by one real server; those not installed are left out.

Every model process imports its own library, so this file takes as long as they do.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.model_server import ModelServer, save_wrapped

pytestmark = pytest.mark.integration
FRAME = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0] * 8, "b": [1.0, 0.5, 0.25, 0.0] * 8})
LABELS = np.array([0, 0, 1, 1] * 8)
ROWS = {"dataframe_records": FRAME.head(4).to_dict("records")}


def _options() -> dict[str, Any]:
    return {"pip_requirements": [], "input_example": FRAME.head(3)}


def save_sklearn(folder: Path) -> Any:
    import mlflow
    from sklearn.ensemble import GradientBoostingClassifier

    model = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(FRAME, LABELS)
    mlflow.sklearn.save_model(model, str(folder), serialization_format="cloudpickle", **_options())
    return model.predict(FRAME.head(4)).tolist()


def save_xgboost(folder: Path) -> Any:
    import mlflow
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=5).fit(FRAME, LABELS)
    mlflow.xgboost.save_model(model, str(folder), **_options())
    return model.predict(FRAME.head(4)).tolist()


def save_lightgbm(folder: Path) -> Any:
    import lightgbm
    import mlflow

    model = lightgbm.LGBMRegressor(n_estimators=5, min_child_samples=1, verbose=-1).fit(FRAME, LABELS)
    mlflow.lightgbm.save_model(model, str(folder), **_options())
    return model.predict(FRAME.head(4)).tolist()


def save_onnx(folder: Path) -> Any:
    import mlflow
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Gemm", ["x", "weights"], ["score"])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])]
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [2, 1], [2.0, 10.0])
    graph = helper.make_graph([node], "linear", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    example = {"x": FRAME.head(3).to_numpy(np.float32)}
    signature = mlflow.models.infer_signature(example, np.zeros((3, 1), np.float32))
    mlflow.onnx.save_model(model, str(folder), signature=signature, pip_requirements=[])
    return (2.0 * FRAME.head(4)["a"] + 10.0 * FRAME.head(4)["b"]).tolist()


def save_torch(folder: Path) -> Any:
    import mlflow
    import torch

    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[2.0, 10.0]])
        model.bias[:] = 0.0
    example = FRAME.head(3).to_numpy(np.float32)
    signature = mlflow.models.infer_signature(example, np.zeros((3, 1), np.float32))
    mlflow.pytorch.save_model(model, str(folder), signature=signature, pip_requirements=[])
    return (2.0 * FRAME.head(4)["a"] + 10.0 * FRAME.head(4)["b"]).tolist()


SAVERS: dict[str, Callable[[Path], Any]] = {
    "sklearn": save_sklearn,
    "xgboost": save_xgboost,
    "lightgbm": save_lightgbm,
    "onnxruntime": save_onnx,
    "torch": save_torch,
}
TENSORS = {"onnxruntime": "x", "torch": ""}
"""Models that take an array, with the name of their input."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The models of the libraries that are installed: folder and expected answer."""
    root, found = tmp_path_factory.mktemp("libraries"), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, save in SAVERS.items():
            if importlib.util.find_spec(name) is not None:
                found[name] = (root / name, save(root / name))
    return found


@pytest.fixture(scope="module")
def server(saved: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """One server of all of them, and of two versions with a module of the same name."""
    root = tmp_path_factory.mktemp("wrapped")
    folders = {name: folder for name, (folder, _) in saved.items()}
    folders |= {name: save_wrapped(root / name / "model", name) for name in ("one", "two")}
    models = ",".join(f"{name}={folder}" for name, folder in folders.items())
    with ModelServer(models, default_model="sklearn") as started:
        yield started.wait_until_ready(240)


@pytest.mark.parametrize("name", SAVERS)
def test_a_model_of_each_library_answers_as_it_does_in_python(
    server: ModelServer, saved: dict[str, Any], name: str
) -> None:
    pytest.importorskip(name)
    expected = saved[name][1]
    if name in TENSORS:
        data = FRAME.head(4).to_numpy().ravel().tolist()
        inputs = [{"name": TENSORS[name] or "input", "shape": [4, 2], "datatype": "FP32", "data": data}]
    else:
        columns = [FRAME.head(4)[column].tolist() for column in FRAME]
        inputs = [
            {"name": column, "shape": [4], "datatype": "FP64", "data": values}
            for column, values in zip(FRAME, columns, strict=True)
        ]
    answer = server.post({"inputs": inputs}, f"/v2/models/{name}/infer")
    assert answer.status == 200, answer.body
    assert answer.json["outputs"][0]["data"] == pytest.approx(expected)
    report = server.get("/status").json["versions"][f"{name}/local"]
    assert report["is_batched"] is True


def test_callers_of_a_model_that_names_its_outputs_share_batches_and_get_their_own_rows(server: ModelServer) -> None:
    pytest.importorskip("onnxruntime")

    def ask(number: int) -> tuple[int, Any]:
        data = [float(number), 1.0] * (number % 3 + 1)
        inputs = [{"name": "x", "shape": [number % 3 + 1, 2], "datatype": "FP32", "data": data}]
        return number, server.post({"inputs": inputs}, "/v2/models/onnxruntime/infer").json["outputs"][0]["data"]

    with ThreadPoolExecutor(16) as callers:
        for number, found in callers.map(ask, range(64)):
            assert found == [2.0 * number + 10.0] * (number % 3 + 1)


def test_the_default_model_answers_invocations(server: ModelServer, saved: dict[str, Any]) -> None:
    answer = server.post(ROWS)
    assert answer.json["predictions"] == saved["sklearn"][1]
    assert answer.json["model"]["name"] == "sklearn"


def test_two_models_with_a_module_of_the_same_name_do_not_mix(server: ModelServer) -> None:
    rows = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}
    for _ in range(3):
        for name in ("one", "two"):
            outputs = server.post(rows, f"/v2/models/{name}/infer").json["outputs"]
            assert {output["name"]: output["data"] for output in outputs} == {"who": [name], "rows": [2]}


def test_a_model_that_wraps_its_answer_is_asked_alone_and_not_wrapped_twice(server: ModelServer) -> None:
    report = server.get("/status").json["versions"]["one/local"]
    assert report["is_batched"] is False
    assert "input example" in report["why_alone"]
