"""``airflow-mcp approvals``: who is asked about a release, where it waits, withdrawals and delegations."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mcp.audit.settings import AuditSettings
from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import audit_user, person, read_log, require_checked, required_settings
from airflow_mcp.cli.options import add_action, add_format, add_tracking_uri
from airflow_mcp.cli.registry_server import registry_server, require_reason
from airflow_mcp.core.access.decision import AccessRules, principal_of_account
from airflow_mcp.core.access.in_force import PolicyInForce, read_in_force
from airflow_mcp.core.approvals.cycle import STEPS, Cycle, read_cycles
from airflow_mcp.core.approvals.document import delegation_document, request_document
from airflow_mcp.core.approvals.events import (
    DELEGATIONS,
    REQUESTED,
    Delegating,
    Delegation,
    delegated,
    latest_requested,
    read_delegations,
    undelegated,
)
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.state import RequestState
from airflow_mcp.core.argument import closest
from airflow_mcp.core.audit.event import AuditActor
from airflow_mcp.core.audit.log import MOST_LISTED, AuditLog, listing
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.core.registry.history import parse_time
from airflow_mcp.exceptions import AccessRefusedError, ApprovalMissingError, InvalidArgumentError, MlflowError
from airflow_mcp.registry.approvals import ReleaseBook, read_states

_TIME = "ISO 8601 with an offset, such as 2026-11-21T08:00Z"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = command.add_subparsers(dest="action", required=True)
    shown = add_action(actions, "list", "list the open requests; that is recorded as a read of the audit log", _list)
    shown.add_argument("--all", action="store_true", help="the latest request of each model and environment")
    one = add_action(actions, "show", "show the latest request of a model: chain, votes, who is asked next", _show)
    ended = add_action(actions, "withdraw", "end the request of a model; also one that is granted", _withdraw)
    for action in (one, ended):
        action.add_argument("model_name", help="registered model")
        action.add_argument("--version", default="", metavar="N", help="version; default: the latest request")
    given = add_action(actions, "delegate", "let another person vote for you for some time", _delegate)
    given.add_argument("person", help="who votes for you, as the policy names them")
    given.add_argument("--until", required=True, metavar="TIME", help=f"first moment that is not part of it; {_TIME}")
    given.add_argument("--since", default="", metavar="TIME", help=f"{_TIME}; default: now")
    given.add_argument("--role", action="append", default=[], help="only for this role; may be given again")
    add_format(add_action(actions, "delegations", "list the delegations", _delegations))
    times = add_action(actions, "times", "show how long the latest versions took, from training to serving", _times)
    times.add_argument("model_name", help="registered model")
    times.add_argument("--limit", type=int, default=10, metavar="N", help="versions to show; default: 10")
    add_tracking_uri(times)
    back = add_action(actions, "undelegate", "end a delegation", _undelegate)
    back.add_argument("seq", type=int, help="its number, as the action delegations lists it")
    for action in (shown, one, ended, given, times, back):
        add_format(action)
    for action in (ended, given, back):
        action.add_argument("--reason", required=True, help="why; recorded")


def run(parsed: argparse.Namespace) -> int:
    """Run the action; 1 means that there is no such request, or that the caller may not do it."""
    return int(parsed.answer(parsed))


# --- requests ---------------------------------------------------------------------------------------------------------


def _list(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    event = listing(audit_user(), settings.environment, limit=MOST_LISTED, action=REQUESTED)
    with closing(open_log(settings)) as log:
        policy = ApprovalPolicy.of(_in_force(log).policy)
        records = [read_record(raw.decode()) for raw in read_log(log, event)]
        states = read_states(log, latest_requested(records), policy, _now())
    documents = [request_document(state) for state in states if parsed.all or state.status == "open"]
    if parsed.format == "json":
        print(json.dumps(documents, indent=2))
        return 0
    for document in documents:
        print(_headline(document))
    if not documents:
        print("nobody has asked for a release" if parsed.all else "no request is open")
    if len(records) == MOST_LISTED:
        print(f"only the latest {MOST_LISTED} requests were looked at; to see an older one, use show MODEL")
    return 0


def _show(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    with closing(open_log(settings)) as log:
        policy = ApprovalPolicy.of(_in_force(log).policy)
        _record_read(log, settings, model_subject(parsed.model_name), REQUESTED)
        state = _found(log, parsed, policy, settings)
    document = request_document(state)
    print(json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(_text(document)))
    return 0


def _record_read(log: AuditLog, settings: AuditSettings, subject: str, action: str) -> None:
    """Record that the caller reads, if the policy permits it; what is shown is folded from more records than one list.

    :raises AccessRefusedError: when it is not permitted.
    """
    for _ in read_log(log, listing(audit_user(), settings.environment, limit=1, subject=subject, action=action)):
        pass


def _withdraw(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    settings, caller = required_settings(), person()
    require_checked(caller, settings.environment, "withdraws a release")
    with closing(open_log(settings)) as log:
        in_force = _in_force(log)
        policy = ApprovalPolicy.of(in_force.policy)
        state = _found(log, parsed, policy, settings)
        if state.status not in ("open", "granted"):
            raise ApprovalMissingError(f"the request is {state.status}: {state.reason}. Nothing was recorded")
        _require_may_withdraw(in_force, state, caller)
        ReleaseBook(log, state.key, policy).withdraw(state, caller, parsed.reason)
        document = request_document(_found(log, parsed, policy, settings))
    print(json.dumps(document, indent=2) if parsed.format == "json" else _headline(document))
    return 0


def _require_may_withdraw(in_force: PolicyInForce, state: RequestState, caller: AuditActor) -> None:
    """Check that the caller asked for the release, or may promote the model.

    :raises AccessRefusedError: when neither is so.
    """
    principal = principal_of_account(in_force.policy, caller.name)
    initiators = state.electorate.initiators if state.electorate else frozenset()
    decision = AccessRules(in_force.policy).allowed(principal, model_subject(state.key.model_name), "promote")
    if principal.name not in initiators and not decision.granted:
        raise AccessRefusedError(f"{decision.by}, and did not ask for this release. Nothing was recorded")


def _found(log: AuditLog, parsed: argparse.Namespace, policy: ApprovalPolicy, settings: AuditSettings) -> RequestState:
    """Return the latest request of a model, or of one version, in the environment of the command.

    :raises ApprovalMissingError: when nobody has asked.
    """
    records = [
        record
        for record in log.facts(model_subject(parsed.model_name), REQUESTED)
        if record.event["environment"] == settings.environment
        and parsed.version in ("", record.event["new"]["version"])
    ]
    if not records:
        version = f" version {parsed.version}" if parsed.version else ""
        raise ApprovalMissingError(
            f"nobody has asked for a release of {parsed.model_name!r}{version} to {settings.environment}. To list the "
            "requests, run airflow-mcp approvals list --all"
        )
    (state,) = read_states(log, latest_requested(records), policy, _now())
    return state


# --- times ------------------------------------------------------------------------------------------------------------


def _times(parsed: argparse.Namespace) -> int:
    if parsed.limit < 1:
        raise InvalidArgumentError(f"--limit must be 1 or more; got {parsed.limit}")
    settings = required_settings()
    event = listing(audit_user(), settings.environment, limit=MOST_LISTED, model=parsed.model_name)
    with closing(open_log(settings)) as log:
        records = [read_record(raw.decode()) for raw in read_log(log, event)]
    newest = list(read_cycles(records, settings.environment).values())[: parsed.limit]
    runs = _runs(parsed, records, [cycle.version for cycle in newest])
    cycles = [cycle.trained(*runs.get(cycle.version, (None, None))) for cycle in newest]
    if parsed.format == "json":
        print(json.dumps([cycle.to_json() for cycle in cycles], indent=2))
    else:
        print("\n".join(map(_cycle_line, cycles)) or f"the log knows no version of {parsed.model_name!r}")
    return 0


def _runs(
    parsed: argparse.Namespace, records: Iterable[Record], versions: Iterable[str]
) -> dict[str, tuple[datetime | None, datetime | None]]:
    """Return begin and end of the runs that trained the versions; nothing, with a warning, without MLflow."""
    wanted = set(versions)
    runs = {
        record.event["new"]["version"]: record.event["new"].get("run_id")
        for record in records
        if record.event["action"] == "version.registered" and record.event["new"]
    }
    try:
        with registry_server(parsed) as mlflow:
            found = {version: mlflow.get_run(run) for version, run in runs.items() if run and version in wanted}
    except (MlflowError, InvalidArgumentError) as error:
        print(f"warning: when the trainings ran is not known: {error}", file=sys.stderr)
        return {}
    return {version: (_moment(run.start_time), _moment(run.end_time)) for version, run in found.items()}


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _cycle_line(cycle: Cycle) -> str:
    stages = ", ".join(f"{step} after {timedelta(seconds=round(took))}" for step, took in cycle.stages.items())
    first = next((step for step in STEPS if step in cycle.times), "")
    at = cycle.times[first].isoformat(timespec="seconds")
    return f"version {cycle.version}: {first} at {at}{f', {stages}' if stages else ''}"


# --- delegations ------------------------------------------------------------------------------------------------------


def _delegate(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    settings, caller = required_settings(), person()
    _require_account(caller, "delegates a vote")
    with closing(open_log(settings)) as log:
        policy = ApprovalPolicy.of(_in_force(log).policy)
        terms = _terms(parsed, policy, caller, _now())
        appended = log.append(delegated(terms, caller, settings.environment, parsed.reason))
        given = next(each for each in _known(log, policy) if each.seq == appended.seq)
    _print_delegation(parsed, given, max(_now(), given.recorded_at))  # the clock of the log may be ahead
    return 0


def _terms(parsed: argparse.Namespace, policy: ApprovalPolicy, caller: AuditActor, now: datetime) -> Delegating:
    """Return what the caller delegates.

    :raises InvalidArgumentError: when it could never count.
    """
    spec, giver = policy.spec, policy.spec.person_of(caller.name)
    if giver is None:
        raise InvalidArgumentError(f"account {caller.name!r} belongs to nobody in the policy. Nothing was recorded")
    if parsed.person not in spec.people or parsed.person == giver:
        near = closest(parsed.person, [name for name in spec.people if name != giver])
        hint = f". Did you mean {near!r}?" if near else ""
        raise InvalidArgumentError(f"person must be another person of the policy; got {parsed.person!r}{hint}")
    since = parse_time("--since", parsed.since) if parsed.since else now
    until = parse_time("--until", parsed.until)
    if until <= max(since, now):
        raise InvalidArgumentError(f"--until must be in the future and after --since; got {parsed.until!r}")
    for role in parsed.role:
        if giver not in spec.holders(role):
            raise InvalidArgumentError(f"--role must be a role that {giver} holds; got {role!r}")
    return Delegating(giver, parsed.person, tuple(parsed.role), since, until)


def _delegations(parsed: argparse.Namespace) -> int:
    settings, now = required_settings(), _now()
    with closing(open_log(settings)) as log:
        policy = ApprovalPolicy.of(_in_force(log).policy)
        _record_read(log, settings, DELEGATIONS, "delegation.")
        known = _known(log, policy)
    if parsed.format == "json":
        print(json.dumps([delegation_document(each, now) for each in known], indent=2))
    else:
        print("\n".join(_delegation_line(delegation_document(each, now)) for each in known) or "nobody has delegated")
    return 0


def _undelegate(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    settings, caller = required_settings(), person()
    _require_account(caller, "ends a delegation")
    with closing(open_log(settings)) as log:
        in_force = _in_force(log)
        policy = ApprovalPolicy.of(in_force.policy)
        found = next((each for each in _known(log, policy) if each.seq == parsed.seq), None)
        if found is None:
            raise InvalidArgumentError(
                f"seq must be the number of a delegation; got {parsed.seq}. Nothing was recorded"
            )
        _require_may_undelegate(in_force, found, caller)
        log.append(undelegated(parsed.seq, caller, settings.environment, parsed.reason))
        ended = next(each for each in _known(log, policy) if each.seq == parsed.seq)
    _print_delegation(parsed, ended, _now())
    return 0


def _require_may_undelegate(in_force: PolicyInForce, found: Delegation, caller: AuditActor) -> None:
    """Check that the caller is one of the two people, or may activate a policy: a giver may have left.

    :raises AccessRefusedError: when the caller is neither.
    """
    principal = principal_of_account(in_force.policy, caller.name)
    decision = AccessRules(in_force.policy).allowed(principal, "policy", "activate")
    if principal.name not in (found.terms.giver, found.terms.receiver) and not decision.granted:
        raise AccessRefusedError(f"{decision.by}, and is not part of this delegation. Nothing was recorded")


def _known(log: AuditLog, policy: ApprovalPolicy) -> tuple[Delegation, ...]:
    return read_delegations(log.facts(DELEGATIONS, "delegation."), policy)


def _require_account(caller: AuditActor, what: str) -> None:
    """Check that Airflow has checked who calls, in every environment: otherwise anybody could vote for anybody.

    :raises AccessRefusedError: when it has not.
    """
    require_checked(caller, "prod", what)


def _print_delegation(parsed: argparse.Namespace, delegation: Delegation, now: datetime) -> None:
    document = delegation_document(delegation, now)
    print(json.dumps(document, indent=2) if parsed.format == "json" else _delegation_line(document))


# --- what is printed --------------------------------------------------------------------------------------------------


def _headline(document: Mapping[str, Any]) -> str:
    way = "back in" if document["act"] == "rollback" else "to"
    place = f"{document['model_name']} version {document['version']} {way} {document['environment']}"
    waits = document["waits_for"]
    if waits is None:
        why = f", {document['reason']}" if document["reason"] else ""
        return f"{place}: {document['status']}{why}"
    people = ", ".join(waits["may_vote"]) or "nobody"
    return f"{place}: waits since {waits['since']} at {waits['node']} for {waits['missing']} of {people}"


def _text(document: Mapping[str, Any]) -> Iterator[str]:
    yield _headline(document)
    yield f"  passport {document['passport']}"
    asked_by = document["requested_by"] or "nobody"
    yield f"  risk {document['risk']}, asked for by {asked_by} at {document['requested_at']}"
    if document["initiators"]:
        yield f"  may not approve: {', '.join(document['initiators'])}"
    for node in document["chain"]:
        by = ", ".join(node["approved_by"]) or "nobody yet"
        yield f"  {node['node']}: {len(node['approved_by'])} of {node['quorum']} ({', '.join(node['approvers'])}): {by}"
    for vote in document["votes"]:
        counts = "counts" if vote["counts"] else "does not count"
        yield f"  {vote['at']}  {vote['option']} by {vote['account']} at {vote['node']}: {counts}, {vote['why']}"
    yield from _what_follows(document["waits_for"])


def _what_follows(waits: Mapping[str, Any] | None) -> Iterator[str]:
    if waits is None:
        return
    for timer in waits["next"]:
        yield f"  {timer['at']}  {timer['do']}: {', '.join(timer['to']) or 'nobody'}"
    if waits["expires_at"]:
        yield f"  {waits['expires_at']}  rejected if nobody has answered"
    if task := waits["question"]:
        yield f"  answer in Airflow: Dag {task['dag_id']}, run {task['dag_run_id']}, task {task['task_id']}"


def _delegation_line(document: Mapping[str, Any]) -> str:
    roles = f" as {', '.join(document['roles'])}" if document["roles"] else ""
    ended = f", ended {document['withdrawn_at']}" if document["withdrawn_at"] else ""
    return (
        f"{document['seq']:>8}  {document['receiver']} votes for {document['giver']}{roles} from {document['since']} "
        f"to {document['until']}{ended}"
    )


def _in_force(log: AuditLog) -> PolicyInForce:
    """Return the policy in force.

    :raises InvalidArgumentError: when there is none.
    """
    found = read_in_force(log)
    if found is None:
        raise InvalidArgumentError("no policy is in force, so nobody knows who must approve")
    return found


def _now() -> datetime:
    return datetime.now(UTC)
