"""Trigger that ends when the replicas of a model server answer with a version."""

from __future__ import annotations

import math
from typing import Any

from airflow_mcp.core.rollout.samples import read_samples
from airflow_mcp.hooks.serving import ServingHook
from airflow_mcp.triggers.goal import GoalTrigger
from airflow_mcp.triggers.watch import DEFAULT_POLL_SECONDS


class ModelServedTrigger(GoalTrigger):
    """Wait until enough replicas answer with a version of a model; gives one event and ends.

    :param model_name: registered model.
    :param version: number of the version.
    :param share: share of the replicas that must answer with it, above 0 and at most 1.
    :param serving_conn_id: connection to the model server.
    :param poll_seconds: seconds between two looks, at least 1; longer while a replica does not answer.
    """

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        share: float,
        serving_conn_id: str,
        poll_seconds: float = DEFAULT_POLL_SECONDS,
    ) -> None:
        super().__init__(poll_seconds=poll_seconds)
        self.model_name, self.version, self.share = model_name, version, share
        self.serving_conn_id = serving_conn_id

    @property
    def subject(self) -> str:
        """The awaited version in words, for messages."""
        return f"version {self.version} of {self.model_name!r} on the model server"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor, without ``poll_seconds``."""
        return {
            "model_name": self.model_name,
            "version": self.version,
            "share": self.share,
            "serving_conn_id": self.serving_conn_id,
        }

    async def find(self) -> dict[str, Any] | None:
        """Look at every replica once; None when too few answer with the version.

        :raises ServerUnreachableError: when a replica does not answer.
        :raises EvidenceError: when one does not serve the model.
        """
        replicas = await ServingHook(self.serving_conn_id).read()
        samples = read_samples(replicas, self.model_name, canary="", champion=self.version)
        answering = [
            each.replica
            for each in samples
            if self.version in each.ready - each.tripped and each.weights.get(self.version, 0.0) > 0
        ]
        if len(answering) < math.ceil(self.share * len(samples)) or not answering:
            return None
        return {
            "model_name": self.model_name,
            "version": self.version,
            "replicas": len(samples),
            "answering": len(answering),
        }
