"""Operators: one per action. They read and write MLflow through the hook and decide with ``airflow_mcp.core``."""
