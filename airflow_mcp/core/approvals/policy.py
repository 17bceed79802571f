"""The sections ``approvals`` and ``notify`` of a GovernancePolicy: who is asked for what, and who is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from airflow_mcp.core.access.policy import RISKS, GovernancePolicy, PolicySpec, Problem, Risk
from airflow_mcp.core.argument import ENVIRONMENTS, in_words
from airflow_mcp.core.duration import seconds_of
from airflow_mcp.core.pipeline.file.fields import ConnectionId, Duration, Flag, SpecModel, Text, Whole
from airflow_mcp.exceptions import InvalidArgumentError

ApprovedAct = Literal["release", "rollback"]
"""What people approve."""
RELEASE: ApprovedAct = "release"
Environment = Literal["dev", "test", "prod"]
Initiator = Literal["trigger", "clear", "commit_author", "owner"]
TimerAction = Literal["remind", "escalate", "alert"]
Occasion = Literal[
    "requested", "asked", "answered", "reminded", "escalated", "alerted", "granted", "rejected", "expired", "moved"
]
ROLE = "role:"
"""Prefix of an approver that is everybody who holds a role."""
SUPERIOR = "superior"
"""The superiors of the approvers who have not voted."""
NodeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$", max_length=60)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[Text, ...], BeforeValidator(_listed)]


class When(SpecModel):
    """What a rule is for; what is left out fits everything, except that a rule without ``act`` is for releases only."""

    act: Annotated[tuple[ApprovedAct, ...], BeforeValidator(_listed)] = Field(
        (), description="release (the default), rollback, or both. Without a rule for rollback nobody is asked for one."
    )
    environment: Annotated[tuple[Environment, ...], BeforeValidator(_listed)] = Field(
        (), description="dev, test or prod, or several of them."
    )
    risk: Annotated[tuple[Risk, ...], BeforeValidator(_listed)] = Field(
        (), description="low, medium or high, or several of them."
    )
    models: Names = Field((), description="Names of models; * is any text.")

    @property
    def acts(self) -> tuple[ApprovedAct, ...]:
        """What people are asked to approve."""
        return self.act or (RELEASE,)

    def fits(self, environment: str, risk: str, model_name: str, act: ApprovedAct = RELEASE) -> bool:
        """Whether the rule is for a release, or for a rollback."""
        return (
            act in self.acts
            and (not self.environment or environment in self.environment)
            and (not self.risk or risk in self.risk)
            and (not self.models or any(fnmatchcase(model_name, pattern) for pattern in self.models))
        )


class Timer(SpecModel):
    """What happens when nobody has answered for some time."""

    after: Duration = Field(description="How long after the node was opened, for example 48h.")
    do: TimerAction = Field(
        description="remind the approvers, escalate (those named in to may answer from then on), or alert."
    )
    to: Names = Field(
        (), description="Who is told: superior, role:<role> or people. Default: the approvers who have not voted."
    )

    @property
    def seconds(self) -> int:
        """Seconds after the node was opened."""
        return seconds_of(self.after)


class Expiry(SpecModel):
    """The end of waiting."""

    after: Duration = Field(description="How long after the node was opened, for example 14d.")
    do: Literal["reject"] = Field("reject", description="reject: waiting never ends in a yes.")

    @property
    def seconds(self) -> int:
        """Seconds after the node was opened."""
        return seconds_of(self.after)


class Node(SpecModel):
    """One step of a chain: some people of whom enough must approve."""

    name: NodeName = Field(description="Name of the step, for example compliance.")
    approvers: Names = Field(min_length=1, description="Who may approve: role:<role>, or people of the policy.")
    quorum: Annotated[Whole, Field(ge=1, le=20)] = Field(1, description="How many of them must approve.")
    timers: tuple[Timer, ...] = Field((), description="What happens when nobody answers.")
    expires: Expiry | None = Field(None, description="When the request is rejected. Default: it waits.")


class ApprovalRule(SpecModel):
    """Who is asked for some releases."""

    when: When | None = Field(None, description="What the rule is for. The last rule has none and fits everything.")
    initiators: tuple[Initiator, ...] = Field(
        ("trigger", "clear"),
        description="Who counts as having asked, and may not approve: whoever triggered or cleared the release always, "
        "and commit_author and owner where they are listed.",
    )
    distinct: Flag = Field(True, description="Whether one person counts once in the whole chain, not once per node.")
    chain: tuple[Node, ...] = Field((), description="Nodes in their order. Empty: nobody is asked.")

    @property
    def seats(self) -> int:
        """How many approvals the chain needs."""
        return sum(node.quorum for node in self.chain)

    @property
    def acts(self) -> tuple[ApprovedAct, ...]:
        """What the rule is for."""
        return (self.when or When()).acts


class Channel(SpecModel):
    """Where messages about releases go."""

    on: tuple[Occasion, ...] = Field(min_length=1, description="What is told.")
    webhook: ConnectionId | None = Field(None, description="Airflow connection with the address of a webhook.")
    format: Literal["json", "slack", "wecom"] = Field("json", description="Format of the webhook's messages.")
    email: Names = Field((), description="E-mail addresses.")
    smtp: ConnectionId = Field("smtp_default", description="Airflow connection of type smtp, for email.")


@dataclass(frozen=True)
class ApprovalPolicy:
    """The policy in force, as approvals see it."""

    spec: PolicySpec
    """People, roles and who holds them."""
    digest: str
    """``sha256:`` of the whole policy."""
    rules: tuple[ApprovalRule, ...]
    channels: tuple[Channel, ...] = ()

    @classmethod
    def of(cls, policy: GovernancePolicy) -> ApprovalPolicy:
        """Read the sections of a policy.

        :param policy: the policy.
        :raises InvalidArgumentError: when a rule or a channel is not usable.
        """
        if mistake := next(approval_mistakes(policy), None):
            place = ".".join(str(part) for part in mistake[0])
            raise InvalidArgumentError(f"the policy {policy.metadata.name} cannot be used: {place}: {mistake[1]}")
        return cls(
            policy.spec,
            policy.digest,
            tuple(ApprovalRule.model_validate(rule) for rule in policy.spec.approvals),
            tuple(Channel.model_validate(channel) for channel in policy.spec.notify),
        )

    def risk_of(self, model_name: str, declared: str) -> Risk:
        """Return the risk of a model: what the pipeline declares, raised by the policy's floor.

        :param model_name: registered model.
        :param declared: low, medium or high; anything else counts as high.
        """
        floor = next(
            (each.risk for each in self.spec.risk_floor if any(fnmatchcase(model_name, name) for name in each.models)),
            RISKS[0],
        )
        return RISKS[max(RISKS.index(floor), RISKS.index(declared) if declared in RISKS else len(RISKS) - 1)]

    def asks(self, act: ApprovedAct) -> bool:
        """Whether any rule asks people about it."""
        return any(rule.chain and act in rule.acts for rule in self.rules)

    def rule_for(self, environment: str, risk: str, model_name: str, act: ApprovedAct = RELEASE) -> ApprovalRule:
        """Return the first rule that fits a release or a rollback; nobody is asked for a rollback without a rule.

        :param environment: dev, test or prod.
        :param risk: risk after :meth:`risk_of`.
        :param model_name: registered model.
        :param act: ``release`` or ``rollback``.
        :raises InvalidArgumentError: when the policy has no rule for a release.
        """
        for rule in self.rules:
            if (rule.when or When()).fits(environment, risk, model_name, act):
                return rule
        if act != RELEASE:
            return ApprovalRule()
        raise InvalidArgumentError(
            f"the policy has no rule for a release of {model_name} to {environment}. Nothing is released without one; "
            "add approvals to the policy, with a last rule without when"
        )

    def people(self, names: Iterable[str], asked: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the people that names in a rule stand for, each once.

        :param names: ``role:<role>``, ``superior``, or people.
        :param asked: people whose superiors ``superior`` means.
        """
        found: dict[str, None] = {}
        for name in names:
            if name.startswith(ROLE):
                found |= dict.fromkeys(self.spec.holders(name.removeprefix(ROLE)))
            elif name == SUPERIOR:
                found |= dict.fromkeys(boss for person in asked if (boss := self.spec.superior_of(person)))
            else:
                found[name] = None
        return tuple(found)


