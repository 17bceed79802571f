"""Verdicts of load checks, their tags, and the rule for versions that are to get an alias."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.load_check import (
    LoadCheck,
    LoadCheckReport,
    LoadCheckRule,
    LoadFinding,
    judge,
    of_report,
    read_load_check,
    supersedes,
    why_unusable,
)
from airflow_mcp.core.registry.plans import AliasMove, AliasPlan, without_way_back
from airflow_mcp.exceptions import EvidenceError, LoadCheckFailedError

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
FINE = (LoadFinding(name="files", holds=True), LoadFinding(name="loads", holds=True))
ANSWERS = LoadFinding(name="answers", holds=True)
UNASKED = LoadFinding(name="answers", holds=None, note="it has no input example")


def broken(name: Any, **more: Any) -> LoadFinding:
    return LoadFinding(name=name, holds=False, note=f"{name} went wrong", **more)


@pytest.mark.parametrize(
    ("findings", "unmet", "verdict"),
    [
        ((*FINE, ANSWERS), (), "passed"),
        ((*FINE, ANSWERS), ("numpy 1 is here, 2 is needed",), "passed"),
        ((*FINE, ANSWERS, broken("finite")), (), "failed"),
        ((*FINE, ANSWERS, broken("finite")), ("numpy 1 is here, 2 is needed",), "error"),
        ((FINE[0], broken("loads")), (), "failed"),
        ((FINE[0], broken("loads")), ("numpy 1 is here, 2 is needed",), "error"),
        ((FINE[0], broken("loads", is_of_surroundings=True)), (), "error"),
        ((broken("files"),), ("numpy 1 is here, 2 is needed",), "failed"),
        (FINE, (), "inconclusive"),
        ((), (), "inconclusive"),
    ],
)
def test_a_version_is_blamed_only_in_the_surroundings_that_it_asks_for(
    findings: tuple[LoadFinding, ...], unmet: tuple[str, ...], verdict: str
) -> None:
    assert judge(findings, unmet, require_example=True)[0] == verdict


def test_a_model_that_was_asked_nothing_passes_only_where_that_is_allowed_and_says_so() -> None:
    findings = (*FINE, UNASKED)
    assert judge(findings, (), require_example=True) == ("inconclusive", "it has no input example")
    assert judge(findings, (), require_example=False) == ("passed", "it loads. it has no input example")


# --- tags --------------------------------------------------------------------------------------------------------
CHECK = LoadCheck("passed", "it loads", NOW.isoformat(), "run", "image:1@sha256:00", {"python": "3.11.7"})


def test_a_check_is_read_as_it_was_written() -> None:
    assert read_load_check(CHECK.to_tags()) == CHECK
    assert read_load_check({}) is None


def test_a_long_reason_is_cut_in_the_tag() -> None:
    found = read_load_check(LoadCheck("failed", "x" * 9000).to_tags())
    assert found is not None
    assert len(found.reason) == 1500


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({contract.TAG_LOAD_CHECK: "failed"}, "failed"),
        ({contract.TAG_LOAD_CHECK: "inconclusive"}, "inconclusive"),
        ({contract.TAG_LOAD_CHECK: None}, "inconclusive"),
        ({contract.TAG_LOAD_CHECK_RECORD: None}, "inconclusive"),
        ({contract.TAG_LOAD_CHECK_RECORD: "{"}, "inconclusive"),
        ({contract.TAG_LOAD_CHECK_RECORD: '{"verdict": "passed", "reason": "x", "more": 1}'}, "inconclusive"),
        (LoadCheck("failed", "x").to_tags() | {contract.TAG_LOAD_CHECK: "passed"}, "failed"),
    ],
)
def test_tags_that_disagree_never_read_as_a_pass(change: Mapping[str, str | None], verdict: str) -> None:
    tags = {name: value for name, value in {**CHECK.to_tags(), **change}.items() if value is not None}
    found = read_load_check(tags)
    assert found is not None
    assert found.verdict == verdict
    assert "check it again" in found.reason


def test_the_report_and_its_run_give_what_the_version_keeps() -> None:
    report = LoadCheckReport(
        identity="i",
        run_id="run",
        model_name="fraud",
        version="3",
        verdict="passed",
        reason="it loads",
        findings=FINE,
        created_at=NOW.isoformat(),
        environment={"python": "3.11.7"},
    )
    tags = {contract.TAG_IMAGE: "image:1", contract.TAG_IMAGE_DIGEST: "sha256:00"}
    assert of_report(report, Run("run", "1", "FINISHED", tags=tags)) == CHECK


def at(verdict: Any, hours: float) -> LoadCheck:
    return LoadCheck(verdict, "", (NOW + timedelta(hours=hours)).isoformat())


def test_a_check_replaces_an_older_one_and_never_a_newer_one() -> None:
    assert supersedes(at("failed", 0), None)
    assert supersedes(at("failed", 1), at("passed", 0))
    assert supersedes(at("failed", 0), at("failed", 0))
    assert not supersedes(at("failed", 0), at("passed", 1))
    assert supersedes(at("failed", 0), LoadCheck("inconclusive", "torn"))


def test_what_says_nothing_about_the_version_leaves_its_tags_alone() -> None:
    assert not supersedes(at("error", 1), at("passed", 0))
    assert not supersedes(at("error", 1), None)


# --- the rule ----------------------------------------------------------------------------------------------------
def version(check: LoadCheck | None, status: str = "READY") -> ModelVersion:
    return ModelVersion("fraud", "3", status, tags=check.to_tags() if check else {})


@pytest.mark.parametrize("is_required", [True, False])
def test_a_failed_check_and_a_version_that_is_not_ready_are_always_refused(is_required: bool) -> None:
    rule = LoadCheckRule(is_required)
    with pytest.raises(LoadCheckFailedError, match="version 3 of 'fraud' is unusable"):
        rule.require(version(at("failed", -1)), NOW)
    with pytest.raises(EvidenceError, match="is PENDING_REGISTRATION, not READY"):
        rule.require(version(CHECK, "PENDING_REGISTRATION"), NOW)


@pytest.mark.parametrize("check", [None, at("inconclusive", -1), LoadCheck("passed", "when?")])
def test_what_is_not_known_is_refused_unless_nothing_is_required(check: LoadCheck | None) -> None:
    with pytest.raises(EvidenceError, match="Run LoadCheckOperator first"):
        LoadCheckRule(max_age=timedelta(hours=24)).require(version(check), NOW)
    LoadCheckRule(is_required=False).require(version(check), NOW)


def test_the_age_of_a_check_counts_to_the_second() -> None:
    rule = LoadCheckRule(max_age=timedelta(hours=24))
    rule.require(version(at("passed", -24)), NOW)
    with pytest.raises(EvidenceError, match="it may no longer load"):
        rule.require(version(LoadCheck("passed", "", (NOW - timedelta(hours=24, seconds=1)).isoformat())), NOW)
    LoadCheckRule().require(version(at("passed", -10_000)), NOW)


def test_what_is_known_against_a_version_is_said() -> None:
    assert why_unusable(version(None)) == ""
    assert why_unusable(version(at("inconclusive", 0))) == ""
    assert why_unusable(version(at("failed", 0))).startswith("its load check failed at 2026-11-25")
    assert why_unusable(version(CHECK, "FAILED_REGISTRATION")) == "it is FAILED_REGISTRATION, not READY"


def test_an_unusable_champion_leaves_the_way_back_where_it_was() -> None:
    plan = AliasPlan((AliasMove("previous_champion", "2"), AliasMove("champion", "3")), "2", "3")
    kept = without_way_back(plan, {"champion": "2", "previous_champion": "1"})
    assert (kept.moves, kept.way_back) == ((AliasMove("champion", "3"),), "1")
    none = without_way_back(plan, {"champion": "2"})
    assert (none.moves, none.way_back) == ((AliasMove("champion", "3"),), "none")
    itself = without_way_back(plan, {"champion": "2", "previous_champion": "3"})
    assert (itself.moves, itself.way_back) == (
        (AliasMove("previous_champion", None), AliasMove("champion", "3")),
        "none",
    )
