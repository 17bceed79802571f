"""A step in a pod whose reports outlive it; its image has nothing of this package that is used."""

from __future__ import annotations

import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.step import RunStepOperator
from tests.kubernetes.cluster import PodWorld
from tests.support.task_harness import TaskOutcome

WRITE = (
    "import pathlib; pathlib.Path('lint').mkdir(); pathlib.Path('lint/a.sarif').write_text('found'); print('written')"
)


def step(world: PodWorld, command: list[str]) -> TaskOutcome:
    return world.run(
        RunStepOperator,
        experiment_name=world.experiment,
        command=command,
        reports=["lint/*.sarif"],
        runtime="kubernetes",
        kubernetes=world.pod_options(deferrable=False),
    )


@pytest.mark.filterwarnings("ignore")
def test_the_reports_of_a_pod_are_in_its_run_when_it_is_gone(world: PodWorld) -> None:
    outcome = step(world, ["python", "-c", WRITE])
    assert outcome.state == "success", outcome.error
    assert world.artifact(outcome.result["run_id"], "reports/lint/a.sarif") == b"found"
    assert world.cluster.pods(world.dag_id) == []


@pytest.mark.filterwarnings("ignore")
def test_a_pod_that_leaves_no_report_fails(world: PodWorld) -> None:
    outcome = step(world, ["python", "-c", "print('done')"])
    run = world.require_failure(outcome, "the command left no lint/*.sarif in /scratch")
    assert "the command left no lint/*.sarif" in run.tags[contract.TAG_ERROR]
