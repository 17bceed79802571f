"""Data that Git LFS keeps: pinned by the control plane, fetched by the work plane, with a real store and Git LFS."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from airflow_mcp.core import contract
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from airflow_mcp.dag_rendering.render import render
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.work.reading.dataset_frame import load_dataset
from airflow_mcp.work.sources.repository_data import fetch_data
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer
from tests.support.lfs_repository import IS_INSTALLED, LfsRepository, LfsServer
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_dag, run_task

pytestmark = [pytest.mark.integration, pytest.mark.skipif(not IS_INSTALLED, reason="Git LFS is not installed")]
FIRST, SECOND = "a,b\n1,2\n3,4\n", "a,b\n5,6\n"
ENVIRON = {"PATH": "/usr/bin:/bin"}
PIPELINE = """\
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: {name}}}
spec:
  sourceCode: code
  trainingScript: train.py
  runtime: local
  data:
    lfs: {{repoUrl: "{repo}", path: train.csv, evaluationPath: evaluation.csv}}
    target: b
  stages:
    - name: gate
      thresholds: [accuracy >= 0.9]
  stopAfter: register
"""
TRAINING = """\
import os
import mlflow
import pandas as pd
from sklearn.tree import DecisionTreeClassifier

rows = pd.read_csv(os.environ["AIRFLOW_MCP_DATA_PATH"], dtype={"a": "float64"})
model = DecisionTreeClassifier(random_state=1).fit(rows[["a"]], rows["b"])
with mlflow.start_run():
    mlflow.sklearn.log_model(
        model, name="model", serialization_format="cloudpickle", input_example=rows[["a"]].head(2), pip_requirements=[]
    )
