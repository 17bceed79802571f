"""Backends that run a :class:`~airflow_mcp.core.workload.Workload`; the operators choose one by ``runtime``."""
