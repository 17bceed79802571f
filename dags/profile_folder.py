"""Has the data of a whole folder drifted? Each file is profiled by a pod of its own, and the drift check merges them.

For data that one pod reads too slowly, without a cluster of Spark or Dask: Airflow maps one task per file, or per few
files, and Kubernetes finds the machines. Only profiles are merged, so the last task is small whatever the size of the
data.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_mcp.operators.drift import DriftCheckOperator
from airflow_mcp.operators.step import RunStepOperator

MODEL = "breast_cancer"

with DAG(
    dag_id="profile_folder",
    description="Profile the files of a folder side by side, and check the merged profile for drift",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001  (Airflow reads it in its own time zone)
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=["airflow-mcp", MODEL],
    params={
        "folder": Param(
            "/data/windows/latest",
            type="string",
            title="Folder",
            description="Path or URL of the folder with the data.",
        ),
        "reference": Param(
            "/data/profiles/reference.json",
            type="string",
            title="Reference profile",
            description="Path or URL of a profile, written by airflow-mcp drift profile.",
        ),
        "files_per_pod": Param(
            1, type="integer", minimum=1, title="Files per pod", description="More for many small files."
        ),
    },
) as dag:
    # [START howto_profile_commands]
    @task
    def profile_commands(params: dict[str, Any] | None = None) -> list[list[str]]:
        """Return one command for each pod."""
        from airflow.sdk import ObjectStoragePath
        from airflow.sdk.exceptions import AirflowFailException

        found = ObjectStoragePath(params["folder"]).iterdir()
        files = sorted(str(path) for path in found if path.suffix in (".parquet", ".csv", ".jsonl"))
        if not files:
            raise AirflowFailException(f"folder {params['folder']} has no Parquet, CSV or JSON Lines file")
        size = params["files_per_pod"]
        program = ["python", "-m", "airflow_mcp.cli", "drift", "profile", "-o", "profile.json"]
        return [[*program, *files[start : start + size]] for start in range(0, len(files), size)]

    # [END howto_profile_commands]

    # [START howto_stored_profiles]
    @task
    def stored_profiles(steps: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Return where the pods have stored their profiles."""
        return [{"profile": f"runs:/{step['run_id']}/reports/profile.json"} for step in steps]

    # [END howto_stored_profiles]

    # [START howto_profile_folder]
    profile_files = RunStepOperator.partial(
        task_id="profile_files",
        experiment_name=f"{MODEL}-profiles",
        model_name=MODEL,
        reports=["profile.json"],
        workload_timeout=timedelta(minutes=30),
        max_active_tis_per_dagrun=16,
    ).expand(command=profile_commands())

    drift_check = DriftCheckOperator(
        task_id="drift_check",
        experiment_name=f"{MODEL}-drift",
        model_name=MODEL,
        current=stored_profiles(profile_files.output),
        reference={"profile": "{{ params.reference }}"},
        workload_timeout=timedelta(minutes=15),
    )
    # [END howto_profile_folder]
