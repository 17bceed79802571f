"""Every hour: find pods and MLflow runs whose work is over. It only says so, until `dry_run` is switched off.

Leftovers are rare: a worker or a whole Airflow must have died at the wrong moment. Look at a few dry runs first, then
change the default of `dry_run` below. Needs a cluster: `runtime = kubernetes`, see docs/kubernetes.md.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.maintenance import SweepPodsOperator

with DAG(
    dag_id="pod_maintenance",
    description="Remove pods that nobody works with any more",
    doc_md=__doc__,
    schedule="17 * * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "dry_run": Param(
            True,
            type="boolean",
            title="Dry run",
            description="Say what would be removed, and remove nothing.",
        ),
    },
) as dag:
    # [START howto_sweep_pods]
    SweepPodsOperator(
        task_id="sweep",
        dry_run="{{ params.dry_run }}",
        older_than=timedelta(hours=1),
    )
    # [END howto_sweep_pods]
