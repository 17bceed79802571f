"""A cluster that runs a function for every part of a dataset, and merges the answers where they are."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

from airflow_mcp.core.contract import ENV_ENGINE_ADDRESS
from airflow_mcp.core.engine import engine_address, places_of, public_engine_address
from airflow_mcp.exceptions import EngineError, InvalidArgumentError
from airflow_mcp.work.run.mlflow_run import redacted
from airflow_mcp.work.run.process import library_versions

_log = logging.getLogger(__name__)
TaskT = TypeVar("TaskT")
Merge: TypeAlias = Callable[[Sequence[bytes]], bytes]
FAN_IN = 16
"""Answers that are merged at a time: few enough that a worker holds them, at about 2 MB for 100 columns."""
REACH_SECONDS = 30.0
"""Time in which a cluster must accept a connection."""
_TOKEN = re.compile(r"(token|user_id)=[^;\s'\"]+")
_LIBRARIES = ("airflow-mcp", "numpy", "pyarrow")
_SHIP = (
    "Use an image for the workers that has airflow-mcp and the same libraries as the image of this step, or ship them: "
    "for Spark as an environment packed with venv-pack (spark.archives), for Dask with PipInstall. Nothing was read"
)


class Cluster(Protocol):
    """A connected cluster."""

    shown: str
    """The cluster in messages, without credentials."""

    def probe(self, versions: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Run a function on a worker and return its answer; the function needs no module of this package."""

    def run(self, work: Callable[[TaskT], bytes], tasks: Sequence[TaskT], merge: Merge) -> bytes:
        """Run a function for every task, each exactly once in the result, and merge the answers in order.

        A task whose worker dies runs again on another worker.

        :raises EngineError: when the cluster fails.
        """


@contextlib.contextmanager
def connected(engine: str, address: str = "") -> Iterator[Cluster]:
    """Connect to a cluster, and check that its workers can do the work.

    :param engine: ``spark`` or ``dask``.
    :param address: address; empty takes the environment variable ``AIRFLOW_MCP_ENGINE_ADDRESS``.
    :raises InvalidArgumentError: when there is no address, the engine is not installed here, or the workers lack
        airflow-mcp or have other versions of Python or of libraries.
    :raises EngineError: when the cluster does not answer.
    """
    given = address or os.environ.get(ENV_ENGINE_ADDRESS, "")
    if not given:
        raise InvalidArgumentError(
            f"engine {engine!r} needs the address of a cluster: name a connection with engine_conn_id, or set "
            f"{ENV_ENGINE_ADDRESS}. Nothing was read"
        )
    checked = engine_address(ENV_ENGINE_ADDRESS, engine, given)
    _require_answer(engine, checked)
    with _connect(engine, checked) as cluster:
        _require_same(cluster)
        yield cluster


def _connect(engine: str, address: str) -> contextlib.AbstractContextManager[Cluster]:
    if engine == "spark":
        from airflow_mcp.work.engines.spark import spark_cluster  # noqa: PLC0415

        return spark_cluster(address)
    from airflow_mcp.work.engines.dask import dask_cluster  # noqa: PLC0415

    return dask_cluster(address)


def not_installed(engine: str) -> InvalidArgumentError:
    """Return the error for an engine that is not installed here."""
    return InvalidArgumentError(
        f"engine {engine!r} needs a library that is not installed here: pip install airflow-mcp[{engine}]. Nothing was "
        "read"
    )


def failed(shown: str, error: Exception) -> EngineError:
    """Return the error for whatever an engine, a worker or a connection raised.

    :param shown: the cluster in messages.
    :param error: what was raised; tokens in its text are removed.
    """
    text = redacted(_TOKEN.sub(r"\1=***", str(error)), 500).rstrip(".")
    return EngineError(
        f"{shown} failed: {type(error).__name__}: {text}. Nothing was compared; a retry reads the data again"
    )


def _require_answer(engine: str, address: str) -> None:
    problem = ""
    for place in places_of(address):
        try:
            socket.create_connection(place, REACH_SECONDS).close()
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            return
    if problem:
        raise EngineError(
            f"{engine} at {public_engine_address(address)} cannot be reached within {REACH_SECONDS:g} s: {problem}. "
            "Nothing was read; a retry may succeed"
        )


def _require_same(cluster: Cluster) -> None:
    """Refuse workers that would fail later with an error that is hard to read, or count differently."""
    here = library_versions(*_LIBRARIES)
    there = cluster.probe(_versions_function())
    if "airflow-mcp" not in there:
        raise InvalidArgumentError(
            f"a worker of {cluster.shown} cannot import airflow_mcp; it has Python {there['python']}. {_SHIP}"
        )
    differ = [
        f"{name} {there.get(name, 'missing')} instead of {version}"
        for name, version in here.items()
        if name in ("python", *_LIBRARIES) and _series(name, there.get(name, "")) != _series(name, version)
    ]
    if differ:
        raise InvalidArgumentError(f"a worker of {cluster.shown} has {', '.join(differ)}. {_SHIP}")
    _log.info("engine: %s, workers with %s", cluster.shown, _in_words(there))


def _series(name: str, version: str) -> str:
    """Return the part of a version that must be equal."""
    if name == "airflow-mcp":
        return version
    return ".".join(version.split(".")[: 2 if name == "python" else 1])


def _in_words(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _versions_function() -> Callable[[], dict[str, str]]:
    """Return a function that is sent as code: a worker without this package must be able to answer."""
    libraries = _LIBRARIES

    def versions() -> dict[str, str]:
        import importlib.metadata  # noqa: PLC0415
        import importlib.util  # noqa: PLC0415
        import platform  # noqa: PLC0415

        found = {"python": platform.python_version()}
        for name in libraries:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        if "airflow-mcp" not in found and importlib.util.find_spec("airflow_mcp"):
            found["airflow-mcp"] = __import__("airflow_mcp").__version__  # shipped as an archive, without metadata
        return found

    return versions
