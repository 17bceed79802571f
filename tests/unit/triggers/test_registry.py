"""What the trigger of registry events is given, and what it shares."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.triggers.registry import RegistryEventTrigger


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": ""}, "models must be a list with at least one text; got"),
        ({"models": []}, r"models must be a list with at least one text; got \[\]"),
        ({"models": ["a", ""]}, "models must be a list with at least one text; got"),
        ({"models": [3]}, "models must be a list with at least one text; got"),
        ({"models": "a", "events": ["promoted"]}, "events must be some of new_version, alias_moved"),
        ({"models": "a", "events": []}, r"events must be a list with at least one text; got \[\]"),
        ({"models": "a", "aliases": "champion"}, "aliases must be a list with at least one text; got 'champion'"),
        ({"models": "a", "tags": []}, r"tags must be a list with at least one text; got \[\]"),
        ({"models": "a", "poll_seconds": 0}, "poll_seconds must be a number of seconds, at least 1; got 0"),
    ],
)
def test_arguments_that_are_none_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        RegistryEventTrigger(**arguments)


def test_all_watchers_of_a_connection_share_one_stream_whatever_they_watch() -> None:
    one = RegistryEventTrigger(models="a", poll_seconds=5)
    two = RegistryEventTrigger(models=["b", "c-*"], events=["model_tag_changed"], mlflow_conn_id="mlflow_default")
    other = RegistryEventTrigger(models="a", mlflow_conn_id="mlflow_dev")
    assert one.shared_stream_key() == two.shared_stream_key() != other.shared_stream_key()


def test_one_name_and_a_list_of_it_are_the_same_trigger() -> None:
    assert RegistryEventTrigger(models="a").serialize() == RegistryEventTrigger(models=["a"]).serialize()
