"""Every pipeline file in ``pipelines/`` as a Dag."""

from airflow_mcp.dag_rendering import load_model_pipelines

load_model_pipelines("pipelines")
