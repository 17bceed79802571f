"""The latest drift checks of all models, read completely once an hour, and in between only those that are new."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_mcp.core import contract

if TYPE_CHECKING:
    from airflow_mcp.core.mlflow_entities import Run
    from airflow_mcp.mlflow_client.operations import MlflowOperations

SHOWN_CHECKS = 14
"""Drift checks of one model that the list draws."""
MOST_CHECKS = 3000
"""Latest drift checks of all models together that are read."""
PAGE = 200
"""Runs in one answer: 0.6 MB, about 10 ms to parse, so that other threads get their turn."""
MARGIN_SECONDS = 600
"""A check that ended this long before the newest one may still appear: clocks differ, and tasks write late."""
AGAIN_SECONDS = 3600.0
"""Age at which everything is read again, which forgets deleted checks."""


class DriftChecks:
    """The latest finished drift checks by model. A finished run changes no more, so it is read once.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._runs: Mapping[str, tuple[Run, ...]] = {}
        self._newest = 0
        self._again = clock()

    def read(self, mlflow: MlflowOperations, most: int = MOST_CHECKS) -> Mapping[str, tuple[Run, ...]]:
        """Return the latest checks of each model, the newest first; blocks.

        :param mlflow: the MLflow server.
        :param most: latest checks of all models together to read.
        """
        now = self._clock()
        is_complete = now >= self._again
        where = f"attributes.status = 'FINISHED' and tags.`{contract.TAG_KIND}` = '{contract.KIND_DRIFT_CHECK}'"
        if not is_complete:
            where += f" and attributes.end_time > {self._newest - MARGIN_SECONDS * 1000}"
        experiments = [each.experiment_id for each in mlflow.search_experiments()]
        order = ("attributes.end_time DESC",)
        found = mlflow.search_runs(experiments, where, order, most, page_size=PAGE) if experiments else []
        known = () if is_complete else (run for runs in self._runs.values() for run in runs)
        self._runs = _by_model([*map(_in_short, found), *known])
        self._newest = max((run.end_time or 0 for runs in self._runs.values() for run in runs), default=0)
        if is_complete:
            self._again = now + AGAIN_SECONDS
        return self._runs


def _by_model(runs: Iterable[Run]) -> dict[str, tuple[Run, ...]]:
    """Return the latest runs of each model, the newest first."""
    once = {run.run_id: run for run in runs}
    found: dict[str, list[Run]] = {}
    for run in sorted(once.values(), key=lambda run: -(run.end_time or 0)):
        of_model = found.setdefault(run.tags.get(contract.TAG_MODEL_NAME, ""), [])
        if len(of_model) < SHOWN_CHECKS:
            of_model.append(run)
    return {name: tuple(kept) for name, kept in found.items()}


def _in_short(run: Run) -> Run:
    """Return a run without the scores of columns, which nobody asks for here."""
    share = {name: value for name, value in run.metrics.items() if name == "drift_share"}
    return replace(run, metrics=share, params={})
