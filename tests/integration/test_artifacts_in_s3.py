"""The operators that read artifacts once more, on an MLflow server that keeps its artifacts in S3.

There, a download of a missing file ends with 500, not with 404 as in a local folder.
"""

from __future__ import annotations

import pytest

from airflow_mcp.core import contract
from airflow_mcp.exceptions import MlflowError, MlflowNotFoundError
from airflow_mcp.operators.load_check import LoadCheckOperator
from airflow_mcp.registry.evidence import find_evidence, find_gate_report, find_importance, find_replay
from airflow_mcp.work.run.mlflow_run import read_run_artifact
from tests.integration import test_operators_copy as copies
from tests.integration import test_operators_evaluation as evaluation
from tests.integration import test_operators_gate as gate
from tests.integration.test_operators_evaluation import Trained
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]  # MLflow's own, about types


@pytest.fixture
def registry_server(mlflow_on_s3: MlflowServer) -> MlflowServer:
    return mlflow_on_s3


@pytest.fixture(scope="module")
def candidate(mlflow_on_s3: MlflowServer) -> Trained:
    return evaluation._log(mlflow_on_s3.url, with_signature=True, rule=3)


@pytest.fixture(scope="module")
def champion(mlflow_on_s3: MlflowServer) -> Trained:
    return evaluation._log(mlflow_on_s3.url, with_signature=True, rule=4)


run = gate.run
logged = copies.logged
source = copies.source


def test_a_download_of_a_missing_artifact_is_an_error_of_this_server(world: World) -> None:
    run = world.new_run()
    with pytest.raises(MlflowError, match="HTTP 500"):
        world.hook.download_artifact(run.run_id, contract.ARTIFACT_EVIDENCE)


def test_a_missing_artifact_is_none_and_an_existing_one_is_read(world: World) -> None:
    run_id = world.new_run().run_id
    for find in (find_evidence, find_gate_report, find_replay, find_importance):
        assert find(world.hook, run_id) is None
    assert world.hook.find_artifact("0" * 32, "evaluation/evidence.json") is None
    world.hook.upload_artifact(run_id, "evaluation/evidence.json.bak", b"another")
    assert world.hook.find_artifact(run_id, "evaluation/evidence.json") is None
    assert world.hook.find_artifact(run_id, "evaluation") is None
    world.hook.upload_artifact(run_id, "top.json", b"{}")
    assert world.hook.find_artifact(run_id, "top.json") == b"{}"


def test_the_work_plane_tells_a_missing_artifact_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = world.new_run().run_id
    world.hook.upload_artifact(run_id, "profile/profile.json", b"{}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", world.url)
    assert read_run_artifact(run_id, "profile/profile.json") == b"{}"
    with pytest.raises(MlflowNotFoundError, match=r"has no artifact profile/other\.json"):
        read_run_artifact(run_id, "profile/other.json")


def test_a_version_without_files_is_unusable(world: World) -> None:
    world.versions(1, check=None)
    outcome = world.run(LoadCheckOperator, model_name=world.model_name, version="1")
    assert outcome.state == "failed"
    assert "its files are missing" in str(outcome.error)
    assert outcome.result["verdict"] == "failed"


test_a_candidate_is_measured_beside_the_champion_and_a_retry_measures_nothing = (
    evaluation.test_a_candidate_is_measured_beside_the_champion_and_a_retry_measures_nothing
)
test_an_evaluation_that_leaves_no_evidence_is_said_so = evaluation.test_an_evaluation_that_leaves_no_evidence_is_said_so
test_a_candidate_that_keeps_every_rule_passes = gate.test_a_candidate_that_keeps_every_rule_passes
test_a_run_without_evidence_is_an_error_with_a_report = gate.test_a_run_without_evidence_is_an_error_with_a_report
test_on_one_server_a_copy_is_a_version_whose_source_is_the_version = (
    copies.test_on_one_server_a_copy_is_a_version_whose_source_is_the_version
)
