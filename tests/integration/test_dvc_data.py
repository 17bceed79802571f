"""Data that DVC tracks: pinned by the control plane, fetched by the work plane, in a real repository with a remote."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import md5, sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError, GitAuthError, SourceError
from airflow_mcp.operators.dataset import PinDatasetOperator
from airflow_mcp.operators.training import TrainModelOperator
from airflow_mcp.work.reading.dataset_frame import load_dataset
from airflow_mcp.work.reading.pinned_file import verified_file
from airflow_mcp.work.sources import data_hash
from airflow_mcp.work.sources.data_hash import stream_hash
from airflow_mcp.work.sources.repository_data import fetch_data
from tests.support.dvc_repository import FIRST, DvcRepository
from tests.support.git_server import LOGIN, PASSWORD, GitHttpServer
from tests.support.mlflow_world import REST_TRAINING, World
from tests.support.task_harness import FakeSupervisor, TaskOutcome, run_task

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
    dvc = {"repo_url": repo, **options.pop("dvc", {})}
    supervisor = options.pop("supervisor", None)
    given = {"task_id": "pin", "dvc": dvc, "files": {"train": "data/train.csv"}, "retries": 1, **options}
    return run_task(PinDatasetOperator(**given), supervisor=supervisor)


def md5_of(text: str) -> str:
    return f"md5:{md5(text.encode(), usedforsecurity=False).hexdigest()}"


# --- pinning -----------------------------------------------------------------------------------------------------
def test_a_moved_branch_gives_another_pin_and_an_old_commit_the_old_one(made: DvcRepository) -> None:
    first = pin(made.url, dvc={"revision": made.first})
    moved = made.data(SECOND)
    second = pin(made.url)
    assert (first.result["version"], second.result["version"]) == (made.first, moved)
    assert first.xcom["train"]["hash"] == md5_of(FIRST)
    assert second.xcom["train"] == {
        "uri": f"dvc+{made.url}#path=data/train.csv&rev={moved}",
        "version": moved,
        "hash": md5_of(SECOND),
        "size": len(SECOND),
        "remote": str(made.kept(moved, "data/train.csv")),
        "ref": "refs/heads/main",
    }
    assert first.result["hash"] != second.result["hash"]
    assert pin(made.url, version=made.first, dvc={"revision": "main"}).result == first.result


def test_a_commit_that_leaves_the_data_alone_leaves_the_hash_alone(made: DvcRepository) -> None:
    before = pin(made.url)
    made.commit("anything", "README.md")
    after = pin(made.url)
    assert before.result["version"] != after.result["version"]
    assert before.result["hash"] == after.result["hash"]


def test_a_file_of_a_tracked_folder_is_pinned_by_the_hash_in_the_list_of_the_folder(made: DvcRepository) -> None:
    outcome = pin(made.url, files={"train": "more/part.csv"}, version=made.first)
    assert (outcome.xcom["train"]["version"], outcome.xcom["train"]["hash"]) == (made.first, md5_of(FIRST))
    unchecked = pin(made.url, files={"train": "more/part.csv"}, version=made.first, dvc={"verify": False})
    assert unchecked.xcom["train"]["hash"] == "", "nothing is asked of the remote"


def test_a_folder_is_pinned_by_the_hash_of_all_its_files(made: DvcRepository) -> None:
    pinned = pin(made.url, files={"train": "more"}, version=made.first).xcom["train"]
    assert pinned["hash"].endswith(".dir")
    assert pinned["size"] == len(FIRST)
    assert pinned["remote"] == str(made.kept(made.first, "more"))


def test_content_that_the_remote_lacks_is_not_pinned(made: DvcRepository, tmp_path: Path) -> None:
    fresh = made.copy(tmp_path / "data")
    fresh.kept(fresh.first, "data/train.csv").unlink()
    refused = pin(fresh.url)
    assert refused.state == "failed"
    assert "does not hold 'data/train.csv'" in str(refused.error)
    assert "dvc push" in str(refused.error)
    assert pin(fresh.url, files={"train": "more"}).state == "failed", "the folder's only file has the same content"
    assert pin(fresh.url, dvc={"verify": "false"}).state == "success"
    shutil.rmtree(fresh.remote)
    assert pin(fresh.url, files={"train": "more/part.csv"}).state == "failed"


def test_a_remote_on_a_web_server_is_asked_and_one_that_nobody_can_ask_refuses(
    made: DvcRepository, tmp_path: Path
) -> None:
    fresh = made.copy(tmp_path / "data")
    handler = partial(SimpleHTTPRequestHandler, directory=str(fresh.remote))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        fresh.move_remote(f"http://127.0.0.1:{web.server_port}")
        pinned = pin(fresh.url, files={"train": "data/train.csv", "part": "more/part.csv", "all": "more"})
        assert pinned.state == "success", pinned.error
        assert pinned.xcom["part"]["remote"].startswith(f"http://127.0.0.1:{web.server_port}/files/md5/")
        fresh.kept(fresh.first, "data/train.csv").unlink()
        assert "does not hold" in str(pin(fresh.url).error)
        web.shutdown()
    gone = pin(fresh.url)
    assert (gone.state, "does not answer" in str(gone.error)) == ("up_for_retry", True)
    fresh.move_remote("ssh://example.com/dvc")
    refused = pin(fresh.url)
    assert refused.state == "failed"
    assert "Set verify: false" in str(refused.error)


def test_a_tag_that_moved_to_other_data_is_refused_until_the_move_is_accepted(
    made: DvcRepository, tmp_path: Path
) -> None:
    made = made.copy(tmp_path / "data")
    made.tag("v2.1", made.first)
    supervisor = FakeSupervisor()
    by_tag: dict[str, Any] = {"version": "v2.1", "supervisor": supervisor}
    first = pin(made.url, **by_tag)
    assert first.xcom["train"]["ref"] == "refs/tags/v2.1"
    made.tag("v2.1", made.commit("about the data", "README.md"))
    same = pin(made.url, **by_tag)
    assert same.state == "success", "the tag has moved, the data are the same"
    made.tag("v2.1", made.data(SECOND))
    for _ in range(2):
        refused = pin(made.url, **by_tag)
        assert refused.state == "failed"
        assert f"was {md5_of(FIRST)} at commit {same.result['version']}, is {md5_of(SECOND)}" in str(refused.error)
    assert pin(made.url, version=made.first, supervisor=supervisor).state == "success", "a commit does not move"
    assert pin(made.url, on_moved_tag="accept", **by_tag).state == "success"
    assert pin(made.url, **by_tag).state == "success", "what was accepted is what counts from now on"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": {"train": "other.csv"}}, "DVC does not track it there"),
        ({"files": {"train": "more/other.csv"}}, "the tracked folder has no file 'other.csv'"),
        ({"dvc": {"remote": "nowhere"}}, "has no remote 'nowhere' with a url. Known remotes: store"),
        ({"dvc": {"verify": "perhaps"}}, "dvc.verify must be true or false; got 'perhaps'"),
        ({"files": {"train": "../other.csv"}}, "relative and without '..'"),
        ({"dvc": {"revision": "nowhere"}}, "neither a branch nor a tag"),
        ({"dvc": {"branch": "main"}}, "a mapping with repo_url, optionally revision, remote, git_conn_id, verify"),
    ],
)
def test_what_cannot_be_pinned_fails_for_good(made: DvcRepository, options: dict[str, Any], message: str) -> None:
    outcome = pin(made.url, **options)
    assert outcome.state == "failed"
    assert message in str(outcome.error)


def test_the_connection_opens_the_repository_and_only_its_name_is_kept(made: DvcRepository, server: str) -> None:
    outcome = pin(server, version=made.first, dvc={"git_conn_id": "git_tests"})
    assert outcome.state == "success", outcome.error
    data = repository_data(outcome.xcom["train"]["uri"])
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


def test_a_folder_is_fetched_whole_and_checked_by_its_hash(made: DvcRepository, tmp_path: Path) -> None:
    pinned = DatasetPin(**pin(made.url, files={"train": "more"}, version=made.first).xcom["train"])
    with verified_file(pinned) as (folder, used):
        assert {path.name: path.read_text() for path in folder.iterdir()} == {"part.csv": FIRST}
        assert used.hash == pinned.hash
    copy = tmp_path / "more"
    fetch_data(pinned.uri, copy, {"PATH": "/usr/bin:/bin"})
    local = DatasetPin(uri=str(copy), hash=pinned.hash)
    with verified_file(local) as (_, used):
        assert used.hash == pinned.hash
    (copy / "extra.csv").write_text("a")
    with pytest.raises(DatasetError, match="is not the one that was pinned"), verified_file(local):
        pass


def test_the_bytes_are_hashed_once_by_each_algorithm(made: DvcRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def watched(stream: IO[bytes], algorithm: str) -> tuple[str, int]:
        hashed.append(algorithm)
        return stream_hash(stream, algorithm)

    monkeypatch.setattr(data_hash, "stream_hash", watched)
    folder = DatasetPin(**pin(made.url, files={"train": "more"}, version=made.first).xcom["train"])
    plain = DatasetPin(uri=uri(made))
    for pinned, once in ((plain.model_copy(update={"hash": md5_of(FIRST)}), ["md5"]), (folder, ["md5"])):
        hashed.clear()
        with verified_file(pinned) as (_, used):
            assert (used.hash, hashed) == (pinned.hash, once)
    hashed.clear()
    with verified_file(plain) as (_, used):
        assert used.hash == f"sha256:{sha256(FIRST.encode()).hexdigest()}"
        assert hashed == ["md5", "sha256"]


def test_data_that_is_not_what_was_pinned_is_refused(made: DvcRepository) -> None:
    wrong = DatasetPin(uri=uri(made), hash=md5_of(SECOND))
    with pytest.raises(DatasetError, match="is not the one that was pinned"), verified_file(wrong):
        pass


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        ("other.csv", "", "cannot be fetched from its DVC remote: FileNotFoundError"),
        ("data/train.csv", "&remote=nowhere", "cannot be fetched from its DVC remote"),
    ],
)
def test_what_is_not_there_is_refused(made: DvcRepository, tmp_path: Path, path: str, more: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        fetch_data(uri(made, path, more=more), tmp_path / "data", {"PATH": "/usr/bin:/bin"})


def test_a_commit_that_is_not_there_is_refused(made: DvcRepository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no commit 1111"):
        fetch_data(uri(made, rev="1" * 40), tmp_path / "data", {"PATH": "/usr/bin:/bin"})


def test_data_that_was_never_pushed_is_refused_with_what_to_do(made: DvcRepository, tmp_path: Path) -> None:
    fresh = made.copy(tmp_path / "data")
    shutil.rmtree(fresh.remote)
    with pytest.raises(DatasetError, match=r"cannot be fetched from its DVC remote.*dvc push"):
        fetch_data(uri(fresh), tmp_path / "fetched", {"PATH": "/usr/bin:/bin"})


def test_a_repository_that_wants_a_login_is_read_with_it_and_only_with_it(
    made: DvcRepository, server: str, tmp_path: Path
) -> None:
    login = {contract.ENV_DATA_GIT_USERNAME: LOGIN, contract.ENV_DATA_GIT_PASSWORD: PASSWORD}
    environ = {"PATH": "/usr/bin:/bin"}
    fetch_data(uri(made, repo=server), tmp_path / "data", {**environ, **login})
    assert (tmp_path / "data").read_text() == FIRST
    with pytest.raises(GitAuthError):
        fetch_data(uri(made, repo=server), tmp_path / "other", environ)


# --- training ----------------------------------------------------------------------------------------------------
def test_a_script_that_knows_nothing_of_dvc_finds_a_plain_file(world: World, made: DvcRepository, server: str) -> None:
    pinned = pin(server, version=made.first, dvc={"git_conn_id": "git_tests"}).xcom["train"]
    check = (
        "import os, pathlib\n"
        f"assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).read_text() == {FIRST!r}\n"
        "assert pathlib.Path(os.environ['AIRFLOW_MCP_DATA_PATH']).name == 'train.csv'\n"
        "assert not [name for name in os.environ if '_GIT_' in name]\n"
    )
    outcome = world.run(
        TrainModelOperator,
        experiment_name=world.experiment,
        command=world.command("model", script=check + REST_TRAINING),
        dataset=pinned,
    )
    assert outcome.state == "success", outcome.error
    (run,) = world.runs("FINISHED")
    assert run.tags[contract.TAG_DATA_HASH] == md5_of(FIRST)
    assert run.tags[contract.TAG_DATA_URI] == pinned["uri"]
