"""Step ``load-check`` against a real MLflow server: models that load, models that do not, and whose fault it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.registry.load_check import LoadCheckReport
from airflow_mcp.exceptions import EvidenceError, MlflowError, MlflowNotFoundError, RefusedError
from airflow_mcp.work.steps.load_check import load_check
from tests.support.fakes.faulty_server import FaultyServer, answer
from tests.support.logged_models import Logged, log, log_tree, tracking
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def quiet(mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="module")
def tree(mlflow_server: MlflowServer) -> Logged:
    return log_tree(mlflow_server)


def check(world: World, version: str = "1", **changes: Any) -> LoadCheckReport:
    run = world.new_run(status="RUNNING")
    request = {"identity": "i", "run_id": run.run_id, "model_name": world.model_name, "version": version, **changes}
    path = world.folder / "request.json"
    path.write_text(json.dumps(request))
    report = load_check({contract.ENV_TRACKING_URI: world.url, contract.ENV_REQUEST_PATH: str(path)})
    assert world.hook.get_run(run.run_id).status == "FINISHED"
    assert parse_document(LoadCheckReport, world.artifact(run, contract.ARTIFACT_LOAD_CHECK), "report") == report
    return report


def test_a_model_that_answers_passes_with_time_and_memory(world: World, tree: Logged) -> None:
    tree.register(world)
    report = check(world)
    assert (report.verdict, report.reason, report.rows) == ("passed", "it loads and answers its input example", 3)
    for seconds in (report.download_seconds, report.load_seconds, report.answer_seconds):
        assert seconds is not None
        assert 0 < seconds < 600
    assert (report.memory_peak_bytes or 0) >= (report.memory_before_bytes or 0) > 10_000_000
    assert report.environment["mlflow"]


def test_a_model_without_an_example_is_asked_nothing(world: World, mlflow_server: MlflowServer) -> None:
    log_tree(mlflow_server, input_example=None).register(world)
    assert check(world).verdict == "inconclusive"
    allowed = check(world, require_example=False)
    assert allowed.verdict == "passed"
    assert "it was not asked, because it has no input example" in allowed.reason


# --- files -------------------------------------------------------------------------------------------------------
def copy_of(logged: Logged, world: World, server: MlflowServer) -> Logged:
    """Log the same files as another model: quicker than training one."""
    run, model_id = world.judged_model()
    folder = server.folder / "artifacts" / run.experiment_id / "models" / model_id / "artifacts"
    shutil.copytree(logged.files, folder)
    return Logged(run.run_id, model_id, folder)


def test_files_that_are_gone_or_torn_make_a_version_unusable_until_they_are_restored(
    world: World, tree: Logged, mlflow_server: MlflowServer
) -> None:
    copy = copy_of(tree, world, mlflow_server)
    copy.register(world)
    assert check(world).verdict == "passed"
    copy.tear()
    torn = check(world)
    assert (torn.verdict, torn.reason.partition(":")[0]) == ("failed", "it does not load")
    copy.lose()
    lost = check(world)
    assert (lost.verdict, lost.reason.partition(":")[0]) == ("failed", "its files are missing")
    shutil.copytree(tree.files, copy.files)
    assert check(world).verdict == "passed"


def test_a_model_that_fails_among_other_libraries_than_it_records_is_not_blamed(
    world: World, tree: Logged, mlflow_server: MlflowServer
) -> None:
    copy = copy_of(tree, world, mlflow_server)
    (copy.files / "requirements.txt").write_text("scikit-learn==0.1\n")
    copy.register(world)
    fine = check(world)
    assert fine.verdict == "passed"
    assert fine.unmet_requirements[0].startswith("scikit-learn==0.1 is required")
    copy.tear()
    broken = check(world)
    assert broken.verdict == "error"
    assert "UnpicklingError" in broken.reason
    assert "scikit-learn==0.1 is required" in broken.reason


# --- models that are what they are: code -------------------------------------------------------------------------
CODE = """
import mlflow, pandas as pd
from mlflow.pyfunc import PythonModel

