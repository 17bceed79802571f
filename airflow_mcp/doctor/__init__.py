"""The checks of `airflow-mcp doctor`: MLflow, the cluster, one pod. Needs no Airflow."""
