"""Whether a chain can be satisfied: enough different people, without those who asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from airflow_mcp.core.access.policy import GovernancePolicy, Problem
from airflow_mcp.core.approvals.policy import ApprovalPolicy, ApprovalRule, approval_mistakes
from airflow_mcp.core.approvals.votes import Electorate


def unfilled(rule: ApprovalRule, electorate: Electorate) -> tuple[str, ...]:
    """Return the nodes whose seats cannot all be filled with different people; empty when the chain can be satisfied.

    :param rule: the rule.
    :param electorate: who may vote; people may be asked after an escalation too.
    """
    seats = [(node.name, electorate.may_ever_vote(node)) for node in rule.chain for _ in range(node.quorum)]
    if rule.distinct:
        empty = unmatched([people for _, people in seats])
        return tuple(dict.fromkeys(seats[number][0] for number in empty))
    short = [node.name for node in rule.chain if len(electorate.may_ever_vote(node)) < node.quorum]
    return tuple(short)


def assigned_to(policy: ApprovalPolicy, people: Iterable[str], auth_manager: str) -> tuple[tuple[str, str], ...]:
    """Return IDs and accounts to which Airflow can restrict a question; empty when it knows not everybody by ID.

    Airflow keeps the first list of a question for ever, and refuses everybody else: one unknown ID would lock a person
    out.

    :param policy: the policy in force.
    :param people: everybody who may answer, now or later.
    :param auth_manager: name by which ``people.<name>.ids`` know Airflow's auth manager, such as ``fab``.
    """
    known = [(policy.spec.people[person].ids.get(auth_manager, ""), person) for person in dict.fromkeys(people)]
    if not all(account_id for account_id, _ in known):
        return ()
    return tuple((account_id, (policy.spec.people[person].accounts or (person,))[0]) for account_id, person in known)


def unmatched(seats: Sequence[Sequence[str]]) -> list[int]:
    """Return the seats that stay empty when as many as possible are filled, each person sitting on one.

    :param seats: who may sit on each seat.
    """
    sits: dict[str, int] = {}

    def fill(seat: int, tried: set[str]) -> bool:
        for person in seats[seat]:
            if person not in tried:
                tried.add(person)
                if person not in sits or fill(sits[person], tried):
                    sits[person] = seat
                    return True
        return False

    return [seat for seat in range(len(seats)) if not fill(seat, set())]


def chain_mistakes(policy: GovernancePolicy) -> Iterator[Problem]:
    """Yield every chain that nobody could finish, whoever asks for the release; for ``read_policy``.

    :param policy: a policy whose other sections are in order.
    """
    found = list(approval_mistakes(policy))
    yield from found
    if found:
        return
    read = ApprovalPolicy.of(policy)
    for number, rule in enumerate(read.rules):
        path = ("spec", "approvals", number, "chain")
        for asking in ("", *read.spec.people):
            short = unfilled(rule, Electorate(read, frozenset({asking} if asking else ())))
            if short:
                who = f"when {asking} asks for a release" if asking else "whoever asks"
                yield path, f"cannot be satisfied {who}: {', '.join(short)} has fewer people than it needs"
                break
