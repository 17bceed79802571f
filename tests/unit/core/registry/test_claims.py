"""Claims: in no order of steps do two movers hold the same claim."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mcp.core.contract import TAG_CLAIM_PREFIX, TAG_LAST_MOVE
from airflow_mcp.core.registry.claims import Claim, Sightings, other_claims

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def interleavings(first: int, second: int) -> Iterator[tuple[int, ...]]:
    """Give every order in which two movers with so many steps each can take turns."""
    for chosen in itertools.combinations(range(first + second), first):
        yield tuple(0 if step in chosen else 1 for step in range(first + second))


class Mover:
    """Writes its claim, reads all claims, then holds or withdraws, and at the end removes its claim."""

    def __init__(self, token: str, tags: dict[str, str]) -> None:
        self.claim, self.tags = Claim(token, NOW + timedelta(minutes=1), token), tags
        self.seen: dict[str, str] = {}
        self.sightings, self.now = Sightings(60), 0.0
        self.holds = False
        self.held = False

    def steps(self) -> list[Callable[[], None]]:
        return [self._write, self._read, self._decide, self._move, self._release]

    def _write(self) -> None:
        self.tags[self.claim.tag] = self.claim.to_value()

    def _read(self) -> None:
        self.seen = dict(self.tags)

    def _decide(self) -> None:
        self.holds = self.held = not self.sightings.look(other_claims(self.seen, self.claim), self.now)
        if not self.holds:
            del self.tags[self.claim.tag]

    def _move(self) -> None:
        """Move aliases; what matters is that nobody else holds meanwhile."""

    def _release(self) -> None:
        if self.holds:
            self.holds = False
            del self.tags[self.claim.tag]


def run_interleaved(order: tuple[int, ...], tags: dict[str, str]) -> tuple[list[Mover], int]:
    movers = [Mover("a", tags), Mover("b", tags)]
    steps = [iter(mover.steps()) for mover in movers]
    most_holders = 0
    for who in order:
        next(steps[who])()
        most_holders = max(most_holders, sum(mover.holds for mover in movers))
    return movers, most_holders


def test_in_no_order_of_steps_do_two_movers_hold_the_claim() -> None:
    orders = list(interleavings(5, 5))
    assert len(orders) == 252
    outcomes = set()
    for order in orders:
        tags: dict[str, str] = {}
        movers, most_holders = run_interleaved(order, tags)
        assert most_holders <= 1, order
        assert tags == {}, order
        outcomes.add(tuple(mover.held for mover in movers))
    assert outcomes == {(True, False), (False, True), (False, False), (True, True)}  # the last: one after the other


def test_reading_before_writing_would_let_two_movers_in() -> None:
    """The search above can fail: with the order of the first two steps changed, it finds two holders."""

    class Careless(Mover):
        def steps(self) -> list[Callable[[], None]]:
            return [self._read, self._write, self._decide, self._move, self._release]

    found = 0
    for order in interleavings(5, 5):
        tags: dict[str, str] = {}
        movers = [Careless("a", tags), Careless("b", tags)]
        steps = [iter(mover.steps()) for mover in movers]
        for who in order:
            next(steps[who])()
            found = max(found, sum(mover.holds for mover in movers))
    assert found == 2


class Patient(Mover):
    """Has watched the claims that were there for so long."""

    def __init__(self, token: str, tags: dict[str, str], watched: float) -> None:
        super().__init__(token, tags)
        self.sightings.look(other_claims(dict(tags), self.claim), 0.0)
        self.now = watched


@pytest.mark.parametrize("ahead", [timedelta(days=-1), timedelta(0), timedelta(days=1), timedelta(days=36500)])
@pytest.mark.parametrize(("watched", "blocks"), [(0.0, True), (59.9, True), (60.0, False)])
def test_the_claim_of_a_killed_mover_blocks_for_its_lifetime_whatever_its_clock_showed(
    ahead: timedelta, watched: float, blocks: bool
) -> None:
    dead = Claim("dead", NOW + ahead, "killed task")
    for order in interleavings(5, 5):
        tags = {dead.tag: dead.to_value()}
        movers = [Patient(token, tags, watched) for token in "ab"]
        steps = [iter(mover.steps()) for mover in movers]
        for who in order:
            next(steps[who])()
            assert sum(mover.holds for mover in movers) <= 1
        assert tags == {dead.tag: dead.to_value()}
        assert not (blocks and any(mover.held for mover in movers))
        if order == (0,) * 5 + (1,) * 5:
            assert [mover.held for mover in movers] == [not blocks] * 2


def test_a_claim_is_watched_anew_when_it_changes_or_comes_back() -> None:
    sightings, claim = Sightings(60), Claim("a", NOW, "one")
    assert sightings.look([claim], 0) == (claim,)
    assert sightings.seconds_left(claim, 45) == 15
    again = Claim("a", NOW + timedelta(seconds=1), "one")
    assert sightings.look([again], 60) == (again,)
    assert sightings.look([], 61) == sightings.seen == ()
    assert sightings.look([claim], 120) == (claim,)
    assert sightings.look([claim], 180) == ()
    assert sightings.seen == (claim,), "it can be removed"


@pytest.mark.parametrize(
    "value",
    [
        *("", "null", "3", "[]", '"text"', "{", "{}", '{"expires_at": null}', '{"expires_at": 5}'),
        *('{"expires_at": "soon"}', '{"expires_at": "2020-01-01T00:00:00"}', '{"holder": "x"}'),
    ],
)
def test_an_unreadable_claim_is_honoured_and_never_removed(value: str) -> None:
    own = Claim("own", NOW + timedelta(minutes=1), "me")
    tags = {TAG_CLAIM_PREFIX + "x": value, own.tag: own.to_value()}
    (found,) = other_claims(tags, own)
    assert found.holder == "unreadable tag 'airflow_mcp.claim.x'"
    sightings = Sightings(60)
    assert [sightings.look(other_claims(tags, own), now) for now in (0.0, 1e9)] == [(found,)] * 2


def test_a_claim_without_a_holder_is_still_a_claim() -> None:
    own = Claim("own", NOW + timedelta(minutes=1), "me")
    later = (NOW + timedelta(seconds=1)).isoformat()
    tags = {TAG_CLAIM_PREFIX + "x": json.dumps({"expires_at": later})}
    assert other_claims(tags, own) == (Claim("x", NOW + timedelta(seconds=1), "unknown"),)


def test_other_tags_are_no_claims() -> None:
    own = Claim("own", NOW + timedelta(minutes=1), "me")
    assert other_claims({"owner": "x", TAG_LAST_MOVE: "{}", "claim.x": "{}"}, own) == ()


def test_claims_on_different_subjects_do_not_meet() -> None:
    aliases, model, other = (
        Claim(token, NOW + timedelta(minutes=1), f"task {token}", subject)
        for token, subject in (("a", ""), ("b", "models:/m-1"), ("c", "models:/m-2"))
    )
    tags = {claim.tag: claim.to_value() for claim in (aliases, model, other)}
    assert [other_claims(tags, own) for own in (aliases, model, other)] == [(), (), ()]
    rival = Claim("d", NOW + timedelta(minutes=1), "task d", "models:/m-1")
    assert other_claims({**tags, rival.tag: rival.to_value()}, model) == (rival,)


@pytest.mark.parametrize("subject", ["", "models:/m-1"])
def test_a_claim_that_nobody_can_read_may_be_on_anything(subject: str) -> None:
    own = Claim("own", NOW + timedelta(minutes=1), "me", subject)
    assert len(other_claims({f"{TAG_CLAIM_PREFIX}x": "?"}, own)) == 1
