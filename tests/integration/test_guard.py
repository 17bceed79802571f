"""The guard in the door to the registry, with a policy in force: every reason to refuse, and nothing written before.

A real MLflow and a real audit log: prod in PostgreSQL, which prod requires, and test in SQLite. Who is behind a task is
said by the test here; ``test_access_airflow.py`` lets Airflow say it.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli import main
from airflow_mcp.core import contract
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.approvals.events import APPROVE, Answer, Asked, ReleaseKey
from airflow_mcp.core.approvals.policy import ApprovalPolicy, ApprovedAct
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.record import record_hash
from airflow_mcp.core.conformity.moves import MoveCheck
from airflow_mcp.core.identity import TaskKey
from airflow_mcp.core.passport.clearance import verify_clearance
from airflow_mcp.core.registry.load_check import LoadCheckRule
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.serving.passports import why_no_passport
from airflow_mcp.core.serving.traffic import TAG_ROLLOUT
from airflow_mcp.exceptions import (
    AccessRefusedError,
    ApprovalMissingError,
    AuditUnavailableError,
    InvalidArgumentError,
    PassportError,
    RefusedError,
)
from airflow_mcp.hooks.git import GitRepositories
from airflow_mcp.operators.copy import CopyModelVersionOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from airflow_mcp.operators.rollout import RolloutModelOperator
from airflow_mcp.operators.stages import TransitionModelStageOperator
from airflow_mcp.registry.approvals import ReleaseApprovals, ReleaseBook
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.reconcile import missing_events
from airflow_mcp.registry.rollback import Rollback, roll_back
from airflow_mcp.registry.rollout_control import RolloutControl
from airflow_mcp.registry.rollouts import RolloutStore
from tests.support.audit_log import postgresql_logs, sqlite_logs
from tests.support.git_server import Repository, new_ssh_key
from tests.support.governed import Governed, policy_of
from tests.support.mlflow_world import World
from tests.support.passports import FILES, key_pair
from tests.support.services import LOOPBACK

pytestmark = pytest.mark.integration

LOG = logging.getLogger("guard")
ACTS = ("promote", "stage", "copy", "rollout")
WITH_PASSPORT = ("promote", "copy", "rollout")
LEAD = {"name": "lead", "approvers": ["role:viewer"]}


@pytest.fixture
def prod(world: World, postgresql: str) -> Iterator[Governed]:
    """Environment prod, with a log in PostgreSQL."""
    with postgresql_logs(postgresql) as logs:
        yield Governed(world, logs, "prod")


@pytest.fixture
def in_test(world: World, tmp_path: Path) -> Governed:
    """Environment test, with a log in SQLite."""
    return Governed(world, sqlite_logs(tmp_path), "test")


@pytest.fixture(params=["prod", "in_test"])
def governed(request: pytest.FixtureRequest) -> Governed:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def perform(governed: Governed, act: str, governance: Governance, version: str = "1") -> None:
    """Let an operator do it; raise what it was refused with.

    A rollout needs a champion: the version itself is then the second one.
    """
    world = governed.world
    arguments: dict[str, Any] = {"model_name": world.model_name, "version": version}
    operator: type[Any] = PromoteModelOperator
    if act == "promote":
        arguments |= {"expected_champion": world.aliases.get("champion", "none")}
    elif act == "stage":
        operator, arguments = TransitionModelStageOperator, {**arguments, "stage": "Staging"}
    elif act == "copy":
        operator = CopyModelVersionOperator
        arguments |= {"target_model_name": f"{world.model_name}-copy", "experiment_name": world.experiment}
        arguments |= {"runtime": "local"}
    else:
        operator = RolloutModelOperator
        arguments |= {"expected_champion": "1", "experiment_name": world.experiment}
        arguments |= {
            "deferrable": True,
            "connections": {"model_server_default": {"conn_type": "model_server", "host": LOOPBACK}},
        }
    outcome = world.run(operator, before=lambda made: made.__dict__.update(governance=governance), **arguments)
    if isinstance(outcome.error, Exception) and isinstance(outcome.error.__cause__, RefusedError):
        raise outcome.error.__cause__
    assert outcome.state in ("success", "deferred"), outcome.error


def prepared(governed: Governed, **version: Any) -> str:
    """Make version 1 the champion, so that a rollout can begin; register another version and return its number."""
    governed.version(has_passport=False)
    governed.world.hook.set_alias(governed.world.model_name, "champion", "1")
    return governed.version(**version).version


def refused(
    governed: Governed, governance: Governance, version: str, *acts: str, error: type[RefusedError]
) -> dict[str, list[str]]:
    """Let each act be refused, and return the reasons in its event; nothing may have been written before."""
    before, found = governed.registry(), {}
    for act in acts:
        known = len(refusals(governed))
        with pytest.raises(error) as raised:
            perform(governed, act, governance, version)
        assert governed.registry() == before
        assert governed.world.claims == []
        copies = f"name = '{governed.world.model_name}-copy'"
        assert governed.world.hook.search_model_versions(copies) == []
        (event,) = refusals(governed)[known:]
        assert event["new"]["act"] == act
        assert event["action"] == ("access.refused" if act in ("stage", "copy") else "promotion.refused")
        assert (event["environment"], event["new"]["versions"]) == (
            governed.environment,
            [] if act == "stage" else [version],
        )
        found[act] = list(event["new"]["reasons"])
        assert all(reason in str(raised.value) for reason in found[act])
    return found


def refusals(governed: Governed) -> list[dict[str, Any]]:
    """Return the events of refusals, oldest first."""
    return [dict(one.event) for one in governed.records() if one.event["action"].endswith(".refused")]


class TestWhoMayNot:
    def test_who_lacks_the_role_is_refused(self, governed: Governed) -> None:
        governed.activate()
        found = refused(governed, governed.governance("dora"), prepared(governed), *ACTS, error=AccessRefusedError)
        name = governed.world.model_name
        expected = {act: [f"'dora' has no role that grants model:{name}/{act}"] for act in ACTS}
        expected["copy"] = [f"'dora' has no role that grants model:{name}-copy/copy"]
        assert found == expected
        assert {event["actor"]["name"] for event in refusals(governed)} == {"dora"}

    def test_who_may_not_deploy_there_is_refused(self, prod: Governed) -> None:
        prod.activate()
        found = refused(prod, prod.governance("eva"), prepared(prod), *ACTS, error=AccessRefusedError)
        assert found == {act: ["'eva' has no role that grants environment:prod/deploy"] for act in ACTS}

    def test_nobody_is_refused(self, prod: Governed) -> None:
        prod.activate()
        found = refused(prod, prod.governance(""), prepared(prod), *ACTS, error=AccessRefusedError)
        assert found == {act: ["nobody knows who asks: nobody asked Airflow"] for act in ACTS}

    def test_a_name_that_nobody_checked_is_enough_in_test_and_not_in_prod(self, governed: Governed) -> None:
        who = Requester(account="ada", doubt="a task knows only a name")
        governed.activate()
        version = prepared(governed)
        named = governed.governance(requester=lambda _: who)
        if governed.environment == "prod":
            found = refused(governed, named, version, "promote", error=AccessRefusedError)
            assert found == {"promote": ["nobody knows who asks: a task knows only a name"]}
            return
        perform(governed, "promote", named, version)
        (intent,) = governed.records("registry.move_intended")
        assert (intent.event["actor"]["name"], intent.event["actor"]["authenticated"]) == ("ada", False)

    def test_whoever_made_the_task_run_again_needs_the_permission_too(self, governed: Governed) -> None:
        governed.activate()
        version = prepared(governed)
        for begun_by in ({"account": "ada"}, {"pipeline": "nightly"}):
            who = Requester(**begun_by, cleared_by=("dora", "ada-second"))
            cleared = governed.governance(requester=lambda _, who=who: who)
            found = refused(governed, cleared, version, *ACTS, error=AccessRefusedError)
            assert [[said.split()[0] for said in reasons] for reasons in found.values()] == [["'dora'"]] * len(ACTS)

    def test_a_dag_that_acts_for_nobody_is_bound_by_its_name(self, prod: Governed) -> None:
        prod.activate()
        version = prepared(prod)
        other = prod.governance(requester=lambda _: Requester(pipeline="weekly"))
        assert "'weekly' has no" in refused(prod, other, version, "promote", error=AccessRefusedError)["promote"][0]
        perform(prod, "promote", prod.governance(requester=lambda _: Requester(pipeline="nightly")), version)
        (intent,) = prod.records("registry.move_intended")
        assert (intent.event["actor"]["kind"], intent.event["actor"]["authenticated"]) == ("system", True)

    def test_a_rollback_and_the_end_of_a_rollout_are_asked_too(self, prod: Governed) -> None:
        prod.activate()
        world = prod.world
        for _ in range(2):
            perform(prod, "promote", prod.governance(), prod.version().version)
        with pytest.raises(AccessRefusedError, match="dora"):
            roll_back(world.hook, rollback_of(world), log=LOG, governance=prod.governance("dora"))
        assert world.aliases["champion"] == "2"
        roll_back(world.hook, rollback_of(world), log=LOG, governance=prod.governance())
        assert world.aliases["champion"] == "1"
        progressing(prod, prod.governance(), prod.version().version)
        for account, act in itertools.product(("dora", "eva"), ("pause", "abort")):
            with pytest.raises(AccessRefusedError, match=account):
                getattr(control(prod, account), act)("tests")
        assert control(prod, "ada").pause("tests").phase == "WAITING"
        assert control(prod, "ada").abort("tests").phase == "FAILED"


def control(governed: Governed, account: str = "ada", **changes: Any) -> RolloutControl:
    actor = Actor.of_user(account, "tests", account=account)
    governance = governed.governance(account, **changes)
    return RolloutControl(governed.world.hook, governed.world.model_name, actor=actor, log=LOG, governance=governance)


def progressing(governed: Governed, governance: Governance, version: str) -> None:
    """Begin a rollout, and give its version a share of the requests."""
    perform(governed, "rollout", governance, version)
    begun = store(governed).read().document
    assert begun is not None
    store(governed).write(begun.model_copy(update={"phase": "PROGRESSING"}), expected=begun.generation)


def store(governed: Governed) -> RolloutStore:
    actor = Actor.of_user("ada", "tests", account="ada")
    return RolloutStore(governed.world.hook, governed.world.model_name, actor=actor, log=LOG)


def rollback_of(world: World, identity: str = "back") -> Rollback:
    order = MoveOrder("rollback", identity, Actor.of_user("ada", "tests", account="ada"), "worse")
    return Rollback(order=order, model_name=world.model_name, rule=LoadCheckRule(is_required=False))


class TestThePassport:
    def test_a_version_without_one_is_refused(self, governed: Governed) -> None:
        governed.activate()
        version = prepared(governed, has_passport=False)
        found = refused(governed, governed.governance(), version, *WITH_PASSPORT, error=PassportError)
        assert found == {act: ["the version has no passport"] for act in WITH_PASSPORT}

    def test_a_version_that_was_changed_since_is_refused(self, prod: Governed) -> None:
        prod.activate()
        version, hook = prepared(prod), prod.world.hook
        made = hook.get_model_version(prod.world.model_name, version)
        hook.set_tag(made.run_id, contract.TAG_CODE_COMMIT, "0" * 40)
        hook.set_model_version_tag(made.name, version, contract.TAG_CODE_COMMIT, "0" * 40)
        found = refused(prod, prod.governance(), version, *WITH_PASSPORT, error=PassportError)
        for (reason,) in found.values():
            assert f"code.commit is {'c' * 40} in the passport, and {'0' * 40} now" in reason

    def test_a_release_tag_needs_the_signature_that_the_policy_asks_for(self, prod: Governed, tmp_path: Path) -> None:
        code, key = Repository(tmp_path / "code"), new_ssh_key(tmp_path / "vera")
        commit = code.commit("print(1)")
        code.git("tag", "-a", "v1.2", "-m", "release")
        people = {"ada": {}, "dora": {}, "eva": {}, "olga": {}, "vera": {"signingKeys": [key]}}
        prod.activate(people=people, releaseTags=[{"models": ["model-*"], "signedBy": ["vera"]}])
        version = prepared(prod, **{contract.TAG_CODE_URL: code.url, contract.TAG_CODE_COMMIT: commit})
        governance = prod.governance(repositories=GitRepositories())
        found = refused(prod, governance, version, "promote", "rollout", error=PassportError)
        assert all("tag v1.2 carries no signature of a permitted key" in reason for (reason,) in found.values())
        code.sign_tag("v1.2", tmp_path / "vera", commit, "--force")
        perform(prod, "promote", governance, version)
        assert prod.world.aliases["champion"] == version

    def test_a_version_whose_release_tag_was_moved_is_refused(self, prod: Governed, tmp_path: Path) -> None:
        prod.activate()
        code = Repository(tmp_path / "code")
        commit = code.commit("print(1)")
        code.git("tag", "-a", "v1.2", "-m", "release")
        tags = {contract.TAG_CODE_URL: code.url, contract.TAG_CODE_COMMIT: commit}
        version, governance = prepared(prod, **tags), prod.governance(repositories=GitRepositories())
        perform(prod, "promote", governance, version)
        later = code.commit("print(2)")
        code.git("tag", "--force", "-a", "v1.2", "-m", "moved")
        again = prod.version(**tags).version
        found = refused(prod, governance, again, "promote", error=PassportError)
        assert f"v1.2 of {code.url} was moved: the version was trained from commit {commit}" in found["promote"][0]
        assert f"the tag names {later}" in found["promote"][0]

    def test_a_signature_of_another_key_is_refused(self, prod: Governed) -> None:
        prod.activate()
        version = prepared(prod, signer=key_pair()[0])
        found = refused(prod, prod.governance(), version, *WITH_PASSPORT, error=PassportError)
        for (reason,) in found.values():
            assert reason.startswith("signature: no known key has signed this statement")

    def test_a_key_that_does_not_count_is_refused(self, prod: Governed) -> None:
        prod.activate()
        version = prepared(prod)
        for limits, reason in (
            ({"revoked": True}, "the key is revoked"),
            ({"until": "2020-01-01"}, "the key was valid until 2020-01-01"),
            ({"from": "2999-01-01"}, "the key is valid since 2999-01-01"),
            ({"use": ["checkpoint"]}, "the policy in force names no key for passports, and prod needs passports"),
        ):
            prod.activate(keys=[{"id": prod.key.key_id, "public": prod.key.public_pem, "use": ["passport"], **limits}])
            found = refused(prod, prod.governance(), version, "promote", error=PassportError)
            assert reason in found["promote"][0]

    def test_a_passport_that_the_log_does_not_know_is_refused(self, governed: Governed) -> None:
        """Whoever stole the key has no right to append to the log."""
        governed.activate()
        version = prepared(governed, has_passport=False)
        made = governed.world.hook.get_model_version(governed.world.model_name, version)
        digest = governed.issue(made, is_recorded=False)
        found = refused(governed, governed.governance(), version, "promote", "rollout", error=PassportError)
        assert list(found.values()) == [[f"passport {digest} of version 2 is not in the audit log"]] * 2
        # A copy comes from a server that may have another log.
        perform(governed, "copy", governed.governance(), version)

    def test_of_a_copy_is_known_to_the_log_where_it_arrives(self, in_test: Governed, tmp_path: Path) -> None:
        """The copy keeps the passport of its source, and the guard asks the log of its own environment."""
        source, world = in_test.version(), in_test.world
        tags = {**source.tags, contract.TAG_COPY_RUN: world.new_run().run_id}
        copy = world.hook.create_model_version(source.name, source.uri, tags=tags)
        (tmp_path / "there").mkdir()
        there = Governed(world, sqlite_logs(tmp_path / "there"), "test")
        for _ in range(2):
            assert there.issue(copy) == source.tags[contract.TAG_PASSPORT]
        (record,) = there.records("passport.issued")
        assert record.event["new"]["version"] == copy.version
        assert record.event["new"]["key"] == in_test.key.key_id

    def test_prod_refuses_where_nothing_signs_the_clearance(self, governed: Governed) -> None:
        governed.activate()
        version, unsigned = prepared(governed), governed.governance(open_signer=None)
        if governed.environment != "prod":
            perform(governed, "promote", unsigned, version)
            return
        found = refused(governed, unsigned, version, "promote", "rollout", error=PassportError)
        reason = "prod needs a key that signs clearances; set [airflow_mcp] signing_conn_id"
        assert found == {"promote": [reason], "rollout": [reason]}
        perform(governed, "copy", unsigned, version)

    def test_prod_refuses_where_the_release_tag_cannot_be_asked(self, governed: Governed) -> None:
        governed.activate()
        version, unasked = prepared(governed), governed.governance(repositories=None)
        if governed.environment == "prod":
            found = refused(governed, unasked, version, "promote", "rollout", error=PassportError)
            assert all(reason.startswith("nobody can be asked here") for (reason,) in found.values())
            perform(governed, "copy", unasked, version)
        else:
            perform(governed, "promote", unasked, version)

    def test_without_keys_in_the_policy_nothing_is_signed_outside_prod(self, in_test: Governed) -> None:
        in_test.activate(keys=[])
        version = prepared(in_test, has_passport=False)
        perform(in_test, "promote", in_test.governance(), version)
        assert contract.TAG_CLEARANCE not in in_test.registry()["versions"][version]

    def test_a_rollback_asks_for_a_known_passport_and_not_whether_it_still_fits(self, prod: Governed) -> None:
        prod.activate()
        world = prod.world
        for _ in range(2):
            perform(prod, "promote", prod.governance(), prod.version().version)
        world.hook.set_model_version_tag(world.model_name, "1", contract.TAG_CODE_COMMIT, "0" * 40)
        envelope = prod.registry()["versions"]["1"][contract.TAG_PASSPORT_ENVELOPE]
        world.hook.set_model_version_tag(world.model_name, "1", contract.TAG_PASSPORT_ENVELOPE, "{}")
        with pytest.raises(PassportError, match="the envelope must be JSON"):
            roll_back(world.hook, rollback_of(world), log=LOG, governance=prod.governance())
        assert world.aliases["champion"] == "2"
        world.hook.set_model_version_tag(world.model_name, "1", contract.TAG_PASSPORT_ENVELOPE, envelope)
        roll_back(world.hook, rollback_of(world), log=LOG, governance=prod.governance())
        assert world.aliases["champion"] == "1"

    def test_a_policy_that_lost_its_keys_does_not_stop_a_rollback(self, prod: Governed) -> None:
        prod.activate()
        world = prod.world
        for _ in range(2):
            perform(prod, "promote", prod.governance(), prod.version().version)
        prod.activate(keys=[])
        roll_back(world.hook, rollback_of(world), log=LOG, governance=prod.governance())
        assert world.aliases["champion"] == "1"


class Answers:
    """What Airflow knows: some accounts have answered. The real one is in ``test_approvals_airflow.py``."""

    def __init__(self, *accounts: str) -> None:
        self.accounts = accounts

    def why_not(self, answer: Answer) -> str:
        return "" if answer.account in self.accounts else "Airflow does not know such an answer"


def approvals(*accounts: str) -> ReleaseApprovals:
    @contextmanager
    def opened() -> Iterator[Answers]:
        yield Answers(*accounts)

    return ReleaseApprovals(opened)


def vote(
    governed: Governed, version: str, *accounts: str, act: ApprovedAct = "release", rules: Sequence[Any] = ()
) -> list[int]:
    """Ask for the release, or for a rollback, let people approve, and return the records of their votes."""
    name = governed.world.model_name
    passport = governed.world.hook.get_model_version(name, version).tags[contract.TAG_PASSPORT]
    key = ReleaseKey(name, governed.environment, passport, act)
    policy = policy_of(governed.environment, governed.key, approvals=rules or APPROVALS, bindings=BINDINGS)
    task, now = TaskKey(act, "r1", "seat_1"), datetime.now(UTC)
    log = governed.open()
    book = ReleaseBook(log, key, ApprovalPolicy.of(policy))
    book.ask(Asked(version, "low", Requester(account="ada"), policy.digest, {}), AuditActor("user", "ada"), task)
    for account in accounts:
        answer = Answer(task, key.question("lead"), APPROVE, account, account, now.isoformat())
        assert [each.counts for each in book.take([answer], now)] == [True]
    seqs = [record.seq for record in log.facts(key.subject, "approval.answered")]
    log.close()
    return seqs


BINDINGS = (
    {"role": "operator", "people": ["ada"]},
    {"role": "viewer", "people": ["olga", "omar", "vera"]},
)
APPROVALS = ({"chain": [{**LEAD, "quorum": 2}]},)
ROLLBACK_RULE = ({"when": {"act": "rollback", "risk": "low"}, "chain": [LEAD]}, {"chain": []})
WITH_APPROVALS = ("promote", "rollout")


class TestApprovals:
    def test_a_release_that_nobody_approved_is_refused(self, governed: Governed) -> None:
        governed.activate(approvals=APPROVALS, bindings=BINDINGS)
        version = prepared(governed)
        asked = governed.governance(approvals=approvals("olga", "omar"))
        found = refused(governed, asked, version, *WITH_APPROVALS, error=ApprovalMissingError)
        assert all("nobody has asked" in reason for (reason,) in found.values())
        found = refused(governed, governed.governance(), version, *WITH_APPROVALS, error=ApprovalMissingError)
        nobody = ["the policy in force asks for approvals, which cannot be checked here"]
        assert found == dict.fromkeys(WITH_APPROVALS, nobody)
        perform(governed, "stage", governed.governance(), version)
        perform(governed, "copy", governed.governance(), version)

    def test_one_vote_of_two_is_not_enough_and_a_forged_one_is_found(self, prod: Governed) -> None:
        prod.activate(approvals=APPROVALS, bindings=BINDINGS)
        version = prepared(prod)
        vote(prod, version, "olga")
        known = prod.governance(approvals=approvals("olga", "omar"))
        found = refused(prod, known, version, "promote", error=ApprovalMissingError)
        assert "waits at lead for 1" in found["promote"][0]
        vote(prod, version, "omar")  # into the log, and not in Airflow
        forged = prod.governance(approvals=approvals("olga"))
        with pytest.raises(ApprovalMissingError, match="omar approved at lead, and Airflow does not know"):
            perform(prod, "promote", forged, version)
        assert prod.world.aliases["champion"] == "1"

    @pytest.mark.parametrize("act", WITH_APPROVALS)
    def test_the_intent_names_the_votes_and_the_clearance_the_people(self, prod: Governed, act: str) -> None:
        policy = prod.activate(approvals=APPROVALS, bindings=BINDINGS)
        version = prepared(prod)
        votes = vote(prod, version, "olga", "omar")
        perform(prod, act, prod.governance(approvals=approvals("olga", "omar")), version)
        tags = prod.registry()["versions"][version]
        found = verify_clearance(
            tags[contract.TAG_CLEARANCE],
            [prod.key],
            passport=tags[contract.TAG_PASSPORT],
            model_name=prod.world.model_name,
            environment="prod",
        )
        assert (found.policy, found.approved_by) == (policy.digest, ("olga", "omar"))
        if act == "promote":
            (intent,) = prod.records("registry.move_intended")
            (activated,) = prod.records("policy.activated")
            assert intent.event["refs"] == [activated.seq, *votes]


class TestTheRollbackRule:
    @pytest.fixture
    def fallen(self, prod: Governed) -> Governed:
        """A model whose second version is champion, under a policy that asks one person before a rollback."""
        prod.activate(approvals=ROLLBACK_RULE, bindings=BINDINGS)
        for _ in range(2):
            version = prod.version().version
            vote(prod, version, rules=ROLLBACK_RULE)
            perform(prod, "promote", prod.governance(approvals=approvals()), version)
        return prod

    def test_asks_a_chain_of_its_own_and_each_approval_is_for_one_rollback(self, fallen: Governed) -> None:
        world, asked = fallen.world, fallen.governance(approvals=approvals("olga"))
        assert world.aliases["champion"] == "2"  # no chain was asked for a release
        with pytest.raises(ApprovalMissingError, match="not approved for a rollback in prod: nobody has asked"):
            roll_back(world.hook, rollback_of(world), log=LOG, governance=asked)
        assert world.aliases["champion"] == "2"
        (voted,) = vote(fallen, "1", "olga", act="rollback", rules=ROLLBACK_RULE)
        for _ in range(2):  # a retry asks nobody
            roll_back(world.hook, rollback_of(world), log=LOG, governance=asked)
        assert world.aliases["champion"] == "1"
        assert voted in fallen.records("registry.move_intended")[-1].event["refs"]
        third = fallen.version().version
        vote(fallen, third, rules=ROLLBACK_RULE)
        perform(fallen, "promote", asked, third)
        again = replace(rollback_of(world, "again"), to_version="1")
        with pytest.raises(ApprovalMissingError, match="superseded, the rollback was made, and another one needs"):
            roll_back(world.hook, again, log=LOG, governance=asked)
        assert world.aliases["champion"] == third
        check = MoveCheck()
        found = [record.line.encode() for record in fallen.records()]
        assert list(check.watched(found)) == found
        assert (check.moves, [each for each in check.findings if each.problem.count("rollback")]) == (4, [])

    def test_does_not_hold_up_what_a_rollout_does_by_itself(self, fallen: Governed) -> None:
        world = fallen.world
        # Here people approve a release too, and ada may roll out: that is enough to go back.
        roles = {
            name: {"permissions": ["model:*/rollout", "environment:prod/deploy"]} for name in ("operator", "viewer")
        }
        fallen.activate(approvals=(ROLLBACK_RULE[0], *APPROVALS), bindings=BINDINGS, roles=roles)
        with pytest.raises(ApprovalMissingError, match="not approved for a rollback"):
            roll_back(world.hook, rollback_of(world), log=LOG, governance=fallen.governance(approvals=approvals()))
        itself = replace(rollback_of(world), is_automatic=True)
        with pytest.raises(AccessRefusedError, match=r"automatic_rollback of .* is refused: 'dora' has no role"):
            roll_back(world.hook, itself, log=LOG, governance=fallen.governance("dora", approvals=approvals()))
        roll_back(world.hook, itself, log=LOG, governance=fallen.governance(approvals=approvals()))
        assert world.aliases["champion"] == "1"
        assert fallen.records("registry.move_intended")[-1].event["new"]["automatic"] is True
        dead = replace(fallen.logs.as_login("mcp_release"), port=1)
        again = replace(rollback_of(world, "again"), is_automatic=True, to_version="2")
        roll_back(world.hook, again, log=LOG, governance=fallen.governance(open_log=lambda: open_log(dead)))
        assert world.aliases["champion"] == "2"
        dying = Dying(fallen.open(), 100)  # at the intent, after it has answered every question
        third = replace(rollback_of(world, "third"), is_automatic=True, to_version="1")
        roll_back(world.hook, third, log=LOG, governance=fallen.governance(open_log=lambda: dying))
        assert world.aliases["champion"] == "1"

    @pytest.mark.parametrize("ends_after", [0, 1], ids=["before", "after the policy was read"])
    def test_does_not_hold_up_a_rollback_while_the_log_is_down(
        self, fallen: Governed, caplog: pytest.LogCaptureFixture, ends_after: int
    ) -> None:
        world, dead = fallen.world, replace(fallen.logs.as_login("mcp_release"), port=1)
        opened: list[None] = []

        def open_dying() -> Any:
            opened.append(None)
            return open_log(dead) if len(opened) > 1 or not ends_after else Dying(fallen.open(), ends_after)

        def closed(**changes: Any) -> Governance:
            opened.clear()
            return fallen.governance(open_log=open_dying, approvals=approvals(), **changes)

        with pytest.raises(AuditUnavailableError, match="Nothing was moved"):
            roll_back(world.hook, rollback_of(world), log=LOG, governance=closed(rollback_without_log=False))
        assert world.aliases["champion"] == "2"
        roll_back(world.hook, rollback_of(world), log=LOG, governance=closed())
        assert world.aliases["champion"] == "1"
        assert "ALERT: nobody checked who may rollback" in caplog.text
        with closing(fallen.open()) as log:  # what a reconciliation records later
            (late,) = missing_events(world.registered, log, fallen.environment, datetime.now(UTC))
        assert (late.action, late.new["champion"], late.late) == ("registry.moved", "1", True)


class Dying:
    """A log that ends after some questions, or when it is to record something."""

    def __init__(self, log: Any, questions: int) -> None:
        self._log, self._questions = log, questions

    def __getattr__(self, name: str) -> Any:
        self._questions = -1 if name == "append" else self._questions - (name == "facts")
        if self._questions < 0:
            raise AuditUnavailableError("the log does not answer")
        return getattr(self._log, name)


class TestAllReasonsAtOnce:
    def test_are_in_one_event_and_in_the_error(self, governed: Governed) -> None:
        policy = governed.activate(approvals=APPROVALS, bindings=BINDINGS)
        version = prepared(governed, signer=key_pair()[0])
        found = refused(governed, governed.governance("eva"), version, "promote", "rollout", error=AccessRefusedError)
        for of_model, of_environment, of_passport in found.values():
            assert of_model.startswith("'eva' has no role that grants model:")
            assert of_environment.startswith("'eva' has no role that grants environment:")
            assert "no known key has signed" in of_passport
        (activated,) = governed.records("policy.activated")
        for event in refusals(governed):
            assert (event["inputs"], event["refs"]) == ({"policy": policy.digest}, [activated.seq])

    def test_a_retry_of_the_refused_task_adds_no_second_event(self, in_test: Governed) -> None:
        in_test.activate()
        version, dora = prepared(in_test), in_test.governance("dora")
        for _ in range(2):
            with pytest.raises(AccessRefusedError):
                perform(in_test, "promote", dora, version)
        assert len(refusals(in_test)) == 1


class TestProdWithout:
    def test_a_policy_refuses(self, prod: Governed) -> None:
        version = prepared(prod)
        found = refused(prod, prod.governance(), version, *WITH_PASSPORT, error=AccessRefusedError)
        assert all("none is in force" in reason for (reason,) in found.values())

    @pytest.mark.parametrize("act", WITH_PASSPORT)
    def test_a_log_in_postgresql_refuses(self, in_test: Governed, act: str) -> None:
        in_test.activate()
        version, before = prepared(in_test), in_test.registry()
        for governance, reason in (
            (in_test.governance(environment="prod"), "prod needs an audit log in PostgreSQL"),
            (in_test.governance(environment="prod", open_log=None), "no log is configured"),
        ):
            with pytest.raises(InvalidArgumentError, match=reason):
                perform(in_test, act, governance, version)
            assert in_test.registry() == before

    def test_either_moves_between_stages_and_rolls_back(self, prod: Governed) -> None:
        world = prod.world
        version = prepared(prod, has_passport=False)
        perform(prod, "promote", Governance(), version)
        for governance, left, to in (
            (prod.governance(open_log=None), "1", "1"),
            (prod.governance(), version, version),
        ):
            perform(prod, "stage", governance, left)
            assert world.registered.tags[contract.TAG_ENVIRONMENT] == "prod"
            roll_back(world.hook, replace(rollback_of(world, to), to_version=to), log=LOG, governance=governance)
            assert world.aliases["champion"] == to

    def test_either_takes_over_no_champion_from_stages(
        self, prod: Governed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        world, version = prod.world, prod.version(has_passport=False).version
        world.hook.transition_stage(world.model_name, version, "Production", False)
        for name, value in (("AUDIT_LOG", prod.logs.url("mcp_release")), ("ENVIRONMENT", "prod")):
            monkeypatch.setenv(f"AIRFLOW_MCP_{name}", value)
        migrate = ["registry", "migrate-stages", world.model_name, "--apply", "--tracking-uri", world.url]
        assert main(migrate) != 0
        assert "none is in force" in capsys.readouterr().out
        prod.activate()
        assert main(migrate) != 0
        assert "prod needs a key that signs clearances" in capsys.readouterr().out
        monkeypatch.delenv("AIRFLOW_MCP_AUDIT_LOG")
        assert main(migrate) != 0
        assert "no log is configured" in "".join(capsys.readouterr())
        assert world.aliases == {}

    def test_either_pauses_resumes_and_ends_a_rollout(self, prod: Governed) -> None:
        progressing(prod, Governance(), prepared(prod, has_passport=False))
        for without in ({"open_log": None}, {}):  # no log, and a log without a policy
            assert control(prod, **without).pause("tests").phase == "WAITING"
            assert control(prod, **without).resume("tests").phase == "PROGRESSING"
        assert control(prod, open_log=None).abort("tests").phase == "FAILED"

    def test_an_answer_of_the_log_a_rollout_ends_and_does_not_pause(
        self, prod: Governed, caplog: pytest.LogCaptureFixture
    ) -> None:
        progressing(prod, Governance(), prepared(prod, has_passport=False))
        dead = replace(prod.logs.as_login("mcp_release"), port=1)
        down = {"open_log": lambda: open_log(dead)}
        with pytest.raises(AuditUnavailableError):
            control(prod, **down).pause("tests")
        with pytest.raises(AuditUnavailableError):
            control(prod, **down, rollback_without_log=False).abort("tests")
        active = store(prod).read().document
        assert active is not None
        assert active.phase == "PROGRESSING"
        assert control(prod, **down).abort("tests").phase == "FAILED"
        assert "ALERT: nobody checked who may abort" in caplog.text

    def test_the_model_itself_may_say_that_it_is_prod(self, in_test: Governed) -> None:
        in_test.activate()
        version = prepared(in_test)
        name = in_test.world.model_name
        for word in ("prod", "production"):  # a word that nobody knows is no way out
            in_test.world.hook.set_registered_model_tag(name, contract.TAG_ENVIRONMENT, word)
            with pytest.raises(InvalidArgumentError, match="prod needs an audit log in PostgreSQL"):
                perform(in_test, "promote", in_test.governance(), version)

    def test_outside_prod_all_goes_on_as_without_governance(self, in_test: Governed) -> None:
        version = prepared(in_test, has_passport=False)
        perform(in_test, "promote", in_test.governance(""), version)
        (intent,) = in_test.records("registry.move_intended")
        assert intent.event["inputs"] == {}


class TestTheMoveThatIsPermitted:
    @pytest.mark.parametrize("act", WITH_PASSPORT)
    def test_rests_on_the_policy_and_the_passport(self, governed: Governed, act: str) -> None:
        policy = governed.activate()
        version = prepared(governed)
        perform(governed, act, governed.governance("ada-second"), version)
        tags = governed.registry()["versions"][version]
        problem = why_no_passport(governed.world.model_name, tags, FILES, [governed.key], governed.environment)
        if act == "copy":  # a clearance is for the place that it is copied to
            assert "clearance: the version has none" in problem
            return
        assert problem == ""
        action = "registry.move_intended" if act == "promote" else "rollout.step_intended"
        (intent,) = governed.records(action)
        found = verify_clearance(
            tags[contract.TAG_CLEARANCE],
            [governed.key],
            passport=tags[contract.TAG_PASSPORT],
            model_name=governed.world.model_name,
            environment=governed.environment,
        )
        assert (found.policy, found.intent_seq) == (policy.digest, intent.seq)
        assert found.intent_hash == record_hash(intent.line.encode()).hex()
        if act == "promote":
            assert intent.event["inputs"] == {"policy": policy.digest, "passport": tags[contract.TAG_PASSPORT]}
            assert (intent.event["actor"]["name"], intent.event["actor"]["authenticated"]) == ("ada-second", True)
        else:
            assert tags_of_champion(governed)[TAG_ROLLOUT]

    def test_needs_no_policy_where_it_is_switched_off_with_a_reason(self, prod: Governed) -> None:
        prod.activate()
        version = prepared(prod, has_passport=False)
        perform(prod, "promote", prod.governance("dora", off_reason="migration weekend"), version)
        (intent,) = prod.records("registry.move_intended")
        assert "no policy enforced: migration weekend" in intent.event["reason"]

    def test_is_judged_by_the_policy_of_that_moment(self, prod: Governed) -> None:
        """Access is taken away while the task waits for the claim: the policy is read under the claim."""
        prod.activate()
        version = prepared(prod)
        changed: list[str] = []

        def requester(_: Actor) -> Requester:
            return Requester(account="ada")

        def late() -> Any:
            if not changed:
                changed.append(prod.activate(bindings=[{"role": "viewer", "people": ["ada"]}]).digest)
            return prod.open()

        with pytest.raises(AccessRefusedError, match="'ada' has no role"):
            perform(prod, "promote", prod.governance(requester=requester, open_log=late), version)
        (record,) = prod.records("promotion.refused")
        assert record.event["inputs"]["policy"] == changed[0]
        assert prod.world.aliases["champion"] == "1"

    def test_goes_on_under_the_policy_that_was_in_force_when_it_began(self, prod: Governed) -> None:
        """The policy changes between the intent and the alias: the move that was permitted is finished and says why."""
        policy = prod.activate()
        version = prepared(prod)

        def late() -> Any:
            prod.activate(bindings=[{"role": "viewer", "people": ["ada"]}])
            return prod.signer

        perform(prod, "promote", prod.governance(open_signer=late), version)
        assert prod.world.aliases["champion"] == version
        (intent,) = prod.records("registry.move_intended")
        assert intent.event["inputs"]["policy"] == policy.digest
        next_one = prod.version().version
        with pytest.raises(AccessRefusedError, match="'ada' has no role"):
            perform(prod, "promote", prod.governance(), next_one)


def tags_of_champion(governed: Governed) -> dict[str, str]:
    return dict(governed.registry()["versions"]["1"])
