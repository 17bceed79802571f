"""Alias moves: every crash, every retry, every interleaving of two movers."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_CLAIM_PREFIX, TAG_LAST_MOVE
from airflow_mcp.core.registry.promotion import (
    AliasMove,
    AliasPlan,
    Claim,
    LastMove,
    expired_claims,
    new_claim,
    next_number,
    other_claims,
    plan_promotion,
    plan_rollback,
    read_history,
    read_last_move,
    unrecorded_move,
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
        for move in plan.moves:
            if move.alias == ALIAS_CHAMPION:
                record = LastMove(action, identity, plan.champion_before, plan.champion_after, NOW.isoformat(), "test")
                yield lambda record=record: self.tags.update({TAG_LAST_MOVE: record.to_tag()})
            yield lambda move=move: self._move(move)
        if plan.moves:
            done = LastMove(action, identity, plan.champion_before, plan.champion_after, NOW.isoformat(), "test")
            yield lambda: self.tags.update({done.done_tag: done.to_tag()})

    def settle(self) -> None:
        """Record what a dead task moved, as every mover does first."""
        lost = unrecorded_move(self.aliases, self.tags)
        if lost is not None:
            self.tags[lost.done_tag] = lost.to_tag()

    def _move(self, move: AliasMove) -> None:
        if move.version is None:
            del self.aliases[move.alias]
        else:
            self.aliases[move.alias] = move.version


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


def test_the_way_back_is_kept_before_the_champion_moves() -> None:
    plan = plan_of_promotion(aliases("3", "2"), "4", "3")
    assert plan.moves == (AliasMove(ALIAS_PREVIOUS_CHAMPION, "3"), AliasMove(ALIAS_CHAMPION, "4"))
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
        assert set(registry.champions) <= {expected, "4"}
        if expected is not None:
            assert None not in registry.champions


def test_a_way_back_of_a_half_promotion_leads_to_the_champion_itself_and_is_refused() -> None:
    registry = Registry(aliases("3", "2"))
    with pytest.raises(CrashError):
        promote(registry, "4", "3", crash_after=1)
    with pytest.raises(AliasConflictError, match="version 3 is the champion already"):
        roll_back(registry, "night-1")
    assert registry.aliases[ALIAS_CHAMPION] == "3"


@pytest.mark.parametrize("crash_after", range(6))
def test_a_retried_promotion_does_not_undo_a_rollback(crash_after: int) -> None:
    registry = Registry(aliases("3", "2"))
    with contextlib.suppress(CrashError):
        promote(registry, "4", "3", crash_after=crash_after)
    if registry.aliases[ALIAS_CHAMPION] != "4":
        return
    roll_back(registry, "on-call", to_version="3")
    promote(registry, "4", "3")
    assert registry.aliases[ALIAS_CHAMPION] == "3"


@pytest.mark.parametrize("crash_after", range(6))
def test_a_retried_rollback_does_not_undo_a_later_promotion(crash_after: int) -> None:
    registry = Registry(aliases("4", "3"))
    with contextlib.suppress(CrashError):
        roll_back(registry, "on-call", crash_after=crash_after)
    if registry.aliases[ALIAS_CHAMPION] != "3":
        return
    promote(registry, "5", "3")
    roll_back(registry, "on-call")
    assert registry.aliases[ALIAS_CHAMPION] == "5"


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
    with pytest.raises(AliasConflictError, match=r"no alias 'previous_champion'.*Name a version with to_version"):
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


# --- the record of the latest move -----------------------------------------------------------------------------------


def test_the_latest_move_survives_its_tag() -> None:
    move = LastMove("rollback", "night-1", "4", "3", NOW.isoformat(), "dag.task run", 'it "broke" <b>')
    assert read_last_move({TAG_LAST_MOVE: move.to_tag()}) == move


@pytest.mark.parametrize(
    "value", ["", "null", "3", "[]", '"text"', "{", "{}", '{"action": "promote"}', '{"unknown": 1}']
)
def test_a_foreign_record_counts_as_none(value: str) -> None:
    assert read_last_move({TAG_LAST_MOVE: value}) is None
    plan = plan_rollback(aliases("4", "3"), {TAG_LAST_MOVE: value}, model_name="m", identity="i", to_version=None)
    assert plan.champion_after == "3"


def test_no_record_is_none() -> None:
    assert read_last_move({}) is None


# --- claims ----------------------------------------------------------------------------------------------------------


def interleavings(first: int, second: int) -> Iterator[tuple[int, ...]]:
    """Give every order in which two movers with so many steps each can take turns."""
    for chosen in itertools.combinations(range(first + second), first):
        yield tuple(0 if step in chosen else 1 for step in range(first + second))


class Mover:
    """Writes its claim, reads all claims, then holds or withdraws, and at the end removes its claim."""

    def __init__(self, token: str, tags: dict[str, str]) -> None:
        self.claim, self.tags = new_claim(token, token, NOW, timedelta(minutes=1)), tags
        self.seen: dict[str, str] = {}
        self.holds = False
        self.held = False

    def steps(self) -> list[Callable[[], None]]:
        return [self._write, self._read, self._decide, self._move, self._release]

    def _write(self) -> None:
        self.tags[self.claim.tag] = self.claim.to_value()

    def _read(self) -> None:
        self.seen = dict(self.tags)

    def _decide(self) -> None:
        self.holds = self.held = not other_claims(self.seen, self.claim, NOW)
        if not self.holds:
            del self.tags[self.claim.tag]

    def _move(self) -> None:
        """Move aliases; what matters is that nobody else holds meanwhile."""

    def _release(self) -> None:
        if self.holds:
            self.holds = False
            del self.tags[self.claim.tag]


def run_interleaved(order: tuple[int, ...], tags: dict[str, str]) -> tuple[list[Mover], int]:
    movers = [Mover("a", tags), Mover("b", tags)]
    steps = [iter(mover.steps()) for mover in movers]
    most_holders = 0
    for who in order:
        next(steps[who])()
        most_holders = max(most_holders, sum(mover.holds for mover in movers))
    return movers, most_holders


def test_in_no_order_of_steps_do_two_movers_hold_the_claim() -> None:
    orders = list(interleavings(5, 5))
    assert len(orders) == 252
    outcomes = set()
    for order in orders:
        tags: dict[str, str] = {}
        movers, most_holders = run_interleaved(order, tags)
        assert most_holders <= 1, order
        assert tags == {}, order
        outcomes.add(tuple(mover.held for mover in movers))
    assert outcomes == {(True, False), (False, True), (False, False), (True, True)}  # the last: one after the other


def test_reading_before_writing_would_let_two_movers_in() -> None:
    """The search above can fail: with the order of the first two steps changed, it finds two holders."""

    class Careless(Mover):
        def steps(self) -> list[Callable[[], None]]:
            return [self._read, self._write, self._decide, self._move, self._release]

    found = 0
    for order in interleavings(5, 5):
        tags: dict[str, str] = {}
        movers = [Careless("a", tags), Careless("b", tags)]
        steps = [iter(mover.steps()) for mover in movers]
        for who in order:
            next(steps[who])()
            found = max(found, sum(mover.holds for mover in movers))
    assert found == 2


def test_an_expired_claim_of_a_killed_mover_blocks_nobody() -> None:
    dead = new_claim("dead", "killed task", NOW - timedelta(minutes=2), timedelta(minutes=1))
    for order in interleavings(5, 5):
        tags = {dead.tag: dead.to_value()}
        movers, most_holders = run_interleaved(order, tags)
        assert most_holders <= 1
        assert tags == {dead.tag: dead.to_value()}
        if order == (0,) * 5 + (1,) * 5:
            assert all(mover.held for mover in movers)


@pytest.mark.parametrize(
    ("after", "valid"),
    [
        (timedelta(seconds=59), True),
        (timedelta(minutes=1) - timedelta(microseconds=1), True),
        (timedelta(minutes=1), False),
    ],
)
def test_a_claim_ends_exactly_at_its_end(after: timedelta, valid: bool) -> None:
    other, own = (new_claim(token, f"task {token}", NOW, timedelta(minutes=1)) for token in ("other", "own"))
    tags = {claim.tag: claim.to_value() for claim in (other, own)}
    assert other_claims(tags, own, NOW + after) == ((other,) if valid else ())
    assert expired_claims(tags, NOW + after) == (() if valid else (other, own))


@pytest.mark.parametrize(
    "value",
    [
        *("", "null", "3", "[]", '"text"', "{", "{}", '{"expires_at": null}', '{"expires_at": 5}'),
        *('{"expires_at": "soon"}', '{"expires_at": "2020-01-01T00:00:00"}', '{"holder": "x"}'),
    ],
)
def test_an_unreadable_claim_is_honoured_and_never_removed(value: str) -> None:
    own = new_claim("own", "me", NOW, timedelta(minutes=1))
    tags = {TAG_CLAIM_PREFIX + "x": value, own.tag: own.to_value()}
    (found,) = other_claims(tags, own, NOW)
    assert found.holder == "unreadable tag 'airflow_mcp.claim.x'"
    assert expired_claims(tags, NOW + timedelta(days=36500)) == (own,)


def test_a_claim_without_a_holder_is_still_a_claim() -> None:
    own = new_claim("own", "me", NOW, timedelta(minutes=1))
    later = (NOW + timedelta(seconds=1)).isoformat()
    tags = {TAG_CLAIM_PREFIX + "x": json.dumps({"expires_at": later})}
    assert other_claims(tags, own, NOW) == (Claim("x", NOW + timedelta(seconds=1), "unknown"),)


def test_claims_in_other_time_zones_are_compared_by_instant() -> None:
    own = new_claim("own", "me", NOW, timedelta(minutes=1))
    tags = {TAG_CLAIM_PREFIX + "x": json.dumps({"expires_at": "2026-11-21T03:00:30+01:00", "holder": "x"})}
    assert len(other_claims(tags, own, NOW)) == 1
    assert other_claims(tags, own, NOW + timedelta(seconds=30)) == ()


def test_other_tags_are_no_claims() -> None:
    own = new_claim("own", "me", NOW, timedelta(minutes=1))
    tags = {"owner": "x", TAG_LAST_MOVE: "{}", "claim.x": "{}"}
    assert other_claims(tags, own, NOW) == ()
    assert expired_claims(tags, NOW) == ()


def test_claims_on_different_subjects_do_not_meet() -> None:
    aliases, model, other = (
        new_claim(token, f"task {token}", NOW, timedelta(minutes=1), subject)
        for token, subject in (("a", ""), ("b", "models:/m-1"), ("c", "models:/m-2"))
    )
    tags = {claim.tag: claim.to_value() for claim in (aliases, model, other)}
    assert [other_claims(tags, own, NOW) for own in (aliases, model, other)] == [(), (), ()]
    rival = new_claim("d", "task d", NOW, timedelta(minutes=1), "models:/m-1")
    assert other_claims({**tags, rival.tag: rival.to_value()}, model, NOW) == (rival,)
    assert set(expired_claims(tags, NOW + timedelta(minutes=1))) == {aliases, model, other}


@pytest.mark.parametrize("subject", ["", "models:/m-1"])
def test_a_claim_that_nobody_can_read_may_be_on_anything(subject: str) -> None:
    own = new_claim("own", "me", NOW, timedelta(minutes=1), subject)
    assert len(other_claims({f"{TAG_CLAIM_PREFIX}x": "?"}, own, NOW)) == 1


def test_the_next_number_is_above_every_move_that_was_done_or_begun() -> None:
    def tag(number: int) -> str:
        return LastMove("promote", f"m{number}", None, "1", NOW.isoformat(), "me", number=number).to_tag()

    assert next_number({}) == 1
    assert next_number({"airflow_mcp.move.m1": tag(1), "airflow_mcp.move.m4": tag(4)}) == 5
    assert next_number({"airflow_mcp.move.m1": tag(1), TAG_LAST_MOVE: tag(2)}) == 3
