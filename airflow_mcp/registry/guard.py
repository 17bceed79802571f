"""The guard inside the door to the registry: access, passport and approvals, before anything is written.

It decides by the policy in force, which the audit log holds. Without a log, or without a policy in it, everything but
prod goes on as it would without a guard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, Protocol

from airflow_mcp.core.access.decision import AccessRules
from airflow_mcp.core.access.in_force import PolicyInForce, read_in_force
from airflow_mcp.core.access.policy import GovernancePolicy, time_of
from airflow_mcp.core.access.requester import Requester
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy, ApprovedAct
from airflow_mcp.core.argument import ENVIRONMENTS, sentences
from airflow_mcp.core.audit.event import AuditActor, AuditEvent, event_id, without_credentials
from airflow_mcp.core.audit.moves import Basis, audit_actor, intent_action, intent_of, model_subject
from airflow_mcp.core.audit.record import record_hash
from airflow_mcp.core.contract import TAG_CLEARANCE, TAG_ENVIRONMENT, TAG_PASSPORT
from airflow_mcp.core.passport.clearance import Clearance, sign_clearance
from airflow_mcp.core.passport.verify import verify_tagged
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.signing.keys import VerificationKey
from airflow_mcp.exceptions import (
    AccessRefusedError,
    ApprovalMissingError,
    AuditUnavailableError,
    InvalidArgumentError,
    PassportError,
    RefusedError,
)
from airflow_mcp.registry.governance import unmoved
from airflow_mcp.registry.passports import passport_subject, require_unchanged
from airflow_mcp.registry.recording import STEP_INTENDED, step_intent
from airflow_mcp.registry.release_tags import require_release_tag

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel
    from airflow_mcp.core.registry.moves import MoveOrder, MoveRecord
    from airflow_mcp.core.serving.traffic import RolloutDocument
    from airflow_mcp.mlflow_client.operations import MlflowOperations
    from airflow_mcp.registry.governance import Governance

Act = Literal["promote", "rollback", "automatic_rollback", "rollout", "migrate", "stage", "copy", "steer", "abort"]
"""What is guarded. ``automatic_rollback`` is made by a rollout, which was approved with its rollback policy. ``stage``
is a move between stages other than Production; ``steer`` pauses and resumes a rollout, ``abort`` ends it."""
PERMISSIONS: Mapping[Act, tuple[str, ...]] = {
    "promote": ("promote",),
    # Whoever may begin a rollout may end it: it goes back by itself.
    "rollback": ("rollback", "rollout"),
    "automatic_rollback": ("rollback", "rollout"),
    "rollout": ("rollout",),
    "migrate": ("migrate",),
    "stage": ("stage",),
    "copy": ("copy",),
    "steer": ("rollout",),
    "abort": ("rollback", "rollout"),
}
"""Actions on the model, one of which must be granted."""
_NO_POLICY = (
    "environment prod promotes only what a policy permits, and none is in force. Activate one with airflow-mcp policy"
)
_LONGEST_REASON = 2000
"""Characters of a reason in the event of a refusal."""
_ROLLBACKS = frozenset({"rollback", "automatic_rollback"})
_GOING_BACK = frozenset({*_ROLLBACKS, "abort"})
"""Acts that go on while the log is down, where that is configured."""
_FREE_WITHOUT_POLICY = frozenset({*_GOING_BACK, "stage", "steer"})
"""Acts that prod makes without a log and a policy too: going back, and what changes no champion."""
_WITH_PASSPORT = frozenset({"promote", *_ROLLBACKS, "rollout", "migrate", "copy"})
_RELEASES = frozenset({"promote", "rollout", "migrate"})
"""Acts that bring a version into an environment: what the chain of the policy is for."""


class Question(NamedTuple):
    """A release or a rollback that people may have to approve."""

    model_name: str
    environment: str
    passport: str
    """Digest of the passport, ``sha256:<hex>``."""
    version: ModelVersion
    policy: PolicyInForce
    act: ApprovedAct = RELEASE


class Grant(NamedTuple):
    """The approvals that a move rests on."""

    refs: tuple[int, ...] = ()
    """Records of the votes in the audit log."""
    people: tuple[str, ...] = ()
    """Who voted."""


class Approvals(Protocol):
    """What knows whether people have approved a release or a rollback."""

    def granted(self, question: Question, log: AuditLog) -> Grant:
        """Return the approvals, after checking each one again where it was given.

        :raises ApprovalMissingError: when the policy asks for approvals that are not there, with the reason.
        :raises FailedError: when what must be asked does not answer.
        """


@dataclass(frozen=True)
class Cleared:
    """What the guard found: the move may be made."""

    environment: str
    actor: AuditActor
    policy: str = ""
    """Digest of the policy in force; empty when there is none."""
    passport: str = ""
    """Digest of the passport; empty when none was asked for."""
    refs: tuple[int, ...] = ()
    """Records that the decision rests on: the policy, then the votes."""
    approved_by: tuple[str, ...] = ()
    is_automatic: bool = False
    """Whether a rollout goes back by itself, so that nobody is asked."""

    @property
    def basis(self) -> Basis:
        """What the intent of the move names."""
        digests = {"policy": self.policy, "passport": self.passport}
        inputs = {name: digest for name, digest in digests.items() if digest}
        return Basis(self.actor, inputs, self.refs, self.is_automatic)


def strictest(*environments: str) -> str:
    """Return the strictest of some environments; one that nobody knows counts as prod.

    :param environments: dev, test or prod; empty where nothing is said.
    """
    known = [
        ENVIRONMENTS.index(each) if each in ENVIRONMENTS else len(ENVIRONMENTS) - 1 for each in environments if each
    ]
    return ENVIRONMENTS[max(known, default=0)]


def mark_environment(mlflow: MlflowOperations, model: RegisteredModel, environment: str) -> None:
    """Leave the environment as a tag on a model, unless it is dev or a stricter one is there.

    :param mlflow: the MLflow server.
    :param model: the registered model.
    :param environment: dev, test or prod.
    """
    if strictest(environment, model.tags.get(TAG_ENVIRONMENT, "dev")) != model.tags.get(TAG_ENVIRONMENT, "dev"):
        mlflow.set_registered_model_tag(model.name, TAG_ENVIRONMENT, environment)


@dataclass(frozen=True)
class _Case:
    """What is asked of the guard."""

    act: Act
    order: MoveOrder
    environment: str
    versions: tuple[ModelVersion, ...]


class ComplianceGuard:
    """Decides whether a version may be promoted, staged, copied, rolled out or rolled back.

    :param mlflow: the MLflow server.
    :param governance: the audit log, the environment, and what answers the guard's questions.
    :param model_name: registered model.
    :param log: where a rollback that nobody could check is reported.
    """

    def __init__(self, mlflow: MlflowOperations, governance: Governance, model_name: str, log: TaskLog) -> None:
        self._mlflow, self._governance, self._model_name, self._log = mlflow, governance, model_name, log

    def require(
        self, act: Act, order: MoveOrder, model: RegisteredModel | None, versions: Iterable[ModelVersion]
    ) -> Cleared:
        """Check everything, and refuse with all reasons at once.

        :param act: what is to be done.
        :param order: who wants it, and why.
        :param model: the registered model as it is now; None when it does not exist yet.
        :param versions: versions that it is done with.
        :return: what the record of the move names.
        :raises AccessRefusedError: when the policy does not permit it, nobody knows who asks, or prod has no policy.
        :raises PassportError: when a version has no passport that fits it.
        :raises ApprovalMissingError: when people must approve it and have not.
        :raises InvalidArgumentError: when prod has no usable audit log.
        :raises AuditUnavailableError: when the log does not answer; nothing was moved.
        """
        governance = self._governance
        environment = strictest(governance.environment, model.tags.get(TAG_ENVIRONMENT, "") if model else "")
        cleared = Cleared(environment, audit_actor(order.by), is_automatic=act == "automatic_rollback")
        if governance.off_reason:
            return cleared
        if act not in _FREE_WITHOUT_POLICY:
            replace(governance, environment=environment).require_log()
        if governance.open_log is None:
            return cleared
        try:
            log = governance.open_log()
            in_force = read_in_force(log)
        except (AuditUnavailableError, InvalidArgumentError) as error:
            self._go_unchecked(act, error)
            return cleared
        case = _Case(act, order, environment, tuple(versions))
        if in_force is not None:
            return self._by_policy(case, cleared, in_force, log)
        if environment == "prod" and act not in _FREE_WITHOUT_POLICY:
            self._refuse(case, cleared, [AccessRefusedError(_NO_POLICY)], log)
        return cleared

    def _go_unchecked(self, act: Act, error: AuditUnavailableError | InvalidArgumentError) -> None:
        """Let an act go on that the log cannot be asked about, if that is configured: a dead log blocks no way back.

        :raises AuditUnavailableError, InvalidArgumentError: when it may not go on; nothing was moved.
        """
        if act not in _GOING_BACK or not self._governance.rollback_without_log:
            raise unmoved(error) from error
        self._log.warning("ALERT: nobody checked who may %s %s: %s", act, self._model_name, error)

    def mark(self, model: RegisteredModel, cleared: Cleared) -> None:
        """Leave the environment on the model, so that no command that was told of another one counts it as dev.

        :param model: the registered model as it was before the move.
        :param cleared: what the guard found.
        """
        mark_environment(self._mlflow, model, cleared.environment)

    def sign(self, version: ModelVersion, move: MoveRecord, cleared: Cleared) -> None:
        """Leave the signed clearance on a version, so that a model server can check it without the log.

        :param version: the next champion.
        :param move: the record of the move, whose intent is in the log by now.
        :param cleared: what the guard found.
        :raises FailedError: when the key or MLflow does not answer; the alias was not moved.
        """
        if not move.audit:  # else a rollback goes on without the log, which has no intent to name
            self._sign(version, cleared, intent_action(move), lambda intents: intent_of(move, intents))

    def sign_canary(self, version: ModelVersion, first: RolloutDocument, cleared: Cleared) -> None:
        """Leave the signed clearance on the version of a rollout: model servers load it before it is champion.

        :param version: the version that gets a share of the requests.
        :param first: first document of the rollout, whose intent is in the log by now.
        :param cleared: what the guard found.
        :raises FailedError: when the key or MLflow does not answer; the rollout did not begin.
        """
        self._sign(version, cleared, STEP_INTENDED, lambda intents: step_intent(first, intents))

    def _sign(
        self,
        version: ModelVersion,
        cleared: Cleared,
        action: str,
        find: Callable[[Iterable[Record]], Record | None],
    ) -> None:
        governance = self._governance
        if not cleared.passport or governance.open_signer is None or governance.open_log is None:
            return
        intent = find(governance.open_log().facts(model_subject(self._model_name), action))
        if intent is None:
            return
        clearance = Clearance.model_validate(
            {
                "environment": cleared.environment,
                "model_name": self._model_name,
                "policy": cleared.policy,
                "approved_by": cleared.approved_by,
                "intent_seq": intent.seq,
                "intent_hash": record_hash(intent.line.encode()).hex(),
            }
        )
        envelope = sign_clearance(cleared.passport, clearance, governance.open_signer())
        self._mlflow.set_model_version_tag(version.name, version.version, TAG_CLEARANCE, envelope)

    def _by_policy(self, case: _Case, cleared: Cleared, in_force: PolicyInForce, log: AuditLog) -> Cleared:
        requester = self._governance.requester(case.order.by)
        cleared = replace(cleared, actor=_actor(cleared.actor, requester), policy=in_force.digest, refs=(in_force.seq,))
        reasons: list[RefusedError] = list(self._access(case, requester, in_force.policy))
        for version in case.versions if case.act in _WITH_PASSPORT else ():
            try:
                cleared = replace(cleared, passport=self._passport(case, version, in_force.policy, log))
                grant = self._approved(case, cleared.passport, version, in_force, log)
                cleared = replace(cleared, refs=(*cleared.refs, *grant.refs), approved_by=grant.people)
            except RefusedError as error:
                reasons.append(error)
            except AuditUnavailableError as error:  # the log has ended since the policy was read
                self._go_unchecked(case.act, error)
        if reasons:
            self._refuse(case, cleared, reasons, log)
        return cleared

    def _access(self, case: _Case, requester: Requester, policy: GovernancePolicy) -> Iterator[AccessRefusedError]:
        """Yield why somebody who is behind the move may not make it."""
        if unknown := requester.why_unknown(case.environment):
            yield AccessRefusedError(unknown)
            return
        rules, model = AccessRules(policy), model_subject(self._model_name)
        for principal in requester.principals(policy):
            asked = [rules.allowed(principal, model, action) for action in PERMISSIONS[case.act]]
            if not any(decision.granted for decision in asked):
                yield AccessRefusedError(asked[0].by)
            decision = rules.allowed(principal, f"environment:{case.environment}", "deploy")
            if not decision.granted:
                yield AccessRefusedError(decision.by)

    def _passport(self, case: _Case, version: ModelVersion, policy: GovernancePolicy, log: AuditLog) -> str:
        """Return the digest of a version's passport; empty where the policy names no key and it is not prod.

        :raises PassportError: when it has none that fits.
        """
        keys = verification_keys(policy, "passport")
        if not keys:
            if case.environment == "prod" and case.act not in _ROLLBACKS:
                raise PassportError("the policy in force names no key for passports, and prod needs passports")
            return ""
        if case.act in _RELEASES and case.environment == "prod" and self._governance.open_signer is None:
            raise PassportError("prod needs a key that signs clearances; set [airflow_mcp] signing_conn_id")
        digest = version.tags.get(TAG_PASSPORT, "")
        issued = log.facts(passport_subject(digest), "passport.issued") if digest else []
        if digest and not issued and case.act != "copy":  # the server of the source may have another log
            raise PassportError(f"passport {digest} of version {version.version} is not in the audit log")
        signed_at = datetime.fromisoformat(issued[0].recorded_at) if issued else None
        statement = verify_tagged(version.tags, keys, model_name=version.name, signed_at=signed_at)
        if case.act not in _ROLLBACKS:  # what served before is not judged again: going back must be quick
            require_unchanged(self._mlflow, version, statement)
        if case.act in _RELEASES and case.environment == "prod":
            signers = policy.spec.tag_signers(self._model_name)
            require_release_tag(statement.passport.code, self._governance.repositories, signers)
        return statement.digest

    def _approved(
        self, case: _Case, passport: str, version: ModelVersion, in_force: PolicyInForce, log: AuditLog
    ) -> Grant:
        """Return the approvals of a release, or of a rollback that a person makes.

        :raises ApprovalMissingError: when the policy asks for some that are not there.
        """
        if case.act not in (*_RELEASES, "rollback"):
            return Grant()
        act: ApprovedAct = "rollback" if case.act == "rollback" else RELEASE
        if self._governance.approvals is not None:
            question = Question(self._model_name, case.environment, passport, version, in_force, act)
            return self._governance.approvals.granted(question, log)
        if ApprovalPolicy.of(in_force.policy).asks(act):
            raise ApprovalMissingError("the policy in force asks for approvals, which cannot be checked here")
        return Grant()

    def _refuse(self, case: _Case, cleared: Cleared, reasons: list[RefusedError], log: AuditLog) -> NoReturn:
        """Record a refusal and raise it.

        :raises RefusedError: of the class of the first reason, with every reason.
        """
        said = tuple(dict.fromkeys(str(error) for error in reasons))
        action, subject = (
            "promotion.refused" if case.act in _RELEASES else "access.refused",
            model_subject(self._model_name),
        )
        new = {
            "move": case.order.identity,
            "act": case.act,
            "versions": [version.version for version in case.versions],
            "reasons": [without_credentials(reason)[:_LONGEST_REASON] for reason in said],
        }
        log.append(
            AuditEvent(
                id=event_id(action, subject, new, asdict(cleared.actor)),
                action=action,
                subject=subject,
                environment=cleared.environment,
                actor=cleared.actor,
                task=case.order.by.task,
                new=new,
                reason=without_credentials(case.order.reason),
                inputs=cleared.basis.inputs,
                refs=cleared.refs[:1],
            )
        )
        what = f"{case.act} of {self._model_name!r} in environment {cleared.environment} is refused"
        raise type(reasons[0])(f"{what}: {sentences(*said)}. Nothing was changed, and the refusal is recorded")


def verification_keys(policy: GovernancePolicy, use: str) -> tuple[VerificationKey, ...]:
    """Return the keys of a policy whose signatures count for one use.

    :param policy: the policy.
    :param use: such as ``passport``.
    """
    return tuple(
        VerificationKey(
            key.public,
            since=time_of(key.from_) if key.from_ else None,
            until=time_of(key.until) if key.until else None,
            revoked=key.revoked,
        )
        for key in policy.spec.keys
        if use in key.use
    )


def _actor(found: AuditActor, requester: Requester) -> AuditActor:
    """Return who acts, after asking who is behind it."""
    if not requester.account:
        return replace(found, authenticated=bool(requester.pipeline) and not requester.doubt)
    return replace(found, kind="user", name=requester.account, authenticated=not requester.doubt)
