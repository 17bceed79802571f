"""The registry of :mod:`tests.benchmarks.thousand_models` with 100 versions of each model: rows are copied in SQL."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2

from tests.benchmarks.thousand_models import VERSIONS
from tests.support.services import MlflowServer

_RUN = "md5({} || '-' || number)"
"""ID of the copy of a run; each version has a run of its own."""
_TABLES = {
    "runs": {"run_uuid": _RUN.format("run_uuid")},
    "tags": {"run_uuid": _RUN.format("run_uuid")},
    "params": {"run_uuid": _RUN.format("run_uuid")},
    "latest_metrics": {"run_uuid": _RUN.format("run_uuid")},
    "model_versions": {"version": "number", "run_id": _RUN.format("run_id")},
    "model_version_tags": {"version": "number"},
}


def add_versions(server: MlflowServer, count: int) -> None:
    """Add copies of the newest version of every model, until each model has so many; their runs are copied too.

    :param server: an MLflow server on PostgreSQL with the models.
    :param count: number of versions of each model.
    """
    uri = server.database.replace("+psycopg2", "")
    with closing(psycopg2.connect(uri)) as database, database, database.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE newest AS SELECT run_id FROM model_versions WHERE version = %s", (VERSIONS,))
        for table, changed in _TABLES.items():
            _copy(cursor, table, changed, count)
        cursor.execute("ANALYZE")


def _copy(cursor: Any, table: str, changed: dict[str, str], count: int) -> None:
    cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,))
    columns = [row[0] for row in cursor.fetchall()]
    values = ", ".join(f"{changed.get(each, each)} AS {each}" for each in columns)
    which = "version = %(newest)s" if "version" in columns else "run_uuid IN (SELECT run_id FROM newest)"
    cursor.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, "
        f"generate_series(%(first)s, %(count)s) number WHERE {which}",
        {"newest": VERSIONS, "first": VERSIONS + 1, "count": count},
    )
