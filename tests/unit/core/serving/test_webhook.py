"""Calls of MLflow's webhooks: signed by MLflow's own code, changed, old and repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_mcp.core.serving.webhook import REMEMBERED, Deliveries, why_refused

NOW = 1_800_000_000.0
SECRET = "s3cret"
BODY = b'{"entity":"model_version_alias","action":"created","data":{"name":"fraud","alias":"champion"}}'


def headers(sign: Callable[..., str], *, at: float = NOW, body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    signature = sign(secret, "d1", str(int(at)), body.decode())
    return {
        "x-mlflow-signature": signature,
        "x-mlflow-delivery-id": "d1",
        "x-mlflow-timestamp": str(int(at)),
    }


@pytest.fixture(scope="module")
def sign() -> Callable[..., str]:
    """MLflow's own signature."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    function: Callable[..., str] = _generate_hmac_signature
    return function


class TestACall:
    def test_of_mlflow_is_accepted(self, sign: Callable[..., str]) -> None:
        assert why_refused(headers(sign), BODY, SECRET, NOW) == ""

    @pytest.mark.parametrize("seconds", [-300, 300])
    def test_may_be_off_by_five_minutes(self, sign: Callable[..., str], seconds: int) -> None:
        assert why_refused(headers(sign, at=NOW + seconds), BODY, SECRET, NOW) == ""

    @pytest.mark.parametrize("seconds", [-301, 301])
    def test_that_is_older_is_refused(self, sign: Callable[..., str], seconds: int) -> None:
        assert "older than 300 s" in why_refused(headers(sign, at=NOW + seconds), BODY, SECRET, NOW)

    def test_with_another_body_is_refused(self, sign: Callable[..., str]) -> None:
        assert "signature" in why_refused(headers(sign), BODY + b" ", SECRET, NOW)

    def test_with_another_secret_is_refused(self, sign: Callable[..., str]) -> None:
        assert "signature" in why_refused(headers(sign, secret="guess"), BODY, SECRET, NOW)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("x-mlflow-signature", ""),
            ("x-mlflow-signature", "v1,"),
            ("x-mlflow-signature", "v1,%%%"),
            ("x-mlflow-signature", "v2,AAAA"),
            ("x-mlflow-signature", "AAAA"),
            ("x-mlflow-delivery-id", ""),
            ("x-mlflow-delivery-id", "d2"),
            ("x-mlflow-timestamp", ""),
            ("x-mlflow-timestamp", "soon"),
            ("x-mlflow-timestamp", "-5"),
            ("x-mlflow-timestamp", "1800000001"),
            ("x-mlflow-timestamp", "9" * 5000),
        ],
    )
    def test_with_a_wrong_header_is_refused(self, sign: Callable[..., str], name: str, value: str) -> None:
        assert why_refused({**headers(sign), name: value}, BODY, SECRET, NOW) != ""

    def test_is_refused_where_there_is_no_secret(self, sign: Callable[..., str]) -> None:
        assert why_refused(headers(sign, secret=""), BODY, "", NOW) != ""


class TestDeliveries:
    def test_count_once(self) -> None:
        seen = Deliveries()
        assert [seen.is_new("a", 0), seen.is_new("a", 1), seen.is_new("b", 2)] == [True, False, True]

    def test_are_forgotten_after_ten_minutes(self) -> None:
        seen = Deliveries()
        seen.is_new("a", 0)
        assert not seen.is_new("a", REMEMBERED)
        assert seen.is_new("a", REMEMBERED + 1)
