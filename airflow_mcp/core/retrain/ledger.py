"""The ledger of one model's retraining: every decision follows from its entries and can be replayed from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from airflow_mcp.core.identity import canonical_json, content_hash, fingerprint
from airflow_mcp.core.retrain.decision import DAY, WEEK, RetrainFacts, decide_retrain, words_of
from airflow_mcp.core.retrain.documents import (
    CONCLUSIVE,
    EXPLANATION_LENGTH,
    NOTE_LENGTH,
    Entry,
    Ledger,
    LedgerState,
    Observation,
    RetrainDecision,
    Training,
    plain_document,
    words,
)
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.core.retrain.state import KEPT_TRAININGS, judged, observe

MAX_BYTES = 48 * 1024
"""Size of the ledger as JSON; Airflow's state store warns above 64 KiB."""
MAX_ENTRIES = 60
_POLICY: TypeAdapter[RetrainPolicy] = TypeAdapter(RetrainPolicy)


class Difference(NamedTuple):
    """A recorded decision that comes out differently when it is replayed."""

    seq: int
    recorded: RetrainDecision
    replayed: RetrainDecision


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(state: LedgerState, observation: Observation, policy: RetrainPolicy, model_name: str) -> RetrainDecision:
    """Return the decision; nothing is recorded.

    :param state: state of the ledger with the observation taken in, see
        :func:`~airflow_mcp.core.retrain.state.observe`.
    :param observation: what is known now.
    :param policy: the retrain policy.
    :param model_name: registered model.
    """
    decision = decide_retrain(facts_of(state, observation, policy), policy)
    if not decision.retrain:
        return decision
    run_id = next_run_id(state, observation, model_name)
    if not observation.next_run_exists:
        return decision.model_copy(update={"action": "trigger", "run_id": run_id})
    explanation = (
        f"not now, because Airflow has Dag run {run_id}, and the ledger does not: an update was lost, or somebody "
        f"triggered it; it is taken into the ledger (wanted: {decision.explanation})"
    )
    adopted = {"verdict": "not_now", "action": "adopt", "run_id": run_id}
    return decision.model_copy(update={**adopted, "explanation": words(explanation, EXPLANATION_LENGTH)})


def next_run_id(state: LedgerState, observation: Observation, model_name: str) -> str:
    """Return the name of the next training's Dag run; the same data have one name until their training ends.

    :param state: the state with the observation taken in.
    :param observation: what is known now.
    :param model_name: registered model.
    """
    tries = [each for each in state.trainings if each.data_hash == observation.data_hash]
    return retrain_run_id(model_name, observation.data_version, observation.data_hash, len(tries) + 1)


def retrain_run_id(model_name: str, data_version: str, data_hash: str, attempt: int = 1) -> str:
    """Return the name of the Dag run that retrains on one version of the data.

    :param model_name: registered model.
    :param data_version: version label, which makes the name readable.
    :param data_hash: hash of the data, which makes the name unique.
    :param attempt: number of the training on these data; above 1 only when the earlier trainings had no result.
    """
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{model_name}__{data_version}")[:150]
    again = f"__{attempt}" if attempt > 1 else ""
    return f"retrain__{readable}__{fingerprint([model_name, data_version, data_hash])[:12]}{again}"


def facts_of(state: LedgerState, observation: Observation, policy: RetrainPolicy) -> RetrainFacts:
    """Return the facts that the decision depends on.

    :param state: the state with the observation taken in.
    :param observation: what is known now.
    :param policy: the retrain policy.
    """
    starts = [training.clock for training in state.trainings]
    noticed = [] if state.noticed_clock is None else [state.noticed_clock]
    return RetrainFacts(
        data_version=observation.data_version,
        drift=judged(state, policy),
        pending_drift=_need_words(state, policy),
        has_champion=observation.has_champion,
        champion_age=_champion_age(state, observation),
        since_training=_since(state, max([*starts, *noticed], default=None)),
        started_last_day=sum(state.clock - start < DAY.total_seconds() for start in starts),
        started_last_week=sum(state.clock - start < WEEK.total_seconds() for start in starts),
        rejected_in_a_row=state.rejected_in_a_row,
        paused=_paused_words(state),
        in_progress=_in_progress(state, observation),
        data_concluded=_concluded(state, observation),
        new_rows=_new(observation.rows, state.rows),
        new_labels=_new(observation.labels, state.labels),
    )


