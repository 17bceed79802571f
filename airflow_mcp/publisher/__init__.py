"""The publisher API below ``/mcp/api/v1``: models for teams that use neither Python nor Airflow's UI."""
