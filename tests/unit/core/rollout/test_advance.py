"""Every row of the fault table, by a simulated clock over the pure function that decides what happens next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.document import dump_document
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.rollout.advance import (
    LEASED,
    SOON,
    Abort,
    Action,
    Finish,
    Promote,
    RollBack,
    Wait,
    Write,
    failed_document,
    first_document,
    next_action,
    paused_document,
    resumed_document,
)
from airflow_mcp.core.rollout.plan import read_plan
from airflow_mcp.core.rollout.samples import Counts, Pair, ReplicaSample
from airflow_mcp.core.rollout.state import (
    MAX_POINTS,
    TAG_ROLLOUT_RECORD,
    Journal,
    RolloutRecord,
    RolloutState,
    observe,
    observe_error,
)
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, TAG_ROLLOUT_LEASE, RolloutDocument, read_split

BEGIN = datetime(2026, 11, 30, tzinfo=UTC)
STEPS = [{"setWeight": 10}, {"analysis": "10m"}, {"setWeight": 50}, {"pause": "1h"}, {"analysis": "10m"}]
LOOK = timedelta(seconds=30)


@dataclass
class Replica:
    """A model server: it follows the split, and answers a number of requests per look."""

    name: str
    started: float = 0.0
    requests: int = 400
    canary_errors: float = 0.0
    follows: bool = True
    is_ready: bool = True
    is_tripped: bool = False
    share: float | None = None
    """Share of the canary, if it is not the weight that was ordered."""
    generation: int = 0
    canary: float = 0.0
    failed: float = 0.0
    champion: float = 0.0
    copies: float = 0.0
    failed_copies: float = 0.0

    def __post_init__(self) -> None:
        self.started = self.started or 1_000.0 + sum(map(ord, self.name)) / 1_000

    def restart(self) -> None:
        self.started += 500
        self.canary = self.failed = self.champion = 0.0

    def sample(self, document: RolloutDocument | None) -> ReplicaSample:
        if document is not None and self.follows:
            self.generation = document.generation
        weight = document.weight / 100 if document is not None else 1.0
        asked = self.requests * (self.share if self.share is not None else weight)
        self.canary += asked
        self.failed += asked * self.canary_errors
        self.champion += self.requests - asked
        copied = self.requests * (document.shadow / 100 if document is not None else 0)
        self.copies += copied
        self.failed_copies += copied * self.canary_errors
        pair = Pair(
            shadow=Counts(answered=self.copies, failed=self.failed_copies),
            canary=Counts(answered=self.canary, failed=self.failed, timed=self.canary, within={}),
            champion=Counts(answered=self.champion, timed=self.champion),
        )
        ready = frozenset({"7", "8"} if self.is_ready else {"7"})
        tripped = frozenset({"8"} if self.is_tripped else ())
        return ReplicaSample(self.name, self.started, self.generation, pair, ready, tripped, {})


@dataclass
class Simulation:
    """A registry, replicas and a clock; whoever decides starts afresh at every look, from what is stored."""

    plan: Mapping[str, Any] = field(default_factory=dict)
    replicas: list[Replica] = field(default_factory=lambda: [Replica("a"), Replica("b")])
    now: datetime = BEGIN
    champion: str = "7"
    record: RolloutRecord | None = None
    source_is_silent: bool = False
    lease: datetime | None = None
    """Until when the split counts; None: a look renews it for 5 minutes, as the trigger does."""
    results: dict[str, float | None] = field(default_factory=dict)
    """What the queries of the plan give."""
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        plan = read_plan({"steps": STEPS, "rules": ["http_5xx_rate <= 0.05"], **self.plan})
        journal = Journal(identity="r1", plan=plan, model_name="fraud", stable="7", canary="8", started=BEGIN)
        self.document: RolloutDocument | None = first_document(journal, run_id="run", by="dag.task", now=BEGIN)
        self.stored = dump_document(journal)

    @property
    def journal(self) -> Journal:
        """What a triggerer that starts afresh reads."""
        return Journal.model_validate_json(self.stored, strict=True)

    @property
    def state(self) -> RolloutState:
        tags = {} if self.record is None else {TAG_ROLLOUT_RECORD + "r1": dump_document(self.record)}
        if self.document is not None and self.champion == "7":
            tags[TAG_ROLLOUT] = dump_document(self.document)
            tags[TAG_ROLLOUT_LEASE] = (self.lease or self.now + timedelta(minutes=5)).isoformat()
        return RolloutState.of(version(self.champion, tags))

    def look(self) -> Action:
        document = self.document if self.champion == "7" else None
        if self.source_is_silent:
            journal = observe_error(self.journal, "10.0.0.1 does not answer")
        else:
            samples = [replica.sample(document) for replica in self.replicas]
            journal = observe(self.journal, document, samples, self.now, self.results)
        self.stored = dump_document(journal)
        return next_action(journal, self.state, self.now)

    def write(self, document: RolloutDocument) -> None:
        assert self.document is not None
        self.document = document.model_copy(update={"generation": self.document.generation + 1})

    def run(self, until: Callable[[Action], bool] | None = None, *, longest: timedelta = timedelta(days=1)) -> Action:
        """Go on until something other than a write is due, or until told."""
        deadline = self.now + longest
        while self.now < deadline:
            action = self.look()
            if not isinstance(action, Wait):
                self.actions.append(action)
            if not isinstance(action, Wait | Write):
                return action
            if isinstance(action, Write):
                self.write(action.document)
                if action.document.phase == "WAITING":
                    return action
            if until is not None and until(action):
                return action
            self.now += LOOK
        return Wait("the simulation is over")

    def run_to_weight(self, weight: float) -> None:
        self.run(lambda _: self.document is not None and self.document.weight == weight)
        assert self.document is not None
        assert self.document.weight == weight

    @property
    def weights(self) -> list[float]:
        return [action.document.weight for action in self.actions if isinstance(action, Write)]


def version(number: str, tags: Mapping[str, str]) -> ModelVersion:
    return ModelVersion(
        name="fraud",
        version=number,
        source="",
        run_id="",
        status="READY",
        tags=dict(tags),
        aliases=(),
    )


class TestASoundCanary:
    def test_takes_every_step_and_is_promoted(self) -> None:
        world = Simulation()
        action = world.run()
        assert isinstance(action, Promote)
        assert world.weights == [10, 50, 50, 50]
        taken = world.now - BEGIN
        assert timedelta(minutes=80) <= taken <= timedelta(minutes=85)

    def test_with_little_traffic_is_given_more_time(self) -> None:
        world = Simulation(replicas=[Replica("a", requests=20)])
        assert isinstance(world.run(), Promote)
        assert world.now - BEGIN > timedelta(minutes=80)

    def test_flips_at_once_in_blue_green(self) -> None:
        world = Simulation(plan={"steps": [{"setWeight": 100}, {"analysis": "10m"}]})
        assert isinstance(world.run(), Promote)
        assert world.weights == [100, 100]


class TestABrokenCanary:
    def test_is_aborted_within_a_few_looks(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        for replica in world.replicas:
            replica.canary_errors = 0.3
        since = world.now
        action = world.run()
        assert isinstance(action, Abort)
        assert action.cause == "analysis"
        assert "http_5xx_rate <= 0.05" in action.reason
        assert world.now - since <= 5 * LOOK

    def test_is_aborted_in_a_pause_and_while_a_person_is_waited_for(self) -> None:
        for steps in (STEPS, [*STEPS[:3], {"pause": {}}, {"analysis": "10m"}]):
            world = Simulation(plan={"steps": steps})
            world.run_to_weight(50)
            for replica in world.replicas:
                replica.canary_errors = 0.3
            action = world.run()
            assert isinstance(action, Abort)
            assert action.cause == "analysis"

    def test_is_aborted_soon_after_it_begins_to_fail_in_a_long_step(self) -> None:
        world = Simulation(plan={"steps": [{"setWeight": 10}, {"pause": "1d"}, {"analysis": "1m"}]})
        world.run_to_weight(10)
        world.run(longest=timedelta(hours=10))
        before = sum(replica.canary for replica in world.replicas)
        assert before > 80_000
        for replica in world.replicas:
            replica.canary_errors = 0.4
        action = world.run()
        assert isinstance(action, Abort)
        assert "in the last minutes" in action.reason
        assert sum(replica.failed for replica in world.replicas) < 0.005 * before, "the sum is far within the limit"

    def test_one_request_that_fails_first_ends_nothing(self) -> None:
        world = Simulation(plan={"rules": ["http_5xx_rate <= 0.01"]})
        world.run_to_weight(10)
        world.replicas = world.replicas[:1]
        world.replicas[0].requests, world.replicas[0].canary_errors = 10, 1.0
        assert isinstance(world.look(), Wait)
        assert isinstance(world.look(), Wait), "1 of 1"
        assert isinstance(world.look(), Abort), "2 of 2"

    def test_is_aborted_although_its_promotion_is_due(self) -> None:
        """A person resumed the last pause while Airflow was down, and the next look is the first one since."""
        world = Simulation(plan={"steps": [*STEPS[:2], {"pause": {}}]})
        world.run()
        world.now += timedelta(hours=1)
        for replica in world.replicas:
            replica.canary_errors = 0.5
            replica.sample(world.document)
        assert world.document is not None
        world.write(resumed_document(world.journal.plan, world.document, reason="fine", by="ada", now=world.now))
        assert world.document.phase == "PROMOTING"
        assert isinstance(next_action(world.journal, world.state, world.now), Wait), "nobody has looked for an hour"
        action = world.look()
        assert isinstance(action, Abort)
        assert action.cause == "analysis"

    @pytest.mark.parametrize(("on_inconclusive", "kind"), [("pause", Write), ("abort", Abort)])
    def test_is_not_promoted_unseen(self, on_inconclusive: str, kind: type) -> None:
        plan = {"steps": [*STEPS[:2], {"pause": {}}], "on_inconclusive": on_inconclusive}
        world = Simulation(plan=plan)
        world.run()
        world.now += timedelta(hours=1)
        assert world.document is not None
        world.write(resumed_document(world.journal.plan, world.document, reason="fine", by="ada", now=world.now))
        world.source_is_silent = True
        action = world.run()
        assert isinstance(action, kind)
        assert "4 looks in a row failed" in repr(action)
        if isinstance(action, Write):
            world.source_is_silent = False
            assert isinstance(world.run(longest=timedelta(hours=1)), Wait)
            assert world.document is not None
            world.write(resumed_document(world.journal.plan, world.document, reason="ok", by="ada", now=world.now))
            assert isinstance(world.run(), Promote)

    def test_whose_breaker_opens_on_one_replica_is_aborted_at_the_next_look(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.replicas[1].is_tripped = True
        action = world.look()
        assert action == Abort("breaker", "the breaker of the canary is open on b")


class TestNothingIsConcluded:
    """Missing data is never a pass."""

    def test_without_traffic_it_pauses_after_three_times_as_long(self) -> None:
        world = Simulation(replicas=[Replica("a", requests=0)])
        action = world.run()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert "the canary has answered nothing" in action.document.reason
        assert timedelta(minutes=30) <= world.now - BEGIN <= timedelta(minutes=32)

    def test_or_aborts_if_the_plan_says_so(self) -> None:
        world = Simulation(plan={"on_inconclusive": "abort"}, replicas=[Replica("a", requests=0)])
        action = world.run()
        assert isinstance(action, Abort)
        assert action.cause == "inconclusive"

    @pytest.mark.parametrize(("on_inconclusive", "kind"), [("pause", Write), ("abort", Abort)])
    def test_a_silent_source_ends_after_four_looks(self, on_inconclusive: str, kind: type) -> None:
        world = Simulation(plan={"on_inconclusive": on_inconclusive})
        world.run_to_weight(10)
        world.source_is_silent = True
        since = world.now
        action = world.run()
        assert isinstance(action, kind)
        assert "4 looks in a row failed: 10.0.0.1 does not answer" in repr(action)
        assert world.now - since == 3 * LOOK

    def test_a_canary_that_nobody_can_measure_does_not_wait_for_a_person_if_the_plan_says_so(self) -> None:
        for on_inconclusive, kind in (("abort", Abort), ("pause", Wait)):
            plan = {"steps": [*STEPS[:2], {"setWeight": 50}, {"pause": {}}], "on_inconclusive": on_inconclusive}
            world = Simulation(plan=plan)
            world.run()
            world.source_is_silent = True
            action = world.run(longest=timedelta(hours=1))
            assert isinstance(action, kind)
            assert isinstance(action := world.look(), kind)
            assert "looks in a row failed: 10.0.0.1 does not answer" in repr(action)
            world.source_is_silent = False
            world.replicas[0].follows = False
            world.write(world.document)  # type: ignore[arg-type]
            world.now += timedelta(hours=1)
            assert isinstance(action := world.look(), kind)
            assert "replicas a do not follow" in repr(action)

    def test_a_short_silence_does_no_harm(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.source_is_silent = True
        for _ in range(3):
            assert isinstance(world.look(), Wait)
            world.now += LOOK
        world.source_is_silent = False
        assert isinstance(world.run(), Promote)

    def test_a_silent_source_passes_nothing_when_time_is_up(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.run(longest=timedelta(minutes=9))
        world.now += timedelta(minutes=5)
        world.source_is_silent = True
        assert isinstance(world.look(), Wait)

    def test_a_share_that_was_not_ordered_is_an_error(self) -> None:
        world = Simulation()
        world.replicas[0].share = 0.9
        action = world.run()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert "cannot be a weight of 10 %" in action.document.reason


class TestNobodyLooksAfterIt:
    """``on_lost: stable``: with the lease run out, servers treat the weight as 0."""

    def lost(self, on_lost: str = "stable") -> Simulation:
        world = Simulation(plan={"on_lost": on_lost})
        world.run_to_weight(10)
        world.lease = world.now - timedelta(seconds=1)
        return world

    @pytest.mark.parametrize(("on_lost", "weight"), [("stable", 0), ("hold", 10)])
    def test_servers_answer_with_the_champion_or_hold_the_split(self, on_lost: str, weight: float) -> None:
        world = self.lost(on_lost)
        assert world.state.champion is not None
        split = read_split(world.state.champion.tags, "7", world.now)
        assert split.document is not None
        assert split.document.weight == weight

    def test_the_step_begins_anew_when_somebody_looks_again(self) -> None:
        world = self.lost()
        world.now += timedelta(minutes=20)
        action = world.look()
        assert isinstance(action, Write)
        assert (action.document.weight, action.document.step_since) == (10, world.now)
        assert "only the champion answered" in action.document.reason
        world.write(action.document)
        world.lease, since = None, world.now
        world.run_to_weight(50)
        assert world.now - since >= timedelta(minutes=10)

    def test_a_rollout_that_waits_for_a_person_still_waits(self) -> None:
        world = self.lost()
        assert world.document is not None
        world.write(paused_document(world.document, "on call asked", "ada", world.now))
        action = world.look()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"

    def test_a_canary_that_is_certainly_broken_is_aborted_all_the_same(self) -> None:
        world = Simulation(plan={"on_lost": "stable"})
        world.run_to_weight(10)
        for replica in world.replicas:
            replica.canary_errors = 0.5
        world.lease = world.now
        world.now += 10 * LOOK
        world.look()
        world.now += LOOK
        assert isinstance(world.look(), Abort)

    def test_a_rollout_that_holds_needs_no_lease(self) -> None:
        assert isinstance(self.lost("hold").run(), Promote)

    @pytest.mark.parametrize(("on_lost", "within"), [("stable", LEASED), ("hold", math.inf)])
    def test_a_lease_is_renewed_also_between_looks_that_are_far_apart(self, on_lost: str, within: float) -> None:
        world = Simulation(plan={"on_lost": on_lost})
        world.run_to_weight(10)
        world.look()
        world.now += LOOK
        action = world.look()
        assert isinstance(action, Wait)
        assert action.within == within


class TestAShadow:
    PLAN: Mapping[str, Any] = {
        "steps": [{"shadow": {"percent": 50, "for": "5m"}}, {"setWeight": 100}, {"analysis": "10m"}]
    }

    def test_copies_come_first_and_nobody_gets_an_answer_of_them(self) -> None:
        world = Simulation(plan=self.PLAN)
        world.run(lambda action: isinstance(action, Write))
        assert world.document is not None
        assert (world.document.weight, world.document.shadow) == (0, 50)
        assert isinstance(world.run(), Promote)
        assert world.weights == [0, 100, 100]
        assert world.document.shadow == 0

    def test_errors_in_copies_end_the_rollout_before_any_request_was_answered(self) -> None:
        world = Simulation(plan=self.PLAN, replicas=[Replica("a", canary_errors=0.3)])
        action = world.run()
        assert isinstance(action, Abort)
        assert action.cause == "analysis"
        assert world.weights == [0]
        assert sum(replica.canary for replica in world.replicas) == 0

    def test_without_copies_nothing_is_concluded(self) -> None:
        world = Simulation(plan=self.PLAN, replicas=[Replica("a", requests=0)])
        action = world.run()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert action.document.weight == 0

    def test_latency_is_judged_only_from_the_first_weight_on(self) -> None:
        rules = ["http_5xx_rate <= 0.05", "latency_p99_ms <= 200"]
        world = Simulation(plan={**self.PLAN, "rules": rules})
        world.run(lambda action: isinstance(action, Write) and action.document.weight == 100)
        assert isinstance(world.run(), Write)  # nothing is timed here, so a person decides
        assert world.document is not None
        assert world.document.phase == "WAITING"


class TestQueries:
    PLAN: Mapping[str, Any] = {
        "rules": ["http_5xx_rate <= 0.05", "declined <= 0.3"],
        "queries": {"declined": "sum(declined) / sum(all)"},
    }

    def test_a_result_within_its_limit_passes(self) -> None:
        assert isinstance(Simulation(plan=self.PLAN, results={"declined": 0.3}).run(), Promote)

    def test_three_looks_in_a_row_beyond_it_abort(self) -> None:
        world = Simulation(plan=self.PLAN, results={"declined": 0.2})
        world.run_to_weight(10)
        for result in (0.4, 0.4, 0.2, 0.4, 0.4):
            world.now += LOOK
            world.results = {"declined": result}
            assert isinstance(world.look(), Wait)
        world.now += LOOK
        action = world.look()
        assert isinstance(action, Abort)
        assert "declined <= 0.3: the query gives 0.4; broken at 3 looks in a row" in action.reason

    @pytest.mark.parametrize("results", [{"declined": None}, {}])
    def test_no_result_is_never_a_pass(self, results: dict[str, float | None]) -> None:
        world = Simulation(plan=self.PLAN, results=results)
        action = world.run()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert "declined <= 0.3: the query has no result that is one number" in action.document.reason

    def test_looks_before_a_gap_do_not_count(self) -> None:
        world = Simulation(plan=self.PLAN, results={"declined": 0.4})
        world.run_to_weight(10)
        for result in (0.4, 0.4, None, 0.4, 0.4):
            world.now += LOOK
            world.results = {"declined": result}
            assert isinstance(world.look(), Wait)


class TestReplicas:
    def test_one_that_never_loads_the_canary_ends_the_rollout_at_weight_0(self) -> None:
        world = Simulation()
        world.replicas[1].is_ready = False
        action = world.run()
        assert isinstance(action, Abort)
        assert action.cause == "timeout"
        assert "the canary cannot answer on b, 600 s after" in action.reason
        assert world.weights == []

    def test_nobody_seen_is_not_everybody_ready(self) -> None:
        world = Simulation()
        world.source_is_silent = True
        action = world.run()
        assert isinstance(action, Abort)
        assert "10.0.0.1 does not answer" in action.reason
        assert world.weights == []

    def test_one_that_does_not_follow_is_named(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.replicas[0].follows = False
        action = world.run()
        assert isinstance(action, Write)
        assert "replicas a do not follow generation 2" in action.document.reason

    def test_looks_follow_each_other_quickly_until_all_replicas_follow(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.replicas[0].follows = False
        assert world.look() == Wait("the replicas begin to follow the split", SOON)
        world.source_is_silent = True
        assert world.look() == Wait("the replicas begin to follow the split")
        world.source_is_silent = False
        world.replicas[0].follows = True
        world.now += LOOK
        assert world.look() == Wait("analysis: inconclusive so far")

    def test_looks_are_quick_for_a_while_only_when_a_person_is_waited_for(self) -> None:
        world = Simulation(plan={"steps": [{"setWeight": 10}, {"pause": {}}, {"analysis": "10m"}]})
        world.run_to_weight(10)
        world.replicas[0].follows = False
        for seconds, within in ((1, SOON), (121, math.inf)):
            action = world.look()
            assert isinstance(action, Wait)
            assert action.within == within, seconds
            world.now += timedelta(minutes=3)

    def test_one_that_follows_early_is_counted_and_judged_before_the_others_follow(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.replicas[0].follows = False
        world.replicas[1].canary_errors = 0.3
        since = world.now
        while isinstance(action := world.look(), Wait):
            world.now += min(LOOK, timedelta(seconds=min(action.within, LOOK.total_seconds())))
        assert isinstance(action, Abort)
        assert "of 40 requests" in action.reason, "the first look that finds the replica only begins to count"
        assert world.now - since <= timedelta(seconds=2 * SOON)
        tally = world.journal.tally
        assert tally is not None
        assert set(tally.replicas) == {"b"}

    def test_a_split_that_goes_bad_is_ended_within_one_look_after_all_follow(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        for replica in world.replicas:
            replica.canary_errors = 0.3
        since = world.now
        while isinstance(action := world.look(), Wait):
            world.now += min(LOOK, timedelta(seconds=min(action.within, LOOK.total_seconds())))
        assert isinstance(action, Abort)
        assert world.now - since <= LOOK

    def test_time_counts_from_when_all_follow(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.replicas[0].follows = False
        since = world.now
        world.run(longest=timedelta(seconds=100))
        world.replicas[0].follows = True
        world.run_to_weight(50)
        assert world.now - since >= timedelta(seconds=100) + timedelta(minutes=10)

    def test_a_restart_loses_no_requests_and_counts_none_twice(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.now += LOOK
        world.look()
        for number in range(9):
            world.now += LOOK
            if number == 4:
                world.replicas[0].restart()
            world.look()
        tally = world.journal.tally
        assert tally is not None
        assert tally.total.canary.answered == pytest.approx(9 * 2 * 40)
        assert tally.total.champion.answered == pytest.approx(9 * 2 * 360)

    def test_several_processes_at_one_address_are_no_restarts(self) -> None:
        """An ordinary Service hands every look to another replica."""
        world = Simulation()
        world.run_to_weight(10)
        a, b = Replica("one", started=100.0), Replica("one", started=101.0)
        for replica in (a, b):
            replica.sample(world.document)
            replica.requests = 0
        for number in range(20):
            world.replicas = [(a, b)[number % 2]]
            action = world.look()
            world.now += LOOK
            if isinstance(action, Write):
                break
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert "several processes answer in turn at one" in action.document.reason
        assert world.journal.tally is not None
        assert world.journal.tally.total.canary.answered <= a.canary + b.canary

    def test_a_process_with_two_addresses_is_counted_once(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.now += LOOK
        samples = [replica.sample(world.document) for replica in world.replicas]
        twice = [*samples, *(sample._replace(replica=f"[{sample.replica}]") for sample in samples)]
        first = observe(world.journal, world.document, twice, world.now)
        later = [replica.sample(world.document) for replica in world.replicas]
        twice = [*(sample._replace(replica=f"[{sample.replica}]") for sample in later), *later]
        found = observe(first, world.document, twice, world.now + LOOK)
        once = observe(observe(world.journal, world.document, samples, world.now), world.document, later, world.now)
        assert found.tally is not None
        assert once.tally is not None
        assert found.tally.total == once.tally.total
        assert found.replicas == 2

    def test_one_that_vanishes_keeps_what_it_counted_and_a_new_one_begins_with_0(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        for replicas in (["a", "b"], ["a", "b"], ["a", "c"], ["a", "c"]):
            known = {replica.name: replica for replica in world.replicas}
            world.replicas = [known.get(name) or Replica(name, champion=5_000.0) for name in replicas]
            world.now += LOOK
            world.look()
        tally = world.journal.tally
        assert tally is not None
        assert tally.total.canary.answered == pytest.approx(40 * (3 + 1 + 1))
        assert set(tally.replicas) == {"a", "b", "c"}


class TestWhoDecides:
    def test_a_second_triggerer_comes_to_the_same_decision(self) -> None:
        world = Simulation()
        world.run(lambda action: isinstance(action, Write) and action.document.weight == 50)
        journal, state = world.journal, world.state
        assert next_action(journal, state, world.now) == next_action(Journal.model_validate(journal), state, world.now)

    def test_a_write_that_was_done_is_not_done_again(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        assert isinstance(next_action(world.journal, world.state, world.now), Wait)

    def test_a_look_that_is_stored_twice_counts_once(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.now += LOOK
        world.look()
        samples = [replica.sample(None) for replica in world.replicas]
        samples = [sample._replace(generation=2) for sample in samples]
        once = observe(world.journal, world.document, samples, world.now)
        twice = observe(once, world.document, samples, world.now)
        assert once.tally is not None
        assert twice.tally is not None
        assert once.tally.total == twice.tally.total

    def test_the_journal_of_a_long_rollout_stays_small(self) -> None:
        world = Simulation(plan={"steps": [{"setWeight": 10}, {"analysis": "1d"}]})
        world.run_to_weight(10)
        journal = world.journal
        for number in range(3 * MAX_POINTS):
            samples = [replica.sample(world.document) for replica in world.replicas]
            journal = observe(journal, world.document, samples, BEGIN + number * LOOK)
        assert len(journal.points) <= MAX_POINTS
        assert journal.tally is not None
        assert sum(point.canary for point in journal.points) == pytest.approx(journal.tally.total.canary.answered)


class TestPeople:
    def test_a_step_for_a_person_waits_until_somebody_resumes(self) -> None:
        world = Simulation(plan={"steps": [*STEPS[:2], {"pause": {}}, *STEPS[2:]]})
        action = world.run()
        assert isinstance(action, Write)
        assert action.document.phase == "WAITING"
        assert isinstance(world.run(longest=timedelta(hours=1)), Wait)
        assert world.document is not None
        plan = world.journal.plan
        world.write(resumed_document(plan, world.document, reason="looks fine", by="ada", now=world.now))
        assert world.document.weight == 50
        assert isinstance(world.run(), Promote)

    def test_a_pause_keeps_the_weight_and_a_resumed_analysis_begins_anew(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        assert world.document is not None
        world.write(paused_document(world.document, "on call asked", "ada", world.now))
        assert (world.document.phase, world.document.weight) == ("WAITING", 10)
        assert isinstance(world.run(longest=timedelta(hours=1)), Wait)
        since = world.now
        world.write(resumed_document(world.journal.plan, world.document, reason="", by="ada", now=world.now))
        world.run_to_weight(50)
        assert world.now - since >= timedelta(minutes=10)

    def test_a_person_may_go_on_without_a_conclusion(self) -> None:
        world = Simulation(replicas=[Replica("a", requests=0)])
        world.run()
        assert world.document is not None
        plan = world.journal.plan
        world.write(resumed_document(plan, world.document, reason="quiet week", by="ada", now=world.now, skip=True))
        assert (world.document.weight, world.document.by) == (50, "ada")

    def test_an_abort_by_a_person_ends_it(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        assert world.document is not None
        world.write(failed_document(world.document, "aborted", "not tonight", "ada"))
        assert world.document.weight == 0
        assert world.look() == Finish(succeeded=False, cause="aborted", reason="aborted: not tonight")

    def test_a_moved_champion_ends_it_without_a_write(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.champion = "9"
        action = world.look()
        assert isinstance(action, Finish)
        assert action.cause == "superseded"
        assert "points at version 9, not at version 7" in action.reason

    def test_a_canary_that_somebody_else_promoted_ends_it(self) -> None:
        world = Simulation()
        world.run_to_weight(10)
        world.champion = "8"
        action = world.look()
        assert isinstance(action, Finish)
        assert action.cause == "superseded"

    def test_another_rollout_or_a_broken_document_ends_it(self) -> None:
        world = Simulation()
        assert world.document is not None
        world.document = world.document.model_copy(update={"identity": "r2"})
        assert "belongs to rollout 'r2'" in world.look().reason  # type: ignore[union-attr]
        state = RolloutState.of(version("7", {TAG_ROLLOUT: "{"}))
        assert isinstance(next_action(world.journal, state, BEGIN), Finish)

    def test_a_rollout_that_takes_too_long_is_aborted(self) -> None:
        world = Simulation(plan={"max_duration": "2h", "steps": [*STEPS[:2], {"pause": {}}, {"analysis": "1m"}]})
        world.run()
        action = world.run()
        assert isinstance(action, Abort)
        assert action.cause == "timeout"
        assert world.now - BEGIN > timedelta(hours=2)


class TestBakeTime:
    PLAN = {"rollback": {"threshold": 0.05, "duration": 120.0}, "bake": "30m"}

    def promoted(self) -> Simulation:
        world = Simulation(plan=self.PLAN)
        assert isinstance(world.run(), Promote)
        world.champion = "8"
        world.record = RolloutRecord(phase="BAKING", stable="7", since=world.now)
        return world

    def test_a_task_that_died_before_the_record_promotes_again(self) -> None:
        world = self.promoted()
        world.record = RolloutRecord(phase="PROMOTING", stable="7", since=world.now)
        assert world.look() == Promote(None)

    def test_a_sound_champion_ends_it_after_the_bake_time(self) -> None:
        world = self.promoted()
        since = world.now
        action = world.run()
        assert isinstance(action, Finish)
        assert action.succeeded
        assert world.now - since >= timedelta(minutes=30)

    def test_an_open_breaker_goes_back(self) -> None:
        world = self.promoted()
        world.replicas[0].is_tripped = True
        assert world.look() == RollBack("the breaker of the new champion is open on a")

    def test_nobody_who_looks_is_no_success(self) -> None:
        world = self.promoted()
        world.source_is_silent = True
        since = world.now
        action = world.run()
        assert isinstance(action, Finish)
        assert (action.succeeded, action.cause) == (False, "lost")
        assert world.now - since >= timedelta(minutes=90)

    def test_what_is_recorded_is_final(self) -> None:
        world = self.promoted()
        assert world.record is not None
        world.record = replace_phase(world.record, "SUCCEEDED")
        assert isinstance(action := world.look(), Finish)
        assert action.succeeded


def replace_phase(record: RolloutRecord, phase: str) -> RolloutRecord:
    return record.model_copy(update={"phase": phase})
