"""The state of a request: order of the chain, who counts, how it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mcp.core.approvals.events import REJECT, ReleaseKey
from airflow_mcp.core.approvals.state import RequestState, state_of
from tests.support.approvals import KEY, POLICY, START, Book, bank

LOW = ReleaseKey("churn", "prod", KEY.passport)
PEOPLE = (
    "lena",
    "lena-admin",
    "luis",
    "rita",
    "cora",
    "carl",
    "rosa",
    "ruth",
    "olga",
    "omar",
    "vera",
    "dora",
    "mallory",
)
NODES = ("algorithm-lead", "compliance", "risk-committee")


def finished(book: Book) -> Book:
    for account, node in (("lena", NODES[0]), ("luis", NODES[0]), ("cora", NODES[1]), ("rosa", NODES[2])):
        book.wait(hours=1)
        book.vote(account, node)
    return book


def why_not(state: RequestState) -> list[str]:
    return [vote.why for vote in state.votes if not vote.counts]


ROLLBACK = "- {when: {act: rollback}, chain: [{name: compliance, approvers: role:compliance}]}"


def test_a_rollback_to_a_version_is_another_request_than_its_release() -> None:
    policy = bank(
        POLICY.replace("- when: {environment: prod, risk", f"{ROLLBACK}\n    - when: {{environment: prod, risk")
    )
    book = Book(KEY, policy)
    book.request()
    assert finished(book).state.status == "granted"
    book.key = replace(KEY, act="rollback")
    assert book.state.status == "unknown"
    book.vote("carl", NODES[1])  # before anybody asks
    book.request(run="r2")
    assert (book.state.status, [node.node.name for node in book.state.nodes]) == ("open", ["compliance"])
    book.vote("cora", NODES[1], question=KEY.question(NODES[1]))
    book.wait(hours=1)
    book.vote("cora", NODES[1])
    assert (book.state.status, [vote.person for vote in book.state.approvals]) == ("granted", ["cora"])
    assert why_not(book.state) == ["the question was about another passport, model or environment"]
    for action, champion in (("promote", "7"), ("rollback", "5")):  # a move of another kind, and to another version
        book.moved(action, champion)
        assert book.state.status == "granted"
    book.moved("rollback", "7")
    assert book.state.status == "superseded"
    book.request(run="r3")
    assert (book.state.status, book.state.approvals) == ("open", ())
    book.key = KEY
    assert book.state.status == "granted"


@pytest.mark.parametrize(
    "key", [KEY, replace(KEY, act="rollback"), ReleaseKey("a back in b to c", "test", KEY.passport)]
)
def test_a_question_says_which_request_it_is_about(key: ReleaseKey) -> None:
    assert ReleaseKey.of_question(key.question("lead")) == (key, "lead")
    other = replace(key, act="release" if key.act == "rollback" else "rollback")
    assert other.node_of(key.question("lead")) is None


def test_nobody_asked() -> None:
    assert Book().state.status == "unknown"


def test_a_chain_of_three_nodes_is_granted_by_four_people_in_order() -> None:
    book = Book()
    book.request()
    asked = []
    for account, node in (("lena", NODES[0]), ("luis", NODES[0]), ("cora", NODES[1]), ("rosa", NODES[2])):
        assert book.state.open_node is not None
        asked.append(book.state.open_node.node.name)
        book.wait(hours=1)
        book.vote(account, node)
    state = book.state
    assert (state.status, asked, state.risk) == ("granted", [NODES[0], NODES[0], NODES[1], NODES[2]], "high")
    assert [vote.person for vote in state.approvals] == ["lena", "luis", "cora", "rosa"]
    assert state.ended_at == START + timedelta(hours=4)


def test_a_release_that_nobody_must_approve_is_granted_when_it_is_asked_for() -> None:
    book = Book(replace(KEY, environment="test"))
    book.request()
    assert (book.state.status, book.state.approvals) == ("granted", ())


def test_the_floor_raises_the_risk_and_an_unknown_risk_is_high() -> None:
    assert Book().policy.risk_of("fraud_eu", "low") == "high"
    assert Book().policy.risk_of("churn", "low") == "low"
    assert Book().policy.risk_of("churn", "") == "high"


@pytest.mark.parametrize(
    ("account", "node", "why"),
    [
        ("cora", "algorithm-lead", "cora may not vote at algorithm-lead: role:algorithm-lead may"),
        ("cora", "compliance", "compliance was not asked: algorithm-lead was"),
        ("mallory", "algorithm-lead", "account mallory belongs to nobody in the policy"),
        ("olga", "algorithm-lead", "olga may not vote at algorithm-lead: role:algorithm-lead may"),
    ],
)
def test_a_vote_that_does_not_count_says_why(account: str, node: str, why: str) -> None:
    book = Book()
    book.request()
    book.vote(account, node)
    assert (book.state.status, why_not(book.state)) == ("open", [why])


@pytest.mark.parametrize("account", ["lena", "lena-admin"])
def test_who_asked_may_not_approve_through_any_account(account: str) -> None:
    book = Book()
    book.request(by="lena")
    book.vote(account, NODES[0])
    assert why_not(book.state) == ["lena asked for this release, or for one of its parts"]


@pytest.mark.parametrize(
    ("key", "initiators", "counts"),
    [
        (KEY, {"cleared_by": ["luis"]}, False),
        (KEY, {"commit_author": ["lena@BANK.example"]}, False),
        (LOW, {"commit_author": ["lena@bank.example"]}, True),
        (KEY, {"owner": ["lena"]}, True),
    ],
)
def test_initiators_are_those_that_the_rule_names(
    key: ReleaseKey, initiators: dict[str, list[str]], counts: bool
) -> None:
    book = Book(key)
    book.request(**initiators)  # type: ignore[arg-type]
    book.vote("luis" if "cleared_by" in initiators else "lena", NODES[0])
    assert [vote.counts for vote in book.state.votes] == [counts]


def test_somebody_who_clears_a_task_later_loses_the_vote() -> None:
    book = Book()
    book.request()
    book.vote("lena", NODES[0])
    assert len(book.state.approvals) == 1
    book.request(cleared_by=["lena"])
    assert (book.state.approvals, book.state.status) == ((), "open")


def test_two_accounts_of_one_person_count_once() -> None:
    book = Book()
    book.request()
    book.vote("lena", NODES[0])
    book.vote("lena-admin", NODES[0])
    assert why_not(book.state) == ["lena has already voted: each person counts once"]


@pytest.mark.parametrize(("distinct", "status"), [("true", "open"), ("false", "granted")])
def test_one_person_counts_once_in_the_chain_unless_the_rule_says_per_node(distinct: str, status: str) -> None:
    rule = f"when: {{environment: prod, risk: high}}\n      distinct: {distinct}"
    text = POLICY.replace("when: {environment: prod, risk: high}", rule).replace(
        "people: [cora, carl]", "people: [cora, carl, lena]"
    )
    book = Book(policy=bank(text))
    book.request()
    for account, node in (("lena", NODES[0]), ("luis", NODES[0]), ("lena", NODES[1]), ("rosa", NODES[2])):
        book.vote(account, node, at=book.now)
        book.wait(minutes=1)
    assert book.state.status == status


def test_one_rejection_ends_it_and_a_new_run_begins_anew() -> None:
    book = Book()
    book.request()
    book.vote("lena", NODES[0])
    book.vote("luis", NODES[0], REJECT)
    assert (book.state.status, book.state.reason) == ("rejected", "luis rejected it at algorithm-lead")
    book.request()  # the same run, cleared
    assert book.state.status == "rejected"
    book.request(run="r2")
    assert (book.state.status, book.state.votes) == ("open", ())


def test_a_rejection_of_somebody_without_a_seat_does_not_count() -> None:
    book = Book()
    book.request()
    book.vote("mallory", NODES[0], REJECT)
    assert book.state.status == "open"


def test_the_same_passport_asked_again_keeps_the_votes() -> None:
    book = finished(Book())
    assert book.state.status == "unknown"
    book = Book()
    book.request()
    book = finished(book)
    book.request(run="r2")
    assert book.state.status == "granted"


def test_another_passport_supersedes_an_open_request_and_not_a_granted_one() -> None:
    other = replace(KEY, passport="sha256:" + "b" * 64)
    book = Book()
    book.request()
    book.request(key=other, run="r2")
    assert (book.state.status, book.state.reason) == ("superseded", "a newer request asks for version 7")
    book = Book()
    book.request()
    finished(book).request(key=other, run="r2")
    assert book.state.status == "granted"
    assert book.state.request is not None
    book.note("superseded", request=book.state.request.seq, why="version 8 was granted")
    assert (book.state.status, book.state.reason) == ("superseded", "version 8 was granted")


def test_another_environment_is_another_request() -> None:
    book = Book()
    book.request()
    book.request(key=ReleaseKey("fraud", "test", "sha256:" + "b" * 64), run="r2")
    assert book.state.status == "open"


@pytest.mark.parametrize(
    "question",
    [
        replace(KEY, passport="sha256:" + "b" * 64).question(NODES[0]),
        replace(KEY, environment="test").question(NODES[0]),
        replace(KEY, model_name="churn").question(NODES[0]),
        KEY.question(NODES[0]) + " ",
    ],
)
def test_a_vote_on_another_question_does_not_count(question: str) -> None:
    book = Book()
    book.request()
    book.vote("lena", NODES[0], question=question)
    assert why_not(book.state) == ["the question was about another passport, model or environment"]


def test_votes_are_judged_by_the_policy_in_force() -> None:
    book = Book()
    book.request()
    finished(book)
    later = Book(policy=bank(POLICY.replace("people: [lena, luis, rita]", "people: [luis, rita, omar]")))
    state = state_of(book.facts, KEY, later.policy, book.now)
    assert state.status == "open"
    assert state.open_node is not None
    assert state.open_node.node.name == NODES[0]


def test_a_withdrawn_request_is_over() -> None:
    book = Book()
    seq = book.request().seq
    book.note("withdrawn", request=seq, why="not this week")
    book.vote("lena", NODES[0])
    assert (book.state.status, book.state.reason) == ("withdrawn", "not this week")
    assert why_not(book.state) == ["the request had ended: it is withdrawn"]


@pytest.mark.parametrize(
    ("before", "at", "counts"),
    [(1, 2, True), (1, 8, False), (-1, 2, False)],
)
def test_a_delegation_counts_from_its_first_moment_to_its_end(before: float, at: float, counts: bool) -> None:
    book = Book()
    book.request()
    answered_at = book.now + timedelta(days=at)
    if before > 0:
        book.delegate("lena", "vera", days=7)
    else:
        book.wait(days=3)
        book.delegate("lena", "vera", days=7)
    book.now = START + timedelta(days=9)
    book.vote("vera", NODES[0], at=answered_at)
    assert [vote.counts for vote in book.state.votes] == [counts]


@pytest.mark.parametrize(("seconds", "counts"), [(-1, True), (0, False)])
def test_the_end_of_a_delegation_is_not_part_of_it(seconds: int, counts: bool) -> None:
    book = Book()
    book.request()
    book.delegate("lena", "vera", days=1)
    book.wait(days=1, seconds=seconds)
    book.vote("vera", NODES[0])
    assert [vote.counts for vote in book.state.votes] == [counts]


def test_a_delegate_votes_instead_of_the_giver_and_not_beside_them() -> None:
    book = Book()
    book.request()
    book.delegate("lena", "vera")
    book.vote("vera", NODES[0])
    book.vote("lena", NODES[0])
    assert [(vote.person, vote.counts, vote.why) for vote in book.state.votes] == [
        ("vera", True, "for lena"),
        ("lena", False, "lena has already voted: each person counts once"),
    ]


def test_a_delegation_is_not_transitive_not_of_an_initiator_not_for_other_roles_and_not_forged() -> None:
    book = Book()
    book.request(by="lena")
    book.delegate("lena", "olga")
    book.delegate("luis", "vera", roles=["compliance"])
    book.delegate("rita", "omar")
    book.delegate("omar", "ruth")
    book.delegate("rita", "rosa", by="mallory")
    for account in ("olga", "vera", "ruth", "rosa"):
        book.vote(account, NODES[0])
    assert [vote.counts for vote in book.state.votes] == [False] * 4
    book.vote("omar", NODES[0])
    assert book.state.votes[-1].counts


accounts = st.sampled_from(PEOPLE)
votes = st.tuples(accounts, st.sampled_from(NODES), st.sampled_from(["Approve"] * 5 + ["Reject"]), st.integers(1, 30))


@settings(max_examples=150, deadline=None)
@given(st.lists(votes, max_size=14), accounts, st.randoms(use_true_random=False))
def test_whatever_is_answered_a_grant_has_enough_different_entitled_people_in_order(cast, requester, random) -> None:  # type: ignore[no-untyped-def]
    book = Book()
    book.request(by=requester)
    for number, (account, node, option, hours) in enumerate(cast):
        book.wait(hours=hours)
        book.vote(account, node, option, task=f"seat_{number}")
    state = book.state
    spec = book.policy.spec
    people = [vote.person for vote in state.approvals]
    assert len(set(people)) == len(people)
    assert (spec.person_of(requester) or requester) not in people
    for node in state.nodes:
        role = node.node.approvers[0].removeprefix("role:")
        assert all(vote.person in spec.holders(role) for vote in node.votes)
        assert len(node.votes) <= node.node.quorum
    seqs = [vote.vote.seq for vote in state.approvals]
    assert seqs == sorted(seqs)
    if state.status == "granted":
        assert len(people) == state.seats == 4
    shuffled = list(book.records)
    random.shuffle(shuffled)
    book.records = shuffled
    assert book.state == state  # the order of the log is its numbers, not the order of reading
