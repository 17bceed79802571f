"""Clusters of Spark and Dask on loopback, and data that is awkward to read in parts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.paths import ROOT
from tests.support.services import LOOPBACK, Service, free_port

CONNECT_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
_NO_JAVA = "Spark needs a Java with its configuration: install openjdk-17-jre-headless, or set JAVA_HOME"


def write_awkward_parts(folder: Path) -> None:
    """Write files with an empty part, a column that parts lack, and types that differ or that a parser guesses."""
    random = np.random.default_rng(7)

    def write(name: str, rows: int, **more: pa.Array) -> None:
        amounts = pa.array(random.lognormal(3, 1, rows))
        kinds = pa.array(random.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])).cast(pa.string())
        table = pa.table({"amount": amounts, "kind": kinds, **more})
        pq.write_table(table, folder / name, row_group_size=500)

    write("1-groups.parquet", 4000, code=pa.array(random.integers(0, 5, 4000)))
    write("2-empty.parquet", 0, code=pa.array([], pa.int64()))
    write("3-lacks-code.parquet", 700)
    write("4-texts.parquet", 600, code=pa.array(["x", "y"] * 300), late=pa.array(range(600)))
    lines = "".join(f"{number / 7},{'ab'[number % 2]},{number % 5},{number}\n" for number in range(300))
    (folder / "5-guessed.csv").write_text(f"amount,kind,late,flag\n{lines}")
    lines = "".join(f"{number / 9},a,{number % 5},{'yes' if number == 250 else number}\n" for number in range(300))
    (folder / "6-no-number.csv").write_text(f"amount,kind,late,flag\n{lines}")


def java() -> str:
    """Return a home of Java whose configuration is there; empty when there is none."""
    program = shutil.which("java")
    home = os.environ.get("JAVA_HOME") or (str(Path(program).resolve().parents[1]) if program else "")
    return home if home and (Path(home) / "conf/security/java.security").exists() else ""


def spark_environment(folder: Path) -> dict[str, str]:
    """Return the variables for Spark on this machine alone.

    :param folder: for its temporary files.
    """
    assert java(), _NO_JAVA
    return {
        "JAVA_HOME": java(),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": LOOPBACK,
        "SPARK_LOCAL_DIRS": str(folder),
    }


@contextlib.contextmanager
def spark_connect(folder: Path) -> Iterator[str]:
    """Run a Spark Connect server whose workers are processes of this machine.

    :param folder: for its files.
    :return: the address.
    """
    found = find_spec("pyspark")
    assert found is not None, "the tests need pyspark"
    assert found.origin is not None
    home, port = Path(found.origin).parent, free_port()
    settings = {
        "spark.connect.grpc.binding.port": str(port),
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
    }
    options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
    command = [str(home / "bin/spark-submit"), "--master", "local[2,3]", "--class", CONNECT_SERVER, *options]
    server = Service(
        "spark-connect",
        command,
        folder=folder,
        env={**spark_environment(folder), "SPARK_HOME": str(home)},
        health_check=lambda: _listens(port),
        start_timeout=300,
    )
    with server:
        yield f"sc://{LOOPBACK}:{port}"


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """Run a Dask cluster of two worker processes, each watched by a process that starts it again.

    :param folder: for its log.
    :return: the address of the scheduler.
    """
    port = free_port()
    command = [sys.executable, "-m", "tests.support.engines", str(port)]
    env = {"PYTHONPATH": str(ROOT)}
    with Service("dask", command, folder=folder, env=env, health_check=lambda: _listens(port), is_tied=True):
        yield f"tcp://{LOOPBACK}:{port}"


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((LOOPBACK, port), 1).close()
        return True
    return False


def run_python(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python to its end, as the step's process would run.

    :param folder: working folder.
    :param env: further environment variables.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _serve_dask(port: int) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host=LOOPBACK, scheduler_port=port):
        sys.stdin.read()  # until the tests end


if __name__ == "__main__":
    _serve_dask(int(sys.argv[1]))
