"""What moves the requests of a rollout, when the model servers do not split them by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from airflow_mcp.core.rollout.samples import ReplicaSample


class TrafficRouter(Protocol):
    """One place that decides which side answers; every call can be repeated."""

    def prepare(self) -> None:
        """Check that both sides are there, before anything is written.

        :raises InvalidArgumentError: when they are not, or the router cannot do what the plan needs.
        """

    def set_weight(self, percent: float) -> None:
        """Send a share of the requests to the canary.

        :param percent: the share.
        """

    def get_weight(self) -> float | None:
        """Return the share of the canary that is in force; None when it is not known."""

    def ready(self) -> str:
        """Return why the last weight is not in force yet; empty when it is.

        :raises FailedError: when it never will be.
        """

    def finish(self, *, succeeded: bool) -> None:
        """Send all requests to the side that has won.

        :param succeeded: whether that is the canary.
        """


def routed_samples(samples: Sequence[ReplicaSample], canary: str, generation: int) -> list[ReplicaSample]:
    """Return what replicas say, when a router splits: each serves one version by its number, and follows no document.

    :param samples: what the replicas of both sides say.
    :param canary: number of the canary's version.
    :param generation: generation of the document, which the router follows.
    """
    is_there = any(canary in each.ready for each in samples)
    return [
        each._replace(generation=generation, ready=each.ready | {canary} if is_there else each.ready)
        for each in samples
    ]
