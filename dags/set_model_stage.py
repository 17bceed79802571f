"""By hand, for teams that speak of stages: put a version into Staging, Production, Archived or None.

Press "Trigger", fill in the form. Production asks for the same as every promotion.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from airflow_mcp.operators.stages import TransitionModelStageOperator

with DAG(
    dag_id="set_model_stage",
    description="Move a model version between stages",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp"],
    params={
        "model_name": Param("breast_cancer", type="string", minLength=1, title="Registered model"),
        "version": Param("1", type="string", pattern="^[1-9][0-9]*$", title="Version"),
        "stage": Param("Staging", enum=["Staging", "Production", "Archived", "None"], title="Stage"),
        "archive_existing": Param(
            False, type="boolean", title="Archive existing", description="Archive the others of that stage."
        ),
        "expected_champion": Param(
            None,
            type=["null", "string"],  # null: the form does not insist on one
            pattern="^([1-9][0-9]*|none)$",
            title="Version in Production now",
            description="For Production only: a number, or none.",
        ),
        "reason": Param(
            None, type=["null", "string"], maxLength=2000, title="Reason", description="Recorded with the move."
        ),
    },
) as dag:
    # [START howto_transition_model_stage]
    TransitionModelStageOperator(
        task_id="set_stage",
        model_name="{{ params.model_name }}",
        version="{{ params.version }}",
        stage="{{ params.stage }}",
        archive_existing="{{ params.archive_existing }}",
        expected_champion="{{ params.expected_champion or '' }}",
        reason="{{ params.reason or '' }}",
    )
    # [END howto_transition_model_stage]
