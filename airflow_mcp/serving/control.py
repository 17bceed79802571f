"""The parts of the model server that follow, limit, watch and log, put together from the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.drift.profile import read_profile
from airflow_mcp.core.pipeline.file.policies import RollbackPolicy, RollbackPolicyFile, TrafficPolicy, read_policy_file
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.outliers import OutlierRanges
from airflow_mcp.core.serving.settings import ServingSettings
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, MlflowError, PipelineSpecError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.mlflow_client.settings import MlflowSettings
from airflow_mcp.serving.access import Access
from airflow_mcp.serving.app import ServingApp
from airflow_mcp.serving.exchange import Observer
from airflow_mcp.serving.follower import Follower
from airflow_mcp.serving.holding import default_cache
from airflow_mcp.serving.looks import Looker
from airflow_mcp.serving.metrics import Metrics
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.private_folder import require_private
from airflow_mcp.serving.reactions import Reactions
from airflow_mcp.serving.request_log import RequestLog
from airflow_mcp.serving.shadow import Shadow
from airflow_mcp.serving.webhooks import WebhookReceiver

_log = logging.getLogger(__name__)
_RETRIES = 2
"""How often a request for files or runs is repeated."""


@dataclass(frozen=True)
class Policies:
    """The policies of the settings."""

    traffic: tuple[TrafficPolicy, ...] = ()
    rollback: RollbackPolicy | None = None


def read_policies(paths: tuple[str, ...]) -> Policies:
    """Read the documents that the settings name.

    :param paths: their paths.
    :raises InvalidArgumentError: when one cannot be read, or two go back in different ways.
    """
    traffic: list[TrafficPolicy] = []
    rollbacks: list[RollbackPolicy] = []
    for path in paths:
        try:
            document = read_policy_file(Path(path).read_bytes(), path)
        except OSError as error:
            raise InvalidArgumentError(f"policy {path!r} cannot be read: {error.strerror}") from None
        except PipelineSpecError as error:
            raise InvalidArgumentError(str(error)) from None
        if isinstance(document, RollbackPolicyFile):
            rollbacks.append(document.spec)
        else:
            traffic.append(document.spec)
    if len(rollbacks) > 1 or sum(policy.auth is not None for policy in traffic) > 1:
        raise InvalidArgumentError("policies must have at most one RollbackPolicy and one with auth; got more")
    return Policies(tuple(traffic), rollbacks[0] if rollbacks else None)


class Control:
    """Everything beside the requests.

    :param settings: settings of the server.
    :param control: what is followed, checked, limited and logged.
    :param policies: the policies of the settings.
    :param models: what is loaded.
    :param registry: address and credentials of the MLflow server; None when no model comes from a registry.
    :raises InvalidArgumentError: when the folder of the cache or of the log does not belong to this user alone.
    """

    def __init__(
        self,
        settings: ServingSettings,
        control: ControlSettings,
        policies: Policies,
        models: ServedModels,
        registry: MlflowSettings | None,
    ) -> None:
        self._control, self._models = control, models
        followed = [address for address in settings.models if not address.path]
        self.follower: Follower | None = None
        self.webhook: WebhookReceiver | None = None
        self._mlflow: DirectMlflow | None = None
        if followed and registry is not None:
            self._mlflow = DirectMlflow(replace(registry, retries=_RETRIES))
            impatient = DirectMlflow(replace(registry, retries=0, timeout=control.registry_timeout))
            looker = Looker(impatient, control.registry_timeout, policies.rollback)
            cache = default_cache(control)
            self.follower = Follower(followed, models, self._mlflow, looker, cache, control)
            if control.webhook_secret:
                self.webhook = WebhookReceiver(
                    control.webhook_secret, self.follower.look_soon, control.service, settings.port
                )
        self.access = Access(policies.traffic, control.service) if policies.traffic else None
        if control.log_uri:
            require_private(Path(control.log_folder), "log_folder")
        self.log = RequestLog(models, control) if control.log_uri or control.outliers else None
        self.shadow = Shadow(models, self.log)
        self.reactions = Reactions(models, settings)

    @property
    def observers(self) -> list[Observer]:
        """What is called with every exchange."""
        found: list[Observer] = [self.shadow.record, self.reactions.record]
        if self.follower is not None:
            found.append(self.follower.breakers.record)
        if self.log is not None:
            found.append(self.log.record)
        return found

    def join(self, app: ServingApp, metrics: Metrics) -> None:
        """Add what the parts have to say to readiness, status and metrics.

        :param app: the application.
        :param metrics: its metrics.
        """
        app.pages.is_complete = self._why_incomplete
        metrics.collectors += [self.shadow.collect, self.reactions.collect]
        if self.follower is not None:
            app.pages.sources["registry"] = self.follower.status
            app.pages.events = self.follower.held.events.page
            self.follower.held.on_gone = metrics.forget
            metrics.collectors.append(self.follower.collect)
        if self.access is not None:
            metrics.collectors.append(self.access.collect)
        if self.log is not None:
            metrics.collectors.append(self.log.collect)

    def _why_incomplete(self) -> str:
        reasons = [part.why_incomplete() for part in (self.follower, self.access) if part is not None]
        return next(filter(None, reasons), "")

    async def run(self) -> None:
        """Run all parts until cancelled."""
        parts: list[Callable[[], Coroutine[Any, Any, None]]] = [self.reactions.run]
        if self.follower is not None:
            parts.append(self.follower.run)
        if self.access is not None:
            parts.append(self.access.run)
        if self.log is not None:
            parts.append(self.log.run)
            if self._control.outliers and self._mlflow is not None:
                parts.append(self._read_profiles)
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_kept_alive(part))

    async def _read_profiles(self) -> None:
        """Read the profile of the training data of every version that is loaded, once."""
        asked: set[ServedVersion] = set()
        while True:
            for key in set(self._models.pools) - asked:
                asked.add(key)
                await self._read_profile(key)
            if self.log is not None:
                for key in set(self.log.ranges) - set(self._models.pools):
                    del self.log.ranges[key]
            asked &= set(self._models.pools)
            await asyncio.sleep(1.0)

    async def _read_profile(self, key: ServedVersion) -> None:
        if self._mlflow is None or self.log is None:
            return
        try:
            version = await self._mlflow.get_model_version.aio(key.model, key.version)
            place = version.tags.get(contract.TAG_DATA_PROFILE, "")
            if contract.TAG_COPY_RUN in version.tags and place:
                place = f"{contract.ARTIFACT_COPIED_DIR}/{place}"
            text = await self._mlflow.find_artifact.aio(run_of(version), place) if place else None
            profile = read_profile(text, f"the profile of {key}") if text else None
        except (MlflowError, EvidenceError) as error:
            _log.warning("%s: rows unlike the training data are not counted: %s", key, error)
            return
        if profile is None:
            _log.warning("%s: no profile of the training data is stored, so rows unlike it are not counted", key)
            return
        self.log.ranges[key] = OutlierRanges(profile)


async def _kept_alive(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a part, again when a defect ends it: the requests must not end with it."""
    while True:
        try:
            await part()
        except Exception:
            _log.exception("a part of the server has failed and is started again")
            await asyncio.sleep(5.0)
        else:
            return
