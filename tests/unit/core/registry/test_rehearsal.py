"""Whether a way back was ready: the verdict of a rehearsal, its tags, and for which champion it counts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.load_check import LoadCheckReport
from airflow_mcp.core.registry.rehearsal import Rehearsal, failed_rehearsal, judge_rehearsal, read_rehearsal

AT = "2026-11-30T05:00:00+00:00"
FIVE = timedelta(seconds=5)


def check(**given: Any) -> LoadCheckReport:
    found = {
        "identity": "i",
        "run_id": "r1",
        "model_name": "churn",
        "version": "1",
        "verdict": "passed",
        "reason": "it loads and answers its input example",
        "findings": (),
        "created_at": AT,
        "download_seconds": 1.0,
        "load_seconds": 3.0,
        "answer_seconds": 0.5,
    }
    return LoadCheckReport.model_validate({**found, **given})


def rehearsal(**given: Any) -> Rehearsal:
    found = {
        "model_name": "churn",
        "version": "1",
        "champion": "2",
        "way": "previous_champion",
        "verdict": "failed",
        "reason": "it answers 9.0 s after the download of its files began, 5 s are allowed",
        "seconds": 9.0,
        "budget_seconds": 5.0,
        "at": AT,
        "run_id": "r1",
    }
    return Rehearsal.model_validate({**found, **given})


def version(number: str, tags: dict[str, str]) -> ModelVersion:
    return ModelVersion("churn", number, "READY", tags=tags)


@pytest.mark.parametrize(
    ("given", "refusal", "verdict", "words", "seconds"),
    [
        ({}, "", "passed", "it answers 4.5 s after the download of its files began, 5 s are allowed", 4.5),
        ({"load_seconds": 3.5}, "", "passed", "5.0 s after", 5.0),
        ({"load_seconds": 4.0}, "", "failed", "5.5 s after", 5.5),
        ({}, "it was deleted", "failed", "but a rollback would be refused: it was deleted", 4.5),
        ({"answer_seconds": None}, "", "inconclusive", "was not measured", None),
        ({"download_seconds": None}, "", "inconclusive", "was not measured", None),
        ({"verdict": "failed", "reason": "it does not load"}, "as well", "failed", "it does not load", 4.5),
        ({"verdict": "error", "reason": "no such module"}, "", "error", "no such module", 4.5),
        ({"verdict": "inconclusive", "answer_seconds": None}, "", "inconclusive", "it loads and answers", None),
    ],
)
def test_the_verdict(given: dict[str, Any], refusal: str, verdict: str, words: str, seconds: float | None) -> None:
    found, reason, took = judge_rehearsal(check(**given), FIVE, refusal)
    assert (found, took) == (verdict, seconds)
    assert words in reason


def test_the_tags_keep_it() -> None:
    tags = rehearsal(reason="r" * 5000).to_tags()
    assert list(tags) == [contract.TAG_REHEARSAL_RECORD, contract.TAG_REHEARSAL]  # the verdict comes last
    assert tags[contract.TAG_REHEARSAL] == "failed"
    assert read_rehearsal(tags) == rehearsal(reason="r" * 1500)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"schema": "airflow_mcp/rehearsal/2"}'])
def test_a_record_that_cannot_be_read_is_no_rehearsal(text: str) -> None:
    assert read_rehearsal({contract.TAG_REHEARSAL_RECORD: text}) is None


def test_it_counts_while_the_champion_is_the_one_that_it_leads_away_from() -> None:
    flagged = {"0": version("0", {contract.TAG_REHEARSAL_RECORD: "{"}), "1": version("1", rehearsal().to_tags())}
    assert failed_rehearsal("churn", "2", flagged) == rehearsal()
    assert failed_rehearsal("churn", "3", flagged) is None
    assert failed_rehearsal("churn", None, flagged) is None
    assert failed_rehearsal("fraud", "2", flagged) is None