def _since(state: LedgerState, clock: float | None) -> timedelta | None:
    return None if clock is None else timedelta(seconds=state.clock - clock)


def _champion_age(state: LedgerState, observation: Observation) -> timedelta | None:
    """Return the age since registration, or since a challenger lost; None when the registration is in the future."""
    if observation.champion_since is None:
        return None
    registered = observation.at - observation.champion_since
    confirmed = _since(state, state.concluded_clock)
    if registered < timedelta(0):
        return None
    return registered if confirmed is None else min(registered, confirmed)


def _need_words(state: LedgerState, policy: RetrainPolicy) -> str:
    need = state.need
    if need is None or need.kind not in policy.kinds:
        return ""
    what = "the data drifted" if need.kind == "drift" else "the model degraded"
    often = f", asked for {need.times} times since {need.since.isoformat(timespec='minutes')}" if need.times > 1 else ""
    return f"{what} (version {need.data_version}{often})"


def _paused_words(state: LedgerState) -> str:
    pause = state.paused
    if pause is None:
        return ""
    why = f": {pause.reason}" if pause.reason else ""
    return f"{pause.by} paused it at {pause.at.isoformat(timespec='minutes')}{why}"


def _in_progress(state: LedgerState, observation: Observation) -> str:
    training, run = state.open_training, observation.open_run
    if training is not None:
        doing = run.state if run else "not known to be over"
        return f"training {training.run_id} is {doing}, asked for {words_of(_age(state, training))} ago"
    if observation.other_runs:
        return f"Dag {observation.dag_id} has {observation.other_runs} runs queued or running"
    return ""


def _age(state: LedgerState, training: Training) -> timedelta:
    return timedelta(seconds=state.clock - training.clock)


def _concluded(state: LedgerState, observation: Observation) -> str:
    for training in reversed(state.trainings):
        if training.data_hash == observation.data_hash and training.outcome in (*CONCLUSIVE, "inconclusive"):
            return f"{training.outcome}, {training.run_id}"
    return observation.data_concluded


def _new(count: int | None, before: int | None) -> int | None:
    """Return the increase of a count; None when it is not known or the count has shrunk."""
    if count is None or (before is not None and count < before):
        return None
    return count - (before or 0)


# --- recording -------------------------------------------------------------------------------------------------------


def state_of(ledger: Ledger) -> LedgerState:
    """Return the state after all entries.

    :param ledger: the ledger.
    """
    state = ledger.base
    for entry in ledger.entries:
        state = _apply(state, entry, _policy(ledger, entry))
    return state


def replay(ledger: Ledger) -> list[Difference]:
    """Make every recorded decision again from its observation, and return the differences.

    :param ledger: the ledger.
    :return: decisions that come out differently; empty unless the ledger was edited or the rules have changed.
    """
    found = []
    for state, entry in _states(ledger):
        again = _decide_again(ledger, state, entry)
        if again != entry.answer:
            found.append(Difference(entry.seq, entry.answer, again))
    return found


def replay_entry(ledger: Ledger, number: int) -> RetrainDecision | None:
    """Make one recorded decision again; None when the ledger does not hold its entry any more.

    :param ledger: the ledger.
    :param number: number of the entry.
    """
    kept = next((each for each in _states(ledger) if each[1].seq == number), None)
    return _decide_again(ledger, *kept) if kept else None


def facts_hash(ledger: Ledger, number: int) -> str:
    """Hash everything that one decision was made from: the state before it, what was observed, and the policy.

    :param ledger: the ledger.
    :param number: number of the entry.
    :return: ``sha256:<hex>``; empty when the ledger does not hold the entry any more.
    """
    for state, entry in _states(ledger):
        if entry.seq == number:
            before, seen = (each.model_dump(mode="json", exclude_defaults=True) for each in (state, entry.observation))
            facts = [ledger.model_name, number, before, seen, ledger.policies[entry.policy]]
            return content_hash(canonical_json(facts).encode())
    return ""


