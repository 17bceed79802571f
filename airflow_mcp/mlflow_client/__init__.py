"""MLflow's REST API, blocking and asynchronous, without the mlflow package and without Airflow."""
