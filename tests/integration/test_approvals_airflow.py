"""Approvals in a real Airflow: who counts, the race after parking, clear, mark success, restart.

And a rendered pipeline, from its release tag to the champion of prod.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.approvals.events import ReleaseKey
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.signing.keys import PrivateKey
from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import write_stubs
from airflow_mcp.exceptions import ApprovalMissingError
from airflow_mcp.hooks.airflow_api import AirflowApi
from airflow_mcp.hooks.airflow_people import AirflowPeople
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.registry.approvals import ReleaseApprovals
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.guard import Question
from airflow_mcp.registry.passports import issue_passport
from tests.support.airflow_api import AirflowClientError
from tests.support.airflow_stack import ADMIN, READER
from tests.support.bank import DAG_ID, SECONDS, Bank, fab, opened, simple
from tests.support.git_server import Repository
from tests.support.mlflow_world import World
from tests.support.services import MlflowServer

pytestmark = pytest.mark.integration

CREDIT = """
apiVersion: mcp.example.com/v1
kind: ModelPipeline
metadata: {{name: credit, owner: risk}}
spec:
  sourceCode: {{repoUrl: "{url}", revision: main}}
  trainingScript: train.py
  risk: high
  retries: {{delay: 2s}}
  stages:
    - {{name: evaluate, metricsThreshold: {{accuracy: 0.9}}, latencyCalls: 10}}
    - {{name: approval, seats: 4}}
  environments:
    dev: {{sourceCode: {{revision: dev}}}}
    prod: {{sourceCode: {{tags: "v*"}}}}
"""
SCRIPT = """\
import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

