"""What is wrong with the approvals of a policy, each at its place; and chains that nobody could finish."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.approvals.seats import assigned_to, unfilled, unmatched
from airflow_mcp.core.approvals.votes import Electorate
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError
from tests.support.approvals import POLICY, Book, bank


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- chain: []", "- when: {environment: test}\n      chain: []", "must have no when"),
        (
            "approvers: role:compliance, timers: [{after: 72h",
            "approvers: role:complaints, timers: [{after: 72h",
            "got 'role:complaints'",
        ),
        ("approvers: role:risk-committee", "approvers: [rosa, tom]", "got 'tom'"),
        ("when: {environment: prod, risk: high}", "when: {environment: production}", "must be one of dev, test, prod"),
        ("expires: {after: 14d}", "expires: {after: 14d, do: approve}", "must be reject"),
        ("do: escalate, to: superior}]\n        - {", "do: escalate}]\n        - {", "must name in to who may answer"),
        ("quorum: 2", "quorum: 0", "must be at least 1"),
        ("quorum: 2", "quorum: 3", "cannot be satisfied when lena asks"),
        ("name: risk-committee\n", "name: compliance\n", "must differ from the other nodes"),
        ("webhook: chat, format: slack", "format: slack", "must have a webhook or email"),
        ("- when: {environment: prod}\n", "- when: {environment: prod, risk: high, models: churn}\n", "is never used"),
        ("when: {environment: prod, risk: high}", "when: {act: undo}", "must be one of release, rollback"),
        ("- chain: []", "- when: {act: rollback}\n      chain: []", "must have no when"),
        (
            "- when: {environment: prod}\n",
            "- {when: {act: rollback}, chain: []}\n    - when: {act: [rollback], risk: low}\n",
            "is never used",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    assert old in POLICY
    with pytest.raises(PipelineSpecError) as caught:
        bank(POLICY.replace(old, new, 1))
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.line > 30
    assert problem.field.startswith(("spec.approvals", "spec.notify"))


def test_a_policy_without_approvals_releases_nothing() -> None:
    text = POLICY[: POLICY.index("  approvals:")]
    with pytest.raises(InvalidArgumentError, match="the policy has no rule for a release of fraud to prod"):
        ApprovalPolicy.of(bank(text)).rule_for("prod", "high", "fraud")


def test_a_rollback_has_rules_of_its_own_and_asks_nobody_without_one() -> None:
    policy = ApprovalPolicy.of(bank())
    assert not policy.asks("rollback")
    assert policy.rule_for("prod", "high", "fraud", "rollback").chain == ()
    own = "- when: {act: rollback, environment: prod}\n      chain: [{name: on-call, approvers: [omar, olga]}]\n    "
    policy = ApprovalPolicy.of(
        bank(POLICY.replace("- when: {environment: prod, risk", f"{own}- when: {{environment: prod, risk"))
    )
    assert policy.asks("rollback")
    assert [node.name for node in policy.rule_for("prod", "high", "fraud", "rollback").chain] == ["on-call"]
    assert policy.rule_for("dev", "high", "fraud", "rollback").chain == ()
    assert [node.name for node in policy.rule_for("prod", "low", "churn").chain] == ["algorithm-lead", "compliance"]


def test_a_chain_is_short_of_people_when_one_of_them_asks() -> None:
    policy = ApprovalPolicy.of(bank())
    rule = policy.rules[0]
    assert unfilled(rule, Electorate(policy, frozenset({"lena"}))) == ()
    assert unfilled(rule, Electorate(policy, frozenset({"lena", "luis"}))) == ("algorithm-lead",)
    assert unfilled(rule, Electorate(policy, frozenset({"rosa", "ruth"}))) == ("risk-committee",)


seats = st.lists(st.lists(st.sampled_from("abcde"), max_size=4, unique=True), max_size=5)


@given(seats)
def test_as_many_seats_are_filled_as_by_trying_every_order(wanted: list[list[str]]) -> None:
    best = (
        max(
            (
                sum(1 for seat, person in zip(wanted, people, strict=True) if person in seat)
                for people in itertools.permutations("abcde" + "-" * len(wanted), len(wanted))
            ),
            default=0,
        )
        if len(wanted) < 4
        else None
    )
    empty = unmatched(wanted)
    assert best is None or len(wanted) - len(empty) == best
    assert all(not wanted[seat] or len(wanted) > 1 for seat in empty)


def test_a_question_is_assigned_only_when_everybody_who_may_answer_has_an_id() -> None:
    policy = ApprovalPolicy.of(bank(POLICY.replace("luis: {", 'luis: {ids: {fab: "13"}, ')))
    assert assigned_to(policy, ("lena", "luis", "lena"), "fab") == (("12", "lena"), ("13", "luis"))
    assert assigned_to(policy, ("lena", "luis", "rita"), "fab") == ()
    assert assigned_to(policy, ("lena", "luis"), "simple") == ()


def test_whoever_got_a_delegation_may_answer_too() -> None:
    book = Book()
    book.request(by="dora", risk="high")
    book.delegate("lena", "vera")
    book.delegate("rosa", "olga")
    electorate, node = book.state.electorate, book.policy.rules[0].chain[0]
    assert electorate is not None
    assert electorate.may_ever_answer(node) == ("lena", "luis", "rita", "vera")
