"""Alias moves: every crash, every retry, every interleaving of two movers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_LAST_MOVE
from airflow_mcp.core.registry.moves import MoveRecord, read_history, unfinished_move
from airflow_mcp.core.registry.plans import (
    AliasMove,
    AliasPlan,
    completion,
    plan_promotion,
    plan_rollback,
    settled_aliases,
)
from airflow_mcp.exceptions import AliasConflictError

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


class CrashError(Exception):
    """The task was killed here."""


@dataclass
class Registry:
    """Aliases and tags of one registered model, as a mover changes them one request at a time."""

    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    champions: list[str | None] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    """After each move: whether the way back led to the champion itself."""

    def carry_out(self, plan: AliasPlan, action: str, identity: str, crash_after: int | None = None) -> int:
        """Make the moves, the record before the champion's, and crash after so many requests."""
        requests = list(self._requests(plan, action, identity))
        for number, request in enumerate(requests):
            if number == crash_after:
                raise CrashError
            request()
            self.champions.append(self.aliases.get(ALIAS_CHAMPION))
        if crash_after == len(requests):
            raise CrashError
        return len(requests)

    def _requests(self, plan: AliasPlan, action: str, identity: str) -> Iterator[Callable[[], None]]:
        if not plan.moves:
            return
        record = replace(
            MoveRecord(action, identity, plan.champion_before, plan.champion_after, NOW.isoformat(), "test"),
            previous_before=self.aliases.get(ALIAS_PREVIOUS_CHAMPION),
        )
        yield lambda: self.tags.update({TAG_LAST_MOVE: record.to_tag()})
        for move in plan.moves:
            yield lambda move=move: self._move(move)
        yield lambda: self.tags.update({record.done_tag: record.to_tag()})

    def settle(self) -> None:
        """Complete and record what a dead task began, as every mover does first."""
        lost = unfinished_move(self.aliases, self.tags)
        if lost is not None:
            settled = settled_aliases(self.aliases, self.tags)
            for move in completion(lost, self.aliases):
                self._move(move)
            assert self.aliases == settled
            self.tags[lost.done_tag] = lost.to_tag()

    def _move(self, move: AliasMove) -> None:
        if move.version is None:
            del self.aliases[move.alias]
        else:
            self.aliases[move.alias] = move.version
        self.same.append(self.aliases.get(ALIAS_PREVIOUS_CHAMPION) == self.aliases.get(ALIAS_CHAMPION))


def plan_of_promotion(
    aliases: dict[str, str], version: str, expected: str | None, tags: dict[str, str] | None = None
) -> AliasPlan:
    return plan_promotion(
        aliases,
        tags or {},
        model_name="churn",
        identity=f"promote-{version}",
        version=version,
        expected_champion=expected,
    )


def promote(registry: Registry, version: str, expected: str | None, crash_after: int | None = None) -> int:
    registry.settle()
    plan = plan_of_promotion(registry.aliases, version, expected, registry.tags)
    return registry.carry_out(plan, "promote", f"promote-{version}", crash_after)


def roll_back(registry: Registry, identity: str, to_version: str | None = None, crash_after: int | None = None) -> int:
    registry.settle()
    plan = plan_rollback(registry.aliases, registry.tags, model_name="churn", identity=identity, to_version=to_version)
    return registry.carry_out(plan, "rollback", identity, crash_after)


def aliases(champion: str | None, previous: str | None = None) -> dict[str, str]:
    given = {ALIAS_CHAMPION: champion, ALIAS_PREVIOUS_CHAMPION: previous}
    return {alias: version for alias, version in given.items() if version is not None}


# --- promotion -----------------------------------------------------------------------------------------------------


def test_the_first_champion_has_no_predecessor() -> None:
    plan = plan_of_promotion({}, "1", None)
    assert plan == AliasPlan((AliasMove(ALIAS_CHAMPION, "1"),), None, "1")
    assert not plan.is_done


def test_the_way_back_moves_after_the_champion_so_it_never_leads_to_the_champion() -> None:
    plan = plan_of_promotion(aliases("3", "2"), "4", "3")
    assert plan.moves == (AliasMove(ALIAS_CHAMPION, "4"), AliasMove(ALIAS_PREVIOUS_CHAMPION, "3"))
    assert (plan.champion_before, plan.champion_after) == ("3", "4")


@pytest.mark.parametrize("expected", [None, "3", "4", "9"])
def test_promoting_the_champion_changes_nothing(expected: str | None) -> None:
    plan = plan_of_promotion(aliases("4", "3"), "4", expected)
    assert plan.is_done
    assert plan.champion_after == "4"


