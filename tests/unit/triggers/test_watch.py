"""The loop that all event triggers share: the watermark, restarts, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_mcp.core.watermark import Sighting
from airflow_mcp.exceptions import GitAuthError, GitRemoteError, InvalidArgumentError
from airflow_mcp.triggers.watch import STATE_KEY, WatchTrigger
from tests.support.watching import StateOfAssets, watching


class Page(WatchTrigger):
    """Watches a list that the test writes: the last entry is what is there."""

    def __init__(self, *entries: Any, poll_seconds: float = 60) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.entries = [*entries]

    @property
    def subject(self) -> str:
        return "the page"

    def arguments(self) -> dict[str, Any]:
        return {}

    async def look(self) -> Sighting | None:
        found = self.entries[-1] if self.entries else None
        if isinstance(found, Exception):
            raise found
        return Sighting(found, {"version": found}, once=found) if found else None


class Log:
    """Keeps the warnings."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def info(self, text: str, *values: Any) -> None:
        assert text % values

    def warning(self, text: str, *values: Any, exc_info: Exception | None) -> None:
        self._said.append(text % values)


async def test_the_first_look_gives_no_event_and_a_change_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateOfAssets()
    page = Page("a")
    async with watching(page, state, monkeypatch) as seen:
        await seen.more_looks()
        assert (seen.events, state.mark()) == ([], "a")
        page.entries += ["b", "c"]
        assert await seen.event(1) == {"version": "c"}
        await seen.more_looks()
    assert (seen.events, state.mark()) == ([{"version": "c"}], "c")


async def test_what_appears_after_a_first_look_that_saw_nothing_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    async with watching(page, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        page.entries.append("a")
        assert await seen.event(1) == {"version": "a"}


async def test_a_restarted_trigger_goes_on_from_its_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateOfAssets()
    async with watching(Page("a"), state, monkeypatch) as seen:
        await seen.more_looks()
    async with watching(Page("b"), state, monkeypatch) as seen:
        assert await seen.event(1) == {"version": "b"}
        await seen.more_looks()
    async with watching(Page("b"), state, monkeypatch) as seen:
        await seen.more_looks()
        assert seen.events == []


async def test_an_event_that_was_not_handed_on_before_a_crash_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateOfAssets()
    async with watching(Page("a"), state, monkeypatch) as seen:
        await seen.more_looks()
    page = Page("b")
    async with watching(page, state, monkeypatch) as seen:
        page.settle_seconds = 3600
        await seen.event(1)
    assert state.mark() == "a"
    async with watching(Page("b"), state, monkeypatch) as seen:
        assert await seen.event(1) == {"version": "b"}


async def test_a_store_that_does_not_answer_neither_ends_the_watch_nor_repeats_the_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state = StateOfAssets()
    page = Page("a")
    async with watching(page, state, monkeypatch) as seen:
        await seen.more_looks()
        state.is_silent = True
        page.entries.append("b")
        await seen.event(1)
        await seen.more_looks()
        assert state.mark() == "a"
        state.is_silent = False
        await seen.more_looks()
        assert state.mark() == "b"
        assert len(seen.events) == 1


async def test_equal_triggers_of_several_assets_keep_one_watermark_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateOfAssets()
    async with watching(Page("a"), state, monkeypatch, assets=("one", "two")) as seen:
        await seen.more_looks()
    assert state.mark("one") == state.mark("two") == "a"
    del state.values["one", STATE_KEY]
    async with watching(Page("b"), state, monkeypatch, assets=("one", "two")) as seen:
        assert await seen.event(1) == {"version": "b"}


async def test_an_error_is_said_once_per_kind_and_the_watch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page("a")
    said: list[str] = []
    page._log = Log(said)
    async with watching(page, StateOfAssets(), monkeypatch) as seen:
        await seen.more_looks()
        for error in (GitRemoteError("no answer"), GitAuthError("who are you"), KeyError("a mistake of ours")):
            page.entries.append(error)
            await seen.more_looks()
        page.entries.append("b")
        assert await seen.event(1) == {"version": "b"}
        page.entries.append(GitRemoteError("no answer again"))
        await seen.more_looks()
    assert [line.rpartition(". ")[2] for line in said] == [
        "GitRemoteError: no answer",
        "GitAuthError: who are you",
        "KeyError: 'a mistake of ours'",
        "GitRemoteError: no answer again",
    ]


async def test_an_error_before_the_first_look_leaves_the_first_look_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateOfAssets()
    page = Page(GitRemoteError("no answer"))
    async with watching(page, state, monkeypatch) as seen:
        await seen.more_looks()
        assert state.values == {}
        page.entries.append("a")
        await seen.more_looks()
        assert (state.mark(), seen.events) == ("a", [])


async def test_without_an_asset_the_watermark_lives_as_long_as_the_trigger() -> None:
    page = Page("a")
    page.poll_seconds = page.settle_seconds = 0.01
    events = page.run()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.1)
    page.entries.append("b")
    assert (await asyncio.wait_for(waiting, 30)).payload == {"version": "b"}
    await events.aclose()


@pytest.mark.parametrize("seconds", [0, 0.5, -1, True, "60", float("nan"), float("inf")])
def test_a_poll_time_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="poll_seconds must be"):
        Page(poll_seconds=seconds)
