"""One module per step: what `python -m airflow_mcp.work <step>` runs."""
