"""The signature, read from MLmodel files as MLflow writes them, and the description of the API that follows from it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from airflow_mcp.core.serving.openapi import describe_api
from airflow_mcp.core.serving.signature import Column, ModelSignature, Parameter, Tensor, read_model_file
from airflow_mcp.exceptions import EvidenceError

MLMODEL = """
artifact_path: model
flavors:
  python_function: {{code: code, loader_module: mlflow.sklearn, python_version: 3.11.7}}
  sklearn: {{serialization_format: cloudpickle}}
mlflow_version: 3.17.2
saved_input_example_info: {{artifact_path: input_example.json, type: dataframe}}
signature:
  inputs: '{inputs}'
  outputs: '[{{"type": "long", "required": true}}]'
  params: '{params}'
"""
ARRAY_TYPE = '{"items": {"type": "long"}, "name": null, "required": true, "type": "array"}'


def read(inputs: list[Any], params: Any = None) -> Any:
    return read_model_file(MLMODEL.format(inputs=json.dumps(inputs), params=json.dumps(params)))


def column(name: str, kind: str, *, required: bool = True) -> dict[str, Any]:
    return {"type": kind, "name": name, "required": required}


def test_a_table_of_plain_columns_is_read_fast() -> None:
    description = read([column("a", "double"), column("b", "string", required=False)])
    signature = description.signature
    assert signature.columns == (Column("a", "double"), Column("b", "string", required=False))
    assert signature.is_fast
    assert signature.pack_codes == ""
    assert read([column("a", "double"), column("b", "long"), column("c", "boolean")]).signature.pack_codes == "<dq?"
    assert description.flavors == ("python_function", "sklearn")
    assert (description.example_path, description.code_paths) == ("input_example.json", "code")
    assert description.may_fork
    assert description.is_of_tables


@pytest.mark.parametrize(
    "inputs",
    [
        [column("a", "datetime")],
        [column("a", "binary")],
        [{"type": "array", "items": {"type": "long"}, "name": "a", "required": True}],
        [{"type": "double", "required": True}],
        [column("a", "double"), column("a", "double")],
        [],
    ],
)
def test_other_inputs_are_left_to_mlflow(inputs: list[Any]) -> None:
    assert not read(inputs).signature.is_fast


def test_types_that_are_not_plain_keep_their_description() -> None:
    found = read([{"type": "array", "items": {"type": "long"}, "name": "a", "required": True}]).signature.columns
    assert [(each.name, each.type) for each in found] == [("a", ARRAY_TYPE)]


def test_tensors_and_parameters_are_read() -> None:
    inputs = [{"type": "tensor", "name": "image", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
    params = [{"name": "top_k", "type": "long", "default": 5, "shape": None}]
    signature = read(inputs, params).signature
    assert signature.tensors == (Tensor("image", "float32", (-1, 2)),)
    assert signature.parameters == (Parameter("top_k", "long", 5),)
    assert not signature.is_fast


def test_a_file_without_a_signature_is_read() -> None:
    assert read_model_file("flavors: {python_function: {}}").signature == ModelSignature()


def test_libraries_that_do_not_survive_a_fork_are_known() -> None:
    assert not read_model_file("flavors: {python_function: {}, pytorch: {}}").may_fork


@pytest.mark.parametrize("text", ["", "[]", "a: b", "flavors: 3", "flavors: {}\nsignature: {inputs: '['}", "{{"])
def test_what_is_no_mlmodel_file_is_refused(text: str) -> None:
    with pytest.raises(EvidenceError, match="MLmodel cannot be read"):
        read_model_file(text)


SIGNATURE = ModelSignature(
    columns=(Column("x", "double"), Column("n", "long"), Column("s", "string", required=False)),
    parameters=(Parameter("k", "long", 5),),
)
ERRORS = {"invalid_rows": (400, "they do not fit"), "not_ready": (503, "not yet")}


def test_the_described_body_fits_what_the_server_accepts_and_not_what_it_refuses() -> None:
    document = describe_api({"fraud": ("8", SIGNATURE)}, "fraud", ERRORS)
    operation = document["paths"]["/invocations"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    for body in (
        {"dataframe_records": [{"x": 1.5, "n": 3}, {"x": None, "n": 3, "s": None}]},
        {"dataframe_split": {"columns": ["x", "n"], "data": [[1, 2]]}},
        {"inputs": {"x": [1], "n": [2]}},
        {"instances": [{"x": 1, "n": 2}]},
    ):
        validator.validate(body)
    for body in (
        {"dataframe_records": [{"x": 1.5}]},
        {"dataframe_records": [{"x": 1.5, "n": 2**70}]},
        {"dataframe_records": [{"x": "1", "n": 3}]},
        {"rows": []},
    ):
        assert not validator.is_valid(body)
    assert set(operation["responses"]) == {"200", "400", "503"}
    assert "/v2/models/fraud/infer" in document["paths"]


def test_the_described_body_of_a_model_with_an_array_has_its_shape() -> None:
    signature = ModelSignature(tensors=(Tensor("x", "float32", (-1, 2)),))
    operation = describe_api({"m": ("1", signature)}, "m", ERRORS)["paths"]["/invocations"]["post"]
    validator = jsonschema.Draft202012Validator(operation["requestBody"]["content"]["application/json"]["schema"])
    assert validator.is_valid({"inputs": [[1, 2.5], [3, 4]]})
    assert validator.is_valid({"inputs": {"x": [[1, 2.5]]}})
    for body in ({"inputs": [[1]]}, {"inputs": [["1", 2]]}, {"inputs": []}, {"inputs": {"y": [[1, 2]]}}):
        assert not validator.is_valid(body)


def test_models_that_are_not_loaded_are_not_described() -> None:
    paths = describe_api({}, "fraud", ERRORS)["paths"]
    assert "/invocations" not in paths
    assert "/healthz" in paths
