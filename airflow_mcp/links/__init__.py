"""Links that operators show in the Airflow UI."""