def _states(ledger: Ledger) -> Iterator[tuple[LedgerState, Entry]]:
    """Yield every entry with the state before it."""
    state = ledger.base
    for entry in ledger.entries:
        yield state, entry
        state = _apply(state, entry, _policy(ledger, entry))


def _decide_again(ledger: Ledger, state: LedgerState, entry: Entry) -> RetrainDecision:
    policy, seen = _policy(ledger, entry), entry.observation
    return decide(observe(state, entry.seq, seen, policy), seen, policy, ledger.model_name)


def last_policy(ledger: Ledger) -> RetrainPolicy | None:
    """Return the policy of the last decision; None when there was none.

    :param ledger: the ledger.
    """
    return _policy(ledger, ledger.entries[-1]) if ledger.entries else None


def size_of(ledger: Ledger) -> int:
    """Return the size in bytes, as Airflow counts it.

    :param ledger: the ledger.
    """
    return len(json.dumps(plain_document(ledger)))


def _apply(state: LedgerState, entry: Entry, policy: RetrainPolicy) -> LedgerState:
    return _carry_out(observe(state, entry.seq, entry.observation, policy), entry)


def _carry_out(state: LedgerState, entry: Entry) -> LedgerState:
    """Return the state after the decision was carried out."""
    answer, seen = entry.answer, entry.observation
    if answer.action not in ("trigger", "adopt"):
        return state
    training = Training(
        dag_id=seen.dag_id,
        run_id=answer.run_id,
        seq=entry.seq,
        at=seen.at,
        clock=state.clock,
        data_version=seen.data_version,
        data_hash=seen.data_hash,
        reason=words("; ".join(answer.reasons), NOTE_LENGTH),
        rows=seen.rows,
        labels=seen.labels,
        seen=answer.action == "adopt",
    )
    return state.model_copy(update={"trainings": (*state.trainings, training)[-KEPT_TRAININGS:]})


def record(ledger: Ledger, observation: Observation, policy: RetrainPolicy, decision: RetrainDecision) -> Ledger:
    """Return the ledger with one more decision; its oldest entries are folded into the base when it grows too large.

    :param ledger: the ledger so far.
    :param observation: what the decision was made from.
    :param policy: the policy it was made by.
    :param decision: the decision.
    """
    key, values = _policy_values(policy)
    entry = Entry(seq=ledger.seq + 1, policy=key, observation=observation, answer=decision)
    grown = ledger.model_copy(
        update={"policies": {**ledger.policies, key: values}, "entries": (*ledger.entries, entry)}
    )
    for smaller in _foldings(grown):
        if len(smaller.entries) <= MAX_ENTRIES and size_of(smaller) <= MAX_BYTES:
            return smaller
        grown = smaller
    return grown


def _foldings(ledger: Ledger) -> Iterator[Ledger]:
    """Yield the ledger, then again and again with its oldest entry folded into the base, until one entry is left."""
    yield ledger
    while len(ledger.entries) > 1:
        oldest, *kept = ledger.entries
        used = {entry.policy for entry in kept}
        ledger = ledger.model_copy(
            update={
                "base": _apply(ledger.base, oldest, _policy(ledger, oldest)),
                "base_seq": oldest.seq,
                "policies": {key: values for key, values in ledger.policies.items() if key in used},
                "entries": tuple(kept),
            }
        )
        yield ledger


def _policy(ledger: Ledger, entry: Entry) -> RetrainPolicy:
    return _read_policy(canonical_json(ledger.policies[entry.policy]))


@lru_cache(maxsize=64)
def _read_policy(text: str) -> RetrainPolicy:
    return _POLICY.validate_json(text)


@lru_cache(maxsize=64)
def _policy_values(policy: RetrainPolicy) -> tuple[str, dict[str, Any]]:
    values = _POLICY.dump_python(policy, mode="json")
    return fingerprint(values)[:12], values
