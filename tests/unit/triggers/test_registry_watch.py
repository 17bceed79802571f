"""One loop looks at the registry for all that wait: what it asks, and what newcomers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import RegisteredModel
from airflow_mcp.core.registry.events import RegistryScope
from airflow_mcp.exceptions import MlflowAuthError, MlflowError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.triggers import registry_watch
from airflow_mcp.triggers.registry_watch import FailedLook, Interest, Look, RegistryWatch


class Registry:
    """Answers the hook's operations, and keeps with which filter each was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.refuses_filters = False
        self.filters: list[str] = []
        monkeypatch.setattr(registry_watch, "GATHER_SECONDS", 0.01)
        monkeypatch.setattr(MlflowHook, "aperform", self.perform)

    async def perform(self, operation: Any) -> list[RegisteredModel]:
        where = dict(next(operation).params).get("filter", "")
        operation.close()
        self.filters.append(where)
        if self.error is not None:
            raise self.error
        if where and self.refuses_filters:
            raise MlflowError("no such comparator", 400, "INVALID_PARAMETER_VALUE")
        return [RegisteredModel("fraud"), RegisteredModel("churn")]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(monkeypatch)


def interest(*models: str, poll_seconds: float = 3600) -> Interest:
    return Interest(RegistryScope.of(models), poll_seconds)


async def until(seen: list[Any], number: int) -> None:
    async with asyncio.timeout(30):
        while len(seen) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_what_several_need_is_asked_together_and_nobody_who_is_served_causes_a_look(registry: Registry) -> None:
    watch, looks = RegistryWatch.of("a"), list[Any]()
    with watch.heard(looks.append), watch.interested(interest("fraud")), watch.interested(interest("churn")):
        await until(looks, 1)
        assert registry.filters == ["name IN ('churn', 'fraud')"]
        late = list[Any]()
        with watch.interested(interest("churn")), watch.heard(late.append):
            assert late == looks
            await asyncio.sleep(0.1)
        assert len(registry.filters) == 1
        with watch.interested(interest("other")):
            await until(looks, 2)
        with watch.interested(interest("fraud", poll_seconds=1)):
            await until(looks, 3)
    assert registry.filters[1] == "name IN ('churn', 'fraud', 'other')"
    assert looks[1].models["fraud"] is looks[0].models["fraud"], "what has not changed is the same object"


async def test_a_newcomer_is_not_told_an_old_failure_but_causes_a_look(registry: Registry) -> None:
    registry.error = MlflowAuthError("who are you")
    watch, looks = RegistryWatch.of("b"), list[Any]()
    with watch.heard(looks.append), watch.interested(interest("fraud")):
        await until(looks, 1)
        assert isinstance(looks[0], FailedLook)
        registry.error = None
        late = list[Any]()
        with watch.interested(interest("fraud")), watch.heard(late.append):
            await until(late, 1)
        assert [type(each) for each in late] == [Look]


async def test_a_server_that_refuses_a_filter_is_asked_for_everything_from_then_on(registry: Registry) -> None:
    registry.refuses_filters = True
    watch, looks = RegistryWatch.of("c"), list[Any]()
    with watch.heard(looks.append), watch.interested(interest("fraud", poll_seconds=0.02)):
        await until(looks, 2)
    assert registry.filters[:3] == ["name = 'fraud'", "", ""]
    assert all(isinstance(each, Look) for each in looks)


async def test_when_nobody_waits_any_more_nothing_is_asked_and_the_next_one_begins_anew(registry: Registry) -> None:
    watch, looks = RegistryWatch.of("d"), list[Any]()
    with watch.heard(looks.append):
        with watch.interested(interest("fraud", poll_seconds=0.02)):
            await until(looks, 1)
        asked = len(registry.filters)
        await asyncio.sleep(0.1)
        assert len(registry.filters) == asked
        with watch.interested(interest("fraud")):
            await until(looks, asked + 1)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == {asyncio.current_task()}
