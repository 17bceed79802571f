"""The init container that fetches code and data, in the manifest of a pod and in how a pod ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.data.dataset import RepositoryData
from airflow_mcp.core.workload.definition import Resources, Workload, WorkloadSource
from airflow_mcp.core.workload.pod import pod_manifest
from airflow_mcp.core.workload.pod_ending import read_ending
from airflow_mcp.core.workload.pod_options import PodOptions
from airflow_mcp.exceptions import InvalidArgumentError

CODE = CodeSource("https://example.com/team/models", "a" * 40, "jobs")
DATA = RepositoryData("dvc", "https://example.com/team/data", "fraud/train.csv", "b" * 40)
LOGIN = {contract.ENV_GIT_PASSWORD: "s3cret"}
WORKLOAD = Workload(
    name="train",
    command=("python", "train.py"),
    env={contract.ENV_DATA_PATH: DATA.uri},
    secret_env={"MLFLOW_TRACKING_PASSWORD": "other"},
    source=WorkloadSource(CODE, "train.py", DATA, LOGIN),
    image="own:1",
    resources=Resources(gpu=1),
    labels={"identity": "abc"},
)


def spec(workload: Workload = WORKLOAD, **options: Any) -> dict[str, Any]:
    given = PodOptions(**{"image": "ours:1", **options})
    return dict(pod_manifest(workload, given, name="p", run_id="r", companion="p")["spec"])


def names(container: dict[str, Any]) -> set[str]:
    return {variable["name"] for variable in container["env"]}


def test_the_login_reaches_the_fetch_alone_and_is_in_no_manifest() -> None:
    (fetch,), (work,) = spec()["initContainers"], spec()["containers"]
    assert contract.ENV_GIT_PASSWORD in names(fetch) - names(work)
    assert "MLFLOW_TRACKING_PASSWORD" in names(work) - names(fetch)
    assert "s3cret" not in str(spec())
    assert WORKLOAD.all_secrets == {"MLFLOW_TRACKING_PASSWORD": "other", **LOGIN}


def test_both_see_the_same_places_and_the_command_runs_in_the_folder_of_the_code() -> None:
    (fetch,), (work,) = spec()["initContainers"], spec()["containers"]
    assert (fetch["image"], work["image"]) == ("ours:1", "own:1")
    assert work["workingDir"] == "/airflow-mcp/source/checkout/jobs"
    for container in (fetch, work):
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert len(given) == len(container["env"])
        assert given[contract.ENV_SOURCE_PATH] == "/airflow-mcp/source/checkout"
        assert given[contract.ENV_DATA_PATH] == "/airflow-mcp/source/data/train.csv"
        assert {"name": "airflow-mcp-source", "mountPath": "/airflow-mcp/source"} in container["volumeMounts"]
    assert fetch["securityContext"] == work["securityContext"]
    assert "nvidia.com/gpu" not in fetch["resources"]["limits"]


def test_an_image_of_its_own_may_do_the_fetch_and_one_is_needed() -> None:
    assert spec(source_image="fetch:1")["initContainers"][0]["image"] == "fetch:1"
    with pytest.raises(InvalidArgumentError, match="no image to fetch code or data with"):
        spec(image=None)


def test_a_pod_without_anything_to_fetch_has_no_init_container() -> None:
    assert "initContainers" not in spec(replace(WORKLOAD, source=None))


def test_a_folder_of_the_worker_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="where no pod sees it"):
        spec(replace(WORKLOAD, folder="/home/me"))


def ending(init: dict[str, Any], main: dict[str, Any]) -> str:
    status = {
        "phase": "Failed",
        "initContainerStatuses": [{"name": "checkout", "state": init}],
        "containerStatuses": [{"name": "base", "state": main}],
    }
    containers = {"initContainers": [{"name": "checkout", "image": "ours:1"}], "containers": [{"name": "base"}]}
    return read_ending({"metadata": {"name": "p"}, "spec": containers, "status": status}).describe()


def test_a_failed_fetch_is_named() -> None:
    text = ending(
        {"terminated": {"exitCode": 2, "reason": "Error", "message": "no such commit"}},
        {"waiting": {"reason": "PodInitializing"}},
    )
    assert text == "pod p ended in its init container 'checkout' with exit code 2: no such commit"


def test_an_image_of_the_fetch_that_cannot_be_pulled_is_named() -> None:
    text = ending({"waiting": {"reason": "ImagePullBackOff"}}, {"waiting": {"reason": "PodInitializing"}})
    assert "in its init container 'checkout'" in text
    assert "image 'ours:1' cannot be pulled" in text


def test_a_fetch_that_went_well_says_nothing_about_the_workload() -> None:
    text = ending({"terminated": {"exitCode": 0}}, {"terminated": {"exitCode": 3, "reason": "Error"}})
    assert text == "pod p ended with exit code 3"
