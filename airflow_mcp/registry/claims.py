"""Claims, as tags of a registered model: one task at a time moves its aliases or registers the same logged model."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.claims import Claim, expired_claims, other_claims
from airflow_mcp.exceptions import ClaimUnavailableError, MlflowNotFoundError, ModelControlPlaneError

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.operations import MlflowOperations

CLAIM_LIFETIME = timedelta(seconds=60)
"""A claim expires after this time, so that a killed task does not block others, or its own retry, for longer."""
CLAIM_ATTEMPTS = 6
"""Number of times a claim is tried before the task fails (and may be retried)."""


class Claims:
    """Claims on one subject of a registered model: its aliases, or the registration of one logged model.

    MLflow has no compare-and-set. A task first writes a claim as a tag of its own on the registered model, then
    reads all claims, and withdraws when it sees another valid one. Of two tasks at least one reads after both have
    written, so two tasks can never both continue. Claims expire.

    :param mlflow: the MLflow server.
    :param model_name: registered model; must exist.
    :param holder: who claims; named in the messages of other tasks.
    :param log: where a claim that could not be removed is logged.
    :param subject: what is claimed; empty for the aliases.
    """

    def __init__(
        self, mlflow: MlflowOperations, model_name: str, *, holder: Actor, log: TaskLog, subject: str = ""
    ) -> None:
        self.mlflow, self.model_name, self.holder, self.log, self.subject = mlflow, model_name, holder, log, subject

    @contextmanager
    def held(self) -> Iterator[Claim]:
        """Hold the claim inside a ``with`` block.

        :raises ClaimUnavailableError: when another task holds it.
        """
        claim = self._take()
        try:
            yield claim
        finally:
            self._release(claim)

    def require_valid(self, claim: Claim) -> None:
        """Check that a claim has not expired.

        :raises ClaimUnavailableError: when it has.
        """
        if datetime.now(UTC) >= claim.expires_at:
            raise ClaimUnavailableError(
                f"{self.model_name!r}: the claim of {self.holder} expired before its work was done; a retry continues"
            )

    def _take(self) -> Claim:
        others: tuple[Claim, ...] = ()
        for attempt in range(CLAIM_ATTEMPTS):
            claim = Claim(uuid4().hex, datetime.now(UTC) + CLAIM_LIFETIME, str(self.holder), self.subject)
            others = self._claim_and_look(claim)
            if not others:
                return claim
            self._release(claim)
            if attempt < CLAIM_ATTEMPTS - 1:
                time.sleep(random.uniform(0.1, 0.5) * 2**attempt)  # noqa: S311  (spreads contenders)
        busy = f"{self.subject} is being registered" if self.subject else "its aliases are being moved"
        raise ClaimUnavailableError(
            f"{self.model_name!r}: {busy} by {', '.join(other.holder for other in others)}; "
            f"nothing was {'registered' if self.subject else 'moved'}, a retry tries again"
        )

    def _claim_and_look(self, claim: Claim) -> tuple[Claim, ...]:
        """Write a claim and return the other valid claims; on any error the own claim is removed.

        :raises MlflowNotFoundError: when there is no such registered model, and so no claim.
        """
        try:
            self.mlflow.set_registered_model_tag(self.model_name, claim.tag, claim.to_value())
            tags = self.mlflow.get_registered_model(self.model_name).tags
            others = other_claims(tags, claim, datetime.now(UTC))
            for dead in () if others else expired_claims(tags, datetime.now(UTC)):
                self.mlflow.delete_registered_model_tag(self.model_name, dead.tag)
        except MlflowNotFoundError:
            raise
        except BaseException:
            self._release(claim)
            raise
        return others

    def _release(self, claim: Claim) -> None:
        try:
            self.mlflow.delete_registered_model_tag(self.model_name, claim.tag)
        except ModelControlPlaneError as error:
            self.log.warning("claim %s could not be removed and expires at %s: %s", claim.tag, claim.expires_at, error)