@pytest.mark.parametrize(
    ("champion", "expected", "said"),
    [
        ("5", "3", "compared with version 3, but alias 'champion' now points at version 5"),
        ("5", None, "compared with no version, but alias 'champion' now points at version 5"),
        (None, "3", "compared with version 3, but alias 'champion' now points at no version"),
    ],
)
def test_another_champion_than_the_compared_one_refuses_the_move(
    champion: str | None, expected: str | None, said: str
) -> None:
    with pytest.raises(AliasConflictError) as caught:
        plan_of_promotion(aliases(champion, "2"), "4", expected)
    assert "'churn': the candidate (version 4)" in str(caught.value)
    assert said in str(caught.value)
    assert "Nothing was moved" in str(caught.value)


@pytest.mark.parametrize("start", [aliases(None), aliases("3"), aliases("3", "2"), aliases("3", "4")], ids=str)
def test_a_promotion_killed_after_any_request_ends_in_the_same_state_when_retried(start: dict[str, str]) -> None:
    expected = start.get(ALIAS_CHAMPION)
    undisturbed = Registry(dict(start))
    requests = promote(undisturbed, "4", expected)
    assert undisturbed.aliases == aliases("4", expected)
    for first, second in itertools.product(range(requests + 1), repeat=2):
        registry = Registry(dict(start))
        with pytest.raises(CrashError):
            promote(registry, "4", expected, crash_after=first)
        try:
            promote(registry, "4", expected, crash_after=second)
        except CrashError:
            promote(registry, "4", expected)
        assert registry.aliases == undisturbed.aliases, (first, second)
        assert not any(registry.same[1:])
        assert set(registry.champions) <= {expected, "4"}
        if expected is not None:
            assert None not in registry.champions


@pytest.mark.parametrize("start", [aliases("3", "2"), aliases("3", "4")], ids=str)
@pytest.mark.parametrize("crash_after", range(6))
def test_after_a_promotion_that_was_killed_a_rollback_goes_to_the_champion_before(
    start: dict[str, str], crash_after: int
) -> None:
    registry = Registry(dict(start))
    with contextlib.suppress(CrashError):
        promote(registry, "4", "3", crash_after=crash_after)
    has_moved = registry.aliases[ALIAS_CHAMPION] == "4"
    roll_back(registry, "night-1")
    assert registry.aliases == aliases("3" if has_moved else start[ALIAS_PREVIOUS_CHAMPION])


@pytest.mark.parametrize("crash_after", range(6))
def test_a_retried_promotion_does_not_undo_a_rollback_and_says_so(crash_after: int) -> None:
    registry = Registry(aliases("3", "2"))
    with contextlib.suppress(CrashError):
        promote(registry, "4", "3", crash_after=crash_after)
    if registry.aliases[ALIAS_CHAMPION] != "4":
        return
    roll_back(registry, "on-call", to_version="3")
    with pytest.raises(AliasConflictError, match=r"made version 4 the champion.*points at version 3.*new Dag run"):
        promote(registry, "4", "3")
    assert registry.aliases[ALIAS_CHAMPION] == "3"


@pytest.mark.parametrize("crash_after", range(6))
def test_a_retried_rollback_does_not_undo_a_later_promotion_and_says_so(crash_after: int) -> None:
    registry = Registry(aliases("4", "3"))
    with contextlib.suppress(CrashError):
        roll_back(registry, "on-call", crash_after=crash_after)
    if registry.aliases[ALIAS_CHAMPION] != "3":
        return
    promote(registry, "5", "3")
    with pytest.raises(AliasConflictError, match=r"made version 3 the champion.*points at version 5.*new Dag run"):
        roll_back(registry, "on-call")
    assert registry.aliases[ALIAS_CHAMPION] == "5"


def test_a_retried_promotion_names_the_champion_that_it_replaced() -> None:
    registry = Registry(aliases("3"))
    promote(registry, "4", "3")
    plan = plan_of_promotion(registry.aliases, "4", "3", registry.tags)
    assert (plan.is_done, plan.champion_before) == (True, "3")
    other = plan_promotion(
        registry.aliases, registry.tags, model_name="churn", identity="x", version="4", expected_champion="3"
    )
    assert (other.is_done, other.champion_before) == (True, "3")


def test_a_way_back_that_leads_to_the_champion_counts_as_none() -> None:
    with pytest.raises(AliasConflictError, match=r"at the champion itself, so there is no champion to go back to"):
        plan_rollback(aliases("3", "3"), {}, model_name="churn", identity="night-1", to_version=None)


