"""A registry under governance for the tests: a real audit log, a signing key and a policy that two people activated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow_mcp.audit.stores import open_log
from airflow_mcp.core import contract
from airflow_mcp.core.access.policy import GovernancePolicy, read_policy
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.core.audit.log import export
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.core.audit.verify import verify
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.signing.keys import PrivateKey, VerificationKey
from airflow_mcp.registry.governance import Governance
from airflow_mcp.registry.passports import issue_passport
from tests.support.approvals import put_in_force
from tests.support.audit_log import ACTOR, Logs, new_key
from tests.support.passports import FILES, PROVENANCE

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.mlflow_entities import ModelVersion
    from tests.support.mlflow_world import World

EVERYTHING = ("promote", "rollback", "rollout", "stage", "copy", "migrate", "retrain")
NOBODY_IS_ASKED: Sequence[Mapping[str, Any]] = ({"chain": []},)


def policy_of(environment: str, *keys: VerificationKey, **changes: Any) -> GovernancePolicy:
    """Return a policy: ada may do everything in one environment, dora nothing there, and eva all but deploy there.

    :param environment: where ada may deploy.
    :param keys: keys whose passports count.
    :param changes: sections of the policy that differ.
    """
    permissions = [f"model:*/{action}" for action in EVERYTHING]
    spec = {
        "people": {
            "ada": {"accounts": ["ada", "ada-second"]},
            "dora": {},
            "eva": {},
            "olga": {},
            "omar": {},
            "vera": {},
        },
        "roles": {
            "viewer": {"permissions": ["model:*/read"]},
            "mover": {"inherits": ["viewer"], "permissions": permissions},
            "operator": {"inherits": ["mover"], "permissions": [f"environment:{environment}/deploy"]},
            "deployer": {"permissions": [f"environment:{environment}/deploy"]},
            "security": {"inherits": ["viewer"], "permissions": ["audit/read", "audit/export"]},
        },
        "bindings": [
            {"role": "operator", "people": ["ada"], "pipelines": ["nightly"]},
            {"role": "deployer", "people": ["dora"]},
            {"role": "mover", "people": ["eva"]},
            {"role": "security", "people": ["olga"]},
        ],
        "approvals": list(NOBODY_IS_ASKED),
        "keys": [{"id": key.key_id, "public": key.public_pem, "use": ["passport", "clearance"]} for key in keys],
        **changes,
    }
    document = {
        "apiVersion": "mcp.example.com/v1",
        "kind": "GovernancePolicy",
        "metadata": {"name": "tests"},
        "spec": spec,
    }
    return read_policy(json.dumps(document).encode(), "policy.json", (chain_mistakes,))


class TagsAsTrained:
    """Git repositories whose tags still name the commit of :data:`~tests.support.passports.PROVENANCE`."""

    def commit_of(self, url: str, ref: str) -> str:
        """Return the commit."""
        return PROVENANCE[contract.TAG_CODE_COMMIT]


class Tags:
    """The release tag of :data:`~tests.support.passports.PROVENANCE`, where it was when the version was trained."""

    def commit_of(self, url: str, ref: str) -> str:
        assert (url, ref) == (PROVENANCE[contract.TAG_CODE_URL], PROVENANCE[contract.TAG_CODE_REF])
        return PROVENANCE[contract.TAG_CODE_COMMIT]


class Governed:
    """A registered model whose moves a policy decides about.

    :param world: the MLflow server.
    :param logs: the audit log.
    :param environment: dev, test or prod.
    """

    def __init__(self, world: World, logs: Logs, environment: str) -> None:
        self.world, self.logs, self.environment = world, logs, environment
        self.private_pem, public = new_key()
        self.signer, self.key = PrivateKey(self.private_pem), VerificationKey(public.decode())

    def open(self, login: str = "mcp_release") -> AuditLog:
        """Return the log, as one login sees it."""
        return open_log(self.logs.as_login(login))

    def activate(self, policy: GovernancePolicy | None = None, **changes: Any) -> GovernancePolicy:
        """Put a policy in force, proposed by olga and activated by omar.

        :param changes: sections that differ from :func:`policy_of`.
        """
        policy = policy or policy_of(self.environment, self.key, **changes)
        with closing(self.open("mcp_policy")) as log:
            put_in_force(log, policy, self.environment)
        return policy

    def governance(self, account: str = "ada", **changes: Any) -> Governance:
        """Return what the door is given when Airflow says that an account is behind a task.

        :param account: the account; empty when nobody knows.
        :param changes: fields that differ.
        """
        who = Requester(account=account) if account else Requester(doubt="nobody asked Airflow")
        return Governance(
            **{
                "environment": self.environment,
                "open_log": self.open,
                "requester": lambda _: who,
                "open_signer": lambda: self.signer,
                "repositories": TagsAsTrained(),
                **changes,
            }
        )

    def version(self, *, signer: PrivateKey | None = None, has_passport: bool = True, **tags: str) -> ModelVersion:
        """Register a version that passed its gate and its load check, and issue its passport.

        :param signer: who signs the passport; None takes the key of the policy.
        :param has_passport: whether it gets one.
        :param tags: further tags of version and run.
        """
        world = self.world
        if not any(world.model_name == model.name for model in world.hook.search_registered_models()):
            world.hook.create_registered_model(world.model_name)
        facts = {**PROVENANCE, contract.TAG_ENVIRONMENT: self.environment, contract.TAG_GATE_VERDICT: "passed", **tags}
        run = world.new_run(facts)
        model_id = world.logged_model(run)
        check = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", run.run_id, "img", {}, FILES)
        made = world.hook.create_model_version(
            world.model_name,
            f"models:/{model_id}",
            run_id=run.run_id,
            model_id=model_id,
            tags={**facts, **check.to_tags()},
        )
        if has_passport:
            self.issue(made, signer=signer)
        return world.hook.get_model_version(made.name, made.version)

    def issue(self, version: ModelVersion, *, signer: PrivateKey | None = None, is_recorded: bool = True) -> str:
        """Issue the passport of a version and return its digest.

        :param signer: who signs; None takes the key of the policy.
        :param is_recorded: whether the audit log knows it.
        """
        governance = Governance(
            environment=self.environment, open_log=(lambda: self.open("mcp_train")) if is_recorded else None
        )
        by = Actor.of_user("tests", "tests", account="tests")
        hook = self.world.hook
        return issue_passport(
            hook, version, signer=signer or self.signer, governance=governance, by=by
        ).statement.digest

    def records(self, action: str = "") -> list[Record]:
        """Return the records of the log whose action begins so, after checking that the log is whole."""
        with closing(self.open("mcp_keeper")) as log:
            lines = list(log.read(export(ACTOR, self.environment, reason="tests")))
        assert verify(lines, deep=True).is_whole
        return [record for record in map(_read, lines) if record.event["action"].startswith(action)]

    def registry(self) -> Mapping[str, Any]:
        """Return everything that the registry says about the model, but for the claim of whoever is at work."""
        model = self.world.registered
        tags = {name: value for name, value in model.tags.items() if not name.startswith(contract.TAG_CLAIM_PREFIX)}
        versions = {version.version: dict(version.tags) for version in self.world.all_versions()}
        return {"aliases": dict(model.aliases), "tags": tags, "versions": versions}


def _read(line: bytes) -> Record:
    return read_record(line.decode())
