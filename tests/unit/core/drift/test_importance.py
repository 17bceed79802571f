from __future__ import annotations

import pytest

from airflow_mcp.core.drift.importance import read_importance
from airflow_mcp.exceptions import EvidenceError


def test_importance_is_read_as_it_was_logged() -> None:
    assert read_importance(b'{"age": 1, "amount": 2.5, "none": 0}', "here") == {"age": 1, "amount": 2.5, "none": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[1]", "here is not a JSON object from feature to importance: the document must be"),
        (b'{"age": -1}', "here is not a JSON object from feature to importance: age must be at least 0"),
        (b'{"age": NaN}', "here is not a JSON object from feature to importance: age must be a finite number"),
        (b'{"age": "much"}', "here is not a JSON object from feature to importance: age must be a number"),
        (b"{", "here is not a JSON object from feature to importance: the document is not valid JSON"),
        (b"{}", "here has no feature with an importance above 0"),
        (b'{"age": 0}', "here has no feature with an importance above 0"),
    ],
)
def test_what_says_nothing_of_features_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        read_importance(text, "here")
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("Nothing was compared")
