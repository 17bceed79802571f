"""Which drift check a sensor waits for, and whether the newest one is it."""

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
    """The newest finished check of a model, with one of some verdicts."""

    model_name: str
    experiment_name: str
    verdicts: tuple[str, ...] = VERDICTS
    """One of these will do."""
    since: str = ""
    """Only a check that ended at this time or later counts; ISO 8601 with a time zone; empty: any."""
    data_version: str = ""
    """Only checks of this version of the data count; empty: of any."""
    _since_ms: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what can never be met."""
        unknown = sorted(set(self.verdicts) - set(VERDICTS))
        if unknown or not self.verdicts:
            raise InvalidArgumentError(
                f"verdicts is {list(self.verdicts)!r}; allowed: one or more of {', '.join(VERDICTS)}"
            )
        if self.since:
            object.__setattr__(self, "_since_ms", _milliseconds(self.since))

    @property
    def tags(self) -> dict[str, str]:
        """Tags that the check must have, whatever its verdict."""
        return {contract.TAG_DATA_VERSION: self.data_version} if self.data_version else {}

    def is_met_by(self, newest: Run) -> bool:
        """Say whether the newest check is one that is waited for; an older one never is."""
        ended = newest.end_time or 0
        return newest.tags.get(contract.TAG_DRIFT_VERDICT) in self.verdicts and ended >= self._since_ms

    def found(self, run: Run) -> dict[str, Any]:
        """Say what was found, as plain JSON."""
        return {
            "run_id": run.run_id,
            "verdict": run.tags[contract.TAG_DRIFT_VERDICT],
            "drift_share": run.metrics.get("drift_share"),
            "data_uri": run.tags.get(contract.TAG_DATA_URI, ""),
            "data_version": run.tags.get(contract.TAG_DATA_VERSION, ""),
            "data_hash": run.tags.get(contract.TAG_DATA_HASH, ""),
        }

    def describe(self) -> str:
        """Say in words what is waited for."""
        which = "" if self.verdicts == VERDICTS else f" with verdict {' or '.join(self.verdicts)}"
        since = f", ended since {self.since}" if self.since else ""
        of_data = f", of data version {self.data_version}" if self.data_version else ""
        return (
            f"newest drift check of model {self.model_name!r} in experiment {self.experiment_name!r}"
            f"{which}{since}{of_data}"
        )

    def to_json(self) -> dict[str, Any]:
        """Write it as plain JSON values."""
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
            f"since is {since!r}; allowed: a time with its time zone, such as 2026-11-21T03:00:00+00:00, or '' for any"
        )
    return int(at.timestamp() * 1000)
