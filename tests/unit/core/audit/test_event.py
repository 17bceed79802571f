"""Events: the closed list, one spelling, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_mcp.core.audit.event import ACTIONS, AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.exceptions import InvalidArgumentError


def event(**changes: Any) -> AuditEvent:
    fields: dict[str, Any] = {
        "id": event_id("registry.moved", "model:fraud", "m1"),
        "action": "registry.moved",
        "subject": "model:fraud",
        "environment": "dev",
        "actor": AuditActor("user", "lena"),
    }
    return AuditEvent(**fields | changes)


def test_equal_events_have_equal_text_with_sorted_keys() -> None:
    one, two = event(new={"b": 1, "a": [True, None, "é"]}), event(new={"a": [True, None, "é"], "b": 1})
    assert one.text == two.text
    assert '"new":{"a":[true,null,"é"],"b":1}' in one.text
    assert list(json.loads(one.text)) == sorted(json.loads(one.text))


def test_the_task_is_named_without_its_try() -> None:
    assert json.loads(event(task=TaskKey("dag", "run", "task")).text)["task"] == {
        "dag_id": "dag",
        "dag_run_id": "run",
        "task_id": "task",
        "map_index": -1,
    }


def test_an_id_differs_by_action_subject_and_what_makes_it_this_event() -> None:
    ids = {event_id(*parts) for parts in [("a", "s", 1), ("a", "s", 2), ("b", "s", 1), ("a", "t", 1)]}
    assert len(ids) == 4
    assert event_id("a", "s", 1) in ids


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"action": "registry.deleted"}, "action must be one of"),
        ({"environment": "staging"}, "environment must be one of dev, test, prod"),
        ({"id": "x"}, "id must be 32 hexadecimal"),
        ({"subject": ""}, "subject must be"),
        ({"new": {"auc": 0.5}}, r"event\.new\.auc must be"),
        ({"new": {"é": 1}}, "keys of ASCII"),
        ({"reason": "a\0b"}, r"event\.reason must be text without NUL"),
        ({"reason": "\ud800"}, "lone surrogates"),
        ({"new": {"a": ["AKIA" + "A" * 16]}}, r"event\.new\.a\[0\] must not hold a credential; got a value that is"),
        ({"reason": "https://me:pass@host/x"}, "must not hold a credential"),
        ({"reason": "x" * 70_000}, "at most 65536 bytes"),
    ],
)
def test_what_the_log_does_not_accept_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem) as refused:
        event(**changes)
    assert "AKIA" not in str(refused.value)
    assert "pass@" not in str(refused.value)


def test_every_action_has_an_area_and_a_verb() -> None:
    assert len(ACTIONS) > 40
    assert all(len(action.split(".")) == 2 for action in ACTIONS)


def test_a_text_with_a_credential_is_replaced() -> None:
    assert without_credentials("better recall") == "better recall"
    assert "ghp_" not in without_credentials("ghp_" + "a" * 36)
