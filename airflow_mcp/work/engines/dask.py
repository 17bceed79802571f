"""Dask, by the address of its scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from airflow_mcp.core.engine import public_engine_address
from airflow_mcp.work.engines.cluster import FAN_IN, REACH_SECONDS, Merge, TaskT, failed, not_installed

if TYPE_CHECKING:
    from distributed import Client

_WORKER_SECONDS = 300
"""Time in which the cluster must have a worker: one that grows on demand starts its first pod now."""
_RETRIES = 2
"""Further tries of a part that ends in an error; a part whose worker dies is tried again in any case."""


@contextlib.contextmanager
def dask_cluster(address: str) -> Iterator[DaskCluster]:
    """Connect to a scheduler.

    :param address: its address.
    :raises InvalidArgumentError: when ``distributed`` is not installed.
    :raises EngineError: when the scheduler does not answer, or has no worker.
    """
    try:
        from distributed import Client  # noqa: PLC0415
    except ModuleNotFoundError:
        raise not_installed("dask") from None
    shown = f"Dask at {public_engine_address(address)}"
    with contextlib.ExitStack() as kept:
        with _failing(shown):
            client = kept.enter_context(Client(address, timeout=REACH_SECONDS, set_as_default=False))
            client.wait_for_workers(1, timeout=_WORKER_SECONDS)
        yield DaskCluster(client, shown)


class DaskCluster:
    """A connected scheduler.

    :param client: the connection.
    :param shown: the cluster in messages.
    """

    def __init__(self, client: Client, shown: str) -> None:
        self.shown = shown
        self._client = client

    def probe(self, versions: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Run a function on a worker; where Python differs, its versions are known without running anything."""
        with _failing(self.shown):
            found = self._client.get_versions()
            here = _python(found["client"])
            for worker in found["workers"].values():
                if _python(worker) != here:
                    return {"python": worker["host"]["python"], "airflow-mcp": "unknown"}
            answer: dict[str, str] = self._client.submit(versions, pure=False).result()
            return answer

    def run(self, work: Callable[[TaskT], bytes], tasks: Sequence[TaskT], merge: Merge) -> bytes:
        """Run a function for every task, and merge the answers in order.

        :raises EngineError: when the cluster fails.
        """
        with _failing(self.shown):
            found = self._client.map(work, list(tasks), pure=False, retries=_RETRIES)
            while len(found) > FAN_IN:
                groups = [found[start : start + FAN_IN] for start in range(0, len(found), FAN_IN)]
                found = [self._client.submit(merge, group, pure=False, retries=_RETRIES) for group in groups]
            return merge(self._client.gather(found))


def _python(versions: dict[str, dict[str, str]]) -> list[str]:
    return versions["host"]["python"].split(".")[:2]


@contextlib.contextmanager
def _failing(shown: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Dask passes on whatever a worker or a connection raised
        raise failed(shown, error) from None