def approval_mistakes(policy: GovernancePolicy) -> Iterator[Problem]:
    """Yield what is wrong with the sections ``approvals`` and ``notify``: fields, names, rules that nothing reaches.

    :param policy: a policy whose other sections are in order.
    """
    spec = policy.spec
    rules: list[ApprovalRule] = []
    for section, model in (("approvals", ApprovalRule), ("notify", Channel)):
        for number, given in enumerate(getattr(spec, section)):
            path = ("spec", section, number)
            try:
                read = model.model_validate(given)
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    yield (*path, *detail["loc"]), in_words(detail)
                continue
            if isinstance(read, ApprovalRule):
                rules.append(read)
                yield from (((*path, *below), message) for below, message in _rule_mistakes(read, spec))
            elif isinstance(read, Channel) and not read.webhook and not read.email:
                yield path, "must have a webhook or email; got neither"
    if len(rules) == len(spec.approvals):
        yield from _order_mistakes(rules)


def _rule_mistakes(rule: ApprovalRule, spec: PolicySpec) -> Iterator[Problem]:
    names = [node.name for node in rule.chain]
    for number, node in enumerate(rule.chain):
        if node.name in names[:number]:
            yield ("chain", number, "name"), f"must differ from the other nodes of its chain; got {node.name!r}"
        yield from _name_mistakes(("chain", number, "approvers"), node.approvers, spec, may_be_superior=False)
        for index, timer in enumerate(node.timers):
            path = ("chain", number, "timers", index)
            yield from _name_mistakes((*path, "to"), timer.to, spec, may_be_superior=True)
            if timer.do == "escalate" and not timer.to:
                yield path, "must name in to who may answer after the escalation"