features, labels = make_classification(200, 4, random_state=7)
model = LogisticRegression().fit(features, labels)
mlflow.log_metric("accuracy", 0.95)
mlflow.sklearn.log_model(
    model, name="model", input_example=features[:5], serialization_format="cloudpickle", pip_requirements=[]
)
"""
RELEASE = "credit__release"


@pytest.fixture(scope="module", params=[simple, fab], ids=["simple-sqlite", "fab-postgresql"])
def the_bank(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer
) -> Iterator[Bank]:
    with opened(request.param(request, folder := tmp_path_factory.mktemp("approvals")), folder, mlflow_server) as found:
        yield found


@pytest.fixture
def operations(world: World) -> MlflowOperations:
    return world.hook


def test_two_leads_and_compliance_approve_and_airflow_confirms_each(
    the_bank: Bank, operations: MlflowOperations
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key, by="lena")
    the_bank.answer(run, "seat_1", "lena")  # she asked herself
    the_bank.answer(run, "seat_1", "cora")  # not her turn
    the_bank.answer(run, "seat_1", "luis")
    the_bank.answer(run, "seat_2", "rita")
    with pytest.raises(AirflowClientError) as refused:  # the policy has the ID of everybody who may answer this seat
        the_bank.answer(run, "seat_3", "lena")
    assert refused.value.status == 403
    the_bank.answer(run, "seat_3", "cora")
    client = the_bank.client(ADMIN)
    assert client.wait_for_run(DAG_ID, run, SECONDS) == "success"
    assert client.xcom(DAG_ID, run, "seat_3", "by") == "cora"
    state = the_bank.state(key)
    assert state.status == "granted"
    assert [(vote.person, vote.counts) for vote in state.votes] == [
        ("lena", False),
        ("cora", False),
        ("luis", True),
        ("rita", True),
        ("cora", True),
    ]
    assert confirm(the_bank, key, operations) == ("luis", "rita", "cora")
    again = the_bank.ask(key)  # a second run for the same passport asks nobody
    assert client.wait_for_run(DAG_ID, again, SECONDS) == "success"
    client.delete_run(DAG_ID, run)
    with pytest.raises(ApprovalMissingError, match="Airflow does not know such a question"):
        confirm(the_bank, key, operations)


def confirm(the_bank: Bank, key: ReleaseKey, operations: MlflowOperations) -> tuple[str, ...]:
    in_force = read_in_force(the_bank.log)
    assert in_force is not None

    @contextmanager
    def people() -> Iterator[AirflowPeople]:
        with AirflowApi(the_bank.stack.url, user=READER, password=the_bank.stack.passwords[READER]) as api:
            yield AirflowPeople(api)

    version = operations.get_model_version(key.model_name, "1")
    question = Question(key.model_name, key.environment, key.passport, version, in_force)
    return ReleaseApprovals(people).granted(question, the_bank.log).people


def test_marking_success_is_no_vote_a_clear_keeps_the_answers_and_a_delegate_votes(
    the_bank: Bank, operations: MlflowOperations, capsys: pytest.CaptureFixture[str]
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key)
    the_bank.answer(run, "seat_1", "lena")
    the_bank.wait_for(run, "seat_2")
    the_bank.client("dora").set_task_state(DAG_ID, run, "seat_2", "success")
    the_bank.wait_for(run, "seat_3")
    assert "[algorithm-lead]" in the_bank.client("dora").question(DAG_ID, run, "seat_3")["subject"]
    assert len(the_bank.state(key).approvals) == 1
    the_bank.client("rita").clear_task(DAG_ID, run, "seat_1")
    the_bank.wait_for(run, "seat_1", "success")  # lena is not asked again
    assert [vote.person for vote in the_bank.state(key).approvals] == ["lena"]
    the_bank.answer(run, "seat_3", "rita")  # she has cleared a task, and counts as having asked
    the_bank.wait_for(run, "seat_3")
    assert [(vote.person, vote.counts) for vote in the_bank.state(key).votes] == [("lena", True), ("rita", False)]
    seq = delegate(the_bank, "luis", "carl", capsys)
    the_bank.answer(run, "seat_3", "carl")  # compliance, who may not vote for themselves here
    the_bank.wait_for(run, "seat_3", "failed")  # Airflow keeps its question, and compliance needs another: a new run
    assert [(vote.person, vote.why) for vote in the_bank.state(key).approvals[1:]] == [("carl", "for luis")]
    assert the_bank.command("cora", "undelegate", str(seq)) == 1
    assert "'cora' has no role that grants policy/activate" in capsys.readouterr().err
    assert the_bank.command("carl", "undelegate", str(seq)) == 0


def delegate(the_bank: Bank, giver: str, receiver: str, capsys: pytest.CaptureFixture[str]) -> int:
    arguments = ("delegate", receiver, "--until", "2099-01-01T00:00Z", "--role", "algorithm-lead", "--format", "json")
    assert the_bank.command(giver, *arguments) == 0
    given = json.loads(capsys.readouterr().out)
    assert (given["giver"], given["receiver"], given["is_valid"]) == (giver, receiver, True)
    return int(given["seq"])


def test_an_answer_after_the_scheduler_was_killed_counts_and_one_reject_ends_it(
    the_bank: Bank, operations: MlflowOperations
) -> None:
    key = the_bank.version(operations)
    run = the_bank.ask(key)
    the_bank.wait_for(run, "seat_1")
    scheduler = the_bank.stack.component("scheduler")
    scheduler.kill()
    the_bank.answer(run, "seat_1", "lena")
    scheduler.start()
    the_bank.answer(run, "seat_2", "luis", "Reject")
    assert the_bank.client(ADMIN).wait_for_run(DAG_ID, run, SECONDS) == "failed"
    state = the_bank.state(key)
    assert (state.status, state.reason) == ("rejected", "luis rejected it at algorithm-lead: looked at it")
    assert [vote.person for vote in state.approvals] == ["lena"]


@pytest.mark.parametrize("the_bank", [fab], ids=["fab-postgresql"], indirect=True)
def test_a_release_tag_becomes_the_champion_of_prod_once_its_passport_is_approved(
    the_bank: Bank, operations: MlflowOperations, tmp_path: Path
) -> None:
    repository = deployed(the_bank, tmp_path)
    dora, log = the_bank.client("dora"), the_bank.log
    trained = dora.trigger("credit", {"reason": "a better model"})
    assert dora.wait_for_run("credit", trained, SECONDS) == "success"
    assert contract.ALIAS_CHAMPION not in operations.get_registered_model("credit").aliases
    first = f"release__{trained}"  # on behalf of dora, who started the training
    approve(the_bank, first, "seat_1", "lena")  # she wrote the commit
    approve(the_bank, first, "seat_1", "luis")
    the_bank.wait_for(first, "seat_2", dag_id=RELEASE)
    key = release_of(operations)
    assert [(vote.person, vote.counts, vote.why) for vote in the_bank.state(key).votes] == [
        ("lena", False, "lena asked for this release, or for one of its parts"),
        ("luis", True, "role:algorithm-lead"),
    ]

    changed = with_another_passport(the_bank, operations)
    approve(the_bank, first, "seat_2", "rita")  # Airflow still shows the question about the passport before
    assert dora.wait_for_run(RELEASE, first, SECONDS) == "failed"
    second = dora.trigger(RELEASE, {"version": "1", "reason": "with the image of today"})
    the_bank.wait_for(second, "seat_1", dag_id=RELEASE)
    assert not the_bank.state(changed).votes  # luis has approved another passport
    approve(the_bank, second, "seat_1", "luis")
    approve(the_bank, second, "seat_2", "rita")
    with pytest.raises(AirflowClientError) as refused:
        approve(the_bank, second, "seat_3", "rita")
    assert refused.value.status == 403
    approve(the_bank, second, "seat_3", "cora")
    the_bank.wait_for(second, "seat_4", dag_id=RELEASE)

    commit = repository.git("rev-parse", "v1.0.0")
    repository.git("tag", "--delete", "v1.0.0")
    approve(the_bank, second, "seat_4", "rosa")
    assert dora.wait_for_run(RELEASE, second, SECONDS) == "failed"
    repository.git("tag", "v1.0.0", repository.commit(f"{SCRIPT}# other code"))
    promoted_again(the_bank, second, "failed")
    refusals = log.facts(model_subject("credit"), "promotion.refused")
    (deleted,), (moved_away,) = (each.event["new"]["reasons"] for each in refusals)
    assert deleted.startswith("the release tag v1.0.0 cannot be checked")
    assert moved_away.startswith(f"the release tag v1.0.0 of {repository.url} was moved")
    assert contract.ALIAS_CHAMPION not in operations.get_registered_model("credit").aliases

    repository.git("tag", "--force", "v1.0.0", commit)
    promoted_again(the_bank, second, "success")
    promoted_again(the_bank, second, "success")  # and nothing is moved a second time
    version = operations.get_model_version_by_alias("credit", contract.ALIAS_CHAMPION)
    assert version.tags[contract.TAG_CODE_REF] == "refs/tags/v1.0.0"
    assert version.tags[contract.TAG_CODE_COMMIT] == commit
    assert contract.TAG_CLEARANCE in version.tags
    (intent,) = log.facts(model_subject("credit"), "registry.move_intended")
    (moved,) = log.facts(model_subject("credit"), "registry.moved")
    votes = the_bank.state(changed).approvals
    assert [vote.person for vote in votes] == ["luis", "rita", "cora", "rosa"]
    assert set(intent.event["refs"]) >= {vote.vote.seq for vote in votes}
    assert intent.event["actor"]["name"] == "dora"
    assert (intent.event["inputs"]["passport"], moved.event["new"]["champion"]) == (changed.passport, "1")


def deployed(the_bank: Bank, folder: Path) -> Repository:
    """Put a pipeline file into the folder of Dags, and its code with a release tag into a repository."""
    repository = Repository(folder / "credit")
    repository.commit(SCRIPT)
    repository.git("tag", "v1.0.0")
    pipelines = the_bank.stack.dags_folder / "pipelines"
    pipelines.mkdir()
    (pipelines / "credit.yaml").write_text(CREDIT.format(url=repository.url))
    write_stubs(load_pipeline_folder(pipelines, "prod"), pipelines, the_bank.stack.dags_folder)
    for dag_id in ("credit", RELEASE):
        the_bank.client(ADMIN).wait_for_dag(dag_id)
    return repository


def approve(the_bank: Bank, run_id: str, task_id: str, account: str) -> None:
    the_bank.answer(run_id, task_id, account, dag_id=RELEASE)


def promoted_again(the_bank: Bank, run_id: str, state: str) -> None:
    """Let the last task of a release run again."""
    the_bank.client("dora").clear_task(RELEASE, run_id, "promote")
    assert the_bank.client("dora").wait_for_run(RELEASE, run_id, SECONDS) == state


def release_of(operations: MlflowOperations) -> ReleaseKey:
    version = operations.get_model_version("credit", "1")
    return ReleaseKey("credit", "prod", version.tags[contract.TAG_PASSPORT])


def with_another_passport(the_bank: Bank, operations: MlflowOperations) -> ReleaseKey:
    """Change what is recorded about the version, and issue the passport that fits it."""
    version, image = operations.get_model_version("credit", "1"), "registry.example/train:2"
    operations.set_tag(version.run_id, contract.TAG_IMAGE, image)
    operations.set_model_version_tag("credit", "1", contract.TAG_IMAGE, image)
    governance = Governance(environment="prod", open_log=lambda: open_log(the_bank.logs.as_login("mcp_train")))
    by, signer = Actor.of_user("tests", "tests", account="dora"), PrivateKey(the_bank.private_key)
    issue_passport(operations, operations.get_model_version("credit", "1"), signer=signer, governance=governance, by=by)
    return release_of(operations)
