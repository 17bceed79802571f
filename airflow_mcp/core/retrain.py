"""Whether to retrain now, and why: drift, age and schedule speak for it, cooldown and old data against it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_mcp.core.evidence import DriftVerdict
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.exceptions import InvalidArgumentError


@dataclass(frozen=True)
class RetrainPolicy:
    """Reasons that count, and how often a retrain may happen."""

    on_drift: bool = True
    max_model_age: timedelta | None = None
    """Retrain when the champion was registered longer ago than this; None: age does not count."""
    retrain_every: timedelta | None = None
    """Retrain when the latest training started longer ago than this; None: no schedule."""
    cooldown: timedelta = timedelta(hours=6)
    """Not again within this time after the latest training started."""

    def __post_init__(self) -> None:
        """Refuse a policy that could never retrain, and negative times."""
        if not (self.on_drift or self.max_model_age or self.retrain_every):
            raise InvalidArgumentError(
                "the retrain policy has no reason to retrain: set on_drift=True, max_model_age or retrain_every"
            )
        times = {
            "max_model_age": self.max_model_age,
            "retrain_every": self.retrain_every,
            "cooldown": self.cooldown,
        }
        for name, value in times.items():
            if value is not None and (value < timedelta(0) or (name != "cooldown" and not value)):
                raise InvalidArgumentError(f"{name} is {value!r}; allowed: a time above zero (cooldown: zero or more)")


@dataclass(frozen=True)
class RetrainState:
    """What is known when the decision is made. None means that it is not known or does not exist."""

    now: datetime
    drift: DriftVerdict | None
    champion_since: datetime | None
    """When the champion's version was registered; None when there is no champion."""
    last_training_started: datetime | None
    data_version: str
    data_hash: str
    last_trained_data_hash: str | None
    """Data of the latest training that ended well."""


@dataclass(frozen=True)
class RetrainDecision:
    """The answer, explained in words."""

    retrain: bool
    reasons: tuple[str, ...]
    """What speaks for retraining."""
    objections: tuple[str, ...]
    """What speaks against it; one is enough."""

    @property
    def explanation(self) -> str:
        """One sentence for logs, XCom and the conf of the triggered Dag run."""
        if self.retrain:
            return "retrain: " + "; ".join(self.reasons)
        if self.objections:
            wish = f" (wanted: {'; '.join(self.reasons)})" if self.reasons else ""
            return "not now: " + "; ".join(self.objections) + wish
        return "not now: no reason to retrain"


def decide_retrain(state: RetrainState, policy: RetrainPolicy) -> RetrainDecision:
    """Decide whether to train a new model now.

    :param state: what is known.
    :param policy: what counts.
    """
    reasons, objections = _reasons(state, policy), _objections(state, policy)
    return RetrainDecision(bool(reasons) and not objections, tuple(reasons), tuple(objections))


def _reasons(state: RetrainState, policy: RetrainPolicy) -> list[str]:
    reasons = []
    if policy.on_drift and state.drift == "drifted":
        reasons.append(f"the data drifted (version {state.data_version})")
    if state.champion_since is None:
        reasons.append("there is no champion")
    elif policy.max_model_age is not None and state.now - state.champion_since > policy.max_model_age:
        reasons.append(
            f"the champion is {_words(state.now - state.champion_since)} old (limit {_words(policy.max_model_age)})"
        )
    since_training = None if state.last_training_started is None else state.now - state.last_training_started
    if policy.retrain_every is not None and (since_training is None or since_training > policy.retrain_every):
        seen = "never" if since_training is None else f"{_words(since_training)} ago"
        reasons.append(f"the latest training was {seen} (schedule: every {_words(policy.retrain_every)})")
    return reasons


def _objections(state: RetrainState, policy: RetrainPolicy) -> list[str]:
    objections = []
    if state.last_training_started is not None:
        elapsed = state.now - state.last_training_started
        if elapsed < policy.cooldown:
            objections.append(f"a training started {_words(elapsed)} ago (cooldown {_words(policy.cooldown)})")
    if state.last_trained_data_hash is not None and state.last_trained_data_hash == state.data_hash:
        objections.append(f"data version {state.data_version} has been trained on already")
    return objections


def retrain_run_id(model_name: str, data_version: str, data_hash: str) -> str:
    """Name the Dag run that retrains on one version of the data: the same version never gets a second run.

    :param model_name: registered model.
    :param data_version: version label, for people.
    :param data_hash: hash of the data, for certainty.
    """
    label = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{model_name}__{data_version}")[:150]
    return f"retrain__{label}__{fingerprint([model_name, data_version, data_hash])[:12]}"


def _words(time: timedelta) -> str:
    seconds = max(0, int(time.total_seconds()))
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"
