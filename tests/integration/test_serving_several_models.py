"""A server of two models that polls once in ten minutes, so that whatever it notices came by MLflow's webhook."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.hooks.mlflow import MlflowHook
from tests.support.followed_server import FollowingServer, NumberedVersions, SteadyClient
from tests.support.services import LOOPBACK, MlflowServer

SECRET = "a-secret-of-the-webhook"
EVENTS = ("model_version_alias.created", "model_version_tag.set")
POLL_SECONDS = 600


class Served:
    """The server, its models and the client that asks for the first one all the time."""

    def __init__(self, server: FollowingServer, first: NumberedVersions, second: NumberedVersions) -> None:
        self.server, self.first, self.second = server, first, second

    def version(self, model: NumberedVersions) -> str:
        """Return the version of a model that answers."""
        inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [0.5]} for name in ("x1", "x2")]
        answer = self.server.ask(f"/v2/models/{model.name}/infer", json.dumps({"inputs": inputs}).encode())
        assert answer.status == 200
        assert answer.json["model_name"] == model.name
        assert [str(output["data"][0]) for output in answer.json["outputs"]] == [answer.version]
        return answer.version

    def state(self, model: NumberedVersions, number: str) -> Any:
        """Return what the server says about a version."""
        return self.server.status()["registry"]["versions"].get(f"{model.name}/{number}", {})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("several")
    allowed = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",  # otherwise MLflow remembers for a minute that there was no webhook
    }
    with MlflowServer(folder, env=allowed) as mlflow:
        os.environ["AIRFLOW_CONN_MLFLOW_SEVERAL"] = json.dumps({"conn_type": "mlflow", "host": mlflow.url})
        hook = MlflowHook("mlflow_several")
        names = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("fraud", "churn")]
        models = [NumberedVersions(mlflow, hook, name, folder / name) for name in names]
        for model in models:
            model.add()
            model.promote("1")
        server = FollowingServer(
            folder,
            ",".join(f"models:/{model.name}@champion" for model in models),
            mlflow.url,
            DEFAULT_MODEL=models[0].name,
            WEBHOOK_SECRET=SECRET,
            POLL_SECONDS=POLL_SECONDS,
        )
        create_webhook(mlflow, f"http://{LOOPBACK}:{server.port}/hooks/mlflow")
        with server:
            server.wait_for(lambda: server.ask("/readyz", None).status == 200)
            yield Served(server, *models)
        hook.close()
    del os.environ["AIRFLOW_CONN_MLFLOW_SEVERAL"]


def create_webhook(mlflow: MlflowServer, address: str) -> None:
    """Let MLflow call an address for every event that a model server looks at."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow.url, mlflow.url)
    client.create_webhook(name="model-server", url=address, events=list(EVENTS), secret=SECRET)


@pytest.fixture
def client(served: Served) -> Iterator[SteadyClient]:
    """Asks for the first model during the whole test, in which no request may fail."""
    with SteadyClient(served.server) as client:
        yield client
        served.server.wait_for(lambda: len(client.answers) > 10)
    client.require_no_failure()


def test_each_model_is_asked_by_its_path_and_the_default_one_by_its_protocol(served: Served) -> None:
    assert (served.version(served.first), served.version(served.second)) == ("1", "1")
    assert served.server.ask().json["model"] == {"name": served.first.name, "version": "1"}
    assert served.server.ask("/v2/models/nobody/infer", b"{}").status == 404
    assert served.server.ask(f"/v2/models/{served.second.name}/ready", None).status == 200


def test_a_webhook_puts_an_alias_and_a_split_in_force_long_before_the_next_look(
    served: Served, client: SteadyClient
) -> None:
    number = served.first.add()
    served.first.promote(number)
    served.server.wait_for_version(number)
    assert served.version(served.second) == "1"

    split = {"identity": "r1", "generation": 1, "phase": "PROGRESSING", "stable": number, "canary": "1", "weight": 100}
    document = json.dumps({"schema": "airflow_mcp/rollout/1", **split})
    served.first.hook.set_model_version_tag(served.first.name, number, TAG_ROLLOUT, document)
    served.server.wait_for(lambda: served.server.ask().role == "canary")
    served.first.hook.set_model_version_tag(served.first.name, number, TAG_ROLLOUT, "")
    served.server.wait_for(lambda: served.server.ask().role == "champion")
    assert served.server.status()["registry"]["problems"] == {}


def test_a_model_that_fails_does_not_disturb_the_other(served: Served, client: SteadyClient) -> None:
    number = served.second.add(change=lambda folder: (folder / "model.pkl").write_bytes(b"torn") and None)
    served.second.promote(number)
    served.server.wait_for(lambda: served.state(served.second, number).get("state") == "FAILED")
    assert "load:" in served.state(served.second, number)["reason"]
    assert served.version(served.second) == "1"
    assert served.server.ask("/readyz", None).status == 200