def test_a_way_back_that_somebody_moved_since_is_left_alone() -> None:
    died = replace(MoveRecord("promote", "p", "3", "4", NOW.isoformat(), "dag"), previous_before="2")
    tags = {TAG_LAST_MOVE: died.to_tag()}
    assert settled_aliases(aliases("4", "2"), tags) == aliases("4", "3")
    assert settled_aliases(aliases("4", "1"), tags) == aliases("4", "1")
    assert settled_aliases(aliases("3", "2"), tags) == aliases("3", "2")
    assert settled_aliases({**aliases("4", "2"), "challenger": "4"}, tags) == aliases("4", "3")
    assert settled_aliases({**aliases("4", "2"), "challenger": "9"}, tags)["challenger"] == "9"


def test_the_history_lists_every_move_that_was_done() -> None:
    registry = Registry({})
    promote(registry, "1", None)
    promote(registry, "2", "1")
    roll_back(registry, "on-call")
    moves = {(move.action, move.champion_before, move.champion_after) for move in read_history(registry.tags)}
    assert moves == {("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1")}


# --- rollback ------------------------------------------------------------------------------------------------------


def test_a_rollback_goes_to_the_previous_champion_and_forgets_it() -> None:
    plan = plan_rollback(aliases("4", "3"), {}, model_name="churn", identity="night-1", to_version=None)
    assert plan.moves == (AliasMove(ALIAS_CHAMPION, "3"), AliasMove(ALIAS_PREVIOUS_CHAMPION, None))
    assert (plan.champion_before, plan.champion_after) == ("4", "3")


def test_a_rollback_may_name_its_version() -> None:
    plan = plan_rollback(aliases("4"), {}, model_name="churn", identity="night-1", to_version="1")
    assert plan.moves == (AliasMove(ALIAS_CHAMPION, "1"),)
    plan = plan_rollback(aliases("4", "3"), {}, model_name="churn", identity="night-1", to_version="1")
    assert plan.moves == (AliasMove(ALIAS_CHAMPION, "1"), AliasMove(ALIAS_PREVIOUS_CHAMPION, None))


@pytest.mark.parametrize("champion", [None, "4"])
def test_without_a_way_back_a_rollback_is_refused(champion: str | None) -> None:
    with pytest.raises(
        AliasConflictError, match=r"no alias 'previous_champion'.*Set to_version \(--to-version\) to the version"
    ):
        plan_rollback(aliases(champion), {}, model_name="churn", identity="night-1", to_version=None)


def test_a_rollback_to_the_champion_is_refused() -> None:
    with pytest.raises(AliasConflictError, match="version 4 is the champion already; nothing was moved"):
        plan_rollback(aliases("4", "3"), {}, model_name="churn", identity="night-1", to_version="4")


@pytest.mark.parametrize("to_version", [None, "1"])
@pytest.mark.parametrize("start", [aliases("4", "3"), aliases("4", "2")], ids=str)
def test_a_rollback_killed_after_any_request_goes_back_once_and_no_further(
    start: dict[str, str], to_version: str | None
) -> None:
    undisturbed = Registry(dict(start))
    requests = roll_back(undisturbed, "night-1", to_version)
    target = to_version or start[ALIAS_PREVIOUS_CHAMPION]
    assert undisturbed.aliases == aliases(target)
    for first, second in itertools.product(range(requests + 1), repeat=2):
        registry = Registry(dict(start))
        with pytest.raises(CrashError):
            roll_back(registry, "night-1", to_version, crash_after=first)
        try:
            roll_back(registry, "night-1", to_version, crash_after=second)
        except CrashError:
            roll_back(registry, "night-1", to_version)
        assert registry.aliases == undisturbed.aliases, (first, second)
        assert set(registry.champions) <= {"4", target}


def test_a_retried_rollback_tells_the_same_story_as_the_first_try() -> None:
    registry = Registry(aliases("4", "3"))
    roll_back(registry, "night-1")
    plan = plan_rollback(registry.aliases, registry.tags, model_name="churn", identity="night-1", to_version=None)
    assert plan == AliasPlan((), "4", "3")


def test_a_second_rollback_never_rolls_forward() -> None:
    registry = Registry(aliases("4", "3"))
    roll_back(registry, "night-1")
    with pytest.raises(AliasConflictError, match="no champion to go back to"):
        roll_back(registry, "night-2")
    assert registry.aliases == aliases("3")


def test_promotions_and_rollbacks_in_turn_keep_one_champion_and_one_way_back() -> None:
    registry = Registry(aliases("1"))
    promote(registry, "2", "1")
    promote(registry, "3", "2")
    assert registry.aliases == aliases("3", "2")
    roll_back(registry, "night-3")
    assert registry.aliases == aliases("2")
    promote(registry, "4", "2")
    assert registry.aliases == aliases("4", "2")
    assert None not in registry.champions
