"""The work plane: what runs in the workload image, as ``python -m airflow_mcp.runtime``. It imports no Airflow."""
