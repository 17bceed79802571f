"""Looks at the registry: the version behind the alias ``champion``, and the versions that its tags name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from airflow_mcp.core.contract import ALIAS_CHAMPION, ALIAS_PREVIOUS_CHAMPION, TAG_PREFIX
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.pipeline.file.policies import TAG_RELEASE, RollbackPolicy
from airflow_mcp.core.serving.breaker import TAG_ROLLBACK, read_rollback
from airflow_mcp.core.serving.settings import ModelAddress
from airflow_mcp.core.serving.traffic import (
    TAG_ROLLOUT,
    TAG_ROLLOUT_LEASE,
    BreakerRule,
    RolloutDocument,
    read_split,
)
from airflow_mcp.core.serving.versions import ServedVersion, Wanted
from airflow_mcp.exceptions import InvalidArgumentError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.mlflow_client.operations import MlflowOperations

_NOT_EVIDENCE = (TAG_ROLLOUT, TAG_ROLLOUT_LEASE, TAG_ROLLBACK)


@dataclass(frozen=True)
class Look:
    """What the registry said about one model."""

    champion: ModelVersion
    others: Mapping[str, ModelVersion] = field(default_factory=dict)
    """Versions that the champion's tags or the policy name, by number."""
    standby: str = ""
    """Number of the version that a policy in the settings names; empty for none."""
    policy_error: str = ""
    """Why the policy in the settings cannot be followed."""
    is_pinned: bool = False
    """Whether the settings name the version by its number: it is served alone, whatever its tags say."""

    def to_plan(self) -> dict[str, Any]:
        """Return it as JSON values."""
        others = {number: asdict(version) for number, version in self.others.items()}
        return {
            "champion": asdict(self.champion),
            "others": others,
            "standby": self.standby,
            "is_pinned": self.is_pinned,
        }

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> Look:
        """Read what :meth:`to_plan` has written.

        :raises TypeError: when it is something else.
        :raises KeyError: likewise.
        """
        others = {str(number): _version(fields) for number, fields in plan["others"].items()}
        return cls(_version(plan["champion"]), others, str(plan["standby"]), is_pinned=bool(plan["is_pinned"]))


