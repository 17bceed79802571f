"""The model version that a sensor waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel


@dataclass(frozen=True)
class ModelGoal:
    """A version of a registered model that is ``READY`` and meets every condition that is set."""

    model_name: str
    alias: str = ""
    """The alias must point at it; empty: any version counts."""
    version: str = ""
    """It must be this version."""
    other_than: str = ""
    """It must not be this version."""
    newer_than: str = ""
    """It must have a higher number than this version."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """It must have these tags."""

    def is_met_by(self, found: ModelVersion) -> bool:
        """Return whether a version meets the goal, apart from the alias, which the caller checks."""
        return (
            found.status == "READY"
            and self.version in ("", found.version)
            and (not self.other_than or found.version != self.other_than)
            and (not self.newer_than or int(found.version) > int(self.newer_than))
            and all(found.tags.get(name) == value for name, value in self.tags.items())
        )

    def may_be_met_by(self, model: RegisteredModel) -> bool:
        """Return whether a version may meet the goal, as far as the registered model alone shows it.

        :param model: the registered model as it is now.
        """
        if self.alias:
            target = model.aliases.get(self.alias)
            return target is not None and self.version in ("", target) and target != self.other_than
        return model.newest > int(self.newer_than or 0) and model.newest >= int(self.version or 0)

    def first_met(self, found: Iterable[ModelVersion]) -> ModelVersion | None:
        """Return the first version that meets the goal, or None."""
        return next((version for version in found if self.is_met_by(version)), None)

    def describe(self) -> str:
        """Return the goal as a short text."""
        what = f"version {self.version}" if self.version else "a version"
        conditions = [
            *([f"other than {self.other_than}"] if self.other_than else []),
            *([f"newer than {self.newer_than}"] if self.newer_than else []),
            *(f"with tag {name}={value}" for name, value in self.tags.items()),
        ]
        where = f"alias {self.alias!r} of " if self.alias else ""
        return f"{where}model {self.model_name!r}: {' '.join([what, *conditions])}, READY"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values, which are the arguments of the constructor."""
        return asdict(self)
