"""Stores of the audit log: PostgreSQL, and SQLite for demos and development. Does not import Airflow."""
