"""Turns facts about models into answers; text that others wrote is passed on as text, without credentials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.audit.event import without_credentials
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.panel.facts import ListRow, ModelFacts, VersionFacts
from airflow_mcp.core.panel.refusal import Refusal
from airflow_mcp.core.panel.state import ModelState
from airflow_mcp.core.registry.history import Timeline
from airflow_mcp.publisher import schemas

_NAMES_SERVERS = frozenset({"image", "copy run"})
"""Facts about a version's origin that name a server: an answer holds no address."""


def state_of(state: ModelState) -> schemas.State:
    """Return a state as it is answered."""
    word, next_step = (text.format_map(dict(state.values)) for text in (state.word, state.next_step))
    return schemas.State(kind=state.kind, word=word, next_step=next_step)


def summary_of(row: ListRow) -> schemas.ModelSummary:
    """Return one model of the list."""
    return schemas.ModelSummary(
        name=row.name,
        owner=row.owner,
        state=state_of(row.state),
        champion=row.standing.champion,
        champion_since=row.standing.since or None,
        previous_champion=row.previous,
        newest_version=row.newest or None,
        gate_verdict=row.gate or None,
    )


def detail_of(row: ListRow, facts: ModelFacts, refusals: Mapping[str, Refusal | None]) -> schemas.ModelDetail:
    """Return one model.

    :param row: its row of the list.
    :param facts: what is known of it.
    :param refusals: why the caller cannot do something, by action; None when they can.
    """
    return schemas.ModelDetail(
        **summary_of(row).model_dump(exclude={"state"}),
        state=state_of(facts.state),
        description=without_credentials(facts.model.description),
        aliases=dict(facts.model.aliases),
        dag_id=facts.dag_id,
        actions={
            action: schemas.Possible(possible=refused is None, why_not=said_of(refused))
            for action, refused in refusals.items()
        },
        notes=dict(facts.notes),
    )


def said_of(refusal: Refusal | None) -> str:
    """Return why something is not possible; empty when it is."""
    return "" if refusal is None else refusal.text.format_map(refusal.values)


def version_of(model: str, facts: VersionFacts, aliases: Mapping[str, str]) -> schemas.VersionSummary:
    """Return one version of a model.

    :param model: name of the model.
    :param facts: what is known of the version.
    :param aliases: aliases of the model, with their versions.
    """
    check = facts.load_check
    return schemas.VersionSummary(
        model=model,
        version=facts.number,
        status=facts.status,
        registered_at=facts.registered.isoformat(),
        aliases=sorted(alias for alias, number in aliases.items() if number == facts.number),
        gate_verdict=facts.gate or None,
        load_check=None
        if check is None
        else schemas.LoadCheckAnswer(verdict=check.verdict, reason=without_credentials(check.reason), at=check.at),
        unusable=without_credentials(facts.unusable),
        can_be_promoted=facts.can_be_promoted,
    )


def version_detail(
    summary: schemas.VersionSummary, facts: VersionFacts, version: ModelVersion, run: Run | None
) -> schemas.VersionDetail:
    """Return one version with its origin.

    :param summary: the version.
    :param facts: what is known of it.
    :param version: the version as MLflow keeps it.
    :param run: its MLflow run; None when it was deleted.
    """
    prefix = contract.TAG_REPORTED_PREFIX
    reported = {tag.removeprefix(prefix): text for tag, text in version.tags.items() if tag.startswith(prefix)}
    return schemas.VersionDetail(
        **summary.model_dump(),
        run_id=facts.run_id,
        provenance=_clean((label, text) for label, text in facts.provenance.items() if label not in _NAMES_SERVERS),
        reported=_clean(reported.items()),
        metrics={name: value for name, value in (run.metrics if run else {}).items() if math.isfinite(value)},
    )


def history_of(model: str, timeline: Timeline) -> schemas.History:
    """Return the changes of a champion, the newest first.

    :param model: name of the model.
    :param timeline: its changes.
    """
    changes = [
        schemas.Change(
            action=change.move.action if change.move else "unrecorded",
            before=change.before,
            after=change.after,
            earliest=change.earliest and change.earliest.isoformat(),
            latest=change.latest.isoformat(),
            by=str(change.move.by) if change.move else None,
            reason=without_credentials(change.move.reason) if change.move else None,
        )
        for change in reversed(timeline.changes)
    ]
    return schemas.History(model=model, champion=timeline.champion, changes=changes)


def plain_values(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, str | int | float | bool | None]:
    """Return the named members that are plain values, without credentials.

    :param values: what a task pushed.
    :param names: members that may be answered.
    """
    found = {name: values[name] for name in names if name in values}
    return {
        name: without_credentials(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is None or isinstance(value, str | int | float | bool)
    }


def _clean(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: without_credentials(text) for name, text in pairs}
