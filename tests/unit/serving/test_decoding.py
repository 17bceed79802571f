"""Bodies of requests, read for a version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.signature import Column, ModelSignature, Tensor
from airflow_mcp.serving.decoding import BodyDecoder
from airflow_mcp.serving.errors import Problem

HALF = "\ud800"
TABLE = ModelSignature(columns=(Column("s", "string"),))
TEXTS = ModelSignature(tensors=(Tensor("s", "str", (-1,)),))


def infer(signature: ModelSignature, text: str, **further: Any) -> None:
    inputs = [{"name": "s", "shape": [1], "datatype": "BYTES", "data": [text]}]
    BodyDecoder(signature, ServingSettings()).infer(json.dumps({"inputs": inputs, **further}).encode())


@pytest.mark.parametrize("signature", [TABLE, TEXTS])
def test_half_of_a_surrogate_pair_is_a_mistake_of_the_caller(signature: ModelSignature) -> None:
    infer(signature, "a", id="42")
    for text, further in ((HALF, {}), ("a", {"id": HALF})):
        with pytest.raises(Problem, match="half of a surrogate pair") as raised:
            infer(signature, text, **further)
        assert raised.value.status == 400
