"""Claims, as tags of a registered model: one task at a time moves its aliases or registers the same logged model."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING
from uuid import uuid4

from airflow_mcp.core.actor import Actor
from airflow_mcp.core.ports import TaskLog
from airflow_mcp.core.registry.claims import Claim, Sightings, other_claims
from airflow_mcp.exceptions import ClaimUnavailableError, MlflowNotFoundError, ModelControlPlaneError

if TYPE_CHECKING:
    from airflow_mcp.mlflow_client.operations import MlflowOperations

CLAIM_LIFETIME = timedelta(seconds=60)
"""A claim lasts this long, so that a killed task does not block others, or its own retry, for longer."""
_PATIENCE = timedelta(seconds=5)
"""A task waits this much longer than a claim lasts, so that it outlives the claim of a task that was killed."""
_LONGEST_PAUSE = 4.0
"""Seconds between two looks at the claims of others."""


class Claims:
    """Claims on one subject of a registered model: its aliases, or the registration of one logged model.

    MLflow has no compare-and-set. A task first writes a claim as a tag of its own on the registered model, then
    reads all claims, and withdraws when it sees another one. Of two tasks at least one reads after both have written,
    so two tasks can never both continue.

    A claim lasts 60 s: its holder stops then, and another task ignores it after having watched it for that long. Each
    measures on its own clock, so clocks that differ, or are set, neither let two tasks continue nor block one.

    :param mlflow: the MLflow server.
    :param model_name: registered model; must exist.
    :param holder: who claims; named in the messages of other tasks.
    :param log: where waiting, and a claim that could not be removed, are logged.
    :param subject: what is claimed; empty for the aliases.
    """

    def __init__(
        self, mlflow: MlflowOperations, model_name: str, *, holder: Actor, log: TaskLog, subject: str = ""
    ) -> None:
        self.mlflow, self.model_name, self.holder, self.log, self.subject = mlflow, model_name, holder, log, subject
        self._began = (0.0, 0.0)

    @contextmanager
    def held(self) -> Iterator[Claim]:
        """Hold the claim inside a ``with`` block, after waiting for other tasks that hold it.

        :raises ClaimUnavailableError: when others hold it for longer than a claim lasts.
        """
        claim = self._take()
        try:
            yield claim
        finally:
            self._release(claim)

    def require_valid(self, claim: Claim) -> None:
        """Check that a claim has not ended.

        :raises ClaimUnavailableError: when it has.
        """
        # Both clocks, because one of them stands still while a machine is suspended and the other can be set.
        passed = max(now - began for now, began in zip(_clocks(), self._began, strict=True))
        if passed >= CLAIM_LIFETIME.total_seconds():
            raise ClaimUnavailableError(
                f"{self.model_name!r}: the claim of {claim.holder} ended after {CLAIM_LIFETIME.total_seconds():.0f} s, "
                "before its work was done; a retry continues"
            )

    def _take(self) -> Claim:
        sightings = Sightings(CLAIM_LIFETIME.total_seconds())
        patience = (CLAIM_LIFETIME + _PATIENCE).total_seconds()
        pause = 0.5
        while True:
            self._began = _clocks()
            claim = Claim(uuid4().hex, datetime.now(UTC) + CLAIM_LIFETIME, str(self.holder), self.subject)
            others = self._claim_and_look(claim, sightings)
            if not others:
                return claim
            self._release(claim)
            self.log.info("%s, so this task waits", self._describe(others, sightings))
            while others and patience > 0:
                wait = random.uniform(0.2, 1) * pause  # noqa: S311  (spreads contenders)
                time.sleep(wait)
                patience, pause = patience - wait, min(2 * pause, _LONGEST_PAUSE)
                others = self._look(claim, sightings)
            if others:
                raise ClaimUnavailableError(
                    f"{self._describe(others, sightings)}. Nothing was {'registered' if self.subject else 'moved'}, "
                    "a retry tries again"
                )

    def _describe(self, others: tuple[Claim, ...], sightings: Sightings) -> str:
        """Describe who holds the claim and how long it lasts at most."""
        now = time.monotonic()
        named = []
        for other in others:
            left = sightings.seconds_left(other, now)
            lasts = "until a person removes it" if left == inf else f"for {max(left, 0):.0f} s more at most"
            named.append(f"{other.holder} (tag {other.tag}, which counts {lasts})")
        busy = f"{self.subject} is being registered" if self.subject else "its aliases are being moved"
        return f"{self.model_name!r}: {busy} by {', '.join(named)}"

    def _look(self, own: Claim, sightings: Sightings) -> tuple[Claim, ...]:
        """Read the claims of others; return those that have not ended."""
        tags = self.mlflow.get_registered_model(self.model_name).tags
        return sightings.look(other_claims(tags, own), time.monotonic())

    def _claim_and_look(self, claim: Claim, sightings: Sightings) -> tuple[Claim, ...]:
        """Write a claim and return the other claims that have not ended; on any error the own claim is removed.

        :raises MlflowNotFoundError: when there is no such registered model, and so no claim.
        """
        try:
            self.mlflow.set_registered_model_tag(self.model_name, claim.tag, claim.to_value())
            others = self._look(claim, sightings)
            for dead in () if others else sightings.seen:
                self.log.info("%s: removing the claim of %s, whose task died", self.model_name, dead.holder)
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
            self.log.warning(
                "claim %s could not be removed; other tasks wait for %s because of it: %s",
                *(claim.tag, CLAIM_LIFETIME, error),
            )


def _clocks() -> tuple[float, float]:
    return time.monotonic(), time.time()
