"""The description of the HTTP API, built from the signatures of the models that are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.serving.signature import ARRAY_TYPES, RANGES, Column, ModelSignature, Parameter, Tensor

_NUMBERS: Mapping[str, Any] = {
    **{name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in RANGES.items()},
    "float": {"type": ["number", "null"], "format": "float"},
    "double": {"type": ["number", "null"], "format": "double"},
    "boolean": {"type": "boolean"},
    "string": {"type": ["string", "null"]},
    "datetime": {"type": "string", "format": "date-time"},
    "binary": {"type": "string", "contentEncoding": "base64"},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "request_id")},
        }
    },
}
_TENSORS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    },
}


def describe_api(
    models: Mapping[str, tuple[str, ModelSignature]], default_model: str, errors: Mapping[str, tuple[int, str]]
) -> dict[str, Any]:
    """Return the description as an OpenAPI 3.1 document.

    :param models: version and signature by the name of the model; those that are not loaded are left out.
    :param default_model: the model that ``/invocations`` asks.
    :param errors: status and meaning of every error code.
    """
    paths: dict[str, Any] = {}
    if default_model in models:
        paths["/invocations"] = {"post": _invocations(default_model, *models[default_model], errors)}
    for name, (version, signature) in models.items():
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(name, version, signature, errors)}
    for path, text in _READ_ONLY.items():
        paths[path] = {"get": {"summary": text, "responses": {"200": {"description": text}}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model server",
            "version": ", ".join(f"{name}/{v[0]}" for name, v in models.items()) or "none",
        },
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


_READ_ONLY: Mapping[str, str] = {
    "/healthz": "Whether the server lives, with the version that answers and the uptime",
    "/readyz": "Whether every model can answer",
    "/metrics": "Metrics for Prometheus",
    "/status": "What is loaded, and the plan in force",
    "/events": "The latest versions that were started, refused and swapped, numbered",
    "/version": "Version of this software",
    "/v2": "Metadata of the server",
    "/v2/health/live": "Whether the server lives",
    "/v2/health/ready": "Whether every model can answer",
}


def _invocations(name: str, version: str, signature: ModelSignature, errors: Mapping[str, Any]) -> dict[str, Any]:
    answer = {
        "type": "object",
        "required": ["predictions"],
        "properties": {
            "predictions": {},
            "model": {"type": "object", "properties": {"name": {"const": name}, "version": {"type": "string"}}},
            "request_id": {"type": "string"},
        },
    }
    return {
        "summary": f"Ask {name}, version {version}, in the forms of MLflow's scoring protocol",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": _forms(signature)}},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": _responses(answer, errors),
    }


def _infer(name: str, version: str, signature: ModelSignature, errors: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ", ".join(column.name for column in signature.columns) or ", ".join(t.name for t in signature.tensors)
    answer = {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            **{key: {"type": "string"} for key in ("model_name", "model_version", "id")},
            "outputs": _TENSORS,
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"id": {"type": "string"}, "inputs": {**_TENSORS, "description": f"Inputs: {wanted}"}},
    }
    return {
        "summary": f"Ask {name}, version {version}, by the Open Inference Protocol",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses(answer, errors),
    }


def _forms(signature: ModelSignature) -> list[dict[str, Any]]:
    """Return the schema of each form of a body, for a model with named columns; anything for others."""
    if not signature.is_fast:
        rows = {} if signature.array is None else _array(signature.array)
        return [{"type": "object", "required": [form], "properties": {form: rows}} for form in ("inputs", "instances")]
    columns = signature.columns
    record = {
        "type": "object",
        "required": [column.name for column in columns if column.required],
        "properties": {column.name: _type(column) for column in columns},
    }
    names = [column.name for column in columns]
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}, "examples": [names]},
            "data": {"type": "array", "items": {"type": "array", "prefixItems": [_type(column) for column in columns]}},
        },
    }
    by_column = {
        "type": "object",
        "required": record["required"],
        "properties": {column.name: {"type": "array", "items": _type(column)} for column in columns},
    }
    further = {"params": _parameters(signature.parameters)} if signature.parameters else {}
    return [
        {"type": "object", "required": [form], "properties": {form: schema, **further}}
        for form, schema in (
            ("dataframe_split", split),
            ("dataframe_records", {"type": "array", "items": record}),
            ("instances", {"type": "array", "items": record}),
            ("inputs", by_column),
        )
    ]


def _array(tensor: Tensor) -> dict[str, Any]:
    """Return the schema of the rows of an array; a named one may also be sent under its name."""
    rows: dict[str, Any] = dict(_NUMBERS[ARRAY_TYPES[tensor.dtype]])
    for size in reversed(tensor.shape[1:]):
        rows = {"type": "array", "items": rows, "minItems": size, "maxItems": size}
    rows = {"type": "array", "items": rows, "minItems": 1}
    if not tensor.name:
        return rows
    return {"oneOf": [rows, {"type": "object", "required": [tensor.name], "properties": {tensor.name: rows}}]}


def _type(column: Column) -> dict[str, Any]:
    return dict(_NUMBERS.get(column.type, {}))


def _parameters(parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {each.name: {**_NUMBERS.get(each.type, {}), "default": each.default} for each in parameters},
    }


def _responses(answer: Mapping[str, Any], errors: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    by_status: dict[str, list[str]] = {}
    for code, (status, meaning) in errors.items():
        by_status.setdefault(str(int(status)), []).append(f"`{code}`: {meaning}")
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": "The predictions", "content": {"application/json": {"schema": dict(answer)}}},
        **{
            status: {"description": ". ".join(meanings), "content": error}
            for status, meanings in sorted(by_status.items())
        },
    }
