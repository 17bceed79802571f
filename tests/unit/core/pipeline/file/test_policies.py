"""Documents of TrafficPolicy and RollbackPolicy, as they stand in the source documents."""

from __future__ import annotations

import pytest

from airflow_mcp.core.pipeline.file.policies import (
    RollbackPolicyFile,
    TrafficPolicyFile,
    read_policy_file,
)
from airflow_mcp.core.serving.traffic import BreakerRule
from airflow_mcp.exceptions import PipelineSpecError

TRAFFIC = """\
apiVersion: mcp.example.com/v1
kind: TrafficPolicy
metadata:
  name: fraud-traffic
spec:
  rateLimit:
    requestsPerSecond: 100
  auth:
    method: JWT
    issuer: https://auth.example.com
"""
ROLLBACK = """\
apiVersion: mcp.example.com/v1
kind: RollbackPolicy
metadata:
  name: fraud-rollback
spec:
  trigger:
    metric: http_5xx_rate
    threshold: "0.05"
    duration: "2m"
  strategy:
    type: blue-green
    stableVersion: v1.7.3
"""


def problems(text: str) -> str:
    with pytest.raises(PipelineSpecError) as caught:
        read_policy_file(text.encode(), "policy.yaml")
    return str(caught.value)


class TestATrafficPolicy:
    def test_is_read_as_it_stands(self) -> None:
        document = read_policy_file(TRAFFIC.encode(), "policy.yaml")
        assert isinstance(document, TrafficPolicyFile)
        policy = document.spec
        assert policy.rate_limit is not None
        assert (policy.rate_limit.requests_per_second, policy.rate_limit.scope) == (100, "replica")
        assert policy.auth is not None
        assert policy.auth.tokens.issuer == "https://auth.example.com"
        assert policy.auth.tokens.algorithms == ("RS256", "ES256", "EdDSA")

    def test_may_limit_only(self) -> None:
        document = read_policy_file(TRAFFIC.partition("  auth:")[0].encode(), "policy.yaml")
        assert isinstance(document, TrafficPolicyFile)
        assert document.spec.auth is None

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("https://auth.example.com", "http://auth.example.com", "policy.yaml:10:13: spec.auth.issuer: must be an"),
            ("https://auth.example.com", "https://me:pw@auth.example.com", "must be an https address"),
            ("JWT", "Basic", "policy.yaml:9:13: spec.auth.method: must be JWT; got 'Basic'"),
            ("100", "0", "policy.yaml:7:24: spec.rateLimit.requestsPerSecond: must be more than 0; got 0"),
            ("100", "true", "spec.rateLimit.requestsPerSecond: must be a number; got true"),
            ("requestsPerSecond", "perSecond", "policy.yaml:7:5: spec.rateLimit.perSecond: is not a known name"),
            ("kind: TrafficPolicy", "kind: Traffic", "policy.yaml:2:7: kind: kind must be one of TrafficPolicy, Roll"),
            ("mcp.example.com/v1", "mcp.example.com/v2", "policy.yaml:1:13: apiVersion: must be text of the form"),
        ],
    )
    def test_names_the_place_of_what_is_wrong(self, old: str, new: str, problem: str) -> None:
        assert problem in problems(TRAFFIC.replace(old, new))

    def test_that_limits_nothing_is_refused(self) -> None:
        text = TRAFFIC.partition("spec:")[0] + "spec: {}\n"
        assert "policy.yaml:5:7: spec: must have rateLimit, auth or both; got neither" in problems(text)

    def test_never_repeats_an_algorithm_that_anybody_can_use(self) -> None:
        found = problems(TRAFFIC + "    algorithms: [HS256, none]\n")
        assert "spec.auth.algorithms[0]" in found


class TestARollbackPolicy:
    def test_is_read_as_it_stands(self) -> None:
        document = read_policy_file(ROLLBACK.encode(), "policy.yaml")
        assert isinstance(document, RollbackPolicyFile)
        assert document.spec.trigger.rule == BreakerRule(threshold=0.05, duration=120)
        assert document.spec.strategy.stable_version == "v1.7.3"

    def test_goes_back_to_the_previous_champion_unless_it_says_otherwise(self) -> None:
        document = read_policy_file(ROLLBACK.partition("  strategy:")[0].encode(), "policy.yaml")
        assert isinstance(document, RollbackPolicyFile)
        assert document.spec.strategy.stable_version == "previous_champion"

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ('"0.05"', '"five"', "policy.yaml:8:16: spec.trigger.threshold: must be a number; got 'five'"),
            ('"0.05"', '"nan"', "spec.trigger.threshold: must be a finite number"),
            (
                '"0.05"',
                '"5"',
                "must be less than 1 for http_5xx_rate, because no share of the answers is above 1; got 5",
            ),
            ('"0.05"', '"5"', "Did you mean 0.05?"),
            ('"0.05"', "1", "policy.yaml:8:16: spec.trigger.threshold: must be less than 1"),
            ('"0.05"', "true", "spec.trigger.threshold: must be a number; got true"),
            ('"0.05"', "5%", "spec.trigger.threshold: must be a number; got '5%'. Write 0.05"),
            ('"2m"', "120", "spec.trigger.duration: must have a unit: s, m, h or d"),
            ("http_5xx_rate", "mood", "spec.trigger.metric: must be one of http_5xx_rate, latency_p99_ms; got 'mood'"),
            ("blue-green", "recreate", "spec.strategy.type: must be blue-green; got 'recreate'"),
        ],
    )
    def test_names_the_place_of_what_is_wrong(self, old: str, new: str, problem: str) -> None:
        assert problem in problems(ROLLBACK.replace(old, new))

    def test_does_not_take_seconds_for_milliseconds(self) -> None:
        latency = ROLLBACK.replace("http_5xx_rate", "latency_p99_ms")
        assert (
            "must be at least 1 for latency_p99_ms, which is in milliseconds; got 0.2. Did you mean 200?"
            in problems(latency.replace("0.05", "0.2"))
        )
        assert read_policy_file(latency.replace("0.05", "200").encode(), "policy.yaml")


@pytest.mark.parametrize("text", ["", "[]", "7", "kind: [a]", "a: 1\na: 2\n", "---\nkind: A\n---\nkind: B\n"])
def test_other_files_are_refused_with_a_place(text: str) -> None:
    assert problems(text).startswith("policy.yaml:")
