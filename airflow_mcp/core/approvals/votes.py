"""Which votes count: role by the policy in force, no initiator, each person once, delegation, escalation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_mcp.core.approvals.events import APPROVE, REJECT, Delegation, Vote
from airflow_mcp.core.approvals.policy import ROLE, ApprovalPolicy, Node


@dataclass(frozen=True)
class Seat:
    """In what capacity somebody may vote at a node."""

    person: str
    through: str
    """``role:<role>``, ``named``, ``for <person>`` for a delegation, or ``escalation``."""
    uses: frozenset[str]
    """The people who have voted when this one has: with a delegation also whoever gave it."""


@dataclass(frozen=True)
class JudgedVote:
    """A vote, and whether it counts."""

    vote: Vote
    node: str
    person: str
    """Empty: the account belongs to nobody in the policy."""
    counts: bool
    why: str
    """Through what it counts, or why it does not."""

    @property
    def is_reject(self) -> bool:
        """Whether it is a rejection that counts."""
        return self.counts and self.vote.answer.option == REJECT


@dataclass
class Electorate:
    """Who may vote on one request.

    :param policy: the policy in force.
    :param initiators: people, or accounts that belong to nobody, who asked for the release.
    :param delegations: the delegations that were given.
    """

    policy: ApprovalPolicy
    initiators: frozenset[str]
    delegations: tuple[Delegation, ...] = ()
    _voted: dict[str, str] = field(default_factory=dict, init=False)
    """Person to the node where they have voted."""

    def may_ever_vote(self, node: Node) -> tuple[str, ...]:
        """Return everybody who may vote at a node, now or after an escalation, without the initiators.

        Delegates are not among them: a delegation may begin later.
        """
        approvers = self.policy.people(node.approvers)
        later = [self.policy.people(timer.to, approvers) for timer in node.timers if timer.do == "escalate"]
        found = dict.fromkeys([*approvers, *(person for people in later for person in people)])
        return tuple(person for person in found if person not in self.initiators)

    def may_ever_answer(self, node: Node) -> tuple[str, ...]:
        """Return everybody who may vote at a node, and those to whom one of them has delegated by now."""
        people = self.may_ever_vote(node)
        delegates = (each.terms.receiver for each in self.delegations if each.terms.giver in people)
        return tuple(dict.fromkeys((*people, *(one for one in delegates if one not in self.initiators))))

    def absent(self, node: Node) -> tuple[str, ...]:
        """Return the approvers of a node who may vote and have not."""
        people = self.policy.people(node.approvers)
        return tuple(person for person in people if person not in self.initiators and person not in self._voted)

    def awaited(self, node: Node) -> tuple[str, ...]:
        """Return who of :meth:`may_ever_vote` has not voted."""
        return tuple(person for person in self.may_ever_vote(node) if person not in self._voted)

    def escalated(self, node: Node, opened_at: datetime, time: datetime) -> dict[str, None]:
        """Return who may vote because nobody had answered for so long, at a time."""
        approvers = self.policy.people(node.approvers)
        found: dict[str, None] = {}
        for timer in node.timers:
            if timer.do == "escalate" and time >= opened_at + timedelta(seconds=timer.seconds):
                found |= dict.fromkeys(self.policy.people(timer.to, approvers))
        return found

    def seats(self, node: Node, account: str, opened_at: datetime, time: datetime) -> list[Seat]:
        """Return in which capacities an account may vote at a node at a time, without regard to earlier votes.

        :param node: the node.
        :param account: name of the account.
        :param opened_at: when the node was opened.
        :param time: when the account answered.
        """
        person = self.policy.spec.person_of(account)
        if person is None or person in self.initiators:
            return []
        found = []
        if through := self._own_right(node, person):
            found.append(Seat(person, through, frozenset({person})))
        if person in self.escalated(node, opened_at, time):
            found.append(Seat(person, "escalation", frozenset({person})))
        for each in self.delegations:
            giver = each.terms.giver
            if each.terms.receiver != person or not each.is_valid(time) or giver in self.initiators:
                continue
            if self._own_right(node, giver, each.terms.roles):
                found.append(Seat(person, f"for {giver}", frozenset({person, giver})))
        return found

    def judge(self, vote: Vote, node: Node, opened_at: datetime, *, distinct: bool) -> JudgedVote:
        """Judge a vote at an open node, and remember that the person has voted when it counts.

        :param vote: the vote.
        :param node: the node, which is open.
        :param opened_at: when the node was opened.
        :param distinct: whether a person counts once in the whole chain.
        """
        answer = vote.answer
        person = self.policy.spec.person_of(answer.account) or ""
        seats = self.seats(node, answer.account, opened_at, answer.time)
        if answer.option not in (APPROVE, REJECT):
            return JudgedVote(vote, node.name, person, False, f"{answer.option!r} is neither {APPROVE} nor {REJECT}")
        if not seats:
            return JudgedVote(vote, node.name, person, False, self._why_no_seat(node, answer.account, person))
        if answer.option == REJECT:
            return JudgedVote(vote, node.name, person, True, seats[0].through)
        for seat in seats:
            used = {one: at for one in seat.uses if (at := self._voted.get(one)) and (distinct or at == node.name)}
            if not used:
                self._voted |= dict.fromkeys(seat.uses, node.name)
                return JudgedVote(vote, node.name, person, True, seat.through)
        return JudgedVote(vote, node.name, person, False, f"{person} has already voted: each person counts once")

    def _own_right(self, node: Node, person: str, roles: Iterable[str] = ()) -> str:
        """Return through what a person may vote by themselves; a delegation may be for some roles only."""
        only = set(roles)
        for name in node.approvers:
            role = name.removeprefix(ROLE) if name.startswith(ROLE) else ""
            if only and role not in only:
                continue
            if (role and person in self.policy.spec.holders(role)) or (not role and name == person):
                return name if role else "named"
        return ""

    def _why_no_seat(self, node: Node, account: str, person: str) -> str:
        if not person:
            return f"account {account} belongs to nobody in the policy"
        if person in self.initiators:
            return f"{person} asked for this release, or for one of its parts"
        return f"{person} may not vote at {node.name}: {', '.join(node.approvers)} may"


def initiators_of(policy: ApprovalPolicy, kinds: Iterable[str], named: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Return the people who may not vote because they asked.

    :param policy: the policy in force, which knows whose accounts they are.
    :param kinds: kinds of initiators that the rule counts; whoever triggered or cleared the release always counts.
    :param named: kind to accounts, or to e-mail addresses of authors of commits.
    """
    wanted = {"trigger", "clear", *kinds}
    by_email = {address.lower(): name for name, person in policy.spec.people.items() for address in person.git_emails}
    found: set[str] = set()
    for kind, names in named.items():
        if kind in wanted:
            for name in names:
                if name:
                    known = by_email.get(name.lower()) if kind == "commit_author" else policy.spec.person_of(name)
                    found.add(known or name)
    return frozenset(found)
