"""Which version answers a request: shares, sticky keys, forced versions, and which documents count."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.document import dump_document
from airflow_mcp.core.serving.traffic import (
    TAG_ROLLOUT,
    TAG_ROLLOUT_LEASE,
    BreakerRule,
    Choice,
    RolloutDocument,
    RoutingKey,
    TrafficPlan,
    choose,
    follows,
    read_split,
    routing_key,
)
from airflow_mcp.core.serving.versions import ServedVersion

NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
V6, V7, V8 = (ServedVersion("fraud", number) for number in "678")
ALL = frozenset({V6, V7, V8})
IDS = [f"user-{number}".encode() for number in range(100_000)]


def canaries(weight: float, salt: str = "one") -> set[bytes]:
    plan = TrafficPlan(V7, V8, weight, salt)
    return {name for name in IDS if plan.is_on_canary_side(name)}


@pytest.fixture(scope="module")
def sides() -> dict[float, set[bytes]]:
    return {weight: canaries(weight) for weight in (0, 1, 5, 25, 50, 100)}


class TestTheSplit:
    @pytest.mark.parametrize("weight", [1, 5, 25, 50])
    def test_gives_the_canary_its_share_of_100_000_keys(self, sides: dict[float, set[bytes]], weight: int) -> None:
        share = weight / 100
        sigma = math.sqrt(len(IDS) * share * (1 - share))
        assert abs(len(sides[weight]) - len(IDS) * share) < 3 * sigma

    def test_lets_nobody_go_back_while_the_weight_grows(self, sides: dict[float, set[bytes]]) -> None:
        assert sides[1] < sides[5] < sides[25] < sides[50]
        assert sides[0] == set()
        assert sides[100] == set(IDS)

    def test_picks_others_with_another_salt(self, sides: dict[float, set[bytes]]) -> None:
        both = sides[25] & canaries(25, "two")
        assert len(both) / len(sides[25]) == pytest.approx(0.25, abs=0.02)

    def test_takes_a_salt_of_any_length(self) -> None:
        assert canaries(0, "x" * 1000) == set()

    def test_routes_by_the_side_of_the_key(self, sides: dict[float, set[bytes]]) -> None:
        plan = TrafficPlan(V7, V8, 25, "one")
        inside, outside = next(iter(sides[25])), next(iter(set(IDS) - sides[25]))
        assert choose(plan, RoutingKey("fraud", inside), ALL) == Choice(V8, "canary")
        assert choose(plan, RoutingKey("fraud", outside), ALL) == Choice(V7, "champion")


class TestTheKeyOfARequest:
    plan = TrafficPlan(V7, V8, 25, sticky="x-user-id")

    def test_is_the_header_that_the_rollout_names(self) -> None:
        key = routing_key("fraud", self.plan, {"x-user-id": "ann"}, subject="sub", chance=b"r")
        assert key.value == b"ann"

    def test_is_the_subject_of_the_token_without_that_header(self) -> None:
        assert routing_key("fraud", self.plan, {}, subject="sub", chance=b"r").value == b"sub"

    def test_is_chance_otherwise(self) -> None:
        assert routing_key("fraud", self.plan, chance=b"r").value == b"r"

    def test_takes_any_text_of_a_header(self) -> None:
        assert routing_key("fraud", self.plan, {"x-user-id": "\udcff"}).value == b"\xff"


class TestWhoAnswers:
    def test_is_the_champion_while_the_canary_is_not_ready(self) -> None:
        plan = TrafficPlan(V7, V8, 100)
        assert choose(plan, RoutingKey("fraud", b"x"), frozenset({V7})) == Choice(V7, "champion")

    def test_is_the_champion_while_the_breaker_of_the_canary_is_open(self) -> None:
        plan = TrafficPlan(V7, V8, 100, tripped=frozenset({V8}))
        assert choose(plan, RoutingKey("fraud", b"x"), ALL) == Choice(V7, "champion")

    def test_is_the_standby_while_the_breaker_of_the_champion_is_open(self) -> None:
        plan = TrafficPlan(V7, standby=V6, tripped=frozenset({V7}))
        assert choose(plan, RoutingKey("fraud"), ALL) == Choice(V6, "standby")

    def test_is_the_standby_when_the_champion_cannot(self) -> None:
        plan = TrafficPlan(V7, standby=V6)
        assert choose(plan, RoutingKey("fraud"), frozenset({V6})) == Choice(V6, "standby")

    def test_is_the_tripped_champion_when_nothing_else_can(self) -> None:
        plan = TrafficPlan(V7, standby=V6, tripped=frozenset({V7}))
        assert choose(plan, RoutingKey("fraud"), frozenset({V7})) == Choice(V7, "champion")

    def test_is_nobody_when_nothing_is_ready(self) -> None:
        assert choose(TrafficPlan(V7, V8, 50, standby=V6), RoutingKey("fraud"), frozenset()) is None
        assert choose(TrafficPlan(), RoutingKey("fraud"), ALL) is None

    def test_is_not_the_standby_of_a_policy_while_the_champion_is_well(self) -> None:
        assert choose(TrafficPlan(V7, standby=V6), RoutingKey("fraud"), ALL) == Choice(V7, "champion")


class TestAForcedVersion:
    plan = TrafficPlan(V7, V8, 0, standby=V6, forced=True)

    @pytest.mark.parametrize(
        ("headers", "version"),
        [
            ({"x-model-version": "6"}, V6),
            ({"x-model-version": "8"}, V8),
            ({"x-model-alias": "champion"}, V7),
            ({"x-model-alias": "challenger"}, V8),
            ({"x-model-alias": "previous_champion"}, V6),
            ({"x-model-alias": "champion", "x-model-version": "7"}, V7),
        ],
    )
    def test_answers(self, headers: dict[str, str], version: ServedVersion) -> None:
        assert choose(self.plan, routing_key("fraud", self.plan, headers), ALL) == Choice(version, "forced")

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-model-version": "9"},
            {"x-model-version": "champion"},
            {"x-model-alias": "latest"},
            {"x-model-alias": "champion", "x-model-version": "8"},
        ],
    )
    def test_is_never_replaced_by_another(self, headers: dict[str, str]) -> None:
        key = routing_key("fraud", self.plan, headers)
        assert key.is_forced
        assert choose(self.plan, key, ALL) is None

    def test_is_refused_where_callers_may_not_choose(self) -> None:
        key = routing_key("fraud", TrafficPlan(V7), {"x-model-version": "7"})
        assert choose(TrafficPlan(V7), key, ALL) is None

    def test_does_not_answer_before_it_is_ready(self) -> None:
        key = routing_key("fraud", self.plan, {"x-model-version": "8"})
        assert choose(self.plan, key, frozenset({V7})) is None


def document(**fields: Any) -> str:
    values = {"identity": "r1", "generation": 7, "phase": "PROGRESSING", "stable": "7", "canary": "8", "weight": 25}
    return json.dumps({"schema": "airflow_mcp/rollout/1", **values, **fields})


class TestADocument:
    def test_of_the_brief_is_read(self) -> None:
        text = document(
            shadow=0,
            salt="r1",
            sticky="x-user-id",
            step=3,
            step_since="2026-11-29T18:00:00+00:00",
            plan="sha256:00",
            breaker={"metric": "http_5xx_rate", "threshold": 0.05, "duration": 120, "min_requests": 20},
            on_lost="hold",
            run_id="abc",
            by="dag.task run",
            reason="try it",
        )
        found = read_split({TAG_ROLLOUT: text}, "7", NOW)
        assert found.error == ""
        assert found.document is not None
        assert (found.document.weight, found.document.canary, found.document.sticky) == (25, "8", "x-user-id")
        assert found.document.breaker == BreakerRule(threshold=0.05, duration=120)
        assert json.loads(dump_document(found.document))["schema"] == "airflow_mcp/rollout/1"

    def test_that_does_not_exist_is_no_split_and_no_error(self) -> None:
        assert read_split({}, "7", NOW) == (None, "")

    def test_about_another_champion_is_void(self) -> None:
        assert read_split({TAG_ROLLOUT: document()}, "8", NOW) == (None, "")

    @pytest.mark.parametrize("phase", ["SUCCEEDED", "FAILED", "BAKING"])
    def test_of_a_rollout_that_has_ended_is_void(self, phase: str) -> None:
        assert read_split({TAG_ROLLOUT: document(phase=phase)}, "7", NOW) == (None, "")

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "25",
            document(schema="airflow_mcp/rollout/2"),
            document(weight=101),
            document(weight=-1),
            document(weight="25"),
            document(weight=float("nan")),
            document(canary="champion"),
            document(canary="08"),
            document(canary="7"),
            document(generation=0),
            document(phase="WONDERING"),
            document(colour="red"),
        ],
    )
    def test_that_is_wrong_is_no_split_and_an_error(self, text: str) -> None:
        found = read_split({TAG_ROLLOUT: text}, "7", NOW)
        assert found.document is None
        assert "airflow_mcp.rollout" in found.error

    def test_counts_while_its_lease_lasts(self) -> None:
        tags = {TAG_ROLLOUT: document(on_lost="stable", shadow=5)}
        for until, weight in ((NOW + timedelta(seconds=1), 25), (NOW - timedelta(seconds=1), 0)):
            found = read_split({**tags, TAG_ROLLOUT_LEASE: until.isoformat()}, "7", NOW)
            assert found.document is not None
            assert found.document.weight == weight
        for missing in ({}, {TAG_ROLLOUT_LEASE: "soon"}, {TAG_ROLLOUT_LEASE: "2099-01-01T00:00:00"}):
            found = read_split({**tags, **missing}, "7", NOW)
            assert found.document is not None
            assert (found.document.weight, found.document.shadow) == (0, 0)
            assert "run out" in found.error

    def test_is_not_replaced_by_an_older_generation_of_its_rollout(self) -> None:
        def read(**fields: Any) -> RolloutDocument:
            found = read_split({TAG_ROLLOUT: document(**fields)}, "7", NOW).document
            assert found is not None
            return found

        plan = TrafficPlan(V7, V8, generation=7, identity="r1")
        assert not follows(read(generation=6), plan)
        assert follows(read(generation=7), plan)
        assert follows(read(generation=8), plan)
        assert follows(read(generation=1, identity="r2"), plan)
