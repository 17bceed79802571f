"""Ask people before a model is released: one task asks for the release, and one more for each answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, conf
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput
from airflow.sdk.execution_time.hitl import HITLUser, upsert_hitl_detail

from airflow_mcp import settings
from airflow_mcp.core.approvals.events import APPROVE, REJECT, Asked
from airflow_mcp.core.approvals.messages import question_body
from airflow_mcp.core.approvals.policy import RELEASE
from airflow_mcp.core.approvals.seats import assigned_to, unfilled
from airflow_mcp.core.approvals.timers import VERBS, due_timers, next_look
from airflow_mcp.core.audit.moves import audit_actor
from airflow_mcp.exceptions import ApprovalMissingError, InvalidArgumentError
from airflow_mcp.hooks.git import GitRepositories
from airflow_mcp.operators.base import now
from airflow_mcp.operators.release import ReleaseOperator
from airflow_mcp.registry.release_tags import require_release_tag

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mcp.core.approvals.events import ReleaseKey
    from airflow_mcp.core.approvals.policy import ApprovalPolicy
    from airflow_mcp.core.approvals.state import RequestState
    from airflow_mcp.hooks.airflow_people import AirflowPeople
    from airflow_mcp.registry.approvals import ReleaseBook


class RequestReleaseOperator(ReleaseOperator):
    """Ask for the release of a version, or for a rollback to it, in the audit log. The seats after it ask the people.

    The request is bound to the passport of the version. It is refused at once when nobody knows who asks, and when the
    chain of the policy cannot be satisfied without whoever asks. A newer request of the model replaces an open one.

    XCom: ``model_name``, ``version``, ``environment``, ``passport``, ``risk``, ``status``, ``chain`` (names of the
    nodes).

    :param model_name: registered model (templated).
    :param version: version to release, which has a passport (templated).
    :param seats: number of ``ApprovalSeatOperator`` tasks in the Dag.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param act: ``release``, or ``rollback``, for which the policy has rules of its own.
    :param risk: ``low``, ``medium`` or ``high``; the policy may raise it.
    """

    def __init__(self, *, risk: str = "high", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if risk not in ("low", "medium", "high"):
            raise InvalidArgumentError(f"risk must be one of low, medium, high; got {risk!r}")
        self.risk = risk

    def act(self, context: Context) -> dict[str, Any]:
        """Check the request and record it.

        :raises InvalidArgumentError: when log, policy or connection are missing.
        :raises PassportError: when the version has no passport, or its release tag lacks the signature that the policy
            asks for: the promotion would be refused.
        :raises ApprovalMissingError: when nobody knows who asks, or the chain cannot be satisfied.
        :raises AirflowApiError: when Airflow does not answer.
        :raises AuditUnavailableError: when the log does not answer; a retry asks again.
        """
        key = self.release_key()
        book, policy = self.release_book(key)
        task = self.task_key(context)
        with self.airflow.people() as people:
            requester = people.requester(task.dag_id, task.dag_run_id)
        if unknown := requester.why_unknown(key.environment):
            raise ApprovalMissingError(
                f"{unknown}. Nobody was asked; trigger the release in Airflow's page or REST API"
            )
        self._require_signed_tag(key, policy)
        asked = Asked(str(self.version), self.risk, requester, policy.digest, self._initiators(key, policy))
        is_new = book.ask(asked, audit_actor(self.actor(context)), task)
        state = book.state(now())
        self._require_satisfiable(book, state)
        if is_new:
            self.tell(policy, "requested", state, context)
        return {
            "model_name": key.model_name,
            "version": str(self.version),
            "environment": key.environment,
            "passport": key.passport,
            "risk": state.risk,
            "status": state.status,
            "chain": [node.node.name for node in state.nodes],
        }

    def _initiators(self, key: ReleaseKey, policy: ApprovalPolicy) -> dict[str, tuple[str, ...]]:
        """Return who else may count as having asked: the owner, and the author of the commit where the rule says so.

        :raises ApprovalMissingError: when the rule needs the author, and nobody knows which person that is.
        :raises GitRemoteError: when the repository does not answer; a retry asks again.
        """
        found: dict[str, tuple[str, ...]] = {"owner": (self.owner,)}
        rule = policy.rule_for(key.environment, policy.risk_of(key.model_name, self.risk), key.model_name, key.act)
        if "commit_author" not in rule.initiators:
            return found
        code = self.code_of(key)
        if not code.url or not code.commit:
            raise ApprovalMissingError(
                "the policy excludes the author of the commit, and the version was not trained from a commit of a Git "
                "repository. Nobody was asked; train from one"
            )
        author = GitRepositories(settings.git_conn_id()).author_of(code.url, code.commit)
        if not any(author.lower() in map(str.lower, person.git_emails) for person in policy.spec.people.values()):
            raise ApprovalMissingError(
                f"the policy excludes the author of the commit, and knows nobody with the address {author!r}. Nobody "
                "was asked; add it to gitEmails of the person in the policy"
            )
        return {**found, "commit_author": (author,)}

    def _require_signed_tag(self, key: ReleaseKey, policy: ApprovalPolicy) -> None:
        """Check the signature of the release tag before anybody is asked; the guard checks it again."""
        signers = policy.spec.tag_signers(key.model_name)
        if signers is not None and key.environment == "prod" and key.act == RELEASE:
            require_release_tag(self.code_of(key), self.governance.repositories, signers)

    def _require_satisfiable(self, book: ReleaseBook, state: RequestState) -> None:
        if state.rule is None or state.electorate is None:
            return
        if state.seats > self.seats:
            raise InvalidArgumentError(
                f"seats must be at least {state.seats}, as many as the policy in force asks for; got {self.seats}. "
                "Nobody was asked; render the Dag again"
            )
        if state.status == "open" and (short := unfilled(state.rule, state.electorate)):
            said = f"{', '.join(short)} has fewer people than it needs, without whoever asked"
            book.note("withdrawn", state, {"why": said})
            raise ApprovalMissingError(f"the request cannot be satisfied: {said}. Somebody else has to ask")


class ApprovalSeatOperator(ReleaseOperator):
    """Wait for one approval. Seats are tasks one after the other; each takes the next approval that the chain needs.

    Where the policy has the ID of everybody who may answer (``people.<name>.ids``), Airflow refuses all others;
    elsewhere an answer of anybody else is recorded and does not count.

    Waiting needs no worker slot and no triggerer. The answer is read over Airflow's REST API and recorded before
    anything else; an answer that does not count is recorded too, and the seat asks again. A seat whose approval is
    there already asks nobody.

    Airflow shows the question of a task for ever, so a cleared task whose question would be another one is refused.

    XCom: ``node``, ``by``, ``through`` and ``seq`` (of the vote) of this seat's approval; ``status`` of the request.

    :param model_name: registered model (templated).
    :param version: version to release (templated).
    :param seat: number of this seat, from 1.
    :param seats: number of all seats in the Dag.
    :param environment: dev, test or prod; None takes ``[airflow_mcp] environment``.
    :param act: ``release``, or ``rollback``: that of the ``RequestReleaseOperator``.
    :param links: name to address of evidence that the question shows.
    """

    def __init__(self, *, seat: int, links: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 1 <= seat <= self.seats:
            raise InvalidArgumentError(f"seat must be 1 to {self.seats}, the number of seats; got {seat}")
        self.seat = seat
        self.links = dict(links or {})

    def act(self, context: Context) -> dict[str, Any]:
        """Look whether the approval is there, and ask if it is not.

        :raises ApprovalMissingError: when the request was rejected or has expired, nobody has asked, the question would
            be another one than Airflow shows, or the chain needs more seats.
        :raises AirflowSkipException: when the request was superseded or withdrawn.
        :raises TaskAwaitingInput: to wait for an answer.
        :raises AirflowApiError: when Airflow does not answer; nothing was asked.
        :raises AuditUnavailableError: when the log does not answer; the answer stays in Airflow until a retry.
        """
        key, time = self.release_key(), now()
        book, policy = self.release_book(key)
        with self.airflow.people() as people:
            self._record(people, book, policy, context, time)
            state = book.state(time)
            self._require_open(book, policy, state, context)
            done = self._done(book, policy, state, context)
            if done is None:
                self._fire(book, policy, state, context, time)
                self._ask(people, book, policy, state, context)
        if done is not None:
            return done
        raise TaskAwaitingInput(method_name="execute_complete", timeout=next_look(state, time))

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Look again; the event only wakes the task, because it can be forged or lost."""
        return self.execute(context)

    def _record(
        self, people: AirflowPeople, book: ReleaseBook, policy: ApprovalPolicy, context: Context, time: datetime
    ) -> None:
        """Record who cleared a task of the run, and what was answered, before anything is asked again."""
        task = self.task_key(context)
        state = book.state(time)
        if state.request is None:
            return
        requester = people.requester(task.dag_id, task.dag_run_id)
        if set(requester.cleared_by) - set(state.request.initiators.get("clear", ())):
            request = state.request
            initiators = {kind: names for kind, names in request.initiators.items() if kind not in ("trigger", "clear")}
            asked = Asked(request.version, request.risk, requester, policy.digest, initiators)
            book.ask(asked, audit_actor(self.actor(context)), task)
        for vote in book.take(people.answers(task), time):
            said = "counts" if vote.counts else "does not count"
            self.log.info("%s by %s %s: %s", vote.vote.answer.option, vote.vote.answer.account, said, vote.why)

    def _require_open(self, book: ReleaseBook, policy: ApprovalPolicy, state: RequestState, context: Context) -> None:
        """Check that the request has not ended without a grant."""
        if state.status == "unknown":
            raise ApprovalMissingError(
                "nobody has asked for this release. Put a RequestReleaseOperator before the seats"
            )
        if state.status in ("rejected", "expired"):
            if book.note(state.status, state, {"why": state.reason}):
                self.tell(policy, state.status, state, context, reason=state.reason)
            raise ApprovalMissingError(
                f"the {state.key.act} is {state.status}: {state.reason}. A new Dag run asks anew"
            )
        if state.status in ("superseded", "withdrawn"):
            raise AirflowSkipException(f"the request is {state.status}: {state.reason}")

    def _done(
        self, book: ReleaseBook, policy: ApprovalPolicy, state: RequestState, context: Context
    ) -> dict[str, Any] | None:
        """Return the result when this seat's approval is there, or none is needed."""
        votes = state.approvals
        if state.status == "granted":
            if book.note("granted", state, {"votes": [vote.vote.seq for vote in votes]}):
                self.tell(policy, "granted", state, context)
            book.supersede_others(state, now())
        elif len(votes) >= self.seats:
            raise ApprovalMissingError(
                f"the chain needs {state.seats} approvals and the Dag has {self.seats} seats. Render the Dag again"
            )
        elif len(votes) < self.seat:
            return None
        mine = votes[self.seat - 1] if len(votes) >= self.seat else None
        return {
            "status": state.status,
            "node": mine.node if mine else None,
            "by": mine.person if mine else None,
            "through": mine.why if mine else None,
            "seq": mine.vote.seq if mine else None,
        }

    def _fire(
        self, book: ReleaseBook, policy: ApprovalPolicy, state: RequestState, context: Context, time: datetime
    ) -> None:
        """Send the messages that are due, then record each: a message twice is better than none."""
        for due in due_timers(state, time):
            occasion = VERBS[due.timer.do]
            if self.tell(policy, occasion, state, context, node=due.node, people=list(due.to)):  # type: ignore[arg-type]
                continue  # tried again at the next look
            book.note(occasion, state, {"node": due.node, "after": due.timer.after, "to": list(due.to)})

    def _ask(
        self, people: AirflowPeople, book: ReleaseBook, policy: ApprovalPolicy, state: RequestState, context: Context
    ) -> None:
        """Put the question into Airflow, and read it back: Airflow keeps the first question of a task for ever."""
        node = state.open_node
        if node is None or state.electorate is None:
            return
        task, subject = self.task_key(context), state.key.question(node.node.name)
        may_vote = state.electorate.may_ever_vote(node.node)
        assigned = assigned_to(policy, state.electorate.may_ever_answer(node.node), auth_manager())
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[APPROVE, REJECT],
            subject=subject,
            body=question_body(state, node.node, may_vote, self.links),
            params={"reason": Param(None, type=["null", "string"], description="Why.").serialize()},
            assigned_users=[HITLUser(id=account_id, name=name) for account_id, name in assigned],
        )
        shown = people.question(task)
        if shown is None or shown.subject != subject or shown.options != (APPROVE, REJECT):
            raise ApprovalMissingError(
                f"Airflow shows another question than {subject!r} for this task: it keeps the first question of a "
                "task, and an answer would not count. Start a new Dag run; the votes of this one go on to count there"
            )
        place = {"dag": task.dag_id, "run": task.dag_run_id, "task": task.task_id}
        if book.note("asked", state, {"node": node.node.name, **place}):
            self.tell(policy, "asked", state, context, node=node.node.name, people=list(may_vote))


def auth_manager() -> str:
    """Return the name of Airflow's auth manager, as ``ids`` in the policy have it: ``fab``, ``simple``."""
    path: str = conf.get_mandatory_value("core", "auth_manager")
    return path.rpartition(".")[2].removesuffix("AuthManager").lower()
