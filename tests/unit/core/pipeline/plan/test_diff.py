"""The difference between two plans in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp.core.pipeline.plan.diff import plan_diff
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from tests.support.paths import PIPELINES

TEXT = (PIPELINES / "churn.yaml").read_text()
Plan = Callable[[str], PipelinePlan]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plan a pipeline from its text."""

    def of(text: str) -> PipelinePlan:
        path = tmp_path / "churn.yaml"
        path.write_text(text)
        return plan_pipeline(load_pipeline_file(path, "prod"))

    return of


def test_plans_that_do_the_same_do_not_differ(plan: Plan) -> None:
    assert plan_diff(plan(TEXT), plan("# moved down a line\n" + TEXT)) == ()


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("f1: 0.8", "f1: 0.85", ["~ task gate: thresholds: - f1 >= 0.8", "~ task gate: thresholds: + f1 >= 0.85"]),
        ('"0 2 * * 1-5"', '"0 4 * * 1-5"', ["- trigger cron 0 2 * * 1-5", "+ trigger cron 0 4 * * 1-5"]),
        ("Europe/Berlin", "Europe/Paris", ["~ trigger cron 0 2 * * 1-5: timezone: Europe/Berlin -> Europe/Paris"]),
        ("poll: 2m", "poll: 3m", ["~ trigger churn.commit: poll_seconds: 120 -> 180"]),
        ("depth: 12", "depth: 13", ["~ task train_deep: config.training.depth: 12 -> 13"]),
        ("- onDrift: true\n    ", "", ["- trigger churn.drift"]),
        ("attempts: 3", "attempts: 4", ["~ retries and limits: attempts: 3 -> 4"]),
        (
            "train: 4h",
            "train: 5h",
            [f"~ task train_{name}: time limit (s): 14400 -> 18000" for name in ("small", "deep")],
        ),
        ("owner: growth", "owner: core", ["~ pipeline: owner: growth -> core"]),
        ("minimum: 0", "minimum: 1e-6", ["~ form field lr: minimum: 0.0 -> 1e-06"]),
        ("format: slack", "format: json", ["- notification team_chat (slack)", "+ notification team_chat (json)"]),
    ],
)
def test_a_change_is_said_in_a_line_of_its_own(plan: Plan, old: str, new: str, lines: list[str]) -> None:
    assert TEXT.count(old) == 1
    assert list(plan_diff(plan(TEXT), plan(TEXT.replace(old, new)))) == lines


def test_a_new_image_is_said_for_every_task_that_runs_in_it(plan: Plan) -> None:
    lines = plan_diff(plan(TEXT), plan(TEXT.replace("churn:${TAG:-latest}", "churn:2")))
    assert [line.split(":")[0] for line in lines] == [
        f"~ task {name}" for name in ("build", "lint", "train_small", "train_deep")
    ]
    assert lines[0].endswith("image: registry.example.com/churn:latest -> registry.example.com/churn:2")


def test_a_new_step_is_said_with_what_it_follows_and_who_waits_for_it(plan: Plan) -> None:
    new = TEXT.replace("needs: [lint]", "needs: [lint, scan]").replace(
        "    - name: train\n", "    - name: scan\n      command: [scan]\n      needs: [build]\n    - name: train\n"
    )
    lines = plan_diff(plan(TEXT), plan(new))
    assert "+ task scan after build, begin" in lines
    assert "~ task train_small: needs: + scan" in lines
    assert "~ form field start_at: enum: + scan" in lines
    assert "- task scan" in plan_diff(plan(new), plan(TEXT))


def test_another_order_is_a_change_too(plan: Plan) -> None:
    lines = plan_diff(plan(TEXT), plan(TEXT.replace("[pytest, -q]", "[-q, pytest]")))
    assert lines == ('~ task build: command: ["pytest","-q"] -> ["-q","pytest"]',)
