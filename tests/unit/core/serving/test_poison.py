"""Requests that ended a model process are refused for a while, however many there have been before."""

from __future__ import annotations

from airflow_mcp.core.serving.poison import MAX_POISON, POISON_SECONDS, PoisonousRequests


def test_a_request_is_refused_until_its_time_is_over() -> None:
    poison = PoisonousRequests()
    assert not poison
    poison.add(b"a", 100.0)
    assert poison
    assert poison.refuses(b"a", 100.0 + POISON_SECONDS - 1)
    assert not poison.refuses(b"b", 100.0)
    assert not poison.refuses(b"a", 100.0 + POISON_SECONDS)
    assert not poison  # nothing is left of it


def test_a_request_that_kills_again_is_refused_longer() -> None:
    poison = PoisonousRequests()
    poison.add(b"a", 0.0)
    poison.add(b"b", 1.0)
    poison.add(b"a", 300.0)
    assert poison.refuses(b"a", POISON_SECONDS + 100)
    assert not poison.refuses(b"b", POISON_SECONDS + 100)


def test_the_newest_request_is_always_remembered() -> None:
    poison = PoisonousRequests()
    for number in range(MAX_POISON + 1):
        poison.add(str(number).encode(), 0.0)
    assert poison.refuses(str(MAX_POISON).encode(), 1.0)
    assert not poison.refuses(b"0", 1.0)
    assert poison.refuses(b"1", 1.0)
