"""A router that moves nothing: somebody else splits the requests, and the rollout only watches and promotes."""

from __future__ import annotations


class NopRouter:
    """Notes the weight of the plan; it is in force when whoever splits the requests has put it in force."""

    def prepare(self) -> None:
        """Do nothing."""

    def set_weight(self, percent: float) -> None:
        """Do nothing."""

    def get_weight(self) -> float | None:
        """Return None: nobody knows the weight."""
        return None

    def ready(self) -> str:
        """Return nothing: nobody knows."""
        return ""

    def finish(self, *, succeeded: bool) -> None:
        """Do nothing."""
