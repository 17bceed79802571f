"""The drift check that a sensor waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, get_args

from airflow_mcp.core import contract
from airflow_mcp.core.drift.result import DriftVerdict
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import InvalidArgumentError

VERDICTS: tuple[str, ...] = get_args(DriftVerdict)


@dataclass(frozen=True)
class DriftGoal:
    """Waits until the newest finished check of a model has one of the given verdicts."""

    model_name: str
    experiment_name: str
    verdicts: tuple[str, ...] = VERDICTS
    """Verdicts to wait for; one of them is enough."""
    since: str = ""
    """Only checks that ended at this time or later count; ISO 8601 with a time zone; empty accepts any."""
    data_version: str = ""
    """Only checks of this data version count; empty accepts any."""
    _since_ms: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that the goal can be met at all."""
        unknown = sorted(set(self.verdicts) - set(VERDICTS))
        if unknown or not self.verdicts:
            raise InvalidArgumentError(
                f"verdicts must be one or more of {', '.join(VERDICTS)}; got {list(self.verdicts)!r}"
            )
        if self.since:
            object.__setattr__(self, "_since_ms", _milliseconds(self.since))

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the runs to look at."""
        return {contract.TAG_DATA_VERSION: self.data_version} if self.data_version else {}

    def is_met_by(self, newest: Run) -> bool:
        """Return whether the newest check meets the goal; older ones never count."""
        ended = newest.end_time or 0
        return newest.tags.get(contract.TAG_DRIFT_VERDICT) in self.verdicts and ended >= self._since_ms

    def found(self, run: Run) -> dict[str, Any]:
        """Return the check that was found, as plain JSON values."""
        return {
            "run_id": run.run_id,
            "verdict": run.tags[contract.TAG_DRIFT_VERDICT],
            "drift_share": run.metrics.get("drift_share"),
            "data_uri": run.tags.get(contract.TAG_DATA_URI, ""),
            "data_version": run.tags.get(contract.TAG_DATA_VERSION, ""),
            "data_hash": run.tags.get(contract.TAG_DATA_HASH, ""),
        }

    def describe(self) -> str:
        """Return the goal as text."""
        which = "" if self.verdicts == VERDICTS else f" with verdict {' or '.join(self.verdicts)}"
        since = f", ended since {self.since}" if self.since else ""
        of_data = f", of data version {self.data_version}" if self.data_version else ""
        return (
            f"newest drift check of model {self.model_name!r} in experiment {self.experiment_name!r}"
            f"{which}{since}{of_data}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the goal as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")} | {
            "verdicts": list(self.verdicts)
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DriftGoal:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**stored, "verdicts": tuple(stored["verdicts"])})


def _milliseconds(since: str) -> int:
    try:
        at = datetime.fromisoformat(since)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidArgumentError(
            f"since must be a time with its time zone, such as 2026-11-21T03:00:00+00:00, or '' for any; got {since!r}"
        )
    return int(at.timestamp() * 1000)
