"""Data that DVC tracks: pinned by the control plane, fetched by the work plane, in a real repository with a remote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.dataset import dvc_data
from airflow_mcp.core.evidence import DatasetPin
from airflow_mcp.exceptions import DatasetError, GitAuthError, SourceError
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.runtime.datasets import load_dataset, verified_file
from airflow_mcp.runtime.dvc_data import fetch_dvc
from tests.dvc_repository import FIRST, DvcRepository
from tests.git_server import LOGIN, PASSWORD, GitHttpServer
from tests.mlflow_world import REST_TRAINING, World
from tests.task_harness import TaskOutcome, run_task

pytestmark = pytest.mark.integration

SECOND = "a,b\n5,6\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DvcRepository:
    return DvcRepository(tmp_path_factory.mktemp("dvc") / "data")


@pytest.fixture
def server(made: DvcRepository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    connection = {"conn_type": "git", "login": LOGIN, "password": PASSWORD}
    monkeypatch.setenv("AIRFLOW_CONN_GIT_TESTS", json.dumps(connection))
    with GitHttpServer(made.folder.parent) as server:
        yield f"{server.url}/data"


def pin(repo: str, **options: Any) -> TaskOutcome:
    dvc = {"repo": repo, **options.pop("dvc", {})}
    given = {"task_id": "pin", "dvc": dvc, "files": {"train": "data/train.csv"}, "retries": 1, **options}
    return run_task(PinDatasetOperator(**given))


def md5_of(text: str) -> str:
    return f"md5:{md5(text.encode(), usedforsecurity=False).hexdigest()}"


# --- pinning -----------------------------------------------------------------------------------------------------
def test_a_moved_branch_gives_another_pin_and_an_old_commit_the_old_one(made: DvcRepository) -> None:
    first = pin(made.url, dvc={"rev": made.first})
    moved = made.data(SECOND)
    second = pin(made.url)
    assert (first.result["version"], second.result["version"]) == (made.first, moved)
    assert first.xcom["train"]["hash"] == md5_of(FIRST)
    assert second.xcom["train"] == {
        "uri": f"dvc+{made.url}#path=data/train.csv&rev={moved}",
        "version": moved,
        "hash": md5_of(SECOND),
    }
    assert first.result["hash"] != second.result["hash"]
    assert pin(made.url, version=made.first, dvc={"rev": "main"}).result == first.result


def test_a_commit_that_leaves_the_data_alone_leaves_the_hash_alone(made: DvcRepository) -> None:
    before = pin(made.url)
    made.commit("anything", "README.md")
    after = pin(made.url)
    assert before.result["version"] != after.result["version"]
    assert before.result["hash"] == after.result["hash"]


def test_a_file_of_a_tracked_folder_is_pinned_by_its_commit(made: DvcRepository) -> None:
    outcome = pin(made.url, files={"train": "more/part.csv"}, version=made.first)
    assert (outcome.xcom["train"]["version"], outcome.xcom["train"]["hash"]) == (made.first, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": {"train": "other.csv"}}, "DVC does not track it there"),
        ({"files": {"train": "more"}}, "is a folder; pin one file of it"),
        ({"files": {"train": "../other.csv"}}, "relative and without '..'"),
        ({"dvc": {"rev": "nowhere"}}, "neither a branch nor a tag"),
        ({"dvc": {"branch": "main"}}, "allowed: a mapping with repo, and perhaps rev, remote and connection"),
    ],
)
def test_what_cannot_be_pinned_fails_for_good(made: DvcRepository, options: dict[str, Any], message: str) -> None:
    outcome = pin(made.url, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)


def test_the_connection_opens_the_repository_and_only_its_name_is_kept(made: DvcRepository, server: str) -> None:
    outcome = pin(server, version=made.first, dvc={"connection": "git_tests"})
    assert outcome.state == "success", outcome.error
    data = dvc_data(outcome.xcom["train"]["uri"])
    assert data is not None
    assert (data.repo, data.connection) == (server, "git_tests")
    assert PASSWORD not in json.dumps(outcome.xcom)


# --- fetching ----------------------------------------------------------------------------------------------------
def uri(made: DvcRepository, path: str = "data/train.csv", rev: str = "", repo: str = "", more: str = "") -> str:
    return f"dvc+{repo or made.url}#path={path}&rev={rev or made.first}{more}"


def test_data_of_an_old_commit_is_read_as_it_was(made: DvcRepository) -> None:
    made.data(SECOND)
    frame, used = load_dataset(DatasetPin(uri=uri(made), hash=md5_of(FIRST)))
    assert frame.to_csv(index=False) == FIRST
    assert used.hash == md5_of(FIRST)
    assert used.uri == uri(made)


def test_a_file_of_a_tracked_folder_is_read(made: DvcRepository) -> None:
    frame, used = load_dataset(DatasetPin(uri=uri(made, "more/part.csv")))
    assert frame.to_csv(index=False) == FIRST
    assert used.hash.startswith("sha256:")


def test_data_that_is_not_what_was_pinned_is_refused(made: DvcRepository) -> None:
    wrong = DatasetPin(uri=uri(made), hash=md5_of(SECOND))
    with pytest.raises(DatasetError, match="is not the one that was pinned"), verified_file(wrong):
        pass


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("other.csv", "", "cannot be fetched from its DVC remote: FileNotFoundError"),
        ("more", "", "is a folder"),
        ("data/train.csv", "&remote=nowhere", "cannot be fetched from its DVC remote"),
    ],
)
def test_what_is_not_there_is_refused(made: DvcRepository, tmp_path: Path, path: str, more: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        fetch_dvc(uri(made, path, more=more), tmp_path / "data", {"PATH": "/usr/bin:/bin"})


def test_a_commit_that_is_not_there_is_refused(made: DvcRepository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no commit 1111"):
        fetch_dvc(uri(made, rev="1" * 40), tmp_path / "data", {"PATH": "/usr/bin:/bin"})


def test_data_that_was_never_pushed_is_refused_with_what_to_do(tmp_path: Path) -> None:
    fresh = DvcRepository(tmp_path / "data")
    shutil.rmtree(fresh.remote)
    with pytest.raises(DatasetError, match=r"cannot be fetched from its DVC remote.*dvc push"):
        fetch_dvc(uri(fresh), tmp_path / "fetched", {"PATH": "/usr/bin:/bin"})


def test_a_repository_that_wants_a_login_is_read_with_it_and_only_with_it(
    made: DvcRepository, server: str, tmp_path: Path
) -> None:
    login = {contract.ENV_DATA_GIT_USERNAME: LOGIN, contract.ENV_DATA_GIT_PASSWORD: PASSWORD}
    environ = {"PATH": "/usr/bin:/bin"}
    found = fetch_dvc(uri(made, repo=server), tmp_path / "data", {**environ, **login})
    assert found.read_text() == FIRST
    with pytest.raises(GitAuthError):
        fetch_dvc(uri(made, repo=server), tmp_path / "other", environ)


# --- training ----------------------------------------------------------------------------------------------------
def test_a_script_that_knows_nothing_of_dvc_finds_a_plain_file(world: World, made: DvcRepository, server: str) -> None:
    pinned = pin(server, version=made.first, dvc={"connection": "git_tests"}).xcom["train"]
    check = (
        "import os, pathlib\n"
        f"assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).read_text() == {FIRST!r}\n"
        "assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).name == 'train.csv'\n"
        "assert not [name for name in os.environ if '_GIT_' in name]\n"
    )
    outcome = world.run(
        TrainModelOperator,
        experiment=world.experiment,
        command=world.command("model", script=check + REST_TRAINING),
        dataset=pinned,
    )
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    assert run.tags[contract.TAG_DATA_HASH] == md5_of(FIRST)
    assert run.tags[contract.TAG_DATA_URI] == pinned["uri"]
