"""What tasks report to Airflow's metrics."""
