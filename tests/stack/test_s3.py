"""The profile ``s3`` of docker-compose.yaml: artifacts in a store whose keys only MLflow has."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.stack.compose import ComposeStack

_ARTIFACT = "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/note.txt"
_LIST = """
import boto3, os
store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
print(*(found["Key"] for found in store.list_objects_v2(Bucket="artifacts")["Contents"]))
"""


@pytest.fixture(scope="module")
def stack() -> Iterator[ComposeStack]:
    """MLflow, and what it needs, with the store."""
    profile = {"COMPOSE_PROFILES": "s3", "STACK_ARTIFACTS": "s3://artifacts"}
    with ComposeStack(f"s3-test-{os.getpid()}", "mlflow", "s3", **profile) as stack:
        yield stack


def test_artifacts_go_through_mlflow_into_the_bucket(stack: ComposeStack) -> None:
    assert httpx.put(f"{stack.mlflow_url}{_ARTIFACT}", content=b"kept", trust_env=False).status_code == 200
    assert httpx.get(f"{stack.mlflow_url}{_ARTIFACT}", trust_env=False).content == b"kept"
    assert stack.execute("mlflow", "python", "-c", _LIST).split() == ["1/run/artifacts/note.txt"]
    assert stack.execute("mlflow", "find", "/mlflow/artifacts", "-type", "f") == ""


def test_the_store_refuses_who_has_no_key_and_has_no_port_outside(stack: ComposeStack) -> None:
    program = "import urllib.request; urllib.request.urlopen('http://s3:8333/artifacts')"
    with pytest.raises(AssertionError, match="403"):
        stack.execute("mlflow", "python", "-c", program)
    ports = {stack.service_of(found): found["HostConfig"]["PortBindings"] for found in stack.containers()}
    assert not ports["s3"]


def test_the_bucket_stays_when_everything_starts_again(stack: ComposeStack) -> None:
    stack.up("mlflow-migrate")
    assert "bucket artifacts exists" in stack.compose("logs", "--no-color", "mlflow-migrate")
