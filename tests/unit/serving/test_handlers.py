"""What the scoring routes refuse before any version is asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_mcp.core.serving.traffic import TrafficPlan
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.handlers import Handlers
from airflow_mcp.serving.models import ServedModels


def _no_pool(*_: Any) -> Any:
    raise AssertionError("nothing is loaded here")


def test_a_server_of_several_models_needs_a_default_one_for_invocations() -> None:
    models = ServedModels(_no_pool)
    for name in ("fraud", "churn"):
        models.assign(name, TrafficPlan())
        models.reasons[name] = f"{name} is being fetched"

    def refused(default_model: str) -> Problem:
        exchange = Exchange({"type": "http", "method": "POST", "path": "/invocations", "headers": []}, 0.0)
        with pytest.raises(Problem) as found:
            asyncio.run(Handlers(models, default_model).invocations(exchange, b"{}", "application/json"))
        return found.value

    assert refused("").code == "unknown_model"
    assert "/v2/models/NAME/infer" in refused("").message
    assert refused("churn").code == "not_ready"
    assert "churn is being fetched" in refused("churn").message
