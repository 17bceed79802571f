"""Alias moves as plans: what to set in which order, so that a retry after any step ends in the same state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mcp.core.contract import (
    ALIAS_CHALLENGER,
    ALIAS_CHAMPION,
    ALIAS_PREVIOUS_CHAMPION,
    TAG_CLAIM_PREFIX,
    TAG_COPY_RUN,
    TAG_GATE_VERDICT,
    TAG_LAST_MOVE,
    TAG_LAST_STAGE_MOVE,
    TAG_MOVE_PREFIX,
    TAG_STAGE_MOVE_PREFIX,
)
from airflow_mcp.core.gate.rules.verdicts import OPENING, Decision
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.load_check import age_limit_passed, read_load_check
from airflow_mcp.exceptions import AliasConflictError, EvidenceError, GateRejectedError, ModelUnusableError

NO_WAY_BACK = "none"


@dataclass(frozen=True)
class AliasMove:
    """Set an alias to a version, or remove it (``version`` is None)."""

    alias: str
    version: str | None


@dataclass(frozen=True)
class AliasPlan:
    """Moves to make, in order."""

    moves: tuple[AliasMove, ...]
    champion_before: str | None
    champion_after: str
    way_back: str = ""
    """Where ``previous_champion`` is left when that is not the champion before: a version, or ``none``."""

    @property
    def is_done(self) -> bool:
        """Whether the registry is already as it should be."""
        return not self.moves


def plan_promotion(
    aliases: Mapping[str, str],
    tags: Mapping[str, str],
    *,
    model_name: str,
    identity: str,
    version: str,
    expected_champion: str | None,
) -> AliasPlan:
    """Plan to make a version the champion, keeping the way back.

    ``previous_champion`` is set first: if the second step never happens, the champion is untouched and a retry
    makes the same plan. Whoever is champion is no challenger any more: that alias is removed last. When the version
    is champion already, or this very promotion was done before (and perhaps rolled back since), nothing is left to do.

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this promotion, the same on every retry.
    :param version: version to promote.
    :param expected_champion: version the candidate was compared with; None when there was no champion.
    :raises AliasConflictError: when the champion is neither the expected one nor this version.
    """
    champion, challenger = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_CHALLENGER)
    no_challenger = AliasMove(ALIAS_CHALLENGER, None)
    if champion == version:
        last = read_last_move(tags)
        is_ours = last is not None and last.identity == identity
        return AliasPlan((no_challenger,) if is_ours and challenger == version else (), champion, version)
    done = read_done_move(tags, identity)
    if done is not None:
        return AliasPlan((), done.champion_before, done.champion_after)
    if champion != expected_champion:
        raise AliasConflictError(
            f"{model_name!r}: the candidate (version {version}) was compared with {_describe(expected_champion)}, but "
            f"alias {ALIAS_CHAMPION!r} now points at {_describe(champion)}. Nothing was moved; evaluate the candidate "
            "against the present champion and promote again."
        )
    keep = (AliasMove(ALIAS_PREVIOUS_CHAMPION, champion),) if champion else ()
    leave = (no_challenger,) if challenger and challenger in (version, champion) else ()
    return AliasPlan((*keep, AliasMove(ALIAS_CHAMPION, version), *leave), champion, version)


def without_way_back(plan: AliasPlan, aliases: Mapping[str, str]) -> AliasPlan:
    """Change a plan whose champion before is unusable: that is no way back, ``previous_champion`` stays where it was.

    :param plan: a plan that would point ``previous_champion`` at the champion before.
    :param aliases: aliases of the registered model as they are now.
    :return: the plan without that move; the alias is removed when it points at the next champion itself.
    """
    previous = aliases.get(ALIAS_PREVIOUS_CHAMPION)
    leave = tuple(move for move in plan.moves if move.alias != ALIAS_PREVIOUS_CHAMPION)
    if previous == plan.champion_after:
        return replace(plan, moves=(AliasMove(ALIAS_PREVIOUS_CHAMPION, None), *leave), way_back=NO_WAY_BACK)
    return replace(plan, moves=leave, way_back=previous or NO_WAY_BACK)


def plan_rollback(
    aliases: Mapping[str, str], tags: Mapping[str, str], *, model_name: str, identity: str, to_version: str | None
) -> AliasPlan:
    """Plan to go back to the previous champion, or to a named version.

    After a rollback ``previous_champion`` is removed: the version that was rolled back is not a way back. A retry
    of the same rollback (same identity, recorded in the model's tags) finds nothing left to do instead of
    refusing, going back once more, or undoing what others promoted since.

    :param aliases: aliases of the registered model as they are now (alias to version).
    :param tags: tags of the registered model as they are now.
    :param model_name: registered model, for the message.
    :param identity: name of this rollback, the same on every retry.
    :param to_version: version to go to; None takes the previous champion.
    :raises AliasConflictError: when there is no version to go back to, or it is the champion already.
    """
    champion, previous = aliases.get(ALIAS_CHAMPION), aliases.get(ALIAS_PREVIOUS_CHAMPION)
    last = read_last_move(tags)
    if last is not None and last.identity == identity and last.champion_after == champion:
        leftover = (AliasMove(ALIAS_PREVIOUS_CHAMPION, None),) if previous else ()
        return AliasPlan(leftover, last.champion_before, last.champion_after)
    done = read_done_move(tags, identity)
    if done is not None:
        return AliasPlan((), done.champion_before, done.champion_after)
    target = to_version or previous
    if target is None:
        raise AliasConflictError(
            f"{model_name!r} has no alias {ALIAS_PREVIOUS_CHAMPION!r}, so there is no champion to go back to; alias "
            f"{ALIAS_CHAMPION!r} stays at {_describe(champion)}. Name a version with to_version to go there."
        )
    if target == champion:
        raise AliasConflictError(
            f"{model_name!r}: version {target} is the champion already; nothing was moved. Name another version."
        )
    forget = (AliasMove(ALIAS_PREVIOUS_CHAMPION, None),) if previous else ()
    return AliasPlan((AliasMove(ALIAS_CHAMPION, target), *forget), champion, target)


@dataclass(frozen=True)
class LoadCheckRule:
    """What a version must have shown before an alias may point at it.

    A version that is known not to load never gets an alias; the rule says what is asked of one of which nothing bad is
    known. ``champion`` is held to it, every other alias to :data:`NOTHING_ASKED`.
    """

    is_required: bool = True
    """Whether the version must have passed a load check."""
    max_age: timedelta | None = None
    """How long ago it may have passed; None: at any time."""

    def require(self, version: ModelVersion, now: datetime) -> None:
        """Refuse a version that may not get the alias.

        :param version: the version as it is now.
        :param now: present time, with a time zone.
        :raises EvidenceError: when it is not READY, or there is no recent passed check although one is required.
        :raises ModelUnusableError: when its check failed.
        """
        what = f"version {version.version} of {version.name!r}"
        require_ready(version)
        check = read_load_check(version.tags)
        if check is not None and check.is_unusable:
            raise ModelUnusableError(f"{what} is unusable, its load check {check}; nothing was moved. {_CHECK_AGAIN}")
        if not self.is_required:
            return
        if check is None:
            raise EvidenceError(f"{what} has never passed a load check; nothing was moved. {_CHECK_FIRST}")
        if check.verdict != "passed":
            raise EvidenceError(f"{what} has not passed its load check ({check}); nothing was moved. {_CHECK_FIRST}")
        if self.max_age is not None and age_limit_passed(check, now - self.max_age):
            raise EvidenceError(
                f"{what} passed its load check at {check.at or 'no known time'}, longer ago than {self.max_age}, so "
                f"nobody knows whether it still loads; nothing was moved. {_CHECK_FIRST}"
            )

    def describe(self, version: ModelVersion | None) -> str:
        """Say what was known of a version that got the alias, for the record of the move; None: nobody got it."""
        if version is None:
            return ""
        check = read_load_check(version.tags)
        known = f"{check.verdict} at {check.at}" if check else "never checked"
        return known if self.is_required else f"not required; {known}"


NOTHING_ASKED = LoadCheckRule(is_required=False)
_CHECK_FIRST = "Run CheckModelOperator first; require_load_check=False goes without."
_CHECK_AGAIN = "A later check that passes, by CheckModelOperator, makes it usable again."


@dataclass(frozen=True)
class LastMove:
    """A move of the champion alias, kept in tags of the registered model.

    :data:`~airflow_mcp.core.contract.TAG_LAST_MOVE` is written before the alias moves and holds the latest one;
    a tag of its own, named by its identity, is written when it is done. All of them together are the history.
    """

    action: str
    """``promote``, ``rollback`` or ``migrate``."""
    identity: str
    champion_before: str | None
    champion_after: str
    at: str
    """ISO 8601, UTC."""
    by: str
    reason: str = ""
    number: int = 0
    """Counts the moves of a model, given out under the claim; 0 in records of before there were numbers."""
    run_id: str = ""
    """MLflow run of the version that became champion, or of the copy that it is: it has the gate report, also when the
    version is deleted."""
    gate_verdict: str = ""
    """The gate's verdict on that version."""
    load_check: str = ""
    """What was known of that version's load check; empty in records of before there were any."""
    way_back: str = ""
    """Where ``previous_champion`` was left when that is not the champion before: a version, or ``none``."""

    def to_tag(self) -> str:
        """Write it as the value of a tag."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def done_tag(self) -> str:
        """Name of the tag that says that this move is done."""
        return TAG_MOVE_PREFIX + self.identity


@dataclass(frozen=True)
class MoveOrder:
    """Who wants the champion alias moved, and why."""

    action: str
    """``promote``, ``rollback`` or ``migrate``."""
    identity: str
    """Name of the move, the same on every retry."""
    by: str
    reason: str = ""

    def record(self, plan: AliasPlan, at: datetime, version: ModelVersion | None) -> LastMove:
        """Describe the move for the tags of the registered model.

        :param plan: the move.
        :param at: when, with a time zone.
        :param version: the version that becomes champion; None when nothing is known of it.
        """
        return LastMove(
            **asdict(self),
            champion_before=plan.champion_before,
            champion_after=plan.champion_after,
            at=at.isoformat(),
            way_back=plan.way_back,
            run_id=(version.tags.get(TAG_COPY_RUN) or version.run_id) if version else "",
            gate_verdict=version.tags.get(TAG_GATE_VERDICT, "") if version else "",
        )


def require_ready(version: ModelVersion) -> None:
    """Refuse a version that MLflow has not finished registering.

    :raises EvidenceError: naming its status.
    """
    if version.status != "READY":
        raise EvidenceError(f"version {version.version} of {version.name!r} is {version.status}, not READY")


def require_let_through(what: str, decision: str | None) -> str:
    """Refuse what no gate let through.

    :param what: what was judged, for the message.
    :param decision: of the gate; None when there is none.
    :return: what to warn of: an empty text when it passed by itself.
    :raises GateRejectedError: when it is anything but ``passed``, ``warned`` or ``approved``.
    """
    if decision not in OPENING:
        raise GateRejectedError(
            f"{what} has gate verdict {decision or 'none'}; {', '.join(OPENING[:-1])} or {OPENING[-1]} is needed. "
            "Nothing was changed; judge it with EvaluationGateOperator first"
        )
    return "" if decision == Decision.PASSED else f"{what} did not pass the gate by itself: it is {decision}"


def read_last_move(tags: Mapping[str, str]) -> LastMove | None:
    """Read the latest move; None when there is none or somebody else wrote something else into the tag."""
    return _read_move(tags.get(TAG_LAST_MOVE))


def read_done_move(tags: Mapping[str, str], identity: str) -> LastMove | None:
    """Read the record that a move was done; None when it was not."""
    return _read_move(tags.get(TAG_MOVE_PREFIX + identity))


def read_history(tags: Mapping[str, str]) -> tuple[LastMove, ...]:
    """Read every move that was done, oldest first."""
    moves = (_read_move(value) for name, value in tags.items() if name.startswith(TAG_MOVE_PREFIX))
    return tuple(sorted((move for move in moves if move is not None), key=lambda move: (move.number, move.at)))


def next_number(tags: Mapping[str, str]) -> int:
    """Give the number of the next move, of the champion or between stages: one counter puts all of them in order."""
    return 1 + max((_number(value) for name, value in tags.items() if name.startswith(_NUMBERED)), default=0)


_NUMBERED = (TAG_LAST_MOVE, TAG_MOVE_PREFIX, TAG_LAST_STAGE_MOVE, TAG_STAGE_MOVE_PREFIX)


def _number(value: str) -> int:
    try:
        fields: Any = json.loads(value)
        number = fields.get("number") if isinstance(fields, dict) else None
    except ValueError:
        return 0
    return number if isinstance(number, int) else 0


def unrecorded_move(aliases: Mapping[str, str], tags: Mapping[str, str]) -> LastMove | None:
    """Find the latest move if it moved the alias, but its task died before it could record that.

    Whoever moves next records it first: afterwards nobody could tell that it had happened.
    """
    last = read_last_move(tags)
    if last is None or last.done_tag in tags or aliases.get(ALIAS_CHAMPION) != last.champion_after:
        return None
    return last


def _read_move(value: str | None) -> LastMove | None:
    try:
        fields: Any = json.loads(value or "null")
        move = LastMove(**fields) if isinstance(fields, dict) else None
    except (ValueError, TypeError):
        return None
    is_ours = move is not None and isinstance(move.at, str) and isinstance(move.number, int)
    return move if is_ours else None


@dataclass(frozen=True)
class Claim:
    """A task's claim on something of one registered model, held as a tag of the model while it works on that."""

    token: str
    expires_at: datetime
    holder: str
    subject: str = ""
    """What is claimed: empty for the aliases, or the logged model that is being registered."""

    @property
    def tag(self) -> str:
        """Tag name of this claim: every claim has its own, so that none overwrites another."""
        return TAG_CLAIM_PREFIX + self.token

    def to_value(self) -> str:
        """Write it as the value of its tag."""
        return json.dumps(
            {"expires_at": self.expires_at.isoformat(), "holder": self.holder}
            | ({"subject": self.subject} if self.subject else {})
        )


def new_claim(token: str, holder: str, now: datetime, lifetime: timedelta, subject: str = "") -> Claim:
    """Make a claim that ends by itself, so that a killed task blocks nobody for longer than that."""
    return Claim(token=token, expires_at=now + lifetime, holder=holder, subject=subject)


def valid_claims(tags: Mapping[str, str], now: datetime, subject: str = "") -> tuple[Claim, ...]:
    """Find the claims on one subject that have not run out.

    :param tags: tags of the registered model.
    :param now: present time, with a time zone.
    :param subject: what is claimed; empty for the aliases.
    """
    return tuple(
        claim for claim in _read_claims(tags) if claim.expires_at > now and claim.subject in (subject, _ANYTHING)
    )


def other_claims(tags: Mapping[str, str], own: Claim, now: datetime) -> tuple[Claim, ...]:
    """Find the claims of others on the same subject that are still valid.

    Writing one's own claim first and reading second makes two holders impossible: of two tasks at least one reads
    after both have written, sees the other, and must withdraw.

    :param tags: tags of the registered model, read after the own claim was written.
    :param own: the caller's claim.
    :param now: present time, with a time zone.
    """
    return tuple(claim for claim in valid_claims(tags, now, own.subject) if claim.token != own.token)


def expired_claims(tags: Mapping[str, str], now: datetime) -> tuple[Claim, ...]:
    """Find the claims that have run out and may be removed, whatever they are on."""
    return tuple(claim for claim in _read_claims(tags) if claim.expires_at <= now)


_ANYTHING = "*"


def _read_claims(tags: Mapping[str, str]) -> Iterator[Claim]:
    return (_read_claim(name, value) for name, value in tags.items() if name.startswith(TAG_CLAIM_PREFIX))


def _read_claim(name: str, value: str) -> Claim:
    token = name.removeprefix(TAG_CLAIM_PREFIX)
    try:
        fields = json.loads(value)
        expires_at = datetime.fromisoformat(fields["expires_at"])
        if expires_at.tzinfo is None:
            raise ValueError("a time without a time zone")
        return Claim(token, expires_at, str(fields.get("holder", "unknown")), str(fields.get("subject", "")))
    except (ValueError, TypeError, KeyError):
        # An unreadable claim is honoured by everybody: unknown means refuse. A person removes the tag.
        return Claim(token, datetime.max.replace(tzinfo=UTC), f"unreadable tag {name!r}", _ANYTHING)


def _describe(version: str | None) -> str:
    return "no version" if version is None else f"version {version}"