def _version(fields: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(**{**fields, "aliases": tuple(fields["aliases"])})


@dataclass(frozen=True)
class Wishes:
    """What follows from a look at one moment."""

    wanted: tuple[Wanted, ...]
    champion: ServedVersion
    canary: ServedVersion | None
    standby: ServedVersion | None
    document: RolloutDocument | None
    champion_rule: BreakerRule | None
    error: str


def wishes_of(look: Look, policy: RollbackPolicy | None, now: datetime) -> Wishes:
    """Return what a look wants at a moment; leases and rules end while the registry is silent.

    :param look: the look.
    :param policy: policy of the settings, for a champion without a rule of its own.
    :param now: present time, with a time zone.
    """
    champion = look.champion
    key = key_of(champion)
    if look.is_pinned:
        return Wishes((Wanted(key, "champion", mark_of(champion)),), key, None, None, None, None, "")
    split, rollback = read_split(champion.tags, champion.version, now), read_rollback(champion.tags, key.version, now)
    canary = _named(look, split.document.canary if split.document else "")
    stable = rollback.document.stable if rollback.document else look.standby
    standby = _named(look, stable)
    rule = rollback.document.rule if rollback.document else policy.trigger.rule if policy else None
    errors = [split.error, rollback.error, look.policy_error]
    if split.document and canary is None:
        errors.append(f"version {split.document.canary}, the canary, does not exist")
    if rollback.document and standby is None:
        errors.append(f"version {stable}, to go back to, does not exist")
    wanted = [Wanted(key, "champion", mark_of(champion))]
    if standby is not None and standby.version != champion.version:
        wanted.append(Wanted(key_of(standby), "standby", mark_of(standby)))
    if canary is not None and key_of(canary) not in {wish.key for wish in wanted}:
        wanted.append(Wanted(key_of(canary), "canary", mark_of(canary)))
    return Wishes(
        tuple(wanted),
        key,
        key_of(canary) if canary else None,
        key_of(standby) if standby else None,
        split.document if canary else None,
        rule if standby else None,
        "; ".join(filter(None, errors)),
    )


def _named(look: Look, number: str) -> ModelVersion | None:
    return look.others.get(number) if number and number != look.champion.version else None


def key_of(version: ModelVersion) -> ServedVersion:
    """Return the key of a version."""
    return ServedVersion(version.name, version.version)


def mark_of(version: ModelVersion) -> str:
    """Return what changes when the registry says something else about a version that bears on loading it."""
    tags = {
        name: value for name, value in version.tags.items() if name.startswith(TAG_PREFIX) and name not in _NOT_EVIDENCE
    }
    return fingerprint({"source": version.source, "status": version.status, **tags})


class Looker:
    """Looks at the registry.

    :param mlflow: the MLflow server; its requests are not repeated, because the next look is.
    :param timeout: seconds after which a look is given up.
    :param policy: rollback policy of the settings; None for none.
    """

    def __init__(self, mlflow: MlflowOperations, timeout: float, policy: RollbackPolicy | None = None) -> None:
        self._mlflow = mlflow
        self._timeout = timeout
        self.policy = policy

    async def look(self, address: ModelAddress, now: datetime) -> Look:
        """Look at one model.

        :param address: a model of the registry.
        :param now: present time, with a time zone.
        :raises MlflowError: when there is no usable answer, or the alias points at nothing.
        :raises TimeoutError: when there is none in time.
        """
        async with asyncio.timeout(self._timeout):
            if address.version:
                version = await self._mlflow.get_model_version.aio(address.name, address.version)
                return Look(version, is_pinned=True)
            champion = await self._mlflow.get_model_version_by_alias.aio(address.name, ALIAS_CHAMPION)
            if champion is None:
                raise MlflowNotFoundError(f"{address.name!r} has no alias {ALIAS_CHAMPION!r}")
            return await self._with_others(champion, now)

    async def _with_others(self, champion: ModelVersion, now: datetime) -> Look:
        """Read the versions that are named besides; one that does not exist is left out."""
        split, rollback = (
            read_split(champion.tags, champion.version, now),
            read_rollback(champion.tags, champion.version, now),
        )
        numbers = [split.document.canary] if split.document else []
        others: dict[str, ModelVersion] = {}
        standby, error = "", ""
        if rollback.document is not None:
            numbers.append(rollback.document.stable)
        elif self.policy is not None:
            named = self.policy.strategy.stable_version
            found = await self._find(champion.name, named)
            if found is not None:
                others[found.version], standby = found, found.version
            elif named != ALIAS_PREVIOUS_CHAMPION:  # the first champion has none
                error = f"stableVersion {named!r} of the RollbackPolicy is not in the registry"
        for number in numbers:
            try:
                others[number] = await self._mlflow.get_model_version.aio(champion.name, number)
            except MlflowNotFoundError:
                continue
        return Look(champion, others, standby, error)

    async def _find(self, model: str, named: str) -> ModelVersion | None:
        """Return the version that a policy names by its number, an alias or a release."""
        try:
            if named.isdigit():
                return await self._mlflow.get_model_version.aio(model, named)
            where = f"name = {filter_value(model)} AND tags.`{TAG_RELEASE}` = {filter_value(named)}"
            released = await self._mlflow.search_model_versions.aio(where, ("version_number DESC",), 1)
            if released:
                return released[0]
            return await self._mlflow.get_model_version_by_alias.aio(model, named)
        except (MlflowNotFoundError, InvalidArgumentError):  # a release such as v1.7.3 cannot be an alias
            return None


def result_of(error: BaseException) -> str:
    """Return a word for a look that failed, for metrics."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, MlflowNotFoundError):
        return "missing"
    name = type(error).__name__.removeprefix("Mlflow").removesuffix("Error").lower()
    return name if isinstance(error, MlflowError) and name else "error"
