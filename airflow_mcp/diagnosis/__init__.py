"""What is asked of a cluster and of MLflow: for the doctor and the sweeper. Needs no Airflow."""
