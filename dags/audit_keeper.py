"""Every hour: record what the audit log missed, and take a signed checkpoint to a place that its owner cannot write to.

Needs an audit log (`[airflow_mcp] audit_conn_id`) and a signing key (`[airflow_mcp] signing_conn_id`), see
docs/audit.md. Run it on workers that have the login `mcp_keeper`, and name your own anchors below: at least one that
the owner of the database cannot write to.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from airflow.sdk import DAG

from airflow_mcp.operators.audit import CheckpointAuditOperator, ReconcileAuditOperator

# Such as "s3://audit-anchors/prod git+https://git.example.com/audit/anchors.git#checkpoints"
ANCHORS = os.environ.get("AUDIT_ANCHORS", "/var/lib/airflow-mcp/checkpoints").split()
SERVERS = os.environ.get("AUDIT_SERVING_CONN_IDS", "").split()

with DAG(
    dag_id="audit_keeper",
    description="Keep the audit log complete, and its checkpoints out of reach",
    doc_md=__doc__,
    schedule="5 * * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
) as dag:
    # [START howto_audit_keeper]
    reconcile = ReconcileAuditOperator(task_id="reconcile", serving_conn_ids=SERVERS)
    # all_done: a checkpoint is needed also while MLflow is away
    checkpoint = CheckpointAuditOperator(task_id="checkpoint", anchors=ANCHORS, trigger_rule="all_done")
    reconcile >> checkpoint
    # [END howto_audit_keeper]
