"""What a look at the registry wants, and what a plan on disk keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.pipeline.file.policies import RollbackPolicy
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT, TAG_ROLLOUT_LEASE
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import MlflowAuthError, MlflowNotFoundError, MlflowUnreachableError
from airflow_mcp.serving.looks import Look, mark_of, result_of, wishes_of

NOW = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
POLICY = RollbackPolicy.model_validate({"trigger": {"metric": "http_5xx_rate", "threshold": "0.05", "duration": "2m"}})


def version(number: str, **tags: str) -> ModelVersion:
    return ModelVersion("fraud", number, "READY", source=f"models:/m-{number}", tags=tags, aliases=("champion",))


def split(**fields: Any) -> str:
    values = {"identity": "r", "generation": 1, "phase": "PROGRESSING", "stable": "7", "canary": "8", "weight": 5}
    return json.dumps({"schema": "airflow_mcp/rollout/1", **values, **fields})


def rollback(stable: str) -> str:
    rule = {"threshold": 0.1, "duration": 60, "stable": stable}
    return json.dumps({"schema": "airflow_mcp/rollback/1", **rule})


def wanted(look: Look, policy: RollbackPolicy | None = None, now: datetime = NOW) -> list[tuple[str, str]]:
    return [(wish.key.version, wish.role) for wish in wishes_of(look, policy, now).wanted]


class TestWishes:
    def test_of_a_champion_alone(self) -> None:
        assert wanted(Look(version("7"))) == [("7", "champion")]

    def test_of_a_split(self) -> None:
        look = Look(version("7", **{TAG_ROLLOUT: split()}), {"8": version("8")})
        assert wanted(look) == [("7", "champion"), ("8", "canary")]
        assert wishes_of(look, None, NOW).canary == ServedVersion("fraud", "8")

    def test_without_a_canary_that_does_not_exist(self) -> None:
        found = wishes_of(Look(version("7", **{TAG_ROLLOUT: split()})), None, NOW)
        assert (found.canary, found.document) == (None, None)
        assert "version 8, the canary, does not exist" in found.error

    def test_of_a_rule_to_go_back(self) -> None:
        look = Look(version("7", **{TAG_ROLLBACK: rollback("6")}), {"6": version("6")})
        assert wanted(look) == [("7", "champion"), ("6", "standby")]
        rule = wishes_of(look, POLICY, NOW).champion_rule
        assert rule is not None
        assert rule.threshold == 0.1  # that of the tag, not of the settings

    def test_of_a_policy_of_the_settings(self) -> None:
        look = Look(version("7"), {"6": version("6")}, standby="6")
        found = wishes_of(look, POLICY, NOW)
        assert found.standby == ServedVersion("fraud", "6")
        assert found.champion_rule == POLICY.trigger.rule

    def test_of_a_policy_without_a_way_back_is_the_champion_alone(self) -> None:
        found = wishes_of(Look(version("7")), POLICY, NOW)
        assert (found.standby, found.champion_rule) == (None, None)

    def test_of_one_version_in_two_roles_has_it_once(self) -> None:
        tags = {TAG_ROLLOUT: split(canary="6"), TAG_ROLLBACK: rollback("6")}
        look = Look(version("7", **tags), {"6": version("6")})
        assert wanted(look) == [("7", "champion"), ("6", "standby")]
        found = wishes_of(look, None, NOW)
        assert found.canary == found.standby

    def test_of_a_version_that_the_settings_name_do_not_depend_on_its_tags(self) -> None:
        tags = {TAG_ROLLOUT: split(), TAG_ROLLBACK: rollback("6")}
        look = Look(version("7", **tags), {"6": version("6"), "8": version("8")}, is_pinned=True)
        assert wanted(look, POLICY) == [("7", "champion")]
        assert wishes_of(look, POLICY, NOW).error == ""

    def test_change_with_the_time_while_the_registry_is_silent(self) -> None:
        lease = (NOW + timedelta(minutes=1)).isoformat()
        tags = {TAG_ROLLOUT: split(on_lost="stable"), TAG_ROLLOUT_LEASE: lease}
        look = Look(version("7", **tags), {"8": version("8")})
        weights = []
        for minutes in (0, 2):
            document = wishes_of(look, None, NOW + timedelta(minutes=minutes)).document
            assert document is not None
            weights.append(document.weight)
        assert weights == [5, 0]


class TestAMark:
    def test_changes_with_evidence_and_not_with_the_split(self) -> None:
        plain = version("7")
        assert mark_of(replace(plain, tags={TAG_ROLLOUT: "x", TAG_ROLLBACK: "y", "team": "z"})) == mark_of(plain)
        for other in ({"airflow_mcp.load_check": "passed"}, {"airflow_mcp.gate_verdict": "passed"}):
            assert mark_of(replace(plain, tags=other)) != mark_of(plain)
        assert mark_of(replace(plain, status="FAILED_REGISTRATION")) != mark_of(plain)


class TestALookOnDisk:
    def test_is_read_as_it_was_written(self) -> None:
        look = Look(version("7", a="b"), {"8": version("8")}, "8", is_pinned=True)
        assert Look.of_plan(json.loads(json.dumps(look.to_plan()))) == look

    @pytest.mark.parametrize("plan", [{}, {"champion": {}, "others": {}, "standby": ""}, {"champion": 1}])
    def test_of_another_form_is_refused(self, plan: dict[str, Any]) -> None:
        with pytest.raises((TypeError, KeyError)):
            Look.of_plan(plan)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (TimeoutError(), "timeout"),
        (MlflowNotFoundError("x"), "missing"),
        (MlflowUnreachableError("x"), "unreachable"),
        (MlflowAuthError("x"), "auth"),
        (ValueError(), "error"),
    ],
)
def test_a_failed_look_has_a_word(error: Exception, word: str) -> None:
    assert result_of(error) == word
