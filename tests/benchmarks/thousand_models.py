"""1,000 models of five versions in PostgreSQL: one is made by the operators, its rows are copied, and a dump is kept.

The dump lies outside of the repository, in ``$XDG_CACHE_HOME/airflow-mcp`` (``~/.cache`` by default), so that the
second run restores it. Its name has the version of MLflow and the digest of this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest

from airflow_mcp.core import contract
from airflow_mcp.operators.gate import EvaluationGateOperator
from airflow_mcp.operators.registry import PromoteModelOperator
from tests.support.mlflow_world import World
from tests.support.postgresql import PostgresServer, programs
from tests.support.services import MlflowServer

MODELS, VERSIONS, CHECKS, COLUMNS = 1000, 5, 3, 12
MODEL = "model"
"""The model that the operators made; the others are ``model-2`` to ``model-1000``."""
_REGISTRY = (
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
_RUNS = ("runs", "tags", "params", "metrics", "latest_metrics")
_OF_A_VERSION = {
    contract.TAG_DATA_VERSION: "night-5",
    contract.TAG_DATA_HASH: "sha256:" + "77801729" * 8,
    contract.TAG_CODE_COMMIT: "528a57a3" * 5,
    contract.TAG_CONFIG_HASH: "sha256:" + "0c1b2a39" * 8,
    contract.TAG_IMAGE: "registry.example.com/team/training@sha256:" + "9f8e7d6c" * 8,
    contract.TAG_DAG_ID: "nightly",
    contract.TAG_DAG_RUN_ID: "scheduled__2026-11-01T02:00:00+00:00",
    contract.TAG_REASON: "accuracy 0.986 is above 0.92, and the interval of the difference is above zero",
    **{f"airflow_mcp.note_{number}": "a text of forty characters, as it may be" for number in range(10)},
}


class Registry(NamedTuple):
    """A started MLflow server with all models."""

    server: MlflowServer
    was_kept: bool
    """Whether the models came from a dump."""


@contextmanager
def thousand_models(folder: Path) -> Iterator[Registry]:
    """Start PostgreSQL and MLflow with all models; restore them when a dump is kept, else make them and keep one.

    :param folder: takes logs and artifacts.
    """
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    kept = _kept()
    with PostgresServer(folder, where) as postgresql:
        uri, was_kept = postgresql.uri.replace("+psycopg2", ""), kept.is_dir()
        if was_kept:
            _ask([where / "psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file", kept / "dump.sql", uri])
            shutil.copytree(kept / "artifacts", folder / "artifacts")
        with MlflowServer(folder, database=postgresql.uri) as server:
            if not was_kept:
                _make(server, uri, folder)
                _keep(kept, where, uri, folder)
            yield Registry(server, was_kept)


def _kept() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-mcp"
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return root / f"{MODELS}-models-mlflow-{version('mlflow')}-{digest}"


def _keep(kept: Path, where: Path, uri: str, folder: Path) -> None:
    made = kept.with_name(f"{kept.name}.{os.getpid()}")
    made.mkdir(parents=True)
    _ask([where / "pg_dump", "--no-owner", "--file", made / "dump.sql", uri])
    shutil.copytree(folder / "artifacts", made / "artifacts")
    made.rename(kept)  # a run that is stopped leaves nothing that looks complete


def _ask(command: list[Any]) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def _make(server: MlflowServer, uri: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MLFLOW_TESTS", json.dumps({"conn_type": "mlflow", "host": server.url}))
        world = World(server.url, folder)
        world.model_name = world.experiment = MODEL
        _make_one(world)
        world.hook.close()
    with closing(psycopg2.connect(uri)) as database, database, database.cursor() as cursor:
        cursor.execute("SELECT run_uuid FROM runs WHERE name IN ('a run', 'drift')")
        runs = [row[0] for row in cursor.fetchall()]
        for table in _RUNS:
            _copy_rows(cursor, table, "run_uuid = ANY(%(runs)s)", runs)
        for table in _REGISTRY:
            _copy_rows(cursor, table, "name = %(name)s", runs)
        cursor.execute("ANALYZE")


def _make_one(world: World) -> None:
    """Make a model with five judged versions, four moves of its champion, and drift checks."""
    for made in world.versions(VERSIONS):
        for tag, value in _OF_A_VERSION.items():
            world.hook.set_model_version_tag(MODEL, made.version, tag, value)
        run = world.hook.get_run(made.run_id)
        world.store_evidence(run, {"accuracy": 0.986})
        given: dict[str, Any] = {"model_name": MODEL, "run_id": run.run_id, "thresholds": ["accuracy >= 0.92"]}
        judged = world.run(EvaluationGateOperator, **given, dag_run_id=f"gate-{made.version}")
        assert judged.state == "success", judged.error
    for number in range(1, VERSIONS):
        moved = world.run(
            PromoteModelOperator,
            model_name=MODEL,
            version=str(number),
            expected_champion=str(number - 1) if number > 1 else "none",
            reason="accuracy 0.986 is above 0.92",
            dag_run_id=f"run-{number}",
        )
        assert moved.state == "success", moved.error
    world.hook.set_registered_model_tag(MODEL, contract.TAG_DAG_ID, "nightly")
    draw, now = random.Random(MODEL), datetime.now(UTC)
    for day in range(CHECKS, 0, -1):
        at = int((now - timedelta(days=day)).timestamp() * 1000)
        tags = {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_MODEL_NAME: MODEL,
            contract.TAG_DRIFT_VERDICT: "not_drifted",
            contract.TAG_DATA_VERSION: f"night-{day}",
        }
        run = world.hook.create_run(world.experiment_id, "drift", tags, at)
        scores = {f"drift.column_{number}": draw.random() for number in range(COLUMNS)}
        world.hook.log_batch(run.run_id, {"drift_share": 0.1, **scores}, timestamp_ms=at)
        world.hook.update_run(run.run_id, "FINISHED", at + 1000)


def _copy_rows(cursor: Any, table: str, which: str, runs: list[str]) -> None:
    """Copy rows for every further model: its name has a number, and its runs have IDs of their own.

    :param runs: IDs of the runs that are copied: the records of moves name them.
    """
    cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,))
    columns = [row[0] for row in cursor.fetchall()]
    changed = {
        "run_uuid": "md5(run_uuid || number)",
        "run_id": "md5(run_id || number)",
        # Each model has a Dag of its own, whose rights are asked for.
        "value": "CASE WHEN value IN (%(name)s, 'nightly') THEN value || '-' || number ELSE value END",
    }
    if table in _REGISTRY:
        changed["name"] = "%(name)s || '-' || number"
    if table in ("metrics", "latest_metrics"):
        del changed["value"]
    elif table == "registered_model_tags":
        for run in runs:
            changed["value"] = f"replace({changed['value']}, '{run}', md5('{run}' || number))"
    values = [f"{changed.get(each, each)} AS {each}" for each in columns]
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table}, "
        f"generate_series(2, %(models)s) number WHERE {which}",
        {"name": MODEL, "models": MODELS, "runs": runs},
    )
