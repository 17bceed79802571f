"""Profiles on a real Dask cluster, a real Spark Connect server and real Spark in local mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import read_profile
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.work.drift.distribution import differences, from_document
from airflow_mcp.work.drift.profiles import profile_dataset
from tests.support.engines import (
    dask_cluster,
    java,
    run_python,
    spark_connect,
    spark_environment,
    write_awkward_parts,
)
from tests.support.mlflow_world import World
from tests.support.paths import ROOT
from tests.support.services import LOOPBACK, free_port

pytestmark = pytest.mark.integration

NEEDS_JAVA = pytest.mark.skipif(not java(), reason="Spark needs openjdk-17-jre-headless")
DIES_ONCE = """
import os, pathlib, pickle, sys
from airflow_mcp.work.engines.cluster import connected

def work(number):
    if number == 3:
        try:
            pathlib.Path(sys_marker).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), 9)
    return pickle.dumps([number])

def merge(answers):
    return pickle.dumps([number for answer in answers for number in pickle.loads(answer)])

if __name__ == "__main__":
    engine, address, sys_marker = sys.argv[1:]
    with connected(engine, address) as cluster:
        print(pickle.loads(cluster.run(work, range(40), merge)) == list(range(40)))
"""
"""Each task exactly once in the result, although the worker of one of them is killed."""


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with spark_connect(tmp_path_factory.mktemp("spark")) as address:
        yield address


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dask_cluster(tmp_path_factory.mktemp("dask")) as address:
        yield address


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_awkward_parts(folder)
    return folder


def profile(folder: Path, engine: str, address: str, **env: str) -> tuple[int, str]:
    """Profile the data in a process, as the step does; also return what it says."""
    command = ["-m", "airflow_mcp.cli", "drift", "profile", str(folder), "-o", "profile.json", "--engine", engine]
    done = run_python(folder.parent, *command, PYTHONPATH=str(ROOT), AIRFLOW_MCP_ENGINE_ADDRESS=address, **env)
    return done.returncode, done.stderr


def require_as_one_process(folder: Path) -> None:
    """Check that the profile beside the data says what that of one process says, within its stated error."""
    found = read_profile((folder.parent / "profile.json").read_bytes(), "profile.json")
    one = profile_dataset([DatasetPin(uri=str(folder))])
    assert (found.rows, found.sources) == (one.rows, one.sources)
    for column, expected in zip(found.columns, one.columns, strict=True):
        without = {"distribution"}
        assert column.model_dump(exclude=without) == expected.model_dump(exclude=without)
        if column.distribution and expected.distribution:
            assert column.distribution.mean == pytest.approx(expected.distribution.mean)
            curves = from_document(column.distribution), from_document(expected.distribution)
            assert differences(*curves)[0] <= sum(curve.rank_error for curve in curves) + 1e-12


def run_while_a_worker_dies(tmp_path: Path, engine: str, address: str, **env: str) -> str:
    """Return what the script says of tasks whose worker is killed in the middle: whether each counts once."""
    (tmp_path / "dies.py").write_text(DIES_ONCE)
    done = run_python(tmp_path, "dies.py", engine, address, str(tmp_path / "died"), PYTHONPATH=str(ROOT), **env)
    assert (tmp_path / "died").exists(), done.stderr[-3000:]
    return done.stdout.strip() or done.stderr[-3000:]


def test_dask_profiles_as_one_process_does(data: Path, dask: str) -> None:
    assert profile(data, "dask", dask)[0] == 0
    require_as_one_process(data)


def test_dask_counts_once_what_a_killed_worker_had_begun(tmp_path: Path, dask: str) -> None:
    assert run_while_a_worker_dies(tmp_path, "dask", dask) == "True"


def test_dask_names_a_file_that_it_cannot_read(data: Path, dask: str) -> None:
    (data / "7-broken.csv").write_bytes(b"amount,kind\n1,a,too,many\n")
    code, said = profile(data, "dask", dask)
    assert code == 1
    assert "7-broken.csv is not readable as csv" in said
    assert f"A worker of Dask at {dask} answered this" in said
    assert not (data.parent / "profile.json").exists()


def test_the_operator_judges_on_dask_what_it_judges_in_one_process(
    world: World, dask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, shift in (("reference", 0), ("current", 9)):
        lines = "".join(f"{number % 17 + shift},{number % 13}\n" for number in range(120))
        (tmp_path / f"{name}.csv").write_text(f"x1,x2\n{lines}")
    host, _, port = dask.removeprefix("tcp://").partition(":")
    connection = {"conn_type": "generic", "host": host, "port": int(port), "password": "not-for-logs"}
    monkeypatch.setenv("AIRFLOW_CONN_DASK_DEFAULT", json.dumps(connection))
    verdicts = []
    for engine in ("local", "dask"):
        outcome = world.run(
            DriftCheckOperator,
            task_id=f"on_{engine}",
            experiment_name=world.experiment,
            model_name=world.model_name,
            reference={"uri": str(tmp_path / "reference.csv"), "version": "v1"},
            current={"uri": str(tmp_path / "current.csv"), "version": "v1"},
            engine=engine,
        )
        assert outcome.state == "success", outcome.error
        verdicts.append({name: value for name, value in outcome.result.items() if name != "run_id"})
    assert verdicts[0] == verdicts[1]
    assert verdicts[1]["drifted_columns"] == ["x1"]


def test_the_operator_refuses_what_needs_rows_and_two_addresses() -> None:
    given: dict[str, Any] = {"task_id": "check", "experiment_name": "e", "model_name": "m", "current": {"uri": "d"}}
    for needs in ({"precision": "exact"}, {"policy": {"outliers": {}}}, {"evidently_rows": 5}):
        with pytest.raises(InvalidArgumentError, match="engine must be local for"):
            DriftCheckOperator(engine="spark", **given, **needs)
    with pytest.raises(InvalidArgumentError, match="engine must be one of local, spark, dask"):
        DriftCheckOperator(engine="flink", **given)  # type: ignore[arg-type]
    for wrong in ({"engine_address": "tcp://a:1"}, {"engine": "dask", "engine_address": "a:1", "engine_conn_id": "c"}):
        with pytest.raises(InvalidArgumentError, match="engine_address needs engine"):
            DriftCheckOperator(**given, **wrong)


@NEEDS_JAVA
def test_spark_connect_profiles_as_one_process_does(data: Path, spark: str) -> None:
    code, said = profile(data, "spark", spark)
    assert code == 0, said[-3000:]
    require_as_one_process(data)


@NEEDS_JAVA
def test_spark_counts_once_what_a_killed_worker_had_begun(tmp_path: Path, spark: str) -> None:
    assert run_while_a_worker_dies(tmp_path, "spark", spark) == "True"


@NEEDS_JAVA
def test_a_classic_master_profiles_as_one_process_does(data: Path, tmp_path: Path) -> None:
    for path in data.glob("[3-6]*"):  # the rest is tried above
        path.unlink()
    code, said = profile(data, "spark", "local[2]", **spark_environment(tmp_path))
    assert code == 0, said[-3000:]
    require_as_one_process(data)


def test_a_cluster_that_does_not_answer_is_named_without_its_token(data: Path) -> None:
    address = f"sc://{LOOPBACK}:{free_port()}/;token=s3cret"
    code, said = profile(data, "spark", address)
    assert code == 1
    assert f"spark at sc://{LOOPBACK}" in said
    assert "cannot be reached within 30 s" in said
    assert "s3cret" not in said
