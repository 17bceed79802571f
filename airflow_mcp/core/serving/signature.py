"""The signature of a model, read from its ``MLmodel`` file without the mlflow package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from airflow_mcp.exceptions import EvidenceError

PACK_CODES: Mapping[str, str] = {"boolean": "?", "integer": "i", "long": "q", "float": "f", "double": "d"}
"""Code of each numeric type in the module ``struct``; all of them little-endian and without padding."""
ARRAY_TYPES: Mapping[str, str] = {"int32": "integer", "int64": "long", "float32": "float", "float64": "double"}
"""MLflow's name for each type of array that the server reads by itself."""
FAST_TYPES = frozenset({*PACK_CODES, "string"})
"""Types of columns that the server reads by itself; MLflow's own parser reads the others."""
RANGES: Mapping[str, tuple[int, int]] = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
ALONE_FLAVORS = frozenset(
    {"transformers", "langchain", "openai", "llama_index", "dspy", "sentence_transformers", "agent"}
)
"""Flavors whose inputs are not rows of a table, so that requests cannot share a batch."""
NO_FORK_FLAVORS = frozenset({"pytorch", "tensorflow", "keras", "transformers", "sentence_transformers"})
"""Flavors whose library does not survive a fork after it was used."""


@dataclass(frozen=True)
class Column:
    """One input or output column."""

    name: str
    type: str
    """MLflow's name of the type, or JSON for arrays, objects and maps."""
    required: bool = True


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model that works on arrays."""

    name: str
    dtype: str
    """NumPy's name of the type."""
    shape: tuple[int, ...]
    """-1 stands for any length."""


@dataclass(frozen=True)
class Parameter:
    """One inference parameter."""

    name: str
    type: str
    default: Any = None


@dataclass(frozen=True)
class ModelSignature:
    """What a model takes and returns."""

    columns: tuple[Column, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    outputs: tuple[Column, ...] = ()
    output_tensors: tuple[Tensor, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    is_from_type_hint: bool = False
    """Whether it was derived from a type hint; MLflow then checks the input in a way of its own."""

    @property
    def is_fast(self) -> bool:
        """Whether every input is a named column of a scalar type, so that the server can read rows by itself."""
        names = {column.name for column in self.columns}
        return (
            bool(self.columns)
            and not self.is_from_type_hint
            and len(names) == len(self.columns)
            and all(column.type in FAST_TYPES for column in self.columns)
        )

    @property
    def array(self) -> Tensor | None:
        """The only input, if it is an array of any number of rows of one shape, which the server can read by itself."""
        if self.columns or len(self.tensors) != 1 or self.is_from_type_hint:
            return None
        tensor = self.tensors[0]
        is_of_rows = tensor.shape[:1] == (-1,) and all(size > 0 for size in tensor.shape[1:])
        return tensor if is_of_rows and tensor.dtype in ARRAY_TYPES else None

    @property
    def pack_codes(self) -> str:
        """Format of a row for the module ``struct``; empty when a column is not a number."""
        codes = [PACK_CODES.get(column.type, "") for column in self.columns]
        return "<" + "".join(codes) if codes and all(codes) else ""


@dataclass(frozen=True)
class ModelDescription:
    """What the ``MLmodel`` file of a version says."""

    signature: ModelSignature = field(default_factory=ModelSignature)
    flavors: tuple[str, ...] = ()
    example_path: str = ""
    """Path of the input example in the model's folder; empty without one."""
    code_paths: str = ""
    """Folder of the modules that were logged with the model; empty without any."""

    @property
    def may_fork(self) -> bool:
        """Whether processes of this model may be forked from one that has loaded it."""
        return not NO_FORK_FLAVORS.intersection(self.flavors)

    @property
    def is_of_tables(self) -> bool:
        """Whether requests are rows of a table, as far as the flavor says."""
        return not ALONE_FLAVORS.intersection(self.flavors)


def read_model_file(text: str) -> ModelDescription:
    """Read an ``MLmodel`` file.

    :param text: its content.
    :raises EvidenceError: when it is not an MLmodel file.
    """
    try:
        content = yaml.safe_load(text)
        flavors = content["flavors"]
        pyfunc = flavors.get("python_function") or {}
        example = content.get("saved_input_example_info") or {}
        return ModelDescription(
            signature=_signature(content.get("signature") or {}, content.get("type_hint_from_example")),
            flavors=tuple(sorted(str(name) for name in flavors)),
            example_path=str(example.get("artifact_path") or ""),
            code_paths=str(pyfunc.get("code") or ""),
        )
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EvidenceError(
            f"the file MLmodel cannot be read: {type(error).__name__}. The model was not loaded"
        ) from None


def _signature(written: Mapping[str, Any], from_example: object) -> ModelSignature:
    inputs, outputs = _listed(written.get("inputs")), _listed(written.get("outputs"))
    return ModelSignature(
        columns=tuple(_column(index, entry) for index, entry in enumerate(inputs) if entry.get("type") != "tensor"),
        tensors=tuple(_tensor(entry) for entry in inputs if entry.get("type") == "tensor"),
        outputs=tuple(_column(index, entry) for index, entry in enumerate(outputs) if entry.get("type") != "tensor"),
        output_tensors=tuple(_tensor(entry) for entry in outputs if entry.get("type") == "tensor"),
        parameters=tuple(
            Parameter(str(entry["name"]), str(entry.get("type") or entry.get("dtype") or ""), entry.get("default"))
            for entry in _listed(written.get("params"))
        ),
        is_from_type_hint=bool(written.get("is_signature_from_type_hint") or from_example),
    )


def _listed(written: object) -> Sequence[Mapping[str, Any]]:
    """Return a part of the signature, which MLflow writes as JSON text inside the YAML."""
    entries = json.loads(written) if isinstance(written, str) else written
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise TypeError("a part of the signature must be a list")
    return entries


def _column(index: int, entry: Mapping[str, Any]) -> Column:
    scalar = entry.get("type") if set(entry) <= {"type", "name", "required", "optional"} else None
    kind = scalar if isinstance(scalar, str) else json.dumps({**entry, "name": None}, sort_keys=True)
    name = entry.get("name")
    required = bool(entry.get("required", not entry.get("optional", False)))
    # Without a name MLflow matches columns by position, which is left to its own parser.
    return Column("" if name is None else str(name), kind if name is not None else f"unnamed {kind}", required)


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    spec = entry["tensor-spec"]
    return Tensor(str(entry.get("name") or ""), str(spec["dtype"]), tuple(int(size) for size in spec["shape"]))
