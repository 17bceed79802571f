"""The rows of all models, swept from MLflow now and then, and only while somebody looks."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from airflow_mcp.core.audit.log import AuditLog
from airflow_mcp.core.panel.facts import ListRow
from airflow_mcp.exceptions import ModelControlPlaneError
from airflow_mcp.mlflow_client.operations import MlflowOperations
from airflow_mcp.registry.drift_checks import DriftChecks
from airflow_mcp.registry.overview import read_overview

log = logging.getLogger(__name__)
SWEEP_SECONDS = 60.0
"""Age at which a request starts the next sweep; processes add up to a quarter, to sweep at different times."""
FIRST_ROWS = 50
"""Models that are shown before the first sweep has ended."""


@dataclass(frozen=True)
class Snapshot:
    """What the last complete sweep found."""

    rows: Mapping[str, ListRow] = field(default_factory=lambda: MappingProxyType({}))
    read_at: datetime | None = None
    """None before the first sweep has ended."""
    is_down: bool = False
    """Whether MLflow did not answer the last sweep; the rows are those of the one before."""


class RegistryIndex:
    """The rows of all models, in one process.

    A sweep blocks a thread of its own, never the event loop. Answers come from the last complete sweep at once.

    :param mlflow: returns the MLflow server; called before each sweep, so that a changed connection counts.
    :param open_log: returns the audit log, which knows what waits for people; or None when there is none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        mlflow: Callable[[], MlflowOperations],
        open_log: Callable[[], AuditLog | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mlflow, self._open_log, self._clock = mlflow, open_log, clock
        self.snapshot = Snapshot()
        self.seen = 0
        """Models that the sweep in progress has read."""
        self._due = 0.0
        self._sweep: asyncio.Task[None] | None = None
        self._drift = DriftChecks(clock)

    async def current(self) -> Snapshot:
        """Return the rows, and start a sweep when they are old; waits only for the first rows of all."""
        if self._clock() >= self._due and (self._sweep is None or self._sweep.done()):
            self._due = self._clock() + SWEEP_SECONDS * random.uniform(1, 1.25)  # noqa: S311  (not cryptography)
            self._sweep = asyncio.create_task(self.sweep())
        if self.snapshot.read_at is None and self._sweep is not None and not self.snapshot.is_down:
            await asyncio.wait({self._sweep}, timeout=0.3)
            if self.snapshot.read_at is None and not self.snapshot.rows and not self.snapshot.is_down:
                await asyncio.shield(self._first_rows())
        return self.snapshot

    @property
    def is_sweeping_first(self) -> bool:
        """Whether no sweep has ended yet."""
        return self.snapshot.read_at is None and not self.snapshot.is_down

    def put(self, row: ListRow) -> None:
        """Replace the row of one model that was just read."""
        if self.snapshot.read_at is not None:
            rows = {**self.snapshot.rows, row.name: row}
            self.snapshot = Snapshot(rows, self.snapshot.read_at, self.snapshot.is_down)

    async def finished(self) -> None:
        """Wait for the sweep in progress."""
        if self._sweep is not None:
            await self._sweep

    async def _first_rows(self) -> None:
        rows = await self._rows(FIRST_ROWS)
        if rows is not None and self.snapshot.read_at is None:
            self.snapshot = Snapshot({row.name: row for row in rows})

    async def sweep(self) -> None:
        """Read the rows of all models; when MLflow does not answer, those of the last sweep stay."""
        self.seen = 0
        rows = await self._rows(None)
        if rows is None:
            self.snapshot = Snapshot(self.snapshot.rows, self.snapshot.read_at, is_down=True)
            self._due = self._clock() + SWEEP_SECONDS / 6  # a server that is down is asked sooner again
        else:
            self.snapshot = Snapshot({row.name: row for row in rows}, datetime.now(UTC))

    def _log(self) -> AuditLog | None:
        """Return the audit log; None also when it does not answer: the list does without."""
        try:
            return self._open_log()
        except ModelControlPlaneError as error:
            log.warning("the audit log cannot be read for the list: %s", error)
            return None

    async def _rows(self, most: int | None) -> tuple[ListRow, ...] | None:
        """Return the rows in a thread; None when MLflow cannot be read."""

        def count(seen: int) -> None:
            self.seen = seen if most is None else self.seen

        try:
            drift = self._drift if most is None else None  # the first rows are read beside the first sweep
            return await asyncio.to_thread(lambda: read_overview(self._mlflow(), count, most, self._log(), drift))
        except ModelControlPlaneError as error:
            log.warning("the models cannot be listed: %s", error)
            return None