class Model(PythonModel):
    def load_context(self, context):
        {loads}

    def predict(self, context, model_input, params=None):
        {answers}

mlflow.models.set_model(Model())
"""


def coded(world: World, server: MlflowServer, folder: Path) -> None:
    """Register a model that is a script; what the script does may be changed afterwards, where the server keeps it."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature

    path = folder / "model.py"
    path.write_text(CODE.format(loads="pass", answers="return [1.0] * len(model_input)"))
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    given: dict[str, Any] = {
        "name": "model",
        "python_model": str(path),
        "input_example": frame,
        "signature": infer_signature(frame, [1.0, 1.0]),
        "pip_requirements": [],
    }
    logged = log(server, lambda: mlflow.pyfunc.log_model(**given))
    logged.register(world)


def test_what_a_models_code_does_decides_the_verdict(world: World, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    coded(world, mlflow_server, tmp_path)
    assert check(world).verdict == "passed"
    (files,) = (mlflow_server.folder / "artifacts").rglob(f"{version_model(world)}/artifacts")
    for loads, answers, verdict, reason in (
        ("raise ValueError('old format')", "return [1.0] * 2", "failed", "it does not load: ValueError: old format"),
        ("import module_of_nobody", "return [1.0] * 2", "error", "No module named 'module_of_nobody'"),
        ("raise MemoryError", "return [1.0] * 2", "error", "it does not load: MemoryError"),
        ("raise ConnectionError('hub is down')", "return [1.0] * 2", "error", "hub is down. This says nothing"),
        ("raise SystemExit(3)", "return [1.0] * 2", "failed", "it does not load: SystemExit: 3"),
        ("pass", "raise KeyError('b')", "failed", "it does not answer its own input example: KeyError: 'b'"),
        ("pass", "return [1.0]", "failed", "it returned 1 answers for 2 rows"),
        ("pass", "return [1.0, float('nan')]", "failed", "1 of its answers are missing, NaN or infinite"),
        ("pass", "return ['yes', 'no']", "failed", "its answers do not match its signature"),
    ):
        (files / "model.py").write_text(CODE.format(loads=loads, answers=answers))
        report = check(world)
        assert (report.verdict, reason in report.reason) == (verdict, True), report.reason


def version_model(world: World) -> str:
    return world.hook.get_model_version(world.model_name, "1").model_id


# --- what keeps it from finding anything out -----------------------------------------------------------------------
def test_a_version_that_does_not_exist_is_not_judged(world: World, tree: Logged) -> None:
    tree.register(world)
    with pytest.raises(MlflowNotFoundError, match="version 9"):
        check(world, "9")


@pytest.mark.parametrize("part", ["model-versions/get-download-uri", "mlflow-artifacts/artifacts"])
def test_mlflow_that_breaks_on_the_way_is_not_held_against_the_version(
    world: World, tree: Logged, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    tree.register(world)
    with FaultyServer(world.url) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        server.fail(part, answer(503, "restarting"), method="GET")
        run = world.new_run(status="RUNNING")
        request = {"identity": "i", "run_id": run.run_id, "model_name": world.model_name, "version": "1"}
        path = world.folder / "request.json"
        path.write_text(json.dumps(request))
        with tracking(server.url), pytest.raises(MlflowError) as caught:
            load_check({contract.ENV_TRACKING_URI: server.url, contract.ENV_REQUEST_PATH: str(path)})
        assert server.count(part) > 0
    assert not isinstance(caught.value, MlflowNotFoundError)
    assert world.hook.get_run(run.run_id).status == "RUNNING"


def test_a_request_that_is_wrong_and_a_deleted_run_are_refused(world: World, tree: Logged) -> None:
    tree.register(world)
    with pytest.raises(EvidenceError, match="version"):
        check(world, "latest")
    run = world.new_run()
    world.hook.delete_run(run.run_id)
    with pytest.raises(RefusedError, match="deleted"):
        check(world, run_id=run.run_id)
