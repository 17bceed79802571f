"""Spark, by Spark Connect or by a classic master; the same DataFrame calls serve both."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_mcp.core.engine import public_engine_address
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.engines.cluster import FAN_IN, Merge, TaskT, failed, not_installed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CLASSIC = {"spark.ui.showConsoleProgress": "false"}
"""A bar of progress would fill the task's log."""
_ANSWER = "part long, answer binary"
_PYTHON_DIFFERS = re.compile(r"PYTHON_VERSION_MISMATCH.*?\n?.*?(\d+\.\d+).*?(\d+\.\d+)", re.DOTALL)


@contextlib.contextmanager
def spark_cluster(address: str) -> Iterator[SparkCluster]:
    """Connect to a Spark Connect server (``sc://``) or a classic master.

    :param address: address of the server or the master.
    :raises InvalidArgumentError: when Spark, or for a classic master Java, is not installed here.
    :raises EngineError: when Spark does not answer.
    """
    shown = f"Spark at {public_engine_address(address)}"
    session = _session(address, shown)
    try:
        yield SparkCluster(session, shown)
    finally:
        session.stop()


class SparkCluster:
    """A connected Spark session.

    :param session: the session.
    :param shown: the cluster in messages.
    """

    def __init__(self, session: SparkSession, shown: str) -> None:
        self.shown = shown
        self._session = session

    def probe(self, versions: Callable[[], dict[str, str]]) -> dict[str, str]:
        """Run a function on a worker."""

        def ask(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for _ in batches:
                found = versions()
                yield pa.RecordBatch.from_pydict({"name": list(found), "version": list(found.values())})

        with _failing(self.shown):
            rows = self._session.range(0, 1, 1, 1).mapInArrow(ask, "name string, version string").collect()
        return {row["name"]: row["version"] for row in rows}

    def run(self, work: Callable[[TaskT], bytes], tasks: Sequence[TaskT], merge: Merge) -> bytes:
        """Run a function for every task, and merge the answers in order.

        :raises EngineError: when the cluster fails.
        """
        given = list(tasks)

        def each(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch.column(0).to_pylist():
                    yield _answers([number], [work(given[number])])

        def some(table: pa.Table) -> pa.Table:
            ordered = table.sort_by("part")
            merged = merge(ordered.column("answer").to_pylist())
            return pa.Table.from_batches([_answers([ordered.column("part")[0].as_py()], [merged])])

        with _failing(self.shown):
            found: Any = self._session.range(0, len(given), 1, len(given)).mapInArrow(each, _ANSWER)
            size = FAN_IN
            while len(given) > size:
                found = found.groupBy((found["part"] / size).cast("long")).applyInArrow(some, _ANSWER)
                size *= FAN_IN
            rows = found.collect()
        return merge([bytes(row["answer"]) for row in sorted(rows, key=lambda row: row["part"])])


def _answers(parts: list[int], answers: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(parts, pa.int64()), pa.array(answers, pa.binary())], ["part", "answer"])


def _session(address: str, shown: str) -> SparkSession:
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415
    except ModuleNotFoundError:
        raise not_installed("spark") from None
    is_connect = address.startswith("sc://")
    if address.startswith("local"):  # the workers are children of this process
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        if is_connect:
            return SparkSession.builder.remote(address).create()
        _require_classic(shown)
        return SparkSession.builder.master(address).appName("airflow-mcp").config(map=_CLASSIC).getOrCreate()
    except InvalidArgumentError:
        raise
    except Exception as error:  # Spark, gRPC and the JVM each raise errors of their own
        if "JAVA_GATEWAY_EXITED" in str(error):
            raise InvalidArgumentError(
                f"{shown} is a classic master, so Spark needs Java 17 or newer here, which does not start: install "
                "openjdk-17-jre-headless, or use Spark Connect (sc://), which needs none. Nothing was read"
            ) from None
        raise failed(shown, error) from None


def _require_classic(shown: str) -> None:
    if importlib.util.find_spec("py4j") is None:
        raise InvalidArgumentError(
            f"{shown} is a classic master, and pyspark-client, which is installed here, knows Spark Connect only. "
            "Install pyspark in its place, and Java 17, or use the sc:// address of a server. Nothing was read"
        )


@contextlib.contextmanager
def _failing(shown: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # as above
        differs = _PYTHON_DIFFERS.search(str(error))
        if differs:
            raise InvalidArgumentError(
                f"the workers of {shown} run Python {differs[1]}, and this step runs {differs[2]}; both must be the "
                "same. Set spark.pyspark.python on the cluster, or use an image with its Python. Nothing was read"
            ) from None
        raise failed(shown, error) from None
