"""Who will be asked before a release of a pipeline, by a policy: for ``plan`` and ``validate``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.access.policy import read_policy
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy, ApprovalRule, ApprovedAct, Node
from airflow_mcp.core.approvals.seats import chain_mistakes, unfilled
from airflow_mcp.core.approvals.votes import Electorate, initiators_of
from airflow_mcp.core.pipeline.file.stages import approval_in
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan, PlannedRelease
from airflow_mcp.core.pipeline.plan.releasing import UNDECLARED_RISK
from airflow_mcp.dag_rendering.loader import LoadedPipeline
from airflow_mcp.exceptions import InvalidArgumentError, SpecProblem

_RELEASING = ("deploy", "promote")
_LOG = "AIRFLOW_MCP_AUDIT_LOG"


def add_policy(command: argparse.ArgumentParser) -> None:
    """Add ``--policy``."""
    command.add_argument(
        "--policy",
        metavar="FILE",
        help=f"policy that says who approves a release; default: the one in force in {_LOG}, if that is set",
    )


def policy_of(parsed: argparse.Namespace) -> ApprovalPolicy | None:
    """Return the policy by which a release is judged; None when none is named and there is no log.

    :raises PipelineSpecError: with every mistake of the policy file.
    :raises InvalidArgumentError: when the file cannot be read.
    :raises AuditUnavailableError: when the log does not answer.
    """
    if parsed.policy:
        try:
            data = Path(parsed.policy).read_bytes()
        except OSError as error:
            raise InvalidArgumentError(
                f"--policy must be a readable file; got {parsed.policy!r}: {error.strerror}"
            ) from None
        return ApprovalPolicy.of(read_policy(data, parsed.policy, (chain_mistakes,)))
    if not os.environ.get(_LOG):
        return None
    # Here, because the commands on files alone must start without what the log needs.
    from airflow_mcp.audit.stores import open_log  # noqa: PLC0415
    from airflow_mcp.cli.governance import required_settings  # noqa: PLC0415

    with closing(open_log(required_settings())) as log:
        found = read_in_force(log)
    return ApprovalPolicy.of(found.policy) if found else None


def release_problems(loaded: LoadedPipeline, policy: ApprovalPolicy) -> Iterator[SpecProblem]:
    """Yield why a release of a pipeline could never be approved by a policy.

    :param loaded: the pipeline for one environment.
    :param policy: the policy.
    """
    spec, environment = loaded.pipeline.spec, loaded.environment
    if spec.stop_after not in _RELEASING:
        return
    model = spec.model.name or loaded.pipeline.metadata.name
    rule = policy.rule_for(environment, policy.risk_of(model, spec.risk or UNDECLARED_RISK), model)
    stage = approval_in(spec.stages, environment)
    if stage is None:
        if rule.chain:
            message = (
                f"the policy asks {', '.join(node.name for node in rule.chain)} before a release to {environment}, and "
                f"no stage approval asks them: the promotion would be refused. Add the stage, for {environment}"
            )
            yield SpecProblem(*loaded.place("spec", "stages"), "spec.stages", message)
        return
    path = ("spec", "stages", spec.stages.index(stage))
    field = f"spec.stages[{path[-1]}]"
    if rule.seats > stage.seats:
        message = f"must be at least {rule.seats}, as many approvals as the policy asks for; got {stage.seats}"
        yield SpecProblem(*loaded.place(*path, "seats"), f"{field}.seats", message)
    owner = loaded.pipeline.metadata.owner
    if short := unfilled(rule, Electorate(policy, initiators_of(policy, rule.initiators, {"owner": (owner,)}))):
        message = f"nobody could finish the chain of the policy: {', '.join(short)} has fewer people than it needs"
        yield SpecProblem(*loaded.place(*path), field, message)


def chain_of(plan: PipelinePlan, policy: ApprovalPolicy) -> dict[str, Any] | None:
    """Return who will be asked before a release, in which order and why, as JSON values; None without a release Dag.

    Under ``rollback`` is who will be asked before a person rolls the model back; None when nobody is.

    :param plan: the plan.
    :param policy: the policy.
    """
    if plan.release is None:
        return None
    back = _chain(plan, plan.release, policy, "rollback")
    return {**_chain(plan, plan.release, policy, RELEASE), "rollback": back if back["chain"] else None}


def _chain(plan: PipelinePlan, release: PlannedRelease, policy: ApprovalPolicy, act: ApprovedAct) -> dict[str, Any]:
    declared = release.tasks[0].arguments["risk"]
    risk = policy.risk_of(plan.model_name, declared)
    rule = policy.rule_for(plan.environment, risk, plan.model_name, act)
    named = {"owner": (plan.owner,)}
    electorate = Electorate(policy, initiators_of(policy, rule.initiators, named))
    return {
        "policy": policy.digest,
        "rule": policy.rules.index(rule) if rule in policy.rules else None,
        "when": rule.when.model_dump(exclude_defaults=True, mode="json") if rule.when else {},
        "risk": risk,
        "declared_risk": declared,
        "may_not_approve": list(rule.initiators),
        "distinct": rule.distinct,
        "chain": [_node(node, electorate) for node in rule.chain],
        "cannot_ask": [person for person in policy.spec.people if _cannot_ask(person, rule, electorate)],
    }


def _node(node: Node, electorate: Electorate) -> dict[str, Any]:
    policy = electorate.policy
    people = [person for person in policy.people(node.approvers) if person not in electorate.initiators]
    timers = [
        {"after": timer.after, "do": timer.do, "to": list(policy.people(timer.to, people)) or people}
        for timer in node.timers
    ]
    return {
        "name": node.name,
        "quorum": node.quorum,
        "approvers": list(node.approvers),
        "people": people,
        "timers": timers,
        "expires": node.expires.after if node.expires else None,
    }


def _cannot_ask(person: str, rule: ApprovalRule, electorate: Electorate) -> bool:
    return bool(unfilled(rule, Electorate(electorate.policy, electorate.initiators | {person})))


def chain_lines(plan: PipelinePlan, policy: ApprovalPolicy | None) -> Iterator[str]:
    """Describe who will be asked before a release; nothing for a pipeline without a release Dag.

    :param plan: the plan.
    :param policy: the policy; None when there is none.
    """
    if plan.release is None:
        return
    yield ""
    found = chain_of(plan, policy) if policy is not None else None
    if found is None:
        yield f"the policy says who is asked before a release; name one with --policy, or set {_LOG}"
        return
    yield from _described("approval", found)
    yield ""
    if found["rollback"] is None:
        yield "rollback: nobody is asked; whoever may roll back does it at once"
        return
    yield from _described("rollback", found["rollback"])


def _described(what: str, found: dict[str, Any]) -> Iterator[str]:
    raised = "" if found["risk"] == found["declared_risk"] else f", raised by riskFloor from {found['declared_risk']}"
    fits = ", ".join(f"{name} {_words(value)}" for name, value in found["when"].items()) or "everything else"
    yield f"{what} by rule {found['rule'] + 1} of {found['policy'][:19]}…, which is for {fits}"
    yield f"    risk                 {found['risk']}{raised}"
    if not found["chain"]:
        yield "    nobody is asked"
        return
    once = "each person counts once" if found["distinct"] else "each person counts once per step"
    yield f"    may not approve      {', '.join(found['may_not_approve'])}; {once}"
    for number, node in enumerate(found["chain"], 1):
        who = f"{node['quorum']} of {', '.join(node['people']) or 'nobody'} ({', '.join(node['approvers'])})"
        yield f"    {f'{number}. ' + node['name']:<20} {who}"
        for timer in node["timers"]:
            yield f"    {'':<20} after {timer['after']} {timer['do']} {', '.join(timer['to'])}"
        if node["expires"]:
            yield f"    {'':<20} after {node['expires']} rejected"
    if found["cannot_ask"]:
        yield f"    cannot be asked by   {', '.join(found['cannot_ask'])}: without them the chain has too few people"


def _words(value: Any) -> str:
    return " or ".join(value) if isinstance(value, list | tuple) else str(value)