def _name_mistakes(
    path: tuple[str | int, ...], names: Iterable[str], spec: PolicySpec, *, may_be_superior: bool
) -> Iterator[Problem]:
    for name in names:
        if name == SUPERIOR and may_be_superior:
            continue
        if name.startswith(ROLE):
            if name.removeprefix(ROLE) not in spec.roles:
                yield path, f"must be roles of this policy, written role:<role>; got {name!r}"
        elif name not in spec.people:
            yield path, f"must be people of this policy, or role:<role>; got {name!r}"


def _order_mistakes(rules: list[ApprovalRule]) -> Iterator[Problem]:
    """Check that every release has a rule, and every rule a release."""
    if rules and not _fits_all(rules[-1]):
        yield ("spec", "approvals", len(rules) - 1), "must have no when: the last rule is for everything that is left"
    for number, rule in enumerate(rules):
        before = rules[:number]
        if any(_covers(earlier, rule) for earlier in before):
            yield ("spec", "approvals", number), "is never used: an earlier rule fits everything that it fits"


def _fits_all(rule: ApprovalRule) -> bool:
    return rule.when is None or rule.when == When()


def _covers(earlier: ApprovalRule, later: ApprovalRule) -> bool:
    one, other = earlier.when or When(), later.when or When()
    return (
        set(other.acts) <= set(one.acts)
        and set(other.environment or ENVIRONMENTS) <= set(one.environment or ENVIRONMENTS)
        and set(other.risk or RISKS) <= set(one.risk or RISKS)
        and (not one.models or (bool(other.models) and set(other.models) <= set(one.models)))
    )