"""


@pytest.fixture
def made(tmp_path: Path) -> LfsRepository:
    return LfsRepository(tmp_path / "models")


def pin(repo: str, *, supervisor: FakeSupervisor | None = None, **options: Any) -> TaskOutcome:
    lfs = {"repo_url": repo, **options.pop("lfs", {})}
    given = {"task_id": "pin", "lfs": lfs, "files": {"train": "train.csv"}, "retries": 1, **options}
    return run_task(PinDatasetOperator(**given), supervisor=supervisor)


def hash_of(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def test_a_file_is_pinned_by_its_pointer_and_read_as_it_was(made: LfsRepository) -> None:
    first = made.data(FIRST)
    pinned = pin(made.url).xcom["train"]
    assert pinned == {
        "uri": f"lfs+{made.url}#path=train.csv&rev={first}",
        "version": first,
        "hash": hash_of(FIRST),
        "size": len(FIRST),
        "remote": made.url,
        "ref": "refs/heads/main",
    }
    made.data(SECOND)
    frame, used = load_dataset(DatasetPin(**pinned))
    assert frame.to_csv(index=False) == FIRST
    assert used.hash == hash_of(FIRST)


def test_a_tag_that_moved_is_refused(made: LfsRepository) -> None:
    made.data(FIRST)
    made.git("tag", "v1")
    made.git("push", "--quiet", "origin", "v1")
    supervisor = FakeSupervisor()
    assert pin(made.url, version="v1", supervisor=supervisor).state == "success"
    made.data(SECOND)
    made.git("tag", "--force", "v1")
    made.git("push", "--quiet", "--force", "origin", "v1")
    refused = pin(made.url, version="v1", supervisor=supervisor)
    assert refused.state == "failed"
    assert "the tag 'v1'" in str(refused.error)


def test_what_the_store_lacks_is_neither_pinned_nor_fetched(made: LfsRepository, tmp_path: Path) -> None:
    made.data(FIRST)
    made.kept(FIRST).unlink()
    refused = pin(made.url)
    assert refused.state == "failed"
    assert "does not hold 'train.csv'. Push it with git lfs push --all" in str(refused.error)
    unchecked = pin(made.url, lfs={"verify": False})
    assert unchecked.state == "success"
    with pytest.raises(DatasetError, match="cannot be fetched from its LFS store"):
        fetch_data(unchecked.xcom["train"]["uri"], tmp_path / "data", ENVIRON)
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_kept_in_git_itself_is_refused(made: LfsRepository, tmp_path: Path) -> None:
    made.data(FIRST)
    commit = made.commit("plain", "plain.txt")
    made.git("push", "--quiet", "origin", "main")
    assert "is not a file that Git LFS keeps" in str(pin(made.url, files={"train": "plain.txt"}).error)
    with pytest.raises(DatasetError, match="is not a file in Git LFS"):
        fetch_data(f"lfs+{made.url}#path=plain.txt&rev={commit}", tmp_path / "data", ENVIRON)


def test_content_that_is_not_what_the_pointer_says_is_refused(made: LfsRepository, tmp_path: Path) -> None:
    commit = made.data(FIRST)
    made.kept(FIRST).chmod(0o644)
    made.kept(FIRST).write_text(FIRST.replace("1", "9"))
    with pytest.raises(DatasetError, match=r"cannot be fetched|is not what Git LFS recorded"):
        fetch_data(f"lfs+{made.url}#path=train.csv&rev={commit}", tmp_path / "data", ENVIRON)
    assert not (tmp_path / "data").exists()


def test_without_git_lfs_it_says_what_to_install(
    made: LfsRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = made.data(FIRST)
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("git", "sh"):
        (bare / tool).symlink_to(f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(bare))
    with pytest.raises(DatasetError, match="add git-lfs to the image"):
        fetch_data(f"lfs+{made.url}#path=train.csv&rev={commit}", tmp_path / "data", {"PATH": str(bare)})


def test_a_store_over_http_is_asked_with_the_connection_and_only_when_it_is_on_the_same_host(
    made: LfsRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps({"conn_type": "git", "login": LOGIN, "password": PASSWORD}))
    made.data(FIRST)
    with LfsServer(made) as store, GitHttpServer(tmp_path) as git:
        commit = made.configure(store.url)
        repo = f"{git.url}/models.git"
        refused = pin(repo, lfs={"git_conn_id": "git_tests"})
        assert "answered 401 and no list of objects" in str(refused.error), "the store is another host: no login"
        assert PASSWORD not in str(refused.error)
        made.configure(store.url.replace("http://", f"http://{LOGIN}:wrong@"))
        shown = pin(repo, lfs={"git_conn_id": "git_tests"})
        assert "wrong" not in str(shown.error)
        login = {contract.ENV_DATA_GIT_USERNAME: LOGIN, contract.ENV_DATA_GIT_PASSWORD: PASSWORD}
        with pytest.raises(DatasetError, match="cannot be fetched from its LFS store"):
            fetch_data(f"lfs+{repo}#path=train.csv&rev={commit}", tmp_path / "data", {**ENVIRON, **login})


def test_a_store_over_http_is_asked_by_the_batch_api_and_read_by_git_lfs(made: LfsRepository, tmp_path: Path) -> None:
    made.data(FIRST)
    with LfsServer(made, is_open=True) as store:
        made.configure(store.url)
        pinned = pin(made.url).xcom["train"]
        assert pinned["remote"] == store.url
        fetch_data(pinned["uri"], tmp_path / "data", ENVIRON)
        assert (tmp_path / "data").read_text() == FIRST
        made.kept(FIRST).unlink()
        assert f"the LFS store {store.url} does not hold 'train.csv'" in str(pin(made.url).error)
    gone = pin(made.url)
    assert (gone.state, "does not answer" in str(gone.error)) == ("up_for_retry", True)


def test_a_script_that_knows_nothing_of_git_lfs_finds_a_plain_file(world: World, made: LfsRepository) -> None:
    made.data(FIRST)
    pinned = pin(made.url).xcom["train"]
    check = (
        "import os, pathlib\n"
        f"assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).read_text() == {FIRST!r}\n"
        "assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).name == 'train.csv'\n"
    )
    outcome = world.run(
        TrainModelOperator,
        experiment_name=world.experiment,
        command=world.command("model", script=check + REST_TRAINING),
        dataset=pinned,
    )
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    wanted = {"uri": contract.TAG_DATA_URI, "hash": contract.TAG_DATA_HASH, "ref": contract.TAG_DATA_REF}
    assert {key: run.tags[tag] for key, tag in wanted.items()} == {key: pinned[key] for key in wanted}
    assert (run.tags[contract.TAG_DATA_SIZE], run.tags[contract.TAG_DATA_REMOTE]) == (str(len(FIRST)), made.url)


def test_a_pipeline_file_trains_and_judges_on_what_git_lfs_keeps(
    world: World, made: LfsRepository, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text(TRAINING)
    labelled = "a,b\n" + "".join(f"{value}.5,{value % 2}\n" for value in range(40))
    made.data(labelled)
    commit = made.data(labelled, "evaluation.csv")
    file = tmp_path / "pipeline.yaml"
    file.write_text(PIPELINE.format(name=world.experiment, repo=made.url))
    outcomes = run_dag(render(plan_pipeline(load_pipeline_file(file))), mlflow_url=world.url)
    for task_id, outcome in outcomes.items():
        assert outcome.state == "success", (task_id, outcome.error)
    pinned = outcomes["pin_data"].result
    assert (pinned["version"], pinned["evaluation"]["hash"]) == (commit, hash_of(labelled))
    registered = outcomes["register"].result
    version = world.hook.get_model_version(world.experiment, registered["version"])
    assert version.tags[contract.TAG_DATA_HASH] == hash_of(labelled)
    assert version.tags[contract.TAG_DATA_VERSION] == commit
    assert outcomes["gate"].result["verdict"] == "passed"
    evaluation = MlflowClient(world.url).get_run(outcomes["evaluate"].result["run_id"])
    (judged_on,) = (item.dataset for item in evaluation.inputs.dataset_inputs)
    assert (judged_on.name, judged_on.digest) == (f"evaluation.csv@{commit}", hash_of(labelled)[7:39])
    assert pinned["evaluation"]["uri"] in judged_on.source
