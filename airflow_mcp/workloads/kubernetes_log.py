"""Reads the part of a pod's log that the triggerer has not copied (see core/workload/container_log.py)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from kubernetes.client import CoreV1Api, models
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from airflow_mcp.core.workload.container_log import FreshLog, LogPosition
from airflow_mcp.core.workload.pod import CONTAINER

_LAST_LINES = 50
_REMEMBERED_LINES = 20_000
_PART_BYTES = 64 * 1024
_LOOK_BYTES = 1024**2
"""1 MiB: most that one look reads, so that a flood of output does not hold up the next look at the pods."""


class LastLines(KubernetesPodOperatorCallback):
    """Keeps the last lines that were copied to the task log, in case the log cannot be read at the end."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)

    def progress_callback(self, *, line: str, **_: Any) -> None:  # type: ignore[override]  # the parent's is static
        self.lines.append(line)


class FreshLines:
    """New lines of a container's log; following a log again repeats the lines of the last seconds.

    :param log: raw lines, each after its time in nanoseconds.
    :param seen: lines that were read before, oldest first; new lines are added.
    """

    def __init__(self, log: Iterable[bytes], seen: dict[bytes, None]) -> None:
        self._log, self._seen = log, seen

    def __iter__(self) -> Iterator[bytes]:
        """Yield each line once; a line without a time continues the one before it and is not compared."""
        for line in self._log:
            if line[10:11] != b"T":
                yield line
            elif line not in self._seen:
                self._seen[line] = None
                if len(self._seen) > _REMEMBERED_LINES:
                    del self._seen[next(iter(self._seen))]
                yield line


def new_lines(client: CoreV1Api, pod: models.V1Pod, container: str = CONTAINER) -> Iterator[str]:
    """Yield the lines so far that nobody has copied.

    :param client: client of the cluster.
    :param pod: the pod, as it is now.
    :param container: the container that writes them.
    """
    start = LogPosition.of(pod.metadata.annotations)
    log = FreshLog(start)
    since = start.since_seconds(time.time())
    limits = {} if since is None else {"since_seconds": since}
    answer = _open(client, pod.metadata.name, pod.metadata.namespace, container=container, timestamps=True, **limits)
    for part in answer.stream(_PART_BYTES):
        yield from log.take(part)
    yield from log.end()


def copied_lines(client: CoreV1Api, pod: models.V1Pod, container: str = CONTAINER) -> list[str]:
    """Return the lines so far that nobody has copied, after noting on the pod that they were read.

    :param client: client of the cluster.
    :param pod: the pod, as it is now.
    :param container: the container that writes them.
    """
    start, now = LogPosition.of(pod.metadata.annotations), time.time()
    log = FreshLog(start)
    since = start.since_seconds(now)
    limits = {} if since is None else {"since_seconds": since}
    where = pod.metadata.name, pod.metadata.namespace
    answer = _open(client, *where, container=container, timestamps=True, limit_bytes=_LOOK_BYTES, **limits)
    lines = list(log.take(answer.data))
    if lines:
        # What did not fit is read from the last line that did, at the next look.
        position = log.position(start.read_at if len(answer.data) >= _LOOK_BYTES else now)
        client.patch_namespaced_pod(*where, {"metadata": {"annotations": position.annotation()}})
    return lines


def last_lines(client: CoreV1Api, name: str, namespace: str, container: str) -> tuple[str, ...]:
    """Return the last lines of a pod's log; none when it cannot be read.

    :param client: client of the cluster.
    :param name: name of the pod.
    :param namespace: its namespace.
    :param container: the container that wrote them.
    """
    try:
        answer = _open(client, name, namespace, container=container, tail_lines=_LAST_LINES)
    except (ApiException, HTTPError):
        return ()
    return tuple(answer.data.decode(errors="replace").splitlines())


@generic_api_retry  # type: ignore[untyped-decorator]  # Airflow's
def _open(client: CoreV1Api, name: str, namespace: str, **asked: Any) -> Any:
    """Open the log as bytes; otherwise the client returns their repr."""
    return client.read_namespaced_pod_log(name, namespace, _preload_content=False, **asked)
