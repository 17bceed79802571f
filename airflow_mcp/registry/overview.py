"""Reads what the list of all models shows: few requests, and small answers, each parsed in a short step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_mcp.core import contract
from airflow_mcp.core.access.in_force import read_in_force
from airflow_mcp.core.approvals.events import REQUESTED, ReleaseKey, latest_requested
from airflow_mcp.core.approvals.policy import ApprovalPolicy
from airflow_mcp.core.audit.moves import model_subject
from airflow_mcp.core.panel.approvals import OpenQuestion, question_of
from airflow_mcp.core.panel.facts import TAG_OWNER, TAG_RISK, DriftCheck, ListRow, dag_of, drift_check
from airflow_mcp.core.panel.state import Situation, assess_state
from airflow_mcp.core.registry.history import recent_moves
from airflow_mcp.core.registry.standing import Standing
from airflow_mcp.core.rollout.state import RolloutState
from airflow_mcp.core.serving.traffic import ACTIVE, TAG_ROLLOUT, RolloutDocument
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.registry.approvals import read_states
from airflow_mcp.registry.drift_checks import MOST_CHECKS, SHOWN_CHECKS, DriftChecks
from airflow_mcp.registry.standing import read_standings

if TYPE_CHECKING:
    from airflow_mcp.core.audit.log import AuditFacts
    from airflow_mcp.core.mlflow_entities import RegisteredModel
    from airflow_mcp.mlflow_client.operations import MlflowOperations

logger = logging.getLogger(__name__)
PAGE = 100
"""Models in one answer: 0.7 MB, about 17 ms to parse, so that other threads get their turn."""


def read_overview(
    mlflow: MlflowOperations,
    progress: Callable[[int], None] = lambda _: None,
    most: int | None = None,
    log: AuditFacts | None = None,
    drift: DriftChecks | None = None,
) -> tuple[ListRow, ...]:
    """Return the row of each model; blocks.

    :param mlflow: the MLflow server.
    :param progress: told how many models have been read.
    :param most: number of models to read; None: all.
    :param log: the audit log, which knows what waits for people; None: there is none.
    :param drift: what was read of drift checks before; None: nothing.
    """

    def count(models: Sequence[RegisteredModel]) -> bool:
        progress(len(models))
        return False

    models = mlflow.search_registered_models("", most, page_size=PAGE, enough=count)
    checks = (drift or DriftChecks()).read(mlflow, MOST_CHECKS if most is None else most * SHOWN_CHECKS)
    latest = {name: runs[0] for name, runs in checks.items()}
    standings = {standing.model_name: standing for standing in read_standings(mlflow, models, latest)[0]}
    rollouts = read_rollouts(mlflow, models)
    waiting = _waiting(log, models)
    return tuple(
        list_row(
            model,
            standings[model.name],
            tuple(map(drift_check, reversed(checks.get(model.name, ())))),
            rollouts.get(model.name),
            waiting.get(model.name, ()),
        )
        for model in models
    )


def questions_of(log: AuditFacts | None, name: str) -> tuple[OpenQuestion, ...]:
    """Return the releases of a model that wait for people.

    :param log: the audit log; None: there is none.
    :param name: the model.
    :raises AuditUnavailableError: when the log does not answer.
    """
    records = log.facts(model_subject(name), REQUESTED) if log is not None else []
    return open_questions(log, latest_requested(records))


def open_questions(log: AuditFacts | None, keys: Sequence[ReleaseKey]) -> tuple[OpenQuestion, ...]:
    """Return those of some releases that wait for people.

    :param log: the audit log; None: there is none.
    :param keys: the releases.
    :raises AuditUnavailableError: when the log does not answer.
    """
    in_force = read_in_force(log) if log is not None and keys else None
    if log is None or in_force is None:
        return ()
    states = read_states(log, keys, ApprovalPolicy.of(in_force.policy), datetime.now(UTC))
    return tuple(question for state in states if (question := question_of(state)) is not None)


def _waiting(log: AuditFacts | None, models: Sequence[RegisteredModel]) -> dict[str, tuple[OpenQuestion, ...]]:
    """Return what waits for people by model; nothing while the audit log does not answer: the list does without."""
    if log is None:
        return {}
    try:
        return {model.name: questions_of(log, model.name) for model in models if _may_wait(model)}
    except ModelControlPlaneError as error:
        logger.warning("what waits for people could not be read for the list: %s", error)
        return {}


def _may_wait(model: RegisteredModel) -> bool:
    """Return whether the newest version may be waiting: it has a passport, and is not the champion."""
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    champion = model.aliases.get(contract.ALIAS_CHAMPION)
    return newest is not None and contract.TAG_PASSPORT in newest.tags and newest.version != champion


def list_row(
    model: RegisteredModel,
    standing: Standing,
    checks: Sequence[DriftCheck],
    rollout: RolloutDocument | None,
    questions: Sequence[OpenQuestion] = (),
) -> ListRow:
    """Return the row of one model.

    :param model: the registered model.
    :param standing: what is wrong with its champion.
    :param checks: its latest drift checks, oldest first.
    :param rollout: the rollout in progress; None when there is none.
    :param questions: releases that wait for people.
    """
    newest = max(model.latest_versions, key=lambda version: int(version.version), default=None)
    situation = Situation(
        standing,
        rollout.canary if rollout else "",
        rollout.weight if rollout else 0.0,
        approval=questions[0].version if questions else "",
        approval_is_late=any(question.is_late(datetime.now(UTC)) for question in questions),
    )
    return ListRow(
        name=model.name,
        owner=model.tags.get(TAG_OWNER, ""),
        risk=model.tags.get(TAG_RISK, ""),
        dag_id=dag_of(model),
        standing=standing,
        state=assess_state(situation),
        newest=newest.version if newest else "",
        gate=newest.tags.get(contract.TAG_GATE_VERDICT, "") if newest else "",
        previous=model.aliases.get(contract.ALIAS_PREVIOUS_CHAMPION),
        moves=max((move.number for move in recent_moves(model)), default=0),
        checks=tuple(checks),
    )


def read_rollouts(mlflow: MlflowOperations, models: Sequence[RegisteredModel]) -> Mapping[str, RolloutDocument]:
    """Return the rollouts in progress, by model.

    :param mlflow: the MLflow server.
    :param models: the models with their aliases: a search for versions leaves aliases out.
    """
    champions = {model.name: model.aliases.get(contract.ALIAS_CHAMPION) for model in models}
    found = {}
    for phase in ACTIVE:
        for version in mlflow.search_model_versions(f"tags.`{TAG_ROLLOUT}` LIKE '%\"{phase}\"%'", max_results=None):
            document = RolloutState.of(version).active
            if document is not None and champions.get(version.name) == version.version:
                found[version.name] = document
    return found
