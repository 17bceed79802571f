"""Which versions a server fetches, starts, answers with and retires: single decisions, and random orders of events."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from airflow_mcp.core.serving.versions import (
    Action,
    Budget,
    Fetch,
    Held,
    Refuse,
    Retire,
    Serve,
    ServedVersion,
    Start,
    VersionState,
    Wanted,
    WantedAs,
    plan_versions,
    retry_at,
)

MEBIBYTE = 1024 * 1024


def key(version: int | str, model: str = "fraud") -> ServedVersion:
    return ServedVersion(model, str(version))


def champion(version: int, mark: str = "") -> Wanted:
    return Wanted(key(version), "champion", mark)


def ready(version: int, *, answers: bool = False, last_wanted: float = 0.0) -> Held:
    return Held(key(version), VersionState.READY, answers_as_champion=answers, last_wanted=last_wanted)


def checked(version: int, memory: int = 0) -> Held:
    return Held(key(version), VersionState.CHECKING, is_checked=True, memory_bytes=memory)


class TestAFirstVersion:
    def test_is_fetched_when_nothing_is_held(self) -> None:
        assert plan_versions([champion(8)], [], Budget(), 0) == [Fetch(key(8))]

    @pytest.mark.parametrize("state", [VersionState.FETCHING, VersionState.CHECKING, VersionState.STARTING])
    def test_is_left_alone_on_its_way(self, state: VersionState) -> None:
        assert plan_versions([champion(8)], [Held(key(8), state)], Budget(), 0) == []

    def test_is_started_once_its_checks_have_passed(self) -> None:
        assert plan_versions([champion(8)], [checked(8)], Budget(), 0) == [Start(key(8))]

    def test_answers_once_it_is_ready(self) -> None:
        assert plan_versions([champion(8)], [ready(8)], Budget(), 0) == [Serve(key(8))]
        assert plan_versions([champion(8)], [ready(8, answers=True)], Budget(), 0) == []


class TestASwap:
    def test_leaves_the_old_version_alone_until_the_new_one_is_ready(self) -> None:
        old = ready(7, answers=True)
        for state in (VersionState.FETCHING, VersionState.CHECKING, VersionState.STARTING):
            assert plan_versions([champion(8)], [old, Held(key(8), state)], Budget(keep_warm=0), 0) == []

    def test_serves_the_new_one_before_the_old_one_ends(self) -> None:
        held = [ready(7, answers=True), ready(8)]
        assert plan_versions([champion(8)], held, Budget(keep_warm=0), 0)[0] == Serve(key(8))
        ends = plan_versions([champion(8)], held, Budget(keep_warm=0), 0)[1]
        assert isinstance(ends, Retire)
        assert ends.key == key(7)

    def test_keeps_the_old_one_warm(self) -> None:
        assert plan_versions([champion(8)], [ready(7, answers=True), ready(8)], Budget(), 0) == [Serve(key(8))]

    def test_goes_back_to_a_warm_version_at_once(self) -> None:
        assert plan_versions([champion(7)], [ready(7), ready(8, answers=True)], Budget(), 0) == [Serve(key(7))]

    def test_keeps_the_version_that_was_wanted_last(self) -> None:
        held = [ready(5, last_wanted=10), ready(6, last_wanted=30), ready(7, last_wanted=20), ready(8, answers=True)]
        ends = [action.key for action in plan_versions([champion(8)], held, Budget(keep_warm=1), 40)]
        assert ends == [key(7), key(5)]

    def test_ends_a_start_that_is_no_longer_wanted(self) -> None:
        held = [ready(7, answers=True), Held(key(8), VersionState.STARTING)]
        actions = plan_versions([champion(9)], held, Budget(), 0)
        assert [type(action) for action in actions] == [Retire, Fetch]
        assert actions[0].key == key(8)
        assert actions[1].key == key(9)

    def test_waits_until_a_version_that_ends_has_gone(self) -> None:
        held = [ready(7, answers=True), Held(key(8), VersionState.RETIRING)]
        assert plan_versions([champion(8)], held, Budget(), 0) == []
        gone = [ready(7, answers=True), Held(key(8), VersionState.GONE)]
        assert plan_versions([champion(8)], gone, Budget(), 0) == [Fetch(key(8))]


class TestAFailedVersion:
    failed = Held(key(8), VersionState.FAILED, "files", failures=1, next_try=5.0, mark="a")

    def test_is_tried_again_at_its_time(self) -> None:
        held = [ready(7, answers=True), self.failed]
        assert plan_versions([champion(8, "a")], held, Budget(), 4.9) == []
        assert plan_versions([champion(8, "a")], held, Budget(), 5.0) == [Fetch(key(8))]

    def test_is_tried_again_at_once_when_the_registry_says_something_new(self) -> None:
        assert plan_versions([champion(8, "b")], [self.failed], Budget(), 0) == [Fetch(key(8))]

    def test_is_forgotten_when_nobody_wants_it(self) -> None:
        held = [ready(7, answers=True), self.failed]
        assert [type(action) for action in plan_versions([champion(7)], held, Budget(), 0)] == [Retire]

    def test_waits_longer_every_time_up_to_five_minutes(self) -> None:
        waits = [retry_at(failures, 100.0) - 100.0 for failures in (1, 2, 3, 6, 7, 8, 10_000)]
        assert waits == [5, 10, 20, 160, 300, 300, 300]

    def test_that_answered_is_replaced_by_the_standby(self) -> None:
        died = Held(key(8), VersionState.FAILED, "three deaths", answers_as_champion=True, next_try=5)
        wanted = [champion(8), Wanted(key(7), "standby")]
        assert plan_versions(wanted, [died, ready(7)], Budget(), 0) == [Serve(key(7))]

    def test_that_answered_is_replaced_by_nothing_that_no_policy_names(self) -> None:
        died = Held(key(8), VersionState.FAILED, "three deaths", answers_as_champion=True, next_try=5)
        assert plan_versions([champion(8)], [died, ready(7)], Budget(), 0) == []

    def test_takes_over_again_from_the_standby(self) -> None:
        wanted = [champion(8), Wanted(key(7), "standby")]
        assert plan_versions(wanted, [ready(8), ready(7, answers=True)], Budget(), 0) == [Serve(key(8))]

    def test_is_restarted_when_it_answered_and_its_replacement_is_not_ready(self) -> None:
        died = Held(key(7), VersionState.FAILED, answers_as_champion=True, next_try=5)
        held = [died, Held(key(8), VersionState.STARTING)]
        assert plan_versions([champion(8)], held, Budget(), 5) == [Fetch(key(7))]


class TestNothingWanted:
    def test_keeps_what_answers(self) -> None:
        assert plan_versions([], [ready(7, answers=True)], Budget(keep_warm=0), 0) == []

    def test_keeps_what_answers_when_only_a_canary_is_wanted(self) -> None:
        wanted = [Wanted(key(9), "canary")]
        assert plan_versions(wanted, [ready(7, answers=True), ready(9)], Budget(keep_warm=0), 0) == []


class TestMemory:
    def test_refuses_what_does_not_fit(self) -> None:
        held = [ready(7, answers=True), checked(8, 300 * MEBIBYTE)]
        (action,) = plan_versions([champion(8)], held, Budget(memory_bytes=200 * MEBIBYTE), 0)
        assert isinstance(action, Refuse)
        assert "300 MiB" in action.reason
        assert "200 MiB are free" in action.reason

    def test_gives_up_a_warm_version_first(self) -> None:
        held = [ready(6, last_wanted=1), ready(7, answers=True), checked(8, 300 * MEBIBYTE)]
        (action,) = plan_versions([champion(8)], held, Budget(memory_bytes=200 * MEBIBYTE), 0)
        assert isinstance(action, Retire)
        assert action.key == key(6)

    def test_waits_for_memory_that_is_about_to_become_free(self) -> None:
        held = [Held(key(6), VersionState.RETIRING), ready(7, answers=True), checked(8, 300 * MEBIBYTE)]
        assert plan_versions([champion(8)], held, Budget(memory_bytes=200 * MEBIBYTE), 0) == []

    def test_that_is_unknown_refuses_nothing(self) -> None:
        assert plan_versions([champion(8)], [checked(8, 10**15)], Budget(), 0) == [Start(key(8))]

    def test_is_shared_by_the_versions_that_start_together(self) -> None:
        held = [checked(8, 150 * MEBIBYTE), checked(9, 150 * MEBIBYTE)]
        wanted = [Wanted(key(9), "canary"), champion(8)]
        budget = Budget(memory_bytes=200 * MEBIBYTE, starts_at_once=2)
        first, second = plan_versions(wanted, held, budget, 0)
        assert first == Start(key(8))
        assert isinstance(second, Refuse)
        assert second.key == key(9)


class TestSeveralStarts:
    def test_let_a_canary_wait_for_its_turn(self) -> None:
        held = [Held(key(7), VersionState.STARTING), checked(8)]
        assert plan_versions([champion(7), Wanted(key(8), "canary")], held, Budget(), 0) == []

    def test_do_not_let_a_champion_wait(self) -> None:
        held = [Held(key(8), VersionState.STARTING), checked(9)]
        assert plan_versions([champion(9), Wanted(key(8), "canary")], held, Budget(), 0) == [Start(key(9))]

    def test_begin_with_the_champion_and_go_on_with_the_standby(self) -> None:
        wanted = [Wanted(key(3), "canary"), Wanted(key(2), "standby"), champion(1)]
        assert plan_versions(wanted, [], Budget(), 0) == [Fetch(key(1)), Fetch(key(2)), Fetch(key(3))]

    def test_of_two_models_do_not_mix(self) -> None:
        wanted = [champion(1), Wanted(key(5, "churn"), "champion")]
        held = [ready(1, answers=True), Held(key(4, "churn"), VersionState.READY, answers_as_champion=True)]
        assert plan_versions(wanted, held, Budget(keep_warm=0), 0) == [Fetch(key(5, "churn"))]


@dataclass
class Server:
    """A server that carries out actions, in which anything may succeed, fail or die at any time."""

    draw: random.Random
    budget: Budget
    now: float = 0.0
    held: dict[ServedVersion, Held] = field(default_factory=dict)
    wanted: list[Wanted] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def servable(self, model: str) -> set[ServedVersion]:
        """Return the versions that answer requests of a model now."""
        return {
            item.key
            for item in self.held.values()
            if item.key.model == model and item.answers_as_champion and item.state is VersionState.READY
        }

    def carry_out(self, action: Action) -> None:
        self.log.append(f"{self.now}: {action}")
        item = self.held.get(action.key)
        if isinstance(action, Fetch):
            assert item is None or item.state in (VersionState.FAILED, VersionState.GONE)
            was = item or Held(action.key, VersionState.FETCHING)
            self.held[action.key] = replace(was, state=VersionState.FETCHING, is_checked=False)
        elif isinstance(action, Start):
            assert item is not None
            assert item.is_waiting
            self.held[action.key] = replace(item, state=VersionState.STARTING)
        elif isinstance(action, Serve):
            assert item is not None
            assert item.state is VersionState.READY
            for other in list(self.held.values()):
                if other.key.model == action.key.model:
                    self.held[other.key] = replace(other, answers_as_champion=other.key == action.key)
        elif isinstance(action, Retire):
            assert item is not None
            assert item.state not in (VersionState.RETIRING, VersionState.GONE)
            state = VersionState.RETIRING if item.state is VersionState.READY else VersionState.GONE
            self.held[action.key] = replace(item, state=state)
        else:
            self._fail(action.key)

    def _fail(self, which: ServedVersion) -> None:
        item = self.held[which]
        failures = item.failures + 1
        self.held[which] = replace(
            item, state=VersionState.FAILED, failures=failures, next_try=retry_at(failures, self.now), is_checked=False
        )

    def something_happens(self) -> None:
        """Let the registry move, a step end well or badly, or a process die."""
        self.now += self.draw.choice((0.1, 1, 30))
        if self.draw.random() < 0.3:
            self._registry_moves()
        for item in list(self.held.values()):
            if self.draw.random() < 0.5:
                self._progress(item)

    def _registry_moves(self) -> None:
        self.wanted = []
        for model in ("fraud", "churn"):
            numbers = self.draw.sample(range(1, 6), 3)
            roles: tuple[WantedAs, ...] = ("champion", "standby", "canary")
            count = self.draw.choice((0, 1, 1, 2, 3))
            self.wanted += [
                Wanted(key(number, model), role) for number, role in zip(numbers[:count], roles[:count], strict=True)
            ]

    def all_goes_well(self) -> None:
        """Let time pass in which every step succeeds."""
        self.now += 30
        follow = {
            VersionState.FETCHING: VersionState.CHECKING,
            VersionState.STARTING: VersionState.READY,
            VersionState.RETIRING: VersionState.GONE,
        }
        for item in list(self.held.values()):
            checked = item.state is VersionState.CHECKING
            self.held[item.key] = replace(item, state=follow.get(item.state, item.state), is_checked=checked)

    def _progress(self, item: Held) -> None:
        follow = {VersionState.FETCHING: VersionState.CHECKING, VersionState.STARTING: VersionState.READY}
        if item.state is VersionState.RETIRING:
            self.held[item.key] = replace(item, state=VersionState.GONE)
        elif item.state in follow and self.draw.random() < 0.3:
            self._fail(item.key)
        elif item.state in follow:
            memory = self.draw.choice((0, 50, 400)) * MEBIBYTE
            self.held[item.key] = replace(item, state=follow[item.state], memory_bytes=memory, failures=0)
        elif item.state is VersionState.CHECKING:
            self.held[item.key] = replace(item, is_checked=True)
        elif item.state is VersionState.READY and self.draw.random() < 0.02:
            self.log.append(f"{self.now}: {item.key} dies")
            self._fail(item.key)


@pytest.mark.parametrize("seed", range(60))
def test_no_order_of_events_leaves_a_model_without_a_version_that_answers(seed: int) -> None:
    draw = random.Random(seed)
    server = Server(draw, Budget(draw.choice((None, 100 * MEBIBYTE)), draw.choice((0, 1, 2)), draw.choice((1, 2))))
    for _ in range(150):
        server.something_happens()
        before = {model: server.servable(model) for model in ("fraud", "churn")}
        actions = plan_versions(server.wanted, list(server.held.values()), server.budget, server.now)
        for action in actions:
            server.carry_out(action)
            for model, able in before.items():
                assert len(server.servable(model)) >= bool(able), "\n".join(server.log[-20:])
        warm = [item for item in server.held.values() if item.state is VersionState.READY]
        wanted = {wish.key for wish in server.wanted}
        for model in before:
            spare = [item for item in warm if item.key.model == model and item.key not in wanted]
            assert len([item for item in spare if not item.answers_as_champion]) <= server.budget.keep_warm


@pytest.mark.parametrize("seed", range(30))
def test_when_the_events_end_the_wanted_champion_answers(seed: int) -> None:
    server = Server(random.Random(seed), Budget())
    for _ in range(60):
        server.something_happens()
        for action in plan_versions(server.wanted, list(server.held.values()), server.budget, server.now):
            server.carry_out(action)
    for _ in range(200):  # nothing fails any more
        server.all_goes_well()
        for action in plan_versions(server.wanted, list(server.held.values()), server.budget, server.now):
            server.carry_out(action)
    for wish in server.wanted:
        assert server.held[wish.key].state is VersionState.READY
        if wish.role == "champion":
            assert server.servable(wish.key.model) == {wish.key}
