"""The page in Airflow's UI: an application mounted in Airflow's API server."""
