"""A model server that requires passports: it refuses at the start and at a swap, and what answers goes on."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.passport.clearance import Clearance, sign_clearance
from airflow_mcp.core.passport.statement import Sha256
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.registry.governance import NOT_GOVERNED
from airflow_mcp.registry.passports import issue_passport
from tests.support.followed_server import FollowingServer, NumberedVersions, SteadyClient
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


def issue(versions: NumberedVersions, number: str, key: PrivateKey) -> Sha256:
    """Issue the passport of a version, and return its digest."""
    version, by = versions.hook.get_model_version(versions.name, number), Actor.of_user("lena", "tests")
    return issue_passport(versions.hook, version, signer=key, governance=NOT_GOVERNED, by=by).statement.digest


def leave(versions: NumberedVersions, number: str, clearance: str) -> None:
    """Leave a clearance at a version, as a promotion under a policy does."""
    versions.hook.set_model_version_tag(versions.name, number, contract.TAG_CLEARANCE, clearance)


def tampered(clearance: str) -> str:
    """Return a clearance whose environment was changed after it was signed."""
    envelope = json.loads(clearance)
    said = base64.b64decode(envelope["payload"]).replace(b'"test"', b'"prod"')
    return json.dumps({**envelope, "payload": base64.b64encode(said).decode()})


def test_a_server_loads_only_what_has_a_passport_and_a_clearance_and_answers_with_the_old_version_meanwhile(
    versions: NumberedVersions, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    (key, public), (foreign, foreign_public) = key_pair(), key_pair()
    keys, somebodys = tmp_path / "keys.pem", key_pair()[1].public_pem
    keys.write_text(somebodys)
    versions.promote(versions.add())
    uri = f"models:/{versions.name}@champion"
    server = FollowingServer(tmp_path, uri, mlflow_server.url, PASSPORT_KEYS=keys, CLEARANCE="prod", PAIRING="warn")

    def refused(number: str, reason: str) -> None:
        server.wait_for(lambda: reason in str(server.state(number).get("reason", "")))

    def cleared(environment: Literal["test", "prod"], passport: Sha256, signer: PrivateKey = key) -> str:
        return sign_clearance(passport, Clearance(environment=environment, model_name=versions.name), signer)

    with server:
        refused("1", "passport: the version has no passport")
        unready = server.ask("/readyz", None)
        assert (unready.status, "the version has no passport" in unready.json["reason"]) == (503, True)
        assert server.ask().status == 503

        first = issue(versions, "1", key)
        leave(versions, "1", cleared("prod", first))
        refused("1", "no known key has signed")
        keys.write_text(somebodys + public.public_pem)
        versions.hook.set_model_version_tag(versions.name, "1", "airflow_mcp.note", "look again")
        server.wait_for_version("1")

        with SteadyClient(server, connections=1) as client:
            versions.promote(versions.add())  # in MLflow's UI, so nobody has cleared it
            refused("2", "the version has no passport")
            unsigned = "clearance: signature: no known key has signed this statement (keys that it names: {})"
            second = issue(versions, "2", key)
            refused("2", "clearance: the version has none, so it was not promoted under a policy in prod")
            for clearance, reason in (
                (cleared("prod", second, foreign), unsigned.format(foreign_public.key_id[:12])),
                (tampered(cleared("test", second)), unsigned.format(public.key_id[:12])),
                (cleared("test", second), f"clearance: it is of '{versions.name}' in test, not of '{versions.name}'"),
                (cleared("prod", first), f"clearance: it is of passport {first}, and the version has {second}"),
            ):
                leave(versions, "2", clearance)
                refused("2", reason)
            keys.write_text(somebodys)  # ends the key: a file of keys has no dates
            leave(versions, "2", cleared("prod", second))
            refused("2", "no known key has signed")
            assert (server.ask().version, server.ask("/readyz", None).status) == ("1", 200)

            keys.write_text(public.public_pem)
            versions.hook.set_model_version_tag(versions.name, "2", "airflow_mcp.note", "look again")
            server.wait_for_version("2")
        client.require_no_failure()
        assert client.versions == {"1", "2"}
