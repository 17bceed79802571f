"""A model server that requires passports: it refuses at the start and at a swap, and what answers goes on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.passport.clearance import Clearance, sign_clearance
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.passports import issue_passport
from tests.support.followed_server import FollowingServer, NumberedVersions
from tests.support.passports import key_pair
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration


@pytest.fixture
def versions(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NumberedVersions]:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_SERVING", json.dumps({"conn_type": "mlflow", "host": mlflow_server.url}))
    hook = MlflowHook("mlflow_serving")
    yield NumberedVersions(mlflow_server, hook, f"passports-{uuid.uuid4().hex[:8]}", tmp_path)
    hook.close()


def clear(versions: NumberedVersions, number: str, key: PrivateKey) -> None:
    """Issue the passport of a version, and the clearance that a promotion under a policy leaves."""
    hook = versions.hook
    version = hook.get_model_version(versions.name, number)
    by = Actor.of_user("lena", "tests")
    digest = issue_passport(hook, version, signer=key, governance=NOT_GOVERNED, by=by).statement.digest
    clearance = Clearance(environment="prod", model_name=versions.name)
    hook.set_model_version_tag(versions.name, number, contract.TAG_CLEARANCE, sign_clearance(digest, clearance, key))


def test_a_server_loads_only_what_has_a_passport_and_a_clearance(
    versions: NumberedVersions, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    key, public = key_pair()
    keys = tmp_path / "keys.pem"
    keys.write_text(key_pair()[1].public_pem)  # of somebody else
    versions.promote(versions.add())
    uri = f"models:/{versions.name}@champion"
    server = FollowingServer(tmp_path, uri, mlflow_server.url, PASSPORT_KEYS=keys, CLEARANCE="prod", PAIRING="warn")

    def refused(number: str, reason: str) -> bool:
        return reason in str(server.state(number).get("reason", ""))

    with server:
        server.wait_for(lambda: refused("1", "passport: the version has no passport"))
        unready = server.ask("/readyz", None)
        assert (unready.status, "the version has no passport" in unready.json["reason"]) == (503, True)
        assert server.ask().status == 503

        clear(versions, "1", key)  # by a key that the server does not know
        server.wait_for(lambda: refused("1", "no known key has signed"))
        keys.write_text(keys.read_text() + public.public_pem)
        versions.hook.set_model_version_tag(versions.name, "1", "airflow_mcp.note", "look again")
        server.wait_for_version("1")

        versions.promote(versions.add())  # in MLflow's UI, so nobody has cleared it
        server.wait_for(lambda: refused("2", "the version has no passport"))
        assert (server.ask().version, server.ask("/readyz", None).status) == ("1", 200)

        clear(versions, "2", key)
        server.wait_for_version("2")
